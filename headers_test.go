package isr_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/isr-go/isr"
)

// Vary names what the key covers, and keeps what the handler adds.
func TestVary(t *testing.T) {
	text := strings.Repeat("all work and no play ", 100)
	for _, test := range []struct {
		route   isr.Route
		handler []string
		body    string
		want    []string
	}{
		{isr.Route{}, nil, "short", nil},
		{isr.Route{}, nil, text, []string{"Accept-Encoding"}},
		{isr.Route{Vary: []string{"hx-request", "Accept"}, VaryCookies: []string{"theme"}}, nil, "short", []string{"Accept, Cookie, Hx-Request"}},
		{isr.Route{Vary: []string{"Accept"}}, []string{"accept-encoding", "Accept"}, text, []string{"accept-encoding, Accept"}},
	} {
		site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if test.handler != nil {
				w.Header()["Vary"] = test.handler
			}
			w.Header().Set("Content-Type", "text/plain")
			io.WriteString(w, test.body)
		}), isr.Options{Default: test.route})
		for range 2 {
			if got := get(site, "/").Header["Vary"]; !cmp.Equal(got, test.want) {
				t.Errorf("%+v, %q: Vary %q, want %q", test.route, test.handler, got, test.want)
			}
		}
	}
}

// Bodies that compress are compressed once; each encoding has its own ETag.
func TestGzip(t *testing.T) { synctest.Test(t, testGzip) }

func testGzip(t *testing.T) {
	text := strings.Repeat("all work and no play ", 100)
	noise := make([]byte, 2000)
	for i, x := 0, uint32(1); i < len(noise); i++ {
		x = x*1664525 + 1013904223
		noise[i] = byte(x >> 24)
	}
	c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
		h := w.Header()
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Etag", `"v1"`)
		switch r.URL.Path {
		case "/sniffed":
			h.Del("Content-Type")
		case "/weak":
			h.Set("Etag", `W/"v1"`)
		case "/json":
			h.Set("Content-Type", "application/ld+json")
		case "/image":
			h.Set("Content-Type", "image/png")
		case "/no-transform":
			h.Set("Cache-Control", "no-transform")
		case "/encoded":
			h.Set("Content-Encoding", "br")
		case "/short":
			io.WriteString(w, "short")
			return
		case "/noise":
			w.Write(noise)
			return
		}
		io.WriteString(w, text)
	}}
	site := isr.Wrap(c, isr.Options{})
	for _, test := range []struct {
		target, accept string
		want           string // the Content-Encoding
		etag           string
	}{
		{"/", "", "", `"v1"`},
		{"/", "gzip", "gzip", `"v1-gzip"`},
		{"/", "GZIP", "gzip", `"v1-gzip"`},
		{"/", "x-gzip", "gzip", `"v1-gzip"`},
		{"/", "gzip, deflate, br, zstd", "gzip", `"v1-gzip"`},
		{"/", "deflate, gzip;q=1.0, *;q=0.5", "gzip", `"v1-gzip"`},
		{"/", "br;q=1.0, gzip;q=0.8, *;q=0.1", "gzip", `"v1-gzip"`},
		{"/", "gzip;q=0.001", "gzip", `"v1-gzip"`},
		{"/", "gzip ; Q=0.5", "gzip", `"v1-gzip"`},
		{"/", "*", "gzip", `"v1-gzip"`},
		{"/", "gzip;q=0", "", `"v1"`},
		{"/", "gzip;q=0, *", "", `"v1"`},
		{"/", "*;q=0", "", `"v1"`},
		{"/", "br, deflate", "", `"v1"`},
		{"/", "identity", "", `"v1"`},
		{"/", "identity, gzip;q=0.5", "", `"v1"`},
		{"/", "identity;q=0.5, gzip", "gzip", `"v1-gzip"`},
		{"/", "gzip;q=high", "", `"v1"`},
		{"/", "gzip;level=9", "", `"v1"`},
		{"/", "gzipped", "", `"v1"`},
		{"/sniffed", "gzip", "gzip", `"v1-gzip"`},
		{"/weak", "gzip", "gzip", `W/"v1-gzip"`},
		{"/json", "gzip", "gzip", `"v1-gzip"`},
		{"/image", "gzip", "", `"v1"`},
		{"/no-transform", "gzip", "", `"v1"`},
		{"/encoded", "gzip", "br", `"v1"`},
		{"/short", "gzip", "", `"v1"`},
		{"/noise", "gzip", "", `"v1"`},
	} {
		var header []string
		if test.accept != "" {
			header = []string{"Accept-Encoding", test.accept}
		}
		get(site, test.target)
		synctest.Wait() // until it is compressed
		res := get(site, test.target, header...)
		b := read(res)
		if got := res.Header.Get("Content-Encoding"); got != test.want || res.Header.Get("Etag") != test.etag {
			t.Errorf("%s %q: Content-Encoding %q, ETag %s; want %q, %s", test.target, test.accept, got, res.Header.Get("Etag"), test.want, test.etag)
		}
		if res.Header.Get("Content-Length") != fmt.Sprint(len(b)) {
			t.Errorf("%s %q: Content-Length %s for %d bytes", test.target, test.accept, res.Header.Get("Content-Length"), len(b))
		}
		if test.want == "gzip" {
			if !strings.Contains(res.Header.Get("Vary"), "Accept-Encoding") || len(b) >= len(text)/2 {
				t.Errorf("%s %q: Vary %q, %d bytes", test.target, test.accept, res.Header.Get("Vary"), len(b))
			}
			z, err := gzip.NewReader(bytes.NewReader([]byte(b)))
			if err != nil {
				t.Fatal(err)
			}
			plain, err := io.ReadAll(z)
			if err != nil || string(plain) != text {
				t.Errorf("%s %q: %d bytes, %v", test.target, test.accept, len(plain), err)
			}
			again := get(site, test.target, append(header, "If-None-Match", test.etag)...)
			if again.StatusCode != 304 || again.Header.Get("Content-Encoding") != "" {
				t.Errorf("%s %q: %d %v to the same ETag", test.target, test.accept, again.StatusCode, again.Header)
			}
			if other := get(site, test.target, append(header, "If-None-Match", `"v1"`)...); other.StatusCode != 200 {
				t.Errorf("%s %q: %d to the ETag of the other encoding", test.target, test.accept, other.StatusCode)
			}
		}
	}
	if got, want := c.calls.Load(), int64(len(pages(site))); got != want {
		t.Errorf("%d runs for %d pages", got, want)
	}
}

// Headers that outer middleware sets before the Site are kept, and what it changes
// afterwards reaches no other visitor.
func TestHeadersOfOuterMiddlewareAreKept(t *testing.T) {
	text := strings.Repeat("all work and no play ", 100)
	site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Link"] = []string{"</a.css>", "</b.css>"}
		w.Header().Set("Content-Type", "text/plain")
		io.WriteString(w, text)
	}), isr.Options{})
	outer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Vary", "Origin")
		w.Header().Set("X-Request-Id", r.Header.Get("X-Request-Id"))
		w.Header().Set("Cache-Control", "max-age=5") // a default, which the page overrides
		site.ServeHTTP(w, r)
		for _, values := range w.Header() {
			for i := range values {
				values[i] = "edited"
			}
			_ = append(values, "appended")
		}
	})
	for i := range 3 {
		w := httptest.NewRecorder()
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("X-Request-Id", fmt.Sprint(i))
		outer(w, r)
		h := w.Result().Header
		want := http.Header{
			"Vary": {"Origin", "Accept-Encoding"}, "X-Request-Id": {fmt.Sprint(i)},
			"Link": {"</a.css>", "</b.css>"}, "Content-Type": {"text/plain"}, "Content-Length": {fmt.Sprint(len(text))},
			"Cache-Control": {"public, max-age=0, s-maxage=60"},
			"Accept-Ranges": {"bytes"}, "Age": {"0"}, "Cache-Status": {"isr; hit"}, "Etag": h["Etag"],
		}
		if i == 0 {
			want.Set("Cache-Status", "isr; fwd=uri-miss; stored")
		}
		if diff := cmp.Diff(want, h); diff != "" {
			t.Errorf("visit %d (-want +got):\n%s", i, diff)
		}
	}
}

// A page beside which outer middleware has set something for one visitor must not be
// shared downstream.
func TestOuterMiddlewareMakesPrivate(t *testing.T) {
	const public = "public, max-age=60"
	for _, test := range []struct{ own, name, value, want string }{
		{public, "Set-Cookie", "session=1", "private, max-age=0"},
		{public, "Cache-Control", "private, max-age=5", "private, max-age=5"},
		{public, "Cache-Control", "no-store", "no-store"},
		{public, "Cache-Control", "no-cache", public},
		{public, "X-Name", "value", public},
		{public, "Cache-Control", `max-age=5, private="Set-Cookie"`, "private, max-age=0"},
		{public, "Cache-Control", "max-age=5, must-understand, no-store", "no-store"},
		{"max-age=5, must-understand, no-store", "Set-Cookie", "session=1", "no-store"},
		{`max-age=5, private="X"`, "Set-Cookie", "session=1", "private, max-age=0"},
		{"no-store", "Set-Cookie", "session=1", "no-store"},
		{"no-store", "Cache-Control", "private", "no-store"},
	} {
		site := isr.Wrap(new(countingHandler), isr.Options{Default: isr.Route{CacheControl: test.own}})
		for range 2 {
			w := httptest.NewRecorder()
			w.Header().Set(test.name, test.value)
			site.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
			if got := w.Result().Header["Cache-Control"]; !cmp.Equal(got, []string{test.want}) {
				t.Errorf("%s, %s: %s: Cache-Control %q, want %q", test.own, test.name, test.value, got, test.want)
			}
		}
	}
}

// isr comes after the caches behind it: the last member is the one closest to the
// visitor (RFC 9211, section 2).
func TestCacheStatusOrder(t *testing.T) {
	for how, serve := range map[string]func(w http.ResponseWriter, r *http.Request){
		"adds": func(w http.ResponseWriter, r *http.Request) { w.Header().Add("Cache-Status", "upstream; hit") },
		"sets": func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Cache-Status", "upstream; hit") },
		"and writes": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Status", "upstream; hit")
			w.Write([]byte("page"))
		},
		"and flushes": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Status", "upstream; hit")
			http.NewResponseController(w).Flush()
		},
	} {
		h := http.HandlerFunc(serve)
		site := isr.Wrap(h, isr.Options{Routes: map[string]isr.Route{
			"/bypass":      {Bypass: isr.Always},
			"/placeholder": {Placeholder: h},
			"/unknown":     {PrerenderedOnly: true, NotFound: h},
		}})
		for request, want := range map[string]string{
			"GET /a":      "isr; fwd=uri-miss; stored",
			"GET /bypass": "isr; fwd=bypass",
			"OPTIONS /a":  "isr; fwd=method",
			"POST /b":     "isr; fwd=method",
			"PUT *":       "isr; fwd=method",

			"GET /placeholder": "isr; fwd=uri-miss; detail=placeholder",
			"GET /unknown":     "isr; detail=not-prerendered",
		} {
			method, target, _ := strings.Cut(request, " ")
			w, r := httptest.NewRecorder(), httptest.NewRequest(method, "/", nil)
			r.URL.Path = target
			site.ServeHTTP(w, r)
			if got, want := strings.Join(w.Header()["Cache-Status"], ", "), "upstream; hit, "+want; got != want {
				t.Errorf("%s, %s: %q, want %q", how, request, got, want)
			}
		}
	}
	// Recovery middleware outside answers with it, too.
	panics := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { panic("on purpose") })
	site := isr.Wrap(panics, isr.Options{Routes: map[string]isr.Route{"/unknown": {PrerenderedOnly: true, NotFound: panics}}})
	for request, want := range map[string]string{"POST /": "isr; fwd=method", "GET /unknown": "isr; detail=not-prerendered"} {
		method, target, _ := strings.Cut(request, " ")
		w := httptest.NewRecorder()
		recovered(func() { site.ServeHTTP(w, httptest.NewRequest(method, target, nil)) })
		if got := w.Header().Get("Cache-Status"); got != want {
			t.Errorf("%s, after a panic: %q", request, got)
		}
	}
}

// Vary names each header once, though it was named before, in any case: session
// middleware around the site, the handler, or the route.
func TestVaryNamesEachOnce(t *testing.T) {
	c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
		w.Header().Add("Vary", "accept, Accept")
		if r.URL.Path == "/large" {
			w.Write(make([]byte, 64<<10))
		}
		fmt.Fprint(w, strings.Repeat("page ", 500))
	}}
	site := isr.Wrap(c, isr.Options{MaxPageBytes: 32 << 10, Default: isr.Route{Vary: []string{"Accept"}, VaryCookies: []string{"theme"}}})
	for _, test := range []struct {
		outer []string
		want  string
	}{
		{nil, "accept, Cookie, Accept-Encoding"},
		{[]string{"Cookie"}, "Cookie, accept, Accept-Encoding"},
		{[]string{"cookie", "Origin"}, "cookie, Origin, accept, Accept-Encoding"},
		{[]string{"Accept-Encoding, Accept , COOKIE"}, "Accept-Encoding, Accept , COOKIE"},
	} {
		outer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			for _, line := range test.outer {
				w.Header().Add("Vary", line)
			}
			site.ServeHTTP(w, r)
		})
		for _, what := range []string{"miss", "hit"} {
			if got := strings.Join(get(outer, "/").Header["Vary"], ", "); got != test.want {
				t.Errorf("outer %q, %s: %q, want %q", test.outer, what, got, test.want)
			}
		}
		res := get(outer, "/large") // streamed on
		if got := strings.ToLower(strings.Join(res.Header["Vary"], ", ")); strings.Count(got, "cookie") != 1 {
			t.Errorf("outer %q, streamed: %q", test.outer, got)
		}
	}
}
