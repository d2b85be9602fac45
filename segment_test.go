package isr_test

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/store/memory"
)

// role is the segment of a visitor, as a site may have it: by a cookie.
func role(r *http.Request) string {
	c, err := r.Cookie("role")
	if err != nil {
		return ""
	}
	return c.Value
}

// segmented serves the segment that it sees, and which run it was.
func segmented(w http.ResponseWriter, r *http.Request, n int64) {
	if r.Header["Cookie"] != nil && r.Method == "GET" && isr.Generating(r.Context()) {
		fmt.Fprint(w, "a cookie")
	}
	if cc := r.URL.Query().Get("cc"); cc != "" {
		w.Header().Set("Cache-Control", cc)
		w.Header().Set("CDN-Cache-Control", "max-age=600")
	}
	fmt.Fprintf(w, "%q %d", r.Header["Isr-Segment"], n)
}

// Each segment has a page of its own, of which the handler learns by a header: that which
// a visitor sends counts for nothing.
func TestSegments(t *testing.T) {
	c := &countingHandler{serve: segmented}
	site := isr.Wrap(c, isr.Options{Default: isr.Route{Segment: role}})
	for range 2 {
		for cookie, want := range map[string]string{"": `[]`, "role=admin; session=1": `["admin"]`, "role=editor": `["editor"]`} {
			got := body(site, "/", "Cookie", cookie, "Isr-Segment", "admin")
			if !strings.HasPrefix(got, want+" ") {
				t.Errorf("%q: got %s, want %s", cookie, got, want)
			}
		}
	}
	if n := c.calls.Load(); n != 3 {
		t.Errorf("%d runs, want 3", n)
	}
	// A request that passes is of its segment, too.
	for _, method := range []string{"POST", "GET"} {
		res := do(site, method, "/", "Cookie", "role=admin", "Isr-Segment", "editor", "Authorization", "Basic x")
		if got := read(res); !strings.HasPrefix(got, `["admin"] `) || method == "GET" && !strings.Contains(res.Header.Get("Cache-Control"), "private") {
			t.Errorf("%s: got %s, %q", method, got, res.Header.Get("Cache-Control"))
		}
	}
	// And so it is where there are no segments.
	for _, opts := range []isr.Options{{Default: isr.Route{Bypass: isr.Always}}, {Mode: isr.Off}, {}} {
		if got := body(isr.Wrap(c, opts), "/", "Isr-Segment", "admin"); !strings.HasPrefix(got, "[] ") {
			t.Errorf("got %s", got)
		}
	}
}

// No cache in front can tell segments apart, so their pages are private, whatever the
// handler or the route say.
func TestSegmentsArePrivate(t *testing.T) {
	for _, test := range []struct{ route, handler, want string }{
		{"", "", "private, max-age=0"},
		{"public, max-age=60, s-maxage=600", "", "private, max-age=60"},
		{"", "public,+s-maxage=600", "private, max-age=0"},
		{"", "max-age=60,+must-revalidate", "private, max-age=60, must-revalidate"},
	} {
		synctest.Test(t, func(t *testing.T) {
			in := fleet(t, memory.New(), isr.Options{Default: isr.Route{Segment: role, CacheControl: test.route}})
			c := &countingHandler{serve: segmented}
			for range 2 { // made, then from the Store
				site := in.start(c)
				for range 2 {
					h := get(site, "/?cc="+test.handler, "Cookie", "role=admin").Header
					synctest.Wait()
					if got := h.Get("Cache-Control"); got != test.want || h["Cdn-Cache-Control"] != nil {
						t.Errorf("%q, %q: Cache-Control %q, want %q; %v", test.route, test.handler, got, test.want, h)
					}
				}
			}
			if n := c.calls.Load(); n != 1 {
				t.Errorf("%d runs", n)
			}
		})
	}
}

// Whatever else a visitor of a segment may get, no shared cache keeps it.
func TestNothingOfASegmentIsShared(t *testing.T) {
	unsaid := errors.New("on purpose")
	serve := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "public, max-age=60, s-maxage=600")
		targeted(w.Header())
		switch r.URL.Path {
		case "/large":
			w.Write(make([]byte, 2000))
		case "/cookie":
			w.Header().Set("Set-Cookie", "a=b")
		case "/fails":
			w.WriteHeader(500)
		case "/fails-inside":
			isr.Fail(r.Context(), unsaid)
		case "/panics":
			panic(unsaid)
		case "/hangs":
			time.Sleep(time.Hour)
		case "/missing":
			w.WriteHeader(404)
		case "/moved":
			w.Header().Set("Location", "/")
			w.WriteHeader(301)
		}
		io.WriteString(w, "page")
	})
	private := isr.Route{Segment: role}
	with := func(change func(*isr.Route)) isr.Route { rt := private; change(&rt); return rt }
	opts := isr.Options{MaxPageBytes: 1000, Default: private, Routes: map[string]isr.Route{
		"/bypass":      {Segment: role, Bypass: isr.Always},
		"/placeholder": with(func(rt *isr.Route) { rt.Placeholder = serve }),
		"/unknown":     with(func(rt *isr.Route) { rt.PrerenderedOnly, rt.NotFound = true, serve }),
	}}
	off := opts
	off.Mode = isr.Off
	develop := opts
	develop.Mode = isr.Develop
	for name, opts := range map[string]isr.Options{"on": opts, "off": off, "develop": develop} {
		for request, header := range map[string][]string{
			"GET /": nil, "HEAD /": nil, "POST /": nil, "OPTIONS /": nil, "QUERY /": nil, "GET /./a": nil,
			"GET /large": nil, "HEAD /large": nil, "GET /cookie": nil, "GET /missing": nil, "GET /moved": nil,
			"GET /fails": nil, "GET /fails-inside": nil, "GET /panics": nil, "GET /hangs": nil,
			"GET /bypass": nil, "POST /bypass": nil, "GET /placeholder": nil, "GET /unknown": nil,
			"GET /a": {"If-None-Match", "*"}, "GET /b": {"If-Match", `"x"`}, "GET /c": {"Range", "bytes=0-1"}, "GET /d": {"Range", "bytes=100-"},
			"GET /e": {"Authorization", "Basic x"}, "GET /f": {"Upgrade", "h2c"}, "GET /bypass?": {"Upgrade", "h2c"},
			"GET /outer": {"Outer", `public, max-age=60, private="Set-Cookie"`}, "GET /outer?a": {"Outer", "must-understand, no-store, public, max-age=60"},
		} {
			method, target, _ := strings.Cut(request, " ")
			t.Run(name+", "+request, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					site := isr.Wrap(serve, opts)
					visit := func(when string) {
						w := httptest.NewRecorder()
						r := httptest.NewRequest(method, target, nil)
						r.Header.Set("Cookie", "role=admin")
						for i := 0; i < len(header); i += 2 {
							r.Header.Set(header[i], header[i+1])
						}
						if control := r.Header["Outer"]; control != nil {
							w.Header()["Cache-Control"] = control
						}
						if recovered(func() { site.ServeHTTP(w, r) }) != nil { // as middleware does around it
							w.WriteHeader(500)
						}
						h := w.Header() // also where nothing was written
						said := strings.Split(strings.Join(h["Cache-Control"], ", "), ", ")
						kept := slices.Contains(said, "private") || slices.Contains(said, "no-store") && !slices.Contains(said, "must-understand")
						if forgot := w.Code == 500 && target == "/panics" && h["Cache-Control"] == nil; !kept && !forgot || len(hasTargeted(h)) > 0 {
							t.Errorf("%s: %d %v", when, w.Code, h)
						}
					}
					visit("first")
					visit("again")
					synctest.Wait()
					site.Expire(t.Context(), "http://example.com/*")
					visit("expired")
					synctest.Wait()
					site.Shutdown(t.Context())
					visit("after Shutdown")
					time.Sleep(2 * time.Hour)
				})
			})
		}
	}
}

// Such a page is renewed by a 304 as any other.
func TestSegmentIsFreshened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			w.Header().Set("Etag", `"1"`)
			if r.Header.Get("If-None-Match") == `"1"` {
				w.WriteHeader(http.StatusNotModified)
				return
			}
			w.Header().Set("Cache-Control", "public, max-age=10")
			fmt.Fprint(w, r.Header["Isr-Segment"])
		}}
		site := isr.Wrap(c, isr.Options{Default: isr.Route{Segment: role}})
		for i := range int64(3) {
			got := body(site, "/", "Cookie", "role=admin")
			synctest.Wait()
			stored := slices.Collect(site.Pages())
			if got != "[admin]" || c.calls.Load() != i+1 || len(stored) != 1 || stored[0].State != isr.Fresh {
				t.Errorf("%d: got %s after %d runs; stored: %+v", i, got, c.calls.Load(), stored)
			}
			time.Sleep(11 * time.Second)
		}
	})
}

// What is said of a path is said of all its segments, and Prerender makes the page of the
// segment that a request without anything is of.
func TestSegmentsOfAPath(t *testing.T) {
	c := &countingHandler{serve: segmented}
	site := isr.Wrap(c, isr.Options{Origin: "https://example.com", Default: isr.Route{Segment: func(r *http.Request) string {
		if role := role(r); role != "" {
			return role
		}
		return "anonymous"
	}}})
	ctx := t.Context()
	visit := func() (got []string) {
		for _, cookie := range []string{"", "role=admin", "role=editor"} {
			got = append(got, body(site, "/a", "Cookie", cookie))
		}
		return got
	}
	same := func(what string, want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, visit()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	if err := maps.Collect(site.Prerender(ctx, slices.Values([]string{"/a"})))["/a"]; err != nil {
		t.Fatal(err)
	}
	same("prerendered", `["anonymous"] 1`, `["admin"] 2`, `["editor"] 3`)
	if err := site.Purge(ctx, "/a"); err != nil {
		t.Fatal(err)
	}
	same("purged", `["anonymous"] 4`, `["admin"] 5`, `["editor"] 6`)
	if err := site.Revalidate(ctx, "/a"); err != nil {
		t.Fatal(err)
	}
	if n := c.calls.Load(); n != 9 {
		t.Errorf("%d runs after Revalidate, want 9", n)
	}
	for i, got := range visit() {
		if strings.HasSuffix(got, fmt.Sprint(" ", 4+i)) {
			t.Errorf("an old page: %s", got)
		}
	}
}

// A segment that no header can have is none, and its visitors' requests pass; a panic is
// that of the visitor's request.
func TestSegmentOutOfBounds(t *testing.T) {
	c := &countingHandler{serve: segmented}
	segment := ""
	site := isr.Wrap(c, isr.Options{Default: isr.Route{Segment: func(r *http.Request) string {
		if segment == "panic" {
			panic("no session")
		}
		return segment
	}}})
	for _, segment = range []string{strings.Repeat("a", 257), "a\r\nSet-Cookie: b=c", " a", "\x00"} {
		res := get(site, "/")
		if got := read(res); !strings.HasPrefix(got, "[] ") || !strings.HasPrefix(res.Header.Get("Cache-Status"), "isr; fwd=bypass") {
			t.Errorf("%q: got %s, %q", segment, got, res.Header.Get("Cache-Status"))
		}
	}
	if got := slices.Collect(site.Pages()); len(got) != 0 {
		t.Errorf("stored: %+v", got)
	}
	segment = "panic"
	if v := recovered(func() { get(site, "/") }); v != "no session" {
		t.Errorf("panicked with %v", v)
	}
	segment = strings.Repeat("a", 256)
	get(site, "/")
	if got := get(site, "/").Header.Get("Cache-Status"); got != "isr; hit" {
		t.Errorf("Cache-Status %q", got)
	}
	if v := fmt.Sprint(recovered(func() { isr.Wrap(c, isr.Options{Default: isr.Route{Vary: []string{"isr-segment"}}}) })); !strings.Contains(v, "Isr-Segment") {
		t.Errorf("panicked with %v", v)
	}
}

// A new build makes the pages of the segments that the last one was asked for.
func TestSegmentsAreWarmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &countingHandler{serve: segmented}
		in := fleet(t, memory.New(), isr.Options{Version: "1", Origin: "https://example.com", Default: isr.Route{Segment: role}})
		site := in.start(c)
		for range 3 {
			get(site, "/a", "Cookie", "role=admin")
			get(site, "/b")
		}
		time.Sleep(2 * time.Minute) // until it has written what it was asked for
		in.opts.Version = "2"
		site = in.start(c)
		for path, err := range site.Warm(t.Context()) {
			if err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}
		synctest.Wait()
		calls := c.calls.Load()
		for path, cookie := range map[string]string{"/a": "role=admin", "/b": ""} {
			if got := get(site, path, "Cookie", cookie).Header.Get("Cache-Status"); got != "isr; hit" {
				t.Errorf("%s: %s", path, got)
			}
		}
		if n := c.calls.Load() - calls; calls != 4 || n != 0 {
			t.Errorf("%d runs, and %d after it was warmed", calls, n)
		}
	})
}
