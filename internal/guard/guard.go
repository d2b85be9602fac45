// Package guard makes a store that may be down, slow or lying safe to call: its
// trouble costs the caller a bounded time, and soon none at all.
package guard

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/isr-go/isr/store"
)

// Deadlines of the calls. Visitors wait for Get and Begin; for Put and End nobody
// does, for Invalidate whoever purges.
const (
	lookUpTime     = 100 * time.Millisecond
	putTime        = 500 * time.Millisecond
	invalidateTime = 2 * time.Second
	changesTime    = 3 * time.Second // they take about one where there are none
)

// maxCalls is how many calls of one kind may be under way, those included whose
// deadline the store has not kept. The others wait for their turn until their own
// deadline.
const maxCalls = 256

// maxFailures is after how many failures in a row the store counts as down.
const maxFailures = 3

// A Guard stands before a store. While that is down every call fails at once with
// store.ErrUnavailable, until Follow has found contact again. A Guard is safe for
// concurrent use.
type Guard struct {
	store  store.Store
	failed func(error) // told of each failure but those while it is down

	lookUps, writes, invalidations chan struct{} // slots

	mu       sync.Mutex
	failures int       // in a row; guarded by mu, as all below
	down     bool      // whether the breaker is open
	since    time.Time // when that changed last
	hold     time.Duration
}

// New returns a Guard before s. It tells failed of each call that failed, until the
// store counts as down.
func New(s store.Store, failed func(error)) *Guard {
	return &Guard{
		store: s, failed: failed,
		lookUps:       make(chan struct{}, maxCalls),
		writes:        make(chan struct{}, maxCalls),
		invalidations: make(chan struct{}, maxCalls),
	}
}

// Down reports whether the store counts as down.
func (g *Guard) Down() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.down
}

// Get is that of the store. Visitors wait for it, so it has 100 ms.
func (g *Guard) Get(ctx context.Context, key string) (*store.Record, store.Effect, error) {
	type found struct {
		rec    *store.Record
		effect store.Effect
	}
	out, err := call(ctx, g, "get", g.lookUps, lookUpTime, func(ctx context.Context) (found, error) {
		rec, effect, err := g.store.Get(ctx, key)
		if err == nil && rec == nil {
			err = store.ErrNotFound // as it should have said
		}
		if err == nil && (effect < store.None || effect > store.Gone) {
			err = store.ErrNotFound
		}
		return found{rec, effect}, err
	}, nil)
	return out.rec, out.effect, err
}

// Begin is that of the store. Visitors wait for it, so it has 100 ms; a lease that
// comes later is given back.
func (g *Guard) Begin(ctx context.Context, key string, ttl time.Duration) (store.Ticket, error) {
	return call(ctx, g, "begin", g.lookUps, lookUpTime, func(ctx context.Context) (store.Ticket, error) {
		return g.store.Begin(ctx, key, ttl)
	}, func(t store.Ticket) {
		if t.Leader {
			g.End(context.WithoutCancel(ctx), key, t)
		}
	})
}

// Put is that of the store. It has 500 ms.
func (g *Guard) Put(ctx context.Context, key string, t store.Ticket, rec *store.Record) error {
	_, err := call(ctx, g, "put", g.writes, putTime, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, g.store.Put(ctx, key, t, rec)
	}, nil)
	return err
}

// End is that of the store. It has 500 ms.
func (g *Guard) End(ctx context.Context, key string, t store.Ticket) error {
	_, err := call(ctx, g, "end", g.writes, putTime, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, g.store.End(ctx, key, t)
	}, nil)
	return err
}

// Invalidate is that of the store. It has two seconds.
func (g *Guard) Invalidate(ctx context.Context, effect store.Effect, tags ...string) (store.Version, error) {
	return call(ctx, g, "invalidate", g.invalidations, invalidateTime, func(ctx context.Context) (store.Version, error) {
		return g.store.Invalidate(ctx, effect, tags...)
	}, nil)
}

// call calls the store on a goroutine of its own, and returns at the deadline
// whatever the store does. A result that comes later goes to late, if that is not
// nil.
func call[T any](ctx context.Context, g *Guard, op string, slots chan struct{}, limit time.Duration,
	f func(context.Context) (T, error), late func(T)) (out T, err error) {
	if g.Down() {
		return out, fmt.Errorf("%s: %w", op, store.ErrUnavailable)
	}
	return try(ctx, g, op, slots, limit, f, late)
}

// try is call, whether the store is down or not.
func try[T any](ctx context.Context, g *Guard, op string, slots chan struct{}, limit time.Duration,
	f func(context.Context) (T, error), late func(T)) (out T, err error) {
	within, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	select {
	case slots <- struct{}{}:
	case <-within.Done():
		return out, g.judge(ctx, op, within.Err())
	}
	type result struct {
		out T
		err error
	}
	done, gone := make(chan result), make(chan struct{})
	go func() {
		defer func() { <-slots }()
		var r result
		func() {
			defer func() {
				if v := recover(); v != nil {
					r.err = fmt.Errorf("the store panicked: %v", v)
				}
			}()
			if r.err = within.Err(); r.err == nil { // or it might reach a store that its owner has closed
				r.out, r.err = f(within)
			}
		}()
		select {
		case done <- r:
		case <-gone:
			if late != nil && r.err == nil {
				late(r.out)
			}
		}
	}()
	select {
	case r := <-done:
		return r.out, g.judge(ctx, op, r.err)
	case <-within.Done():
		close(gone)
		return out, g.judge(ctx, op, within.Err())
	}
}

// judge notes what came of a call, for the breaker, and returns its error.
func (g *Guard) judge(ctx context.Context, op string, err error) error {
	switch {
	case err == nil, errors.Is(err, store.ErrNotFound), errors.Is(err, store.ErrSuperseded), errors.Is(err, store.ErrTooLarge):
		g.mu.Lock()
		g.failures = 0
		g.mu.Unlock()
		return err
	case ctx.Err() != nil: // the caller's doing
		return fmt.Errorf("%s: %w", op, ctx.Err())
	}
	err = fmt.Errorf("%s: %w", op, err)
	g.mu.Lock()
	known := g.down
	if g.failures++; g.failures >= maxFailures && !known {
		g.open()
		err = fmt.Errorf("%w; going on without the Store until it answers again", err)
	}
	g.mu.Unlock()
	if !known {
		g.failed(err)
	}
	return err
}

// Whoever is soon down again after he was back is trusted later each time.
const (
	relapse = 10 * time.Second
	maxHold = 30 * time.Second
)

// open opens the breaker. It is called under g.mu.
func (g *Guard) open() {
	now := time.Now()
	if !g.since.IsZero() && now.Sub(g.since) < relapse {
		g.hold = min(maxHold, max(time.Second, 2*g.hold))
	} else {
		g.hold = 0
	}
	g.down, g.since = true, now
}

// Pauses of Follow.
const (
	minPause = 100 * time.Millisecond // after a failure; doubled with each
	maxPause = time.Second
	breath   = 20 * time.Millisecond // of a store that answers at once, and says nothing new
)

// Follow tells apply of what is invalidated in the store, from the beginning of
// its history, until ctx is done. Where the store was down, it tells restored when
// calls go through to it again: who was refused before that is then known to have
// been. It calls contact after each sign of life.
func (g *Guard) Follow(ctx context.Context, apply func(store.Changes), restored, contact func()) {
	var cursor store.Version
	pause := minPause
	slots := make(chan struct{}, 2) // one that hangs does not keep the next from trying
	for ctx.Err() == nil {
		begin := time.Now()
		c, err := try(ctx, g, "changes", slots, changesTime, func(ctx context.Context) (store.Changes, error) {
			return g.store.Changes(ctx, cursor)
		}, nil)
		if err != nil {
			sleep(ctx, pause)
			pause = min(2*pause, maxPause)
			continue
		}
		pause = minPause
		for i := range c.List {
			if e := &c.List[i].Effect; *e <= store.None || *e > store.Gone {
				*e = store.Gone
			}
		}
		apply(c)
		moved := c.Upto > cursor
		if moved || c.Reset {
			cursor = c.Upto
		}
		if g.mayClose() {
			g.close()
			restored()
		}
		contact()
		if !moved && time.Since(begin) < breath {
			sleep(ctx, breath)
		}
	}
}

func (g *Guard) mayClose() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.down && time.Since(g.since) >= g.hold
}

func (g *Guard) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.down, g.failures, g.since = false, 0, time.Now()
}

// sleep sleeps, until ctx is done.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
