package isr

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/isr-go/isr/store"
)

// A pageRequest says what to generate.
type pageRequest struct {
	key     key
	route   *route
	pattern string // of a ServeMux around the Site, if there is one
}

// server marks a page request as one under a server: httputil.ReverseProxy
// keeps quiet about a response that breaks off where it finds none.
var server = new(http.Server)

// build returns the request that the handler sees. It depends on the key and on
// what the developer has configured, on nothing else: the pattern of an outer
// ServeMux counts, and has path values, as far as it matches the key's own path.
func (p *pageRequest) build(ctx context.Context, o origin) *http.Request {
	r := &http.Request{
		Method: http.MethodGet, URL: urlOf(p.key.path, p.key.query), RequestURI: p.key.path,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: parseHeader(p.key.varied), Body: http.NoBody,
		Host: p.key.host, RemoteAddr: "0.0.0.0:0",
	}
	if p.key.query != "" {
		r.RequestURI += "?" + p.key.query
	}
	scheme := p.key.scheme
	if o.host != "" {
		scheme, r.Host = o.scheme, o.host
	}
	r.Header.Set("X-Forwarded-Proto", scheme)
	if scheme == "https" {
		r.TLS = &tls.ConnectionState{HandshakeComplete: true}
	}
	if p.pattern != "" {
		matchOuter(p.pattern, r)
	}
	return r.WithContext(context.WithValue(ctx, http.ServerContextKey, server))
}

// matchOuter gives r the pattern of a ServeMux around the Site, and the path values
// that follow from it and the page's own path. The method and host with which a
// visitor has come do not count. What is no pattern of a ServeMux comes from
// another kind of router, and is none of ours.
func matchOuter(pattern string, r *http.Request) {
	mux := outerMux(pattern)
	if mux == nil {
		return
	}
	mux.ServeHTTP(nowhere{}, r) // which sets both
	if r.Pattern != "" {
		r.Pattern = getPattern(pattern)
	}
}

// nowhere is a ResponseWriter for what nobody wants.
type nowhere struct{}

func (nowhere) Header() http.Header         { return make(http.Header) }
func (nowhere) WriteHeader(int)             {}
func (nowhere) Write(b []byte) (int, error) { return len(b), nil }

// runs are the generations under way and those in line, at most one for each
// page that a newcomer may join.
type runs struct {
	limit int // background runs at a time

	mu         sync.Mutex
	flights    map[key]*flight // guarded by mu, as all below
	line       []*flight       // background runs that wait for a slot
	strangers  int             // how many of them are of pages that are not stored
	paths      map[string]int  // how many runs are under way at a canonical path
	background int             // slots taken
	waiting    int             // background runs that wait for other instances, as many at most
	active     int             // runs under way
	behind     int             // what is on its way to the Store, while nobody waits for it
	fence      uint64          // the last ticket's
	closed     bool
	idle       chan struct{} // closed when closed is set and nothing is under way
}

func (r *runs) init(limit int) {
	r.limit = limit
	r.flights = make(map[key]*flight)
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
	once     sync.Once
	err      error // set before done is closed
}

func newDeadlineContext(deadline time.Time) *deadlineContext {
	return &deadlineContext{deadline: deadline, done: make(chan struct{})}
}

func (c *deadlineContext) cancel(err error) {
	c.once.Do(func() {
		c.err = err
		close(c.done)
	})
}

func (c *deadlineContext) Deadline() (time.Time, bool) { return c.deadline, !c.open.Load() }
func (c *deadlineContext) Done() <-chan struct{}       { return c.done }
func (c *deadlineContext) Value(any) any               { return nil }

func (c *deadlineContext) Err() error {
	select {
	case <-c.done:
		return c.err
	default:
		return nil
	}
}

// A flight is one generation of one page, and those who wait for it. It goes on
// when they leave.
type flight struct {
	pageRequest
	site *Site

	// Guarded by runs.mu, but constant once the run calls the handler: until then
	// it may find in the Store what it is to replace, and the ticket for it.
	old      *page // what it is to replace, or nil
	started  bool
	slot     bool // whether it holds one of the background slots
	waiting  bool // whether it has given that back
	byName   bool // whether somebody asked for the page by its name
	awaited  bool // whether anybody waits
	ticket   ticket
	lease    store.Ticket  // the Store's; zero where it could not be had
	looked   chan struct{} // closed when the Store was asked for the page; nil until the run has started
	ousted   *flight       // the run in whose place it is
	stranger bool          // counted in runs.strangers

	begin time.Time
	ctx   *deadlineContext

	takers atomic.Int64  // those who would take a stream
	offer  chan *stream  // to one of them: a response that is too large to be stored
	left   chan struct{} // one of them has left

	ended   atomic.Bool   // whether the outcome is decided
	done    chan struct{} // closed when outcome is set
	outcome outcome
}

// An outcome is what came of a generation: a page, stored or not, or a pass
// mark, or an error.
type outcome struct {
	page   *page
	stored bool
	loaded bool // whether the page was stored as it came from the Store
	none   bool // whether there is nothing to tell: another instance is at it, or nobody may be

	err    error
	status int     // with err: what those who wait get, unless raise says otherwise
	answer *answer // with err: the handler's own response, if it gave one
	panic  any     // with err: what the handler panicked with
	stack  []byte  // with panic: where, for the log
	goexit bool    // with err: whether it called runtime.Goexit
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
	errShort   = errors.New("the handler wrote fewer bytes than its Content-Length")
	errLong    = errors.New("the handler wrote more bytes than its Content-Length")
	errLate    = errors.New("isr: nobody waits for this response any more")
	errClosed  = errors.New("the site is shut down")
)

// A waiter says what someone who waits for a run needs of it.
type waiter struct {
	takes  bool // whether he would take a stream
	byName bool // whether he asked for the page by its name, and not in passing
}

// join returns a run of the page for someone who found seen in the cache, and
// whether it was there before. It returns nil where the cache holds something
// else by now, or the site is shut down. A nil waiter does not wait: his run is
// background work and may stand in line, or be turned away if that is too long.
func (s *Site) join(req pageRequest, seen *page, w *waiter) (f *flight, joined bool) {
	r := &s.runs
	r.mu.Lock()
	defer r.mu.Unlock()
	f = r.flights[req.key]
	if joined = f != nil && !f.tooOld(); !joined {
		if r.closed || s.cache.peek(&req.key) != seen {
			return nil, false
		}
		if w == nil && seen.unknown() && r.strangers >= maxStrangers*r.limit {
			return nil, false // those whom a placeholder sends away do not make the renewals wait
		}
		if w == nil && seen != nil && time.Now().UnixNano() < seen.away.Load() {
			return nil, false
		}
		f = s.newFlight(req, seen, f)
	}
	if w != nil {
		f.awaited = true
		if w.takes {
			f.takers.Add(1)
		}
	}
	switch {
	case f.started:
	case w != nil:
		f.byName = w.byName
		s.start(f, false)
	case joined:
	case r.background < r.limit:
		s.start(f, true)
	default:
		r.line = append(r.line, f)
		if f.stranger = seen.unknown(); f.stranger {
			r.strangers++
		}
	}
	return f, joined
}

// maxStrangers is how many pages that are not stored may stand in line for each
// slot.
const maxStrangers = 16

// unknown reports whether there is no page, or but a note that there is none.
func (p *page) unknown() bool { return p == nil || p.pass != (refusal{}) }

// leave notes that one of the takers does not wait any longer.
func (f *flight) leave() {
	f.takers.Add(-1)
	select {
	case f.left <- struct{}{}:
	default:
	}
}

// newFlight puts a run in the place of an older one. It is called under runs.mu.
func (s *Site) newFlight(req pageRequest, old *page, ousted *flight) *flight {
	req.key = req.key.clone()
	if req.pattern == "" && old != nil {
		req.pattern = old.pattern
	}
	f := &flight{
		pageRequest: req, site: s, old: old, ousted: ousted,
		offer: make(chan *stream), left: make(chan struct{}, 1), done: make(chan struct{}),
	}
	s.runs.flights[req.key] = f
	return f
}

// tags returns the tags that the page will have, as far as one can know.
func (f *flight) tags() []string {
	if !f.old.unknown() {
		return f.old.tags
	}
	return f.route.Tags
}

// tooOld reports whether what the run is about to say was invalidated since it
// began, as far as one can know. It is called under runs.mu.
func (f *flight) tooOld() bool {
	return f.started && f.site.cache.invalidated(&f.ticket, &f.key, f.tags())
}

// start begins a run. It is called under runs.mu.
func (s *Site) start(f *flight, slot bool) {
	r := &s.runs
	r.fence++
	r.active++
	if slot {
		r.background++
	}
	r.paths[canonicalPath(f.key.path)]++
	f.started, f.slot = true, slot
	f.ticket = s.cache.now()
	f.ticket.fence = r.fence
	if s.second != nil {
		f.looked = make(chan struct{})
	}
	go f.run()
}

// next starts what is first in line, while there are slots. It is called under
// runs.mu.
func (s *Site) next() {
	r := &s.runs
	for len(r.line) > 0 && r.background < r.limit {
		f := r.line[0]
		r.line[0], r.line = nil, r.line[1:]
		if f.stranger {
			r.strangers--
		}
		if !f.started { // else a visitor could not wait
			s.start(f, true)
		}
	}
}

// run looks into the Store, where there is one, and calls the handler. Whatever
// that does, the run ends: with its response, its panic, its Goexit, or at its
// deadline.
func (f *flight) run() {
	if f.site.second != nil && f.lookUp() {
		return
	}
	f.begin = time.Now()
	f.ctx = newDeadlineContext(f.begin.Add(f.route.Timeout))
	rec := &recorder{f: f, header: make(http.Header), length: -1}
	rec.timer = time.AfterFunc(f.route.Timeout, func() {
		f.end(outcome{err: errTimeout, status: http.StatusGatewayTimeout}) // before the handler can end in a hurry
		f.ctx.cancel(context.DeadlineExceeded)
		rec.abort(errTimeout)
	})
	returned := false
	defer func() {
		rec.timer.Stop()
		f.ctx.cancel(context.Canceled)
		if returned {
			return
		}
		out := outcome{err: errGoexit, goexit: true, status: http.StatusInternalServerError}
		if v := recover(); v != nil {
			out.err, out.goexit, out.panic = fmt.Errorf("the handler panicked: %v", v), false, v
			if v == http.ErrAbortHandler {
				out.err = http.ErrAbortHandler
			} else {
				out.stack = debug.Stack()
			}
		}
		rec.abort(out.err)
		if !f.end(out) && out.stack != nil && f.site.log != nil { // nobody else will say so
			f.site.log.Error("isr: a handler panicked whose response was not waited for any more",
				"path", f.key.path, "route", f.route.pattern, "error", out.err, "stack", string(out.stack))
		}
	}()
	r := f.build(f.ctx, f.site.origin)
	if f.old != nil && f.site.cache.effect(f.old) < store.Expired {
		rec.conditional = f.old.validators.ask(r.Header)
	}
	f.site.handler.ServeHTTP(rec, r)
	rec.finish()
	returned = true
}

// patience is how long a visitor waits for a page that another instance is
// generating, before it is generated for him.
const patience = 2 * time.Second

// lookUp asks the Store for the page, and then for the permission to generate it.
// It reports whether the run has ended with that: what another instance has made
// is as good as one's own. The trouble of the Store costs time, and nothing else.
func (f *flight) lookUp() (ended bool) {
	s, ctx, key := f.site, context.Background(), f.site.storeKey(&f.key)
	looked := sync.OnceFunc(func() { close(f.looked) })
	defer looked()
	s.second.meet()
	begin, returns := time.Now(), s.cache.returns.Load()
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		judged := s.cache.judged()
		rec, effect, err := s.second.Get(ctx, key)
		if err == nil && f.take(key, rec, effect, judged) {
			return true
		}
		looked()
		switch {
		case f.route.PrerenderedOnly && !s.cache.admits(f.key.path):
			f.end(outcome{none: true})
			return true
		case f.lease.Leader: // and has looked again since: the last leader might have ended in between
			return f.waiting && f.yield() // it has no slot to generate in
		case err != nil && !errors.Is(err, store.ErrNotFound):
			f.goBlind(returns)
			return false
		}
		if f.ousted != nil { // whose result is too old already
			s.second.End(ctx, key, f.ousted.permit())
			f.ousted = nil
		}
		clock := s.cache.clock.Load()
		t, err := s.second.Begin(ctx, key, f.leaseTTL())
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
	if !f.old.unknown() {
		ttl = max(ttl, 4*f.old.took)
	}
	return min(ttl, f.route.Timeout+time.Second)
}

// take stores what the Store has returned, if it is newer than what is stored
// here. It reports whether the run has ended with that.
func (f *flight) take(key string, rec *store.Record, effect store.Effect, judged ticket) bool {
	s := f.site
	p, err := decode(rec.Data, key, &f.pageRequest)
	if err != nil {
		s.report(Event{Kind: StoreFailed, Path: f.key.path, Route: f.route.pattern, Err: err})
		return false
	}
	p.order, p.told = store.Ticket{Version: rec.Version, Fence: rec.Fence}, effect
	p.ticket = ticket{clock: judged.clock, version: max(judged.version, rec.Version), fence: f.ticket.fence}
	if now := time.Now(); p.generated.After(now) { // by a clock that is ahead of ours
		p.generated = now
	}
	told := store.None // of what is stored here
	switch old := s.cache.peek(&f.key); {
	case old != nil && !p.newerThan(old): // another run of this instance has been here
		if !old.newerThan(p) {
			told = effect
		}
		p = old
	default:
		if old != nil {
			p.ticket.fence = max(p.ticket.fence, old.ticket.fence)
		}
		evicted, ok := s.cache.put(p, f.byName)
		s.reportEvicted(evicted)
		if !ok {
			return false
		}
	}
	if f.route.PrerenderedOnly {
		s.cache.admit(f.key.path) // or it would not be in the Store
	}
	r := &s.runs
	r.mu.Lock()
	f.old = p
	awaited := f.awaited
	r.mu.Unlock()
	switch p.view(max(told, s.cache.effect(p)), time.Now()).state {
	case Fresh:
	case Stale:
		if !awaited {
			return false // so it is time for a new one
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
	f.ticket.clock = clock
	f.ticket.version = max(f.ticket.version, t.Version)
	f.site.cache.see(t.Version)
}

// goBlind notes that the Store has given no ticket, unless it has before.
func (f *flight) goBlind(returns uint64) {
	if f.lease != (store.Ticket{}) {
		return
	}
	r := &f.site.runs
	r.mu.Lock()
	defer r.mu.Unlock()
	f.site.cache.blinded.Store(true)
	f.ticket.blind = returns + 1
}

// stepBack gives the slot of a run that waits for another instance to one that has
// something to do. It reports false where enough of them are waiting.
func (f *flight) stepBack() bool {
	s, r := f.site, &f.site.runs
	r.mu.Lock()
	defer r.mu.Unlock()
	if f.slot && !f.awaited {
		if r.waiting == r.limit {
			return false
		}
		f.slot, f.waiting = false, true
		r.background--
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
	if f.awaited {
		r.mu.Unlock()
		return false
	}
	if r.flights[f.key] == f {
		delete(r.flights, f.key)
	}
	if f.old != nil {
		f.old.away.Store(time.Now().Add(away).UnixNano())
	}
	r.mu.Unlock()
	return f.end(outcome{none: true})
}

// putBehind gives the Store what has come of the run, after the visitors have it,
// or else gives back the permission.
func (f *flight) putBehind() {
	s, r, ctx := f.site, &f.site.runs, context.Background()
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.behind--
		r.rest()
	}()
	<-f.done
	key, out := s.storeKey(&f.key), &f.outcome
	if p := out.page; p != nil && out.stored && !out.loaded && p.pass == (refusal{}) && p.ticket.blind == 0 {
		err := s.second.Put(ctx, key, f.lease, p.record(key))
		if err == nil || errors.Is(err, store.ErrSuperseded) {
			return
		}
		if errors.Is(err, store.ErrTooLarge) {
			s.warn(f.route, refusal{"is too large for the Store", "each instance generates it by itself; make it smaller, or set a smaller MaxPageBytes"}, f.key.path)
		}
	}
	if f.lease.Leader {
		s.second.End(ctx, key, f.lease)
	}
	if p := out.page; p != nil && p.pass != (refusal{}) && !f.old.unknown() {
		s.tellStore(store.Gone, f.key.exactTag()) // it is not for everybody any more
	}
}

// end decides the outcome, and reports whether nothing else has before. The page
// is stored before those who wait are told, and before anyone can start the next
// run. The Store gets it afterwards.
func (f *flight) end(out outcome) bool {
	if f.ended.Swap(true) {
		return false
	}
	defer close(f.done)
	defer f.land()
	if out.loaded || out.none {
		f.outcome = out
		return true
	}
	s := f.site
	took := time.Since(f.begin)
	var evicted []*page
	if p := out.page; p != nil {
		p.took = took
		evicted, out.stored = s.cache.put(p, f.byName)
	} else if p := s.cache.peek(&f.key); p != nil && p.ticket.fence <= f.ticket.fence {
		p.fail(out.err, f.ticket)
	} else if p == nil && f.route.Placeholder != nil {
		p = f.passMark(refusal{why: "could not be generated"})
		p.fail(out.err, f.ticket)
		evicted, _ = s.cache.put(p, false) // or nobody would ever see the error
	}
	f.outcome = out
	f.report(evicted, took)
	return true
}

// land makes room for the next run.
func (f *flight) land() {
	s, r := f.site, &f.site.runs
	r.mu.Lock()
	defer r.mu.Unlock()
	f.ousted = nil // or runs that oust each other would keep all of their pages
	if r.flights[f.key] == f {
		delete(r.flights, f.key)
	}
	path := canonicalPath(f.key.path)
	if r.paths[path]--; r.paths[path] == 0 {
		delete(r.paths, path)
	}
	if f.waiting {
		r.waiting--
	}
	if f.slot {
		r.background--
		s.next()
	}
	if s.second != nil {
		r.behind++
		go f.putBehind()
	}
	r.active--
	r.rest()
}

// rest says so where the site is shut down and nothing is under way. It is called
// under runs.mu.
func (r *runs) rest() {
	if !r.closed || r.active > 0 || r.behind > 0 {
		return
	}
	select {
	case <-r.idle:
	default:
		close(r.idle)
	}
}

// report tells what came of the run.
func (f *flight) report(evicted []*page, took time.Duration) {
	s, out := f.site, &f.outcome
	s.reportEvicted(evicted)
	e := Event{Path: f.key.path, Route: f.route.pattern, Duration: took}
	switch p := out.page; {
	case p == nil:
		e.Kind, e.Status, e.Err = Failed, out.status, out.err
		var stack []slog.Attr
		if out.stack != nil {
			stack = append(stack, slog.String("stack", string(out.stack)))
		}
		s.report(e, stack...)
	case p.pass != (refusal{}):
		s.warn(p.route, p.pass, p.key.path)
	default:
		e.Kind, e.Status = Generated, p.status
		s.report(e)
	}
}

func (s *Site) reportEvicted(pages []*page) {
	for _, p := range pages {
		s.report(Event{Kind: Evicted, Path: p.key.path, Route: p.route.pattern, Status: p.status})
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
		for _, f := range r.line {
			if !f.started && r.flights[f.key] == f {
				delete(r.flights, f.key)
			}
		}
		r.line = nil
		r.rest()
	}
	r.mu.Unlock()
	if s.second != nil {
		defer s.second.stop()
	}
	select {
	case <-r.idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// generate waits until a fresh page is stored. All that was invalidated before is
// known by the page's key.
func (s *Site) generate(ctx context.Context, req pageRequest) error {
	for ctx.Err() == nil {
		p, effect := s.cache.get(&req.key, nil)
		if p.view(effect, time.Now()).state == Fresh {
			return nil
		}
		f, _ := s.join(req, p, &waiter{byName: true})
		if f == nil {
			if s.runs.isClosed() {
				return errClosed
			}
			continue
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return ctx.Err()
		}
		switch out := f.outcome; {
		case out.err != nil:
			return out.err
		case out.loaded, out.none:
		case out.page.pass != (refusal{}):
			return &notStoredError{out.page.pass}
		default:
			return nil
		}
	}
	return ctx.Err()
}

// A notStoredError says that a page is generated for each visitor anew.
type notStoredError struct{ why refusal }

func (e *notStoredError) Error() string { return "not stored: it " + e.why.String() }

// Prerender generates the pages at the given paths, a few at a time, so that the
// first visitors find them; pages that are stored and fresh are left alone. It
// works while its result is ranged over, and yields each path with its error as
// soon as it is done: a failure, a page that may not be stored, a path that is
// none. The loop may be left early. When ctx is done it ends, with ctx's error
// for the paths under way.
//
// Paths are those of Revalidate. A bare path needs Options.Origin, since it does
// not say for which host the page is.
func (s *Site) Prerender(ctx context.Context, paths iter.Seq[string]) iter.Seq2[string, error] {
	type result struct {
		path string
		err  error
	}
	return func(yield func(string, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		results := make(chan result, s.runs.limit)
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
			if busy == s.runs.limit && !next() {
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

// A recorder is the ResponseWriter of a run. It decides what becomes of the
// response as soon as that is known: with the header, where it may not be
// stored, and with the first byte that is too many.
type recorder struct {
	f           *flight
	header      http.Header // the handler's
	conditional bool        // whether the request carries the validators of f.old
	timer       *time.Timer // the deadline

	mu     sync.Mutex  // guards what follows: handlers leave goroutines behind that go on writing
	closed error       // what later writes get, once the response's fate is sealed
	status int         // zero until the final header is written
	sent   http.Header // as it was then
	length int64       // the declared Content-Length, or -1
	fate   fate
	body   *bytes.Buffer
	size   int64 // of the body so far
	lied   bool  // whether more was written than declared
	pipe   *io.PipeWriter
}

// A fate is what becomes of a response.
type fate int

const (
	isPage    fate = iota
	isRenewal      // 304: the stored page is as good as new
	isFailure      // those who wait get it
)

// A stream is a response that is too large to be stored, on its way to a
// visitor.
type stream struct {
	status int
	header http.Header
	begin  []byte
	rest   *io.PipeReader // a read of nothing is a flush
	ticket ticket
	route  *route
	tags   []string
	ctx    *deadlineContext // of the run
	alive  func()           // puts the deadline off
}

// close ends the stream, and the run with it.
func (st *stream) close() {
	st.rest.CloseWithError(errLate)
	st.ctx.cancel(context.Canceled)
}

func (r *recorder) Header() http.Header { return r.header }

func (r *recorder) WriteHeader(status int) {
	if status < 100 || status > 999 {
		panic(fmt.Sprintf("invalid WriteHeader code %v", status)) // as net/http does
	}
	if status < 200 && status != http.StatusSwitchingProtocols {
		return // informational; the page is the final response
	}
	r.mu.Lock()
	why := r.writeHeader(status)
	r.mu.Unlock()
	r.pass(why)
}

// Flush writes the header, which may already decide what becomes of the
// response, and passes the wish on to who reads along.
func (r *recorder) Flush() {
	r.WriteHeader(http.StatusOK)
	r.mu.Lock()
	pipe := r.pipe
	r.mu.Unlock()
	if pipe != nil {
		pipe.Write(nil)
	}
}

// Hijack is not for pages.
func (r *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	r.mu.Lock()
	var why refusal
	if r.closed == nil {
		r.closed, why = errLate, refusal{"takes over the connection", "set Route.Bypass"}
	}
	r.mu.Unlock()
	r.pass(why)
	return nil, nil, http.ErrNotSupported
}

// writeHeader takes the final header, if it is the first, and says why the
// response may not be stored, if so. It is called under r.mu.
func (r *recorder) writeHeader(status int) (why refusal) {
	if r.status != 0 || r.closed != nil {
		return refusal{}
	}
	r.status = status
	r.sent = canonicalHeader(r.header)
	if n, err := strconv.ParseInt(r.sent.Get("Content-Length"), 10, 64); err == nil && n >= 0 {
		r.length = n
	}
	switch {
	case status >= 500 || status == http.StatusTooManyRequests:
		r.fate = isFailure
		return refusal{}
	case status == http.StatusNotModified && r.conditional:
		r.fate = isRenewal
		r.sent = r.f.old.merged(r.sent)
		status = r.f.old.status
	}
	if why = r.f.route.refuses(status, r.sent); why != (refusal{}) {
		r.closed = errLate
	}
	return why
}

// pass ends the run with a pass mark where there is a reason to. It is called
// without r.mu.
func (r *recorder) pass(why refusal) {
	if why != (refusal{}) {
		r.f.end(outcome{page: r.f.passMark(why)})
		r.mu.Lock()
		streaming := r.pipe != nil
		r.mu.Unlock()
		if !streaming {
			r.f.ctx.cancel(context.Canceled) // nobody needs the rest
		}
	}
}

func (r *recorder) Write(b []byte) (n int, err error) {
	r.mu.Lock()
	why := r.writeHeader(http.StatusOK)
	if why == (refusal{}) {
		n, why, err = r.write(b)
	}
	pipe := r.pipe
	r.mu.Unlock()
	r.pass(why)
	switch {
	case pipe != nil && err == nil:
		return pipe.Write(b) // without r.mu: the reader is as slow as his line
	case why != (refusal{}):
		return 0, errLate
	}
	return n, err
}

// write takes a part of the body, or says why the response may not be stored
// after all. It is called under r.mu.
func (r *recorder) write(b []byte) (n int, why refusal, err error) {
	limit := r.f.site.limit
	switch size := r.size + int64(len(b)); {
	case r.closed != nil && r.pipe == nil:
		return 0, why, r.closed
	case !bodyAllowed(r.status):
		return 0, why, http.ErrBodyNotAllowed
	case r.length >= 0 && size > r.length:
		r.lied = true
		return 0, why, http.ErrContentLength
	default:
		r.size = size
	}
	switch {
	case r.pipe != nil, r.fate == isFailure && r.size > limit:
	case r.fate != isFailure && (r.size > limit || r.length > limit):
		r.overflow()
		r.closed = errLate
		why = refusal{fmt.Sprintf("is larger than MaxPageBytes (%d)", limit), "raise it, or set Route.Bypass"}
	default:
		if r.body == nil {
			r.body = getBuffer()
		}
		r.body.Write(b)
	}
	return len(b), why, nil
}

// overflow hands what is too large to be stored to one of those who wait, if
// there is one, as a stream. It is called under r.mu.
func (r *recorder) overflow() {
	reader, writer := io.Pipe()
	st := &stream{
		status: r.status, header: r.sent, rest: reader, ticket: r.f.ticket, route: r.f.route, tags: tagsOf(r.f.route, r.sent),
		ctx: r.f.ctx, alive: func() { r.timer.Reset(r.f.route.Timeout) },
	}
	if r.body != nil {
		st.begin = bytes.Clone(r.body.Bytes())
	}
	for r.f.takers.Load() > 0 {
		select {
		case r.f.offer <- st:
			r.f.ctx.open.Store(true)
			r.pipe = writer
			return
		case <-r.f.left:
		case <-r.f.ctx.Done():
			return
		}
	}
}

// abort ends the response before the handler has: what it writes from now on is
// dropped, and who reads along gets the error.
func (r *recorder) abort(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed == nil {
		r.closed = errLate
	}
	if r.pipe != nil {
		r.pipe.CloseWithError(err)
	}
}

// finish ends the run when the handler has returned.
func (r *recorder) finish() {
	r.mu.Lock()
	why := r.writeHeader(http.StatusOK)
	pipe, decided := r.pipe, r.closed != nil
	r.closed = errLate
	r.mu.Unlock()
	r.pass(why)
	if pipe != nil {
		pipe.Close()
	}
	if decided {
		return
	}
	// From here on nobody but this goroutine touches the response.
	defer putBuffer(r.body)
	var body []byte
	if r.body != nil {
		body = r.body.Bytes()
	}
	fail := outcome{status: http.StatusBadGateway}
	switch {
	case r.lied:
		fail.err = errLong
	case r.length >= 0 && r.size < r.length && bodyAllowed(r.status):
		fail.err = errShort
	case r.fate == isFailure:
		fail.status = r.status
		fail.err = &statusError{r.status}
		if r.size <= r.f.site.limit {
			fail.answer = &answer{passedOn(r.sent, body), bytes.Clone(body)}
		}
	case r.fate == isRenewal:
		r.f.end(outcome{page: r.f.renewed(r.sent)})
		return
	default:
		r.f.end(outcome{page: r.f.newPage(r.status, r.sent, body)})
		return
	}
	r.f.end(fail)
}

// A statusError is an error response of the handler.
type statusError struct{ status int }

func (e *statusError) Error() string {
	return fmt.Sprintf("the handler answered %d %s", e.status, http.StatusText(e.status))
}

func bodyAllowed(status int) bool {
	return status >= 200 && status != http.StatusNoContent && status != http.StatusNotModified
}

// buffers hold the bodies of responses that are being written.
var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

func getBuffer() *bytes.Buffer { return buffers.Get().(*bytes.Buffer) }

func putBuffer(b *bytes.Buffer) {
	if b != nil && b.Cap() <= 1<<20 {
		b.Reset()
		buffers.Put(b)
	}
}
