package isr

import (
	"bytes"
	"cmp"
	"container/list"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net/http"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/isr-go/isr/internal/header"
	"github.com/isr-go/isr/internal/invalidation"
	"github.com/isr-go/isr/internal/page"
	"github.com/isr-go/isr/internal/pagekey"
	"github.com/isr-go/isr/internal/policy"
	"github.com/isr-go/isr/internal/respwriter"
	"github.com/isr-go/isr/store"
)

// A pageRequest says what to generate.
type pageRequest struct {
	key     pagekey.Key
	route   *policy.Route
	pattern string // of a ServeMux around the Site, if there is one
}

// build returns the request that the handler sees.
func (p *pageRequest) build(ctx context.Context, o pagekey.Origin) *http.Request {
	return p.key.Request(ctx, o, p.pattern)
}

// A slot is what a run needs to call the handler, so that no more of them do at a
// time than the machine can bear.
type slot int

const (
	noSlot      slot = iota // of a run that has given its slot back
	forInside               // of a run inside another one: without bound, as that one has a slot
	forVisitors             // of a run that visitors wait for: MaxGenerations
	forRenewal              // of a run behind a stored page, or of one asked for by name: MaxRegenerations
	forUnknown              // of a run behind a Placeholder: as many again, so that they delay no renewal
	forNobody               // of a run whose visitors have left: as many again

	slots
)

// The queues of the runs that wait for a slot, in the order in which they get one.
const (
	queueOfStored  = iota // visitors wait, and may be shown an old page if all else fails
	queueOfUnknown        // visitors wait, for a page that nobody has seen
	queueOfRenewals
	queueOfPlaceholders

	queues
)

// slotOf says which slot a queue is for.
var slotOf = [queues]slot{forVisitors, forVisitors, forRenewal, forUnknown}

// maxQueued is how many runs may wait for each slot of their kind, where strangers
// can think of any number of them.
const maxQueued = 16

// runs are the generations under way and those that wait for a slot: of each page
// at most one that newcomers may join, and one behind it.
type runs struct {
	limits [slots]int // how many of each slot there are

	mu      sync.Mutex // guards what follows, and what is said to be so in flight
	flights map[pagekey.Key]*flight
	queues  [queues]list.List // of *flight
	taken   [slots]int
	looking int            // runs that ask the Store before they need a slot
	waiting int            // background runs that wait for other instances, as many as there are slots at most
	paths   map[string]int // how many runs there are at a canonical path
	active  int            // runs under way
	seq     uint64         // the last run's
	closed  bool
	idle    chan struct{} // closed when closed is set and nothing is under way
}

func (r *runs) init(generations, regenerations int) {
	r.limits = [slots]int{forVisitors: generations, forRenewal: regenerations, forUnknown: regenerations, forNobody: regenerations}
	r.flights = make(map[pagekey.Key]*flight)
	r.paths = make(map[string]int)
	r.idle = make(chan struct{})
}

func (r *runs) isClosed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closed
}

// A deadlineContext has a deadline, at which its run is to cancel it. Unlike that
// of context.WithDeadline it can be put off.
type deadlineContext struct {
	deadline time.Time
	open     atomic.Bool // whether it was put off for good
	done     chan struct{}

	mu    sync.Mutex
	err   error                // guarded by mu, and constant once done is closed
	after map[*func()]struct{} // guarded by mu: what is to be called then
}

func newDeadlineContext(deadline time.Time) *deadlineContext {
	return &deadlineContext{deadline: deadline, done: make(chan struct{})}
}

func (c *deadlineContext) cancel(err error) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	c.err = err
	close(c.done)
	after := c.after
	c.after = nil
	c.mu.Unlock()
	for f := range after {
		(*f)()
	}
}

// AfterFunc has f called when the context is done, which must not block. The
// context package asks for it: what is derived from this context then needs no
// goroutine that waits for it. It asks with a mutex held that f takes, so f is never
// called before AfterFunc has returned.
func (c *deadlineContext) AfterFunc(f func()) (stop func() bool) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		go f()
		return func() bool { return false }
	}
	if c.after == nil {
		c.after = make(map[*func()]struct{})
	}
	c.after[&f] = struct{}{}
	c.mu.Unlock()
	return func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		_, waiting := c.after[&f]
		delete(c.after, &f)
		return waiting
	}
}

func (c *deadlineContext) Deadline() (time.Time, bool) { return c.deadline, !c.open.Load() }
func (c *deadlineContext) Done() <-chan struct{}       { return c.done }

// insideKey is the context key by which a request is known to come from a run.
type insideKey struct{}

func (c *deadlineContext) Value(key any) any {
	if key == (insideKey{}) {
		return true
	}
	return nil
}

// isInside reports whether ctx is that of a page request.
func isInside(ctx context.Context) bool { return ctx.Value(insideKey{}) != nil }

func (c *deadlineContext) Err() error {
	select {
	case <-c.done:
		return c.err
	default:
		return nil
	}
}

// A flight is one generation of one page, and those who wait for it.
type flight struct {
	pageRequest
	site *Site

	// Guarded by runs.mu.
	visitors  int           // who wait
	editors   int           // who wait, having asked for the page by its name
	kept      bool          // whether it goes on when nobody waits any more
	renews    bool          // whether a page that is stale will not do
	byName    bool          // whether somebody has asked for the page by its name
	inside    bool          // whether another run waits for it
	successor *flight       // the run behind it
	queue     *list.List    // where it waits for a slot, if it does
	place     *list.Element // in queue
	counted   bool          // in runs.active
	looking   bool          // whether it asks the Store before it needs a slot
	slot      slot
	waiting   bool             // whether it has given its slot back, to wait for another instance
	ctx       *deadlineContext // the handler's; nil before it is called

	// Guarded by runs.mu, but constant once the run calls the handler: until then
	// it may find in the Store what it is to replace, and the lease for it.
	started bool // whether began holds
	old     *page.Page
	began   invalidation.Snapshot // in the orders of invalidations
	seq     uint64                // which run of the Site it is
	hold    invalidation.Hold     // of what was invalidated since it began
	lease   store.Ticket          // the Store's; zero where it could not be had

	first  *look         // what came of asking the Store before there was a slot
	looked func()        // closes found, once
	found  chan struct{} // closed when the Store was asked for the page; nil without a Store

	begin   time.Time // of the handler's call
	matched string    // the pattern that the handler has matched; for the run's goroutine alone

	takers atomic.Int64  // those who would take a stream
	offer  chan offered  // to one of them: a response that is too large to be stored
	left   chan struct{} // one of them has left

	ended   atomic.Bool   // whether the outcome is decided
	done    chan struct{} // closed when outcome is set
	outcome outcome
}

// An outcome is what came of a generation: a page, stored or not, or a pass
// mark, or an error.
type outcome struct {
	page   *page.Page
	stored bool
	loaded bool // whether the page was stored as it came from the Store
	none   bool // whether there is nothing to tell: another instance is at it, or nobody may be
	again  bool // whether those who wait are to decide anew: the run was not begun
	busy   bool // whether too many others wait for a slot

	err        error
	matched    string        // with err: the pattern that the handler has matched, where it is its own
	retryAfter time.Duration // with err: how long the handler wants to be left alone
	status     int           // with err: what those who wait get, unless raise says otherwise; with a hit-for-pass: the handler's
	answer     *answer       // with err: the handler's own response, if it gave one
	panic      any           // with err: what the handler panicked with
	stack      []byte        // with panic: where, for the log
	goexit     bool          // with err: whether it called runtime.Goexit

	location string // with a hit-for-pass: the handler's
}

// An answer is a response that is passed on and not stored.
type answer struct {
	header http.Header
	body   []byte
}

// raise makes a handler's panic, or its runtime.Goexit, that of the caller.
func (o *outcome) raise() {
	if o.goexit {
		runtime.Goexit()
	}
	if o.panic != nil {
		panic(o.panic)
	}
}

// Why a generation failed, where the handler does not say so itself.
var (
	errTimeout = errors.New("the handler did not finish within Route.Timeout")
	errGoexit  = errors.New("the handler called runtime.Goexit")
	errClosed  = errors.New("the site is shut down")
	errBusy    = errors.New("too many visitors wait for pages that are not stored: Options.MaxGenerations")
)

// A waiter is someone who waits for a run, and what they need of it.
type waiter struct {
	takes  bool // whether they would take a stream
	byName bool // whether they asked for the page by its name: a stale one will not do
	inside bool // whether they are a run themselves, which has a slot already

	f      *flight
	queued bool // whether the run had not begun to call the handler when they came
	left   bool
}

// A peeker is a visitor who waits for what the Store has, and no longer.
var peeker = new(waiter)

// What join has done.
type joining int

const (
	began   joining = iota
	joined          // there was a run
	changed         // nothing: the cache holds something else by now
	paused          // nothing: it is too early for another attempt in the background
	busy            // nothing: too many wait for a slot
	closed          // nothing: the Site is shut down
)

// join finds a run of the page for someone who found seen in the cache, or begins
// one. A nil waiter does not wait: their run is background work. The flight is nil
// where there is none.
func (s *Site) join(req pageRequest, seen *page.Page, w *waiter) (*flight, joining) {
	r := &s.runs
	r.mu.Lock()
	defer r.mu.Unlock()
	f, how := r.flights[req.key], joined
	if f != nil && f.isOutdated() {
		f = f.successor
	}
	if f == nil {
		switch {
		case r.closed:
			return nil, closed
		case s.cache.Peek(&req.key) != seen:
			return nil, changed
		case (w == nil || w == peeker) && seen != nil && seen.IsPaused(s.table, time.Now()):
			return nil, paused
		}
		f, how = s.newFlight(req, seen), began
	}
	if !s.board(f, w, how == began) {
		return nil, busy
	}
	return f, how
}

// board adds a waiter to a run, and sees to it that the run begins or has a place
// in a queue. It reports false where there is none left. It is called under runs.mu.
func (s *Site) board(f *flight, w *waiter, isNew bool) bool {
	r := &s.runs
	visits := w != nil && w != peeker && !w.byName
	if w == nil || w == peeker {
		f.kept = true
	} else {
		f.count(w, 1)
		f.kept = f.kept || w.byName
		f.byName = f.byName || w.byName
		f.renews = f.renews || w.byName
		f.inside = f.inside || w.inside
	}
	ok := true
	switch {
	case f.started, f.looking:
	case r.flights[f.key] != f: // it begins when the run before it has ended
	case f.inside:
		f.leaveQueue()
		s.start(f, forInside)
	case isNew && s.backing != nil && (visits || w == peeker) && r.looking < maxQueued*r.limits[forVisitors]:
		s.lookFirst(f)
	case isNew:
		ok = s.dispatch(f)
	case f.queue != nil:
		ok = s.requeue(f)
	}
	if !ok {
		if w != nil && w != peeker {
			f.count(w, -1)
		}
		if isNew {
			s.land(f)
		}
		return false
	}
	if w != nil && w != peeker {
		w.f, w.queued = f, !f.started
		if w.takes {
			f.takers.Add(1)
		}
	}
	return true
}

func (f *flight) count(w *waiter, n int) {
	if w.byName {
		f.editors += n
	} else {
		f.visitors += n
	}
}

// isAwaited reports whether anybody waits. It is called under runs.mu.
func (f *flight) isAwaited() bool { return f.visitors+f.editors > 0 }

// leave notes that somebody does not wait any longer. What nobody waits for, and
// nobody has seen yet, need not be made: else a client that sends requests and
// takes them back would have more runs than the server has requests.
func (w *waiter) leave() {
	if w.f == nil || w.left {
		return
	}
	w.left = true
	f, r := w.f, &w.f.site.runs
	if w.takes {
		f.takers.Add(-1)
		select {
		case f.left <- struct{}{}:
		default:
		}
	}
	r.mu.Lock()
	f.count(w, -1)
	ctx := f.unattended()
	r.mu.Unlock()
	if ctx != nil {
		ctx.cancel(context.Canceled)
	}
}

// unattended decides what becomes of a run when one who waited has left. It
// returns the context that is to be cancelled, if any. It is called under runs.mu.
func (f *flight) unattended() (cancel *deadlineContext) {
	s, r := f.site, &f.site.runs
	if f.visitors > 0 || f.ended.Load() || f.looking {
		return nil
	}
	needed := f.editors > 0 || f.kept
	switch {
	case f.queue != nil && needed:
		if !s.requeue(f) {
			s.drop(f, outcome{again: true})
		}
	case !f.started && !needed:
		s.drop(f, outcome{again: true})
	case f.started && !needed && (f.slot == forVisitors || f.slot == forInside) && f.old.IsUnknown():
		if r.taken[forNobody] < r.limits[forNobody] {
			r.taken[f.slot]--
			r.taken[forNobody]++
			f.slot = forNobody
			s.next()
			return nil
		}
		s.drop(f, outcome{none: true}) // it keeps its slot until the handler has returned
		return f.ctx
	}
	return nil
}

// drop ends a run that nobody waits for, or that cannot be begun. It is called
// under runs.mu.
func (s *Site) drop(f *flight, out outcome) {
	if f.ended.Swap(true) {
		return
	}
	f.outcome = out
	s.land(f)
	close(f.done)
}

// newFlight puts a run behind that of the same page, or in its place. It is called
// under runs.mu.
func (s *Site) newFlight(req pageRequest, old *page.Page) *flight {
	r := &s.runs
	req.key = req.key.Clone()
	if req.pattern == "" && old != nil {
		req.pattern = old.Pattern
	}
	f := &flight{
		pageRequest: req, site: s, old: old,
		offer: make(chan offered), left: make(chan struct{}, 1), done: make(chan struct{}),
	}
	if s.backing != nil {
		f.found = make(chan struct{})
		f.looked = sync.OnceFunc(func() { close(f.found) })
	}
	if before := r.flights[req.key]; before != nil {
		before.successor = f
	} else {
		r.flights[req.key] = f
	}
	r.paths[pagekey.CanonicalPath(f.key.Path)]++
	return f
}

// queueIndex says where a run waits for a slot. It is called under runs.mu.
func (f *flight) queueIndex() int {
	switch unknown := f.old.IsUnknown(); {
	case f.visitors > 0 && unknown:
		return queueOfUnknown
	case f.visitors > 0:
		return queueOfStored
	case unknown && !f.byName:
		return queueOfPlaceholders
	}
	return queueOfRenewals
}

// dispatch begins a run, or lets it wait for a slot. It reports false where too many
// do. It is called under runs.mu.
func (s *Site) dispatch(f *flight) bool {
	r, i := &s.runs, f.queueIndex()
	switch slot, free := r.freeSlot(f, slotOf[i]); {
	case free:
		s.start(f, slot)
	case !r.hasRoom(i):
		return false
	default:
		f.enter(&r.queues[i])
	}
	return true
}

// requeue is dispatch for a run that waits already, when somebody has joined or left:
// it keeps its place unless it gets a slot, or another queue that has room. It is called
// under runs.mu.
func (s *Site) requeue(f *flight) bool {
	r, i := &s.runs, f.queueIndex()
	switch _, free := r.freeSlot(f, slotOf[i]); {
	case free:
	case f.queue == &r.queues[i]:
		return true
	case !r.hasRoom(i):
		return false
	}
	f.leaveQueue()
	return s.dispatch(f)
}

// freeSlot returns the slot that a run can have at once, if there is one: its own, or
// that of a renewal where somebody has asked for it by its name, who is not to wait
// where strangers do. It is called under runs.mu.
func (r *runs) freeSlot(f *flight, own slot) (slot, bool) {
	switch {
	case r.taken[own] < r.limits[own]:
		return own, true
	case f.editors > 0 && r.taken[forRenewal] < r.limits[forRenewal]:
		return forRenewal, true
	}
	return noSlot, false
}

// hasRoom reports whether another run may wait in a queue. It is called under runs.mu.
func (r *runs) hasRoom(queue int) bool {
	slot, length := slotOf[queue], r.queues[queue].Len()
	if slot == forVisitors {
		length = r.queues[queueOfStored].Len() + r.queues[queueOfUnknown].Len()
	}
	return queue == queueOfRenewals || length < maxQueued*r.limits[slot]
}

// enter puts a run at the end of a queue, and leaveQueue takes it out of the one
// that it is in. They are called under runs.mu.
func (f *flight) enter(q *list.List) { f.queue, f.place = q, q.PushBack(f) }

func (f *flight) leaveQueue() {
	if f.queue != nil {
		f.queue.Remove(f.place)
		f.queue, f.place = nil, nil
	}
}

// hasStarted reports whether the run has, or had, a slot.
func (f *flight) hasStarted() bool {
	r := &f.site.runs
	r.mu.Lock()
	defer r.mu.Unlock()
	return f.started
}

// isLooking reports whether the run asks the Store, or has done so.
func (f *flight) isLooking() bool {
	r := &f.site.runs
	r.mu.Lock()
	defer r.mu.Unlock()
	return f.counted || f.ended.Load()
}

// isByName reports whether somebody has asked for the page by its name.
func (f *flight) isByName() bool {
	r := &f.site.runs
	r.mu.Lock()
	defer r.mu.Unlock()
	return f.byName
}

// replaces returns the page that the run is to replace, if any.
func (f *flight) replaces() *page.Page {
	r := &f.site.runs
	r.mu.Lock()
	defer r.mu.Unlock()
	return f.old
}

// tags returns the tags that the page will have, as far as one can know.
func (f *flight) tags() []string {
	if !f.old.IsUnknown() {
		return f.old.Subject.Tags
	}
	return f.route.Tags
}

// meta says which page the run is about to make, less the pattern that the handler has
// matched: the run's goroutine alone knows that.
func (f *flight) meta() page.Meta {
	return page.Meta{
		Key: f.key, Route: f.route, Pattern: f.pattern,
		Since: f.began, Seq: f.seq, Order: f.lease, MaxBytes: f.site.cache.MaxBytes(),
	}
}

// isOutdated reports whether what the run is about to say was invalidated since it
// began, as far as one can know. It is called under runs.mu.
func (f *flight) isOutdated() bool {
	return f.started && f.site.table.Since(&f.began, &f.key, f.tags())
}

// stamp notes that a run begins at this moment. It is called under runs.mu.
func (s *Site) stamp(f *flight) {
	r := &s.runs
	r.seq++
	if f.counted {
		f.began = s.table.Now()
	} else {
		f.began, f.hold = s.table.BeginRun()
		f.counted = true
		r.active++
	}
	f.seq = r.seq
}

// start begins a run. It is called under runs.mu.
func (s *Site) start(f *flight, slot slot) {
	s.stamp(f)
	f.started, f.slot = true, slot
	s.runs.taken[slot]++
	go f.run()
}

// next starts what has waited longest for the slots that are free. It is called
// under runs.mu.
func (s *Site) next() {
	r := &s.runs
	for i := range r.queues {
		for q, slot := &r.queues[i], slotOf[i]; q.Len() > 0 && r.taken[slot] < r.limits[slot]; {
			f := q.Front().Value.(*flight)
			f.leaveQueue()
			s.start(f, slot)
		}
	}
}

// free gives the slot of a run to the next: when the handler has returned, and not
// before, unless it does not keep its deadline.
func (f *flight) free() {
	r := &f.site.runs
	r.mu.Lock()
	defer r.mu.Unlock()
	r.taken[f.slot]--
	r.taken[noSlot]++
	f.slot = noSlot
	f.site.next()
}

// lookFirst asks the Store for the page before the run needs a slot: what is stored
// is not to wait behind what is not. It is called under runs.mu.
func (s *Site) lookFirst(f *flight) {
	r := &s.runs
	r.looking++
	f.looking = true
	s.stamp(f)
	go func() {
		s.backing.Ready()
		first := look{reconnects: s.table.Reconnects()}
		var ended bool
		ended, first.err = f.look(s.backing.Key(&f.key))
		f.looked()
		r.mu.Lock()
		defer r.mu.Unlock()
		r.looking--
		f.looking, f.first = false, &first
		switch {
		case ended:
		case r.closed, !f.isAwaited() && !f.kept:
			s.drop(f, outcome{again: true})
		case f.inside:
			s.start(f, forInside)
		case !s.dispatch(f):
			s.drop(f, outcome{busy: true})
		}
	}()
}

// A look is what has come of the first question to the Store.
type look struct {
	err        error
	reconnects uint64 // how often the Store had come back before
}

// run looks into the Store, where there is one, and calls the handler. Whatever
// that does, the run ends: with its response, its panic, its Goexit, or at its
// deadline.
func (f *flight) run() {
	free := sync.OnceFunc(f.free)
	defer free()
	if f.site.backing != nil && f.lookUp() || !f.call() {
		return
	}
	asked := ""         // the pattern of the page request
	var r *http.Request // as the handler gets it
	matched := func() string {
		if r == nil || r.Pattern == asked {
			return ""
		}
		return r.Pattern
	}
	var timer *time.Timer // the deadline
	rec := respwriter.NewRecorder(respwriter.Config{
		Context: f.ctx, Limit: f.site.limit, Budget: f.site.streaming,
		IsFailure: f.route.IsFailure, Refuses: f.route.Refuses, Renew: f.renewal(),
		HandOff:   func(st *respwriter.Stream) bool { return f.handOff(offered{st, matched()}, free) },
		Cancel:    func() { f.ctx.cancel(context.Canceled) },
		KeepAlive: func() { timer.Reset(f.route.Timeout) },
		Done:      f.recorded,
	})
	timer = time.AfterFunc(f.route.Timeout, func() {
		f.end(outcome{err: errTimeout, status: http.StatusGatewayTimeout}) // before the handler can end in a hurry
		f.ctx.cancel(context.DeadlineExceeded)
		rec.Abort(errTimeout)
		free()
	})
	returned := false
	defer func() {
		timer.Stop()
		f.ctx.cancel(context.Canceled)
		if returned {
			return
		}
		out := outcome{err: errGoexit, goexit: true, status: http.StatusInternalServerError, matched: matched()}
		if v := recover(); v != nil {
			out.err, out.goexit, out.panic = fmt.Errorf("the handler panicked: %v", v), false, v
			if v == http.ErrAbortHandler {
				out.err = http.ErrAbortHandler
			} else {
				out.stack = debug.Stack()
			}
		}
		rec.Abort(out.err)
		if !f.end(out) && out.stack != nil && f.site.log != nil { // nobody else will say so
			f.site.log.Error("isr: a handler panicked whose response was not waited for any more",
				"path", f.key.Path, "route", f.route.Pattern, "error", out.err, "stack", string(out.stack))
		}
	}()
	// What the handler derives hangs on a context of the context package itself,
	// which finds it through any number of WithValue.
	ctx, cancel := context.WithCancel(f.ctx)
	defer cancel()
	r = f.build(ctx, f.site.origin)
	asked = r.Pattern
	if f.old != nil && f.old.Effect(f.site.table) < store.Expired {
		rec.SetConditional(f.old.Validators.Ask(r.Header))
	}
	f.site.handler.ServeHTTP(rec, r)
	if rec.Retry() {
		r = f.build(ctx, f.site.origin)
		f.site.handler.ServeHTTP(rec, r)
	}
	f.matched = matched()
	rec.Finish()
	returned = true
}

// renewal returns what a 304 makes of the stored page, or nil where there is none.
func (f *flight) renewal() func(h http.Header) (status int, updated http.Header, ok bool) {
	old := f.old
	if old.IsUnknown() {
		return nil
	}
	return func(h http.Header) (int, http.Header, bool) {
		if !old.Validators.Match(h) {
			return 0, nil, false
		}
		return old.Status, old.Merge(h), true
	}
}

// recorded ends the run with what has become of the response.
func (f *flight) recorded(res respwriter.Result) {
	switch res.Kind {
	case respwriter.Page:
		m := f.meta()
		m.Matched = f.matched
		f.end(outcome{page: page.New(m, res.Status, res.Header, res.Body)})
	case respwriter.Renewal:
		m := f.meta()
		m.Matched = f.matched
		f.end(outcome{page: page.Freshen(m, f.old, res.Header)})
	case respwriter.Refused:
		mark := page.HitForPass(f.meta(), res.Why)
		mark.Private = policy.IsPrivate(res.Status, res.Header)
		f.end(outcome{page: mark, status: res.Status, location: res.Header.Get("Location")})
	case respwriter.Failure:
		out := outcome{status: res.Status, err: res.Err, retryAfter: res.RetryAfter, matched: f.matched}
		if res.Header != nil {
			out.answer = &answer{header.Forwardable(res.Header, res.Body), bytes.Clone(res.Body)}
		}
		f.end(out)
	}
}

// An offered is a stream on its way to one of those who wait.
type offered struct {
	*respwriter.Stream
	matched string // the pattern that the handler has matched
}

// handOff hands a stream to one of those who wait, if there is one. The run's slot
// goes to the next: from now on it is that visitor who keeps the handler busy.
func (f *flight) handOff(o offered, free func()) bool {
	for f.takers.Load() > 0 {
		select {
		case f.offer <- o:
			free()
			f.ctx.open.Store(true)
			return true
		case <-f.left:
			continue
		case <-f.ctx.Done():
		}
		break
	}
	return false
}

// call notes that the handler is about to be called, and reports false where nobody
// waits for that any more.
func (f *flight) call() bool {
	r := &f.site.runs
	r.mu.Lock()
	defer r.mu.Unlock()
	f.begin = time.Now()
	f.ctx = newDeadlineContext(f.begin.Add(f.route.Timeout))
	return !f.ended.Load()
}

// look asks the Store for the page. It reports whether the run has ended with that:
// what another instance has made is as good as one's own.
func (f *flight) look(key string) (ended bool, err error) {
	s := f.site
	judged := s.table.Now()
	rec, effect, err := s.backing.Get(key)
	if err == nil && f.take(key, rec, effect, judged) {
		return true, nil
	}
	if f.route.PrerenderedOnly && !s.cache.Admits(f.key.Path) {
		f.end(outcome{none: true})
		return true, nil
	}
	if errors.Is(err, store.ErrNotFound) {
		err = nil
	}
	return false, err
}

// patience is how long a visitor waits for a page that another instance is
// generating, before it is generated for them.
const patience = 2 * time.Second

// lookUp asks the Store for the page, and then for the permission to generate it.
// It reports whether the run has ended with that. The trouble of the Store costs
// time, and nothing else.
func (f *flight) lookUp() (ended bool) {
	s, key := f.site, f.site.backing.Key(&f.key)
	defer f.looked()
	s.backing.Ready()
	begin, returns := time.Now(), s.table.Reconnects()
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		var err error
		if f.first != nil {
			err, returns, f.first = f.first.err, f.first.reconnects, nil
		} else if ended, err = f.look(key); ended {
			return true
		}
		f.looked()
		switch {
		case f.ended.Load(): // nobody waits any more
			s.backing.Release(key, f.lease)
			return true
		case f.lease.Leader: // and has looked again since: the last leader might have ended in between
			return f.waiting && f.yield() // it has no slot to generate in
		case err != nil:
			f.goBlind(returns)
			return false
		}
		clock := s.table.Clock()
		t, err := s.backing.Lease(key, f.leaseTTL())
		if err != nil {
			f.goBlind(returns)
			return false
		}
		f.permitted(t, clock)
		switch {
		case t.Leader:
		case time.Since(begin) > patience, !f.stepBack():
			return f.yield()
		default:
			time.Sleep(pause)
		}
	}
}

// leaseTTL returns how long others shall wait for the run at most: not for long, if
// this process is killed, and yet long enough for a page that is known to be slow.
func (f *flight) leaseTTL() time.Duration {
	ttl := patience
	if !f.old.IsUnknown() {
		ttl = max(ttl, 4*f.old.Took)
	}
	return min(ttl, f.route.Timeout+time.Second)
}

// take stores what the Store has returned, if it is newer than what is stored
// here. It reports whether the run has ended with that.
func (f *flight) take(key string, rec *store.Record, effect store.Effect, judged invalidation.Snapshot) bool {
	s := f.site
	p, err := page.Decode(rec.Data, key, page.Meta{Key: f.key, Route: f.route})
	if err != nil {
		e := s.event(StoreFailed, &f.key, f.route)
		e.Err = err
		s.report(e)
		return false
	}
	effect = max(effect, s.table.UndeliveredEffect(&p.Key, p.Subject.Tags))
	p.Order, p.Seq, p.Subject.StoreEffect = store.Ticket{Version: rec.Version, Fence: rec.Fence}, f.seq, effect
	p.Subject.Since = invalidation.Snapshot{Clock: judged.Clock, Version: max(judged.Version, rec.Version)}
	if now := time.Now(); p.Generated.After(now) { // by a clock that is ahead of ours
		p.Generated = now
	}
	p.Subject.NotBefore = p.Began()
	told := store.None // of what is stored here
	switch old := s.cache.Peek(&f.key); {
	case old != nil && !p.IsNewerThan(old): // another run of this instance has been here
		if !old.IsNewerThan(p) {
			told = effect
		}
		p = old
	default:
		if old != nil {
			p.Seq = max(p.Seq, old.Seq)
		}
		evicted, ok := s.cache.Put(p, f.isByName())
		s.reportEvicted(evicted)
		if !ok {
			return false
		}
	}
	if f.route.PrerenderedOnly {
		s.cache.Admit(f.key.Path) // or it would not be in the Store
	}
	r := &s.runs
	r.mu.Lock()
	f.old = p
	stale := f.visitors > 0 && !f.renews // whether a stale page will do
	r.mu.Unlock()
	switch p.View(max(told, p.Effect(s.table)), time.Now()).State {
	case page.Fresh:
	case page.Stale:
		if !stale {
			return false
		}
	default:
		return false
	}
	f.end(outcome{page: p, stored: true, loaded: true})
	return true
}

// permit returns the run's ticket of the Store.
func (f *flight) permit() store.Ticket {
	r := &f.site.runs
	r.mu.Lock()
	defer r.mu.Unlock()
	return f.lease
}

// permitted notes the ticket that the Store gave to the run.
func (f *flight) permitted(t store.Ticket, clock uint64) {
	r := &f.site.runs
	r.mu.Lock()
	defer r.mu.Unlock()
	f.lease = t
	f.began.Clock = clock
	f.began.Version = max(f.began.Version, t.Version)
	f.site.table.Observe(t.Version)
}

// goBlind notes that the Store has given no ticket, unless it has before.
func (f *flight) goBlind(returns uint64) {
	if f.lease != (store.Ticket{}) {
		return
	}
	r := &f.site.runs
	r.mu.Lock()
	defer r.mu.Unlock()
	f.site.table.GeneratedOffline()
	f.began.Offline = returns + 1
}

// stepBack gives the slot of a run that waits for another instance to one that has
// something to do. It reports false where enough of them are waiting.
func (f *flight) stepBack() bool {
	s, r := f.site, &f.site.runs
	r.mu.Lock()
	defer r.mu.Unlock()
	if (f.slot == forRenewal || f.slot == forUnknown) && !f.isAwaited() {
		if r.waiting == r.limits[forRenewal] {
			return false
		}
		r.taken[f.slot]--
		r.taken[noSlot]++
		f.slot, f.waiting = noSlot, true
		r.waiting++
		s.next()
	}
	return true
}

// away is how long a page that another instance is renewing is left alone.
const away = 100 * time.Millisecond

// yield ends a run that nobody waits for, since another instance is at it. It
// reports false where somebody waits.
func (f *flight) yield() bool {
	r := &f.site.runs
	r.mu.Lock()
	defer r.mu.Unlock()
	if f.isAwaited() {
		return false
	}
	if f.old != nil {
		f.old.LeftToLeaderUntil.Store(time.Now().Add(away).UnixNano())
	}
	f.site.drop(f, outcome{none: true})
	return true
}

// writeBehind gives the Store what has come of the run, after the visitors have it,
// or else gives back the permission.
func (f *flight) writeBehind() {
	s := f.site
	<-f.done
	key, out, lease := s.backing.Key(&f.key), &f.outcome, f.permit()
	if p := out.page; p != nil && out.stored && !out.loaded && p.NotStored == (policy.Refusal{}) && p.Subject.Since.Offline == 0 {
		err := s.backing.Save(key, lease, p.Record(key))
		if err == nil || errors.Is(err, store.ErrSuperseded) {
			return
		}
		if errors.Is(err, store.ErrTooLarge) {
			s.warn(f.route, policy.Refusal{Why: "is too large for the Store", Remedy: "each instance generates it by itself; make it smaller, or set a smaller MaxPageBytes"}, f.key.Path)
		}
	}
	s.backing.Release(key, lease)
	if p := out.page; p != nil && p.Private && !f.old.IsUnknown() {
		s.backing.Announce(store.Gone, f.key.NarrowestTag()) // it is not for everybody any more
	}
}

// end decides the outcome, and reports whether nothing else has before. The page
// is stored before those who wait are told, and before anyone can start the next
// run. The Store gets it afterwards.
func (f *flight) end(out outcome) bool {
	if f.ended.Swap(true) {
		return false
	}
	s, r := f.site, &f.site.runs
	defer close(f.done)
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		s.land(f)
	}()
	if out.loaded || out.none {
		f.outcome = out
		return true
	}
	took := time.Since(f.begin)
	var evicted []*page.Page
	old := s.cache.Peek(&f.key)
	if p := out.page; p != nil && p.NotStored != (policy.Refusal{}) && !p.Private && old.SetAside(s.table, p) {
		p.Took = took // and old stands by
	} else if p != nil {
		p.Took = took
		p.Subject.NotBefore = p.Began()
		evicted, out.stored = s.cache.Put(p, f.isByName())
	} else if old != nil && old.Seq <= f.seq {
		old.Fail(out.err, f.began, f.seq, out.retryAfter)
	} else if old == nil && f.route.Placeholder != nil {
		p = page.HitForPass(f.meta(), policy.Refusal{Why: "could not be generated"})
		p.Fail(out.err, f.began, f.seq, 0)
		evicted, _ = s.cache.Put(p, false) // or nobody would ever see the error
	}
	f.outcome = out
	f.report(evicted, took)
	return true
}

// land makes room for the run behind this one. It is called under runs.mu.
func (s *Site) land(f *flight) {
	r := &s.runs
	f.leaveQueue()
	path := pagekey.CanonicalPath(f.key.Path)
	if r.paths[path]--; r.paths[path] == 0 {
		delete(r.paths, path)
	}
	if first := r.flights[f.key]; first == f {
		delete(r.flights, f.key)
		if next := f.successor; next != nil {
			r.flights[f.key] = next
			next.old = s.cache.Peek(&f.key)
			s.advance(next)
		}
	} else if first != nil && first.successor == f {
		first.successor = nil
	}
	f.successor = nil
	if f.waiting {
		f.waiting = false
		r.waiting--
	}
	if s.backing != nil && f.started {
		s.backing.Behind(f.writeBehind)
	}
	if f.counted {
		f.counted = false
		r.active--
		s.table.EndRun(f.hold)
	}
	r.rest()
}

// advance begins the run behind another, which has ended. It is called under
// runs.mu.
func (s *Site) advance(f *flight) {
	r := &s.runs
	switch {
	case r.closed, !f.isAwaited() && !f.kept:
		s.drop(f, outcome{again: true})
	case f.inside:
		s.start(f, forInside)
	case !s.dispatch(f):
		f.enter(&r.queues[f.queueIndex()]) // there are no more of these than of those that run
	}
}

// rest says so where the site is shut down and nothing is under way. It is called
// under runs.mu.
func (r *runs) rest() {
	if !r.closed || r.active > 0 {
		return
	}
	select {
	case <-r.idle:
	default:
		close(r.idle)
	}
}

// report tells what came of the run.
func (f *flight) report(evicted []*page.Page, took time.Duration) {
	s, out := f.site, &f.outcome
	s.reportEvicted(evicted)
	e := s.event(Generated, &f.key, f.route)
	e.Duration = took
	switch p := out.page; {
	case p == nil:
		e.Kind, e.Status, e.Err, e.Tags = Failed, out.status, out.err, pagekey.PlainTags(f.tags())
		var stack []slog.Attr
		if out.stack != nil {
			stack = append(stack, slog.String("stack", string(out.stack)))
		}
		s.report(e, stack...)
	case p.NotStored != (policy.Refusal{}):
		s.warn(p.Route, p.NotStored, p.Key.Path)
	default:
		e.Status, e.Tags = p.Status, pagekey.PlainTags(p.Subject.Tags)
		e.Changed = s.observe != nil && !p.IsSame(f.old)
		s.report(e)
	}
}

// event returns an event about a page.
func (s *Site) event(kind Kind, k *pagekey.Key, rt *policy.Route) Event {
	return Event{Kind: kind, Host: cmp.Or(k.Host, s.origin.Host), Path: k.Path, Query: k.Query, Route: rt.Pattern}
}

func (s *Site) reportEvicted(pages []*page.Page) {
	for _, p := range pages {
		e := s.event(Evicted, &p.Key, p.Route)
		e.Status, e.Tags = p.Status, pagekey.PlainTags(p.Subject.Tags)
		s.report(e)
	}
}

// Shutdown waits until the generations under way have ended, or ctx has, whose
// error it then returns. One that has come to its Timeout has ended, whatever its
// handler still does; what is being streamed is the server's to wait for. From the
// call on no generation is started: pages are served as they are stored, requests
// for others go to the handler untouched, and Revalidate and Prerender fail. What
// is on its way to a Store is waited for, too; after that nothing is heard any
// more of what other instances invalidate.
func (s *Site) Shutdown(ctx context.Context) error {
	r := &s.runs
	r.mu.Lock()
	if !r.closed {
		r.closed = true
		for i := range r.queues {
			for q := &r.queues[i]; q.Len() > 0; {
				s.drop(q.Front().Value.(*flight), outcome{again: true})
			}
		}
		r.rest()
	}
	r.mu.Unlock()
	if s.backing != nil {
		defer s.backing.Close()
	}
	select {
	case <-r.idle:
	case <-ctx.Done():
		return ctx.Err()
	}
	if s.backing != nil {
		return s.backing.Wait(ctx)
	}
	return nil
}

// generate waits until a fresh page is stored. All that was invalidated before is
// known by the page's key.
func (s *Site) generate(ctx context.Context, req pageRequest) error {
	inside := isInside(ctx)
	for ctx.Err() == nil {
		p, effect := s.cache.Get(&req.key, nil)
		if p.View(effect, time.Now()).State == page.Fresh {
			return nil
		}
		w := &waiter{byName: true, inside: inside}
		f, how := s.join(req, p, w)
		switch {
		case how == closed:
			return errClosed
		case f == nil:
			continue
		}
		select {
		case <-f.done:
			w.leave()
		case <-ctx.Done():
			w.leave()
			return ctx.Err()
		}
		switch out := &f.outcome; {
		case out.err != nil:
			return out.err
		case out.loaded, out.none, out.again, out.busy:
		case out.page.NotStored != (policy.Refusal{}):
			return &notStoredError{out.page.NotStored, out.status, out.location}
		default:
			return nil
		}
	}
	return ctx.Err()
}

// A notStoredError says that a page is generated for each visitor anew.
type notStoredError struct {
	why      policy.Refusal
	status   int    // of the response; zero where it has not come to that
	location string // its Location
}

func (e *notStoredError) Error() string { return "not stored: it " + e.why.String() }

// Prerender generates the pages at the given paths, a few at a time, so that the
// first visitors find them; pages that are stored and fresh are left alone. It
// works while its result is ranged over, and yields each path with its error as
// soon as it is done: a failure, a page that may not be stored, a path that is
// none. The loop may be left early. When ctx is done it ends, with ctx's error
// for the paths under way.
//
// Paths are those of Revalidate. A bare path needs Options.Origin, since it does
// not say for which host the page is. The pages are made without a pattern of a
// ServeMux around the Site: where that pattern has path values, or a host beside
// Origin, visitors get pages of their own, unless the wrapped handler is a ServeMux
// itself, which sets its own pattern.
func (s *Site) Prerender(ctx context.Context, paths iter.Seq[string]) iter.Seq2[string, error] {
	type result struct {
		path string
		err  error
	}
	return func(yield func(string, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		results := make(chan result, s.runs.limits[forRenewal])
		busy := 0
		defer func() {
			cancel()
			for ; busy > 0; busy-- {
				<-results
			}
		}()
		next := func() bool {
			r := <-results
			busy--
			return yield(r.path, r.err)
		}
		for path := range paths {
			if busy == s.runs.limits[forRenewal] && !next() {
				return
			}
			if ctx.Err() != nil {
				break
			}
			req, err := s.toPrerender(path) // here, where a panic of Bypass or Normalize is the caller's
			if err != nil {
				if !yield(path, err) {
					return
				}
				continue
			}
			busy++
			go func() {
				err := s.generate(ctx, req)
				if err != nil {
					err = fmt.Errorf("isr: prerender %s: %w", path, err)
				}
				results <- result{path, err}
			}()
		}
		for busy > 0 && next() {
		}
	}
}

// toPrerender returns the page that a path given to Prerender names.
func (s *Site) toPrerender(path string) (req pageRequest, err error) {
	t, err := s.parseTarget(path)
	if err != nil {
		return req, err
	}
	req, ok := s.pageOf(t)
	switch {
	case !ok:
		return req, fmt.Errorf("isr: prerender %s: no host: set Options.Origin, or name the page with scheme and host", path)
	case s.bypasses(req):
		return req, fmt.Errorf("isr: prerender %s: its route's Bypass keeps it out of the cache", path)
	}
	s.admit(&t)
	return req, nil
}

// crawlers are parts of the User-Agents of well-known crawlers, in lower case.
// They are told of a page once, and must not be told of a placeholder.
var crawlers = []string{
	"googlebot", "google-inspectiontool", "storebot-google", "mediapartners-google", "adsbot-google",
	"bingbot", "bingpreview", "slurp", "duckduckbot", "baiduspider", "yandex", "sogou", "yeti", "seznambot",
	"applebot", "petalbot", "qwantify", "ia_archiver", "archive.org_bot", "ccbot", "gptbot", "oai-searchbot",
	"claudebot", "perplexitybot", "amazonbot", "facebookexternalhit", "facebookcatalog", "meta-externalagent",
	"twitterbot", "linkedinbot", "slackbot", "discordbot", "telegrambot", "whatsapp", "skypeuripreview",
	"pinterestbot", "redditbot", "embedly", "ahrefsbot", "semrushbot", "mj12bot",
}

func isCrawler(userAgent string) bool {
	userAgent = strings.ToLower(userAgent)
	return slices.ContainsFunc(crawlers, func(name string) bool { return strings.Contains(userAgent, name) })
}
