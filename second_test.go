package isr_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/store"
	"github.com/isr-go/isr/store/memory"
)

// instances are Sites with one Store, as the processes of a fleet, or a process and
// the one after its restart.
type instances struct {
	t     *testing.T
	store store.Store
	opts  isr.Options
}

func fleet(t *testing.T, s store.Store, opts isr.Options) *instances {
	return &instances{t, s, opts}
}

// start starts an instance, which ends with the test.
func (in *instances) start(h http.Handler) *isr.Site {
	opts := in.opts
	opts.Store = in.store
	site := isr.Wrap(h, opts)
	in.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		defer cancel()
		if err := site.Shutdown(ctx); err != nil {
			in.t.Errorf("Shutdown: %v", err)
		}
	})
	synctest.Wait() // until it follows the Store
	return site
}

// bubble runs a test in a bubble, with its cleanups.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

// A moody store does what it is told, or else what a test wants.
type moody struct {
	store.Store
	mood  atomic.Pointer[func(ctx context.Context, op string) error] // nil: well
	calls sync.Map                                                   // of *atomic.Int64, by op
}

func (m *moody) feels(mood func(ctx context.Context, op string) error) {
	if mood == nil {
		m.mood.Store(nil)
		return
	}
	m.mood.Store(&mood)
}

func (m *moody) count(op string) int64 {
	n, _ := m.calls.LoadOrStore(op, new(atomic.Int64))
	return n.(*atomic.Int64).Load()
}

func (m *moody) ask(ctx context.Context, op string) error {
	n, _ := m.calls.LoadOrStore(op, new(atomic.Int64))
	n.(*atomic.Int64).Add(1)
	if mood := m.mood.Load(); mood != nil {
		return (*mood)(ctx, op)
	}
	return nil
}

func (m *moody) Get(ctx context.Context, key string) (*store.Record, store.Effect, error) {
	if err := m.ask(ctx, "get"); err != nil {
		return nil, 0, err
	}
	return m.Store.Get(ctx, key)
}

func (m *moody) Begin(ctx context.Context, key string, ttl time.Duration) (store.Ticket, error) {
	if err := m.ask(ctx, "begin"); err != nil {
		return store.Ticket{}, err
	}
	return m.Store.Begin(ctx, key, ttl)
}

func (m *moody) Put(ctx context.Context, key string, t store.Ticket, rec *store.Record) error {
	if err := m.ask(ctx, "put"); err != nil {
		return err
	}
	return m.Store.Put(ctx, key, t, rec)
}

func (m *moody) End(ctx context.Context, key string, t store.Ticket) error {
	if err := m.ask(ctx, "end"); err != nil {
		return err
	}
	return m.Store.End(ctx, key, t)
}

func (m *moody) Invalidate(ctx context.Context, e store.Effect, tags ...string) (store.Version, error) {
	if err := m.ask(ctx, "invalidate"); err != nil {
		return 0, err
	}
	return m.Store.Invalidate(ctx, e, tags...)
}

func (m *moody) Changes(ctx context.Context, after store.Version) (store.Changes, error) {
	if err := m.ask(ctx, "changes"); err != nil {
		return store.Changes{}, err
	}
	return m.Store.Changes(ctx, after)
}

// Moods.
var (
	down = func(context.Context, string) error { return errors.New("connection refused") }

	panics = func(context.Context, string) error { panic("a bug in the adapter") }
)

// hung returns a mood in which the store never answers, whatever its context says,
// until the test ends.
func hung(t *testing.T) func(context.Context, string) error {
	forever := make(chan struct{})
	t.Cleanup(func() { close(forever) })
	return func(context.Context, string) error {
		<-forever
		return errors.New("too late")
	}
}

// but is a mood for some of the operations.
func but(mood func(context.Context, string) error, well ...string) func(context.Context, string) error {
	return func(ctx context.Context, op string) error {
		if slices.Contains(well, op) {
			return nil
		}
		return mood(ctx, op)
	}
}

func TestPagesOutliveARestart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{Default: isr.Route{TTL: time.Minute}})
		var c cms
		walk(t, in.start(&c), &c, "/", step{body: "page 1", cache: "isr; fwd=uri-miss; stored", age: "0", calls: 1})
		walk(t, in.start(&c), &c, "/",
			step{after: 20 * time.Second, body: "page 1", cache: "isr; hit; ttl=40", age: "20", calls: 1},
			step{after: 41 * time.Second, body: "page 1", cache: "isr; hit; ttl=-1; detail=stale", age: "61", calls: 2},
			step{body: "page 2", cache: "isr; hit; ttl=60", age: "0", calls: 2})
		time.Sleep(61 * time.Second)
		walk(t, in.start(&c), &c, "/",
			step{body: "page 2", cache: "isr; hit; ttl=-1; detail=stale", age: "61", calls: 3},
			step{body: "page 3", cache: "isr; hit; ttl=60", age: "0", calls: 3})
	})
}

// Whatever a page looks like, it comes back from the Store as it was.
func TestPagesComeBackAsTheyWere(t *testing.T) {
	text := strings.Repeat("some words, and some more. ", 100)
	for name, h := range map[string]http.HandlerFunc{
		"html": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			io.WriteString(w, text)
		},
		"empty": func(w http.ResponseWriter, r *http.Request) {},
		"sniffed": func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "<!doctype html><p>hello")
		},
		"untyped": func(w http.ResponseWriter, r *http.Request) {
			w.Header()["Content-Type"] = nil
			io.WriteString(w, text)
		},
		"validators": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("ETag", `W/"its own"`)
			w.Header().Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
			w.Header().Set("Content-Type", "text/plain")
			io.WriteString(w, text)
		},
		"headers": func(w http.ResponseWriter, r *http.Request) {
			w.Header()["Link"] = []string{"</a>; rel=preload", "</b>; rel=preload"}
			w.Header().Set("Cache-Control", "max-age=100, stale-while-revalidate=5, stale-if-error=6")
			w.Header().Set("Cache-Status", "upstream; hit")
			w.Header().Set("Cache-Tag", "a, b")
			w.Header().Set("Vary", "X-Declared")
			io.WriteString(w, "hello")
		},
		"not found": func(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) },
		"moved": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/there", http.StatusMovedPermanently)
		},
		"its own status": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "max-age=60")
			w.WriteHeader(http.StatusTeapot)
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				in := fleet(t, memory.New(), isr.Options{Default: isr.Route{
					TTL: time.Minute, Vary: []string{"X-Declared"}, VaryCookies: []string{"theme"}, Tags: []string{"all"},
				}})
				before := in.start(h)
				visit := func(site *isr.Site, header ...string) *http.Response {
					return get(site, "/a%2fb/é?q=1&p=%20", append(header, "X-Declared", "x", "Cookie", "theme=dark; session=1")...)
				}
				visit(before)
				time.Sleep(3 * time.Second)
				after := in.start(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
					t.Error("the handler was called")
				}))
				for _, header := range [][]string{
					nil, {"Accept-Encoding", "gzip"}, {"Range", "bytes=1-3"}, {"If-None-Match", `W/"its own"`},
					{"If-Modified-Since", "Mon, 02 Jan 2006 15:04:05 GMT"},
				} {
					want, got := visit(before, header...), visit(after, header...)
					if diff := cmp.Diff(want.Header, got.Header); diff != "" || got.StatusCode != want.StatusCode {
						t.Errorf("%v: status %d, want %d (-want +got):\n%s", header, got.StatusCode, want.StatusCode, diff)
					}
					if diff := cmp.Diff(read(want), read(got)); diff != "" {
						t.Errorf("%v (-want +got):\n%s", header, diff)
					}
				}
				want, got := slices.Collect(before.Pages()), slices.Collect(after.Pages())
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("Pages (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// What was invalidated before the restart is so afterwards.
func TestInvalidationsOutliveARestart(t *testing.T) {
	for name, test := range map[string]struct {
		invalidate func(*isr.Site) error
		steps      []step
	}{
		"RevalidateTag": {
			func(s *isr.Site) error { return s.RevalidateTag(context.Background(), "all") },
			[]step{
				{status: 200, body: "page 1", cache: "isr; hit; ttl=-1000000; detail=stale", age: "1", calls: 2},
				{status: 200, body: "page 2", cache: "isr; hit; ttl=60", age: "0", calls: 2},
			},
		},
		"Purge": {
			func(s *isr.Site) error { return s.Purge(context.Background(), "/") },
			[]step{{body: "page 2", cache: "isr; fwd=uri-miss; stored", age: "0", calls: 2}},
		},
		"PurgeTag": {
			func(s *isr.Site) error { return s.PurgeTag(context.Background(), "all") },
			[]step{{body: "page 2", cache: "isr; fwd=uri-miss; stored", age: "0", calls: 2}},
		},
		"POST": {
			func(s *isr.Site) error { do(s, "POST", "/"); return nil },
			[]step{{body: "page 3", cache: "isr; fwd=stale; stored", age: "0", calls: 3}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				in := fleet(t, memory.New(), isr.Options{Default: isr.Route{TTL: time.Minute, Tags: []string{"all"}}})
				var c cms
				first := in.start(&c)
				body(first, "/")
				time.Sleep(time.Second)
				if err := test.invalidate(first); err != nil {
					t.Fatal(err)
				}
				second := in.start(&c)
				for i, want := range test.steps {
					res := get(second, "/")
					synctest.Wait()
					cache := res.Header.Get("Cache-Status")
					if strings.HasPrefix(cache, "isr; hit; ttl=-") { // for how long, the second cannot know
						want.cache = cache
					}
					if want.status == 0 {
						want.status = 200
					}
					got := step{0, res.StatusCode, read(res), cache, res.Header.Get("Age"), c.calls.Load()}
					if diff := cmp.Diff(want, got, cmp.AllowUnexported(step{})); diff != "" {
						t.Errorf("step %d (-want +got):\n%s", i, diff)
					}
				}
			})
		})
	}
}

// What is stale, but may not be shown stale for ever, is not shown after a restart:
// nobody knows since when it is stale.
func TestStaleBeforeTheRestart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{Default: isr.Route{
			TTL: time.Hour, StaleWhileRevalidate: time.Minute, Tags: []string{"all"},
		}})
		var c cms
		first := in.start(&c)
		body(first, "/")
		first.RevalidateTag(t.Context(), "all")
		walk(t, in.start(&c), &c, "/", step{body: "page 2", cache: "isr; fwd=stale; stored", age: "0", calls: 2})
	})
}

// The whole fleet generates a page once, and everybody who waits gets it.
func TestFleetGeneratesOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{Default: isr.Route{TTL: time.Minute}})
		c := cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			time.Sleep(300 * time.Millisecond)
			fmt.Fprintf(w, "page %d", n)
		}}
		var sites []*isr.Site
		for range 5 {
			sites = append(sites, in.start(&c))
		}
		for round, want := range []string{"page 1", "page 1", "page 2"} {
			if round > 0 {
				time.Sleep(61 * time.Second)
			}
			for _, site := range sites {
				for range 20 {
					go func() {
						if got := body(site, "/"); got != want {
							t.Errorf("round %d: got %q, want %q", round, got, want)
						}
					}()
				}
			}
			time.Sleep(10 * time.Second) // the first is waited for; then stale ones are served at once
			if got, want := c.calls.Load(), int64(round+1); got != want {
				t.Errorf("round %d: %d calls of the handler, want %d", round, got, want)
			}
		}
	})
}

// A purge on one instance reaches the memory of the others, whatever its kind.
func TestFleetAgrees(t *testing.T) {
	long := "/" + strings.Repeat("long/", 100)
	for name, test := range map[string]struct {
		path string
		do   func(*isr.Site) error
		want string // on the other instance, at once
		then string // and the time after
	}{
		"Revalidate":    {"/", func(s *isr.Site) error { return s.Revalidate(context.Background(), "/") }, "page 2", "page 2"},
		"RevalidateTag": {"/", func(s *isr.Site) error { return s.RevalidateTag(context.Background(), "all") }, "page 1", "page 2"},
		"Purge":         {"/", func(s *isr.Site) error { return s.Purge(context.Background(), "/") }, "page 2", "page 2"},
		"PurgeTag":      {"/", func(s *isr.Site) error { return s.PurgeTag(context.Background(), "all") }, "page 2", "page 2"},
		"of a query":    {"/?q=1", func(s *isr.Site) error { return s.Purge(context.Background(), "/?q=1") }, "page 2", "page 2"},
		"of another":    {"/?q=1", func(s *isr.Site) error { return s.Purge(context.Background(), "/?q=2", "/other") }, "page 1", "page 1"},
		"of a long one": {long, func(s *isr.Site) error { return s.Purge(context.Background(), long) }, "page 2", "page 2"},
		"of a whole URL": {"/", func(s *isr.Site) error {
			return s.Purge(context.Background(), "http://example.com/")
		}, "page 2", "page 2"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				in := fleet(t, memory.New(), isr.Options{Default: isr.Route{TTL: time.Minute, Tags: []string{"all"}}})
				var c cms
				one, other := in.start(&c), in.start(&c)
				if a, b := body(one, test.path), body(other, test.path); a != "page 1" || b != "page 1" {
					t.Fatalf("before: %q and %q", a, b)
				}
				if err := test.do(one); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				for i, want := range []string{test.want, test.then} {
					if got := body(other, test.path); got != want {
						t.Errorf("visit %d: got %q, want %q", i, got, want)
					}
					time.Sleep(time.Second)
				}
				body(one, test.path) // which may be stale for the last time
				synctest.Wait()
				if a, b := body(one, test.path), body(other, test.path); a != b {
					t.Errorf("%q here, %q there", a, b)
				}
			})
		})
	}
}

// The author of a change sees it, whichever instance he comes to.
func TestFleetSeesAPost(t *testing.T) {
	bubble(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{
			Default: isr.Route{TTL: time.Minute},
			Routes:  map[string]isr.Route{"/api/": {Bypass: isr.Always}},
		})
		st := &moody{Store: in.store}
		in.store = st
		var c cms
		one, other := in.start(&c), in.start(&c)
		body(other, "/post")
		do(one, "POST", "/post") // which one knows nothing of
		synctest.Wait()
		if got := body(other, "/post"); got != "page 3" {
			t.Errorf("after the POST: %q", got)
		}
		before := st.count("invalidate")
		do(one, "POST", "/api/track")
		synctest.Wait()
		if n := st.count("invalidate") - before; n != 0 {
			t.Errorf("a POST to what is never stored invalidated %d times", n)
		}
		st.feels(hung(t))
		begin := time.Now()
		do(one, "POST", "/post")
		if took := time.Since(begin); took > 100*time.Millisecond {
			t.Errorf("with a hung store the POST took %v", took)
		}
		if got := body(one, "/post"); got == "page 3" {
			t.Error("the author does not see what he has changed")
		}
	})
}

// What was generated across a purge is stale on arrival, in every instance.
func TestFleetStaleOnArrival(t *testing.T) {
	bubble(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{Default: isr.Route{Tags: []string{"all"}}})
		c := cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			if n == 1 {
				time.Sleep(10 * time.Second)
			}
			fmt.Fprintf(w, "page %d", n)
		}}
		one, other := in.start(&c), in.start(&c)
		first := make(chan string)
		go func() { first <- body(one, "/") }()
		time.Sleep(time.Second)
		if err := other.PurgeTag(t.Context(), "all"); err != nil {
			t.Fatal(err)
		}
		if got := body(other, "/"); got != "page 2" {
			t.Errorf("after the purge, elsewhere: %q", got)
		}
		synctest.Wait()
		if got := body(one, "/"); got != "page 2" {
			t.Errorf("after the purge, where it was being generated: %q", got)
		}
		<-first
		synctest.Wait()
		for _, site := range []*isr.Site{one, other, in.start(&c)} {
			if got := body(site, "/"); got != "page 2" {
				t.Errorf("when all is over: %q", got)
			}
		}
	})
}

// Whoever comes after a purge does not wait for the run that began before it, though
// that has the lease.
func TestPurgeWhileLeading(t *testing.T) {
	bubble(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{})
		c := cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			if n == 1 {
				time.Sleep(10 * time.Second)
			}
			fmt.Fprintf(w, "page %d", n)
		}}
		site := in.start(&c)
		go body(site, "/")
		synctest.Wait()
		site.Purge(t.Context(), "/")
		begin := time.Now()
		if got := body(site, "/"); got != "page 2" || time.Since(begin) > 0 {
			t.Errorf("got %q after %v", got, time.Since(begin))
		}
		time.Sleep(11 * time.Second)
		for _, site := range []*isr.Site{site, in.start(&c)} {
			if got := body(site, "/"); got != "page 2" {
				t.Errorf("when the first has come to its end: %q", got)
			}
		}
	})
}

// Whoever waits for another instance does so for two seconds at most; whoever does
// not wait is not made to.
func TestLeaderThatHangs(t *testing.T) {
	bubble(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{Default: isr.Route{TTL: 20 * time.Second, Timeout: time.Minute}})
		release := make(chan struct{})
		stuck := cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) { <-release }}
		var c cms
		one, other := in.start(&stuck), in.start(&c)
		go body(one, "/")
		synctest.Wait()
		begin := time.Now()
		if got := body(other, "/"); got != "page 1" {
			t.Errorf("got %q", got)
		}
		if waited := time.Since(begin); waited < time.Second || waited > 2200*time.Millisecond {
			t.Errorf("the visitor waited for %v", waited)
		}
		time.Sleep(21 * time.Second) // by now one's lease is over
		for _, want := range []string{"page 1", "page 2"} {
			begin = time.Now()
			if got := body(other, "/"); got != want || time.Since(begin) > 0 {
				t.Errorf("a stale page: %q after %v, want %q at once", got, time.Since(begin), want)
			}
			synctest.Wait()
		}
		close(release)
	})
}

// Whoever fails makes room for the next.
func TestFailureGivesTheLeaseBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{})
		failing := cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			switch n {
			case 1:
				w.WriteHeader(http.StatusInternalServerError)
			case 2:
				panic(http.ErrAbortHandler)
			case 3:
				w.Header().Set("Set-Cookie", "a=b") // a pass mark
			default:
				w.Write(make([]byte, 5<<20)) // a stream
			}
		}}
		var c cms
		one := in.start(&failing)
		for i := range 4 {
			target := fmt.Sprintf("/%d", i)
			recovered(func() { get(one, target) })
			synctest.Wait()
			begin := time.Now()
			if got, want := body(in.start(&c), target), fmt.Sprintf("page %d", i+1); got != want || time.Since(begin) > 0 {
				t.Errorf("%d: got %.20q after %v, want %q at once", i, got, time.Since(begin), want)
			}
		}
	})
}

// A store that is down, slow or lying costs time at first, and soon nothing; but no
// visitor ever notices more of it than that.
func TestStoreInABadMood(t *testing.T) {
	for name, test := range map[string]struct {
		mood  func(t *testing.T) func(context.Context, string) error
		first time.Duration // what the first visitor may wait
	}{
		"down":   {func(*testing.T) func(context.Context, string) error { return down }, 0},
		"panics": {func(*testing.T) func(context.Context, string) error { return panics }, 0},
		"hung":   {hung, 100 * time.Millisecond},
		"begins": {func(*testing.T) func(context.Context, string) error { return but(down, "get", "changes") }, 0},
		"hesitates": {func(t *testing.T) func(context.Context, string) error {
			return but(hung(t), "get", "changes")
		}, 100 * time.Millisecond},
		"reads only": {func(*testing.T) func(context.Context, string) error {
			return but(down, "get", "begin", "changes")
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				st := &moody{Store: memory.New()}
				in := fleet(t, st, isr.Options{Default: isr.Route{TTL: time.Minute}})
				var c cms
				site := in.start(&c)
				st.feels(test.mood(t))
				for i := range 20 {
					begin := time.Now()
					res := get(site, fmt.Sprintf("/%d", i))
					if got, want := read(res), fmt.Sprintf("page %d", i+1); got != want || res.StatusCode != http.StatusOK {
						t.Errorf("visit %d: got %d %q, want %q", i, res.StatusCode, got, want)
					}
					if waited := time.Since(begin); waited > test.first || i > 3 && waited > 0 && name == "hung" {
						t.Errorf("visit %d waited for %v", i, waited)
					}
				}
				synctest.Wait()
				if site.Stats().StoreErrors == 0 {
					t.Error("no StoreErrors")
				}
				if err := site.Purge(t.Context(), "/1"); err == nil {
					t.Error("a purge that the store knows nothing of was acknowledged")
				}
				if got := body(site, "/1"); got != "page 21" {
					t.Errorf("but it was to hold here: %q", got)
				}
			})
		})
	}
}

// While the store is down it is asked for nothing but changes; when it is back it
// hears of what it has missed.
func TestStoreComesBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st := &moody{Store: memory.New()}
		in := fleet(t, st, isr.Options{Default: isr.Route{TTL: time.Hour}})
		var c cms
		site, other := in.start(&c), in.start(&c)
		body(site, "/before")
		body(other, "/before")
		st.feels(down)
		for i := range 3 {
			get(site, fmt.Sprintf("/probe/%d", i))
		}
		gets := st.count("get")
		if got := body(site, "/blind"); got != "page 5" {
			t.Errorf("while it is down: %q", got)
		}
		if n := st.count("get") - gets; n != 0 {
			t.Errorf("a store that is down was asked %d times", n)
		}
		if err := site.Purge(t.Context(), "/before"); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("Purge: %v", err)
		}
		if got := body(other, "/before"); got != "page 1" {
			t.Errorf("nobody has told the other instance, but it has %q", got)
		}
		if got := body(site, "/before"); got != "page 6" {
			t.Errorf("after the purge: %q", got)
		}
		st.feels(nil)
		time.Sleep(10 * time.Second)
		if got := body(other, "/before"); got != "page 7" {
			t.Errorf("the purge never reached the other instance: %q", got)
		}
		if got := body(other, "/blind"); got != "page 8" {
			t.Errorf("what was generated without the store was put there: %q", got)
		}
		synctest.Wait() // until it is put there now
		// It may differ from instance to instance, so it is renewed.
		if got := get(site, "/blind").Header.Get("Cache-Status"); !strings.HasSuffix(got, "detail=stale") {
			t.Errorf("what was generated without the store: %q", got)
		}
		synctest.Wait()
		if got := body(site, "/blind"); got != "page 8" {
			t.Errorf("and then: %q", got)
		}
	})
}

// A store that is down for an hour is no reason to fill the log.
func TestStoreDownIsToldOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st := &moody{Store: memory.New()}
		var log bytes.Buffer
		in := fleet(t, st, isr.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		var c cms
		site := in.start(&c)
		st.feels(down)
		for i := range 1000 {
			get(site, fmt.Sprintf("/%d", i))
			time.Sleep(4 * time.Second)
		}
		st.feels(nil)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if n := strings.Count(log.String(), "store failed"); n < 1 || n > 5 {
			t.Errorf("%d lines tell of it", n)
		}
		for _, want := range []string{"connection refused", "going on without the Store", "the Store answers again"} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("the log does not say %q", want)
			}
		}
	})
}

// However many visitors there are, a store that hangs holds a bounded number of
// goroutines.
func TestCallsAreCapped(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st := &moody{Store: memory.New()}
		in := fleet(t, st, isr.Options{})
		var c cms
		site := in.start(&c)
		st.feels(hung(t))
		before := st.count("get")
		var all sync.WaitGroup
		for i := range 2000 {
			all.Go(func() {
				if got := get(site, fmt.Sprintf("/%d", i)); got.StatusCode != http.StatusOK {
					t.Errorf("got %d", got.StatusCode)
				}
			})
		}
		begin := time.Now()
		all.Wait()
		if took := time.Since(begin); took > 100*time.Millisecond {
			t.Errorf("a visitor waited for %v", took)
		}
		if n := st.count("get") - before; n > 256 {
			t.Errorf("%d calls at a time", n)
		}
	})
}

// The visitors have their page before the store does.
func TestPutsAreWrittenBehind(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st := &moody{Store: memory.New()}
		in := fleet(t, st, isr.Options{})
		var c cms
		site := in.start(&c)
		slow := make(chan struct{})
		st.feels(func(ctx context.Context, op string) error {
			if op == "put" {
				<-slow
			}
			return nil
		})
		if got := body(site, "/"); got != "page 1" {
			t.Errorf("got %q", got)
		}
		time.AfterFunc(300*time.Millisecond, func() { close(slow) })
		begin := time.Now()
		if err := site.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took < 300*time.Millisecond {
			t.Errorf("Shutdown waited for %v: the page may be lost", took)
		}
		if got := body(in.start(&c), "/"); got != "page 1" {
			t.Errorf("after the restart: %q", got)
		}
	})
}

// A liar returns other records than it was asked for.
type liar struct {
	store.Store
	lie func(rec *store.Record) *store.Record
}

func (l *liar) Get(ctx context.Context, key string) (*store.Record, store.Effect, error) {
	rec, effect, err := l.Store.Get(ctx, key)
	if err == nil {
		rec = l.lie(rec)
	}
	return rec, effect, err
}

func TestStoreThatLies(t *testing.T) {
	var other *store.Record
	for name, lie := range map[string]func(rec *store.Record) *store.Record{
		"nothing":           func(rec *store.Record) *store.Record { return nil },
		"no data":           func(rec *store.Record) *store.Record { return &store.Record{Version: rec.Version} },
		"another page":      func(rec *store.Record) *store.Record { return other },
		"a part":            func(rec *store.Record) *store.Record { rec.Data = rec.Data[:len(rec.Data)/2]; return rec },
		"a bit":             func(rec *store.Record) *store.Record { rec.Data[len(rec.Data)/2] ^= 1; return rec },
		"more":              func(rec *store.Record) *store.Record { rec.Data = append(rec.Data, 0); return rec },
		"of another format": func(rec *store.Record) *store.Record { rec.Data[0]++; return rec },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				st := memory.New()
				in := fleet(t, st, isr.Options{})
				var c cms
				site := in.start(&c)
				body(site, "/")
				body(site, "/other")
				synctest.Wait()
				in.store = &liar{st, func(rec *store.Record) *store.Record { other = rec; return rec }}
				body(in.start(&c), "/other")
				in.store = &liar{st, lie}
				if got := body(in.start(&c), "/"); got != "page 3" {
					t.Errorf("got %q", got)
				}
			})
		})
	}
}

// Each build has pages of its own, but a purge reaches all of them.
func TestVersions(t *testing.T) {
	bubble(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{Version: "1"})
		var c cms
		one := in.start(&c)
		in.opts.Version = "2"
		two, again := in.start(&c), in.start(&c)
		if a, b, c := body(one, "/"), body(two, "/"), body(again, "/"); a != "page 1" || b != "page 2" || c != "page 2" {
			t.Errorf("got %q, %q, %q", a, b, c)
		}
		if err := one.Purge(t.Context(), "/"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := body(again, "/"); got != "page 3" {
			t.Errorf("after the purge: %q", got)
		}
	})
}

// Two sites that share a store, and say nothing of hosts in their keys, are two.
func TestOriginsShareAStore(t *testing.T) {
	bubble(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{Origin: "https://one.example"})
		var c cms
		body(in.start(&c), "/")
		in.opts.Origin = "https://two.example"
		if got := body(in.start(&c), "/"); got != "page 2" {
			t.Errorf("got %q", got)
		}
	})
}

// When a page becomes private, it goes at once, in every instance.
func TestFleetForgetsWhatBecomesPrivate(t *testing.T) {
	bubble(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{Default: isr.Route{TTL: time.Minute}})
		c := cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			if n > 1 {
				w.Header().Set("Cache-Control", "private")
			}
			fmt.Fprintf(w, "page %d", n)
		}}
		one, other := in.start(&c), in.start(&c)
		body(one, "/")
		time.Sleep(30 * time.Second)
		if got := body(other, "/"); got != "page 1" {
			t.Fatalf("got %q", got)
		}
		one.Revalidate(t.Context(), "/")
		synctest.Wait()
		for _, site := range []*isr.Site{one, other, in.start(&c)} {
			if got := body(site, "/"); got == "page 1" {
				t.Error("a page that has become private is still shown")
			}
		}
	})
}

func TestPrerenderedOnlyOutlivesARestart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st := &moody{Store: memory.New()}
		in := fleet(t, st, isr.Options{Origin: "http://example.com", Default: isr.Route{PrerenderedOnly: true}})
		var c cms
		for path, err := range in.start(&c).Prerender(t.Context(), slices.Values([]string{"/known"})) {
			if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
		}
		synctest.Wait()
		site := in.start(&c)
		if got := body(site, "/known"); got != "page 1" {
			t.Errorf("what was prerendered before: %q", got)
		}
		for _, mood := range []func(context.Context, string) error{nil, down} {
			st.feels(mood)
			if got := get(site, "/unknown").StatusCode; got != http.StatusNotFound {
				t.Errorf("what was not: %d", got)
			}
		}
		st.feels(nil)
		if err := site.Revalidate(t.Context(), "/new"); err != nil {
			t.Errorf("Revalidate: %v", err)
		}
		if got := body(site, "/new"); got != "page 2" {
			t.Errorf("what was made known: %q", got)
		}
		site.Shutdown(t.Context())
		if got := get(site, "/other").StatusCode; got != http.StatusNotFound {
			t.Errorf("after Shutdown: %d", got)
		}
		if n := c.calls.Load(); n != 2 {
			t.Errorf("%d calls of the handler", n)
		}
	})
}

func TestPlaceholderAfterARestart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{Default: isr.Route{
			Tags:        []string{"all"},
			Placeholder: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "one moment") }),
		}})
		c := cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			time.Sleep(time.Second)
			fmt.Fprintf(w, "page %d", n)
		}}
		site := in.start(&c)
		if got := body(site, "/"); got != "one moment" {
			t.Errorf("a page that nobody has: %q", got)
		}
		time.Sleep(2 * time.Second)
		other := in.start(&c)
		if got := body(other, "/"); got != "page 1" {
			t.Errorf("a page that the store has: %q", got)
		}
		if err := site.RevalidateTag(t.Context(), "all"); err != nil {
			t.Fatal(err)
		}
		third := in.start(&c)
		for _, want := range []string{"page 1", "page 2"} {
			if got := body(third, "/"); got != want {
				t.Errorf("one that is stale there: got %q, want %q", got, want)
			}
			time.Sleep(2 * time.Second)
		}
	})
}

// What the store has no room for is generated by each instance, and the developer
// is told.
func TestTooLargeForTheStore(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st := &moody{Store: memory.New()}
		st.feels(func(ctx context.Context, op string) error {
			if op == "put" {
				return fmt.Errorf("%w: by far", store.ErrTooLarge)
			}
			return nil
		})
		var log bytes.Buffer
		in := fleet(t, st, isr.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		var c cms
		one, other := in.start(&c), in.start(&c)
		begin := time.Now()
		if a, b := body(one, "/"), body(other, "/"); a != "page 1" || b != "page 2" {
			t.Errorf("%q and %q", a, b)
		}
		synctest.Wait()
		if time.Since(begin) > 100*time.Millisecond {
			t.Errorf("it took %v", time.Since(begin))
		}
		if got := body(one, "/"); got != "page 1" {
			t.Errorf("again: %q", got)
		}
		if !strings.Contains(log.String(), "too large for the Store") {
			t.Errorf("the log says only:\n%s", log.String())
		}
		if n := one.Stats().StoreErrors; n != 0 {
			t.Errorf("%d StoreErrors", n)
		}
	})
}

// A store that has lost its history says so, and every copy counts as stale.
func TestStoreLosesItsHistory(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st := &forgetful{Store: memory.New()}
		in := fleet(t, st, isr.Options{Default: isr.Route{TTL: time.Hour}})
		var c cms
		site := in.start(&c)
		body(site, "/")
		time.Sleep(2 * time.Second)
		if got := get(site, "/").Header.Get("Cache-Status"); got != "isr; hit; ttl=3598" {
			t.Errorf("before: %q", got)
		}
		st.forgets.Store(true)
		time.Sleep(2 * time.Second)
		if got := get(site, "/").Header.Get("Cache-Status"); !strings.HasSuffix(got, "detail=stale") {
			t.Errorf("after: %q", got)
		}
		synctest.Wait()
		if got := body(site, "/"); got != "page 2" {
			t.Errorf("and then: %q", got)
		}
	})
}

// A forgetful store is one that was wiped.
type forgetful struct {
	store.Store
	forgets atomic.Bool
}

func (f *forgetful) Changes(ctx context.Context, after store.Version) (store.Changes, error) {
	if f.forgets.CompareAndSwap(true, false) {
		v, err := f.Store.Invalidate(ctx, store.Stale, "a tag that nothing has")
		return store.Changes{Upto: v, Reset: true}, err
	}
	return f.Store.Changes(ctx, after)
}

// What fails in the store is told to whoever asked for a purge, and to Observe.
func TestStoreFailures(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st := &moody{Store: memory.New()}
		var mu sync.Mutex
		var failures []string
		in := fleet(t, st, isr.Options{Origin: "http://example.com", Observe: func(e isr.Event) {
			if e.Kind == isr.StoreFailed {
				mu.Lock()
				defer mu.Unlock()
				failures = append(failures, e.Err.Error())
			}
		}})
		var c cms
		site := in.start(&c)
		body(site, "/")
		st.feels(but(down, "get", "begin", "put", "changes"))
		for name, f := range map[string]func() error{
			"Revalidate":    func() error { return site.Revalidate(t.Context(), "/") },
			"RevalidateTag": func() error { return site.RevalidateTag(t.Context(), "tag") },
			"Purge":         func() error { return site.Purge(t.Context(), "/") },
			"PurgeTag":      func() error { return site.PurgeTag(t.Context(), "tag") },
		} {
			if err := f(); err == nil || !strings.Contains(err.Error(), "may not know of it") {
				t.Errorf("%s: %v", name, err)
			}
		}
		handler := isr.RevalidateHandler(site, "secret")
		if got := do(handler, "POST", "/?path=/", "Authorization", "Bearer secret").StatusCode; got != http.StatusInternalServerError {
			t.Errorf("the webhook got %d", got)
		}
		mu.Lock()
		defer mu.Unlock()
		if len(failures) == 0 || !strings.HasPrefix(failures[0], "store: invalidate: connection refused") {
			t.Errorf("Observe was told of %q", failures)
		}
	})
}

// Whoever gives up on a purge does not keep the store from hearing of it.
func TestPurgeIsGivenUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st := &moody{Store: memory.New()}
		in := fleet(t, st, isr.Options{})
		var c cms
		one, other := in.start(&c), in.start(&c)
		body(one, "/")
		body(other, "/")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := one.Purge(ctx, "/"); !errors.Is(err, context.Canceled) {
			t.Errorf("Purge: %v", err)
		}
		if n := one.Stats().StoreErrors; n != 0 {
			t.Errorf("%d StoreErrors, which it is none of", n)
		}
		time.Sleep(5 * time.Second)
		if got := body(other, "/"); got != "page 2" {
			t.Errorf("elsewhere: %q", got)
		}
	})
}

// However much the store was not told of, it is told of enough.
func TestMoreIsOwedThanCanBeRemembered(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st := &moody{Store: memory.New()}
		in := fleet(t, st, isr.Options{})
		var c cms
		one, other := in.start(&c), in.start(&c)
		body(other, "/first")
		body(other, "/never-named")
		st.feels(but(down, "get", "begin", "put", "changes"))
		one.Purge(t.Context(), "/first")
		for i := range 700 {
			var paths []string
			for j := range 100 {
				paths = append(paths, fmt.Sprintf("/%d/%d", i, j))
			}
			one.Purge(t.Context(), paths...)
		}
		st.feels(nil)
		time.Sleep(2 * time.Minute)
		if got := body(other, "/first"); got == "page 1" {
			t.Error("a purge is lost")
		}
		if got := body(other, "/never-named"); got == "page 2" {
			t.Error("so everything was to be purged")
		}
		if got, want := body(one, "/first"), body(other, "/first"); got != want {
			t.Errorf("%q here, %q there", got, want)
		}
	})
}

func TestStoreIsFollowedUntilShutdown(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st := &moody{Store: memory.New()}
		site := fleet(t, st, isr.Options{}).start(&cms{})
		time.Sleep(10 * time.Second)
		if n := st.count("changes"); n < 8 || n > 15 {
			t.Errorf("asked for changes %d times in 10 seconds", n)
		}
		if err := site.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		before := st.count("changes")
		time.Sleep(10 * time.Second)
		if n := st.count("changes") - before; n != 0 {
			t.Errorf("asked for changes %d times after Shutdown", n)
		}
	})
}
