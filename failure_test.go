package isr_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isr-go/isr"
)

// failures are the ways in which a generation fails, and what visitors get who waited
// for it and have no old page.
var failures = map[string]struct {
	serve  func(http.ResponseWriter, *http.Request)
	status int // zero: it is no response
	body   string
	panics any
	err    string
}{
	"500": {
		serve:  func(w http.ResponseWriter, r *http.Request) { http.Error(w, "no database", 500) },
		status: 500, body: "no database\n", err: "the handler answered 500 Internal Server Error",
	},
	"429": {
		serve:  func(w http.ResponseWriter, r *http.Request) { http.Error(w, "slow down", http.StatusTooManyRequests) },
		status: 429, body: "slow down\n", err: "the handler answered 429 Too Many Requests",
	},
	"503 marked cacheable": {
		serve: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "public, max-age=600")
			w.Header().Set("Set-Cookie", "session=1")
			w.WriteHeader(503)
		},
		status: 503, err: "the handler answered 503 Service Unavailable",
	},
	"panic": {
		serve:  func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "half a pa"); panic("no database") },
		panics: "no database", err: "the handler panicked: no database",
	},
	"abort": {
		serve:  func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) },
		panics: http.ErrAbortHandler, err: http.ErrAbortHandler.Error(),
	},
	"Goexit": {
		serve: func(w http.ResponseWriter, r *http.Request) { runtime.Goexit() },
		err:   "the handler called runtime.Goexit",
	},
	"deadline": {
		serve:  func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done(); io.WriteString(w, "too late") },
		status: 504, body: "Gateway Timeout\n", err: "the handler did not finish within Route.Timeout",
	},
	"deadline ignored": {
		serve:  func(w http.ResponseWriter, r *http.Request) { time.Sleep(time.Hour); io.WriteString(w, "too late") },
		status: 504, body: "Gateway Timeout\n", err: "the handler did not finish within Route.Timeout",
	},
	"short body": {
		serve: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, "half a pa")
		},
		status: 502, body: "Bad Gateway\n", err: "the handler wrote fewer bytes than its Content-Length",
	},
	"long body": {
		serve: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "4")
			io.WriteString(w, "page")
			if _, err := io.WriteString(w, " and more"); !errors.Is(err, http.ErrContentLength) {
				panic(fmt.Sprint("wrote too much without an error: ", err))
			}
		},
		status: 502, body: "Bad Gateway\n", err: "the handler wrote more bytes than its Content-Length",
	},
	"an error too large to keep": {
		serve: func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(500)
			io.WriteString(w, strings.Repeat("x", 5000))
		},
		status: 500, body: "Internal Server Error\n", err: "the handler answered 500 Internal Server Error",
	},
}

// A failed regeneration never replaces a page: the old one stays, its age goes on,
// nobody waits, and after a pause the next visit tries again.
func TestFailedRegenerationKeepsThePage(t *testing.T) {
	for name, failure := range failures {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				healthy := true
				c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
					if healthy {
						fmt.Fprint(w, "page ", n)
						return
					}
					failure.serve(w, r)
				}}
				site := isr.Wrap(c, isr.Options{
					MaxPageBytes: 4000,
					Default:      isr.Route{TTL: 10 * time.Second, StaleWhileRevalidate: 20 * time.Second, StaleIfError: time.Hour, Timeout: time.Second},
				})
				settle := func() { time.Sleep(time.Second); synctest.Wait() } // until the deadline of a handler that hangs
				walk(t, site, c, "/", step{0, 0, "page 1", "isr; fwd=uri-miss; stored", "0", 1})
				healthy = false
				walk(t, site, c, "/", step{10 * time.Second, 0, "page 1", "isr; hit; ttl=0; detail=stale", "10", 2})
				settle()
				p := pages(site)["/"]
				if p.Failures != 1 || p.Err == nil || p.Err.Error() != failure.err || p.State != isr.Stale {
					t.Errorf("state %v, %d failures, err %v; want stale, 1, %v", p.State, p.Failures, p.Err, failure.err)
				}
				walk(t, site, c, "/", step{0, 0, "page 1", "isr; hit; ttl=-1; detail=stale", "11", 3})
				// Expired: the last attempt has failed, so nobody waits for the next one.
				walk(t, site, c, "/", step{20 * time.Second, 0, "page 1", "isr; hit; ttl=-21; detail=stale", "31", 4})
				settle()
				walk(t, site, c, "/", step{0, 0, "page 1", "isr; hit; ttl=-22; detail=stale", "32", 4}) // a pause of two seconds
				healthy = true
				walk(t, site, c, "/",
					step{2 * time.Second, 0, "page 1", "isr; hit; ttl=-24; detail=stale", "34", 5},
					step{0, 0, "page 5", "isr; hit; ttl=10", "0", 5})
				if p := pages(site)["/"]; p.Failures != 0 || p.Err != nil {
					t.Errorf("%d failures, err %v after a success", p.Failures, p.Err)
				}
				time.Sleep(time.Hour) // for the handlers that ignore their context
			})
		})
	}
}

// Visitors who wait for an expired page get the old one if the generation fails, for as
// long as StaleIfError allows.
func TestStaleIfError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		healthy := true
		c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			if !healthy {
				w.WriteHeader(500)
			}
			fmt.Fprint(w, "page ", n)
		}}
		walkThrough := func(route isr.Route, steps ...step) {
			t.Helper()
			c.calls.Store(0)
			healthy = true
			site := isr.Wrap(c, isr.Options{Default: route})
			walk(t, site, c, "/", steps[0])
			healthy = false
			walk(t, site, c, "/", steps[1:]...)
		}
		first := step{0, 0, "page 1", "isr; fwd=uri-miss; stored", "0", 1}
		walkThrough(isr.Route{TTL: 10 * time.Second, StaleWhileRevalidate: -1, StaleIfError: 20 * time.Second},
			first,
			step{10 * time.Second, 0, "page 1", "isr; fwd=stale; fwd-status=500; detail=stale-if-error", "10", 2},
			step{19 * time.Second, 0, "page 1", "isr; hit; ttl=-19; detail=stale", "29", 3},
			// Failures extend no bound.
			step{time.Second, 500, "page 4", "isr; fwd=stale; fwd-status=500", "", 4})
		walkThrough(isr.Route{TTL: 10 * time.Second, StaleWhileRevalidate: -1, StaleIfError: -1},
			first,
			step{10 * time.Second, 500, "page 2", "isr; fwd=stale; fwd-status=500", "", 2})
	})
}

// Where there is no old page, visitors who waited get the handler's own error, nothing
// is stored, and the next visit tries again.
func TestFirstFailureReachesVisitors(t *testing.T) {
	for name, failure := range failures {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
					time.Sleep(time.Millisecond) // so that all of them wait for it
					failure.serve(w, r)
				}}
				site := isr.Wrap(c, isr.Options{MaxPageBytes: 4000, Default: isr.Route{Timeout: time.Second}})
				for visit := range int64(2) {
					var all sync.WaitGroup
					for range 3 {
						all.Add(1)
						go func() {
							defer all.Done() // a Goexit ends the goroutine
							var res *http.Response
							exited := true
							defer func() {
								if failure.err == "the handler called runtime.Goexit" && !exited {
									t.Error("Goexit did not reach a visitor who waited")
								}
							}()
							v := recovered(func() { res = get(site, "/") })
							exited = false
							if v != failure.panics {
								t.Errorf("panic %v, want %v", v, failure.panics)
							}
							if failure.status == 0 {
								return
							}
							if res.StatusCode != failure.status || res.Header.Get("Cache-Control") != "no-store" || res.Header["Set-Cookie"] != nil {
								t.Errorf("got %d %v, want %d with no-store and no cookie", res.StatusCode, res.Header, failure.status)
							}
							if got := read(res); got != failure.body {
								t.Errorf("body %q, want %q", got, failure.body)
							}
						}()
					}
					all.Wait()
					if got := c.calls.Load(); got != visit+1 {
						t.Errorf("%d runs after %d rounds of visits", got, visit+1)
					}
				}
				if n := len(pages(site)); n != 0 {
					t.Errorf("%d pages stored", n)
				}
				time.Sleep(time.Hour) // for the handlers that ignore their context
			})
		})
	}
}

// An error that is too large to be stored is still an error: the last good page stays.
func TestLargeErrorKeepsThePage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		healthy := true
		c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			if !healthy {
				w.Header().Set("Content-Length", "6000")
				w.WriteHeader(500)
				for range 6 {
					io.WriteString(w, strings.Repeat("x", 1000))
				}
				return
			}
			fmt.Fprint(w, "page ", n)
		}}
		site := isr.Wrap(c, isr.Options{MaxPageBytes: 5000, Default: isr.Route{TTL: time.Second}})
		get(site, "/")
		healthy = false
		for range 3 {
			time.Sleep(time.Second)
			if got := body(site, "/"); got != "page 1" {
				t.Errorf("got %.20q", got)
			}
			synctest.Wait()
		}
	})
}

// A failure keeps the Vary of outer middleware.
func TestFailureKeepsVary(t *testing.T) {
	site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Vary", "Accept")
		w.WriteHeader(500)
	}), isr.Options{Default: isr.Route{Vary: []string{"Accept"}}})
	w := httptest.NewRecorder()
	w.Header().Set("Vary", "Origin")
	site.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	if got := w.Result().Header["Vary"]; !cmp.Equal(got, []string{"Origin", "Accept"}) {
		t.Errorf("Vary %q", got)
	}
}

// recoveryMiddleware is what many sites have inside: it answers 500 where f panics.
func recoveryMiddleware(w http.ResponseWriter, f func()) {
	defer func() {
		if recover() != nil {
			http.Error(w, "Internal Server Error", 500)
		}
	}()
	f()
}

// brokenPages are responses that begin as a page and end as a failure.
var brokenPages = map[string]func(w http.ResponseWriter){
	"a template that breaks": func(w http.ResponseWriter) {
		io.WriteString(w, strings.Repeat("<p>half a page</p>", 100))
		http.Error(w, "template: no such field", 500)
	},
	"a recovery inside": func(w http.ResponseWriter) {
		recoveryMiddleware(w, func() {
			io.WriteString(w, "<p>half a page</p>")
			panic("nil pointer")
		})
	},
	"a header and nothing else": func(w http.ResponseWriter) {
		w.WriteHeader(200)
		w.WriteHeader(503)
	},
	"a flush": func(w http.ResponseWriter) {
		io.WriteString(w, "<p>half")
		w.(http.Flusher).Flush()
		w.WriteHeader(502)
	},
	"too many requests": func(w http.ResponseWriter) {
		io.WriteString(w, "<p>half")
		w.WriteHeader(429)
	},
}

// A failure after the header is a failure: half a page replaces no page.
func TestFailureAfterTheHeader(t *testing.T) {
	for name, broken := range brokenPages {
		t.Run(name, func(t *testing.T) {
			breaks := false
			c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
				if breaks {
					broken(w)
					return
				}
				w.Header().Set("ETag", `"good"`)
				io.WriteString(w, "a good page")
			}}
			site := isr.Wrap(c, isr.Options{Origin: "https://example.com"})
			get(site, "/")
			breaks = true
			if err := site.Revalidate(t.Context(), "/"); err == nil || !strings.Contains(err.Error(), "after it had begun to answer") {
				t.Errorf("Revalidate: %v", err)
			}
			if got := body(site, "/"); got != "a good page" {
				t.Errorf("visitors get %q", got)
			}
			if res := get(site, "/new"); res.StatusCode < 429 || strings.Contains(read(res), "half") || res.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("the first visitor of a page gets %d %v", res.StatusCode, res.Header)
			}
			if n := site.Stats().Pages; n != 1 {
				t.Errorf("%d pages stored", n)
			}
		})
	}
}

// Who says that a page is still good, and then fails, has failed: the page is as old as it
// was.
func TestFailureAfterNotModified(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		breaks := false
		c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			w.Header().Set("ETag", `"good"`)
			if breaks {
				if r.Header.Get("If-None-Match") != `"good"` {
					t.Error("the request has no conditions")
				}
				w.WriteHeader(http.StatusNotModified)
				http.Error(w, "no database", http.StatusInternalServerError)
				return
			}
			io.WriteString(w, "a good page")
		}}
		site := isr.Wrap(c, isr.Options{Origin: "http://example.com", Default: isr.Route{TTL: time.Minute, Tags: []string{"t"}}})
		get(site, "/")
		breaks = true
		time.Sleep(time.Minute)
		for _, err := range site.Renew(t.Context(), "t") {
			if err == nil || !strings.Contains(err.Error(), "after it had begun to answer 304") {
				t.Errorf("Renew: %v", err)
			}
		}
		if got := body(site, "/"); got != "a good page" {
			t.Errorf("%q", got)
		}
		synctest.Wait()
		if p := pages(site)["/"]; p.State != isr.Stale || p.Failures != 2 || time.Since(p.Generated) != time.Minute {
			t.Errorf("%v, %d failures, %v old", p.State, p.Failures, time.Since(p.Generated))
		}
	})
}

// A Route.Failure that panics counts like a handler that panics: the last good page
// stays, and the next visitor does not wait.
func TestRouteFailurePanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := false
		site := isr.Wrap(new(countingHandler), isr.Options{MaxGenerations: 1, MaxRegenerations: 1, Default: isr.Route{
			TTL: time.Second, StaleIfError: time.Minute,
			Failure: func(int, http.Header) bool {
				if broken {
					panic("nil map")
				}
				return false
			},
		}})
		get(site, "/")
		time.Sleep(time.Second)
		broken = true
		begin := time.Now()
		for range 2 {
			if got := body(site, "/"); got != "page 1" {
				t.Errorf("%q", got)
			}
			synctest.Wait()
		}
		if got := recovered(func() { get(site, "/other") }); got != "nil map" {
			t.Errorf("recovered %v", got)
		}
		broken = false
		if got := get(site, "/more").StatusCode; got != 200 || time.Since(begin) > 0 {
			t.Errorf("%d after %v", got, time.Since(begin))
		}
	})
}
