// Package flight generates pages. Of each page there is at most one run that visitors
// may join, and one successor that begins when that has ended; a bounded number run at a
// time, and the others queue. Those who wait get the outcome, or leave early. A run never
// stores as fresh what was invalidated after it began, and a visitor who asks after that
// gets a run that has begun since.
//
// A run asks the Store first, where there is one; see package backing. Panics and
// runtime.Goexit of a handler are treated as in golang.org/x/sync/singleflight.
package flight

import (
	"container/list"
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/isr-go/isr/internal/backing"
	"github.com/isr-go/isr/internal/budget"
	"github.com/isr-go/isr/internal/builds"
	"github.com/isr-go/isr/internal/cache"
	"github.com/isr-go/isr/internal/encode"
	"github.com/isr-go/isr/internal/inside"
	"github.com/isr-go/isr/internal/invalidation"
	"github.com/isr-go/isr/internal/page"
	"github.com/isr-go/isr/internal/pagekey"
	"github.com/isr-go/isr/internal/policy"
	"github.com/isr-go/isr/store"
)

// A Config is what the runs of a Group need. All but Backing and Log is required.
type Config struct {
	Handler   http.Handler
	Matches   func(*http.Request) string // the pattern that Handler is known to match a page request with, if any
	Origin    pagekey.Origin
	Cache     *cache.Cache
	Table     *invalidation.Table
	Backing   *backing.Store // nil without a Store
	Builds    *builds.Keeper // likewise
	Inherit   store.Effect   // on pages of other builds; None: they count as not there
	Site      any            // what inside.SiteOf finds during a run
	Slow      *budget.Budget // of the bytes that slow readers may hold
	Writing   *budget.Budget // of those on their way to the Store
	Encodings *encode.Pool

	Mark func(h http.Header, tags []string) (fits bool) // see page.Meta; nil without an Edge

	Off           bool                   // Generate does nothing
	Anew          bool                   // values are made anew in each page
	BaseContext   func() context.Context // what the contexts of runs are made on; nil: context.Background
	Trace         Trace                  // may be nil
	MaxPageBytes  int64
	Generations   int // how many runs for visitors who wait, at a time
	Regenerations int // how many others, of each kind

	// What is reported. They are called with no lock held, concurrently.
	Ended    func(f *Flight, took time.Duration)               // a run has ended that has called the handler; before those who wait have the Outcome, unless nobody waits
	Broke    func(f *Flight, out *Outcome, took time.Duration) // a response has failed of which a visitor has a part; after Ended
	Evicted  func([]*page.Page)
	Damaged  func(f *Flight, err error) // the Store's record of the page cannot be read
	Late     func(*policy.Route)        // something was said of a page when its handler had returned
	TooLarge func(*Flight)              // the page is too large for the Store
	Leaks    func(*policy.Route)        // Trace has returned a context that holds a visitor's values
	Log      *slog.Logger               // of panics that reach no visitor; nil: silence
}

// A Request says what to generate.
type Request struct {
	Key   pagekey.Key
	Route *policy.Route
	Fetch *Fetch          // of data: what makes it, instead of the handler
	Cause context.Context // of who asks, for Trace; may be nil
}

// A Fetch makes a value, and reads it.
type Fetch struct {
	Do     func(ctx context.Context) (v any, body []byte, size int64, err error)
	Decode func(body []byte) (v any, size int64, err error)
}

// Build returns the request that the handler sees.
func (r *Request) Build(ctx context.Context, o pagekey.Origin) *http.Request {
	return r.Key.Request(ctx, o)
}

// A Group is the runs under way and those that wait for a slot: of each page at most
// one that visitors may join, and its successor. It is safe for concurrent use.
type Group struct {
	c      Config
	limits [slots]int // how many of each slot there are

	// mu guards what follows, and the fields of Flight that say so. It is an outermost
	// lock: those of the cache, the table and the Store's pending writes are taken under
	// it.
	mu      sync.Mutex
	flights map[pagekey.Key]*Flight
	queues  [queues]list.List // of *Flight
	taken   [slots]int
	looking int            // runs that ask the Store before they need a slot
	waiting int            // background runs that wait for other instances, as many as there are slots at most
	paths   map[string]int // how many runs there are at a canonical path
	active  int            // runs under way
	seq     uint64         // the last run's
	longest time.Duration  // the longest Timeout of those that have called the handler
	closed  bool
	idle    chan struct{} // closed when closed is set and nothing is under way
}

// NewGroup returns a Group without any runs.
func NewGroup(c Config) *Group {
	return &Group{
		c:       c,
		limits:  [slots]int{forVisitors: c.Generations, forRenewal: c.Regenerations, forUnknown: c.Regenerations, forNobody: c.Regenerations},
		flights: make(map[pagekey.Key]*Flight),
		paths:   make(map[string]int),
		idle:    make(chan struct{}),
	}
}

// IsClosed reports whether Shutdown was called.
func (g *Group) IsClosed() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.closed
}

// CannotRenew reports whether a visitor need not wait for another attempt to renew a page
// that may be shown on errors: the last one has failed, or none is begun any more.
func (g *Group) CannotRenew(p *page.Page) bool { return p.IsFailing(g.c.Table) || g.IsClosed() }

// Running returns how many runs are under way.
func (g *Group) Running() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.active
}

// LongestTimeout returns how long a run may have taken, of those that there were.
func (g *Group) LongestTimeout() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.longest
}

// Concerns reports whether one of the runs is of a page at the canonical path.
func (g *Group) Concerns(path string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.paths[path] > 0
}

// Shutdown waits until the runs under way have ended, or ctx is done, whose error it
// then returns. From the call on none is begun. A run that has reached its Timeout has
// ended, even if its handler still runs.
func (g *Group) Shutdown(ctx context.Context) error {
	g.mu.Lock()
	if !g.closed {
		g.closed = true
		for i := range g.queues {
			for q := &g.queues[i]; q.Len() > 0; {
				g.drop(q.Front().Value.(*Flight), Outcome{Kind: Again})
			}
		}
		g.maybeIdle()
	}
	g.mu.Unlock()
	select {
	case <-g.idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// maybeIdle closes idle where the Group is shut down and nothing is under way. It is
// called under Group.mu.
func (g *Group) maybeIdle() {
	if !g.closed || g.active > 0 {
		return
	}
	select {
	case <-g.idle:
	default:
		close(g.idle)
	}
}

// A Waiter waits for one run, until Leave is called.
type Waiter struct {
	Streams bool // whether it would take a response that is too large to be stored
	ByName  bool // whether it asked for the page by its name: a stale one will not do
	Fresh   bool // whether a stale page will not do, nor one that is older than Outer
	Inside  bool // whether it is a run itself, which has a slot already

	// Outer is the run that it is, if it is one. It does not join a run that is waiting for
	// it, be it by others.
	Outer *Flight

	f      *Flight // nil when it has left
	queued bool    // what Queued returns
}

// Queued reports whether the run had not begun to call the handler when it was joined.
func (w *Waiter) Queued() bool { return w.queued }

// Peeker waits for what the Store has, and no longer.
var Peeker = new(Waiter)

// A Joining says what Join has done.
type Joining int

const (
	Began   Joining = iota
	Joined          // there was a run
	Changed         // nothing: the cache holds something else by now
	Paused          // nothing: it is too early for another attempt in the background
	Full            // nothing: too many wait for a slot
	Closed          // nothing: the Group is shut down
	Circle          // nothing: the run would wait for itself
)

// Join finds a run of the page for a visit that found seen in the cache, or begins one.
// A nil waiter does not wait: the run is background work. The flight is nil where there
// is none.
func (g *Group) Join(req Request, seen *page.Page, w *Waiter) (*Flight, Joining) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if w != nil && w.Outer != nil && w.Outer.g != g {
		w.Outer = nil // it is a run of another Site, whose orders are others
	}
	f, how := g.flights[req.Key], Joined
	switch {
	case f == nil:
	case f.lingers: // visitors are told at once that their own requests pass
		if w != nil && w.ByName {
			f = f.successor
		}
	case f.isSuperseded(), w != nil && w.Fresh && w.Outer != nil && f.isOlderThan(w.Outer):
		f = f.successor
	}
	if f == nil {
		switch {
		case g.closed && !isPart(req, w):
			return nil, Closed
		case g.c.Cache.Peek(&req.Key) != seen:
			return nil, Changed
		case (w == nil || w == Peeker) && seen != nil && seen.IsPaused(g.c.Table, time.Now()):
			return nil, Paused
		}
		f, how = g.newFlight(req, seen), Began
	}
	if w != nil && w.Outer != nil && f.waitsFor(w.Outer) {
		if how == Began {
			g.done(f)
		}
		return nil, Circle
	}
	if !g.addWaiter(f, w, how == Began) {
		return nil, Full
	}
	return f, how
}

// isPart reports whether what is asked for is a value that a run under way needs: it is a
// part of that run, which Shutdown waits for. It is called under Group.mu.
func isPart(req Request, w *Waiter) bool {
	return req.Fetch != nil && w != nil && w.Outer != nil && w.Outer.counted
}

// addWaiter adds a waiter to a run, which begins, or gets a place in a queue. It reports
// false where no place is left. It is called under Group.mu.
func (g *Group) addWaiter(f *Flight, w *Waiter, isNew bool) bool {
	visits := w != nil && w != Peeker && !w.ByName
	if w == nil || w == Peeker {
		f.kept = true
	} else {
		f.count(w, 1)
		f.kept = f.kept || w.ByName
		f.byName = f.byName || w.ByName
		f.renews = f.renews || w.ByName || w.Fresh
		f.inside = f.inside || w.Inside
	}
	ok := true
	switch {
	case f.started, f.looking:
	case g.flights[f.Key] != f: // it begins when the run before it has ended
		if before := g.flights[f.Key]; f.inside && !before.inside && !before.started {
			before.inside = true // else it may wait for the slot of who waits for it
			if !before.looking {
				before.leaveQueue()
				g.start(before, forInside)
			}
		}
	case f.inside:
		f.leaveQueue()
		g.start(f, forInside)
	case isNew && g.c.Backing != nil && (visits || w == Peeker) && g.looking < maxQueued*g.limits[forVisitors]:
		g.lookFirst(f)
	case isNew:
		ok = g.dispatch(f)
	case f.queue != nil:
		ok = g.requeue(f)
	}
	if !ok {
		if w != nil && w != Peeker {
			f.count(w, -1)
		}
		if isNew {
			g.done(f)
		}
		return false
	}
	if w != nil && w != Peeker {
		w.f, w.queued = f, !f.started
		if w.Outer != nil {
			w.Outer.waits = append(w.Outer.waits, f)
		}
		if w.Streams {
			f.takers.Add(1)
		}
	}
	return true
}

func (f *Flight) count(w *Waiter, n int) {
	if w.ByName {
		f.editors += n
	} else {
		f.visitors += n
	}
}

// isAwaited reports whether anybody waits. It is called under Group.mu.
func (f *Flight) isAwaited() bool { return f.visitors+f.editors > 0 }

// newFlight adds a run of a page, as the successor where there is one already. It is
// called under Group.mu.
func (g *Group) newFlight(req Request, old *page.Page) *Flight {
	req.Key = req.Key.Clone()
	rt := req.Route
	if g.c.Trace == nil {
		req.Cause = nil // it holds a visitor's request
	}
	f := &Flight{
		Request: req, g: g, old: old,
		offer: make(chan Stream), left: make(chan struct{}, 1), done: make(chan struct{}),
	}
	f.scope = inside.New(f, g.c.Site, func() { g.c.Late(rt) })
	if g.c.Backing != nil {
		f.found = make(chan struct{})
		f.looked = sync.OnceFunc(func() { close(f.found) })
		f.encoded = make(chan (<-chan struct{}), 1)
	}
	if before := g.flights[req.Key]; before != nil {
		before.successor = f
	} else {
		g.flights[req.Key] = f
	}
	g.paths[pagekey.CanonicalPath(f.Key.Path)]++
	return f
}
