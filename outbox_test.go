package isr_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/store/memory"
)

// An invalidation that the Store did not take is sent again until it does, with no
// weaker effect than was asked for.
func TestOutboxDelivers(t *testing.T) {
	t.Parallel()
	purge := func(site *isr.Site) { site.PurgeTag(context.Background(), "tag") }
	revalidate := func(site *isr.Site) { site.RevalidateTag(context.Background(), "tag") }
	post := func(site *isr.Site) { do(site, "POST", "/") }
	for name, test := range map[string]struct {
		fail, succeed []func(*isr.Site)
		want          int // the status of what is purged and cannot be had anew
	}{
		"a purge":                          {[]func(*isr.Site){purge}, nil, 500},
		"a POST":                           {[]func(*isr.Site){post}, nil, 200},
		"less than before":                 {[]func(*isr.Site){purge, revalidate}, nil, 500},
		"less than before, with success":   {[]func(*isr.Site){purge}, []func(*isr.Site){revalidate}, 500},
		"more than before":                 {[]func(*isr.Site){revalidate, purge}, nil, 500},
		"a purge of the path, then a POST": {[]func(*isr.Site){func(site *isr.Site) { site.Purge(context.Background(), "/") }}, []func(*isr.Site){post}, 500},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				st := &faultyStore{Store: memory.New()}
				in := fleet(t, st, isr.Options{Default: isr.Route{TTL: time.Hour, Tags: []string{"tag"}}})
				var broken atomic.Bool
				c := countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
					if r.Method == http.MethodGet && broken.Load() {
						w.WriteHeader(http.StatusInternalServerError)
					}
				}}
				one, two := in.start(&c), in.start(&c)
				get(one, "/")
				get(two, "/")
				st.set(only(down, "invalidate"))
				for _, f := range test.fail {
					f(one)
				}
				st.set(nil)
				for _, f := range test.succeed {
					f(one)
				}
				time.Sleep(time.Minute)
				broken.Store(true)
				res := get(two, "/")
				if got := res.Header.Get("Cache-Status"); res.StatusCode != test.want || strings.HasPrefix(got, "isr; hit; ttl=3") {
					t.Errorf("on the other instance: %d, %q; want %d", res.StatusCode, got, test.want)
				}
				before := st.count("invalidate")
				time.Sleep(time.Hour)
				if n := st.count("invalidate") - before; n != 0 {
					t.Errorf("after delivery the Store got %d more", n)
				}
			})
		})
	}
}

// Undelivered invalidations are sent as soon as the Store is used again, however often
// they failed before.
func TestOutboxDeliversOnRecovery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &faultyStore{Store: memory.New()}
		in := fleet(t, st, isr.Options{})
		var c countingHandler
		one, two := in.start(&c), in.start(&c)
		body(one, "/")
		body(two, "/")
		st.set(except(down, "changes"))
		for i := range 75 { // each relapse makes its cooldown longer, up to half a minute
			get(one, fmt.Sprintf("/%d", i))
			time.Sleep(time.Second)
		}
		one.Purge(t.Context(), "/")
		time.Sleep(10 * time.Second)
		st.set(nil)
		for i := range 1000 {
			before := st.count("look")
			get(one, fmt.Sprintf("/again/%d", i))
			if st.count("look") > before {
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(10 * time.Second) // the delivery may have failed a few times meanwhile
		if got := body(two, "/"); got == "page 1" {
			t.Error("the Store is back, but the purge has not reached the other instance")
		}
	})
}

// A Store that takes no invalidations is not asked all the time.
func TestOutboxBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &faultyStore{Store: memory.New()}
		site := fleet(t, st, isr.Options{}).start(&countingHandler{})
		st.set(only(down, "invalidate"))
		site.PurgeTag(t.Context(), "tag")
		time.Sleep(time.Hour)
		if n := st.count("invalidate"); n < 50 || n > 70 {
			t.Errorf("asked %d times in an hour", n)
		}
	})
}

// However many tags are undelivered, the Store gets all of them, with no weaker effect
// than was asked for, and nothing else.
func TestOutboxBatches(t *testing.T) {
	t.Parallel()
	var many []string
	for i := range 50_000 {
		many = append(many, fmt.Sprint(i))
	}
	for name, invalidate := range map[string]func(context.Context, *isr.Site){
		"with it": func(ctx context.Context, site *isr.Site) { site.PurgeTag(ctx, append(many, "tag")...) },
		"after it": func(ctx context.Context, site *isr.Site) {
			site.PurgeTag(ctx, "tag")
			site.RevalidateTag(ctx, many...)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				st := &faultyStore{Store: memory.New()}
				in := fleet(t, st, isr.Options{Routes: map[string]isr.Route{"/{$}": {Tags: []string{"tag"}}}})
				var c countingHandler
				one, two := in.start(&c), in.start(&c)
				body(two, "/")
				get(two, "/other")
				synctest.Wait()
				st.set(only(down, "invalidate"))
				invalidate(t.Context(), one)
				if got := body(one, "/"); got != "page 3" {
					t.Errorf("on the instance that was asked: %q", got)
				}
				st.set(nil)
				time.Sleep(time.Minute)
				if got := body(two, "/"); got == "page 1" {
					t.Errorf("on the other instance: %q", got)
				}
				before := c.calls.Load()
				if got := body(in.start(&c), "/other"); c.calls.Load() != before {
					t.Errorf("a page that was not named, after a restart: %q", got)
				}
			})
		})
	}
}

// Where the outbox is full the error says so, and the Store gets nothing that nobody
// has asked for. Visitors leave room to editors.
func TestOutboxOverflow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &faultyStore{Store: memory.New()}
		in := fleet(t, st, isr.Options{MaxBytes: 8 << 20})
		var c countingHandler
		one, other := in.start(&c), in.start(&c)
		body(other, "/first")
		body(other, "/never-named")
		st.set(except(down, "look", "put", "changes"))
		one.Purge(t.Context(), "/first")
		refused := 0
		for i := range 150 {
			var paths []string
			for j := range 100 {
				paths = append(paths, fmt.Sprintf("/%d/%d", i, j))
			}
			switch err := one.Purge(t.Context(), paths...); {
			case err == nil:
				t.Fatal("no error while the Store is down")
			case strings.Contains(err.Error(), "will not be delivered"):
				refused++
			case refused > 0:
				t.Errorf("purge %d is in the outbox, an earlier one is not", i)
			}
		}
		if refused == 0 || refused > 75 {
			t.Errorf("%d of 150 purges found no room", refused)
		}
		st.set(nil)
		time.Sleep(2 * time.Minute)
		if got := body(other, "/first"); got == "page 1" {
			t.Error("a purge is lost")
		}
		if got := body(other, "/never-named"); got != "page 2" {
			t.Errorf("a page that was not purged: %q", got)
		}
		if got, want := body(one, "/first"), body(other, "/first"); got != want {
			t.Errorf("%q on one instance, %q on the other", got, want)
		}
	})
}

// As long as a purge is undelivered, what the Store has counts as purged, whatever is
// delivered in between.
func TestUndeliveredPurgesHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &faultyStore{Store: memory.New()}
		in := fleet(t, st, isr.Options{Default: isr.Route{Tags: []string{"tag"}}})
		var c countingHandler
		body(in.start(&c), "/")
		one := in.start(&c)
		st.set(only(down, "invalidate"))
		one.PurgeTag(t.Context(), "tag")
		others := []string{"tag"}
		for i := range 20 {
			others = append(others, fmt.Sprint("other ", i))
		}
		one.RevalidateTag(t.Context(), others...) // a third failure would open the breaker
		st.set(nil)
		if err := one.PurgeTag(t.Context(), "something else"); err != nil {
			t.Fatal(err)
		}
		if got := body(one, "/"); got != "page 2" {
			t.Errorf("got %q", got)
		}
	})
}

// A purge that is repeated while it is being delivered is delivered again.
func TestPurgeWhileDelivering(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &faultyStore{Store: memory.New(), after: only(slow(time.Second), "invalidate")}
		in := fleet(t, st, isr.Options{})
		var c countingHandler
		one, two := in.start(&c), in.start(&c)
		body(two, "/")
		st.set(only(down, "invalidate"))
		one.Purge(t.Context(), "/")
		st.set(nil)
		for sent := st.count("invalidate"); st.count("invalidate") == sent; {
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(500 * time.Millisecond)
		if got := body(two, "/"); got != "page 2" {
			t.Errorf("after the first purge: %q", got)
		}
		st.set(only(down, "invalidate"))
		one.Purge(t.Context(), "/")
		st.set(nil)
		time.Sleep(time.Minute)
		if got := body(two, "/"); got != "page 3" {
			t.Errorf("after the second: %q", got)
		}
	})
}

// A caller who gives up on a purge does not keep it from the Store.
func TestPurgeOutlivesItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &faultyStore{Store: memory.New()}
		in := fleet(t, st, isr.Options{})
		var c countingHandler
		one, other := in.start(&c), in.start(&c)
		body(one, "/")
		body(other, "/")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := one.Purge(ctx, "/"); !errors.Is(err, context.Canceled) {
			t.Errorf("Purge: %v", err)
		}
		if n := one.Stats().StoreErrors; n != 0 {
			t.Errorf("%d StoreErrors: a caller who leaves is none", n)
		}
		time.Sleep(5 * time.Second)
		if got := body(other, "/"); got != "page 2" {
			t.Errorf("on the other instance: %q", got)
		}
	})
}

// Visitors' POSTs have a queue of their own, and do not delay an editor's purge.
func TestPostsDoNotDelayPurges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &faultyStore{Store: memory.New()}
		disk := make(chan struct{}, 1) // one call at a time
		st.after = only(func(ctx context.Context, op string) error {
			disk <- struct{}{}
			defer func() { <-disk }()
			time.Sleep(20 * time.Millisecond)
			return ctx.Err()
		}, "invalidate")
		in := fleet(t, st, isr.Options{})
		var c countingHandler
		site, other := in.start(&c), in.start(&c)
		for i := range 500 {
			get(other, fmt.Sprintf("/%d", i))
		}
		synctest.Wait()
		var all sync.WaitGroup
		for i := range 500 {
			all.Go(func() { do(site, "POST", fmt.Sprintf("/%d", i)) })
		}
		synctest.Wait()
		begin := time.Now()
		if err := site.Purge(t.Context(), "/purged"); err != nil || time.Since(begin) > time.Second {
			t.Errorf("Purge: %v after %v", err, time.Since(begin))
		}
		all.Wait()
		time.Sleep(10 * time.Second)
		for i := range 500 {
			if got := get(other, fmt.Sprintf("/%d", i)).Header.Get("Cache-Status"); got == "isr; hit" {
				t.Fatalf("the change of /%d has not reached the other instance", i)
			}
		}
	})
}

// The Store gets a bounded number of invalidations from POSTs to unknown paths, and as many
// from what their answers name; they remove nothing from it, and POSTs to known paths go on.
func TestPostsToUnknownPaths(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &faultyStore{Store: memory.New()}
		in := fleet(t, st, isr.Options{})
		c := countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			if r.Method == http.MethodPost {
				http.Redirect(w, r, "/login", http.StatusSeeOther)
			}
		}}
		one, two := in.start(&c), in.start(&c)
		get(one, "/")
		get(two, "/")
		flood := func(n int) int64 {
			before := st.count("invalidate")
			for i := range n {
				do(one, "POST", fmt.Sprintf("/no/such/path/%d", i))
			}
			return st.count("invalidate") - before
		}
		if n := flood(3000); n != 2000 {
			t.Errorf("the Store got %d invalidations", n)
		}
		time.Sleep(10 * time.Second)
		if n := flood(300); n != 200 {
			t.Errorf("%d ten seconds later", n)
		}
		time.Sleep(time.Hour)
		if n := flood(3000); n != 2000 {
			t.Errorf("%d an hour later", n)
		}
		for _, site := range []*isr.Site{one, two} {
			if got := get(site, "/").Header.Get("Cache-Status"); got != "isr; hit" {
				t.Errorf("a page that was not changed: %q", got)
			}
		}
		before := st.count("invalidate")
		do(one, "POST", "/")
		if n := st.count("invalidate") - before; n != 1 {
			t.Errorf("%d for a change of a known page", n)
		}
	})
}

// While look-ups fail, and are on hold, purges are taken at once, and those that are owed are
// delivered. While purges fail, pages are looked up and stored.
func TestLookUpsAndPurgesFailApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &faultyStore{Store: memory.New()}
		in := fleet(t, st, isr.Options{Default: isr.Route{TTL: time.Hour}})
		var c countingHandler
		site := in.start(&c)
		body(site, "/owed")
		body(site, "/taken")
		synctest.Wait()

		st.set(only(down, "invalidate"))
		for range 5 {
			if err := site.Purge(t.Context(), "/owed"); err == nil {
				t.Error("a purge that the Store has not taken is acknowledged")
			}
		}
		looks, puts := st.count("look"), st.count("put")
		body(site, "/another")
		synctest.Wait()
		if st.count("look") == looks || st.count("put") == puts {
			t.Error("while purges fail, no page is looked up, or none is stored")
		}

		st.set(only(down, "look", "put", "end"))
		time.Sleep(5 * time.Second) // until there was contact
		for n := range 10 {
			body(site, fmt.Sprint("/", n))
		}
		looks = st.count("look")
		body(site, "/more")
		if st.count("look") != looks {
			t.Error("look-ups are not on hold")
		}
		begin := time.Now()
		if err := site.Purge(t.Context(), "/taken"); err != nil || time.Since(begin) > 0 {
			t.Errorf("while look-ups fail, a purge: %v after %v", err, time.Since(begin))
		}
		time.Sleep(2 * time.Minute) // the longest pause after the purges that have failed
		st.set(nil)
		before := c.calls.Load()
		late := in.start(&c)
		for _, path := range []string{"/owed", "/taken"} {
			body(late, path)
		}
		if made := c.calls.Load() - before; made != 2 {
			t.Errorf("%d of 2 pages that were purged are gone from the Store", made)
		}
	})
}
