package isr_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/store"
	"github.com/isr-go/isr/store/memory"
)

// A record that is damaged, of another page, or of an unknown effect is a miss.
func TestWrongRecordsAreMisses(t *testing.T) {
	var other *store.Record
	record := func(alter func(*store.Record) *store.Record) func(*store.Record, store.Effect) (*store.Record, store.Effect) {
		return func(rec *store.Record, effect store.Effect) (*store.Record, store.Effect) { return alter(rec), effect }
	}
	effect := func(e store.Effect) func(*store.Record, store.Effect) (*store.Record, store.Effect) {
		return func(rec *store.Record, _ store.Effect) (*store.Record, store.Effect) { return rec, e }
	}
	for name, alter := range map[string]func(*store.Record, store.Effect) (*store.Record, store.Effect){
		"nothing":           record(func(rec *store.Record) *store.Record { return nil }),
		"no data":           record(func(rec *store.Record) *store.Record { return &store.Record{Version: rec.Version} }),
		"another page":      record(func(rec *store.Record) *store.Record { return other }),
		"a part":            record(func(rec *store.Record) *store.Record { rec.Data = rec.Data[:len(rec.Data)/2]; return rec }),
		"only the magic":    record(func(rec *store.Record) *store.Record { rec.Data = rec.Data[:4]; return rec }),
		"a flipped bit":     record(func(rec *store.Record) *store.Record { rec.Data[len(rec.Data)/2] ^= 1; return rec }),
		"a byte too many":   record(func(rec *store.Record) *store.Record { rec.Data = append(rec.Data, 0); return rec }),
		"another format":    record(func(rec *store.Record) *store.Record { rec.Data[0]++; return rec }),
		"gone":              effect(store.Gone),
		"a negative effect": effect(-1),
		"an unknown effect": effect(store.Gone + 1),
		"a large effect":    effect(1 << 20),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				st := memory.New()
				in := fleet(t, st, isr.Options{})
				var c countingHandler
				site := in.start(&c)
				body(site, "/")
				body(site, "/other")
				synctest.Wait()
				in.store = &alteredStore{Store: st, get: record(func(rec *store.Record) *store.Record { other = rec; return rec })}
				body(in.start(&c), "/other")
				in.store = &alteredStore{Store: st, get: alter}
				site = in.start(&c)
				for range 2 {
					if got := body(site, "/"); got != "page 3" {
						t.Errorf("got %q", got)
					}
					synctest.Wait()
				}
			})
		})
	}
}

// A change whose effect only a newer build knows is taken for the strongest one.
func TestUnknownEffectRemovesThePage(t *testing.T) {
	for _, effect := range []store.Effect{-1, store.None, store.Gone + 1} {
		synctest.Test(t, func(t *testing.T) {
			st := memory.New()
			in := fleet(t, st, isr.Options{})
			var c countingHandler
			one := in.start(&c)
			in.store = &alteredStore{Store: st, changes: func(c store.Changes) store.Changes {
				for i := range c.List {
					c.List[i].Effect = effect
				}
				return c
			}}
			two := in.start(&c)
			body(one, "/")
			body(two, "/")
			if err := one.Purge(t.Context(), "/"); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if got := body(two, "/"); got != "page 2" {
				t.Errorf("after a change with the effect %d: %q", effect, got)
			}
		})
	}
}

// A purge holds on the instance that made it, even if the Store's versions are in no
// order; where it may not hold elsewhere the caller gets an error.
func TestVersionsOutOfOrder(t *testing.T) {
	for name, test := range map[string]struct {
		altered      alteredStore
		acknowledges bool
	}{
		"zero":              {alteredStore{invalidate: func(store.Version) store.Version { return 0 }}, false},
		"older than before": {alteredStore{invalidate: func(v store.Version) store.Version { return v - 10e6 }}, false},
		"the same again": {func() alteredStore {
			var first store.Version
			return alteredStore{invalidate: func(v store.Version) store.Version {
				if first == 0 {
					first = v
				}
				return first
			}}
		}(), false},
		"a record of the largest version": {alteredStore{get: func(r *store.Record, e store.Effect) (*store.Record, store.Effect) {
			r.Version = 1<<64 - 1
			return r, e
		}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				st := memory.New()
				in := fleet(t, st, isr.Options{})
				var c countingHandler
				body(in.start(&c), "/")
				synctest.Wait()
				altered := test.altered
				altered.Store = st
				altered.changes = func(c store.Changes) store.Changes { return store.Changes{Upto: c.Upto} }
				in.store = &altered
				site := in.start(&c)
				if got := body(site, "/"); got != "page 1" {
					t.Fatalf("before: %q", got)
				}
				site.PurgeTag(t.Context(), "something else")
				time.Sleep(time.Second)
				err := site.Purge(t.Context(), "/")
				if got := body(site, "/"); got != "page 2" {
					t.Errorf("after a purge that returned %v: %q", err, got)
				}
				if test.acknowledges != (err == nil) {
					t.Errorf("Purge: %v", err)
				}
			})
		})
	}
}

// When a Store has lost its history, every copy counts as stale.
func TestStoreLosesItsHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, wiped := memory.New(), atomic.Bool{}
		in := fleet(t, &alteredStore{Store: st, changes: func(c store.Changes) store.Changes {
			if !wiped.CompareAndSwap(true, false) {
				return c
			}
			v, _ := st.Invalidate(t.Context(), store.Stale, "a tag that nothing has")
			return store.Changes{Upto: v, Reset: true}
		}}, isr.Options{Default: isr.Route{TTL: time.Hour}})
		var c countingHandler
		site := in.start(&c)
		body(site, "/")
		time.Sleep(2 * time.Second)
		if got := get(site, "/").Header.Get("Cache-Status"); got != "isr; hit; ttl=3598" {
			t.Errorf("before: %q", got)
		}
		wiped.Store(true)
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

// A page from a Store that has forgotten a part of its history is judged by what the
// Store says of it, and not stale for changes that arrive later.
func TestTrimmedHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := memory.New()
		in := fleet(t, st, isr.Options{Default: isr.Route{TTL: time.Hour}})
		var c countingHandler
		one := in.start(&c)
		body(one, "/")
		if err := one.PurgeTag(t.Context(), "something else"); err != nil {
			t.Fatal(err)
		}
		first := true
		in.store = &faultyStore{
			Store: &alteredStore{Store: st, changes: func(c store.Changes) store.Changes {
				c.Reset, first = first, false
				return c
			}},
			after: only(slow(50*time.Millisecond), "changes"),
		}
		two := in.start(&c)
		for _, want := range []string{"isr; hit; ttl=3600", "isr; hit; ttl=3590"} {
			if got := get(two, "/").Header.Get("Cache-Status"); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
			time.Sleep(10 * time.Second)
		}
	})
}

// A change that arrives late renews no page that was made after it.
func TestLateChangesRenewNothing(t *testing.T) {
	for name, visit := range map[string]func(one, two *isr.Site){
		"made on the other instance": func(one, two *isr.Site) { body(one, "/"); synctest.Wait(); body(two, "/") },
		"made on this instance":      func(one, two *isr.Site) { body(two, "/") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				st := memory.New()
				in := fleet(t, st, isr.Options{Default: isr.Route{TTL: time.Hour}})
				var c countingHandler
				one := in.start(&c)
				late := &faultyStore{Store: st, after: only(slow(time.Second), "changes")}
				in.store = late
				two := in.start(&c)
				time.Sleep(10 * time.Second)
				if err := one.Purge(t.Context(), "/"); err != nil {
					t.Fatal(err)
				}
				visit(one, two)
				before := late.count("look")
				time.Sleep(10 * time.Second)
				if got := get(two, "/").Header.Get("Cache-Status"); got != "isr; hit; ttl=3590" {
					t.Errorf("after the change: %q", got)
				}
				if n := late.count("look") - before; n != 0 {
					t.Errorf("the Store was asked for the page %d times more", n)
				}
			})
		})
	}
}

// An alteredStore returns something else than the Store behind it.
type alteredStore struct {
	store.Store
	get        func(*store.Record, store.Effect) (*store.Record, store.Effect)
	invalidate func(store.Version) store.Version
	changes    func(store.Changes) store.Changes
}

func (l *alteredStore) Look(ctx context.Context, key string, have store.Ticket, ttl time.Duration) (*store.Record, store.Effect, store.Ticket, error) {
	rec, effect, t, err := l.Store.Look(ctx, key, have, ttl)
	if err == nil && l.get != nil {
		rec, effect = l.get(rec, effect)
	}
	return rec, effect, t, err
}

func (l *alteredStore) Invalidate(ctx context.Context, e store.Effect, tags ...string) (store.Version, error) {
	v, err := l.Store.Invalidate(ctx, e, tags...)
	if err == nil && l.invalidate != nil {
		v = l.invalidate(v)
	}
	return v, err
}

func (l *alteredStore) Changes(ctx context.Context, after store.Version) (store.Changes, error) {
	c, err := l.Store.Changes(ctx, after)
	if err == nil && l.changes != nil {
		c = l.changes(c)
	}
	return c, err
}
