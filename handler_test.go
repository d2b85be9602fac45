package isr_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/store/memory"
)

// Handlers that contradict themselves never leave a broken page behind.
func TestContradictoryHandlers(t *testing.T) {
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
		"informational first (RFC 9110, section 15.2)": {
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
		"an invalid Content-Length": {
			func(w http.ResponseWriter) { w.Header().Set("Content-Length", "many"); io.WriteString(w, "page") },
			200, nil, "page",
		},
		"a body where none is allowed (RFC 9110, section 15.3.5)": {
			func(w http.ResponseWriter) {
				w.Header().Set("Cache-Control", "max-age=60")
				w.WriteHeader(204)
				if _, err := io.WriteString(w, "page"); !errors.Is(err, http.ErrBodyNotAllowed) {
					panic(err)
				}
			},
			204, http.Header{"Content-Type": nil, "Cache-Control": {"max-age=60"}}, "",
		},
		"hop-by-hop headers (RFC 9110, section 7.6.1)": {
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
			c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) { test.serve(w) }}
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
		c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) { w.WriteHeader(42) }}
		site := isr.Wrap(c, isr.Options{})
		if v := recovered(func() { get(site, "/") }); v != "invalid WriteHeader code 42" {
			t.Errorf("panic %v", v)
		}
	})
}

// What is written after the handler has returned, or after the run is over, reaches no
// page. The race detector checks this, too.
func TestWritesAfterReturn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
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

// httputil.ReverseProxy hides that an origin breaks off, unless it runs under a server.
func TestTruncatedProxyResponseIsAFailure(t *testing.T) {
	var broken atomic.Bool
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "half a page")
		http.NewResponseController(w).Flush() // chunked, so that the length is not known
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

// The context of a page request ends at the deadline, after which no visitor waits, and
// a handler that ignores it loses its slot.
func TestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := false
		c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			if deadline, ok := r.Context().Deadline(); !ok || time.Until(deadline) != 30*time.Second {
				t.Errorf("deadline %v, %v; want in 30s", deadline, ok)
			}
			if hang && r.URL.Path == "/hangs" {
				time.Sleep(time.Hour)
				ctx, cancel := context.WithTimeout(r.Context(), time.Hour) // as a database client does
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
			t.Errorf("the late result was stored: %+v", got)
		}
	})
}

// A context that the handler derives from its own costs no goroutine, and ends when
// that ends, for the same reason.
func TestDerivedContextsCostNoGoroutine(t *testing.T) {
	for name, derive := range map[string]func(context.Context) context.Context{
		"directly":     func(ctx context.Context) context.Context { return ctx },
		"from a value": func(ctx context.Context) context.Context { return context.WithValue(ctx, name("user"), 1) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var errs []error
				site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					before := runtime.NumGoroutine()
					var last context.Context
					for range 100 {
						ctx, cancel := context.WithTimeout(derive(r.Context()), time.Hour)
						defer cancel()
						last = ctx
					}
					if n := runtime.NumGoroutine() - before; n > 0 {
						t.Errorf("%d goroutines for 100 contexts", n)
					}
					if at, ok := last.Deadline(); !ok || time.Until(at) != time.Second {
						t.Errorf("deadline %v, %v", at, ok)
					}
					if r.URL.Path == "/hangs" {
						<-last.Done()
						errs = append(errs, last.Err())
					} else {
						context.AfterFunc(last, func() { errs = append(errs, last.Err()) })
					}
				}), isr.Options{Default: isr.Route{Timeout: time.Second}})
				get(site, "/")
				synctest.Wait()
				get(site, "/hangs")
				synctest.Wait()
				if len(errs) != 2 || errs[0] != context.Canceled || errs[1] != context.DeadlineExceeded {
					t.Errorf("they ended with %v", errs)
				}
			})
		})
	}
}

type name string

// Handlers that ask for CloseNotify (gin's Stream) are notified when nobody waits for
// their page any more.
func TestCloseNotifyOfPageRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var after time.Duration
		site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			gone := w.(interface{ CloseNotify() <-chan bool }).CloseNotify()
			if r.URL.Path == "/hangs" {
				begin := time.Now()
				<-gone
				after = time.Since(begin)
				return
			}
			for _, part := range []string{"one ", "page"} {
				select {
				case <-gone:
					t.Error("gone")
				default:
					io.WriteString(w, part)
					w.(http.Flusher).Flush()
				}
			}
		}), isr.Options{Default: isr.Route{Timeout: time.Minute}})
		for range 2 {
			if got := body(site, "/"); got != "one page" {
				t.Errorf("got %q", got)
			}
		}
		get(site, "/hangs")
		synctest.Wait()
		if after != time.Minute {
			t.Errorf("notified after %v", after)
		}
	})
}

// Traces and logs around the Site find in the visitor's request the pattern that the
// handler has matched, even where the page was generated for another visitor.
func TestVisitorsRequestGetsThePattern(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mux := http.NewServeMux()
		mux.HandleFunc("GET /blog/{id}", func(w http.ResponseWriter, r *http.Request) {
			switch r.PathValue("id") {
			case "fails":
				w.WriteHeader(500)
			case "panics":
				panic("on purpose")
			case "passes":
				w.Header().Set("Set-Cookie", "a=b")
			case "large":
				w.Write(make([]byte, 2000))
			}
		})
		mux.HandleFunc("POST /blog/{id}", func(w http.ResponseWriter, r *http.Request) {})
		hangs := http.NewServeMux()
		hangs.HandleFunc("GET /hangs/{id}", func(w http.ResponseWriter, r *http.Request) { time.Sleep(time.Minute) })
		mux.Handle("/hangs/", isr.With(hangs, isr.Route{}))
		opts := isr.Options{Origin: "https://example.com", MaxPageBytes: 1000, Store: memory.New()}
		site := isr.Wrap(mux, opts)
		defer site.Shutdown(context.Background())
		pattern := func(site http.Handler, method, target string) string {
			r := httptest.NewRequest(method, target, nil)
			recovered(func() { site.ServeHTTP(httptest.NewRecorder(), r) })
			synctest.Wait()
			return r.Pattern
		}
		for _, test := range []struct{ method, target, want string }{
			{"GET", "/blog/1", "GET /blog/{id}"},
			{"GET", "/blog/1", "GET /blog/{id}"},
			{"HEAD", "/blog/1", "GET /blog/{id}"},
			{"POST", "/blog/1", "POST /blog/{id}"},
			{"GET", "/blog/fails", "GET /blog/{id}"},
			{"GET", "/blog/panics", "GET /blog/{id}"},
			{"GET", "/blog/passes", "GET /blog/{id}"},
			{"GET", "/blog/passes", "GET /blog/{id}"},
			{"GET", "/blog/large", "GET /blog/{id}"},
			{"GET", "/hangs/1", "GET /hangs/{id}"}, // which it has matched, by all that is known
		} {
			if got := pattern(site, test.method, test.target); got != test.want {
				t.Errorf("%s %s: %q, want %q", test.method, test.target, got, test.want)
			}
		}
		r := httptest.NewRequest("GET", "/hangs/2", nil)
		ctx, cancel := context.WithTimeout(r.Context(), time.Second) // of a middleware
		defer cancel()
		r = r.WithContext(ctx)
		site.ServeHTTP(httptest.NewRecorder(), r)
		if r.Pattern != "GET /hangs/{id}" {
			t.Errorf("%q when the visitor leaves", r.Pattern)
		}
		// Another router has to be asked, and says it by what it has made before.
		calls := 0
		other := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.Pattern = "/posts/:id"
			if calls++; calls > 1 {
				time.Sleep(time.Minute)
			}
		}), isr.Options{Default: isr.Route{StaleIfError: -1}})
		if got := pattern(other, "GET", "/posts/1"); got != "/posts/:id" {
			t.Errorf("another router: %q", got)
		}
		if err := other.Expire(t.Context(), "http://example.com/posts/1"); err != nil {
			t.Fatal(err)
		}
		if got := pattern(other, "GET", "/posts/1"); got != "/posts/:id" {
			t.Errorf("another router that hangs: %q", got)
		}
		outer := http.NewServeMux()
		outer.Handle("/", site)
		for range 2 {
			if got := pattern(outer, "GET", "/blog/2"); got != "GET /blog/{id}" {
				t.Errorf("inside another ServeMux: %q", got)
			}
		}
		again := isr.Wrap(mux, opts)
		defer again.Shutdown(context.Background())
		if err := again.PurgeTag(t.Context(), "nothing"); err != nil {
			t.Fatal(err)
		}
		if got := pattern(again, "GET", "/blog/2"); got != "GET /blog/{id}" {
			t.Errorf("of a page that the Store has: %q", got)
		}
		time.Sleep(time.Minute) // until those that hang have returned
	})
}
