package storetest_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/isr-go/isr/store"
	"github.com/isr-go/isr/store/storetest"
)

// same says whether two tags are the same.
func same(a, b string) bool { return a == b }

// rule is the rule by which records are judged, with an equality of its own.
func rule(rec *store.Record, all []store.Change, same func(tag, invalidated string) bool) (effect store.Effect) {
	for _, c := range all {
		if c.Version > rec.Version && slices.ContainsFunc(rec.Tags, func(tag string) bool { return same(tag, c.Tag) }) {
			effect = max(effect, c.Effect)
		}
	}
	return effect
}

func untilNUL(s string) string {
	s, _, _ = strings.Cut(s, "\x00")
	return s
}

// judgedBy is the rule with another equality of tags.
func judgedBy(same func(tag, invalidated string) bool) func(*faulty, *storetest.Config) {
	return judged(func(rec *store.Record, all []store.Change) store.Effect { return rule(rec, all, same) })
}

// judged is another rule, on records that the engine keeps whatever is invalidated.
func judged(effect func(rec *store.Record, all []store.Change) store.Effect) func(*faulty, *storetest.Config) {
	return func(f *faulty, _ *storetest.Config) {
		var mu sync.Mutex
		var all []store.Change
		records := make(map[string]*store.Record)
		f.put = func(ctx context.Context, key string, t store.Ticket, rec *store.Record) error {
			mu.Lock()
			defer mu.Unlock()
			err := f.engine.Put(ctx, key, t, rec)
			if err == nil {
				c := *rec
				c.Version, c.Fence, c.Tags, c.Data = t.Version, t.Fence, slices.Clone(rec.Tags), slices.Clone(rec.Data)
				records[key] = &c
			}
			return err
		}
		f.invalidate = func(ctx context.Context, effect store.Effect, tags ...string) (store.Version, error) {
			mu.Lock()
			defer mu.Unlock()
			v, err := f.engine.Invalidate(ctx, effect, tags...)
			for _, tag := range tags {
				all = append(all, store.Change{Tag: tag, Version: v, Effect: effect})
			}
			return v, err
		}
		f.get = func(ctx context.Context, key string) (*store.Record, store.Effect, error) {
			mu.Lock()
			defer mu.Unlock()
			if err := ctx.Err(); err != nil {
				return nil, 0, err
			}
			rec, ok := records[key]
			if !ok {
				return nil, 0, store.ErrNotFound
			}
			e := effect(rec, all)
			if e == store.Gone {
				return nil, 0, store.ErrNotFound
			}
			c := *rec
			c.Tags, c.Data = slices.Clone(rec.Tags), slices.Clone(rec.Data)
			return &c, e, nil
		}
	}
}

// limited is an engine that remembers 300 changes, and judges by a rule of its own what it
// has forgotten.
func limited(effect func(rec *store.Record, forgotten []store.Change) store.Effect) func(*faulty, *storetest.Config) {
	return func(f *faulty, c *storetest.Config) {
		c.Limit = 300
		judged(func(rec *store.Record, all []store.Change) store.Effect {
			n := max(0, len(all)-300)
			return max(rule(rec, all[n:], same), effect(rec, all[:n]))
		})(f, c)
	}
}

// weaker makes one effect the one below it.
func weaker(effect store.Effect) func(*faulty, *storetest.Config) {
	return func(f *faulty, _ *storetest.Config) {
		f.invalidate = func(ctx context.Context, e store.Effect, tags ...string) (store.Version, error) {
			if e == effect {
				e--
			}
			return f.engine.Invalidate(ctx, e, tags...)
		}
	}
}

// deleteByKey drops what is gone, and judges nothing that comes afterwards.
func deleteByKey(f *faulty, _ *storetest.Config) {
	var mu sync.Mutex
	put := make(map[string]store.Version) // what had been invalidated when the record came
	judged(func(rec *store.Record, all []store.Change) store.Effect {
		c := *rec
		c.Version = put[string(rec.Data)]
		return rule(&c, all, same)
	})(f, nil)
	inner, get := f.put, f.get
	f.put = func(ctx context.Context, key string, t store.Ticket, rec *store.Record) error {
		now, err := f.engine.Begin(ctx, "put", 0)
		if err == nil {
			err = inner(ctx, key, t, rec)
		}
		mu.Lock()
		defer mu.Unlock()
		put[string(rec.Data)] = now.Version
		return err
	}
	f.get = func(ctx context.Context, key string) (*store.Record, store.Effect, error) {
		mu.Lock()
		defer mu.Unlock()
		return get(ctx, key)
	}
}

// lastWriteWins keeps each record under a key of its own, and gets the last.
func lastWriteWins(f *faulty, _ *storetest.Config) {
	var mu sync.Mutex
	last := make(map[string]string)
	f.put = func(ctx context.Context, key string, t store.Ticket, rec *store.Record) error {
		mu.Lock()
		defer mu.Unlock()
		last[key] += "'"
		return errors.Join(f.engine.Put(ctx, key+last[key], t, rec), f.engine.End(ctx, key, t))
	}
	f.get = func(ctx context.Context, key string) (*store.Record, store.Effect, error) {
		mu.Lock()
		defer mu.Unlock()
		return f.engine.Get(ctx, key+last[key])
	}
}

// keepReads makes a handle keep what it has read until it puts something else.
func keepReads(f *faulty) {
	type read struct {
		rec    store.Record
		effect store.Effect
	}
	var mu sync.Mutex
	reads := make(map[string]read)
	f.get = func(ctx context.Context, key string) (*store.Record, store.Effect, error) {
		mu.Lock()
		defer mu.Unlock()
		if r, ok := reads[key]; ok {
			rec := r.rec
			rec.Tags, rec.Data = slices.Clone(rec.Tags), slices.Clone(rec.Data)
			return &rec, r.effect, ctx.Err()
		}
		rec, effect, err := f.engine.Get(ctx, key)
		if err == nil {
			reads[key] = read{*rec, effect}
		}
		return rec, effect, err
	}
	f.put = func(ctx context.Context, key string, t store.Ticket, rec *store.Record) error {
		mu.Lock()
		delete(reads, key)
		mu.Unlock()
		return f.engine.Put(ctx, key, t, rec)
	}
}

// keyed stores records under another key.
func keyed(change func(string) string) func(*faulty, *storetest.Config) {
	return func(f *faulty, c *storetest.Config) {
		f.get = func(ctx context.Context, key string) (*store.Record, store.Effect, error) {
			return f.engine.Get(ctx, change(key))
		}
		f.put = func(ctx context.Context, key string, t store.Ticket, rec *store.Record) error {
			return f.engine.Put(ctx, change(key), t, rec)
		}
	}
}

// recorded stores other records than it is given.
func recorded(change func(*store.Record)) func(*faulty, *storetest.Config) {
	return func(f *faulty, _ *storetest.Config) {
		f.put = func(ctx context.Context, key string, t store.Ticket, rec *store.Record) error {
			c := *rec
			c.Tags = slices.Clone(rec.Tags)
			change(&c)
			return f.engine.Put(ctx, key, t, &c)
		}
	}
}

// missIs returns another error for a miss.
func missIs(miss error) func(*faulty, *storetest.Config) {
	return func(f *faulty, _ *storetest.Config) {
		f.get = func(ctx context.Context, key string) (*store.Record, store.Effect, error) {
			rec, effect, err := f.engine.Get(ctx, key)
			if errors.Is(err, store.ErrNotFound) {
				rec, err = &store.Record{}, miss
			}
			return rec, effect, err
		}
	}
}

// firstTTL lets a record end when the first one under its key does.
func firstTTL(f *faulty, _ *storetest.Config) {
	var mu sync.Mutex
	ends := make(map[string]time.Time)
	f.put = func(ctx context.Context, key string, t store.Ticket, rec *store.Record) error {
		mu.Lock()
		defer mu.Unlock()
		if _, ok := ends[key]; !ok && rec.TTL > 0 {
			ends[key] = time.Now().Add(rec.TTL)
		}
		return f.engine.Put(ctx, key, t, rec)
	}
	f.get = func(ctx context.Context, key string) (*store.Record, store.Effect, error) {
		mu.Lock()
		defer mu.Unlock()
		if end, ok := ends[key]; ok && !time.Now().Before(end) {
			return nil, 0, store.ErrNotFound
		}
		return f.engine.Get(ctx, key)
	}
}

// ticketed gives other tickets, and takes them for those that it changed.
func ticketed(change func(*store.Ticket)) func(*faulty, *storetest.Config) {
	return func(f *faulty, _ *storetest.Config) {
		f.begin = func(ctx context.Context, key string, ttl time.Duration) (store.Ticket, error) {
			t, err := f.engine.Begin(ctx, key, ttl)
			change(&t)
			return t, err
		}
	}
}

// leased has a fault in its leases.
func leased(fault string) func(*faulty, *storetest.Config) {
	return func(f *faulty, _ *storetest.Config) {
		var mu sync.Mutex
		held := make(map[string]store.Ticket)
		f.begin = func(ctx context.Context, key string, ttl time.Duration) (store.Ticket, error) {
			mu.Lock()
			defer mu.Unlock()
			if fault == "one" {
				key = "one"
			}
			if old, ok := held[key]; ok && fault == "prolong" {
				if err := f.engine.End(ctx, key, old); err != nil {
					return store.Ticket{}, err
				}
				t, err := f.engine.Begin(ctx, key, ttl)
				held[key] = t
				t.Leader = false
				return t, err
			}
			t, err := f.engine.Begin(ctx, key, ttl)
			if t.Leader {
				held[key] = t
			}
			return t, err
		}
		f.end = func(ctx context.Context, key string, t store.Ticket) error {
			mu.Lock()
			defer mu.Unlock()
			if fault == "one" {
				key = "one"
			}
			if fault == "end" || fault == "late" && t.Leader && t.Token != "" {
				t = held[key]
			}
			if err := f.engine.End(ctx, key, t); err != nil {
				return err
			}
			if held[key].Token == t.Token {
				delete(held, key)
			}
			return nil
		}
		f.put = func(ctx context.Context, key string, t store.Ticket, rec *store.Record) error {
			return errors.Join(f.engine.Put(ctx, key, t, rec), f.end(ctx, key, t))
		}
	}
}

// followed returns other changes.
func followed(change func(after store.Version, c *store.Changes)) func(*faulty, *storetest.Config) {
	return func(f *faulty, _ *storetest.Config) {
		f.changes = func(ctx context.Context, after store.Version) (store.Changes, error) {
			c, err := f.engine.Changes(ctx, after)
			if err == nil {
				change(after, &c)
			}
			return c, err
		}
	}
}

// noContext goes on when the context has ended: for a minute, or while it waits.
func noContext(always bool) func(*faulty, *storetest.Config) {
	return func(f *faulty, _ *storetest.Config) {
		f.changes = func(ctx context.Context, after store.Version) (store.Changes, error) {
			if err := ctx.Err(); err != nil && !always {
				return store.Changes{}, err
			}
			return f.engine.Changes(context.WithoutCancel(ctx), after)
		}
		f.get = func(ctx context.Context, key string) (*store.Record, store.Effect, error) {
			if err := ctx.Err(); err != nil && !always {
				return nil, 0, err
			}
			return f.engine.Get(context.WithoutCancel(ctx), key)
		}
	}
}

// countsFromOne has versions that begin anew with the engine.
func countsFromOne(f *faulty, _ *storetest.Config) {
	f.begin = func(ctx context.Context, key string, ttl time.Duration) (store.Ticket, error) {
		t, err := f.engine.Begin(ctx, key, ttl)
		t.Version -= f.start()
		return t, err
	}
	f.put = func(ctx context.Context, key string, t store.Ticket, rec *store.Record) error {
		t.Version += f.start()
		return f.engine.Put(ctx, key, t, rec)
	}
	f.get = func(ctx context.Context, key string) (*store.Record, store.Effect, error) {
		rec, effect, err := f.engine.Get(ctx, key)
		if err == nil {
			rec.Version -= f.start()
		}
		return rec, effect, err
	}
	f.invalidate = func(ctx context.Context, effect store.Effect, tags ...string) (store.Version, error) {
		v, err := f.engine.Invalidate(ctx, effect, tags...)
		return v - f.start(), err
	}
	f.changes = func(ctx context.Context, after store.Version) (store.Changes, error) {
		c, err := f.engine.Changes(ctx, after+f.start())
		c.List = slices.Clone(c.List)
		for i := range c.List {
			c.List[i].Version -= f.start()
		}
		c.Upto -= f.start()
		return c, err
	}
}
