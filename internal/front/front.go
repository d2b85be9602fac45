// Package front tells the caches in front of a Site what was invalidated. What could not
// be told is owed, and told later; and everything is told once more when what was on its
// way to them at that moment has arrived.
package front

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/isr-go/isr/edge"
	"github.com/isr-go/isr/internal/pagekey"
	"github.com/isr-go/isr/store"
)

// A Name is what an invalidation names.
type Name struct {
	Tag string
	URL string // of what is named by path, as edge.URLs has it; empty for what has none
}

// Everything is the Name of all pages.
var Everything = Name{pagekey.Everything, "/*"}

// Tags returns the Names of tags.
func Tags(tags []string) []Name {
	names := make([]Name, len(tags))
	for i, tag := range tags {
		names[i].Tag = tag
	}
	return names
}

// An Order is an effect on what has one of the names.
type Order struct {
	Effect store.Effect
	Names  []Name
}

// A Config configures a Teller.
type Config struct {
	Edge     edge.Edge
	MaxBytes int64                // of names that are remembered
	Hearing  time.Duration        // before which nothing is told, but what visitors have changed: see Settling
	Flight   func() time.Duration // after which what was made before an invalidation has arrived
	Failed   func(error)          // is called for a failure, but once a minute while nobody waits
	Restored func()               // is called when an Edge that has failed takes again what it is told
}

// What happens before an invalidation is told: answers that were on their way have mostly
// arrived, in Settling; and where there is a fleet, every instance has heard of it, in
// Hearing: each asks the Store for about once a second. Whatever was under way has arrived
// in Flight, or later where a route's Timeout is longer.
const (
	Settling = 100 * time.Millisecond
	Hearing  = 1200 * time.Millisecond
	Flight   = 30 * time.Second
)

// Limits of calls. An Edge that does not return is left behind.
const (
	minCallTime = 2 * time.Second
	maxCallTime = 10 * time.Second
	maxLinger   = time.Second // after the deadline, for an Edge that says what it has told
	maxCalls    = 32          // at a time
	maxBatch    = 5000        // names that are told later, in one call
	maxProbe    = 100         // the same while the Edge fails
)

// A Teller tells an Edge. It is safe for concurrent use. It runs a goroutine only while
// something is to be told later.
type Teller struct {
	c     Config
	urls  edge.URLs // nil where the Edge is none
	calls chan struct{}

	mu      sync.Mutex // guards what follows, and entries; held alone
	entries map[key]*entry
	bytes   int64         // that the entries take
	orders  uint64        // so far
	running bool          // whether run does
	wake    chan struct{} // has a value when run has to look again
	turn    chan struct{} // closed when the next turn of run has ended
	later   time.Time     // until then visitors' orders wait
	down    time.Time     // since when the Edge has failed; zero: it has not
	said    time.Time     // when Failed was called last
	last    error         // of the Edge
	log     [maxLog]Record
	logged  int // so far
	closing bool
	closed  bool
	idle    chan struct{} // closed when there are no entries; nil while nobody waits
}

// New returns a Teller.
func New(c Config) *Teller {
	t := &Teller{
		c: c, calls: make(chan struct{}, maxCalls), entries: make(map[key]*entry),
		wake: make(chan struct{}, 1), turn: make(chan struct{}),
	}
	t.urls, _ = c.Edge.(edge.URLs)
	return t
}

// Marker returns Mark, or nil where there is no Teller.
func (t *Teller) Marker() func(h http.Header, tags []string) (fits bool) {
	if t == nil {
		return nil
	}
	return t.Mark
}

// Mark is the Edge's Mark. What panics does not fit.
func (t *Teller) Mark(h http.Header, tags []string) (fits bool) {
	defer func() {
		if v := recover(); v != nil {
			fits = false
			t.report(t.errorf("Mark panicked: %v", v), false)
		}
	}()
	return t.c.Edge.Mark(h, tags)
}

// Tell tells what was invalidated at a time, and returns when the Edge has taken it, or
// ctx is done. With an error it is owed.
func (t *Teller) Tell(ctx context.Context, since time.Time, orders ...Order) error {
	t.mu.Lock()
	var batches []batch
	for _, o := range orders {
		if len(o.Names) > 0 && o.Effect > store.None {
			batches = append(batches, t.begin(o, since, false))
		}
	}
	t.mu.Unlock()
	if len(batches) == 0 {
		return nil
	}
	err := ctx.Err()
	if wait := time.Until(since.Add(t.c.Hearing)); err == nil && wait > 0 {
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			err = ctx.Err()
		}
		timer.Stop()
	}
	if err != nil {
		for _, b := range batches {
			t.leave(b, since.Add(t.c.Hearing))
		}
		return fmt.Errorf("isr: edge: %w", err)
	}
	limit := maxCallTime
	if d, ok := ctx.Deadline(); ok {
		limit = min(limit, max(time.Until(d), minCallTime))
	}
	// The calls go on when the caller has left: what they reach is not owed.
	within, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	done := make(chan error, 1)
	go func() {
		defer cancel()
		errs := make([]error, len(batches))
		for i, b := range batches {
			errs[i] = t.settle(b, t.call(within, b), true)
		}
		done <- errors.Join(errs...)
	}()
	select {
	case err = <-done:
	case <-ctx.Done():
		select {
		case err = <-done:
		case <-time.After(maxLinger / 2):
			err = ctx.Err()
		}
	}
	if err != nil {
		return fmt.Errorf("isr: edge: %w", err)
	}
	return nil
}

// Announce is Tell for what a visitor has changed, who does not wait for long: it is told
// as soon as may be, and once more after Config.Hearing. The channel is
// closed when that was tried, or it is not worth waiting for.
func (t *Teller) Announce(effect store.Effect, names ...Name) <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	later := !t.down.IsZero() || t.later.After(now)
	b := t.begin(Order{effect, names}, now, true)
	for _, it := range b.items {
		it.calls--
	}
	t.start()
	if later {
		return closed
	}
	return t.turn
}

// Repeat has told once more, after Config.Hearing from now, what other instances have heard
// of only now.
func (t *Teller) Repeat(effect store.Effect, names ...Name) {
	t.mu.Lock()
	b := t.begin(Order{effect, names}, time.Now(), false)
	t.mu.Unlock()
	t.leave(b, time.Now().Add(t.c.Hearing))
}

// closed is a channel that is.
var closed = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// leave has a batch told later, since nobody waits for it any more.
func (t *Teller) leave(b batch, from time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range b.items {
		e.calls--
		if from.After(e.from) {
			e.from = from
		}
	}
	t.start()
}

// An outcome is what has come of a call.
type outcome struct {
	begin  time.Time
	untold map[key]bool // nil with an error: all
	after  time.Duration
	err    error
}

// errorf returns an error that names the Edge.
func (t *Teller) errorf(format string, args ...any) error {
	name := fmt.Sprintf("%T", t.c.Edge)
	if s, ok := t.c.Edge.(fmt.Stringer); ok {
		name = s.String()
	}
	return fmt.Errorf("%s: %w", name, fmt.Errorf(format, args...))
}

// call tells a batch, and returns soon after ctx is done, also where the Edge does not.
func (t *Teller) call(ctx context.Context, b batch) outcome {
	var tags, urls []string
	for _, e := range b.items {
		if e.isURL {
			urls = append(urls, e.key.name)
		} else {
			tags = append(tags, e.key.name)
		}
	}
	select {
	case t.calls <- struct{}{}:
	case <-ctx.Done():
		return outcome{begin: time.Now(), err: t.errorf("%d calls of it have not returned", maxCalls)}
	}
	out := outcome{begin: time.Now()}
	done := make(chan outcome, 1)
	go func(out outcome) {
		defer func() { <-t.calls }()
		returned := false
		defer func() {
			switch v := recover(); {
			case v != nil:
				out.untold, out.err = nil, t.errorf("Tell panicked: %v", v)
			case !returned:
				out.untold, out.err = nil, t.errorf("Tell called runtime.Goexit")
			}
			done <- out
		}()
		if len(urls) > 0 {
			out.add(urls, true, t.urls.TellURLs(ctx, b.effect, urls))
		}
		if len(tags) > 0 {
			out.add(tags, false, t.c.Edge.Tell(ctx, b.effect, tags))
		}
		returned = true
	}(out)
	linger := context.WithoutCancel(ctx)
	if d, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		linger, cancel = context.WithDeadline(linger, d.Add(maxLinger))
		defer cancel()
	}
	select {
	case out = <-done:
	case <-linger.Done():
		out.err = t.errorf("Tell did not return in time")
	}
	return out
}

// add adds what has come of telling names.
func (o *outcome) add(names []string, isURL bool, err error) {
	if err == nil {
		return
	}
	if o.untold == nil {
		o.untold = make(map[key]bool)
	}
	if untold := (*edge.UntoldError)(nil); errors.As(err, &untold) {
		names = untold.Tags
		o.after = max(o.after, untold.After)
	}
	for _, name := range names {
		o.untold[key{name, isURL}] = true
	}
	o.err = errors.Join(o.err, err)
}

// maxAfter is how long the Edge may ask to be left alone.
const maxAfter = 5 * time.Minute

// settle notes what has come of a call, and returns its error.
func (t *Teller) settle(b batch, out outcome, awaited bool) error {
	now := time.Now()
	t.mu.Lock()
	took := 0 // how many the Edge has taken
	if out.err != nil && out.after == 0 && t.down.IsZero() {
		t.down = out.begin
	}
	from := now.Add(min(out.after, maxAfter))
	if out.after == 0 {
		from = now.Add(t.pause(now))
	}
	for i, e := range b.items {
		untold := out.err != nil && (out.untold == nil || out.untold[e.key])
		if !untold {
			took++
		}
		if !untold {
			t.note(e, b.effect, out.begin)
		}
		if e.gone {
			continue
		}
		e.calls--
		switch {
		case !untold:
			if b.effect >= e.effect || b.effect >= store.Expired { // Expired and Gone are one to a cache in front
				e.told = max(e.told, b.asked[i])
			}
			e.from, e.err = time.Time{}, nil
			e.repeat = max(e.repeat, b.effect)
			t.schedule(e, out.begin)
		case e.owed():
			e.from, e.err = from, out.err
		}
		if !e.owed() && e.again.IsZero() && e.calls == 0 || t.closed {
			t.remove(e)
		}
	}
	restored := false
	switch t.last = out.err; {
	case out.err == nil && !t.down.IsZero():
		t.down, restored = time.Time{}, true
		for _, e := range t.entries { // it answers again
			if e.err != nil {
				e.from = time.Time{}
			}
		}
	case took > 0 && out.after > 0:
		t.down = time.Time{}
	}
	t.start()
	t.mu.Unlock()
	if out.err != nil {
		t.report(out.err, awaited)
	} else if restored {
		t.c.Restored()
	}
	return out.err
}

// pause is how long an Edge that fails is left alone: it grows with the outage, so that it
// takes little of what is left of that.
func (t *Teller) pause(now time.Time) time.Duration {
	return min(max(now.Sub(t.down)/30, time.Second/2), 30*time.Second)
}

// schedule has an entry told once more: after Hearing, where it was told before, and when
// what was under way must have arrived. It is called under t.mu.
func (t *Teller) schedule(e *entry, begin time.Time) {
	if !e.again.IsZero() && e.again.After(begin) {
		return
	}
	e.again = time.Time{}
	for _, after := range [2]time.Duration{t.c.Hearing, t.c.Flight()} {
		if at := e.since.Add(after); at.After(begin) && !t.closing {
			e.again = at
			return
		}
	}
	e.repeat = store.None
}

// report tells of a failure.
func (t *Teller) report(err error, awaited bool) {
	t.mu.Lock()
	now := time.Now()
	tell := awaited || now.Sub(t.said) >= time.Minute
	if tell {
		t.said = now
	}
	t.mu.Unlock()
	if tell {
		t.c.Failed(fmt.Errorf("edge: %w", err))
	}
}
