package isr_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isr-go/isr"
)

// A response that is too large goes to one of the visitors who wait as it is written,
// and is not run again for that visitor.
func TestTooLargeIsStreamed(t *testing.T) {
	const size = 100_000
	long := strings.Repeat("0123456789", size/10)
	synctest.Test(t, func(t *testing.T) {
		c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
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

		// HEAD takes no stream, and background runs have no visitor for it.
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
				c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
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

// A visitor who leaves while nothing is sent is noticed at once, and so is the last of
// those who would have taken the stream.
func TestLeavingWhileNothingIsSent(t *testing.T) {
	for name, before := range map[string]bool{"before the stream": true, "during the stream": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
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

// However shortly before the first byte too many a visitor leaves, the run does not
// wait for that visitor.
func TestLeavingAsTheStreamBegins(t *testing.T) {
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
		time.Sleep(time.Second) // until the handlers have returned of the runs that were not waited for
	})
}

// A slow visitor gets all of a large response, even where the handler writes it in one
// call; and a handler that panics in the middle is reported.
func TestSlowVisitorGetsTheWholeStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
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

// A visitor who asks after an invalidation gets no stream of a run that began before
// it.
func TestNoStreamFromBeforeAnInvalidation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var data atomic.Int64
		c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
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
			leave() // so that no visitor could take it
		}()
		if got := body(site, "/"); !strings.HasPrefix(got, "data 1") {
			t.Errorf("got %.10q", got)
		}
	})
}

// A visitor who leaves during a stream ends it.
func TestStreamEndsWithItsVisitor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
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

func (w *brokenWriter) WriteHeader(int) {}

func (w *brokenWriter) Write(b []byte) (int, error) {
	if w.n += len(b); w.n > 20000 {
		return 0, errors.New("gone")
	}
	return len(b), nil
}

// A visitor who takes a stream has not left: its run is not cancelled.
func TestStreamsAreNotAbandoned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			if r.URL.Path == "/left" {
				time.Sleep(20 * time.Second)
				return
			}
			for range 10 {
				io.WriteString(w, strings.Repeat("x", 1000))
				if err := r.Context().Err(); err != nil {
					t.Error(err)
				}
			}
		}}
		site := isr.Wrap(c, isr.Options{MaxRegenerations: 1, MaxPageBytes: 4000})
		visit(site, "/left", time.Second)
		for i := range 100 {
			if got := len(body(site, fmt.Sprint("/", i))); got != 10_000 {
				t.Errorf("%d bytes", got)
			}
		}
		time.Sleep(20 * time.Second)
	})
}

// A stuckWriter is the ResponseWriter of a visitor who reads nothing.
type stuckWriter struct {
	header http.Header
	gate   chan struct{}
	status int
	n      int // bytes written
}

func (w *stuckWriter) Header() http.Header { return w.header }

func (w *stuckWriter) WriteHeader(status int) { w.status = status }

func (w *stuckWriter) Write(b []byte) (int, error) {
	<-w.gate
	w.n += len(b)
	return len(b), nil
}

// Streams that are read slowly hold at most a quarter of MaxBytes; other visitors have
// their own requests served.
func TestSlowReadersHoldABoundedPartOfMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		large := strings.Repeat("x", 3000)
		c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			io.WriteString(w, large)
			io.WriteString(w, large)
		}}
		site := isr.Wrap(c, isr.Options{MaxBytes: 64 << 10, MaxPageBytes: 4 << 10})
		gate := make(chan struct{})
		streams, own := 0, 0
		var all sync.WaitGroup
		var writers []*stuckWriter
		for i := range 40 {
			w := &stuckWriter{header: make(http.Header), gate: gate}
			writers = append(writers, w)
			all.Go(func() { site.ServeHTTP(w, httptest.NewRequest("GET", fmt.Sprint("/", i), nil)) })
			synctest.Wait()
		}
		for _, w := range writers {
			switch w.header.Get("Cache-Status") {
			case "isr; fwd=uri-miss; detail=too-large":
				streams++
			case "isr; fwd=bypass; detail=uncacheable":
				own++
			}
		}
		if streams < 2 || streams > 5 || streams+own != 40 {
			t.Errorf("%d streams, %d served directly", streams, own)
		}
		close(gate)
		all.Wait()
		if res := get(site, "/again"); res.Header.Get("Cache-Status") != "isr; fwd=uri-miss; detail=too-large" || len(read(res)) != 6000 {
			t.Errorf("when all have read what they wanted: %v", res.Header)
		}
	})
}

// breakOffs are the ways in which a handler fails when more is written than may be stored.
var breakOffs = map[string]func(w http.ResponseWriter, r *http.Request){
	"http.Error":      func(w http.ResponseWriter, r *http.Request) { http.Error(w, "template: no such field", 500) },
	"429":             func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(429); io.WriteString(w, "slow down") },
	"isr.Fail":        func(w http.ResponseWriter, r *http.Request) { isr.Fail(r.Context(), errors.New("no more rows")) },
	"panic":           func(w http.ResponseWriter, r *http.Request) { panic("no database") },
	"ErrAbortHandler": func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) },
	"a recovery": func(w http.ResponseWriter, r *http.Request) {
		recoveryMiddleware(w, func() { panic("nil pointer") })
	},
	"a short body": func(w http.ResponseWriter, r *http.Request) {},
}

// halfOfTheLargePage begins a response that is too large to be stored, and breaks off.
func halfOfTheLargePage(w http.ResponseWriter, r *http.Request, breakOff func(w http.ResponseWriter, r *http.Request)) {
	w.Header().Set("Content-Length", "100000")
	for range 6 {
		if _, err := io.WriteString(w, strings.Repeat("half", 500)); err != nil {
			return
		}
	}
	breakOff(w, r)
}

// A page that breaks off is a failure, however large it was by then: where nobody reads
// it, who asked for it gets the error, and the good page stays.
func TestLargePageBreaksOff(t *testing.T) {
	for name, breakOff := range breakOffs {
		for how, ask := range map[string]func(site *isr.Site) error{
			"Revalidate": func(s *isr.Site) error { return s.Revalidate(context.Background(), "/") },
			"Renew": func(s *isr.Site) (failed error) {
				for _, err := range s.Renew(context.Background(), "t") {
					failed = errors.Join(failed, err)
				}
				return failed
			},
			"Revalidate, and visitors wait": func(s *isr.Site) error {
				s.Expire(context.Background(), "/")
				for range 3 {
					go recovered(func() { get(s, "/") }) // one of them may have a stream that breaks off, of a run before
				}
				return s.Revalidate(context.Background(), "/")
			},
			"a stale page": nil,
			"HEAD of an expired page": func(s *isr.Site) error {
				s.Expire(context.Background(), "/")
				if res := do(s, "HEAD", "/"); res.StatusCode != 200 || !strings.HasSuffix(res.Header.Get("Cache-Status"), "detail=stale-if-error") {
					return fmt.Errorf("%d %v", res.StatusCode, res.Header)
				}
				return pages(s)["/"].Err
			},
		} {
			t.Run(name+", "+how, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					breaks := false
					c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
						if !breaks {
							io.WriteString(w, "a good page")
							return
						}
						time.Sleep(time.Millisecond)
						halfOfTheLargePage(w, r, breakOff)
					}}
					site := isr.Wrap(c, isr.Options{Origin: "http://example.com", MaxPageBytes: 5000, Default: isr.Route{TTL: time.Minute, Tags: []string{"t"}}})
					get(site, "/")
					time.Sleep(time.Minute)
					breaks = true
					if ask != nil {
						if err := ask(site); err == nil {
							t.Error("no error")
						}
					}
					for i := range 3 {
						if got := body(site, "/"); got != "a good page" {
							t.Fatalf("visitors get %.20q", got)
						}
						synctest.Wait()
						time.Sleep(time.Minute)
						if p := pages(site)["/"]; p.Failures <= i || p.State == isr.Uncacheable {
							t.Errorf("%d failures in a row, %v", p.Failures, p.State)
						}
					}
				})
			})
		}
	}
}

// Visitors who read a large page that breaks off learn that it is not whole. The good page
// stays, where there is one, and nobody waits for the next attempt.
func TestStreamOfALargePageBreaksOff(t *testing.T) {
	for name, breakOff := range breakOffs {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				breaks := false
				c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
					if !breaks {
						io.WriteString(w, "a good page")
						return
					}
					halfOfTheLargePage(w, r, breakOff)
				}}
				failed := 0
				site := isr.Wrap(c, isr.Options{MaxPageBytes: 5000, Default: isr.Route{TTL: time.Minute, StaleWhileRevalidate: -1}, Observe: func(e isr.Event) {
					if e.Kind == isr.Failed && e.Err != nil {
						failed++
					}
				}})
				get(site, "/")
				time.Sleep(time.Minute)
				breaks = true
				for i, path := range []string{"/", "/new", "/new"} {
					w := httptest.NewRecorder()
					v := recovered(func() { site.ServeHTTP(w, httptest.NewRequest("GET", path, nil)) })
					synctest.Wait()
					if v != http.ErrAbortHandler || strings.Contains(w.Body.String(), "template") {
						t.Errorf("%s: panic %v, %d bytes pass for the whole", path, v, w.Body.Len())
					}
					if failed != i+1 {
						t.Errorf("%d failures are reported, want %d", failed, i+1)
					}
				}
				if _, stored := pages(site)["/new"]; stored {
					t.Error("what has failed leaves a mark")
				}
				for i := range 3 {
					if got := body(site, "/"); got != "a good page" {
						t.Fatalf("visitors get %.20q", got)
					}
					synctest.Wait()
					if p := pages(site)["/"]; p.Failures != 2 || p.Err == nil {
						t.Errorf("visit %d: %d failures in a row, %v; then there is a pause", i, p.Failures, p.Err)
					}
				}
			})
		})
	}
}

// A visitor who leaves, or reads too slowly, makes nothing a failure, whatever the handler
// does then.
func TestStreamThatItsVisitorEndsIsNoFailure(t *testing.T) {
	for name, stays := range map[string]time.Duration{"leaves": time.Second, "reads nothing": time.Hour} {
		for how, breakOff := range breakOffs {
			t.Run(name+", "+how, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					large := false
					c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
						if !large {
							io.WriteString(w, "a page")
							return
						}
						w.Header().Set("Content-Length", "100000")
						for range 6 {
							if _, err := io.WriteString(w, strings.Repeat("large", 1000)); err != nil {
								break
							}
						}
						<-r.Context().Done()
						breakOff(w, r)
					}}
					site := isr.Wrap(c, isr.Options{MaxPageBytes: 5000, Default: isr.Route{TTL: time.Minute, Timeout: 10 * time.Second, StaleWhileRevalidate: -1}})
					get(site, "/")
					time.Sleep(time.Minute)
					large = true
					ctx, leave := context.WithTimeout(t.Context(), stays)
					defer leave()
					w := &stuckWriter{header: make(http.Header), gate: make(chan struct{})}
					time.AfterFunc(time.Minute, func() { close(w.gate) })
					recovered(func() { site.ServeHTTP(w, httptest.NewRequest("GET", "/", nil).WithContext(ctx)) })
					synctest.Wait()
					if p := pages(site)["/"]; site.Stats().Failed != 0 || p.Failures != 0 {
						t.Errorf("%d failures, %d of the page: %v", site.Stats().Failed, p.Failures, p.Err)
					}
				})
			})
		}
	}
}

// What is too large and has no end by the deadline is too large, and no failure: visitors
// get answers to their own requests.
func TestEndlessPage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		endless := false
		c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			for endless && r.Context().Err() == nil {
				if _, err := io.WriteString(w, strings.Repeat("more", 500)); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}}
		site := isr.Wrap(c, isr.Options{Origin: "http://example.com", MaxPageBytes: 5000, Default: isr.Route{TTL: time.Minute, Timeout: 10 * time.Second}})
		get(site, "/")
		endless = true
		begin := time.Now()
		if err := site.Revalidate(t.Context(), "/"); err != nil || time.Since(begin) > 10*time.Second {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		if p := pages(site)["/"]; p.State != isr.Uncacheable || p.Failures != 0 {
			t.Errorf("%v, %d failures", p.State, p.Failures)
		}
		time.Sleep(time.Minute)
	})
}
