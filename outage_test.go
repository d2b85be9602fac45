package isr_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/store"
	"github.com/isr-go/isr/store/memory"
)

// A Store that is down or hangs delays the first visitors, and soon nobody; no visitor
// gets an error.
func TestStoreFaults(t *testing.T) {
	for name, test := range map[string]struct {
		fault func(t *testing.T) fault
		first time.Duration // what the first visitor may wait
	}{
		"down":             {func(*testing.T) fault { return down }, 0},
		"panics":           {func(*testing.T) fault { return panics }, 0},
		"hung":             {hung, 100 * time.Millisecond},
		"down for writing": {func(*testing.T) fault { return except(down, "look", "changes") }, 0},
		"hung for writing": {func(t *testing.T) fault { return except(hung(t), "look", "changes") }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				st := &faultyStore{Store: memory.New()}
				in := fleet(t, st, isr.Options{Default: isr.Route{TTL: time.Minute}})
				var c countingHandler
				site := in.start(&c)
				st.set(test.fault(t))
				for i := range 20 {
					begin := time.Now()
					res := get(site, fmt.Sprintf("/%d", i))
					if got, want := read(res), fmt.Sprintf("page %d", i+1); got != want || res.StatusCode != http.StatusOK {
						t.Errorf("visit %d: got %d %q, want %q", i, res.StatusCode, got, want)
					}
					if waited := time.Since(begin); waited > test.first || i > 3 && waited > 0 && name == "hung" {
						t.Errorf("visit %d took %v", i, waited)
					}
				}
				time.Sleep(time.Second) // until the last call has failed
				if n := st.count("put"); n > 0 && !strings.HasSuffix(name, "for writing") {
					t.Errorf("%d pages were put without permission", n)
				}
				if site.Stats().StoreErrors == 0 {
					t.Error("no StoreErrors")
				}
				if err := site.Purge(t.Context(), "/1"); err == nil {
					t.Error("a purge that the Store did not take was acknowledged")
				}
				if got := body(site, "/1"); got != "page 21" {
					t.Errorf("after the purge: %q", got)
				}
			})
		})
	}
}

// While the Store is down it is asked for Changes only, and tried with purges; when it
// is back it gets what it has missed.
func TestStoreComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &faultyStore{Store: memory.New()}
		in := fleet(t, st, isr.Options{Default: isr.Route{TTL: time.Hour}})
		var c countingHandler
		site, other := in.start(&c), in.start(&c)
		body(site, "/before")
		body(other, "/before")
		synctest.Wait() // or the pending Puts would count as successes
		st.set(down)
		for i := range 3 {
			get(site, fmt.Sprintf("/probe/%d", i))
		}
		gets := st.count("look")
		if got := body(site, "/offline"); got != "page 5" {
			t.Errorf("while it is down: %q", got)
		}
		if n := st.count("look") - gets; n != 0 {
			t.Errorf("a Store that is down was asked %d times", n)
		}
		for range 3 {
			if err := site.Purge(t.Context(), "/before"); err == nil || errors.Is(err, store.ErrUnavailable) {
				t.Errorf("Purge: %v", err)
			}
		}
		if err := site.Purge(t.Context(), "/before"); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("after three failures: %v", err)
		}
		if got := body(other, "/before"); got != "page 1" {
			t.Errorf("the other instance cannot know of the purge, but has %q", got)
		}
		if got := body(site, "/before"); got != "page 6" {
			t.Errorf("after the purge: %q", got)
		}
		st.set(nil)
		time.Sleep(10 * time.Second)
		if got := body(other, "/before"); got != "page 7" {
			t.Errorf("the purge has not reached the other instance: %q", got)
		}
		if got := body(other, "/offline"); got != "page 8" {
			t.Errorf("a page that was generated offline was put there: %q", got)
		}
		synctest.Wait() // until it is put there
		// It may differ from instance to instance, so it is renewed.
		if got := get(site, "/offline").Header.Get("Cache-Status"); !strings.HasSuffix(got, "detail=stale") {
			t.Errorf("a page that was generated offline: %q", got)
		}
		synctest.Wait()
		if got := body(site, "/offline"); got != "page 8" {
			t.Errorf("and then: %q", got)
		}
	})
}

// A Store that is down for an hour does not fill the log.
func TestOutageIsLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &faultyStore{Store: memory.New()}
		var log bytes.Buffer
		in := fleet(t, st, isr.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		var c countingHandler
		site := in.start(&c)
		st.set(down)
		for i := range 1000 {
			get(site, fmt.Sprintf("/%d", i))
			time.Sleep(4 * time.Second)
		}
		st.set(nil)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if n := strings.Count(log.String(), "store failed"); n < 1 || n > 5 {
			t.Errorf("%d lines about the outage", n)
		}
		for _, want := range []string{"connection refused", "going on without the Store", "the Store answers again"} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("the log does not say %q", want)
			}
		}
	})
}

// A purge that fails in the Store is reported to its caller, and to Observe.
func TestStoreFailuresAreReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &faultyStore{Store: memory.New()}
		var mu sync.Mutex
		var failures []string
		in := fleet(t, st, isr.Options{Origin: "http://example.com", Observe: func(e isr.Event) {
			if e.Kind == isr.StoreFailed {
				mu.Lock()
				defer mu.Unlock()
				failures = append(failures, e.Err.Error())
			}
		}})
		var c countingHandler
		site := in.start(&c)
		body(site, "/")
		st.set(except(down, "look", "put", "changes"))
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
			t.Errorf("Observe got %q", failures)
		}
	})
}

// One call that fails costs one generation at most: the page is shared all the same, at
// the latest when it is renewed, and nobody waits for an instance that has finished.
func TestOneFailedCall(t *testing.T) {
	for name, test := range map[string]struct {
		fault fault
		calls int64 // of the handler
	}{
		"Look": {only(nthFails(1), "look"), 2},
		"Put":  {only(nthFails(1), "put"), 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				st := &faultyStore{Store: memory.New()}
				in := fleet(t, st, isr.Options{})
				var c countingHandler
				one, two := in.start(&c), in.start(&c)
				st.set(test.fault)
				for range 2 {
					body(one, "/")
					time.Sleep(10 * time.Second)
				}
				begin := time.Now()
				body(two, "/")
				if took := time.Since(begin); took > 0 {
					t.Errorf("a visitor of the other instance has waited for %v", took)
				}
				synctest.Wait()
				if got := c.calls.Load(); got != test.calls {
					t.Errorf("%d calls of the handler, want %d", got, test.calls)
				}
				if a, b := body(two, "/"), body(in.start(&c), "/"); a != b {
					t.Errorf("%q before a restart, %q after it", a, b)
				}
			})
		})
	}
}

// A run that waits for another instance gets permission to put its page after all, even
// if the Store fails while it waits.
func TestFailedCallWhileWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &faultyStore{Store: memory.New()}
		in := fleet(t, st, isr.Options{})
		release := make(chan struct{})
		stuck := countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			<-release
			w.WriteHeader(http.StatusInternalServerError)
		}}
		var c countingHandler
		one, two := in.start(&stuck), in.start(&c)
		go body(one, "/")
		synctest.Wait()
		st.set(only(nthFails(5), "look"))
		body(two, "/")
		synctest.Wait()
		close(release)
		synctest.Wait()
		if got := body(in.start(&c), "/"); got != "page 1" {
			t.Errorf("after a restart: %q", got)
		}
	})
}

// A lease that could not be given back, since the Store failed meanwhile, is given back as
// soon as it answers: nobody waits for a page that is not made any more.
func TestLeaseFromBeforeAnOutage(t *testing.T) {
	for name, outage := range map[string]fault{
		"down": down,
		"hung": func(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				shared := memory.New()
				st := &faultyStore{Store: shared}
				in := fleet(t, st, isr.Options{})
				slow := countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) { time.Sleep(10 * time.Second) }}
				var c countingHandler
				one := in.start(&slow)
				in.store = shared
				two := in.start(&c)
				go get(one, "/slow") // a page that is known to be slow has a longer lease
				time.Sleep(11 * time.Second)
				if err := two.Expire(t.Context(), "/slow"); err != nil {
					t.Fatal(err)
				}
				go get(one, "/slow")
				time.Sleep(time.Second)
				st.set(outage)
				time.Sleep(11 * time.Second) // its page is made meanwhile, and cannot be put
				st.set(nil)
				time.Sleep(5 * time.Second) // the lease would be over in 10 more
				begin := time.Now()
				get(two, "/slow")
				if d := time.Since(begin); d > 0 {
					t.Errorf("a visitor of another instance has waited for %v", d)
				}
			})
		})
	}
}

// A page that is generated at the moment in which the Store comes back is renewed, too,
// and put there.
func TestOfflineAtTheLastMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &faultyStore{Store: memory.New()}
		var site *isr.Site
		var c countingHandler
		visit := sync.OnceFunc(func() { body(site, "/") })
		in := fleet(t, st, isr.Options{Logger: slog.New(logFunc(func(message string) {
			if strings.Contains(message, "the Store answers again") {
				visit()
			}
		}))})
		site = in.start(&c)
		st.set(down)
		for i := range 3 {
			get(site, fmt.Sprintf("/%d", i))
		}
		st.set(nil)
		for range 2 {
			time.Sleep(time.Minute)
			body(site, "/")
		}
		synctest.Wait()
		if a, b := body(site, "/"), body(in.start(&c), "/"); a != b {
			t.Errorf("%q before a restart, %q after it", a, b)
		}
	})
}

// A program whose Store has never answered starts, and serves its visitors.
func TestStoreThatWasNeverReached(t *testing.T) {
	for name, test := range map[string]struct {
		fault func(t *testing.T) fault
		wait  time.Duration
	}{
		"down": {func(*testing.T) fault { return down }, 0},
		"hung": {hung, 200 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				st := &faultyStore{Store: memory.New()}
				st.set(test.fault(t))
				in := fleet(t, st, isr.Options{})
				var c countingHandler
				site, begin := in.start(&c), time.Now()
				if got := body(site, "/"); got != "page 1" || time.Since(begin) > test.wait {
					t.Errorf("got %q after %v", got, time.Since(begin))
				}
			})
		})
	}
}

// When the Store comes back nothing in it replaces a newer page that was made offline.
func TestStoreDoesNotReplaceOfflinePages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &faultyStore{Store: memory.New()}
		in := fleet(t, st, isr.Options{Default: isr.Route{TTL: time.Hour}})
		var c countingHandler
		one, two := in.start(&c), in.start(&c)
		body(two, "/")
		time.Sleep(time.Second)
		st.set(down)
		if got := body(one, "/"); got != "page 2" {
			t.Fatalf("while the Store is down: %q", got)
		}
		st.set(nil)
		time.Sleep(10 * time.Second)
		for _, want := range []string{"page 2", "page 3"} {
			if got := body(one, "/"); got != want {
				t.Errorf("when it is back: %q, want %q", got, want)
			}
			synctest.Wait()
		}
	})
}

// An invalidation that arrives after an outage may be as old as the outage, and the
// page counts as stale since then.
func TestInvalidatedWhileTheStoreWasAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &faultyStore{Store: memory.New()}
		in := fleet(t, st, isr.Options{Default: isr.Route{StaleWhileRevalidate: time.Minute, StaleIfError: time.Hour}})
		c := countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			if n > 1 {
				w.WriteHeader(http.StatusInternalServerError)
			}
		}}
		one := in.start(&c)
		get(one, "/")
		time.Sleep(3 * time.Hour)
		st.set(down)
		time.Sleep(50 * time.Minute)
		if _, err := st.Store.Invalidate(t.Context(), store.Stale, "\x00/"); err != nil {
			t.Fatal(err)
		}
		st.set(nil)
		time.Sleep(5 * time.Second)
		res := get(one, "/")
		if got, want := res.Header.Get("Cache-Status"), "isr; fwd=stale; fwd-status=500; detail=stale-if-error"; got != want {
			t.Errorf("50 minutes later: %q, want %q", got, want)
		}
		time.Sleep(10 * time.Minute)
		if res := get(one, "/"); res.StatusCode != http.StatusInternalServerError {
			t.Errorf("an hour later: %d, %q", res.StatusCode, res.Header.Get("Cache-Status"))
		}
	})
}

// A logFunc is a slog.Handler that is called with each message.
type logFunc func(message string)

func (logFunc) Enabled(context.Context, slog.Level) bool { return true }

func (l logFunc) WithAttrs([]slog.Attr) slog.Handler { return l }

func (l logFunc) WithGroup(string) slog.Handler { return l }

func (l logFunc) Handle(_ context.Context, r slog.Record) error {
	l(r.Message)
	return nil
}
