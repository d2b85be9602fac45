package storetest_test

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/isr-go/isr/store"
	"github.com/isr-go/isr/store/memory"
	"github.com/isr-go/isr/store/storetest"
)

const maxBytes = 100 << 10

// An engine is the memory store with all the faults that a real one can have, and
// does as a store should in each.
type engine struct {
	store.Store
	mu      sync.Mutex    // guards what follows
	paused  chan struct{} // closed by resume; nil: not paused
	damaged map[string]bool
	born    time.Time
}

func newEngine() *engine {
	return &engine{Store: memory.New(), damaged: make(map[string]bool), born: time.Now()}
}

// start returns the version that the engine began with.
func (e *engine) start() store.Version {
	e.mu.Lock()
	defer e.mu.Unlock()
	return store.Version(e.born.UnixMicro())
}

// config is what the suite may do to the engine, by two handles on it.
func (e *engine) config(handles [2]store.Store) storetest.Config {
	return storetest.Config{
		Stores:   handles,
		MaxBytes: maxBytes,
		Wipe:     e.wipe,
		Pause:    e.pause,
		Reopen:   func() [2]store.Store { return handles },
		Corrupt: func(key string) {
			e.mu.Lock()
			defer e.mu.Unlock()
			e.damaged[key] = true
		},
	}
}

func (e *engine) wipe() {
	time.Sleep(time.Millisecond) // in the bubble no time has passed since the last one
	e.mu.Lock()
	defer e.mu.Unlock()
	e.Store, e.born = memory.New(), time.Now()
}

func (e *engine) pause() (resume func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	paused := make(chan struct{})
	e.paused = paused
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.paused = nil
		close(paused)
	}
}

// answer waits until the engine answers, and returns it.
func (e *engine) answer(ctx context.Context) (store.Store, error) {
	e.mu.Lock()
	s, paused := e.Store, e.paused
	e.mu.Unlock()
	if paused != nil {
		select {
		case <-paused:
		case <-ctx.Done():
			return s, ctx.Err()
		}
	}
	return s, nil
}

func (e *engine) Look(ctx context.Context, key string, have store.Ticket, ttl time.Duration) (*store.Record, store.Effect, store.Ticket, error) {
	s, err := e.answer(ctx)
	if err != nil {
		return nil, 0, store.Ticket{}, err
	}
	e.mu.Lock()
	damaged := e.damaged[key]
	e.mu.Unlock()
	if !damaged {
		return s.Look(ctx, key, have, ttl)
	}
	var t store.Ticket
	if ttl > 0 {
		t, err = storetest.Begin(ctx, s, key, ttl)
	}
	return nil, 0, t, cmp.Or(err, store.ErrNotFound)
}

// Get and Begin are the two halves of Look, for faulty stores.
func (e *engine) Get(ctx context.Context, key string) (*store.Record, store.Effect, error) {
	return storetest.Get(ctx, e, key)
}

func (e *engine) Begin(ctx context.Context, key string, ttl time.Duration) (store.Ticket, error) {
	return storetest.Begin(ctx, e, key, ttl)
}

func (e *engine) Put(ctx context.Context, key string, t store.Ticket, rec *store.Record) error {
	s, err := e.answer(ctx)
	if err != nil {
		return err
	}
	if len(rec.Data) > maxBytes {
		return errors.Join(store.ErrTooLarge, s.End(ctx, key, t))
	}
	if err := s.Put(ctx, key, t, rec); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.damaged, key)
	return nil
}

func (e *engine) End(ctx context.Context, key string, t store.Ticket) error {
	s, err := e.answer(ctx)
	if err != nil {
		return err
	}
	return s.End(ctx, key, t)
}

func (e *engine) Invalidate(ctx context.Context, effect store.Effect, tags ...string) (store.Version, error) {
	s, err := e.answer(ctx)
	if err != nil {
		return 0, err
	}
	return s.Invalidate(ctx, effect, tags...)
}

func (e *engine) Changes(ctx context.Context, after store.Version) (store.Changes, error) {
	s, err := e.answer(ctx)
	if err != nil {
		return store.Changes{}, err
	}
	return s.Changes(ctx, after)
}

// A faulty store is the engine with some of the methods replaced.
type faulty struct {
	*engine
	look       func(context.Context, string, store.Ticket, time.Duration) (*store.Record, store.Effect, store.Ticket, error)
	get        func(context.Context, string) (*store.Record, store.Effect, error)
	begin      func(context.Context, string, time.Duration) (store.Ticket, error)
	put        func(context.Context, string, store.Ticket, *store.Record) error
	end        func(context.Context, string, store.Ticket) error
	invalidate func(context.Context, store.Effect, ...string) (store.Version, error)
	changes    func(context.Context, store.Version) (store.Changes, error)
}

func (f *faulty) Look(ctx context.Context, key string, have store.Ticket, ttl time.Duration) (rec *store.Record, effect store.Effect, t store.Ticket, err error) {
	switch {
	case f.look != nil:
		return f.look(ctx, key, have, ttl)
	case f.get == nil && f.begin == nil:
		return f.engine.Look(ctx, key, have, ttl)
	case f.get != nil:
		rec, effect, err = f.get(ctx, key)
	default:
		rec, effect, err = f.engine.Get(ctx, key)
	}
	switch {
	case err != nil && !errors.Is(err, store.ErrNotFound), ttl == 0:
		return rec, effect, t, err
	case rec != nil && effect < store.Expired && rec.Ticket().Compare(have) > 0:
		return rec, effect, t, err
	}
	miss := err
	if f.begin != nil {
		t, err = f.begin(ctx, key, ttl)
	} else {
		t, err = f.engine.Begin(ctx, key, ttl)
	}
	return rec, effect, t, cmp.Or(err, miss)
}

func (f *faulty) Put(ctx context.Context, key string, t store.Ticket, rec *store.Record) error {
	if f.put != nil {
		return f.put(ctx, key, t, rec)
	}
	return f.engine.Put(ctx, key, t, rec)
}

func (f *faulty) End(ctx context.Context, key string, t store.Ticket) error {
	if f.end != nil {
		return f.end(ctx, key, t)
	}
	return f.engine.End(ctx, key, t)
}

func (f *faulty) Invalidate(ctx context.Context, effect store.Effect, tags ...string) (store.Version, error) {
	if f.invalidate != nil {
		return f.invalidate(ctx, effect, tags...)
	}
	return f.engine.Invalidate(ctx, effect, tags...)
}

func (f *faulty) Changes(ctx context.Context, after store.Version) (store.Changes, error) {
	if f.changes != nil {
		return f.changes(ctx, after)
	}
	return f.engine.Changes(ctx, after)
}

// A store that keeps the contract passes every test.
func TestSuitePassesASoundStore(t *testing.T) {
	storetest.RunInBubbles(t, func(*testing.T) storetest.Config {
		e := newEngine()
		return e.config([2]store.Store{e, e})
	})
}
