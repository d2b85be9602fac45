package storetest_test

import (
	"context"
	"errors"
	"math"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/isr-go/isr/store"
	"github.com/isr-go/isr/store/storetest"
)

// broken are stores as one might write them, or as a fault makes them, and those of
// the tests that have to find out.
var broken = []struct {
	name   string
	caught []string
	breaks func(*faulty, *storetest.Config)
}{
	// The order.
	{"stamp at Put", []string{"StaleOnArrival", "NewerWins", "RoundTrip", "Concurrent"}, func(f *faulty, _ *storetest.Config) {
		f.put = func(ctx context.Context, key string, t store.Ticket, rec *store.Record) error {
			now, err := f.engine.Begin(ctx, key, 0)
			if err == nil {
				err = f.engine.Put(ctx, key, now, rec)
			}
			return errors.Join(err, f.engine.End(ctx, key, t))
		}
	}},
	{"last write wins", []string{"NewerWins", "AfterGone", "Concurrent"}, lastWriteWins},
	{"the record's own version", []string{"RoundTrip", "NewerWins"}, func(f *faulty, _ *storetest.Config) {
		var own sync.Map
		f.put = func(ctx context.Context, key string, t store.Ticket, rec *store.Record) error {
			own.Store(key, *rec)
			return f.engine.Put(ctx, key, t, rec)
		}
		f.get = func(ctx context.Context, key string) (*store.Record, store.Effect, error) {
			rec, effect, err := f.engine.Get(ctx, key)
			if put, ok := own.Load(key); ok && err == nil {
				rec.Version, rec.Fence = put.(store.Record).Version, put.(store.Record).Fence
			}
			return rec, effect, err
		}
	}},
	{"tickets are alike", []string{"Order", "NewerWins", "LeaseEnds"}, ticketed(func(t *store.Ticket) { t.Fence = 1 })},
	{"tickets are too new", []string{"Order"}, ticketed(func(t *store.Ticket) { t.Version++ })},
	{"tickets are too old", []string{"Order", "Effects"}, ticketed(func(t *store.Ticket) { t.Version-- })},
	{"a ticket has no version", []string{"Order", "RoundTrip"}, ticketed(func(t *store.Ticket) { t.Version = 0 })},

	// The effects.
	{"gone is expired", []string{"Effects", "StaleOnArrival", "Changes"}, weaker(store.Gone)},
	{"expired is stale", []string{"Effects", "StaleOnArrival", "Concurrent"}, weaker(store.Expired)},
	{"delete by key", []string{"StaleOnArrival", "Concurrent"}, deleteByKey},
	{"the last effect counts", []string{"Effects", "StaleOnArrival", "Concurrent"}, judged(func(rec *store.Record, all []store.Change) (effect store.Effect) {
		for _, c := range all {
			if c.Version > rec.Version && slices.Contains(rec.Tags, c.Tag) {
				effect = c.Effect
			}
		}
		return effect
	})},
	{"the strongest effect ever", []string{"Effects", "StaleOnArrival"}, judged(func(rec *store.Record, all []store.Change) (effect store.Effect) {
		if rule(rec, all, same) == store.None {
			return store.None
		}
		return rule(&store.Record{Tags: rec.Tags}, all, same)
	})},
	{"the first tag counts", []string{"Effects"}, judged(func(rec *store.Record, all []store.Change) store.Effect {
		return rule(&store.Record{Version: rec.Version, Tags: rec.Tags[:min(len(rec.Tags), 1)]}, all, same)
	})},
	{"tags by prefix", []string{"OtherTags"}, judgedBy(strings.HasPrefix)},
	{"tags by pattern", []string{"OtherTags"}, judgedBy(func(tag, pattern string) bool {
		match, err := path.Match(pattern, tag)
		return tag == pattern || err == nil && match
	})},
	{"tags without case", []string{"OtherTags"}, judgedBy(strings.EqualFold)},
	{"tags as C strings", []string{"OtherTags"}, judgedBy(func(a, b string) bool { return untilNUL(a) == untilNUL(b) })},
	{"tags trimmed", []string{"OtherTags"}, judgedBy(func(a, b string) bool { return strings.TrimSpace(a) == strings.TrimSpace(b) })},
	{"every tag", []string{"OtherTags"}, judgedBy(func(a, b string) bool { return true })},
	{"whatever the version", []string{"Effects", "StaleOnArrival", "AfterGone"}, judged(func(rec *store.Record, all []store.Change) store.Effect {
		return rule(&store.Record{Tags: rec.Tags}, all, same)
	})},
	{"handles that keep what they read", []string{"Effects", "Concurrent"}, func(f *faulty, c *storetest.Config) {
		other := &faulty{engine: f.engine}
		keepReads(f)
		keepReads(other)
		c.Stores[1] = other
	}},
	{"the last invalidation is still to come", []string{"Effects", "StaleOnArrival", "Concurrent"}, judged(func(rec *store.Record, all []store.Change) store.Effect {
		return rule(rec, slices.DeleteFunc(slices.Clone(all), func(c store.Change) bool { return c.Version == all[len(all)-1].Version }), same)
	})},
	{"a version for each tag", []string{"ManyTags", "Aliasing"}, func(f *faulty, _ *storetest.Config) {
		f.invalidate = func(ctx context.Context, effect store.Effect, tags ...string) (last store.Version, err error) {
			for _, tag := range tags {
				v, e := f.engine.Invalidate(ctx, effect, tag)
				last, err = v, errors.Join(err, e)
			}
			return last, err
		}
	}},
	{"many tags are cut", []string{"ManyTags"}, func(f *faulty, _ *storetest.Config) {
		f.invalidate = func(ctx context.Context, effect store.Effect, tags ...string) (store.Version, error) {
			return f.engine.Invalidate(ctx, effect, tags[:min(len(tags), 1000)]...)
		}
	}},

	{"no tags, no version", []string{"NoTags"}, func(f *faulty, _ *storetest.Config) {
		f.invalidate = func(ctx context.Context, effect store.Effect, tags ...string) (store.Version, error) {
			if len(tags) == 0 {
				now, err := f.engine.Begin(ctx, "no tags", 0)
				return now.Version + 1, err
			}
			return f.engine.Invalidate(ctx, effect, tags...)
		}
	}},
	{"unknown effects are None", []string{"UnknownEffects"}, func(f *faulty, _ *storetest.Config) {
		f.invalidate = func(ctx context.Context, effect store.Effect, tags ...string) (store.Version, error) {
			if !slices.Contains([]store.Effect{store.Stale, store.Expired, store.Gone}, effect) {
				now, err := f.engine.Begin(ctx, "unknown effect", 0)
				return now.Version, err
			}
			return f.engine.Invalidate(ctx, effect, tags...)
		}
	}},

	// The records.
	{"the same twice is superseded", []string{"NewerWins"}, func(f *faulty, _ *storetest.Config) {
		var last sync.Map
		f.put = func(ctx context.Context, key string, t store.Ticket, rec *store.Record) error {
			if old, ok := last.Swap(key, t); ok && t.Compare(old.(store.Ticket)) == 0 {
				return store.ErrSuperseded
			}
			return f.engine.Put(ctx, key, t, rec)
		}
	}},
	{"keys are paths", []string{"RoundTrip"}, keyed(path.Clean)},
	{"keys are C strings", []string{"RoundTrip"}, keyed(untilNUL)},
	{"keys are cut", []string{"RoundTrip"}, keyed(func(key string) string { return key[:min(len(key), 255)] })},
	{"keys are UTF-8", []string{"RoundTrip"}, keyed(func(key string) string { return strings.ToValidUTF8(key, "\x00") })},
	{"keys without case", []string{"RoundTrip"}, keyed(strings.ToLower)},
	{"tags are trimmed", []string{"RoundTrip"}, recorded(func(rec *store.Record) {
		for i, tag := range rec.Tags {
			rec.Tags[i] = strings.TrimSpace(tag)
		}
	})},
	{"128 tags", []string{"RoundTrip"}, recorded(func(rec *store.Record) { rec.Tags = rec.Tags[:min(len(rec.Tags), 128)] })},
	{"data is text", []string{"RoundTrip"}, recorded(func(rec *store.Record) { rec.Data = []byte(strings.ToValidUTF8(string(rec.Data), "?")) })},
	{"no TTL", []string{"TTL", "RoundTrip"}, recorded(func(rec *store.Record) { rec.TTL = 0 })},
	{"zero TTL ends at once", []string{"TTL"}, func(f *faulty, _ *storetest.Config) {
		recorded(func(rec *store.Record) { rec.TTL = max(rec.TTL, time.Nanosecond) })(f, nil)
		get := f.engine.Get
		f.get = func(ctx context.Context, key string) (*store.Record, store.Effect, error) {
			rec, effect, err := get(ctx, key)
			if err == nil && rec.TTL == time.Nanosecond {
				rec.TTL = 0
			}
			return rec, effect, err
		}
	}},
	{"the first TTL", []string{"TTL"}, firstTTL},
	{"another error for a miss", []string{"RoundTrip", "TTL"}, missIs(errors.New("nil"))},
	{"no error for a miss", []string{"RoundTrip"}, missIs(nil)},
	{"keeps what it is given", []string{"Aliasing"}, func(f *faulty, _ *storetest.Config) {
		var given sync.Map
		f.put = func(ctx context.Context, key string, t store.Ticket, rec *store.Record) error {
			given.Store(key, rec.Data)
			return f.engine.Put(ctx, key, t, rec)
		}
		f.get = func(ctx context.Context, key string) (*store.Record, store.Effect, error) {
			rec, effect, err := f.engine.Get(ctx, key)
			if data, ok := given.Load(key); ok && err == nil {
				rec.Data = slices.Clone(data.([]byte))
			}
			return rec, effect, err
		}
	}},
	{"returns what it keeps", []string{"Aliasing"}, func(f *faulty, _ *storetest.Config) {
		var kept sync.Map
		f.get = func(ctx context.Context, key string) (*store.Record, store.Effect, error) {
			rec, effect, err := f.engine.Get(ctx, key)
			if err == nil {
				id := [2]any{key, rec.Fence}
				old, _ := kept.LoadOrStore(id, rec)
				rec = old.(*store.Record)
			}
			return rec, effect, err
		}
	}},
	{"changes what it is given", []string{"Aliasing"}, func(f *faulty, _ *storetest.Config) {
		f.put = func(ctx context.Context, key string, t store.Ticket, rec *store.Record) error {
			rec.Version, rec.Fence = t.Version, t.Fence
			return f.engine.Put(ctx, key, t, rec)
		}
	}},
	{"a lower limit", []string{"TooLarge"}, func(f *faulty, c *storetest.Config) { c.MaxBytes++ }},
	{"no limit", []string{"TooLarge"}, func(f *faulty, c *storetest.Config) { c.MaxBytes /= 4 }},
	{"too large is lost", []string{"TooLarge"}, func(f *faulty, _ *storetest.Config) {
		f.put = func(ctx context.Context, key string, t store.Ticket, rec *store.Record) error {
			err := f.engine.Put(ctx, key, t, rec)
			if errors.Is(err, store.ErrTooLarge) {
				return errors.Join(err, f.engine.Put(ctx, key, t, &store.Record{}))
			}
			return err
		}
	}},
	{"too large keeps the lease", []string{"TooLarge"}, func(f *faulty, _ *storetest.Config) {
		f.put = func(ctx context.Context, key string, t store.Ticket, rec *store.Record) error {
			if len(rec.Data) > maxBytes {
				return store.ErrTooLarge
			}
			return f.engine.Put(ctx, key, t, rec)
		}
	}},
	{"damaged is an error", []string{"Corrupt"}, func(f *faulty, c *storetest.Config) {
		f.get = func(ctx context.Context, key string) (*store.Record, store.Effect, error) {
			f.mu.Lock()
			damaged := f.damaged[key]
			f.mu.Unlock()
			if damaged {
				return nil, 0, errors.New("unexpected EOF")
			}
			return f.engine.Get(ctx, key)
		}
	}},
	{"damaged is shown", []string{"Corrupt"}, func(f *faulty, c *storetest.Config) { c.Corrupt = func(string) {} }},
	{"damaged for ever", []string{"Corrupt"}, func(f *faulty, c *storetest.Config) {
		damaged := make(map[string]bool)
		damage := c.Corrupt
		c.Corrupt = func(key string) {
			damaged[key] = true
			damage(key)
		}
		f.put = func(ctx context.Context, key string, t store.Ticket, rec *store.Record) error {
			err := f.engine.Put(ctx, key, t, rec)
			if damaged[key] {
				damage(key)
			}
			return err
		}
	}},

	// The leases.
	{"no lease", []string{"Lease", "ForeignEnd", "LeaseEnds", "PutEndsLease"}, ticketed(func(t *store.Ticket) { t.Leader = true })},
	{"no leader", []string{"Lease", "ForeignEnd", "LeaseEnds", "PutEndsLease"}, ticketed(func(t *store.Ticket) { t.Leader = false })},
	{"one lease for all keys", []string{"ForeignEnd", "LeaseEnds"}, leased("one")},
	{"the lease does not end", []string{"LeaseEnds"}, func(f *faulty, _ *storetest.Config) {
		f.begin = func(ctx context.Context, key string, _ time.Duration) (store.Ticket, error) {
			return f.engine.Begin(ctx, key, time.Hour)
		}
	}},
	{"who follows prolongs the lease", []string{"LeaseEnds"}, leased("prolong")},
	{"anybody ends the lease", []string{"ForeignEnd", "LeaseEnds"}, leased("end")},
	{"a late End ends the next lease", []string{"LeaseEnds"}, leased("late")},
	{"its own handle alone ends a lease", []string{"ForeignEnd"}, func(f *faulty, c *storetest.Config) {
		c.Stores[1] = &faulty{engine: f.engine, end: func(context.Context, string, store.Ticket) error { return nil }}
	}},
	{"Put keeps the lease", []string{"PutEndsLease"}, func(f *faulty, _ *storetest.Config) {
		f.put = func(ctx context.Context, key string, t store.Ticket, rec *store.Record) error {
			t.Leader = false
			return f.engine.Put(ctx, key, t, rec)
		}
	}},
	{"a superseded Put keeps the lease", []string{"PutEndsLease"}, func(f *faulty, _ *storetest.Config) {
		f.put = func(ctx context.Context, key string, t store.Ticket, rec *store.Record) error {
			leader := t
			t.Leader = false
			err := f.engine.Put(ctx, key, t, rec)
			if err == nil {
				err = f.engine.End(ctx, key, leader)
			}
			return err
		}
	}},

	{"a ticket for everybody", []string{"Look"}, func(f *faulty, _ *storetest.Config) {
		f.look = func(ctx context.Context, key string, _ store.Ticket, ttl time.Duration) (*store.Record, store.Effect, store.Ticket, error) {
			return f.engine.Look(ctx, key, store.Ticket{Version: math.MaxUint64}, ttl)
		}
	}},
	{"a ticket for those who only look", []string{"Look"}, func(f *faulty, _ *storetest.Config) {
		f.look = func(ctx context.Context, key string, have store.Ticket, ttl time.Duration) (*store.Record, store.Effect, store.Ticket, error) {
			return f.engine.Look(ctx, key, have, max(ttl, 1))
		}
	}},
	{"whatever the caller has", []string{"Look"}, func(f *faulty, _ *storetest.Config) {
		f.look = func(ctx context.Context, key string, _ store.Ticket, ttl time.Duration) (*store.Record, store.Effect, store.Ticket, error) {
			return f.engine.Look(ctx, key, store.Ticket{}, ttl)
		}
	}},
	{"no record beside a ticket", []string{"Look"}, func(f *faulty, _ *storetest.Config) {
		f.look = func(ctx context.Context, key string, have store.Ticket, ttl time.Duration) (*store.Record, store.Effect, store.Ticket, error) {
			rec, effect, t, err := f.engine.Look(ctx, key, have, ttl)
			if t != (store.Ticket{}) {
				rec, effect, err = nil, store.None, store.ErrNotFound
			}
			return rec, effect, t, err
		}
	}},
	{"looks first, and leads later", []string{"Once"}, func(f *faulty, _ *storetest.Config) {
		f.begin = func(ctx context.Context, key string, ttl time.Duration) (store.Ticket, error) {
			runtime.Gosched()
			time.Sleep(time.Millisecond)
			return f.engine.Begin(ctx, key, ttl)
		}
	}},

	// The changes.
	{"lossy changes", []string{"Changes", "Replay", "ManyTags"}, followed(func(_ store.Version, c *store.Changes) {
		if len(c.List) > 1 {
			c.List = c.List[:len(c.List)-1]
		}
	})},
	{"changes since now", []string{"Changes", "Replay", "Heartbeat"}, func(f *faulty, _ *storetest.Config) {
		f.changes = func(ctx context.Context, after store.Version) (store.Changes, error) {
			now, err := f.engine.Begin(ctx, "changes", 0)
			if err != nil || after > now.Version {
				return store.Changes{Upto: now.Version, Reset: err == nil}, err
			}
			return f.engine.Changes(ctx, now.Version)
		}
	}},
	{"changes without order", []string{"Changes", "Replay"}, followed(func(_ store.Version, c *store.Changes) { slices.Reverse(c.List) })},
	{"changes without effect", []string{"Replay", "ManyTags"}, followed(func(_ store.Version, c *store.Changes) {
		for i := range c.List {
			c.List[i].Effect = store.Stale
		}
	})},
	{"changes again and again", []string{"Replay", "Heartbeat"}, func(f *faulty, _ *storetest.Config) {
		f.changes = func(ctx context.Context, after store.Version) (store.Changes, error) {
			return f.engine.Changes(ctx, after-1)
		}
	}},
	{"changes that go on from nowhere", []string{"Replay", "Changes"}, followed(func(after store.Version, c *store.Changes) { c.Upto = after })},
	{"changes that go on too far", []string{"Heartbeat"}, followed(func(after store.Version, c *store.Changes) { c.Upto++ })},
	{"always Reset", []string{"Changes", "Replay", "Heartbeat"}, followed(func(_ store.Version, c *store.Changes) { c.Reset = true })},
	{"never Reset", []string{"UnknownCursor", "Wipe"}, followed(func(after store.Version, c *store.Changes) {
		c.Reset, c.Upto = false, max(after, c.Upto)
	})},
	{"one name for all histories", []string{"History"}, followed(func(_ store.Version, c *store.Changes) { c.History = "one" })},
	{"changes that take their second", []string{"AtOnce"}, followed(func(store.Version, *store.Changes) { time.Sleep(time.Second) })},
	{"no heartbeat", []string{"Heartbeat"}, func(f *faulty, _ *storetest.Config) {
		f.changes = func(ctx context.Context, after store.Version) (store.Changes, error) {
			for {
				c, err := f.engine.Changes(ctx, after)
				if err != nil || c.Reset || len(c.List) > 0 {
					return c, err
				}
			}
		}
	}},

	// The faults of the engine.
	{"no context", []string{"Context", "Pause"}, noContext(true)},
	{"no context while it waits", []string{"Context", "Pause"}, noContext(false)},
	{"a miss on a hung engine", []string{"Pause"}, func(f *faulty, _ *storetest.Config) {
		f.get = func(ctx context.Context, key string) (*store.Record, store.Effect, error) {
			overdue := ctx.Err() != nil
			rec, effect, err := f.engine.Get(ctx, key)
			if err != nil && !overdue {
				err = store.ErrNotFound
			}
			return rec, effect, err
		}
	}},
	{"does not come back", []string{"Pause"}, func(f *faulty, c *storetest.Config) {
		pause := c.Pause
		c.Pause = func() func() {
			pause()
			return func() {}
		}
	}},
	{"versions go back", []string{"Wipe"}, countsFromOne},
	{"late Put after a wipe", []string{"Wipe"}, func(f *faulty, _ *storetest.Config) {
		f.put = func(ctx context.Context, key string, t store.Ticket, rec *store.Record) error {
			t.Version = max(t.Version, f.start())
			return f.engine.Put(ctx, key, t, rec)
		}
	}},
	{"forgets invalidations", []string{"Durable"}, func(f *faulty, c *storetest.Config) {
		c.Reopen = func() [2]store.Store {
			f.get = func(ctx context.Context, key string) (*store.Record, store.Effect, error) {
				rec, effect, err := f.engine.Get(ctx, key)
				return rec, min(effect, store.Stale), err
			}
			return c.Stores
		}
	}},
	{"forgets everything", []string{"Durable"}, func(f *faulty, c *storetest.Config) {
		c.Reopen = func() [2]store.Store {
			f.wipe()
			return c.Stores
		}
	}},
	{"forgets the oldest tags", []string{"Trimmed"}, limited(func(rec *store.Record, forgotten []store.Change) store.Effect { return store.None })},
	{"what is forgotten is but stale", []string{"Trimmed"}, limited(func(rec *store.Record, forgotten []store.Change) store.Effect {
		return min(rule(rec, forgotten, same), store.Stale)
	})},
	{"all that is older than what is forgotten", []string{"Trimmed"}, limited(func(rec *store.Record, forgotten []store.Change) store.Effect {
		if len(forgotten) > 0 && forgotten[len(forgotten)-1].Version > rec.Version {
			return store.Gone
		}
		return store.None
	})},
	{"torn reads", []string{"Concurrent"}, func(f *faulty, _ *storetest.Config) {
		var last sync.Map
		f.put = func(ctx context.Context, key string, t store.Ticket, rec *store.Record) error {
			err := f.engine.Put(ctx, key, t, rec)
			if err == nil && len(rec.Data) > 100 {
				last.Store(key, slices.Clone(rec.Data))
			}
			return err
		}
		f.get = func(ctx context.Context, key string) (*store.Record, store.Effect, error) {
			rec, effect, err := f.engine.Get(ctx, key)
			runtime.Gosched()
			if data, ok := last.Load(key); ok && err == nil {
				copy(rec.Data[len(rec.Data)/2:], data.([]byte)[min(len(data.([]byte)), len(rec.Data)/2):])
			}
			return rec, effect, err
		}
	}},
	{"read before it is judged", []string{"Concurrent"}, func(f *faulty, _ *storetest.Config) {
		f.get = func(ctx context.Context, key string) (*store.Record, store.Effect, error) {
			rec, _, err := f.engine.Get(ctx, key)
			if err != nil {
				return nil, 0, err
			}
			for range 10 {
				runtime.Gosched()
			}
			_, effect, err := f.engine.Get(ctx, key)
			return rec, effect, err
		}
	}},
	{"leads who looks", []string{"Lease"}, func(f *faulty, _ *storetest.Config) {
		var held sync.Map
		f.begin = func(ctx context.Context, key string, ttl time.Duration) (store.Ticket, error) {
			_, ok := held.Load(key)
			runtime.Gosched()
			t, err := f.engine.Begin(ctx, key, ttl)
			held.Store(key, true)
			t.Leader = !ok
			return t, err
		}
	}},
}
