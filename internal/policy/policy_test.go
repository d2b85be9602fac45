package policy_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isr-go/isr/internal/header"
	"github.com/isr-go/isr/internal/pagekey"
	"github.com/isr-go/isr/internal/policy"
)

const forever = policy.Forever

// newRoute returns a route as an isr.Route makes it that keeps pages for a minute and
// declares a header and a cookie, but for what edit changes.
func newRoute(t *testing.T, edit func(*policy.Route)) *policy.Route {
	t.Helper()
	rules, err := pagekey.NewRules(nil, nil, []string{"Accept-Language"}, []string{"theme"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	rt := &policy.Route{
		Rules: rules, TTL: time.Minute, StaleWhileRevalidate: forever, StaleIfError: forever,
		NotFoundTTL: 10 * time.Second, SharedMaxAge: time.Minute,
	}
	if edit != nil {
		edit(rt)
	}
	return rt
}

// fields reads headers of a line each.
func fields(lines string) http.Header {
	h := make(http.Header)
	for line := range strings.SplitSeq(lines, "\n") {
		if name, value, ok := strings.Cut(line, ": "); ok {
			h.Add(name, value)
		}
	}
	return h
}

// What is stored, and for how long.
func TestWhatIsStored(t *testing.T) {
	noStore := func(rt *policy.Route) { rt.TTL, rt.NotFoundTTL = -1, -1 }
	kept := func(rt *policy.Route) { rt.TTL = forever }
	bounded := func(rt *policy.Route) { rt.StaleWhileRevalidate, rt.StaleIfError = time.Hour, -1 }
	no404 := func(rt *policy.Route) { rt.NotFoundTTL = -1 }
	bare := func(rt *policy.Route) { rt.Rules, _ = pagekey.NewRules(nil, nil, nil, nil, nil) }
	whole := func(rt *policy.Route) { rt.Rules, _ = pagekey.NewRules(nil, nil, []string{"cookie"}, nil, nil) }
	s := time.Second
	type lifetime = policy.Lifetime
	route := lifetime{time.Minute, forever, forever, 0}
	for _, test := range []struct {
		name   string
		route  func(*policy.Route) // nil: as newRoute has it
		status int
		header string
		why    string   // it is not stored
		want   lifetime // where it is
	}{
		// The statuses.
		{"200 is stored", nil, 200, "", "", route},
		{"203 is stored", nil, 203, "", "", route},
		{"301 is stored", nil, 301, "Location: /b", "", route},
		{"308 is stored", nil, 308, "Location: /b", "", route},
		{"404 is a page, but not for long, and not stale", nil, 404, "", "", lifetime{10 * s, 0, forever, 0}},
		{"410 is a page, but not for long, and not stale", nil, 410, "", "", lifetime{10 * s, 0, forever, 0}},
		{"404 is shown stale where the handler says so", nil, 404, "Cache-Control: stale-while-revalidate=5", "", lifetime{10 * s, 5 * s, forever, 0}},
		{"404 lives as long as the handler says", nil, 404, "Cache-Control: max-age=3600", "", lifetime{time.Hour, 0, forever, 0}},
		{"404 where NotFoundTTL is negative", no404, 404, "", "has status 404, and Route.NotFoundTTL is negative", lifetime{}},
		{"410 where NotFoundTTL is negative", no404, 410, "", "has status 410, and Route.NotFoundTTL is negative", lifetime{}},
		{"404 where NotFoundTTL is negative, but the handler says how long", no404, 404, "Cache-Control: max-age=5", "", lifetime{5 * s, 0, forever, 0}},
		{"302 depends on cookies", nil, 302, "Location: /login", "has status 302", lifetime{}},
		{"307 depends on cookies", nil, 307, "Location: /login", "has status 307", lifetime{}},
		{"303", nil, 303, "Location: /", "has status 303", lifetime{}},
		{"204", nil, 204, "", "has status 204", lifetime{}},
		{"403", nil, 403, "", "has status 403", lifetime{}},
		{"418", nil, 418, "", "has status 418", lifetime{}},
		{"302 with an explicit lifetime (RFC 9110, section 15.1)", nil, 302, "Cache-Control: max-age=5", "", lifetime{5 * s, forever, forever, 0}},
		{"204 with an explicit lifetime (RFC 9110, section 15.1)", nil, 204, "Cache-Control: s-maxage=5", "", lifetime{5 * s, forever, forever, 0}},
		{"302 with a lifetime of nothing", nil, 302, "Cache-Control: max-age=0", "has status 302", lifetime{}},
		{"302 that is but public", nil, 302, "Cache-Control: public", "has status 302", lifetime{}},
		{"206 is a part (RFC 9111, section 3.3)", nil, 206, "Cache-Control: max-age=5", "has status 206", lifetime{}},
		{"304 is none (RFC 9111, section 3)", nil, 304, "Cache-Control: max-age=5", "has status 304", lifetime{}},
		{"101 is not final (RFC 9111, section 3)", nil, 101, "Cache-Control: max-age=5", "has status 101", lifetime{}},

		// For whom it is.
		{"Set-Cookie", nil, 200, "Set-Cookie: session=1", "sets a cookie", lifetime{}},
		{"Set-Cookie, whatever else it says", nil, 200, "Set-Cookie: session=1\nCache-Control: public, max-age=60", "sets a cookie", lifetime{}},
		{"private (RFC 9111, section 5.2.2.7)", nil, 200, "Cache-Control: max-age=60, private", "is private by its Cache-Control", lifetime{}},
		{"private for some fields counts as private (RFC 9111, section 5.2.2.7)", nil, 200, `Cache-Control: private="X-User"`, "is private by its Cache-Control", lifetime{}},
		{"no-store (RFC 9111, section 5.2.2.5)", nil, 200, "Cache-Control: max-age=60\nCache-Control: No-Store", "is no-store by its Cache-Control", lifetime{}},
		{"no-cache (RFC 9111, section 5.2.2.4)", nil, 200, "Cache-Control: no-cache", "is no-cache by its Cache-Control", lifetime{}},
		{"no-cache for some fields counts as no-cache (RFC 9111, section 5.2.2.4)", nil, 200, `Cache-Control: no-cache="Set-Cookie", max-age=60`, "is no-cache by its Cache-Control", lifetime{}},
		{"private says more than no-store", nil, 200, "Cache-Control: no-store, private", "is private by its Cache-Control", lifetime{}},
		{"Pragma is a request's (RFC 9111, section 5.4)", nil, 200, "Pragma: no-cache", "", route},
		{"a targeted field is another cache's (RFC 9213, section 2)", nil, 200, "CDN-Cache-Control: no-store\nSurrogate-Control: max-age=1", "", route},
		{"what an extension says (RFC 9111, section 5.2.3)", nil, 200, `Cache-Control: community="private, no-store", public`, "", route},

		// What it varies on.
		{"Vary: * (RFC 9111, section 4.1)", nil, 200, "Vary: Accept-Language, *", "varies on everything", lifetime{}},
		{"Vary on a declared header (RFC 9111, section 4.1)", nil, 200, "Vary: accept-language", "", route},
		{"Vary on Accept-Encoding, which isr answers itself", nil, 200, "Vary: Accept-Encoding", "", route},
		{"Vary on what the key has anyway", nil, 200, "Vary: Host, X-Forwarded-Proto", "", route},
		{"Vary on a header that the route does not declare", nil, 200, "Vary: Accept-Language\nVary: accept-encoding, hx-request", "varies on Hx-Request", lifetime{}},
		{"Vary on Cookie where cookies are declared", nil, 200, "Vary: Cookie", "", route},
		{"Vary on Cookie where the whole header is declared", whole, 200, "Vary: Cookie", "", route},
		{"Vary on Cookie where none is", bare, 200, "Vary: Cookie", "varies on Cookie", lifetime{}},
		{"Vary on Authorization", nil, 200, "Vary: Authorization", "varies on Authorization", lifetime{}},

		// What it is.
		{"an event stream", nil, 200, "Content-Type: text/event-stream; charset=utf-8", "is an event stream", lifetime{}},
		{"an event stream in capitals (RFC 9110, section 8.3.1)", nil, 200, "Content-Type: Text/Event-Stream", "is an event stream", lifetime{}},
		{"what only begins like one", nil, 200, "Content-Type: text/event-stream-log", "", route},
		{"Cache-Tag", nil, 200, "Cache-Tag: a, b", "", route},
		{"a Cache-Tag that is none", nil, 200, "Cache-Tag: a, /b", "has a Cache-Tag that is none", lifetime{}},

		// For how long (RFC 9111, section 4.2.1).
		{"kept until revalidated", kept, 200, "", "", lifetime{forever, forever, forever, 0}},
		{"bounds of the route", bounded, 200, "", "", lifetime{time.Minute, time.Hour, -1, 0}},
		{"max-age goes before the route (RFC 9111, section 4.2.1)", kept, 200, "Cache-Control: max-age=5", "", lifetime{5 * s, forever, forever, 0}},
		{"s-maxage goes before max-age (RFC 9111, section 4.2.1)", nil, 200, "Cache-Control: max-age=5, s-maxage=7", "", lifetime{7 * s, forever, forever, 0}},
		{"max-age goes before Expires (RFC 9111, section 4.2.1)", nil, 200, "Cache-Control: max-age=5\nExpires: 0", "", lifetime{5 * s, forever, forever, 0}},
		{"Expires is counted from Date (RFC 9111, section 4.2.1)", nil, 200, "Expires: Thu, 01 Jan 1998 00:02:00 GMT\nDate: Thu, 01 Jan 1998 00:00:00 GMT", "", lifetime{2 * time.Minute, forever, forever, 0}},
		{"Expires without a Date is counted from now (RFC 9111, section 4.2.1)", nil, 200, "Expires: Sat, 01 Jan 2000 01:00:00 GMT", "", lifetime{time.Hour, forever, forever, 0}},
		{"Expires in the past", nil, 200, "Expires: Thu, 01 Jan 1998 00:00:00 GMT", "", lifetime{0, forever, forever, 0}},
		{"Expires that is no date (RFC 9111, section 5.3)", nil, 200, "Expires: 0", "", lifetime{0, forever, forever, 0}},
		{"the first of duplicates (RFC 9111, section 4.2.1)", nil, 200, "Cache-Control: max-age=5\nCache-Control: max-age=7", "", lifetime{5 * s, forever, forever, 0}},
		{"what is no number means stale (RFC 9111, section 4.2.1)", nil, 200, "Cache-Control: max-age=soon", "", lifetime{0, forever, forever, 0}},
		{"a quoted number is one (RFC 9111, section 5.2)", nil, 200, `Cache-Control: max-age="5"`, "", lifetime{5 * s, forever, forever, 0}},
		{"a number that is too large (RFC 9111, section 1.2.2)", nil, 200, "Cache-Control: max-age=99999999999999999999", "", lifetime{(1<<31 - 1) * s, forever, forever, 0}},
		{"stale-while-revalidate (RFC 5861, section 3)", bounded, 200, "Cache-Control: stale-while-revalidate=5", "", lifetime{time.Minute, 5 * s, -1, 0}},
		{"stale-if-error (RFC 5861, section 4)", bounded, 200, "Cache-Control: max-age=1, stale-if-error=5", "", lifetime{s, time.Hour, 5 * s, 0}},
		{"stale-while-revalidate of nothing (RFC 5861, section 3)", nil, 200, "Cache-Control: stale-while-revalidate=0", "", lifetime{time.Minute, 0, forever, 0}},
		{"must-revalidate is never stale (RFC 9111, section 5.2.2.2)", nil, 200, "Cache-Control: must-revalidate, stale-if-error=5", "", lifetime{time.Minute, 0, 0, 0}},
		{"proxy-revalidate is never stale (RFC 9111, section 5.2.2.8)", nil, 200, "Cache-Control: max-age=5, proxy-revalidate", "", lifetime{5 * s, 0, 0, 0}},

		// Routes that store only what the handler marks.
		{"a NoStore route", noStore, 200, "", "has no lifetime by its Cache-Control, and Route.TTL is NoStore", lifetime{}},
		{"a NoStore route and max-age", noStore, 200, "Cache-Control: max-age=5", "", lifetime{5 * s, forever, forever, 0}},
		{"a NoStore route and a lifetime of nothing", noStore, 200, "Cache-Control: max-age=0", "has no lifetime by its Cache-Control, and Route.TTL is NoStore", lifetime{}},
		{"a NoStore route and 404", noStore, 404, "", "has no lifetime by its Cache-Control, and Route.TTL is NoStore", lifetime{}},
		{"a NoStore route and 404 with max-age", noStore, 404, "Cache-Control: max-age=5", "", lifetime{5 * s, 0, forever, 0}},
		{"a NoStore route and 302 with max-age", noStore, 302, "Cache-Control: max-age=5", "", lifetime{5 * s, forever, forever, 0}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // where it is 2000-01-01 00:00:00 UTC
				rt, h := newRoute(t, test.route), fields(test.header)
				why := rt.Refuses(test.status, h)
				if why == (policy.Refusal{}) {
					why = rt.RefusesAtEnd(test.status, h, new(policy.Said))
				}
				if got := why.Why; got != test.why {
					t.Errorf("refused because it %q, want %q", got, test.why)
				}
				if test.why != "" {
					return
				}
				d := header.ParseCacheControl(h["Cache-Control"])
				got, explicit := rt.Lifetime(test.status, h, d)
				if diff := cmp.Diff(test.want, got); diff != "" {
					t.Errorf("lifetime (-want +got):\n%s", diff)
				}
				if want := d.MaxAge >= 0 || d.SMaxAge >= 0 || h["Expires"] != nil; explicit != want {
					t.Errorf("explicit: %v, want %v", explicit, want)
				}
			})
		})
	}
}

// A refusal says what a developer can do about it.
func TestRemedies(t *testing.T) {
	rt := newRoute(t, func(rt *policy.Route) { rt.Rules, _ = pagekey.NewRules(nil, nil, nil, nil, nil) })
	for lines, want := range map[string]string{
		"Set-Cookie: a=b":                     "set it in middleware",
		"Content-Type: text/event-stream":     "set Route.Bypass",
		"Vary: Cookie":                        "name the cookies in Route.VaryCookies",
		"Vary: HX-Request":                    "add it to Route.Vary",
		"Vary: User-Agent":                    "Route.Normalize",
		"Vary: Origin":                        "move CORS outside of isr",
		"Vary: Access-Control-Request-Method": "move CORS outside of isr",
		"Vary: If-None-Match":                 "leave it out of Vary",
		"Vary: Connection":                    "leave it out of Vary",
		"Vary: a b":                           "not the name of a header",
		"Cache-Tag: /a":                       "paths are for Revalidate",
	} {
		got := rt.Refuses(200, fields(lines))
		if !strings.Contains(got.Remedy, want) || got.String() != got.Why+": "+got.Remedy {
			t.Errorf("%s: %q, want %q", lines, got, want)
		}
	}
	if got := rt.Refuses(302, nil); !strings.Contains(got.Remedy, "Route.Bypass") || !strings.Contains(got.Remedy, "max-age") {
		t.Errorf("302: %q", got)
	}
	if got := rt.Refuses(200, fields("Cache-Control: private")); got.String() != got.Why || got.Why == "" {
		t.Errorf("private, which is what was asked for, has a remedy: %q", got)
	}
}

// Which answers say that the handler could not make the page.
func TestIsFailure(t *testing.T) {
	teapot := func(status int, h http.Header) bool { return status == 418 || h["X-Soft-Error"] != nil }
	for _, test := range []struct {
		status  int
		header  string
		failure func(int, http.Header) bool
		want    bool
	}{
		{200, "", nil, false}, {304, "", nil, false}, {404, "", nil, false}, {410, "", nil, false}, {403, "", nil, false}, {418, "", nil, false},
		{499, "", nil, false}, {408, "", nil, true}, {425, "", nil, true}, {429, "", nil, true},
		{500, "", nil, true}, {503, "", nil, true}, {599, "", nil, true}, {600, "", nil, true},
		{418, "", teapot, true}, {200, "X-Soft-Error: 1", teapot, true}, {200, "", teapot, false}, {404, "", teapot, false},
		{503, "", teapot, true}, {429, "", teapot, true}, // Failure adds to these
	} {
		rt := newRoute(t, func(rt *policy.Route) { rt.Failure = test.failure })
		if got := rt.IsFailure(test.status, fields(test.header)); got != test.want {
			t.Errorf("%d %s, with Failure: %v: %v, want %v", test.status, test.header, test.failure != nil, got, test.want)
		}
	}
}

// Which responses that are not stored take the stored page with them: those that say there
// is none, or that it is not for everybody, but not those that may be a passing fault.
func TestRemoves(t *testing.T) {
	for _, test := range []struct {
		name   string
		status int
		header string
		want   bool
	}{
		{"401", 401, "", true},
		{"402", 402, "", true},
		{"403", 403, "", true},
		{"407", 407, "", true},
		{"451", 451, "", true},
		{"a redirect", 302, "Location: /login", true},
		{"a redirect with another method", 303, "", true},
		{"Set-Cookie", 200, "Set-Cookie: a=b", true},
		{"private", 200, "Cache-Control: private", true},
		{"private, whatever else it says", 200, "Cache-Control: no-store, no-cache, private", true},
		{"private for some fields", 200, `Cache-Control: private="X"`, true},
		{"no-store", 200, "Cache-Control: no-store", false},
		{"no-cache", 200, "Cache-Control: no-cache", false},
		{"Vary: *", 200, "Vary: *", false},
		{"an odd status", 204, "", false},
		{"304", 304, "", false},
		{"404", 404, "", true},
		{"410, whatever else it says", 410, "Cache-Control: no-store", true},
		{"418", 418, "", false},
		{"500", 500, "", false},
	} {
		if got := policy.Removes(test.status, fields(test.header)); got != test.want {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

// What goes out where the handler says nothing: browsers ask each time, shared caches may
// hold the page for as long as it is fresh, but not for longer than SharedMaxAge.
func TestCacheControlFor(t *testing.T) {
	own := func(rt *policy.Route) { rt.CacheControl = "public, max-age=300" }
	authorized := func(rt *policy.Route) {
		rt.Rules, _ = pagekey.NewRules(nil, nil, []string{"Authorization"}, nil, nil)
	}
	for _, test := range []struct {
		name   string
		route  func(*policy.Route)
		status int
		ttl    time.Duration
		want   string
	}{
		{"a short TTL", nil, 200, 20 * time.Second, "public, max-age=0, s-maxage=20"},
		{"a part of a second", nil, 200, time.Second / 2, "public, max-age=0, s-maxage=0"},
		{"a long TTL", nil, 200, time.Hour, "public, max-age=0, s-maxage=60"},
		{"for ever", nil, 200, forever, "public, max-age=0, s-maxage=60"},
		{"for ever, and no bound to speak of", func(rt *policy.Route) { rt.SharedMaxAge = forever }, 200, forever, "public, max-age=0, s-maxage=31536000"},
		{"not at all", nil, 200, -1, "public, max-age=0, s-maxage=0"},
		{"SharedMaxAge is negative", func(rt *policy.Route) { rt.SharedMaxAge = -1 }, 200, time.Hour, "public, max-age=0"},
		{"the route's", own, 200, time.Hour, "public, max-age=300"},
		{"the route's on a redirect", own, 301, time.Hour, "public, max-age=300"},
		{"the route's, but 404", own, 404, 10 * time.Second, "public, max-age=0, s-maxage=10"},
		{"the key holds an Authorization (RFC 9111, section 3.5)", authorized, 200, time.Hour, "private, max-age=0"},
	} {
		if got := newRoute(t, test.route).CacheControlFor(test.status, policy.Lifetime{TTL: test.ttl}); got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}

// A page has the tags of its route and of its handler, each once, and never more than a
// Store takes.
func TestTagsOf(t *testing.T) {
	rt := newRoute(t, func(rt *policy.Route) { rt.Tags = append(make([]string, 0, 10), "a", "b") })
	for lines, want := range map[string][]string{
		"":                                 {"a", "b"},
		"Cache-Tag: ":                      {"a", "b"},
		"Cache-Tag: c, a,,d":               {"a", "b", "c", "d"},
		"Cache-Tag: d\nCache-Tag: d, c, d": {"a", "b", "d", "c"},
	} {
		if got := rt.TagsOf(fields(lines), new(policy.Said)); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", lines, got, want)
		}
	}
	var many []string
	for i := range 1000 {
		many = append(many, fmt.Sprint("tag", i))
	}
	if got := rt.TagsOf(fields("Cache-Tag: "+strings.Join(many, ",")), new(policy.Said)); len(got) > 128 || got[0] != "a" || got[2] != "tag0" {
		t.Errorf("%d tags: %q", len(got), got)
	}
	if got := rt.Tags[:3][2]; got != "" {
		t.Errorf("the handler's tags are written behind the route's: %q", got)
	}
}

// Which requests go past the cache: those with an Authorization that is not in the key,
// and those that the route names.
func TestBypasses(t *testing.T) {
	bypass := func(rt *policy.Route) {
		rt.Bypass = func(r *http.Request) bool { return r.Header["X-Preview"] != nil }
	}
	keyed := func(rt *policy.Route) {
		rt.Rules, _ = pagekey.NewRules(nil, nil, []string{"authorization"}, nil, nil)
	}
	for _, test := range []struct {
		name   string
		route  func(*policy.Route)
		header string
		want   bool
	}{
		{"any visitor", bypass, "Cookie: session=1", false},
		{"what the route names", bypass, "X-Preview: 1", true},
		{"Authorization", nil, "Authorization: Bearer x", true},
		{"Authorization that is in the key", keyed, "Authorization: Bearer x", false},
	} {
		if got := newRoute(t, test.route).Bypasses(&http.Request{Header: fields(test.header)}); got != test.want {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}
