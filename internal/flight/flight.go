package flight

import (
	"container/list"
	"context"
	"errors"
	"net/http"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"github.com/isr-go/isr/internal/header"
	"github.com/isr-go/isr/internal/inside"
	"github.com/isr-go/isr/internal/invalidation"
	"github.com/isr-go/isr/internal/page"
	"github.com/isr-go/isr/internal/pagekey"
	"github.com/isr-go/isr/store"
)

// A Flight is one generation of one page, and those who wait for it.
type Flight struct {
	Request
	g *Group

	// Guarded by Group.mu.
	visitors  int           // how many wait
	editors   int           // how many wait who asked for the page by its name
	kept      bool          // whether it goes on when none of them waits any more
	renews    bool          // whether a page that is stale will not do
	byName    bool          // whether an editor has asked for the page by its name
	inside    bool          // whether another run waits for it
	successor *Flight       // the run behind it
	waits     []*Flight     // the runs that it waits for
	queue     *list.List    // where it waits for a slot, if it does
	place     *list.Element // in queue
	demand    uint64        // how much its page was asked for when it got that place
	counted   bool          // in Group.active
	looking   bool          // whether it asks the Store before it has a slot
	slot      slot
	deserted  bool             // whether the visitor of its Stream has left
	returned  bool             // whether its handler has
	lingers   bool             // whether that has not, although the outcome is decided: the run behind it waits
	waiting   bool             // whether it has given its slot back, to wait for another instance
	ctx       *deadlineContext // the handler's; nil before it is called

	// Guarded by Group.mu, but constant once the run calls the handler: until then
	// it may find in the Store what it is to replace, and the lease for it. While it is
	// queued it has no old page.
	started bool // whether began holds
	old     *page.Page
	began   invalidation.Snapshot // of the orders of invalidations, when it began
	seq     uint64                // which run of the Site it is
	hold    invalidation.Hold     // of what was invalidated since it began
	lease   store.Ticket          // the Store's; zero where it could not be had

	first        *look         // what the Store answered before there was a slot
	hasInherited bool          // whether other builds were asked for the page
	isNowhere    bool          // whether none of them had it then
	looked       func()        // closes found, once
	found        chan struct{} // closed when the Store was asked for the page, or the run has ended; nil without a Store

	scope   *inside.Scope // what the handler says of the page; constant
	span    any           // by Trace; constant once the run calls the handler
	dropped bool          // whether drop has ended the run; constant once done is closed
	value   any           // that the Fetch has made
	begin   time.Time     // of the handler's call
	matched string        // the pattern that the handler has matched; for the run's goroutine alone
	zipped  bool          // whether the page was compressed before it was stored; likewise

	encoded chan (<-chan struct{}) // has one that is closed when the page is encoded; nil without a Store

	takers atomic.Int64  // those who would take a stream
	offer  chan Stream   // to one of them: a response that is too large to be stored
	left   chan struct{} // has a value when one of them has left

	ended   atomic.Bool   // whether the outcome is decided
	done    chan struct{} // closed when outcome is set
	outcome Outcome
}

// A Kind is the kind of an Outcome.
type Kind int

const (
	Generated Kind = iota // Page: stored or not, or a hit-for-pass
	Failed                // Err
	Found                 // Page, as it came from the Store
	Nothing               // another instance generates the page and nobody waits here, or its route does not allow it
	Again                 // the run was not begun: visits are decided again
	Busy                  // too many others wait for a slot
)

// An Outcome is what a run has ended with.
type Outcome struct {
	Kind   Kind
	Page   *page.Page
	Stored bool // whether Page is stored here
	Status int  // of a failure: what those who wait get, unless Repanic says otherwise; of a hit-for-pass: the handler's

	Location string // of a hit-for-pass: the handler's

	Stale error // of a page: why the data in it is not good, if so

	Err        error
	Pattern    string        // of a failure: what the handler has matched, where it is its own
	Answer     *Answer       // of a failure: the handler's own response, if it gave one
	Stack      []byte        // where the handler panicked, for the log
	retryAfter time.Duration // the handler's Retry-After
	panic      any           // what the handler panicked with
	goexit     bool          // whether it called runtime.Goexit
}

// An Answer is a response that is passed on and not stored.
type Answer struct {
	Header http.Header
	Body   []byte
}

// Repanic makes a handler's panic, or its runtime.Goexit, that of the caller.
func (o *Outcome) Repanic() {
	if o.goexit {
		runtime.Goexit()
	}
	if o.panic != nil {
		panic(o.panic)
	}
}

// Why a generation failed, where the handler does not say so itself.
var (
	ErrTimeout = errors.New("the handler did not finish within Route.Timeout")
	errGoexit  = errors.New("the handler called runtime.Goexit")
)

// Leave notes that the waiter does not wait any longer. A run of an unknown page that
// nobody waits for may be cancelled: else a client that sends requests and cancels them
// would have more runs than the server has requests.
func (w *Waiter) Leave() {
	if w.f == nil {
		return
	}
	f, g := w.f, w.f.g
	w.f = nil // who has the outcome need not hold all of it
	if w.Streams {
		f.takers.Add(-1)
		select {
		case f.left <- struct{}{}:
		default:
		}
	}
	g.mu.Lock()
	f.count(w, -1)
	if w.Outer != nil {
		if i := slices.Index(w.Outer.waits, f); i >= 0 {
			w.Outer.waits = slices.Delete(w.Outer.waits, i, i+1)
		}
	}
	ctx := f.unattended()
	g.mu.Unlock()
	if ctx != nil {
		ctx.cancel(context.Canceled)
	}
}

// unattended decides what becomes of a run when a waiter has left. It
// returns the context that is to be cancelled, if any. It is called under Group.mu.
func (f *Flight) unattended() (cancel *deadlineContext) {
	g := f.g
	if f.visitors > 0 || f.ended.Load() || f.looking {
		return nil
	}
	needed := f.editors > 0 || f.kept
	switch {
	case f.queue != nil && needed:
		if !g.requeue(f) {
			g.drop(f, Outcome{Kind: Again})
		}
	case !f.started && !needed:
		g.drop(f, Outcome{Kind: Again})
	case f.started && !needed && (f.slot == forVisitors || f.slot == forInside) && f.old.IsUnknown():
		if g.taken[forNobody] < g.limits[forNobody] {
			g.taken[f.slot]--
			g.taken[forNobody]++
			f.slot = forNobody
			g.next()
			return nil
		}
		if f.slot == forInside { // it is nobody's part any more: else strangers could have any number of these
			g.taken[f.slot]--
			g.taken[forVisitors]++
			f.slot = forVisitors
		}
		g.drop(f, Outcome{Kind: Nothing}) // it keeps its slot until the handler has returned
		return f.ctx
	}
	return nil
}

// drop ends a run that nobody waits for, or that cannot be begun. It is called
// under Group.mu.
func (g *Group) drop(f *Flight, out Outcome) {
	if f.ended.Swap(true) {
		return
	}
	f.outcome, f.dropped = out, true
	g.done(f)
	close(f.done)
}

// done lets the run behind this one begin, at once or when the handler has returned that was
// refused: a page that may not be stored has one run at a time, too. It is called under
// Group.mu.
func (g *Group) done(f *Flight) {
	f.leaveQueue()
	path := pagekey.CanonicalPath(f.Key.Path)
	if g.paths[path]--; g.paths[path] == 0 {
		delete(g.paths, path)
	}
	if f.lingers = f.slot != noSlot && !f.returned && f.outcome.Page != nil && f.outcome.Page.IsHitForPass && f.Fetch == nil; !f.lingers {
		g.makeWay(f)
	}
	if f.waiting {
		f.waiting = false
		g.waiting--
	}
	if g.c.Backing != nil && f.started {
		release := f.reserve()
		g.c.Backing.WriteBehind(func() { f.writeBehind(release) })
	}
	if f.found != nil {
		f.looked()
	}
	if f.counted {
		f.counted = false
		g.active--
		g.c.Table.EndRun(f.hold)
	}
	g.maybeIdle()
}

// makeWay lets the run behind this one begin. It is called under Group.mu.
func (g *Group) makeWay(f *Flight) {
	if first := g.flights[f.Key]; first == f {
		delete(g.flights, f.Key)
		if next := f.successor; next != nil {
			g.flights[f.Key] = next
			g.advance(next)
		}
	} else if first != nil && first.successor == f {
		first.successor = nil
	}
	f.successor = nil
}

// advance begins the run behind another, which has ended. It is called under
// Group.mu.
func (g *Group) advance(f *Flight) {
	switch {
	case g.closed, !f.isAwaited() && !f.kept:
		g.drop(f, Outcome{Kind: Again})
	case f.inside:
		g.start(f, forInside)
	case g.dispatch(f):
	case f.isAwaited():
		i, demand := g.queueOf(f)
		g.enter(f, i, demand) // there are no more of these than of those that run
	default:
		g.drop(f, Outcome{Kind: Again})
	}
}

// Done is closed when the run has an Outcome.
func (f *Flight) Done() <-chan struct{} { return f.done }

// Outcome returns what the run has ended with. It is called once Done is closed.
func (f *Flight) Outcome() *Outcome { return &f.outcome }

// Streams yields, to one of those who would take it, a response that is too large to
// be stored.
func (f *Flight) Streams() <-chan Stream { return f.offer }

// HasEnded reports whether the outcome is decided. Before it is, nothing is stored.
func (f *Flight) HasEnded() bool { return f.ended.Load() }

// Knows reports whether the path of a page is one that its PrerenderedOnly route has. It
// waits for what the Store has, or until ctx is done. Where pages are made anew, every path
// is known.
func (g *Group) Knows(ctx context.Context, req Request) bool {
	known := g.c.Anew || g.c.Cache.Admits(req.Key.Path)
	if known || g.c.Backing == nil {
		return known
	}
	f, _ := g.Join(req, g.c.Cache.Peek(&req.Key), Peeker)
	return f != nil && f.WaitForStore(ctx) && g.c.Cache.Admits(req.Key.Path)
}

// HasStarted reports whether the run has, or had, a slot.
func (f *Flight) HasStarted() bool {
	f.g.mu.Lock()
	defer f.g.mu.Unlock()
	return f.started
}

// Old returns the page that the run is to replace, if any.
func (f *Flight) Old() *page.Page {
	f.g.mu.Lock()
	defer f.g.mu.Unlock()
	return f.old
}

// Forward says why a visitor had to wait for the run.
func (f *Flight) Forward(joined bool) header.CacheStatus {
	fwd := header.CacheStatus{Fwd: "uri-miss", Collapsed: joined}
	if !f.Old().IsUnknown() {
		fwd.Fwd = "stale"
	}
	return fwd
}

// Value returns the value that the run has made. It is called once Done is closed.
func (f *Flight) Value() any { return f.value }

// RunOf returns the run that ctx belongs to, or nil.
func RunOf(ctx context.Context) *Flight {
	if scope := inside.From(ctx); scope != nil {
		return scope.Run.(*Flight)
	}
	return nil
}

// MayUse reports whether a stored value may be used in the page that the run makes: what
// was invalidated before the run began must be known here, as far as it concerns the
// value. A nil run, or one of another Site, may use everything.
func (f *Flight) MayUse(g *Group, p *page.Page) bool {
	switch {
	case f == nil, f.g != g:
		return true
	case g.c.Anew:
		return p.Seq > f.seq
	case g.c.Backing == nil:
		return true
	}
	if p.Subject.Since.Offline != 0 && f.began.Offline == 0 {
		return false
	}
	return p.Subject.Since.Version >= f.began.Version || f.g.c.Table.Followed() >= f.began.Version
}

// MayUseOnError is MayUse where a new value could not be had: without the Store nobody
// knows more, and what the run makes counts as stale when that has recovered.
func (f *Flight) MayUseOnError(g *Group, p *page.Page) bool {
	return f.MayUse(g, p) || !g.c.Anew && f.began.Offline != 0
}

// isOlderThan reports whether what comes of the run may be older than what another needs.
// One that waits for a slot begins later. It is called under Group.mu.
func (f *Flight) isOlderThan(outer *Flight) bool {
	return (f.started || f.looking) && f.began.Version < outer.began.Version
}

// waitsFor reports whether the run is another, or waits for it, also by others. It is
// called under Group.mu.
func (f *Flight) waitsFor(other *Flight) bool {
	seen := make(map[*Flight]bool)
	var reaches func(*Flight) bool
	reaches = func(f *Flight) bool {
		if f == other {
			return true
		}
		if seen[f] {
			return false
		}
		seen[f] = true
		if before := f.g.flights[f.Key]; before != nil && before != f && !f.started && reaches(before) {
			return true
		}
		return slices.ContainsFunc(f.waits, reaches)
	}
	return reaches(f)
}

// isByName reports whether an editor has asked for the page by its name.
func (f *Flight) isByName() bool {
	f.g.mu.Lock()
	defer f.g.mu.Unlock()
	return f.byName
}

// isNamed reports whether an editor waits.
func (f *Flight) isNamed() bool {
	f.g.mu.Lock()
	defer f.g.mu.Unlock()
	return f.editors > 0
}

// Tags returns the tags that the page will have, as far as is known.
func (f *Flight) Tags() []string {
	if old := f.old; !old.IsUnknown() {
		return old.Subject.Tags
	}
	return f.Route.Tags
}

// WasInvalidatedSince reports whether what has the given tags was invalidated since
// the run began, and perhaps before a visitor asked, when the table's clock was asked.
func (f *Flight) WasInvalidatedSince(asked uint64, tags []string) bool {
	return f.began.Clock < asked && f.g.c.Table.Since(&f.began, &f.Key, tags)
}

// isSuperseded reports whether the page that the run is to make was invalidated since
// it began, as far as is known. It is called under Group.mu.
func (f *Flight) isSuperseded() bool {
	return f.started && f.g.c.Table.Since(&f.began, &f.Key, f.Tags())
}

// meta returns what the run gives its page, less the pattern that the handler has
// matched: that is for the run's goroutine alone.
func (f *Flight) meta() page.Meta {
	return page.Meta{
		Key: f.Key, Route: f.Route,
		Since: f.began, Seq: f.seq, Order: f.lease, MaxBytes: f.g.c.Cache.MaxBytes(), Mark: f.mark(),
		Codings: f.g.c.Encodings.Codings(),
	}
}

// mark returns what marks the page for caches in front. No value gets there.
func (f *Flight) mark() func(h http.Header, tags []string) (fits bool) {
	if f.Fetch != nil {
		return nil
	}
	return f.g.c.Mark
}
