package respwriter_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/isr-go/isr/internal/budget"
	"github.com/isr-go/isr/internal/policy"
	"github.com/isr-go/isr/internal/respwriter"
)

// A run is what stands around a Recorder.
type run struct {
	respwriter.Config
	ctx     context.Context
	results []respwriter.Result
	bodies  []string
	mu      sync.Mutex
}

const limit = 20

// routeOf returns the route that a Spec says.
func routeOf(t *testing.T, s policy.Spec) *policy.Route {
	rt, err := policy.New("", s, 0)
	if err != nil {
		t.Fatal(err)
	}
	return rt
}

// newRun returns a run without a stored page, whose visitors take no Stream.
func newRun(t *testing.T) *run {
	r := new(run)
	ctx, cancel := context.WithCancel(t.Context())
	r.ctx = ctx
	r.Config = respwriter.Config{
		Context: ctx, Limit: limit, Budget: budget.New(1 << 10),
		IsFailure:    func(status int, h http.Header) bool { return status >= 500 || h.Get("X-Failure") != "" },
		RefusesAtEnd: func(int, http.Header) policy.Refusal { return policy.Refusal{} },
		Failed:       func() error { return nil },
		Refuses: func(status int, h http.Header) policy.Refusal {
			if h["Set-Cookie"] != nil {
				return policy.Refusal{Why: "sets a cookie"}
			}
			return policy.Refusal{}
		},
		HandOff:   func(*respwriter.Stream) bool { return false },
		Cancel:    cancel,
		KeepAlive: func() {},
		Left:      func() {},
		Done: func(res respwriter.Result) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.bodies = append(r.bodies, string(res.Body))
			res.Body = nil
			r.results = append(r.results, res)
		},
	}
	return r
}

func TestRecorderResults(t *testing.T) {
	type result struct {
		Kind   respwriter.Kind
		Status int
		Header http.Header
		Body   string
		Why    string
		Err    string
	}
	const page, renewal, refused, failure = respwriter.Page, respwriter.Renewal, respwriter.Refused, respwriter.Failure
	none := http.Header{}
	for name, test := range map[string]struct {
		serve func(w http.ResponseWriter)
		want  result
	}{
		"nothing written": {func(w http.ResponseWriter) {}, result{page, 200, none, "", "", ""}},
		"a page": {func(w http.ResponseWriter) {
			w.Header()["x-own"] = []string{"1"}
			w.WriteHeader(404)
			io.WriteString(w, "no ")
			w.Header().Set("X-Late", "1")
			io.WriteString(w, "page")
		}, result{page, 404, http.Header{"X-Own": {"1"}}, "no page", "", ""}},
		"informational":         {func(w http.ResponseWriter) { w.WriteHeader(103); w.WriteHeader(201) }, result{page, 201, none, "", "", ""}},
		"as large as may be":    {func(w http.ResponseWriter) { w.Write(make([]byte, limit)) }, result{page, 200, none, strings.Repeat("\x00", limit), "", ""}},
		"too large":             {func(w http.ResponseWriter) { w.Write(make([]byte, limit+1)) }, result{refused, 200, none, "", "is larger than MaxPageBytes (20): raise it, or set Route.Bypass", ""}},
		"too large as declared": {func(w http.ResponseWriter) { w.Header().Set("Content-Length", "21"); w.Write([]byte("x")) }, result{refused, 200, http.Header{"Content-Length": {"21"}}, "", "is larger than MaxPageBytes (20): raise it, or set Route.Bypass", ""}},
		"refused": {func(w http.ResponseWriter) {
			w.Header().Set("Set-Cookie", "a=b")
			if _, err := io.WriteString(w, "hello"); err == nil || err.Error() != "isr: response discarded: it sets a cookie" {
				t.Errorf("Write: %v", err)
			}
			if _, err := io.WriteString(w, "more"); err == nil || err.Error() != "isr: response discarded: it sets a cookie" {
				t.Errorf("Write: %v", err)
			}
		}, result{refused, 200, http.Header{"Set-Cookie": {"a=b"}}, "", "sets a cookie", ""}},
		"hijacked": {func(w http.ResponseWriter) {
			if _, _, err := w.(http.Hijacker).Hijack(); !errors.Is(err, http.ErrNotSupported) {
				t.Errorf("Hijack: %v", err)
			}
		}, result{refused, 0, nil, "", "takes over the connection: set Route.Bypass", ""}},
		"a failure":           {func(w http.ResponseWriter) { w.WriteHeader(503); io.WriteString(w, "down") }, result{failure, 503, none, "down", "", "the handler answered 503 Service Unavailable"}},
		"a large failure":     {func(w http.ResponseWriter) { w.WriteHeader(500); w.Write(make([]byte, limit+1)) }, result{failure, 500, nil, "", "", "the handler answered 500 Internal Server Error"}},
		"a failure by header": {func(w http.ResponseWriter) { w.Header().Set("X-Failure", "1") }, result{failure, 200, http.Header{"X-Failure": {"1"}}, "", "", "the handler answered 200 OK"}},
		"a late failure":      {func(w http.ResponseWriter) { io.WriteString(w, "half"); w.WriteHeader(502) }, result{failure, 502, nil, "", "", "the handler answered 502 Bad Gateway, after it had begun to answer 200"}},
		"a header that comes after the body has begun is none of the response": {func(w http.ResponseWriter) {
			io.WriteString(w, "one ")
			w.Header().Set("X-Failure", "1")
			io.WriteString(w, "two")
		}, result{page, 200, none, "one two", "", ""}},
		"too short": {func(w http.ResponseWriter) { w.Header().Set("Content-Length", "5"); io.WriteString(w, "half") }, result{failure, 502, nil, "", "", "the handler wrote fewer bytes than its Content-Length"}},
		"too long": {func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", "3")
			if _, err := io.WriteString(w, "more"); err != http.ErrContentLength {
				t.Errorf("Write: %v", err)
			}
		}, result{failure, 502, nil, "", "", "the handler wrote more bytes than its Content-Length"}},
		"a body that is not allowed": {func(w http.ResponseWriter) {
			w.WriteHeader(204)
			if _, err := io.WriteString(w, "more"); err != http.ErrBodyNotAllowed {
				t.Errorf("Write: %v", err)
			}
		}, result{page, 204, none, "", "", ""}},
		"304, renewed":            {func(w http.ResponseWriter) { w.Header().Set("Etag", `"a"`); w.WriteHeader(304) }, result{renewal, 304, http.Header{"X-Merged": {"1"}}, "", "", ""}},
		"304, renewed to private": {func(w http.ResponseWriter) { w.Header().Set("Etag", `"cookie"`); w.WriteHeader(304) }, result{refused, 304, http.Header{"Set-Cookie": {"a=b"}}, "", "sets a cookie", ""}},
		"304 of another page":     {func(w http.ResponseWriter) { w.Header().Set("Etag", `"b"`); w.WriteHeader(304) }, result{failure, 502, nil, "", "", "the handler answered 304 to a request without conditions"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRun(t)
			r.Renew = func(h http.Header) (int, http.Header, bool) {
				switch h.Get("Etag") {
				case `"a"`:
					return 200, http.Header{"X-Merged": {"1"}}, true
				case `"cookie"`:
					return 200, http.Header{"Set-Cookie": {"a=b"}}, true
				}
				return 0, nil, false
			}
			w := respwriter.NewRecorder(r.Config)
			w.SetConditional(true)
			test.serve(w)
			w.Finish()
			if len(r.results) != 1 {
				t.Fatalf("%d results: %+v", len(r.results), r.results)
			}
			res := r.results[0]
			got := result{res.Kind, res.Status, res.Header, r.bodies[0], res.Why.String(), ""}
			if res.Err != nil {
				got.Err = res.Err.Error()
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if canceled := r.ctx.Err() != nil; canceled != (res.Kind == refused) {
				t.Errorf("the handler's context: canceled %v", canceled)
			}
		})
	}
}

// A 304 that is about another page than the stored one makes room for a response to a
// request without conditions, once.
func TestRetry(t *testing.T) {
	r := newRun(t)
	r.Renew = func(http.Header) (int, http.Header, bool) { return 0, nil, false }
	w := respwriter.NewRecorder(r.Config)
	w.SetConditional(true)
	w.Header().Set("X-First", "1")
	w.WriteHeader(304)
	if !w.Retry() {
		t.Fatal("no second attempt")
	}
	io.WriteString(w, "page")
	if w.Retry() {
		t.Error("a third attempt")
	}
	w.Finish()
	want := []respwriter.Result{{Kind: respwriter.Page, Status: 200, Header: http.Header{}}}
	if diff := cmp.Diff(want, r.results); diff != "" || r.bodies[0] != "page" {
		t.Errorf("%q (-want +got)\n%s", r.bodies, diff)
	}
}

// What is too large to be stored reaches one visitor, part by part, with what was
// recorded of it first.
func TestStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRun(t)
		parts, alive := make(chan *respwriter.Stream), 0
		r.HandOff = func(st *respwriter.Stream) bool { parts <- st; return true }
		r.KeepAlive = func() { alive++ }
		w := respwriter.NewRecorder(r.Config)
		go func() {
			w.Header().Set("Content-Type", "text/plain")
			for range 3 {
				io.WriteString(w, "0123456789")
				w.Flush()
			}
			w.Finish()
		}()
		rec := httptest.NewRecorder()
		err := (<-parts).Serve(rec, httptest.NewRequest("GET", "/", nil), routeOf(t, policy.Spec{Vary: []string{"X-Lang"}}), "isr; detail=too-large")
		if err != nil || rec.Body.String() != strings.Repeat("0123456789", 3) || alive == 0 || !rec.Flushed {
			t.Errorf("%v, %q, alive %d, flushed %v", err, rec.Body, alive, rec.Flushed)
		}
		want := http.Header{"Content-Type": {"text/plain"}, "Vary": {"X-Lang"}, "Cache-Status": {"isr; detail=too-large"}}
		if diff := cmp.Diff(want, rec.Header()); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
		synctest.Wait()
		if len(r.results) != 1 || r.results[0].Kind != respwriter.Refused {
			t.Errorf("%+v", r.results)
		}
	})
}

// A visitor who reads a Stream learns that it has broken off, whenever that was.
func TestStreamIsBrokenOff(t *testing.T) {
	errDeadline := errors.New("too late")
	for name, abort := range map[string]func(w *respwriter.Recorder, st *respwriter.Stream){
		"by the deadline":                func(w *respwriter.Recorder, st *respwriter.Stream) { w.Abort(errDeadline) },
		"by the visitor":                 func(w *respwriter.Recorder, st *respwriter.Stream) { st.Close() },
		"before it was in hand":          nil,
		"by a handler that has returned": func(w *respwriter.Recorder, st *respwriter.Stream) {},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRun(t)
				offer := make(chan *respwriter.Stream)
				var w *respwriter.Recorder
				r.HandOff = func(st *respwriter.Stream) bool {
					switch name {
					case "before it was in hand":
						w.Abort(errDeadline) // which takes the mutex: nothing holds it
					case "by a handler that has returned":
						w.Finish()
					}
					offer <- st
					return true
				}
				w = respwriter.NewRecorder(r.Config)
				failed := make(chan error, 1)
				go func() {
					var err error
					for err == nil {
						_, err = w.Write(make([]byte, limit))
					}
					failed <- err
				}()
				st := <-offer
				served := make(chan error, 1)
				go func() {
					served <- st.Serve(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil), routeOf(t, policy.Spec{}), "")
				}()
				if abort != nil {
					abort(w, st)
				}
				if err := <-served; err == nil {
					t.Error("a part passes for the whole")
				}
				if err := <-failed; err == nil {
					t.Error("the handler goes on")
				}
				if r.ctx.Err() == nil {
					t.Error("the run goes on")
				}
			})
		})
	}
}

// All Streams together hold no more in memory than their Budget, until they are read.
func TestStreamsKeepToTheirBudget(t *testing.T) {
	budget := budget.New(100)
	var streams []*respwriter.Stream
	overflow := func(t *testing.T, body int) {
		r := newRun(t)
		r.Limit, r.Budget = 80, budget
		r.HandOff = func(st *respwriter.Stream) bool { streams = append(streams, st); return true }
		w := respwriter.NewRecorder(r.Config)
		w.Write(make([]byte, body))
		go w.Write(make([]byte, 200))
		synctest.Wait()
	}
	synctest.Test(t, func(t *testing.T) {
		for i, want := range []int{1, 1, 2} { // one, none, and one that holds nothing
			overflow(t, []int{64, 64, 0}[i])
			if len(streams) != want {
				t.Fatalf("%d: %d streams, want %d", i, len(streams), want)
			}
		}
		for _, st := range streams {
			st.Close()
			st.Close()
		}
		overflow(t, 64)
		if len(streams) != 3 {
			t.Error("what is closed still counts")
		}
		streams[2].Close()
	})
}

// Handlers leave goroutines behind that go on writing: the race detector looks on.
func TestRecorderIsWrittenToByMany(t *testing.T) {
	for range 50 {
		r := newRun(t)
		r.HandOff = func(st *respwriter.Stream) bool { go st.Close(); return true }
		w := respwriter.NewRecorder(r.Config)
		w.Header().Set("X-Own", "1")
		var wg sync.WaitGroup
		for i := range 6 {
			wg.Go(func() {
				switch i {
				case 0:
					w.WriteHeader(500)
				case 1:
					w.Flush()
				case 2:
					w.Abort(context.DeadlineExceeded)
				case 3:
					w.CloseNotify()
					w.Hijack()
				default:
					for range 5 {
						w.Write(bytes.Repeat([]byte("x"), 7))
					}
				}
			})
		}
		w.Finish()
		wg.Wait()
		if n := len(r.results); n > 1 {
			t.Errorf("%d results: %+v", n, r.results)
		}
		w.WriteHeader(500)
		if _, err := io.WriteString(w, "late"); err == nil {
			t.Error("a Write after the end succeeds")
		}
	}
}

// The handler learns by CloseNotify that nobody waits any more.
func TestCloseNotify(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRun(t)
		gone := respwriter.NewRecorder(r.Config).CloseNotify()
		select {
		case <-gone:
			t.Error("gone at once")
		default:
		}
		r.Cancel()
		<-gone
	})
}
