package main

import (
	"compress/gzip"
	"fmt"
	"io"
	"slices"
	"strings"
)

// A difference is one that isr is meant to make.
type difference struct {
	what, where, why string
	match            func(x *exchange, c change) bool
}

// added reports whether isr has added a field with that value.
func added(field, value string) func(*exchange, change) bool {
	return func(_ *exchange, c change) bool {
		return c.field == field && c.off == "" && (c.on == value || value == "")
	}
}

// by reports whether Cache-Status begins with one of these.
func (x *exchange) by(outcomes ...string) bool {
	return slices.ContainsFunc(outcomes, func(s string) bool { return strings.HasPrefix(x.on["Cache-Status"], s) })
}

// fromPage reports whether the answer is a page.
func (x *exchange) fromPage() bool {
	return x.by("isr; hit") || strings.HasSuffix(x.on["Cache-Status"], "; stored")
}

// differences are all that are allowed. The first that matches counts; those of whole
// answers come first.
var differences = []difference{
	{
		"`HEAD` is answered", "pages of routes that are for GET alone",
		"A router without a route for HEAD says 404 or 405. isr answers from the page, as RFC 9110, section 9.3.2 wants it.",
		func(x *exchange, _ change) bool {
			_, conditional := x.has("If-None-Match")
			return x.method == "HEAD" && x.get != nil && (x.off["status"] == "404" || x.off["status"] == "405") &&
				(x.off["status"] != x.get["status"] || x.off["Content-Type"] != x.get["Content-Type"]) &&
				x.on["body"] == "" && (x.on["status"] == x.get["status"] || conditional && x.on["status"] == "304")
		},
	},
	{
		"304", "`If-None-Match`, `If-Modified-Since` and a handler that does not look at them",
		"isr answers conditional requests from the page. A 304 has no fields that say how the body is.",
		func(x *exchange, c change) bool {
			_, ifNoneMatch := x.has("If-None-Match")
			_, ifModifiedSince := x.has("If-Modified-Since")
			return (ifNoneMatch || ifModifiedSince) && x.fromPage() && x.on["body"] == "" && x.on["status"] == "304" &&
				(x.off["status"] == "200" && slices.Contains([]string{"status", "body", "length", "Content-Type", "Content-Language"}, c.field))
		},
	},
	{
		"`Last-Modified` is left out of a 304", "assets",
		"`http.ServeContent` leaves it out where there is an `ETag`, which every page has.",
		func(x *exchange, c change) bool {
			return c.field == "Last-Modified" && c.on == "" && x.on["status"] == "304" && x.on["Etag"] != ""
		},
	},
	{
		"206", "`Range`, and a handler that does not look at it",
		"isr cuts ranges out of the page.",
		func(x *exchange, c change) bool {
			_, ok := x.has("Range")
			return ok && x.fromPage() && x.off["status"] == "200" && x.on["status"] == "206" && x.off["body"][:10] == x.on["body"] &&
				slices.Contains([]string{"status", "body", "length", "Content-Range", "Accept-Ranges"}, c.field)
		},
	},
	{
		"gzip", "`Accept-Encoding`, pages that compress",
		"Pages are compressed once, when they are made.",
		func(x *exchange, c change) bool {
			if x.on["Content-Encoding"] != "gzip" || !slices.Contains([]string{"body", "length", "Content-Encoding"}, c.field) {
				return false
			}
			z, err := gzip.NewReader(strings.NewReader(x.on["body"]))
			if err != nil {
				return false
			}
			b, err := io.ReadAll(z)
			return err == nil && string(b) == x.off["body"]
		},
	},
	{
		"headers that the route does not declare are not seen", "`/sees`, which shows `User-Agent`",
		"A page is a function of its URL. Declare them in `Route.Vary`.",
		func(x *exchange, c change) bool {
			return x.target == "/sees" && (c.field == "length" || c.field == "body" && strings.HasSuffix(c.on, `as ""`+"\n"))
		},
	},
	{
		"the query is in canonical order, and without tracking parameters", "`/url`, which shows `RequestURI`",
		"Two spellings of a query are one page. `Route.Query` and `IgnoreQuery` say what counts.",
		func(x *exchange, c change) bool {
			page, ok := map[string]string{"/url?b=2&a=1": "/url?a=1&amp;b=2", "/url?a=1&gclid=2": "/url?a=1", "/url?": "/url"}[x.target]
			return ok && (c.field == "length" || c.field == "body" && strings.HasSuffix(c.on, page+"\n"))
		},
	},
	{
		"an escape that no path needs is decoded", "`/path/%61`",
		"`/%61` and `/a` are one page (RFC 3986, section 6.2.2). These routers match the path as it was sent.",
		func(x *exchange, c change) bool {
			return x.target == "/path/%61" && (c.field == "length" || c.field == "body" && strings.HasSuffix(c.on, `"a"`+"\n"))
		},
	},
	{
		"`Content-Length` is known", "pages that are streamed, or larger than 2 KB",
		"A page is stored before it is sent, so it has a length, and is not sent in chunks.",
		func(x *exchange, c change) bool {
			return c.field == "length" && c.off == "unknown" && x.fromPage() && (c.on == fmt.Sprint(len(x.on["body"])) || x.method == "HEAD")
		},
	},
	{
		"no `Content-Length` in answers to `HEAD`", "failures",
		"isr sends the failure's own answer without one; it is optional (RFC 9110, section 8.6).",
		func(x *exchange, c change) bool {
			return x.method == "HEAD" && c.field == "length" && c.on == "unknown" && strings.HasPrefix(x.on["status"], "5")
		},
	},
	{
		"no 103 Early Hints", "`/hints`",
		"1xx answers are not replayed; the page's own `Link` goes out with it.",
		func(x *exchange, c change) bool { return c.field == "early hints" && c.on == "" && x.fromPage() },
	},
	{
		"no trailers", "`/trailer`",
		"Trailers are not replayed.",
		func(x *exchange, c change) bool {
			return strings.HasPrefix(c.field, "trailer ") && c.on == "" && x.fromPage()
		},
	},
	{
		"`Cache-Status`", "every answer of the site", "Says what has become of the request (RFC 9211).",
		func(x *exchange, c change) bool { return added("Cache-Status", "")(x, c) && x.by("isr; ") },
	},
	{
		"`Cache-Control: no-store`", "failures: 500, 503",
		"Nothing in front may keep an error that had no page to stand in for it.",
		func(x *exchange, c change) bool {
			return added("Cache-Control", "no-store")(x, c) && strings.HasPrefix(x.on["status"], "5") && x.by("isr; fwd=uri-miss; fwd-status=5")
		},
	},
	{
		"`Cache-Control: no-store`", "412, 416",
		"A cache in front that passes a visitor's conditions on would else show the error to everybody.",
		func(x *exchange, c change) bool {
			return added("Cache-Control", "no-store")(x, c) && (x.on["status"] == "412" || x.on["status"] == "416")
		},
	},
	{
		"`Cache-Control: private`", "`Authorization`, `Upgrade`, a body with GET, `//posts`, `/posts/./1`",
		"These pass although the route is cached: what the handler says of its page must not be said of one visitor's answer.",
		func(x *exchange, c change) bool {
			return c.field == "Cache-Control" && x.by("isr; fwd=bypass") && x.target != "/account" &&
				(c.off == "" && c.on == "private, max-age=0" || c.on == "private, "+c.off)
		},
	},
	{
		"`max-age=0` beside a handler's `s-maxage`", "`/says/s-maxage=60`",
		"Without it browsers would guess how long they may keep the page.",
		func(x *exchange, c change) bool {
			return c.field == "Cache-Control" && x.fromPage() && c.on == c.off+", max-age=0"
		},
	},
	{
		"`Cache-Control: public, max-age=0, s-maxage=…`", "pages whose handler says nothing",
		"Derived from the TTL, at most `SharedMaxAge`.",
		func(x *exchange, c change) bool {
			return c.field == "Cache-Control" && c.off == "" && x.fromPage() && strings.HasPrefix(c.on, "public, max-age=0, s-maxage=")
		},
	},
	{
		"`Age`", "pages", "How much of the promise is used up (RFC 9111).",
		func(x *exchange, c change) bool { return added("Age", "")(x, c) && x.fromPage() },
	},
	{
		"`ETag`", "pages whose handler sets none", "A strong one, of the stored bytes.",
		func(x *exchange, c change) bool { return added("Etag", "")(x, c) && x.fromPage() },
	},
	{
		"no `Cache-Tag`", "pages whose handler sets it",
		"It is for isr. What a cache in front is to know of tags, `Options.Edge` says.",
		func(x *exchange, c change) bool { return c.field == "Cache-Tag" && c.on == "" && x.fromPage() },
	},
	{
		"`No-Vary-Search`", "pages whose route says which parameters count",
		"Caches that know it keep one page for all spellings of a query, as isr does.",
		func(x *exchange, c change) bool {
			return c.field == "No-Vary-Search" && c.off == "" && strings.HasPrefix(c.on, "key-order") && x.fromPage()
		},
	},
	{
		"`Accept-Ranges`", "pages", "isr answers ranges.",
		func(x *exchange, c change) bool { return added("Accept-Ranges", "bytes")(x, c) && x.fromPage() },
	},
	{
		"`Vary` names what the route declares, and `Accept-Encoding`", "pages",
		"Caches in front must tell the same variants apart. What middleware around the site has put there stays, where a handler that sets `Vary` would have removed it.",
		func(x *exchange, c change) bool {
			return c.field == "Vary" && x.fromPage() && strings.HasPrefix(c.on, "Cookie") && strings.Contains(c.on, c.off) && eachOnce(c.on)
		},
	},
}

// eachOnce reports whether a list names nothing twice, in whatever case.
func eachOnce(list string) bool {
	seen := make(map[string]bool)
	for name := range strings.SplitSeq(strings.ToLower(list), ",") {
		if name = strings.TrimSpace(name); seen[name] {
			return false
		}
		seen[name] = true
	}
	return true
}

// explain returns the index of the difference that a change is, or -1.
func explain(x *exchange, c change) int {
	return slices.IndexFunc(differences, func(d difference) bool { return d.match(x, c) })
}
