package isr_test

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/store"
	"github.com/isr-go/isr/store/memory"
)

// A pair is an engine with a replica. What is done to the one is done to the other, until
// they are cut apart; and then the replica can be promoted.
type pair struct {
	mu       sync.Mutex // guards what follows
	current  store.Store
	replica  store.Store
	cut      bool
	promoted bool
}

func newPair() *pair { return &pair{current: memory.New(), replica: memory.New()} }

// separate keeps from the replica what is done from now on.
func (p *pair) separate() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = true
}

// failOver has the replica take over. Its versions do not go back, since engines take
// theirs from the clock.
func (p *pair) failOver() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for range 100 {
		p.replica.Invalidate(context.Background(), store.Stale, "promoted")
	}
	p.current, p.cut, p.promoted = p.replica, true, true
}

// wipe has an empty engine take over.
func (p *pair) wipe() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.current, p.cut = memory.New(), true
}

// both calls f with the engine, and with the replica if that hears of it.
func (p *pair) both(f func(store.Store) error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	err := f(p.current)
	if !p.cut {
		f(p.replica)
	}
	return err
}

func (p *pair) Look(ctx context.Context, key string, have store.Ticket, ttl time.Duration) (rec *store.Record, effect store.Effect, t store.Ticket, err error) {
	err = p.both(func(s store.Store) error {
		r, e, ticket, err := s.Look(ctx, key, have, ttl)
		if s == p.current {
			rec, effect, t = r, e, ticket
		}
		return err
	})
	return rec, effect, t, err
}

func (p *pair) Put(ctx context.Context, key string, t store.Ticket, rec *store.Record) error {
	return p.both(func(s store.Store) error { return s.Put(ctx, key, t, rec) })
}

func (p *pair) End(ctx context.Context, key string, t store.Ticket) error {
	return p.both(func(s store.Store) error { return s.End(ctx, key, t) })
}

func (p *pair) Invalidate(ctx context.Context, e store.Effect, tags ...string) (v store.Version, err error) {
	err = p.both(func(s store.Store) error {
		version, err := s.Invalidate(ctx, e, tags...)
		if s == p.current {
			v = version
		}
		return err
	})
	return v, err
}

func (p *pair) Changes(ctx context.Context, after store.Version) (store.Changes, error) {
	p.mu.Lock()
	s := p.current
	p.mu.Unlock()
	c, err := s.Changes(ctx, after)
	p.mu.Lock()
	defer p.mu.Unlock()
	if s != p.current {
		return store.Changes{}, errors.New("connection reset")
	}
	if p.promoted {
		c.History += " promoted"
	}
	return c, err
}

// A failover that loses a purge which was acknowledged is healed by the instance that got
// it: it does not get the page from the Store itself, and all others hear of it, those that
// start later, too. It does not matter who is there first.
func TestFailoverLosesNoPurge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newPair()
		in := fleet(t, st, isr.Options{Default: isr.Route{TTL: time.Hour, Tags: []string{"tag"}}})
		var c countingHandler
		one, two := in.start(&c), in.start(&c)
		for _, path := range []string{"/a", "/b", "/c"} {
			body(one, path)
			body(two, path)
		}
		time.Sleep(time.Minute)
		st.separate()
		if err := one.Purge(t.Context(), "/a"); err != nil {
			t.Fatal(err)
		}
		if err := one.RevalidateTag(t.Context(), "another"); err != nil {
			t.Fatal(err)
		}
		before := c.calls.Load()
		st.failOver()
		if _, err := st.Invalidate(t.Context(), store.Stale, "of the first to come"); err != nil {
			t.Fatal(err)
		}
		if got := body(one, "/a"); got != "page 4" || c.calls.Load() != before+1 {
			t.Errorf("on the instance that has purged it: %q", got)
		}
		time.Sleep(2 * time.Second)
		for i := range 3 {
			site := two
			if i > 0 {
				site = in.start(&c)
			}
			if got := body(site, "/a"); got == "page 1" {
				t.Error("the purged page is there again")
			}
			for path, want := range map[string]string{"/b": "page 2", "/c": "page 3"} {
				if got := body(site, path); got != want {
					t.Errorf("%s: got %q, want %q", path, got, want)
				}
			}
			time.Sleep(time.Minute)
		}
	})
}

// What is purged stays so where the Store loses everything, and the handler fails: also on
// an instance that has not heard of the purge before.
func TestWipeShowsNothingThatWasPurged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newPair()
		in := fleet(t, st, isr.Options{Default: isr.Route{TTL: time.Hour}})
		var mu sync.Mutex
		broken := false
		c := countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			mu.Lock()
			defer mu.Unlock()
			if broken {
				w.WriteHeader(http.StatusInternalServerError)
			}
		}}
		one := in.start(&c)
		cutOff := &faultyStore{Store: st}
		in.store = cutOff
		two := in.start(&c)
		for _, site := range []*isr.Site{one, two} {
			body(site, "/")
			body(site, "/other")
		}
		synctest.Wait()
		mu.Lock()
		broken = true
		mu.Unlock()
		cutOff.set(down)
		time.Sleep(10 * time.Second)
		if err := one.Purge(t.Context(), "/"); err != nil {
			t.Fatal(err)
		}
		st.wipe()
		time.Sleep(10 * time.Second)
		cutOff.set(nil)
		time.Sleep(2 * time.Second)
		for name, site := range map[string]*isr.Site{"that has purged it": one, "that was cut off": two, "that has just started": in.start(&c)} {
			if res := get(site, "/"); res.StatusCode != http.StatusInternalServerError {
				t.Errorf("on the instance %s: %d, %q", name, res.StatusCode, res.Header.Get("Cache-Status"))
			}
		}
		if res := get(two, "/other"); res.StatusCode != http.StatusOK {
			t.Errorf("another page: %d", res.StatusCode)
		}
	})
}

// What was purged longer ago than a Store may lose is not purged again.
func TestOldPurgesAreNotSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newPair()
		in := fleet(t, st, isr.Options{Default: isr.Route{TTL: 24 * time.Hour}})
		var c countingHandler
		site := in.start(&c)
		if err := site.Purge(t.Context(), "/"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(11 * time.Minute)
		if got := body(site, "/"); got != "page 1" {
			t.Fatalf("got %q", got)
		}
		synctest.Wait()
		st.failOver()
		time.Sleep(time.Minute)
		for _, site := range []*isr.Site{site, in.start(&c)} {
			if got := body(site, "/"); got != "page 1" {
				t.Errorf("got %q", got)
			}
		}
	})
}
