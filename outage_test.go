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

// A store that is down, slow or lying costs time at first, and soon nothing; but no
// visitor ever notices more of it than that.
func TestStoreInABadMood(t *testing.T) {
	for name, test := range map[string]struct {
		mood  func(t *testing.T) mood
		first time.Duration // what the first visitor may wait
	}{
		"down":   {func(*testing.T) mood { return down }, 0},
		"panics": {func(*testing.T) mood { return panics }, 0},
		"hung":   {hung, 100 * time.Millisecond},
		"begins": {func(*testing.T) mood { return but(down, "get", "changes") }, 0},
		"hesitates": {func(t *testing.T) mood {
			return but(hung(t), "get", "changes")
		}, 100 * time.Millisecond},
		"reads only": {func(*testing.T) mood {
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
				if n := st.count("put"); n > 0 && name != "reads only" {
					t.Errorf("%d pages were put that there was no permission for", n)
				}
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

// While the store is down it is asked for nothing but changes, and tried with purges;
// when it is back it hears of what it has missed.
func TestStoreComesBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st := &moody{Store: memory.New()}
		in := fleet(t, st, isr.Options{Default: isr.Route{TTL: time.Hour}})
		var c cms
		site, other := in.start(&c), in.start(&c)
		body(site, "/before")
		body(other, "/before")
		synctest.Wait() // or what is on its way there would speak well of it
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
		for range 3 {
			if err := site.Purge(t.Context(), "/before"); err == nil || errors.Is(err, store.ErrUnavailable) {
				t.Errorf("Purge: %v", err)
			}
		}
		if err := site.Purge(t.Context(), "/before"); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("after three in vain: %v", err)
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

// One call that fails costs a generation at most: the page is shared all the same,
// at the latest when it is renewed, and nobody waits for an instance that is through.
func TestHiccup(t *testing.T) {
	for name, test := range map[string]struct {
		mood  mood
		calls int64 // of the handler
	}{
		"the first look":  {only(hiccup(1), "get"), 2},
		"the second look": {only(hiccup(2), "get"), 1},
		"the permission":  {only(hiccup(1), "begin"), 2},
		"the page":        {only(hiccup(1), "put"), 2},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				st := &moody{Store: memory.New()}
				in := fleet(t, st, isr.Options{})
				var c cms
				one, two := in.start(&c), in.start(&c)
				st.feels(test.mood)
				for range 2 {
					body(one, "/")
					time.Sleep(10 * time.Second)
				}
				begin := time.Now()
				body(two, "/")
				if took := time.Since(begin); took > 0 {
					t.Errorf("elsewhere a visitor has waited for %v", took)
				}
				synctest.Wait()
				if got := c.calls.Load(); got != test.calls {
					t.Errorf("%d calls of the handler, want %d", got, test.calls)
				}
				if a, b := body(two, "/"), body(in.start(&c), "/"); a != b {
					t.Errorf("%q here, %q after a restart", a, b)
				}
			})
		})
	}
}

// Whoever waits for another instance has permission to put what he makes after all,
// even if the Store fails while he waits.
func TestHiccupWhileWaiting(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st := &moody{Store: memory.New()}
		in := fleet(t, st, isr.Options{})
		release := make(chan struct{})
		stuck := cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			<-release
			w.WriteHeader(http.StatusInternalServerError)
		}}
		var c cms
		one, two := in.start(&stuck), in.start(&c)
		go body(one, "/")
		synctest.Wait()
		st.feels(only(hiccup(5), "begin"))
		body(two, "/")
		synctest.Wait()
		close(release)
		synctest.Wait()
		if got := body(in.start(&c), "/"); got != "page 1" {
			t.Errorf("after a restart: %q", got)
		}
	})
}

// What is generated in the moment in which the Store comes back is renewed, too, and
// put there.
func TestBlindAtTheLastMoment(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st := &moody{Store: memory.New()}
		var site *isr.Site
		var c cms
		visit := sync.OnceFunc(func() { body(site, "/") })
		in := fleet(t, st, isr.Options{Logger: slog.New(listener(func(message string) {
			if strings.Contains(message, "the Store answers again") {
				visit()
			}
		}))})
		site = in.start(&c)
		st.feels(down)
		for i := range 3 {
			get(site, fmt.Sprintf("/%d", i))
		}
		st.feels(nil)
		for range 2 {
			time.Sleep(time.Minute)
			body(site, "/")
		}
		synctest.Wait()
		if a, b := body(site, "/"), body(in.start(&c), "/"); a != b {
			t.Errorf("%q here, %q after a restart", a, b)
		}
	})
}

// A program starts, and its visitors are served, though its Store has never been there.
func TestStoreIsNeverThere(t *testing.T) {
	for name, test := range map[string]struct {
		mood func(t *testing.T) mood
		wait time.Duration
	}{
		"down": {func(*testing.T) mood { return down }, 0},
		"hung": {hung, 200 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				st := &moody{Store: memory.New()}
				st.feels(test.mood(t))
				in := fleet(t, st, isr.Options{})
				var c cms
				site, begin := in.start(&c), time.Now()
				if got := body(site, "/"); got != "page 1" || time.Since(begin) > test.wait {
					t.Errorf("got %q after %v", got, time.Since(begin))
				}
			})
		})
	}
}

// When the Store comes back nothing in it takes the place of what was made since.
func TestOlderThanWhatWasMadeBlind(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st := &moody{Store: memory.New()}
		in := fleet(t, st, isr.Options{Default: isr.Route{TTL: time.Hour}})
		var c cms
		one, two := in.start(&c), in.start(&c)
		body(two, "/")
		time.Sleep(time.Second)
		st.feels(down)
		if got := body(one, "/"); got != "page 2" {
			t.Fatalf("while the Store is down: %q", got)
		}
		st.feels(nil)
		time.Sleep(10 * time.Second)
		for _, want := range []string{"page 2", "page 3"} {
			if got := body(one, "/"); got != want {
				t.Errorf("when it is back: %q, want %q", got, want)
			}
			synctest.Wait()
		}
	})
}

// What is heard only when the Store is back may have been invalidated right after it
// went away, and counts as stale since then.
func TestInvalidatedWhileTheStoreWasAway(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st := &moody{Store: memory.New()}
		in := fleet(t, st, isr.Options{Default: isr.Route{StaleWhileRevalidate: time.Minute, StaleIfError: time.Hour}})
		c := cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			if n > 1 {
				w.WriteHeader(http.StatusInternalServerError)
			}
		}}
		one := in.start(&c)
		get(one, "/")
		time.Sleep(3 * time.Hour)
		st.feels(down)
		time.Sleep(50 * time.Minute)
		if _, err := st.Store.Invalidate(t.Context(), store.Stale, "\x00/"); err != nil {
			t.Fatal(err)
		}
		st.feels(nil)
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

// A listener is told what is logged.
type listener func(message string)

func (listener) Enabled(context.Context, slog.Level) bool { return true }

func (l listener) WithAttrs([]slog.Attr) slog.Handler { return l }

func (l listener) WithGroup(string) slog.Handler { return l }

func (l listener) Handle(_ context.Context, r slog.Record) error {
	l(r.Message)
	return nil
}
