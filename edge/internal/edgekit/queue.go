// Package edgekit is what the adapters of package edge share: a queue that tells
// within a product's limits, a client whose errors hold no secret, and the lifetime
// that a header gives a page.
package edgekit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/isr-go/isr/edge"
	"github.com/isr-go/isr/store"
)

// A Queue tells a product what is asked for, in as few requests as its limits allow:
// what waits while a request is under way, or for a token of the bucket, shares the
// next one. Its fields are set before it is used. It runs no goroutine while there is
// nothing to tell.
type Queue struct {
	Name string // of the product, for errors

	// Send makes one request, for at most MaxItems. Soft means the product's soft purge.
	// An error that is a *BusyError is repeated when the product says so.
	Send func(ctx context.Context, soft bool, items []string) error

	MaxItems int           // of one request; zero: no limit
	MaxBytes int           // of one request's items, with one byte between each; zero: no limit
	Parallel int           // requests at a time; zero: 1
	Timeout  time.Duration // of one request; zero: 10 seconds

	// The token bucket: Burst requests at once, and one more each Every. Zero: no limit.
	Every time.Duration
	Burst int

	mu      sync.Mutex    // guards what follows; held alone
	waiting [2]lane       // purges, soft purges
	senders int           // that run
	spent   time.Time     // when the bucket would be full again, less Burst × Every: GCRA
	paused  time.Time     // until then the product takes nothing
	wake    chan struct{} // closed when somebody has left, where a sender sleeps
}

// A lane is what waits to be told with one effect, in order.
type lane struct {
	items []*item
	named map[string]*item
}

type item struct {
	name     string
	calls    []*call
	attempts int
}

// A call is one call of Tell.
type call struct {
	deadline time.Time // zero: none
	open     map[string]bool
	failed   []string
	err      error
	after    time.Time
	done     chan struct{}
}

// maxAttempts is how often a product may say that it is busy before that is an error.
const maxAttempts = 3

const defaultTimeout = 10 * time.Second

// A BusyError says that the product takes no more for a time.
type BusyError struct {
	After time.Duration
	Err   error
}

func (e *BusyError) Error() string { return e.Err.Error() }
func (e *BusyError) Unwrap() error { return e.Err }

// TellTags tells the tags by their tokens.
func (q *Queue) TellTags(ctx context.Context, effect store.Effect, tags []string) error {
	tokens := make([]string, len(tags))
	for i, tag := range tags {
		tokens[i] = edge.Token(tag)
	}
	err := q.Tell(ctx, effect, tokens)
	var untold *edge.UntoldError
	if !errors.As(err, &untold) {
		return err
	}
	tokens = untold.Tags
	slices.Sort(tokens)
	return Untold(tags, untold, func(tag string) bool {
		_, found := slices.BinarySearch(tokens, edge.Token(tag))
		return found
	})
}

// Untold returns an error like another one for those of the names that are not told.
func Untold(names []string, like *edge.UntoldError, untold func(name string) bool) error {
	e := &edge.UntoldError{After: like.After, Err: like.Err}
	seen := make(map[string]bool)
	for _, name := range names {
		if !seen[name] && untold(name) {
			seen[name] = true
			e.Tags = append(e.Tags, name)
		}
	}
	return e
}

// Tell tells the items, and returns when the product has answered for all of them, or
// ctx is done.
func (q *Queue) Tell(ctx context.Context, effect store.Effect, items []string) error {
	if len(items) == 0 || effect <= store.None {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return q.untold(&call{failed: unique(items), err: fmt.Errorf("%s: %w", q.Name, err)})
	}
	c := &call{open: make(map[string]bool, len(items)), done: make(chan struct{})}
	c.deadline, _ = ctx.Deadline()
	l := &q.waiting[0]
	if effect == store.Stale {
		l = &q.waiting[1]
	}
	q.mu.Lock()
	if l.named == nil {
		l.named = make(map[string]*item)
	}
	for _, name := range items {
		if c.open[name] {
			continue
		}
		c.open[name] = true
		it := l.named[name]
		if it == nil {
			it = &item{name: name}
			l.named[name] = it
			l.items = append(l.items, it)
		}
		it.calls = append(it.calls, c)
	}
	if now := time.Now(); q.next(now).After(now) {
		q.giveUp(now, q.next(now)) // senders that sleep do not see this call
	}
	for q.senders < max(q.Parallel, 1) && q.senders < len(q.waiting[0].items)+len(q.waiting[1].items) {
		q.senders++
		go q.run()
	}
	q.mu.Unlock()

	select {
	case <-c.done:
	case <-ctx.Done():
		q.mu.Lock()
		for name := range c.open {
			c.failed = append(c.failed, name)
		}
		clear(c.open) // what is under way answers to nobody
		if now := time.Now(); q.next(now).After(now) {
			c.after = q.next(now)
		}
		if c.err != nil {
			c.err = fmt.Errorf("%w: %w", ctx.Err(), c.err)
		} else {
			c.err = fmt.Errorf("%s: %w", q.Name, ctx.Err())
		}
		if q.wake != nil {
			close(q.wake)
			q.wake = nil
		}
		q.mu.Unlock()
	}
	if c.failed == nil {
		return nil
	}
	return q.untold(c)
}

func (q *Queue) untold(c *call) error {
	slices.Sort(c.failed)
	e := &edge.UntoldError{Tags: c.failed, Err: c.err}
	if !c.after.IsZero() {
		e.After = max(time.Until(c.after), 0)
	}
	return e
}

func unique(items []string) []string {
	items = slices.Clone(items)
	slices.Sort(items)
	return slices.Compact(items)
}

// run sends until nothing waits.
func (q *Queue) run() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		q.drop()
		if len(q.waiting[0].items)+len(q.waiting[1].items) == 0 {
			q.senders--
			return
		}
		now := time.Now()
		if at := q.next(now); at.After(now) {
			q.giveUp(now, at)
			if len(q.waiting[0].items)+len(q.waiting[1].items) == 0 {
				continue
			}
			if q.wake == nil {
				q.wake = make(chan struct{})
			}
			wake, timer := q.wake, time.NewTimer(at.Sub(now))
			q.mu.Unlock()
			select {
			case <-timer.C:
			case <-wake:
				timer.Stop()
			}
			q.mu.Lock()
			continue
		}
		q.spend(now)
		batch, soft := q.take()
		q.mu.Unlock()
		err := q.send(soft, batch)
		q.mu.Lock()
		q.settle(batch, soft, err)
	}
}

func (q *Queue) send(soft bool, batch []*item) (err error) {
	timeout := q.Timeout
	if timeout == 0 {
		timeout = defaultTimeout
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	names := make([]string, len(batch))
	for i, it := range batch {
		names[i] = it.name
	}
	return q.Send(ctx, soft, names)
}

// drop forgets what nobody waits for any more.
func (q *Queue) drop() {
	for i := range q.waiting {
		l := &q.waiting[i]
		l.items = slices.DeleteFunc(l.items, func(it *item) bool {
			it.calls = slices.DeleteFunc(it.calls, func(c *call) bool { return !c.open[it.name] })
			if len(it.calls) == 0 {
				delete(l.named, it.name)
				return true
			}
			return false
		})
	}
}

// next returns when the next request may be made.
func (q *Queue) next(now time.Time) time.Time {
	at := q.paused
	if q.Every > 0 {
		if free := q.spent.Add(-time.Duration(max(q.Burst, 1)-1) * q.Every); free.After(at) {
			at = free
		}
	}
	return at
}

func (q *Queue) spend(now time.Time) {
	if q.spent.Before(now) {
		q.spent = now
	}
	q.spent = q.spent.Add(q.Every)
}

// giveUp ends the calls that cannot wait until at.
func (q *Queue) giveUp(now, at time.Time) {
	for i := range q.waiting {
		for _, it := range q.waiting[i].items {
			for _, c := range it.calls {
				if !c.deadline.IsZero() && c.deadline.Before(at) && c.open[it.name] {
					if c.err == nil {
						c.err = fmt.Errorf("%s takes no more requests for %v", q.Name, at.Sub(now).Round(time.Millisecond))
					}
					c.after = at
					c.fail(it.name)
				}
			}
		}
	}
	q.drop()
}

func (c *call) fail(name string) {
	c.failed = append(c.failed, name)
	c.close(name)
}

func (c *call) close(name string) {
	delete(c.open, name)
	if len(c.open) == 0 {
		close(c.done)
	}
}

// take takes the next batch off a lane: purges go before soft purges.
func (q *Queue) take() (batch []*item, soft bool) {
	l := &q.waiting[0]
	if len(l.items) == 0 {
		l, soft = &q.waiting[1], true
	}
	n, bytes := 0, 0
	for _, it := range l.items {
		if bytes += len(it.name) + 1; n > 0 && (q.MaxItems > 0 && n == q.MaxItems || q.MaxBytes > 0 && bytes > q.MaxBytes+1) {
			break
		}
		n++
	}
	batch = slices.Clone(l.items[:n])
	l.items = slices.Delete(l.items, 0, n)
	for _, it := range batch {
		delete(l.named, it.name) // who asks from now on asks for another request
	}
	return batch, soft
}

// settle answers those who wait for the batch, or puts it back.
func (q *Queue) settle(batch []*item, soft bool, err error) {
	var busy *BusyError
	if errors.As(err, &busy) {
		q.paused = time.Now().Add(busy.After)
		again := make([]*item, 0, len(batch))
		for _, it := range batch {
			if it.attempts++; it.attempts < maxAttempts {
				again = append(again, it)
				continue
			}
			it.answer(err, q.paused)
		}
		l := &q.waiting[0]
		if soft {
			l = &q.waiting[1]
		}
		for _, it := range again {
			if other := l.named[it.name]; other != nil { // asked for meanwhile: once is enough
				other.calls = append(other.calls, it.calls...)
				other.attempts = it.attempts
				continue
			}
			l.named[it.name] = it
			l.items = append(l.items, it)
		}
		for i := range q.waiting {
			for _, it := range q.waiting[i].items {
				for _, c := range it.calls {
					if c.err == nil {
						c.err = err // in case that they cannot wait
					}
				}
			}
		}
		return
	}
	for _, it := range batch {
		it.answer(err, time.Time{})
	}
}

func (it *item) answer(err error, after time.Time) {
	for _, c := range it.calls {
		switch {
		case !c.open[it.name]: // has left
		case err != nil:
			c.err, c.after = err, after
			c.fail(it.name)
		default:
			c.close(it.name)
		}
	}
}

// Join returns one error for those of several servers that were told the same names:
// what one of them has not been told is not told.
func Join(names []string, errs []error) error {
	return JoinAs(names, nil, errs, func(name string) string { return name })
}

// JoinAs is Join where the servers were told items in place of names. If that was one
// for all of them, as everything is, itemOf need not know.
func JoinAs(names, items []string, errs []error, itemOf func(name string) string) error {
	all := &edge.UntoldError{}
	missing := make(map[string]bool)
	var reasons []error
	for _, err := range errs {
		if err == nil {
			continue
		}
		var untold *edge.UntoldError
		if !errors.As(err, &untold) {
			return errors.Join(errs...)
		}
		for _, item := range untold.Tags {
			missing[item] = true
		}
		all.After = max(all.After, untold.After)
		reasons = append(reasons, untold.Err)
	}
	switch len(reasons) {
	case 0:
		return nil
	case 1:
		all.Err = reasons[0]
	default:
		all.Err = errors.Join(reasons...)
	}
	return Untold(names, all, func(name string) bool { return len(items) == 1 || missing[itemOf(name)] })
}
