package isr_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/store/memory"
)

// A context that the handler derives from its own costs no goroutine, and ends with
// it, for the same reason.
func TestDerivedContexts(t *testing.T) {
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

// Handlers that ask for CloseNotify (gin's Stream) are told when nobody waits for
// their page any more.
func TestCloseNotifyOfPage(t *testing.T) {
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
			t.Errorf("told after %v", after)
		}
	})
}

// A handler whose response may not be stored learns why from what Write returns.
func TestDiscarded(t *testing.T) {
	for name, test := range map[string]struct {
		header []string
		body   string
		want   string
	}{
		"a cookie":  {[]string{"Set-Cookie", "a=b"}, "page", "isr: response discarded: it sets a cookie: set it in middleware outside of isr, or set Route.Bypass"},
		"private":   {[]string{"Cache-Control", "private"}, "page", "isr: response discarded: it is private by its Cache-Control"},
		"too large": {nil, strings.Repeat("x", 101), "isr: response discarded: it is larger than MaxPageBytes (100): raise it, or set Route.Bypass"},
	} {
		synctest.Test(t, func(t *testing.T) {
			var errs []error
			site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.RemoteAddr != "0.0.0.0:0" {
					return // a visitor's own request
				}
				for i := 0; i < len(test.header); i += 2 {
					w.Header().Set(test.header[i], test.header[i+1])
				}
				for range 2 {
					_, err := io.WriteString(w, test.body)
					errs = append(errs, err)
				}
			}), isr.Options{MaxPageBytes: 100})
			do(site, "HEAD", "/") // who takes no stream
			synctest.Wait()       // the handler goes on for a moment
			for i, err := range errs {
				if err == nil || err.Error() != test.want {
					t.Errorf("%s: write %d: %v, want %s", name, i, err, test.want)
				}
			}
			if len(errs) != 2 {
				t.Errorf("%s: %d writes", name, len(errs))
			}
		})
	}
}

// A 304 that is about another page than the stored one changes nothing: the page is
// asked for as it is now.
func TestForeignNotModified(t *testing.T) {
	for name, test := range map[string]struct {
		first, renewal string // ETag
		asked          int64  // how often the handler is
		body, etag     string
	}{
		"the same":             {`"one"`, `"one"`, 2, "page 1", `"one"`},
		"none":                 {`"one"`, "", 2, "page 1", `"one"`},
		"malformed":            {`"one"`, "two", 2, "page 1", ""},
		"another":              {`"one"`, `"two"`, 3, "page 3", `"two"`},
		"weak, the same":       {`W/"one"`, `W/"one"`, 2, "page 1", `W/"one"`},
		"weak, of the strong":  {`"one"`, `W/"one"`, 2, "page 1", `W/"one"`},
		"strong, of the weak":  {`W/"one"`, `"one"`, 3, "page 3", `"one"`},
		"weak, another":        {`W/"one"`, `W/"two"`, 3, "page 3", `W/"two"`},
		"new where was a date": {"", `"one"`, 3, "page 3", `"one"`},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := new(cms)
				c.serve = func(w http.ResponseWriter, r *http.Request, n int64) {
					etag := test.renewal
					if n == 1 {
						etag = test.first
						w.Header().Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
					}
					if etag != "" {
						w.Header().Set("Etag", etag)
					}
					if r.Header["If-None-Match"] != nil || r.Header["If-Modified-Since"] != nil {
						w.WriteHeader(304)
						return
					}
					io.WriteString(w, "page "+string(rune('0'+n)))
				}
				site := isr.Wrap(c, isr.Options{Default: isr.Route{TTL: time.Second}})
				get(site, "/")
				time.Sleep(2 * time.Second)
				get(site, "/")
				synctest.Wait()
				res := get(site, "/")
				if etag := res.Header.Get("Etag"); read(res) != test.body || test.etag != "" && etag != test.etag || c.calls.Load() != test.asked {
					t.Errorf("ETag %s, asked %d times; %+v", etag, c.calls.Load(), test)
				}
				if got := res.Header.Get("Cache-Status"); got != "isr; hit; ttl=1" {
					t.Errorf("Cache-Status %q", got)
				}
			})
		})
	}
}

// A handler that answers 304 whatever it is asked has failed: the last good page
// stays.
func TestNotModifiedWhateverIsAsked(t *testing.T) {
	for name, test := range map[string]struct{ first, then string }{
		"another page":  {`"one"`, `"two"`},
		"no conditions": {"", `"one"`},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
					if n == 1 {
						if test.first != "" {
							w.Header().Set("Etag", test.first)
						}
						io.WriteString(w, "page 1")
						return
					}
					w.Header().Set("Etag", test.then)
					w.WriteHeader(304)
				}}
				site := isr.Wrap(c, isr.Options{Default: isr.Route{TTL: time.Second, StaleWhileRevalidate: time.Minute, StaleIfError: time.Minute}})
				etag := get(site, "/").Header.Get("Etag")
				for range 3 {
					time.Sleep(2 * time.Second)
					res := get(site, "/")
					synctest.Wait()
					if got := res.Header.Get("Etag"); read(res) != "page 1" || got != etag {
						t.Errorf("%s, ETag %s", res.Status, got)
					}
				}
				if p := pages(site)["/"]; p.Err == nil || p.Err.Error() != "the handler answered 304 to a request without conditions" {
					t.Errorf("error %v", p.Err)
				}
				time.Sleep(time.Hour)
				if res := get(site, "/"); res.StatusCode != 502 {
					t.Errorf("%s when it may no longer be shown", res.Status)
				}
			})
		})
	}
}

// What traces and logs around the Site read from a visitor's request is the pattern
// that the handler has matched, whoever it matched it for.
func TestPatternOfVisitor(t *testing.T) {
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
		} {
			if got := pattern(site, test.method, test.target); got != test.want {
				t.Errorf("%s %s: %q, want %q", test.method, test.target, got, test.want)
			}
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
	})
}
