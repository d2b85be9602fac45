package pagekey

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// viewOf returns everything that a handler can find out about a request.
func viewOf(r *http.Request) string {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %q %s %d %d\nhost %q\nfrom %q\n", r.Method, r.RequestURI, r.Proto, r.ProtoMajor, r.ProtoMinor, r.Host, r.RemoteAddr)
	fmt.Fprintf(&b, "url %#v %q\npattern %q %q\n", *r.URL, r.URL, r.Pattern, r.PathValue("id"))
	for _, name := range slices.Sorted(maps.Keys(r.Header)) {
		fmt.Fprintf(&b, "%q: %q\n", name, r.Header[name])
	}
	body, err := io.ReadAll(r.Body)
	fmt.Fprintf(&b, "body %q %v %d %q %v %v %v\n", body, err, r.ContentLength, r.TransferEncoding, r.Close, r.Trailer, r.GetBody == nil)
	fmt.Fprintf(&b, "form %v %v %v\n", r.Form, r.PostForm, r.MultipartForm)
	fmt.Fprintf(&b, "tls %+v\n", r.TLS)
	fmt.Fprintf(&b, "context %v\n", r.Context())
	return b.String()
}

// A narrowCase is what a fuzzed visitor sends. The first part is in the key.
type narrowCase struct {
	path, host, q, page, accept, theme string
	https                              bool

	header, value, cookie, utm, remote string
	head, proxied                      bool
}

// request returns the request as a server would get it, or nil where the visitor
// sends nothing that a server would let through, or sends what is in the key twice.
func (c narrowCase) request() *http.Request {
	var b strings.Builder
	method := http.MethodGet
	if c.head {
		method = http.MethodHead
	}
	fmt.Fprintf(&b, "%s /%s?utm=%s&page=%s&q=%s&utm2=%s HTTP/1.1\r\nHost: %s\r\n", method, c.path, url.QueryEscape(c.utm),
		url.QueryEscape(c.page), url.QueryEscape(c.q), url.QueryEscape(c.utm), c.host)
	if c.accept != "" {
		fmt.Fprintf(&b, "Accept-Language: %s\r\n", c.accept)
	}
	fmt.Fprintf(&b, "Cookie: session=%s; theme=%s\r\n", c.cookie, c.theme)
	if c.header != "" {
		fmt.Fprintf(&b, "%s: %s\r\n", c.header, c.value)
	}
	b.WriteString("\r\n")
	if strings.ContainsAny(c.path, "?# ") {
		return nil // what comes after it is no longer what it is meant to be
	}
	in := bufio.NewReader(strings.NewReader(b.String()))
	r, err := http.ReadRequest(in)
	if err != nil || in.Buffered() > 0 {
		return nil
	}
	// What belongs to the key may not come by another way.
	for name, n := range map[string]int{"Accept-Language": 1, "Cookie": 1, "X-Forwarded-Proto": 0} {
		if len(r.Header[name]) > n {
			return nil
		}
	}
	switch {
	case c.https && c.proxied:
		r.Header.Set("X-Forwarded-Proto", "https")
	case c.https:
		r.TLS = &tls.ConnectionState{Version: tls.VersionTLS13, HandshakeComplete: true, ServerName: c.remote}
	}
	r.RemoteAddr = c.remote
	return r.WithContext(context.WithValue(context.Background(), http.LocalAddrContextKey, c.remote))
}

// Two visitors give the handler the same view, byte for byte, if and only if the
// keys of their pages are the same; and they are wherever all that differs is
// not declared.
func FuzzNarrow(f *testing.F) {
	for _, c := range []narrowCase{
		{},
		{path: "blog/1", host: "example.com", q: "shoes", page: "2", accept: "de", theme: "dark"},
		{path: "blog/1", host: "Example.COM", accept: "de, en;q=0.9", theme: `"dark"`, https: true,
			header: "User-Agent", value: "evil", cookie: "secret", utm: "campaign", remote: "203.0.113.7:1", head: true, proxied: true},
		{path: "a%2fb", host: "example.com:8080", header: "X-Forwarded-Host", value: "evil.example"},
		{path: "a", host: "h", header: "X-Original-URL", value: "/admin", remote: "127.0.0.1:1"},
		{path: "a", host: "h", header: "Accept-Encoding", value: "gzip", cookie: "a; theme=light"},
		{path: "a", host: "h", header: "If-None-Match", value: `"x"`, theme: "a,b"},
		{path: "a", host: "h", header: "Range", value: "bytes=0-1", theme: "\x80"},
		{path: "a", host: "h", header: "Connection", value: "close"},
		{path: "a", host: "h", header: "Transfer-Encoding", value: "chunked"},
		{path: "a", host: "h", header: "Trailer", value: "X"},
		{path: "a", host: "h", header: "Te", value: "trailers"},
		{path: "*", host: "h", header: "Content-Length", value: "0"},
		{path: "a?q=2#x", host: "h", q: "&", page: "%"},
	} {
		f.Add(c.path, c.host, c.q, c.page, c.accept, c.theme, c.https, c.header, c.value, c.cookie, c.utm, c.remote, c.head, c.proxied, "other")
	}
	rules, err := NewRules([]string{"q", "page"}, nil, []string{"Accept-Language"}, []string{"theme"}, nil)
	if err != nil {
		f.Fatal(err)
	}
	// look returns the page's key, and what the handler is to see of it.
	look := func(r *http.Request) (k Key, view string) {
		path, err := CleanPath(r.URL.EscapedPath())
		if err != nil {
			return k, err.Error()
		}
		k = rules.Key(r, path, Origin{}, new(Patterns))
		return k, viewOf(k.Request(context.Background(), Origin{}))
	}
	f.Fuzz(func(t *testing.T, path, host, q, page, accept, theme string, https bool, header, value, cookie, utm, remote string, head, proxied bool, other string) {
		c := narrowCase{path, host, q, page, accept, theme, https, header, value, cookie, utm, remote, head, proxied}
		r := c.request()
		if r == nil {
			return
		}
		k, view := look(r)
		if k == (Key{}) {
			return // not for the cache
		}
		for _, secret := range []string{cookie, value, utm, remote} {
			// Long enough not to be there by chance.
			if len(secret) > 20 && strings.Contains(view, secret) && !strings.Contains(fmt.Sprint(k), secret) {
				t.Errorf("%+v: the handler sees %q:\n%s", c, secret, view)
			}
		}

		// Not keyed: the same key, the same view.
		bare := narrowCase{path: disguise(r.URL.EscapedPath(), other)[1:], host: strings.ToLower(host), q: q, page: page, accept: accept, theme: theme, https: https}
		if plain := bare.request(); plain != nil && onlyTheme(r) == onlyTheme(plain) {
			if plainKey, plainView := look(plain); plainKey != k || plainView != view {
				t.Errorf("%+v: what is not declared makes a difference:\n%#v\n%s\nwithout it:\n%#v\n%s", c, k, view, plainKey, plainView)
			}
		}

		// Keyed: the same view only with the same key.
		for _, change := range []func(*narrowCase){
			func(c *narrowCase) { c.path = other },
			func(c *narrowCase) { c.host = other },
			func(c *narrowCase) { c.q = other },
			func(c *narrowCase) { c.page = other },
			func(c *narrowCase) { c.q, c.page = c.page, c.q },
			func(c *narrowCase) { c.accept = other },
			func(c *narrowCase) { c.theme = other },
			func(c *narrowCase) { c.accept, c.theme = c.theme, c.accept },
			func(c *narrowCase) { c.https = !c.https },
		} {
			changed := c
			change(&changed)
			if r := changed.request(); r != nil {
				otherKey, otherView := look(r)
				if otherKey != (Key{}) && (otherKey == k) != (otherView == view) {
					t.Errorf("%+v and %+v: one key: %v, one view: %v\n%#v\n%s\n%#v\n%s", c, changed, otherKey == k, otherView == view, k, view, otherKey, otherView)
				}
			}
		}
	})
}

// onlyTheme returns the cookies that the route declares, since a fuzzed session
// cookie may bring some of its own.
func onlyTheme(r *http.Request) (s string) {
	for _, c := range r.CookiesNamed("theme") {
		s += fmt.Sprintf("%q ", c.Value)
	}
	return s
}
