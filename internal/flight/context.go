package flight

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/isr-go/isr/internal/inside"
)

// A deadlineContext has a deadline, at which its run is to cancel it. Unlike that
// of context.WithDeadline it can be lifted.
type deadlineContext struct {
	deadline time.Time
	open     atomic.Bool // whether the deadline was lifted
	done     chan struct{}
	base     context.Context
	scope    *inside.Scope // what is said under it

	mu    sync.Mutex           // guards what follows; held alone
	err   error                // constant once done is closed
	after map[*func()]struct{} // what is to be called when done is closed
}

func newDeadlineContext(deadline time.Time, base context.Context, scope *inside.Scope) *deadlineContext {
	return &deadlineContext{deadline: deadline, done: make(chan struct{}), base: base, scope: scope}
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

// AfterFunc has f called when the context is done; f must not block. The context
// package calls AfterFunc where it is there, instead of starting a goroutine that
// waits for this context. It holds a mutex meanwhile that f takes, so f is never
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

func (c *deadlineContext) Done() <-chan struct{} { return c.done }

func (c *deadlineContext) Err() error {
	select {
	case <-c.done:
		return c.err
	default:
		return nil
	}
}

func (c *deadlineContext) Value(key any) any {
	if v := c.scope.Value(key); v != nil {
		return v
	}
	return c.base.Value(key)
}

// IsInside reports whether ctx is that of a page request.
func IsInside(ctx context.Context) bool { return inside.From(ctx) != nil }
