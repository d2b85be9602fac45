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
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isr-go/isr"
)

// The handler's Cache-Control overrides the route's durations, whatever way
// RFC 9111 lets it be written.
func TestCacheControlIn(t *testing.T) {
	for _, test := range []struct {
		lines []string
		// How long the page is fresh (negative: not stored), may be shown stale,
		// and may be shown where the handler fails; -1 for not at all.
		ttl, stale, onError time.Duration
	}{
		{nil, 10, 20, 40},
		{[]string{"public"}, 10, 20, 40},
		{[]string{"max-age=5"}, 5, 20, 40},
		{[]string{"MAX-AGE=5"}, 5, 20, 40},
		{[]string{`max-age="5"`}, 5, 20, 40},
		{[]string{"max-age = 5 , public"}, 5, 20, 40},
		{[]string{"max-age=5, max-age=6"}, 5, 20, 40},
		{[]string{"max-age=5", "s-maxage=7"}, 7, 20, 40},
		{[]string{"s-maxage=7, max-age=5"}, 7, 20, 40},
		{[]string{"max-age=99999999999"}, 1<<31 - 1, 20, 40},
		{[]string{"max-age=99999999999999999999999"}, 1<<31 - 1, 20, 40},
		{[]string{"max-age=0"}, 0, 20, 40},
		{[]string{"max-age=-1"}, 0, 20, 40},
		{[]string{"max-age=soon"}, 0, 20, 40},
		{[]string{"max-age=1.5"}, 0, 20, 40},
		{[]string{"max-age"}, 0, 20, 40},
		{[]string{"max-age=5, stale-while-revalidate=3"}, 5, 3, 40},
		{[]string{"max-age=5, stale-while-revalidate=0"}, 5, -1, 40},
		{[]string{"stale-while-revalidate=3, stale-if-error=7"}, 10, 3, 7},
		{[]string{"max-age=5, stale-if-error=0, stale-while-revalidate=0"}, 5, -1, -1},
		{[]string{"must-revalidate"}, 10, -1, -1},
		{[]string{"max-age=5, proxy-revalidate, stale-while-revalidate=3"}, 5, -1, -1},
		{[]string{`extension="max-age=1, no-store", max-age=5`}, 5, 20, 40},
		{[]string{`extension="a \" b, no-store", max-age=5`}, 5, 20, 40},
		{[]string{`max-age=5, extension="not closed, no-store`}, -1, 0, 0}, // better too cautious
		{[]string{",, ,max-age=5,"}, 5, 20, 40},
		{[]string{"max-age=5,private"}, -1, 0, 0},
		{[]string{"max-age=5", "No-Store"}, -1, 0, 0},
		{[]string{`no-cache="Set-Cookie", max-age=5`}, -1, 0, 0},
	} {
		t.Run(strings.Join(test.lines, " | "), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				healthy := true
				c := &cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
					if !healthy {
						w.WriteHeader(500)
						return
					}
					for _, line := range test.lines {
						w.Header().Add("Cache-Control", line)
					}
					io.WriteString(w, "page")
				}}
				site := isr.Wrap(c, isr.Options{Default: isr.Route{
					TTL: 10 * time.Second, StaleWhileRevalidate: 20 * time.Second, StaleIfError: 40 * time.Second,
				}})
				res := get(site, "/")
				if test.lines != nil {
					if got, want := res.Header.Values("Cache-Control"), strings.Join(test.lines, ", "); test.ttl >= 0 && (len(got) != 1 || got[0] != want) {
						t.Errorf("Cache-Control %q, want the handler's, %q", got, want)
					}
				}
				state := func() isr.State {
					p, ok := pages(site)["/"]
					if !ok {
						t.Fatal("no page")
					}
					return p.State
				}
				if test.ttl < 0 {
					if got := state(); got != isr.Uncacheable {
						t.Errorf("%v, want it not stored", got)
					}
					return
				}
				if got, want := max(0, pages(site)["/"].TTL), test.ttl*time.Second; got != want {
					t.Errorf("TTL %v, want %v", got, want)
				}
				if test.ttl > 0 {
					time.Sleep(test.ttl*time.Second - 1)
					if got := state(); got != isr.Fresh {
						t.Errorf("%v at the end of the TTL", got)
					}
					time.Sleep(time.Nanosecond)
				}
				healthy = false
				visit := func() int {
					res := get(site, "/")
					synctest.Wait()
					return res.StatusCode
				}
				if test.stale > 0 {
					if got := state(); got != isr.Stale {
						t.Errorf("%v after the TTL", got)
					}
					time.Sleep(test.stale*time.Second - 1)
					if got := state(); got != isr.Stale {
						t.Errorf("%v at the end of being stale", got)
					}
					time.Sleep(time.Nanosecond)
				}
				if got := state(); got != isr.Expired {
					t.Errorf("%v when it may no longer be stale", got)
				}
				if test.onError > 0 {
					time.Sleep((test.onError-max(0, test.stale))*time.Second - 1)
					if got := visit(); got != 200 {
						t.Errorf("%d while it may be shown on errors", got)
					}
					time.Sleep(time.Nanosecond)
				}
				if got := visit(); got != 500 {
					t.Errorf("%d when it may no longer be shown at all", got)
				}
			})
		})
	}
}

// What is sent downstream: the handler's, else the route's, else derived.
func TestCacheControlOut(t *testing.T) {
	for _, test := range []struct {
		route   isr.Route
		shared  time.Duration // SharedMaxAge
		handler string
		want    string
	}{
		{isr.Route{}, 0, "", "public, max-age=0, s-maxage=60"},
		{isr.Route{}, time.Hour, "", "public, max-age=0, s-maxage=3600"},
		{isr.Route{}, 20 * 365 * 24 * time.Hour, "", "public, max-age=0, s-maxage=31536000"},
		{isr.Route{}, -1, "", "public, max-age=0"},
		{isr.Route{TTL: 10 * time.Second}, 0, "", "public, max-age=0, s-maxage=10"},
		{isr.Route{TTL: time.Hour}, 0, "", "public, max-age=0, s-maxage=60"},
		{isr.Route{TTL: time.Hour}, 2 * time.Hour, "", "public, max-age=0, s-maxage=3600"},
		{isr.Route{TTL: time.Hour}, -1, "", "public, max-age=0"},
		{isr.Route{TTL: 1500 * time.Millisecond}, 0, "", "public, max-age=0, s-maxage=1"},
		{isr.Route{StaleWhileRevalidate: time.Hour}, 0, "", "public, max-age=0, s-maxage=60"}, // Chromium and shared caches would obey it after a purge
		{isr.Route{TTL: time.Minute, CacheControl: "public, max-age=5"}, 0, "", "public, max-age=5"},
		{isr.Route{TTL: time.Minute, CacheControl: "no-store"}, -1, "", "no-store"},
		{isr.Route{TTL: time.Minute, CacheControl: "public, max-age=5"}, 0, "s-maxage=7, max-age=3", "s-maxage=7, max-age=3"},
		{isr.Route{}, 0, "max-age=3600, s-maxage=7200", "max-age=3600, s-maxage=7200"}, // the handler knows what it promises
		{isr.Route{}, 0, "s-maxage=7", "s-maxage=7, max-age=0"},                        // or browsers guess
		{isr.Route{}, 0, `S-MaxAge="7"`, `S-MaxAge="7", max-age=0`},
		{isr.Route{}, 0, "public", "public"},
		// public would let others share what answers an Authorization (RFC 9111, section 3.5).
		{isr.Route{TTL: time.Minute, Vary: []string{"Authorization"}}, 0, "", "private, max-age=0"},
	} {
		c := &cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			if test.handler != "" {
				w.Header().Set("Cache-Control", test.handler)
			}
			io.WriteString(w, "page")
		}}
		site := isr.Wrap(c, isr.Options{Default: test.route, SharedMaxAge: test.shared})
		for range 2 {
			if got := get(site, "/").Header["Cache-Control"]; len(got) != 1 || got[0] != test.want {
				t.Errorf("%+v, %q: got %q, want %q", test.route, test.handler, got, test.want)
			}
		}
		if got := c.calls.Load(); got != 1 {
			t.Errorf("%+v, %q: not stored", test.route, test.handler)
		}
	}
}

// A page that is shown although it was invalidated must not be held by anyone
// downstream, however long its TTL still is.
func TestCacheControlOfInvalidated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			w.Header().Set("Cache-Control", "public, max-age=600")
			if n > 1 {
				time.Sleep(time.Second)
			}
			fmt.Fprint(w, "page ", n)
		}}
		site := isr.Wrap(c, isr.Options{Default: isr.Route{Tags: []string{"t"}}})
		get(site, "/")
		time.Sleep(5 * time.Second)
		if err := site.RevalidateTag(t.Context(), "t"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		res := get(site, "/")
		got := [...]string{res.Header.Get("Cache-Control"), res.Header.Get("Cache-Status"), res.Header.Get("Age"), read(res)}
		want := [...]string{"public, max-age=0, must-revalidate", "isr; hit; ttl=-2; detail=stale", "2", "page 1"}
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if got := get(site, "/").Header.Get("Cache-Control"); got != "public, max-age=600" {
			t.Errorf("Cache-Control %q of the new page", got)
		}
	})
}

// An upstream's time counts where the lifetime is the upstream's.
func TestAgeOfUpstream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			w.Header().Set("Age", "40")
			w.Header().Set("Cache-Status", "upstream; hit")
			if r.URL.Path == "/theirs" {
				w.Header().Set("Cache-Control", "max-age=60")
			}
		}}
		site := isr.Wrap(c, isr.Options{Default: isr.Route{TTL: time.Minute}})
		get(site, "/theirs")
		get(site, "/ours")
		time.Sleep(5 * time.Second)
		for target, want := range map[string][2]string{
			"/theirs": {"45", "upstream; hit, isr; hit; ttl=15"},
			"/ours":   {"5", "upstream; hit, isr; hit; ttl=55"},
		} {
			h := get(site, target).Header
			if got := [2]string{h.Get("Age"), h.Get("Cache-Status")}; got != want {
				t.Errorf("%s: %q, want %q", target, got, want)
			}
		}
	})
}

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

// Conditions, ranges and HEAD are answered from the stored page; none of them
// reaches the handler.
func TestConditionsAndRanges(t *testing.T) {
	const (
		modified = "Mon, 02 Jan 2006 15:04:05 GMT"
		later    = "Mon, 02 Jan 2006 15:04:06 GMT"
		earlier  = "Mon, 02 Jan 2006 15:04:04 GMT"
	)
	text := strings.Repeat("0123456789", 100)
	c := &cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
		for _, name := range []string{"If-None-Match", "If-Modified-Since", "If-Match", "If-Unmodified-Since", "Range", "If-Range"} {
			if r.Header[name] != nil {
				t.Errorf("%s reached the handler", name)
			}
		}
		h := w.Header()
		h.Set("Content-Type", "text/plain")
		switch r.URL.Path {
		case "/strong":
			h.Set("Etag", `"v1"`)
			h.Set("Last-Modified", modified)
		case "/weak":
			h.Set("Etag", `W/"v1"`)
		case "/malformed":
			h.Set("Etag", "v1")
		case "/gone":
			h.Set("Etag", `"v1"`)
			w.WriteHeader(410)
		}
		io.WriteString(w, text)
	}}
	site := isr.Wrap(c, isr.Options{})
	own := get(site, "/none").Header.Get("Etag")
	if len(own) != 24 || own[0] != '"' {
		t.Errorf("ETag %q, want a strong one", own)
	}
	if got := get(site, "/malformed").Header.Get("Etag"); got != own {
		t.Errorf("ETag %q in the place of a malformed one, want %q", got, own)
	}
	for _, test := range []struct {
		method, target string
		header         []string
		status         int
		etag, body     string
	}{
		{"GET", "/none", nil, 200, own, text},
		{"GET", "/none", []string{"If-None-Match", own}, 304, own, ""},
		{"HEAD", "/none", []string{"If-None-Match", own}, 304, own, ""},
		{"GET", "/none", []string{"If-None-Match", "W/" + own}, 304, own, ""},
		{"GET", "/none", []string{"If-None-Match", `"other", ` + own}, 304, own, ""},
		{"GET", "/none", []string{"If-None-Match", "*"}, 304, own, ""},
		{"GET", "/none", []string{"If-None-Match", `"other"`}, 200, own, text},
		{"GET", "/none", []string{"If-Modified-Since", later}, 200, own, text}, // it has no date
		{"HEAD", "/none", nil, 200, own, ""},
		{"GET", "/strong", []string{"If-None-Match", `"v1"`}, 304, `"v1"`, ""},
		{"GET", "/strong", []string{"If-Modified-Since", modified}, 304, `"v1"`, ""},
		{"GET", "/strong", []string{"If-Modified-Since", earlier}, 200, `"v1"`, text},
		{"GET", "/strong", []string{"If-Modified-Since", modified, "If-None-Match", `"v0"`}, 200, `"v1"`, text},
		{"GET", "/strong", []string{"If-Match", `"v0"`}, 412, "", ""},
		{"GET", "/strong", []string{"If-Unmodified-Since", earlier}, 412, "", ""},
		{"GET", "/strong", []string{"If-Match", `"v0"`, "If-None-Match", `"v1"`}, 412, "", ""},
		{"GET", "/strong", []string{"Range", "bytes=10-14"}, 206, `"v1"`, "01234"},
		{"GET", "/strong", []string{"Range", "bytes=-3"}, 206, `"v1"`, "789"},
		{"GET", "/strong", []string{"Range", "bytes=2000-"}, 416, "", ""},
		{"GET", "/strong", []string{"Range", "bytes=10-14", "If-Range", `"v1"`}, 206, `"v1"`, "01234"},
		{"GET", "/strong", []string{"Range", "bytes=10-14", "If-Range", `"v0"`}, 200, `"v1"`, text},
		{"GET", "/strong", []string{"Range", "bytes=10-14", "Accept-Encoding", "gzip"}, 206, `"v1"`, "01234"},
		{"HEAD", "/strong", []string{"Range", "bytes=10-14"}, 200, `"v1"`, ""}, // GET alone has ranges
		{"GET", "/weak", []string{"If-None-Match", `W/"v1"`}, 304, `W/"v1"`, ""},
		{"GET", "/weak", []string{"If-None-Match", `"v1"`}, 304, `W/"v1"`, ""},
		{"GET", "/gone", []string{"If-None-Match", `"v1"`}, 410, `"v1"`, text},
		{"GET", "/gone", []string{"Range", "bytes=10-14"}, 410, `"v1"`, text},
		{"HEAD", "/gone", nil, 410, `"v1"`, ""},
	} {
		// The first visitor may be the one with the conditions, too.
		for name, site := range map[string]*isr.Site{"stored": site, "first": isr.Wrap(c, isr.Options{})} {
			res := do(site, test.method, test.target, test.header...)
			got := read(res)
			if res.StatusCode >= 400 && res.StatusCode != 410 {
				got = "" // net/http's words
			}
			if res.StatusCode != test.status || got != test.body || res.Header.Get("Etag") != test.etag && test.etag != "" {
				t.Errorf("%s, %s %s %q: got %d, ETag %s, %d bytes; want %d, %s, %d", name, test.method, test.target, test.header,
					res.StatusCode, res.Header.Get("Etag"), len(got), test.status, test.etag, len(test.body))
			}
			switch length := res.Header.Get("Content-Length"); {
			case res.StatusCode == 304:
				if length != "" || res.Header.Get("Content-Type") != "" || res.Header.Get("Cache-Control") == "" || res.Header.Get("Vary") == "" {
					t.Errorf("%s, %s %q: 304 with %v", name, test.target, test.header, res.Header)
				}
			case test.method == "GET" && res.StatusCode < 400 && length != fmt.Sprint(len(got)):
				t.Errorf("%s, %s %q: Content-Length %s, want %d", name, test.target, test.header, length, len(got))
			case test.method == "HEAD" && res.StatusCode == 200 && length != fmt.Sprint(len(text)):
				t.Errorf("%s, HEAD %s: Content-Length %s, want %d", name, test.target, length, len(text))
			}
		}
	}
}

// A failed precondition is a whole response on the wire, and so is a page whose
// Content-Type is not to be guessed.
func TestOnTheWire(t *testing.T) {
	text := strings.Repeat("0123456789", 100)
	server := httptest.NewServer(isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Content-Type"] = nil
		io.WriteString(w, text)
	}), isr.Options{}))
	defer server.Close()
	for range 2 {
		for etag, want := range map[string]struct {
			status int
			body   string
		}{`"other"`: {412, ""}, "*": {200, text}} {
			r, err := http.NewRequest("GET", server.URL, nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("If-Match", etag)
			res, err := server.Client().Do(r)
			if err != nil {
				t.Fatal(err)
			}
			if got := read(res); res.StatusCode != want.status || got != want.body || res.Header["Content-Type"] != nil {
				t.Errorf("If-Match %s: %d %q %v", etag, res.StatusCode, got, res.Header)
			}
			res.Body.Close()
		}
	}
}

// Bodies that compress are compressed once; each encoding has an ETag of its own.
func TestGzip(t *testing.T) {
	text := strings.Repeat("all work and no play ", 100)
	noise := make([]byte, 2000)
	for i, x := 0, uint32(1); i < len(noise); i++ {
		x = x*1664525 + 1013904223
		noise[i] = byte(x >> 24)
	}
	c := &cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
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

// Headers that outer middleware sets on the way in are kept, and nobody can edit
// what the others get.
func TestOuterMiddleware(t *testing.T) {
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

// What outer middleware has made one visitor's own is not for a CDN to share.
func TestOuterMiddlewarePersonal(t *testing.T) {
	const public = "public, max-age=60"
	for _, test := range []struct{ own, name, value, want string }{
		{public, "Set-Cookie", "session=1", "private, max-age=0"},
		{public, "Cache-Control", "private, max-age=5", "private, max-age=5"},
		{public, "Cache-Control", "no-store", "no-store"},
		{public, "Cache-Control", "no-cache", public},
		{public, "X-Name", "value", public},
		{"no-store", "Set-Cookie", "session=1", "no-store"},
		{"no-store", "Cache-Control", "private", "no-store"},
	} {
		site := isr.Wrap(new(cms), isr.Options{Default: isr.Route{CacheControl: test.own}})
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

// Who may share a page, or keep it, is not changed by its being invalidated.
func TestRevokedControl(t *testing.T) {
	for _, test := range []struct {
		route isr.Route
		want  string
	}{
		{isr.Route{}, "public, max-age=0, must-revalidate"},
		{isr.Route{Vary: []string{"Authorization"}}, "private, max-age=0, must-revalidate"},
		{isr.Route{CacheControl: "max-age=60, Private"}, "private, max-age=0, must-revalidate"},
		{isr.Route{CacheControl: "no-store"}, "no-store"},
	} {
		synctest.Test(t, func(t *testing.T) {
			test.route.Tags = []string{"t"}
			site := isr.Wrap(new(cms), isr.Options{Default: test.route})
			get(site, "/")
			if err := site.RevalidateTag(t.Context(), "t"); err != nil {
				t.Fatal(err)
			}
			if got := get(site, "/").Header["Cache-Control"]; !cmp.Equal(got, []string{test.want}) {
				t.Errorf("%+v: Cache-Control %q, want %q", test.route, got, test.want)
			}
		})
	}
}

func TestStateString(t *testing.T) {
	for state, want := range map[isr.State]string{
		isr.Fresh: "fresh", isr.Stale: "stale", isr.Expired: "expired", isr.Uncacheable: "uncacheable", 42: "State(42)",
	} {
		if got := state.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	for kind, want := range map[isr.Kind]string{isr.Hit: "hit", isr.StaleHit: "stale", isr.StoreFailed: "store failed", 42: "Kind(42)"} {
		if got := kind.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
