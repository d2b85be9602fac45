package isr_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isr-go/isr"
)

// Age says how much of what the Cache-Control promises is used up: a cache that
// honours it holds the page as long as it is fresh here and no longer, and one that
// ignores it not for longer than SharedMaxAge.
func TestAgeOfThePromise(t *testing.T) {
	type at struct {
		after time.Duration // since the page was generated
		age   string
	}
	for name, test := range map[string]struct {
		route   isr.Route
		shared  time.Duration
		control string // the handler's
		at      []at
	}{
		"a TTL below SharedMaxAge":     {isr.Route{TTL: 10 * time.Second}, 0, "", []at{{0, "0"}, {3 * time.Second, "3"}, {9999 * time.Millisecond, "9"}, {13 * time.Second, "13"}}},
		"a TTL above SharedMaxAge":     {isr.Route{TTL: time.Hour}, 0, "", []at{{0, "0"}, {30 * time.Minute, "0"}, {59 * time.Minute, "0"}, {59*time.Minute + 45*time.Second, "45"}, {time.Hour + 5*time.Second, "65"}}},
		"kept for ever":                {isr.Route{}, 0, "", []at{{0, "0"}, {10000 * time.Hour, "0"}}},
		"no s-maxage":                  {isr.Route{TTL: 10 * time.Second}, -1, "", []at{{9 * time.Second, "0"}, {13 * time.Second, "3"}}},
		"the route's, for long":        {isr.Route{CacheControl: "public, max-age=31536000, immutable"}, 0, "", []at{{time.Hour, "0"}}},
		"the route's, shorter":         {isr.Route{TTL: time.Minute, CacheControl: "public, max-age=5"}, 0, "", []at{{40 * time.Second, "0"}, {58 * time.Second, "3"}}},
		"the handler's":                {isr.Route{}, 0, "max-age=600", []at{{100 * time.Second, "100"}, {601 * time.Second, "601"}}},
		"the handler's s-maxage":       {isr.Route{}, 0, "s-maxage=600, max-age=5", []at{{100 * time.Second, "100"}}},
		"the handler promises nothing": {isr.Route{TTL: time.Minute}, 0, "public", []at{{40 * time.Second, "40"}}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, at := range test.at {
				synctest.Test(t, func(t *testing.T) {
					site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						if test.control != "" {
							w.Header().Set("Cache-Control", test.control)
						}
					}), isr.Options{Default: test.route, SharedMaxAge: test.shared})
					get(site, "/")
					time.Sleep(at.after)
					if got := get(site, "/").Header.Get("Age"); got != at.age {
						t.Errorf("Age %s after %v, want %s", got, at.after, at.age)
					}
					synctest.Wait()
				})
			}
		})
	}
}

// The dates and the Age of an upstream count as RFC 9110 and RFC 9111 say, and not
// as generously as they can be read.
func TestLifetimeFromUpstream(t *testing.T) {
	const in60 = "Sat, 01 Jan 2000 00:01:00 GMT" // bubbles begin at midnight of that day
	for _, test := range []struct {
		expires, age []string
		ttl          time.Duration // left of it
	}{
		{[]string{in60}, nil, 60},
		{[]string{"sat, 01 jan 2000 00:01:00 gmt"}, nil, 60}, // RFC 9111, section 4.2
		{[]string{"Saturday, 01-Jan-00 00:01:00 GMT"}, nil, 60},
		{[]string{"Sat Jan  1 00:01:00 2000"}, nil, 60},
		{[]string{"Saturday, 01-Jan-00 00:01:00 EST"}, nil, -1},
		{[]string{"Saturday, 01-Jan-00 00:01:00 UTC"}, nil, -1},
		{[]string{"Sat, 01 Jan 2000 00:01:00 +0000"}, nil, -1},
		{[]string{"Sat, 01 Jan 2000 00:01:00.5 GMT"}, nil, -1},
		{[]string{"0"}, nil, -1},
		{[]string{in60}, []string{"40"}, 20},
		{[]string{in60}, []string{"40, 0"}, 20},
		{[]string{in60}, []string{"40", "0"}, 20},
		{[]string{in60}, []string{"0, 40"}, 60},
		{[]string{in60}, []string{"7200, 0"}, -1},
		{[]string{in60}, []string{"-40"}, 60},
		{[]string{in60}, []string{"soon"}, 60},
	} {
		t.Run(fmt.Sprint(test.expires, test.age), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					w.Header()["Expires"], w.Header()["Age"] = test.expires, test.age
				}), isr.Options{})
				get(site, "/")
				if test.ttl < 0 {
					if got := pages(site)["/"].State; got == isr.Fresh {
						t.Errorf("%v", got)
					}
					return
				}
				want := fmt.Sprintf("isr; hit; ttl=%d", test.ttl)
				if got := get(site, "/").Header.Get("Cache-Status"); got != want {
					t.Errorf("%q, want %q", got, want)
				}
			})
		})
	}
}

// Conditions that come in several lines are one list, and dates that are none do
// not count.
func TestOddConditions(t *testing.T) {
	const modified = "Monday, 02-Jan-06 15:04:05 "
	site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Etag", `"x"`)
		w.Header().Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
		w.Header().Set("Content-Type", "text/plain")
		io.WriteString(w, "page")
	}), isr.Options{})
	for _, test := range []struct {
		method string
		header []string
		status int
	}{
		{"GET", []string{"If-None-Match", `"y"`, "If-None-Match", `"x"`}, 304},
		{"GET", []string{"If-None-Match", `"x"`, "If-None-Match", `"y"`}, 304},
		{"HEAD", []string{"If-None-Match", `"y"`, "If-None-Match", `W/"x", "z"`}, 304},
		{"GET", []string{"If-None-Match", `"y"`, "If-None-Match", `"z"`}, 200},
		{"GET", []string{"If-Match", `"y"`, "If-Match", `"x"`}, 200},
		{"GET", []string{"If-Match", `"y"`, "If-Match", `"z"`}, 412},
		{"GET", []string{"If-Modified-Since", modified + "GMT"}, 304},
		{"GET", []string{"If-Modified-Since", modified + "EST"}, 200},
		{"GET", []string{"If-Modified-Since", modified + "GMT", "If-Modified-Since", modified + "GMT"}, 200},
		{"GET", []string{"If-Unmodified-Since", "Sunday, 01-Jan-06 15:04:05 GMT"}, 412},
		{"GET", []string{"If-Unmodified-Since", "Sunday, 01-Jan-06 15:04:05 EST"}, 200},
		{"GET", []string{"Range", "bytes=0-1", "If-Range", modified + "GMT"}, 206},
		{"GET", []string{"Range", "bytes=0-1", "If-Range", modified + "EST"}, 200},
		{"GET", []string{"Range", "bytes=0-1", "If-Range", `"x"`}, 206},
	} {
		for range 2 { // the first visitor, and one of what is stored
			if got := do(site, test.method, "/", test.header...).StatusCode; got != test.status {
				t.Errorf("%s %q: %d, want %d", test.method, test.header, got, test.status)
			}
		}
	}
}

// A full answer says that parts can be had, where that is so: of a body that isr has
// compressed there are none.
func TestAcceptRanges(t *testing.T) {
	text := strings.Repeat("all work and no play ", 100)
	site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		switch r.URL.Path {
		case "/none":
			w.Header().Set("Accept-Ranges", "none") // by the handler; isr has them
		case "/encoded":
			w.Header().Set("Content-Encoding", "br")
		case "/404":
			w.WriteHeader(404)
		case "/301":
			w.Header().Set("Location", "/")
			w.WriteHeader(301)
		}
		io.WriteString(w, text)
	}), isr.Options{})
	etag := get(site, "/").Header.Get("Etag")
	zipped := get(site, "/", "Accept-Encoding", "gzip").Header.Get("Etag")
	for _, test := range []struct {
		method, target string
		header         []string
		status         int
		want           string
	}{
		{"GET", "/", nil, 200, "bytes"},
		{"HEAD", "/", nil, 200, "bytes"},
		{"GET", "/none", nil, 200, "bytes"},
		{"GET", "/encoded", []string{"Accept-Encoding", "br, gzip"}, 200, "bytes"},
		{"GET", "/", []string{"Accept-Encoding", "gzip"}, 200, ""},
		{"GET", "/", []string{"Accept-Encoding", "gzip", "If-None-Match", `"other"`}, 200, ""},
		{"GET", "/", []string{"If-None-Match", `"other"`}, 200, "bytes"},
		{"GET", "/", []string{"Range", "bytes=0-1"}, 206, "bytes"},
		{"GET", "/", []string{"Range", "bytes=0-1", "Accept-Encoding", "gzip"}, 206, "bytes"},
		{"GET", "/", []string{"If-None-Match", etag}, 304, ""},
		{"GET", "/", []string{"If-None-Match", `"other", ` + etag}, 304, ""},
		{"GET", "/", []string{"Accept-Encoding", "gzip", "If-None-Match", `"other", ` + zipped}, 304, ""},
		{"GET", "/", []string{"If-Match", `"other"`}, 412, ""},
		{"GET", "/404", nil, 404, ""},
		{"GET", "/301", nil, 301, ""},
	} {
		res := do(site, test.method, test.target, test.header...)
		if got := res.Header.Get("Accept-Ranges"); res.StatusCode != test.status || got != test.want {
			t.Errorf("%s %s %q: %d, Accept-Ranges %q; want %d, %q", test.method, test.target, test.header, res.StatusCode, got, test.status, test.want)
		}
	}
}

// targeted is a header with what some caches go by instead of Cache-Control.
func targeted(h http.Header) {
	for _, name := range []string{"CDN-Cache-Control", "Cloudflare-CDN-Cache-Control", "Surrogate-Control", "cdn-cache-control"} {
		h[name] = []string{"max-age=3600"}
	}
	h.Set("X-Accel-Expires", "3600") // nginx
	h.Set("X-Cdn", "kept")
}

func hasTargeted(h http.Header) (names []string) {
	for name := range h {
		if lower := strings.ToLower(name); strings.HasSuffix(lower, "cdn-cache-control") || lower == "surrogate-control" || lower == "x-accel-expires" {
			names = append(names, name)
		}
	}
	return names
}

// Where isr overrides the handler's Cache-Control, what some caches go by instead
// goes, too; where it does not, that stays.
func TestTargetedFields(t *testing.T) {
	get := func(site http.Handler, header ...string) *http.Response { return do(site, "GET", "/", header...) }
	for name, test := range map[string]struct {
		route isr.Route
		outer func(h http.Header)
		serve func(w http.ResponseWriter, r *http.Request)
		visit func(t *testing.T, site *isr.Site, h http.Handler) *http.Response
		kept  bool
	}{
		"a fresh page": {visit: func(t *testing.T, site *isr.Site, h http.Handler) *http.Response { return get(h) }, kept: true},
		"an invalidated page": {
			route: isr.Route{Tags: []string{"t"}},
			visit: func(t *testing.T, site *isr.Site, h http.Handler) *http.Response {
				get(h)
				if err := site.RevalidateTag(t.Context(), "t"); err != nil {
					t.Fatal(err)
				}
				return get(h)
			},
		},
		"its 304": {
			route: isr.Route{Tags: []string{"t"}},
			visit: func(t *testing.T, site *isr.Site, h http.Handler) *http.Response {
				etag := get(h).Header.Get("Etag")
				if err := site.RevalidateTag(t.Context(), "t"); err != nil {
					t.Fatal(err)
				}
				return get(h, "If-None-Match", etag)
			},
		},
		"beside a cookie of outer middleware": {
			outer: func(h http.Header) { h.Set("Set-Cookie", "session=1") },
			visit: func(t *testing.T, site *isr.Site, h http.Handler) *http.Response { get(h); return get(h) },
		},
		"beside a private of outer middleware": {
			outer: func(h http.Header) { h.Set("Cache-Control", "private") },
			visit: func(t *testing.T, site *isr.Site, h http.Handler) *http.Response { get(h); return get(h) },
		},
		"outer middleware's own, beside its cookie": {
			outer: func(h http.Header) { h.Set("Set-Cookie", "session=1"); targeted(h) },
			serve: func(w http.ResponseWriter, r *http.Request) {},
			visit: func(t *testing.T, site *isr.Site, h http.Handler) *http.Response { return get(h) },
		},
		"a failure": {
			serve: func(w http.ResponseWriter, r *http.Request) { targeted(w.Header()); w.WriteHeader(500) },
			visit: func(t *testing.T, site *isr.Site, h http.Handler) *http.Response { return get(h) },
		},
		"a placeholder": {
			route: isr.Route{Placeholder: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { targeted(w.Header()) })},
			visit: func(t *testing.T, site *isr.Site, h http.Handler) *http.Response { return get(h) },
		},
		"what was not prerendered": {
			route: isr.Route{PrerenderedOnly: true},
			outer: targeted,
			visit: func(t *testing.T, site *isr.Site, h http.Handler) *http.Response { return get(h) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if test.serve == nil {
					test.serve = func(w http.ResponseWriter, r *http.Request) { targeted(w.Header()); io.WriteString(w, "page") }
				}
				site := isr.Wrap(http.HandlerFunc(test.serve), isr.Options{Default: test.route})
				res := test.visit(t, site, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if test.outer != nil {
						test.outer(w.Header())
					}
					site.ServeHTTP(w, r)
				}))
				synctest.Wait()
				if got := hasTargeted(res.Header); (len(got) > 0) != test.kept {
					t.Errorf("%s goes out with %q, beside Cache-Control %q", res.Status, got, res.Header.Get("Cache-Control"))
				}
			})
		})
	}
}

// After NotFoundTTL nobody gets the 404 of a page that was published meanwhile,
// unless its handler says so; where a new one cannot be had, it is shown as any
// other page. The route's Cache-Control is not for it.
func TestNotFoundIsNotStale(t *testing.T) {
	route := isr.Route{TTL: time.Hour, CacheControl: "public, max-age=31536000, immutable"}
	for name, test := range map[string]struct {
		control string // the handler's
		invalidate,
		fails bool
		want step
	}{
		"by age":             {want: step{11 * time.Second, 200, "page", "isr; fwd=stale; stored", "0", 2}},
		"by tag":             {invalidate: true, want: step{time.Second, 200, "page", "isr; fwd=stale; stored", "0", 2}},
		"the handler's wish": {control: "max-age=10, stale-while-revalidate=60", want: step{11 * time.Second, 404, "none", "isr; hit; ttl=-1; detail=stale", "11", 2}},
		"on error":           {fails: true, want: step{11 * time.Second, 404, "none", "isr; fwd=stale; fwd-status=500; detail=stale-if-error", "11", 2}},
	} {
		for _, status := range []int{404, 410} {
			t.Run(fmt.Sprint(name, " ", status), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := &cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
						switch {
						case n == 1:
							if test.control != "" {
								w.Header().Set("Cache-Control", test.control)
							}
							w.WriteHeader(status)
							io.WriteString(w, "none")
						case test.fails:
							w.WriteHeader(500)
						default:
							io.WriteString(w, "page")
						}
					}}
					route := route
					route.Tags = []string{"t"}
					site := isr.Wrap(c, isr.Options{Default: route})
					want := test.control
					if want == "" {
						want = "public, max-age=0, s-maxage=10"
					}
					if got := get(site, "/").Header.Get("Cache-Control"); got != want {
						t.Errorf("Cache-Control %q, want %q", got, want)
					}
					if test.invalidate {
						if err := site.RevalidateTag(t.Context(), "t"); err != nil {
							t.Fatal(err)
						}
					}
					if test.want.status == 404 {
						test.want.status = status
					}
					walk(t, site, c, "/", test.want)
					if got := get(site, "/").Header.Get("Cache-Control"); !test.fails && got != route.CacheControl {
						t.Errorf("Cache-Control %q of the page", got)
					}
				})
			})
		}
	}
}

// What the log proposes helps.
func TestRemedies(t *testing.T) {
	for vary, want := range map[string]string{
		"Accept-Language":               "varies on Accept-Language: add it to Route.Vary",
		"Origin":                        "varies on Origin: move CORS outside of isr, where it sees each visitor's request",
		"origin, Accept-Encoding":       "varies on Origin: move CORS outside of isr, where it sees each visitor's request",
		"Access-Control-Request-Method": "varies on Access-Control-Request-Method: move CORS outside of isr, where it sees each visitor's request",
		"Range":                         "varies on Range: leave it out of Vary: isr answers it itself, and the handler never sees it",
		"two words":                     "varies on two words: it is not the name of a header",
		"User-Agent":                    "varies on User-Agent: add it to Route.Vary, and have Route.Normalize narrow it: each value is a page of its own",
		"*":                             "varies on everything",
	} {
		site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Vary", vary)
		}), isr.Options{})
		get(site, "/")
		if got := pages(site)["/"].NotStored; got != want {
			t.Errorf("%s: %q, want %q", vary, got, want)
		}
	}
}
