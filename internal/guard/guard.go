// Package guard makes it safe to call a store that may be down, slow or faulty: its
// failures cost the caller a bounded time, and soon none at all (a circuit breaker).
package guard

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/isr-go/isr/store"
)

// Deadlines of the calls. Visitors wait for Look, an editor for Invalidate; nothing waits
// for Put and End.
const (
	lookTime       = 100 * time.Millisecond // where the store does not say otherwise
	putTime        = 500 * time.Millisecond
	invalidateTime = 2 * time.Second
	changesTime    = 3 * time.Second // they take about one where there are none
)

// maxCalls is how many calls of one kind may be under way, those included that outlive
// their deadline. The others queue until their own deadline.
const maxCalls = 256

// maxTags is how many tags are invalidated at a time: an engine that does one thing at a
// time should not be kept from look-ups by a list of a million.
const maxTags = 2000

// maxFailures is after how many failures in a row the store counts as down.
const maxFailures = 3

// crowd is how many calls at a time may have to wait for each other in the store: an adapter
// has slots, connections or a lock of its own, and the program has but so many processors.
// While there is one, the store works as long as it answers anything within crowdTime.
const (
	crowd     = 16
	crowdTime = putTime
)

// errBusy says that a call has waited for a slot for as long as it had, or had but a rest
// of its time when it got one, or that it was late in a crowd of which the store answers
// others: too many are under way. That is no failure of the store; those that have
// the slots say whether it fails. It is an ErrUnavailable.
var errBusy = fmt.Errorf("%w: too many calls at a time", store.ErrUnavailable)

// A Guard stands before a store. While that is down every call fails at once with
// store.ErrUnavailable, until Follow has reached it again. Invalidations have a breaker of
// their own: look-ups and writes are many, and may be more than the store can do in time.
// A Guard is safe for concurrent use.
type Guard struct {
	store    store.Store
	lookTime time.Duration
	failed   func(error) // called for each failure but those while it is down

	pages, tags                           breaker
	looks, writes, invalidations, changes lane

	made   time.Time
	leases leases
}

// A lane holds the calls of one kind.
type lane struct {
	breaker *breaker
	slots   chan struct{}
	overdue atomic.Int64 // how many have a slot that outlive their deadline
	success atomic.Int64 // when the store did last what it should, in ns since Guard.made, plus one; zero: never
	said    atomic.Bool  // whether a failure was reported since then
}

func (l *lane) init(b *breaker, calls int) { l.breaker, l.slots = b, make(chan struct{}, calls) }

// New returns a Guard before s. It calls failed for each call that failed, until the store
// counts as down.
func New(s store.Store, failed func(error)) *Guard {
	g := &Guard{store: s, lookTime: lookTime, failed: failed, made: time.Now()}
	if s, ok := s.(store.LookTimeouter); ok {
		g.lookTime = cmp.Or(s.LookTimeout(), lookTime)
	}
	g.looks.init(&g.pages, maxCalls)
	g.writes.init(&g.pages, maxCalls)
	g.invalidations.init(&g.tags, maxCalls)
	g.changes.init(&g.pages, 2) // one that hangs does not keep the next from trying
	return g
}

// Down reports whether the store counts as down for all but invalidations.
func (g *Guard) Down() bool { return g.pages.isOpen() }

// A Found is what Look returns: a record, or none, and what was said beside it.
type Found struct {
	Record *store.Record // nil: there is none that could be shown
	Effect store.Effect
	Ticket store.Ticket
}

// Look is that of the store, but that to find nothing is no error. Visitors wait for it, so
// it has 100 ms, or as long as the store says; a lease that comes later is given back.
func (g *Guard) Look(ctx context.Context, key string, have store.Ticket, ttl time.Duration) (Found, error) {
	return call(ctx, g, "look", &g.looks, g.lookTime, func(ctx context.Context) (f Found, err error) {
		f.Record, f.Effect, f.Ticket, err = g.store.Look(ctx, key, have, ttl)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return Found{}, err
		}
		if err != nil || f.Record == nil || f.Effect < store.None || f.Effect > store.Gone {
			f.Record, f.Effect = nil, store.None // as the contract demands
		}
		return f, nil
	}, func(f Found) {
		if f.Ticket.Leader {
			g.End(context.WithoutCancel(ctx), key, f.Ticket)
		}
	})
}

// Put is that of the store. It has 500 ms. The record is made when there is a slot for the
// call. Done is called once, when nothing holds the record any longer, which may be later
// than Put returns.
func (g *Guard) Put(ctx context.Context, key string, t store.Ticket, record func() *store.Record, done func()) error {
	var taken atomic.Bool // by who calls done
	_, err := call(ctx, g, "put", &g.writes, putTime, func(ctx context.Context) (struct{}, error) {
		if !taken.CompareAndSwap(false, true) {
			return struct{}{}, ctx.Err() // Put has returned just now
		}
		defer done()
		return struct{}{}, g.store.Put(ctx, key, t, record())
	}, nil)
	if taken.CompareAndSwap(false, true) {
		done()
	}
	return err
}

// End is that of the store. It has 500 ms. A lease that cannot be given back now is given
// back when the store answers again, so that nobody waits for it any longer.
func (g *Guard) End(ctx context.Context, key string, t store.Ticket) error {
	err := g.end(ctx, key, t)
	if err != nil && t.Leader {
		g.leases.add(lease{key, t, time.Now()})
	}
	return err
}

func (g *Guard) end(ctx context.Context, key string, t store.Ticket) error {
	_, err := call(ctx, g, "end", &g.writes, putTime, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, g.store.End(ctx, key, t)
	}, nil)
	return err
}

// Bounds of what is to be given back: leases are over by themselves, most of them after
// seconds.
const (
	maxLeases   = 256
	maxLeaseAge = 30 * time.Second
)

// leases are those that could not be given back.
type leases struct {
	mu   sync.Mutex // guards list; held alone
	list []lease
}

type lease struct {
	key    string
	ticket store.Ticket
	since  time.Time
}

// add adds some, as far as there is room for them.
func (l *leases) add(list ...lease) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, list[:min(len(list), maxLeases-len(l.list))]...)
}

// take returns those that are not over, and forgets all.
func (l *leases) take() []lease {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := slices.DeleteFunc(l.list, func(l lease) bool { return time.Since(l.since) > maxLeaseAge })
	l.list = nil
	return list
}

// giveBack gives back the leases that could not be given back before, one after the other.
// Where that fails, the rest waits for the next time.
func (g *Guard) giveBack(ctx context.Context, list []lease) {
	for i, l := range list {
		if g.end(ctx, l.key, l.ticket) != nil {
			g.leases.add(list[i:]...)
			return
		}
	}
}

// Invalidate is that of the store, in calls of at most 2,000 tags. Each has two seconds.
// Where one fails, those before it hold.
func (g *Guard) Invalidate(ctx context.Context, effect store.Effect, tags ...string) (v store.Version, err error) {
	for {
		some := tags[:min(len(tags), maxTags)]
		tags = tags[len(some):]
		v, err = call(ctx, g, "invalidate", &g.invalidations, invalidateTime, func(ctx context.Context) (store.Version, error) {
			return g.store.Invalidate(ctx, effect, some...)
		}, nil)
		if err != nil || len(tags) == 0 {
			return v, err
		}
	}
}

// call calls the store on a goroutine of its own, and returns at the deadline at the
// latest. A result that comes later goes to late, if that is not nil.
func call[T any](ctx context.Context, g *Guard, op string, l *lane, limit time.Duration,
	f func(context.Context) (T, error), late func(T)) (out T, err error) {
	if l.breaker.isOpen() {
		return out, fmt.Errorf("%s: %w", op, store.ErrUnavailable)
	}
	return try(ctx, g, op, l, limit, f, late)
}

// try is call, whether the store is down or not.
func try[T any](ctx context.Context, g *Guard, op string, l *lane, limit time.Duration,
	f func(context.Context) (T, error), late func(T)) (out T, err error) {
	within, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	waited := false
	select {
	case l.slots <- struct{}{}:
	default:
		waited = true
		if l.overdue.Load() >= int64(cap(l.slots)) { // all of them hang: it would wait in vain
			if !g.answers(l) && !l.said.Swap(true) { // they have begun in a crowd
				g.failed(fmt.Errorf("%s: %w: all calls hang", op, store.ErrUnavailable))
			}
			return out, g.record(ctx, l, op, errBusy)
		}
		select {
		case l.slots <- struct{}{}:
		case <-within.Done():
			return out, g.record(ctx, l, op, errBusy)
		}
	}
	many := g.underWay()
	type result struct {
		out T
		err error
	}
	done, gone := make(chan result), make(chan struct{})
	go func() {
		defer func() { <-l.slots }()
		var r result
		func() {
			defer func() {
				if v := recover(); v != nil {
					r.err = fmt.Errorf("the store panicked: %v", v)
				}
			}()
			if r.err = within.Err(); r.err == nil { // else it may reach a store that its owner has closed
				r.out, r.err = f(within)
			}
		}()
		select {
		case done <- r:
		case <-gone:
			l.overdue.Add(-1)
			if late != nil && r.err == nil {
				late(r.out)
			}
		}
	}()
	select {
	case r := <-done:
		out, err = r.out, r.err
	case <-within.Done():
		l.overdue.Add(1)
		close(gone)
		err = within.Err()
	}
	if within.Err() != nil && errors.Is(err, within.Err()) {
		if waited || max(many, g.underWay()) >= crowd && g.answers(l) { // the store had but a part of the time for it
			err = errBusy
		}
	}
	return out, g.record(ctx, l, op, err)
}

// underWay returns how many calls there are, but for Changes.
func (g *Guard) underWay() int {
	return len(g.looks.slots) + len(g.writes.slots) + len(g.invalidations.slots)
}

// answers reports whether the store has done lately what it should, of one kind, or of what
// may go first.
func (g *Guard) answers(l *lane) bool {
	last := max(l.success.Load(), g.invalidations.success.Load())
	return last > 0 && time.Since(g.made)-time.Duration(last-1) < crowdTime
}

// record notes the outcome of a call in the breaker, and returns its error.
func (g *Guard) record(ctx context.Context, l *lane, op string, err error) error {
	b := l.breaker
	switch {
	case err == nil, errors.Is(err, store.ErrNotFound), errors.Is(err, store.ErrSuperseded), errors.Is(err, store.ErrTooLarge):
		l.success.Store(int64(time.Since(g.made)) + 1)
		l.said.Store(false)
		b.succeed()
		return err
	case ctx.Err() != nil: // the caller has cancelled it
		return fmt.Errorf("%s: %w", op, ctx.Err())
	case errors.Is(err, errBusy):
		return fmt.Errorf("%s: %w", op, err)
	}
	err = fmt.Errorf("%s: %w", op, err)
	was, is := b.fail()
	if is && !was {
		err = fmt.Errorf("%w; going on without the Store until it answers again", err)
	}
	if !was {
		l.said.Store(true)
		g.failed(err)
	}
	return err
}

// A breaker opens after maxFailures failures in a row, and is closed by Follow.
type breaker struct {
	mu       sync.Mutex // guards what follows; held alone
	failures int        // in a row
	open     bool
	since    time.Time // when that changed last
	cooldown time.Duration
}

func (b *breaker) isOpen() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.open
}

func (b *breaker) succeed() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failures = 0
}

// After a failure within flapWindow of the last recovery the breaker stays open for twice
// as long as before.
const (
	flapWindow  = 10 * time.Second
	maxCooldown = 30 * time.Second
)

// fail notes a failure, and reports whether the breaker was open before and is now.
func (b *breaker) fail() (was, is bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failures++; b.failures < maxFailures || b.open {
		return b.open, b.open
	}
	now := time.Now()
	if !b.since.IsZero() && now.Sub(b.since) < flapWindow {
		b.cooldown = min(maxCooldown, max(time.Second, 2*b.cooldown))
	} else {
		b.cooldown = 0
	}
	b.open, b.since = true, now
	return false, true
}

// contact closes the breaker, if it has been open for long enough, and reports
// whether it has.
func (b *breaker) contact() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.open || time.Since(b.since) < b.cooldown {
		return false
	}
	b.open, b.failures, b.since = false, 0, time.Now()
	return true
}

// Pauses of Follow.
const (
	minPause = 100 * time.Millisecond // after a failure; doubled with each
	maxPause = time.Second
	idlePoll = 20 * time.Millisecond // of a store that answers at once, without changes
)

// Follow calls apply with what is invalidated in the store, from the beginning of its
// history, until ctx is done. Where the store was down, it calls restored when calls go
// through to it again. It calls contact after each answer.
func (g *Guard) Follow(ctx context.Context, apply func(store.Changes), restored, contact func()) {
	var cursor store.Version
	var giving sync.WaitGroup
	defer giving.Wait()
	pause := minPause
	for ctx.Err() == nil {
		begin := time.Now()
		c, err := try(ctx, g, "changes", &g.changes, changesTime, func(ctx context.Context) (store.Changes, error) {
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
		g.tags.contact()
		if g.pages.contact() {
			restored()
		}
		contact()
		if list := g.leases.take(); len(list) > 0 {
			giving.Go(func() { g.giveBack(ctx, list) })
		}
		if !moved && time.Since(begin) < idlePoll {
			sleep(ctx, idlePoll)
		}
	}
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
