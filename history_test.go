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

func TestStoreThatLies(t *testing.T) {
	var other *store.Record
	record := func(lie func(*store.Record) *store.Record) func(*store.Record, store.Effect) (*store.Record, store.Effect) {
		return func(rec *store.Record, effect store.Effect) (*store.Record, store.Effect) { return lie(rec), effect }
	}
	effect := func(e store.Effect) func(*store.Record, store.Effect) (*store.Record, store.Effect) {
		return func(rec *store.Record, _ store.Effect) (*store.Record, store.Effect) { return rec, e }
	}
	for name, lie := range map[string]func(*store.Record, store.Effect) (*store.Record, store.Effect){
		"nothing":             record(func(rec *store.Record) *store.Record { return nil }),
		"no data":             record(func(rec *store.Record) *store.Record { return &store.Record{Version: rec.Version} }),
		"another page":        record(func(rec *store.Record) *store.Record { return other }),
		"a part":              record(func(rec *store.Record) *store.Record { rec.Data = rec.Data[:len(rec.Data)/2]; return rec }),
		"a stump":             record(func(rec *store.Record) *store.Record { rec.Data = rec.Data[:4]; return rec }),
		"a bit":               record(func(rec *store.Record) *store.Record { rec.Data[len(rec.Data)/2] ^= 1; return rec }),
		"more":                record(func(rec *store.Record) *store.Record { rec.Data = append(rec.Data, 0); return rec }),
		"of another format":   record(func(rec *store.Record) *store.Record { rec.Data[0]++; return rec }),
		"gone all the same":   effect(store.Gone),
		"no effect":           effect(-1),
		"an effect too many":  effect(store.Gone + 1),
		"effects and nothing": effect(1 << 20),
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
				in.store = &liar{Store: st, get: record(func(rec *store.Record) *store.Record { other = rec; return rec })}
				body(in.start(&c), "/other")
				in.store = &liar{Store: st, get: lie}
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

// What a newer build may do to a page, this one does not know: rather too much than
// too little.
func TestChangeOfAnUnknownKind(t *testing.T) {
	for _, effect := range []store.Effect{-1, store.None, store.Gone + 1} {
		bubble(t, func(t *testing.T) {
			st := memory.New()
			in := fleet(t, st, isr.Options{})
			var c cms
			one := in.start(&c)
			in.store = &liar{Store: st, changes: func(c store.Changes) store.Changes {
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

// A purge holds where it was made, even if the order that the Store gives is none;
// and who cannot rely on it elsewhere is told.
func TestOrderThatIsNone(t *testing.T) {
	for name, test := range map[string]struct {
		lie          liar
		acknowledges bool
	}{
		"back to zero": {liar{invalidate: func(store.Version) store.Version { return 0 }}, false},
		"back a bit":   {liar{invalidate: func(v store.Version) store.Version { return v - 10e6 }}, false},
		"standing still": {func() liar {
			var first store.Version
			return liar{invalidate: func(v store.Version) store.Version {
				if first == 0 {
					first = v
				}
				return first
			}}
		}(), false},
		"a page from the end of all time": {liar{get: func(r *store.Record, e store.Effect) (*store.Record, store.Effect) {
			r.Version = 1<<64 - 1
			return r, e
		}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				st := memory.New()
				in := fleet(t, st, isr.Options{})
				var c cms
				body(in.start(&c), "/")
				synctest.Wait()
				lie := test.lie
				lie.Store = st
				lie.changes = func(c store.Changes) store.Changes { return store.Changes{Upto: c.Upto} }
				in.store = &lie
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

// A store that has lost its history says so, and every copy counts as stale.
func TestStoreLosesItsHistory(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st, wiped := memory.New(), atomic.Bool{}
		in := fleet(t, &liar{Store: st, changes: func(c store.Changes) store.Changes {
			if !wiped.CompareAndSwap(true, false) {
				return c
			}
			v, _ := st.Invalidate(t.Context(), store.Stale, "a tag that nothing has")
			return store.Changes{Upto: v, Reset: true}
		}}, isr.Options{Default: isr.Route{TTL: time.Hour}})
		var c cms
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

// A page that comes from a Store which has forgotten a part of its history is as
// good as that says, and not stale for what the instance hears of it later.
func TestHistoryIsForgotten(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st := memory.New()
		in := fleet(t, st, isr.Options{Default: isr.Route{TTL: time.Hour}})
		var c cms
		one := in.start(&c)
		body(one, "/")
		if err := one.PurgeTag(t.Context(), "something else"); err != nil {
			t.Fatal(err)
		}
		first := true
		in.store = &moody{
			Store: &liar{Store: st, changes: func(c store.Changes) store.Changes {
				c.Reset, first = first, false
				return c
			}},
			echo: only(slow(50*time.Millisecond), "changes"),
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

// What an instance hears late is no reason to renew what was made since.
func TestHeardLate(t *testing.T) {
	for name, visit := range map[string]func(one, two *isr.Site){
		"made elsewhere": func(one, two *isr.Site) { body(one, "/"); synctest.Wait(); body(two, "/") },
		"made here":      func(one, two *isr.Site) { body(two, "/") },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				st := memory.New()
				in := fleet(t, st, isr.Options{Default: isr.Route{TTL: time.Hour}})
				var c cms
				one := in.start(&c)
				late := &moody{Store: st, echo: only(slow(time.Second), "changes")}
				in.store = late
				two := in.start(&c)
				time.Sleep(10 * time.Second)
				if err := one.Purge(t.Context(), "/"); err != nil {
					t.Fatal(err)
				}
				visit(one, two)
				before := late.count("get")
				time.Sleep(10 * time.Second)
				if got := get(two, "/").Header.Get("Cache-Status"); got != "isr; hit; ttl=3590" {
					t.Errorf("when all is heard: %q", got)
				}
				if n := late.count("get") - before; n != 0 {
					t.Errorf("the Store was asked for it %d times more", n)
				}
			})
		})
	}
}

// A liar returns something else than it knows.
type liar struct {
	store.Store
	get        func(*store.Record, store.Effect) (*store.Record, store.Effect)
	invalidate func(store.Version) store.Version
	changes    func(store.Changes) store.Changes
}

func (l *liar) Get(ctx context.Context, key string) (*store.Record, store.Effect, error) {
	rec, effect, err := l.Store.Get(ctx, key)
	if err == nil && l.get != nil {
		rec, effect = l.get(rec, effect)
	}
	return rec, effect, err
}

func (l *liar) Invalidate(ctx context.Context, e store.Effect, tags ...string) (store.Version, error) {
	v, err := l.Store.Invalidate(ctx, e, tags...)
	if err == nil && l.invalidate != nil {
		v = l.invalidate(v)
	}
	return v, err
}

func (l *liar) Changes(ctx context.Context, after store.Version) (store.Changes, error) {
	c, err := l.Store.Changes(ctx, after)
	if err == nil && l.changes != nil {
		c = l.changes(c)
	}
	return c, err
}
