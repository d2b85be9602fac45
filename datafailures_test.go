package isr_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/store"
	"github.com/isr-go/isr/store/memory"
)

// A laggard hears late of what others have invalidated.
type laggard struct {
	store.Store
	lag time.Duration
}

func (s *laggard) Changes(ctx context.Context, after store.Version) (store.Changes, error) {
	c, err := s.Store.Changes(ctx, after)
	if len(c.List) > 0 {
		time.Sleep(s.lag)
	}
	return c, err
}

// What was purged is in no page, not even where the value cannot be fetched and the
// instance has not heard of the purge.
func TestPurgedDataIsNoFallback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, failing := memory.New(), false
		values := &isr.Data[string]{Name: "value"}
		h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			v, err := values.Load(r.Context(), "", func(context.Context) (string, error) {
				if failing {
					return "", errors.New("no database")
				}
				return "secret", nil
			})
			if err != nil {
				http.Error(w, err.Error(), 500)
				return
			}
			fmt.Fprint(w, v)
		})
		start := func(st store.Store) *isr.Site {
			site := isr.Wrap(h, isr.Options{Store: st, Version: "1"})
			t.Cleanup(func() { site.Shutdown(context.Background()) })
			return site
		}
		near, far := start(st), start(&laggard{st, 2 * time.Second})
		body(far, "/a")
		time.Sleep(3 * time.Second)
		failing = true
		if err := near.PurgeTag(t.Context(), "value"); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{"/b", "/c", "/d", "/b"} {
			if got := get(far, path); got.StatusCode != 500 {
				t.Errorf("%s: got %d %q", path, got.StatusCode, read(got))
			}
		}
		time.Sleep(5 * time.Second)
		for _, path := range []string{"/a", "/b", "/c"} {
			if got := get(far, path); got.StatusCode != 500 {
				t.Errorf("later, %s: got %d %q", path, got.StatusCode, read(got))
			}
		}
	})
}

// A page that holds what could not be renewed is left alone for as long as that is, also
// where it holds it by another value.
func TestPauseOfDataOfData(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner, outer := &isr.Data[int]{Name: "inner", TTL: time.Minute}, &isr.Data[int]{Name: "outer", TTL: time.Minute}
		failing, calls := false, 0
		site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			calls++
			n, err := outer.Load(r.Context(), "", func(ctx context.Context) (int, error) {
				return inner.Load(ctx, "", func(context.Context) (int, error) {
					if failing {
						return 0, errors.New("no database")
					}
					return 1, nil
				})
			})
			fmt.Fprint(w, n, err)
		}), isr.Options{Default: isr.Route{TTL: time.Minute}})
		body(site, "/")
		failing = true
		time.Sleep(2 * time.Minute)
		for range 10 {
			body(site, "/")
			synctest.Wait()
		}
		before := calls
		for range 10 {
			if got := body(site, "/"); got != "1 <nil>" {
				t.Errorf("got %q", got)
			}
			synctest.Wait()
		}
		if n := calls - before; n > 1 {
			t.Errorf("made %d times in the pause", n)
		}
		failing = false
		time.Sleep(time.Hour)
		body(site, "/")
		synctest.Wait()
		if got := get(site, "/").Header.Get("Cache-Status"); got != "isr; hit; ttl=60" {
			t.Errorf("afterwards %q", got)
		}
	})
}

// Strangers who ask for pages and leave have no more fetches under way than generations.
func TestAbandonedFetches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		values := &isr.Data[int]{Name: "value"}
		var now, most atomic.Int64
		site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			values.Load(r.Context(), r.URL.Path, func(context.Context) (int, error) {
				most.Store(max(most.Load(), now.Add(1)))
				defer now.Add(-1)
				time.Sleep(10 * time.Second) // whatever its context says
				return 0, nil
			})
		}), isr.Options{MaxGenerations: 2, MaxRegenerations: 1})
		for i := range 50 {
			visit(site, fmt.Sprint("/", i), 10*time.Millisecond)
			synctest.Wait()
		}
		if n := most.Load(); n > 4 {
			t.Errorf("%d fetches at a time", n)
		}
		time.Sleep(time.Minute)
		if got := get(site, "/"); got.StatusCode != 200 {
			t.Errorf("afterwards %d", got.StatusCode)
		}
		if n := site.Stats().Generating; n != 0 {
			t.Errorf("%d are under way", n)
		}
	})
}

// slowlyFetched returns a handler whose pages hold a version, which is read at once and
// takes a while to arrive.
func slowlyFetched(version *atomic.Int64, takes time.Duration) http.Handler {
	values := &isr.Data[int64]{Name: "value"}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := values.Load(r.Context(), "", func(context.Context) (int64, error) {
			n := version.Load()
			time.Sleep(takes)
			return n, nil
		})
		fmt.Fprint(w, n, err)
	})
}

// A page does not wait for a fetch that read before the page's instance could know what
// was purged since.
func TestPageAfterAnOlderFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := memory.New()
		var version atomic.Int64
		version.Store(1)
		h := slowlyFetched(&version, time.Second)
		near, far := fleet(t, st, isr.Options{}).start(h), fleet(t, &laggard{st, 2 * time.Second}, isr.Options{}).start(h)
		go do(far, "POST", "/")
		time.Sleep(time.Second / 2)
		version.Store(2)
		if err := near.PurgeTag(t.Context(), "value"); err != nil {
			t.Fatal(err)
		}
		if got := body(far, "/a"); got != "2 <nil>" {
			t.Errorf("got %q", got)
		}
		time.Sleep(5 * time.Second)
		if got := body(far, "/a"); got != "2 <nil>" {
			t.Errorf("later %q", got)
		}
	})
}

// Nor does it take a value that was made here meanwhile, and that the Store has yet to
// hear of: what the Store says, that an older one is stale, says nothing of it.
func TestPageAfterAnOlderValue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := memory.New()
		var version atomic.Int64
		h := slowlyFetched(&version, time.Second/2)
		slow := &faultyStore{Store: &laggard{st, 2 * time.Second}}
		near, far := fleet(t, st, isr.Options{}).start(h), fleet(t, slow, isr.Options{}).start(h)
		edit := func() {
			version.Add(1)
			if err := near.RevalidateTag(t.Context(), "value"); err != nil {
				t.Fatal(err)
			}
		}
		body(near, "/")
		time.Sleep(time.Minute)
		edit() // the value in the Store is stale, as everybody knows
		time.Sleep(time.Minute)
		slow.set(func(ctx context.Context, op string) error {
			if op == "put" {
				time.Sleep(100 * time.Millisecond)
			}
			return nil
		})
		go body(far, "/a")
		time.Sleep(time.Second / 4)
		edit() // while the value is fetched for /a
		if got := body(far, "/b"); got != "2 <nil>" {
			t.Errorf("got %q", got)
		}
		time.Sleep(5 * time.Second)
		if got := body(near, "/b"); got != "2 <nil>" {
			t.Errorf("where it was edited %q", got)
		}
	})
}
