package isr_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isr-go/isr"
)

func TestWhatIsStored(t *testing.T) {
	header := func(h ...string) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, r *http.Request) {
			for i := 0; i < len(h); i += 2 {
				w.Header().Add(h[i], h[i+1])
			}
			io.WriteString(w, "page")
		}
	}
	status := func(code int, h ...string) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, r *http.Request) {
			for i := 0; i < len(h); i += 2 {
				w.Header().Add(h[i], h[i+1])
			}
			w.WriteHeader(code)
		}
	}
	vary := isr.Route{Vary: []string{"accept-language"}, VaryCookies: []string{"theme"}}
	for name, test := range map[string]struct {
		route     isr.Route
		serve     func(http.ResponseWriter, *http.Request)
		notStored string // empty: stored
	}{
		"200":                         {serve: status(200)},
		"203":                         {serve: status(203)},
		"301":                         {serve: status(301, "Location", "/new")},
		"308":                         {serve: status(308, "Location", "/new")},
		"404":                         {serve: status(404)},
		"410":                         {serve: status(410)},
		"302":                         {serve: status(302, "Location", "/login"), notStored: "has status 302: set Route.Bypass, or Cache-Control: max-age in the handler if it is the same for everyone"},
		"307":                         {serve: status(307, "Location", "/login"), notStored: "has status 307: set Route.Bypass, or Cache-Control: max-age in the handler if it is the same for everyone"},
		"302 with a lifetime":         {serve: status(302, "Location", "/new", "Cache-Control", "max-age=60")},
		"302 with none":               {serve: status(302, "Cache-Control", "max-age=0"), notStored: "has status 302: set Route.Bypass, or Cache-Control: max-age in the handler if it is the same for everyone"},
		"403":                         {serve: status(403), notStored: "has status 403: set Route.Bypass, or Cache-Control: max-age in the handler if it is the same for everyone"},
		"403 with a lifetime":         {serve: status(403, "Cache-Control", "s-maxage=60")},
		"204":                         {serve: status(204), notStored: "has status 204: set Route.Bypass, or Cache-Control: max-age in the handler if it is the same for everyone"},
		"204 with a lifetime":         {serve: status(204, "Cache-Control", "s-maxage=60")},
		"206":                         {serve: status(206, "Cache-Control", "max-age=60"), notStored: "has status 206"},
		"304":                         {serve: status(304, "Cache-Control", "max-age=60"), notStored: "has status 304"},
		"101":                         {serve: status(101), notStored: "has status 101"},
		"Set-Cookie":                  {serve: header("Set-Cookie", "session=1", "Cache-Control", "public, max-age=60"), notStored: "sets a cookie: set it in middleware outside of isr, or set Route.Bypass"},
		"set-cookie, spelt otherwise": {serve: func(w http.ResponseWriter, r *http.Request) { w.Header()["set-cookie"] = []string{"session=1"} }, notStored: "sets a cookie: set it in middleware outside of isr, or set Route.Bypass"},
		"private":                     {serve: header("Cache-Control", "max-age=60", "Cache-Control", `Private="X-Name"`), notStored: "is private by its Cache-Control"},
		"no-store":                    {serve: header("Cache-Control", "NO-STORE"), notStored: "is no-store by its Cache-Control"},
		"no-cache":                    {serve: header("Cache-Control", "no-cache"), notStored: "is no-cache by its Cache-Control"},
		"Vary *":                      {serve: header("Vary", "Accept-Encoding, *"), notStored: "varies on everything"},
		"Vary undeclared":             {vary, header("Vary", "Accept-Language", "Vary", "hx-request"), "varies on Hx-Request: add it to Route.Vary"},
		"Vary declared":               {vary, header("Vary", "ACCEPT-LANGUAGE, Accept-Encoding, Cookie"), ""},
		"Vary Cookie":                 {serve: header("Vary", "Cookie"), notStored: "varies on Cookie: name the cookies in Route.VaryCookies"},
		"event stream":                {serve: header("Content-Type", "text/event-stream"), notStored: "is an event stream: set Route.Bypass"},
		"NoStore":                     {isr.Route{TTL: isr.NoStore}, header(), "has no lifetime by its Cache-Control, and Route.TTL is NoStore"},
		"NoStore, public":             {isr.Route{TTL: isr.NoStore}, header("Cache-Control", "public"), "has no lifetime by its Cache-Control, and Route.TTL is NoStore"},
		"NoStore, max-age=0":          {isr.Route{TTL: isr.NoStore}, header("Cache-Control", "max-age=0"), "has no lifetime by its Cache-Control, and Route.TTL is NoStore"},
		"NoStore, marked":             {isr.Route{TTL: isr.NoStore}, header("Cache-Control", "s-maxage=60"), ""},
		"NoStore, Expires":            {isr.Route{TTL: isr.NoStore}, header("Date", "Mon, 02 Jan 2006 15:04:05 GMT", "Expires", "Mon, 02 Jan 2006 15:05:05 GMT"), ""},
		"404 not wanted":              {isr.Route{NotFoundTTL: -1}, status(404), "has status 404, and Route.NotFoundTTL is negative"},
		"404 not wanted, but marked":  {isr.Route{NotFoundTTL: -1}, status(404, "Cache-Control", "max-age=5"), ""},
		"too large":                   {serve: func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, strings.Repeat("x", 1001)) }, notStored: "is larger than MaxPageBytes (1000): raise it, or set Route.Bypass"},
		"too large by its own word":   {serve: header("Content-Length", "1001"), notStored: "is larger than MaxPageBytes (1000): raise it, or set Route.Bypass"},
		"just small enough":           {serve: func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, strings.Repeat("x", 1000)) }},
		"hijacked":                    {serve: func(w http.ResponseWriter, r *http.Request) { http.NewResponseController(w).Hijack() }, notStored: "takes over the connection: set Route.Bypass"},
		"a tag that is none":          {serve: header("Cache-Tag", strings.Repeat("x", 257)), notStored: "has a Cache-Tag that is none: a tag has at most 256 bytes, not 257"},
		"a tag like a path":           {serve: header("Cache-Tag", "a, /a"), notStored: "has a Cache-Tag that is none: a tag does not begin with \"/\": paths are for Revalidate and Purge, and need no tag"},
		"many tags":                   {serve: header("Cache-Tag", manyTags(5000))},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) { test.serve(w, r) }}
				site := isr.Wrap(c, isr.Options{MaxPageBytes: 1000, Default: test.route})
				direct := httptest.NewRecorder()
				test.serve(direct, httptest.NewRequest("GET", "/", nil))

				for i := range 2 {
					res := do(site, "GET", "/")
					if res.StatusCode != direct.Code {
						t.Errorf("visit %d: status %d, want %d", i, res.StatusCode, direct.Code)
					}
					if diff := cmp.Diff(direct.Body.String(), read(res)); diff != "" {
						t.Errorf("visit %d: body (-want +got):\n%s", i, diff)
					}
					if got := res.Header["Set-Cookie"]; !slices.Equal(got, direct.Result().Header["Set-Cookie"]) {
						t.Errorf("visit %d: Set-Cookie %q", i, got)
					}
				}
				p := pages(site)["/"]
				if p.NotStored != test.notStored {
					t.Errorf("not stored because it %q, want %q", p.NotStored, test.notStored)
				}
				if stored := p.State != isr.Uncacheable; stored != (test.notStored == "") {
					t.Errorf("state %v", p.State)
				}
			})
		})
	}
}

func manyTags(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "tag-%d, ", i)
	}
	return b.String()
}

// A response that may not be stored is nobody's: each visitor's own request is
// served, those who waited do not queue up, and the page is tried again later.
func TestPassMark(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		private := true
		var own, made atomic.Int64
		var together sync.WaitGroup
		c := &cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			if !private {
				io.WriteString(w, "for all")
				return
			}
			w.Header().Set("Cache-Control", "private")
			if name, err := r.Cookie("name"); err == nil {
				own.Add(1)
				together.Done()
				together.Wait() // one after the other would be a deadlock
				io.WriteString(w, "for "+name.Value)
				return
			}
			made.Add(1)
			time.Sleep(time.Second)
			w.WriteHeader(200)
			if _, err := io.WriteString(w, "for nobody"); err == nil {
				t.Error("the rest of a response that nobody gets was taken without an error")
			}
			if r.Context().Err() == nil {
				t.Error("the run was not told that nobody needs the rest")
			}
		}}
		site := isr.Wrap(c, isr.Options{})
		var all sync.WaitGroup
		visit := func(n int) {
			together.Add(n)
			for i := range n {
				all.Go(func() {
					res := get(site, "/", "Cookie", fmt.Sprintf("name=%d", i))
					if got, want := read(res), fmt.Sprintf("for %d", i); got != want {
						t.Errorf("visitor %d got %q", i, got)
					}
					if got, want := res.Header.Get("Cache-Status"), "isr; fwd=bypass; detail=uncacheable"; got != want {
						t.Errorf("Cache-Status %q, want %q", got, want)
					}
				})
			}
			all.Wait()
		}
		visit(100)
		visit(100)
		if own.Load() != 200 || made.Load() != 1 {
			t.Errorf("%d own requests and %d page requests, want 200 and 1", own.Load(), made.Load())
		}
		time.Sleep(10 * time.Second)
		private = false
		if got := body(site, "/", "Cookie", "name=x"); got != "for all" {
			t.Errorf("got %q after the page has become public", got)
		}

		// The other way: the stored page goes at once, whoever it was renewed for.
		private = true
		if err := site.RevalidateTag(t.Context(), "none"); err != nil {
			t.Fatal(err)
		}
		site.Revalidate(t.Context(), "/")
		visit(1)
	})
}

// A response that is too large goes to one of those who wait as it is written;
// it is not run again for him.
func TestStreaming(t *testing.T) {
	const size = 100_000
	long := strings.Repeat("0123456789", size/10)
	synctest.Test(t, func(t *testing.T) {
		c := &cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			w.Header().Set("X-Run", fmt.Sprint(n))
			w.Header().Set("Connection", "close")
			time.Sleep(time.Second)
			for part := range slices.Chunk([]byte(long), 15_000) {
				if _, err := w.Write(part); err != nil {
					t.Errorf("run %d: %v", n, err)
				}
				time.Sleep(time.Second) // altogether for longer than the Timeout
				w.(http.Flusher).Flush()
			}
		}}
		site := isr.Wrap(c, isr.Options{MaxPageBytes: 5000, Default: isr.Route{Timeout: 5 * time.Second, Vary: []string{"Accept"}}})
		streamed := new(atomic.Int64)
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() {
				res := get(site, "/")
				if got := read(res); got != long {
					t.Errorf("got %d bytes, want %d", len(got), len(long))
				}
				if res.Header.Get("Cache-Status") == "isr; fwd=uri-miss; detail=too-large" {
					streamed.Add(1)
					if res.Header["Connection"] != nil || res.Header.Get("X-Run") != "1" || res.Header.Get("Vary") != "Accept" {
						t.Errorf("streamed with %v", res.Header)
					}
				}
			})
		}
		all.Wait()
		if streamed.Load() != 1 || c.calls.Load() != 10 {
			t.Errorf("%d visitors got the stream, and %d runs; want 1 and 10", streamed.Load(), c.calls.Load())
		}
		if p := pages(site)["/"]; p.State != isr.Uncacheable {
			t.Errorf("state %v", p.State)
		}

		// HEAD takes no stream, and background runs have nobody to give it to.
		site.Purge(t.Context(), "/")
		c.serve = func(w http.ResponseWriter, r *http.Request, n int64) {
			if _, err := io.WriteString(w, long); (err != nil) != (r.Method == "GET") {
				t.Errorf("%s: %v", r.Method, err)
			}
		}
		if res := do(site, "HEAD", "/"); res.StatusCode != 200 || res.Header.Get("Cache-Status") != "isr; fwd=bypass; detail=uncacheable" {
			t.Errorf("HEAD: %d %v", res.StatusCode, res.Header)
		}
	})
}

// A stream that breaks off reaches its visitor as broken.
func TestStreamBreaksOff(t *testing.T) {
	for name, breakOff := range map[string]func(r *http.Request){
		"panic":    func(*http.Request) { panic("no database") },
		"deadline": func(r *http.Request) { <-r.Context().Done(); time.Sleep(time.Hour) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
					time.Sleep(time.Second)
					io.WriteString(w, strings.Repeat("x", 6000))
					breakOff(r)
				}}
				site := isr.Wrap(c, isr.Options{MaxPageBytes: 5000, Default: isr.Route{Timeout: 5 * time.Second}})
				if v := recovered(func() { get(site, "/") }); v != http.ErrAbortHandler {
					t.Errorf("panic %v, want %v", v, http.ErrAbortHandler)
				}
				time.Sleep(2 * time.Hour)
			})
		})
	}
}

// A visitor who leaves while nothing is sent is noticed at once, and so is the
// last of those who would have taken the stream.
func TestStreamLeft(t *testing.T) {
	for name, before := range map[string]bool{"before the stream": true, "during the stream": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
					if before {
						time.Sleep(2 * time.Second)
					}
					io.WriteString(w, strings.Repeat("x", 6000))
					w.(http.Flusher).Flush()
					<-r.Context().Done()
				}}
				site := isr.Wrap(c, isr.Options{MaxPageBytes: 5000})
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				start := time.Now()
				w := httptest.NewRecorder()
				recovered(func() { site.ServeHTTP(w, httptest.NewRequest("GET", "/", nil).WithContext(ctx)) })
				if w.Flushed == before {
					t.Errorf("flushed: %v", w.Flushed)
				}
				if got := time.Since(start); got != time.Second {
					t.Errorf("the visitor was let go after %v", got)
				}
				if err := site.Shutdown(t.Context()); err != nil || time.Since(start) > 2*time.Second {
					t.Errorf("the run ended after %v, %v", time.Since(start), err)
				}
			})
		})
	}
}

// However closely a visitor leaves before the first byte too many, the run does not
// wait for him.
func TestStreamLeftInTheMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(time.Second)
			io.WriteString(w, strings.Repeat("x", 6000))
		}), isr.Options{MaxPageBytes: 5000})
		start := time.Now()
		var all sync.WaitGroup
		for i := range 500 {
			all.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				r := httptest.NewRequest("GET", fmt.Sprint("/", i), nil).WithContext(ctx)
				recovered(func() { site.ServeHTTP(httptest.NewRecorder(), r) })
			})
		}
		all.Wait()
		if err := site.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if got := time.Since(start); got > 3*time.Second {
			t.Errorf("the last run ended after %v", got)
		}
	})
}

// A slow visitor gets all of a large response, even where the handler writes it at
// one go; and one that panics in the middle is reported.
func TestStreamSlowVisitor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		c := &cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			time.Sleep(time.Second)
			io.WriteString(w, strings.Repeat("x", 1<<20))
			if _, ok := r.Context().Deadline(); ok {
				t.Error("a stream has a deadline")
			}
			if r.URL.Path == "/panics" {
				panic("no database")
			}
		}}
		site := isr.Wrap(c, isr.Options{MaxPageBytes: 5000, Logger: j.logger(slog.LevelError), Default: isr.Route{Timeout: 5 * time.Second}})
		w := &slowWriter{httptest.NewRecorder()}
		site.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		if got := w.Body.Len(); got != 1<<20 {
			t.Errorf("got %d bytes", got)
		}
		if v := recovered(func() { get(site, "/panics") }); v != http.ErrAbortHandler {
			t.Errorf("panic %v", v)
		}
		synctest.Wait()
		if _, log := j.taken(); !strings.Contains(log, "no database") {
			t.Errorf("the log says %q", log)
		}
	})
}

type slowWriter struct{ *httptest.ResponseRecorder }

func (w *slowWriter) Write(b []byte) (int, error) {
	time.Sleep(time.Second)
	return w.ResponseRecorder.Write(b)
}

// Whoever asks after an invalidation gets no stream of a run begun before it.
func TestStreamFence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var data atomic.Int64
		c := &cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			read := data.Load()
			time.Sleep(10 * time.Second)
			w.Header().Set("Cache-Tag", "found-on-the-way")
			fmt.Fprintf(w, "data %d %s", read, strings.Repeat("x", 6000))
		}}
		site := isr.Wrap(c, isr.Options{MaxPageBytes: 5000})
		ctx, leave := context.WithCancel(t.Context())
		go site.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil).WithContext(ctx))
		synctest.Wait()
		data.Store(1)
		if err := site.RevalidateTag(t.Context(), "found-on-the-way"); err != nil {
			t.Fatal(err)
		}
		go func() {
			time.Sleep(time.Second)
			leave() // so that nobody else would take it
		}()
		if got := body(site, "/"); !strings.HasPrefix(got, "data 1") {
			t.Errorf("got %.10q", got)
		}
	})
}

// A visitor who leaves while he is sent a stream ends it.
func TestStreamAbandoned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			time.Sleep(time.Second)
			for {
				if _, err := io.WriteString(w, strings.Repeat("x", 6000)); err != nil {
					return
				}
			}
		}}
		site := isr.Wrap(c, isr.Options{MaxPageBytes: 5000})
		w := &brokenWriter{header: make(http.Header)}
		if v := recovered(func() { site.ServeHTTP(w, httptest.NewRequest("GET", "/", nil)) }); v != http.ErrAbortHandler {
			t.Errorf("panic %v, want %v", v, http.ErrAbortHandler)
		}
	})
}

type brokenWriter struct {
	header http.Header
	n      int
}

func (w *brokenWriter) Header() http.Header { return w.header }
func (w *brokenWriter) WriteHeader(int)     {}
func (w *brokenWriter) Write(b []byte) (int, error) {
	if w.n += len(b); w.n > 20000 {
		return 0, errors.New("gone")
	}
	return len(b), nil
}

// Handlers that lie never leave a broken page behind.
func TestHandlersThatLie(t *testing.T) {
	for name, test := range map[string]struct {
		serve  func(http.ResponseWriter)
		status int
		header http.Header
		body   string
	}{
		"second WriteHeader": {
			func(w http.ResponseWriter) { w.WriteHeader(404); w.WriteHeader(200); io.WriteString(w, "no such page") },
			404, nil, "no such page",
		},
		"informational first": {
			func(w http.ResponseWriter) {
				w.Header().Set("Link", "</style.css>; rel=preload")
				w.WriteHeader(103)
				w.WriteHeader(100)
				io.WriteString(w, "page")
			},
			200, http.Header{"Link": {"</style.css>; rel=preload"}}, "page",
		},
		"headers after WriteHeader": {
			func(w http.ResponseWriter) {
				w.Header().Set("X-Name", "before")
				w.WriteHeader(200)
				w.Header().Set("X-Name", "after")
				w.Header().Set("Set-Cookie", "session=1")
				io.WriteString(w, "page")
			},
			200, http.Header{"X-Name": {"before"}}, "page",
		},
		"Content-Length that is none": {
			func(w http.ResponseWriter) { w.Header().Set("Content-Length", "many"); io.WriteString(w, "page") },
			200, nil, "page",
		},
		"a body where there is none": {
			func(w http.ResponseWriter) {
				w.Header().Set("Cache-Control", "max-age=60")
				w.WriteHeader(204)
				if _, err := io.WriteString(w, "page"); !errors.Is(err, http.ErrBodyNotAllowed) {
					panic(err)
				}
			},
			204, http.Header{"Content-Type": nil, "Cache-Control": {"max-age=60"}}, "",
		},
		"hop-by-hop headers": {
			func(w http.ResponseWriter) {
				h := w.Header()
				h.Set("Connection", "close, X-Hop")
				h.Set("X-Hop", "1")
				h.Set("Keep-Alive", "timeout=5")
				h.Set("Transfer-Encoding", "chunked")
				h.Set("Trailer", "X-Sum")
				h.Set("Upgrade", "h2c")
				h.Set("Proxy-Authenticate", "Basic")
				h.Set(http.TrailerPrefix+"X-Sum", "1")
				h.Set("Age", "7")
				io.WriteString(w, "page")
			},
			200, nil, "page",
		},
		"names in any spelling": {
			func(w http.ResponseWriter) {
				w.Header()["x-name"] = []string{"value"}
				w.Header()["ETag"] = []string{`"v1"`}
				io.WriteString(w, "page")
			},
			200, http.Header{"X-Name": {"value"}, "Etag": {`"v1"`}}, "page",
		},
		"flush": {
			func(w http.ResponseWriter) { w.(http.Flusher).Flush(); w.WriteHeader(404); io.WriteString(w, "page") },
			200, nil, "page",
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := &cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) { test.serve(w) }}
			site := isr.Wrap(c, isr.Options{})
			get(site, "/")
			res := get(site, "/")
			if c.calls.Load() != 1 {
				t.Fatalf("not stored: %+v", pages(site)["/"])
			}
			got := res.Header.Clone()
			want := http.Header{
				"Age": {"0"}, "Cache-Control": {"public, max-age=0, s-maxage=60"},
				"Cache-Status": {"isr; hit"}, "Content-Type": {"text/plain; charset=utf-8"},
			}
			if test.status == 404 {
				want.Set("Cache-Control", "public, max-age=0, s-maxage=10")
				want.Set("Cache-Status", "isr; hit; ttl=10")
			}
			if test.status == 200 {
				want.Set("Accept-Ranges", "bytes")
			}
			if test.status != 204 {
				want["Content-Length"] = []string{fmt.Sprint(len(test.body))}
				want["Etag"] = got["Etag"]
			} else {
				want.Set("Cache-Status", "isr; hit; ttl=60")
			}
			maps.Copy(want, test.header)
			maps.DeleteFunc(want, func(_ string, v []string) bool { return v == nil })
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("header (-want +got):\n%s", diff)
			}
			if res.StatusCode != test.status || read(res) != test.body {
				t.Errorf("got %d", res.StatusCode)
			}
		})
	}
	t.Run("a code that is none", func(t *testing.T) {
		c := &cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) { w.WriteHeader(42) }}
		site := isr.Wrap(c, isr.Options{})
		if v := recovered(func() { get(site, "/") }); v != "invalid WriteHeader code 42" {
			t.Errorf("panic %v", v)
		}
	})
}

// What is written when the handler has returned, or the run is over, reaches no
// page. The race detector has a say in this.
func TestWritesAfterReturn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			io.WriteString(w, "page")
			go func() {
				for range 10 {
					time.Sleep(time.Second)
					w.WriteHeader(500)
					w.(http.Flusher).Flush()
					if _, err := io.WriteString(w, " and more"); err == nil {
						t.Error("no error for what is written after the handler has returned")
					}
				}
			}()
		}}
		site := isr.Wrap(c, isr.Options{})
		for range 12 {
			if got := body(site, "/"); got != "page" {
				t.Errorf("got %q", got)
			}
			time.Sleep(time.Second)
		}
	})
}

// The context of a page request ends at the deadline, which holds nobody, and a
// handler that ignores it loses its slot.
func TestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := false
		c := &cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			if deadline, ok := r.Context().Deadline(); !ok || time.Until(deadline) != 30*time.Second {
				t.Errorf("deadline %v, %v; want in 30s", deadline, ok)
			}
			if hang && r.URL.Path == "/hangs" {
				time.Sleep(time.Hour)
				ctx, cancel := context.WithTimeout(r.Context(), time.Hour) // as a database's client would
				defer cancel()
				if r.Context().Err() != context.DeadlineExceeded || ctx.Err() != context.DeadlineExceeded {
					t.Errorf("the contexts' errors are %v and %v", r.Context().Err(), ctx.Err())
				}
			}
			fmt.Fprint(w, "page ", n)
		}}
		site := isr.Wrap(c, isr.Options{MaxRegenerations: 1, Default: isr.Route{TTL: time.Second}})
		get(site, "/hangs")
		get(site, "/other")
		hang = true
		time.Sleep(time.Second)
		get(site, "/hangs") // takes the only slot
		get(site, "/other") // waits for it
		synctest.Wait()
		if got := site.Stats().Generating; got != 1 {
			t.Errorf("%d generations under way, want 1", got)
		}
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if got, want := body(site, "/other"), "page 4"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if got := pages(site)["/hangs"]; got.Failures != 1 {
			t.Errorf("the late result was taken: %+v", got)
		}
	})
}

// Background regenerations stand in line; visitors who wait do not stand behind
// them, not even for a page that stands in line itself.
func TestMaxRegenerations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running, most atomic.Int64
		c := &cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			now := running.Add(1)
			defer running.Add(-1)
			for m := most.Load(); now > m && !most.CompareAndSwap(m, now); m = most.Load() {
			}
			time.Sleep(time.Second)
			fmt.Fprint(w, "page ", n)
		}}
		site := isr.Wrap(c, isr.Options{MaxRegenerations: 3, MaxGenerations: 100, Default: isr.Route{TTL: time.Minute, StaleWhileRevalidate: time.Minute}})
		var all sync.WaitGroup
		for i := range 100 {
			all.Go(func() { get(site, fmt.Sprint("/", i)) })
		}
		all.Wait()
		time.Sleep(119 * time.Second) // all are stale
		most.Store(0)
		for range 5 {
			for i := range 100 {
				body(site, fmt.Sprint("/", i))
			}
		}
		synctest.Wait()
		if got := most.Load(); got != 3 {
			t.Errorf("%d regenerations at once, want 3", got)
		}
		// A new page does not wait for the line.
		start := time.Now()
		get(site, "/new")
		if got := time.Since(start); got != time.Second {
			t.Errorf("a visitor waited %v for a new page", got)
		}
		// By now the pages have expired that stand in line.
		start = time.Now()
		time.Sleep(5 * time.Second)
		if res := get(site, "/99"); res.Header.Get("Cache-Status") != "isr; fwd=stale; stored; collapsed" || time.Since(start) != 6*time.Second {
			t.Errorf("%q after %v", res.Header.Get("Cache-Status"), time.Since(start))
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := c.calls.Load(); got != 201 {
			t.Errorf("%d runs, want 201: each page once, and once more", got)
		}
		if got := site.Stats().Generating; got != 0 {
			t.Errorf("%d generations under way", got)
		}
	})
}

func TestPlaceholder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			time.Sleep(time.Second)
			fmt.Fprint(w, "page ", n)
		}}
		site := isr.Wrap(c, isr.Options{Default: isr.Route{
			TTL: time.Minute,
			Placeholder: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Cache-Control", "max-age=60")
				fmt.Fprint(w, "one moment")
			}),
		}})
		const googlebot = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
		res := get(site, "/", "User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:142.0) Gecko/20100101 Firefox/142.0")
		if got := read(res); got != "one moment" || res.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("people got %q %v", got, res.Header)
		}
		if got := body(site, "/", "User-Agent", googlebot); got != "page 1" {
			t.Errorf("a crawler got %q, want to wait for the page", got)
		}
		if got := body(site, "/"); got != "page 1" {
			t.Errorf("people got %q when the page was there", got)
		}
		if res := do(site, "HEAD", "/other"); res.StatusCode != 200 || res.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("HEAD got %d %v", res.StatusCode, res.Header)
		}
		time.Sleep(time.Minute)
		if got := body(site, "/"); got != "page 1" {
			t.Errorf("people got %q when the page was stale", got)
		}
		time.Sleep(time.Second)
	})
}

// Those whom a placeholder sends away do not make the renewals of others wait, nor
// fill the memory with what is in line.
func TestPlaceholderFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			time.Sleep(100 * time.Millisecond)
			fmt.Fprint(w, "page ", n)
		}}
		site := isr.Wrap(c, isr.Options{MaxRegenerations: 2, Routes: map[string]isr.Route{
			"/home":    {TTL: time.Second},
			"/search/": {Placeholder: http.NotFoundHandler()},
		}})
		get(site, "/home")
		time.Sleep(time.Second)
		for i := range 10_000 {
			get(site, fmt.Sprint("/search/", i))
		}
		start := time.Now()
		for body(site, "/home") == "page 1" {
			time.Sleep(100 * time.Millisecond)
		}
		if got := time.Since(start); got > 3*time.Second {
			t.Errorf("the home page was renewed after %v", got)
		}
		// When the flood is over, strangers have their turn again.
		time.Sleep(time.Minute)
		get(site, "/search/new")
		time.Sleep(time.Second)
		if got := get(site, "/search/new").StatusCode; got != 200 {
			t.Errorf("got %d after the flood", got)
		}
		site.Shutdown(t.Context())
	})
}

// Whatever a placeholder does, nobody keeps it.
func TestPlaceholderIsNotKept(t *testing.T) {
	for name, placeholder := range map[string]http.HandlerFunc{
		"silent": func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Cache-Control", "max-age=60") },
		"writes": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "max-age=60")
			io.WriteString(w, "x")
		},
		"flushes": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "max-age=60")
			w.(http.Flusher).Flush()
		},
		"hints": func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(103)
			w.Header().Set("Cache-Control", "max-age=60")
			w.WriteHeader(202)
		},
	} {
		site := isr.Wrap(new(cms), isr.Options{Default: isr.Route{Placeholder: placeholder}})
		if res := get(site, "/"); res.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %v", name, res.StatusCode, res.Header)
		}
	}
}

// A page of which one knows only that it could not be stored a while ago is as
// unknown as any; a failure is shown to whoever comes next; and when nothing is
// generated any more there is nothing to wait for.
func TestPlaceholderAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		private, fails := true, false
		c := &cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			if private {
				w.Header().Set("Cache-Control", "private")
			}
			time.Sleep(time.Second)
			if fails {
				w.WriteHeader(500)
			}
			fmt.Fprint(w, "page ", n)
		}}
		site := isr.Wrap(c, isr.Options{Default: isr.Route{Placeholder: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, "one moment")
		})}})
		visit := func(want string) {
			t.Helper()
			if got := body(site, "/"); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
			time.Sleep(2 * time.Second)
		}
		visit("one moment")
		visit("page 2")
		private = false
		time.Sleep(10 * time.Second)
		visit("one moment")
		visit("page 3")
		site.Purge(t.Context(), "/")
		fails = true
		visit("one moment")
		visit("page 5") // the error
		fails = false
		visit("page 6")
		visit("page 6")
		site.Purge(t.Context(), "/")
		site.Shutdown(t.Context())
		visit("page 7")
	})
}

func TestPrerender(t *testing.T) {
	paths := func(n int) []string {
		var s []string
		for i := range n {
			s = append(s, fmt.Sprint("/", i))
		}
		return s
	}
	collect := func(site *isr.Site, paths ...string) map[string]string {
		got := make(map[string]string)
		for path, err := range site.Prerender(context.Background(), slices.Values(paths)) {
			got[path] = fmt.Sprint(err)
		}
		return got
	}
	t.Run("generates", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var running atomic.Int64
			c := &cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
				if now := running.Add(1); now > 4 {
					t.Errorf("%d at once, want a few", now)
				}
				time.Sleep(time.Second)
				running.Add(-1)
				switch r.URL.Path {
				case "/fails":
					w.WriteHeader(500)
				case "/private":
					w.Header().Set("Cache-Control", "private")
				}
				if got := "https://example.com"; r.Host != "example.com" || r.TLS == nil {
					t.Errorf("host %q, TLS %v, want %s", r.Host, r.TLS, got)
				}
			}}
			site := isr.Wrap(c, isr.Options{
				Origin: "https://example.com", MaxRegenerations: 4,
				Routes: map[string]isr.Route{"/account/": {Bypass: isr.Always}},
			})
			got := collect(site, append(paths(10), "/fails", "/private", "/account/", "nonsense", "https://example.com/x?b=2&a=1", "http://example.com/")...)
			want := map[string]string{
				"/fails":                        "isr: prerender /fails: the handler answered 500 Internal Server Error",
				"/private":                      "isr: prerender /private: not stored: it is private by its Cache-Control",
				"/account/":                     "isr: prerender /account/: its route's Bypass keeps it out of the cache",
				"nonsense":                      `isr: path "nonsense": want a path that begins with "/", or a whole URL`,
				"https://example.com/x?b=2&a=1": "<nil>",
				"http://example.com/":           `isr: path "http://example.com/": is not at Options.Origin, https://example.com`,
			}
			for _, path := range paths(10) {
				want[path] = "<nil>"
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			calls := c.calls.Load()
			if got := get(site, "/x?a=1&b=2").Header.Get("Cache-Status"); got != "isr; hit" {
				t.Errorf("Cache-Status %q", got)
			}
			if collect(site, paths(10)...); c.calls.Load() != calls {
				t.Errorf("%d runs for pages that are fresh", c.calls.Load()-calls)
			}
		})
	})
	t.Run("without an origin", func(t *testing.T) {
		site := isr.Wrap(new(cms), isr.Options{})
		want := map[string]string{
			"/":                    "isr: prerender /: no host: set Options.Origin, or name the page with scheme and host",
			"http://example.com/a": "<nil>",
		}
		if diff := cmp.Diff(want, collect(site, "/", "http://example.com/a")); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if got := get(site, "/a").Header.Get("Cache-Status"); got != "isr; hit" {
			t.Errorf("Cache-Status %q", got)
		}
	})
	t.Run("a Bypass that panics", func(t *testing.T) {
		site := isr.Wrap(new(cms), isr.Options{Origin: "http://example.com", Default: isr.Route{
			Bypass: func(r *http.Request) bool { return r.Context().Value(contextKey{}).(bool) },
		}})
		if recovered(func() { collect(site, "/") }) == nil {
			t.Error("the panic did not reach the caller")
		}
	})
	t.Run("left early", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := &cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
				time.Sleep(time.Duration(n) * time.Second)
			}}
			site := isr.Wrap(c, isr.Options{Origin: "http://localhost", MaxRegenerations: 3})
			for range site.Prerender(t.Context(), slices.Values(paths(100))) {
				break
			}
			if got := c.calls.Load(); got != 3 {
				t.Errorf("%d runs, want the 3 of the beginning", got)
			}
			time.Sleep(time.Minute)
		})
	})
	t.Run("cancelled", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := &cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) { time.Sleep(10 * time.Second) }}
			site := isr.Wrap(c, isr.Options{Origin: "http://localhost", MaxRegenerations: 3})
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			n := 0
			for path, err := range site.Prerender(ctx, slices.Values(paths(100))) {
				if n++; !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%s: %v", path, err)
				}
			}
			if n != 3 {
				t.Errorf("%d results, want those under way, 3", n)
			}
			time.Sleep(time.Minute)
		})
	})
}

// An unknown path of a PrerenderedOnly route does not reach the handler.
func TestPrerenderedOnly(t *testing.T) {
	c := new(cms)
	site := isr.Wrap(c, isr.Options{
		Origin: "http://example.com",
		Routes: map[string]isr.Route{"/blog/": {PrerenderedOnly: true}},
	})
	for _, err := range site.Prerender(t.Context(), slices.Values([]string{"/blog/1"})) {
		if err != nil {
			t.Fatal(err)
		}
	}
	visit := func(target string, status int) {
		t.Helper()
		if res := get(site, target); res.StatusCode != status || status == 404 && res.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %v, want %d", target, res.StatusCode, res.Header, status)
		}
	}
	visit("/blog/1", 200)
	visit("/blog/2", 404)
	visit("/other", 200)
	if got := c.calls.Load(); got != 2 {
		t.Errorf("%d runs, want 2", got)
	}
	site.Purge(t.Context(), "/blog/1") // the page is dropped; its path is as well known as before
	visit("/blog/1", 200)
	site.Revalidate(t.Context(), "/blog/2") // a CMS that names a new post makes it known
	visit("/blog/2", 200)
}

func TestShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			time.Sleep(10 * time.Second)
			fmt.Fprint(w, "page ", n)
		}}
		site := isr.Wrap(c, isr.Options{
			MaxRegenerations: 1, Origin: "http://example.com", Default: isr.Route{TTL: time.Second},
			Routes: map[string]isr.Route{"/expired": {TTL: time.Second, StaleWhileRevalidate: -1}},
		})
		get(site, "/expired")
		get(site, "/a")
		get(site, "/b")
		time.Sleep(time.Second)
		get(site, "/a") // under way
		get(site, "/b") // in line
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := site.Shutdown(ctx); err != context.DeadlineExceeded {
			t.Errorf("Shutdown returned %v before the generation had ended", err)
		}
		if err := site.Shutdown(t.Context()); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if got := c.calls.Load(); got != 4 {
			t.Errorf("%d runs, want 4: none of those in line", got)
		}
		time.Sleep(time.Second)
		for _, test := range [][2]string{
			{"/a", "isr; hit; ttl=0; detail=stale"},
			{"/expired", "isr; hit; ttl=-31; detail=stale"},
			{"/c", "isr; fwd=bypass"},
		} {
			if got := get(site, test[0]).Header.Get("Cache-Status"); got != test[1] {
				t.Errorf("%s: Cache-Status %q, want %q", test[0], got, test[1])
			}
		}
		if err := site.Revalidate(t.Context(), "/a"); err == nil || !strings.Contains(err.Error(), "shut down") {
			t.Errorf("Revalidate: %v", err)
		}
		if err := site.Shutdown(t.Context()); err != nil {
			t.Errorf("second Shutdown: %v", err)
		}
	})
}

// What isr has added to a page is not taken for the handler's when it is renewed.
func TestRenewedByDate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const modified = "Mon, 02 Jan 2006 15:04:05 GMT"
		var seen []string
		site := isr.Wrap(&cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			seen = append(seen, r.Header.Get("If-None-Match")+r.Header.Get("If-Modified-Since"))
			w.Header().Set("Last-Modified", modified)
			if n > 1 {
				w.WriteHeader(304)
			}
		}}, isr.Options{Default: isr.Route{Tags: []string{"t"}}})
		for range 3 {
			get(site, "/")
			site.RevalidateTag(t.Context(), "t")
			get(site, "/")
			synctest.Wait()
		}
		if diff := cmp.Diff([]string{"", modified, modified, modified}, seen); diff != "" {
			t.Errorf("validators (-want +got):\n%s", diff)
		}
		if got := pages(site)["/"].TTL; got != 0 {
			t.Errorf("TTL %v, want none", got)
		}
	})
}

// What an upstream says of the age of its 304 counts.
func TestAgeOfRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		site := isr.Wrap(&cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			w.Header().Set("Etag", `"v1"`)
			w.Header().Set("Cache-Control", "max-age=60")
			if n > 1 {
				w.Header().Set("Age", "50")
				w.WriteHeader(304)
			}
		}}, isr.Options{})
		get(site, "/")
		time.Sleep(time.Minute)
		get(site, "/")
		synctest.Wait()
		if got := get(site, "/").Header; got.Get("Age") != "50" || got.Get("Cache-Status") != "isr; hit; ttl=10" {
			t.Errorf("%v", got)
		}
	})
}

// Where the handler has set validators, it may renew its page with a 304.
func TestConditionalRegeneration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		etag, extra := `"v1"`, ""
		var seen []string
		c := &cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			seen = append(seen, r.Header.Get("If-None-Match")+r.Header.Get("If-Modified-Since"))
			w.Header().Set("Etag", etag)
			w.Header().Set("X-Run", fmt.Sprint(n))
			if extra != "" {
				w.Header().Set("Cache-Control", extra)
			}
			if r.Header.Get("If-None-Match") == etag {
				w.WriteHeader(304)
				return
			}
			fmt.Fprint(w, strings.Repeat("page of "+etag, 100))
		}}
		site := isr.Wrap(c, isr.Options{Default: isr.Route{TTL: 10 * time.Second}})
		visit := func(wantRun, wantAge, wantEtag string) {
			t.Helper()
			res := get(site, "/", "Accept-Encoding", "gzip")
			synctest.Wait()
			got := [...]string{res.Header.Get("X-Run"), res.Header.Get("Age"), res.Header.Get("Etag")}
			if want := [...]string{wantRun, wantAge, wantEtag}; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
		visit("1", "0", `"v1-gzip"`)
		time.Sleep(10 * time.Second)
		visit("1", "10", `"v1-gzip"`)
		visit("2", "0", `"v1-gzip"`) // renewed, with the body of the first run and the headers of the second
		if got := body(site, "/"); !strings.HasPrefix(got, `page of "v1"`) {
			t.Errorf("body %q", got)
		}
		// What the 304 says of its lifetime counts.
		time.Sleep(10 * time.Second)
		extra = "max-age=60"
		visit("2", "10", `"v1-gzip"`)
		time.Sleep(59 * time.Second)
		visit("3", "59", `"v1-gzip"`)
		// A new version comes with its body.
		etag = `"v2"`
		time.Sleep(time.Second)
		visit("3", "60", `"v1-gzip"`)
		visit("4", "0", `"v2-gzip"`)
		// Revalidate asks without conditions.
		if err := site.Revalidate(t.Context(), "/"); err != nil {
			t.Fatal(err)
		}
		// A 304 may say that the page is not for everyone any more.
		time.Sleep(60 * time.Second)
		extra = "private"
		visit("5", "60", `"v2-gzip"`)
		if got := pages(site)["/"].State; got != isr.Uncacheable {
			t.Errorf("state %v", got)
		}
		if diff := cmp.Diff([]string{"", `"v1"`, `"v1"`, `"v1"`, "", `"v2"`}, seen); diff != "" {
			t.Errorf("validators (-want +got):\n%s", diff)
		}
	})
}

// A page's own validators are not the handler's: it is not asked with them.
func TestUnconditionalRegeneration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			if r.Header.Get("If-None-Match") != "" {
				t.Errorf("If-None-Match: %s", r.Header.Get("If-None-Match"))
			}
			fmt.Fprint(w, "page ", n)
		}}
		site := isr.Wrap(c, isr.Options{Default: isr.Route{TTL: time.Second}})
		get(site, "/")
		time.Sleep(time.Second)
		get(site, "/")
	})
}

// httputil.ReverseProxy keeps quiet about an origin that breaks off, unless it
// finds itself under a server.
func TestOriginBreaksOff(t *testing.T) {
	var broken atomic.Bool
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "half a page")
		http.NewResponseController(w).Flush() // chunked: nothing tells how much is to come
		if broken.Load() {
			panic(http.ErrAbortHandler)
		}
		io.WriteString(w, ", and the other half")
	}))
	defer origin.Close()
	u, err := url.Parse(origin.URL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite:  func(r *httputil.ProxyRequest) { r.SetURL(u) },
		ErrorLog: log.New(io.Discard, "", 0),
	}
	site := isr.Wrap(proxy, isr.Options{Origin: "http://example.com"})
	get(site, "/")
	broken.Store(true)
	if err := site.Revalidate(t.Context(), "/"); !errors.Is(err, http.ErrAbortHandler) {
		t.Errorf("Revalidate: %v", err)
	}
	if got, want := body(site, "/"), "half a page, and the other half"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if v := recovered(func() { get(site, "/new") }); v != http.ErrAbortHandler {
		t.Errorf("panic %v", v)
	}
}

// Requests that are not for the cache reach the handler untouched, with a thin
// ResponseWriter around the original.
func TestUntouched(t *testing.T) {
	type request func() *http.Request
	with := func(method, target, body string, header ...string) request {
		return func() *http.Request {
			var b io.Reader
			if body != "" {
				b = strings.NewReader(body)
			}
			r := httptest.NewRequest(method, target, b)
			for i := 0; i < len(header); i += 2 {
				r.Header.Set(header[i], header[i+1])
			}
			return r
		}
	}
	for name, test := range map[string]struct {
		request request
		status  string
	}{
		"OPTIONS":        {with("OPTIONS", "/", ""), "isr; fwd=method"},
		"OPTIONS *":      {with("OPTIONS", "*", ""), "isr; fwd=method"},
		"TRACE":          {with("TRACE", "/", ""), "isr; fwd=method"},
		"Upgrade":        {with("GET", "/", "", "Upgrade", "websocket"), "isr; fwd=bypass"},
		"body":           {with("GET", "/", "a body"), "isr; fwd=bypass"},
		"Authorization":  {with("GET", "/", "", "Authorization", "Basic x"), "isr; fwd=bypass"},
		"Bypass":         {with("GET", "/bypass", ""), "isr; fwd=bypass"},
		"Bypass by rule": {with("GET", "/rule", "", "Cookie", "session=1"), "isr; fwd=bypass"},
		"chunked body": {func() *http.Request {
			return httptest.NewRequest("GET", "/", io.MultiReader(strings.NewReader("a body")))
		}, "isr; fwd=bypass"},
		"no path": {func() *http.Request {
			r := httptest.NewRequest("GET", "/", nil)
			r.URL.Opaque = "opaque"
			return r
		}, "isr; fwd=bypass"},
	} {
		t.Run(name, func(t *testing.T) {
			w, r := httptest.NewRecorder(), test.request()
			c := &cms{serve: func(gotW http.ResponseWriter, gotR *http.Request, n int64) {
				if gotR != r {
					t.Error("the handler got another Request")
				}
				if u, ok := gotW.(interface{ Unwrap() http.ResponseWriter }); !ok || u.Unwrap() != http.ResponseWriter(w) {
					t.Errorf("the handler's %T is not around the original ResponseWriter", gotW)
				}
				fmt.Fprint(gotW, "page ", n)
			}}
			site := isr.Wrap(c, isr.Options{Routes: map[string]isr.Route{
				"/bypass": {Bypass: isr.Always},
				"/rule": {Bypass: func(r *http.Request) bool {
					_, err := r.Cookie("session")
					return err == nil
				}},
			}})
			for range 2 {
				clear(w.Header())
				site.ServeHTTP(w, r)
				if got := w.Header()["Cache-Status"]; !cmp.Equal(got, []string{test.status}) {
					t.Errorf("Cache-Status %q, want %q", got, test.status)
				}
			}
			if c.calls.Load() != 2 || len(pages(site)) != 0 {
				t.Errorf("%d calls, %d pages", c.calls.Load(), len(pages(site)))
			}
		})
	}
}

// Connections can be taken over through the Site, with whatever method.
func TestHijack(t *testing.T) {
	server := httptest.NewServer(isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n")
		rw.Flush()
		line, _ := rw.ReadString('\n')
		rw.WriteString(line)
		rw.Flush()
	}), isr.Options{}))
	defer server.Close()
	for _, method := range []string{"GET", "POST"} {
		conn, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "%s / HTTP/1.1\r\nHost: example.com\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n", method)
		br := bufio.NewReader(conn)
		res, err := http.ReadResponse(br, nil)
		if err != nil || res.StatusCode != 101 {
			t.Fatalf("%s: %v, %v", method, res, err)
		}
		fmt.Fprintln(conn, "hello")
		if got, err := br.ReadString('\n'); err != nil || got != "hello\n" {
			t.Errorf("%s: %q, %v", method, got, err)
		}
	}
}
