package redis

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/isr-go/isr/store"
)

// patience is how long a call goes on after its caller has left, at most.
const patience = 15 * time.Second

// maxCalls is how many calls of a kind are under way at once, those that were left behind
// among them. Connecting heeds no time limit but the client's own.
const maxCalls = 256

var (
	errReply = errors.New("unexpected reply")  // of a script
	errEnded = errors.New("it did not return") // but called runtime.Goexit
)

// call calls f, and leaves it behind when ctx is done.
//
// The client is not given the caller's deadline: it would close the connection when
// that is over, and with it the calls of all others on it; and connections that take
// longer than a caller has would never be made. Nor does it heed a ctx wherever it
// waits. What f does after its caller has left does no harm: a purge that nobody
// waits for is a purge, and an old record is superseded.
func call[T any](ctx context.Context, s *Store, op string, f func(context.Context, rueidis.Client) (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	var none T
	if err := ctx.Err(); err != nil {
		return none, fmt.Errorf("store/redis: %s: %w", op, err)
	}
	slots := s.rest
	switch op {
	case "look", "put", "end":
		slots = s.pages
	}
	select {
	case slots <- struct{}{}:
	case <-ctx.Done():
		return none, fmt.Errorf("store/redis: %s: %w", op, ctx.Err())
	}
	done := make(chan result, 1)
	go func() {
		r := result{err: errEnded} // which is what remains where f does not return
		defer func() {
			if p := recover(); p != nil { // on the caller's goroutine it would be net/http's
				r.err = fmt.Errorf("panic: %v", p)
			}
			r.err = fault(op, r.err)
			<-slots
			done <- r
		}()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		defer cancel()
		client, err := s.conn.get()
		if err == nil {
			r.value, err = f(ctx, client)
		}
		r.err = err
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		return none, fmt.Errorf("store/redis: %s: %w", op, ctx.Err())
	}
}

// fault returns the error of an operation: the store's own as they are, and all
// others as ErrUnavailable, with their text alone. What is behind it is no contract,
// and may be a context that was not the caller's.
func fault(op string, err error) error {
	if err == nil || errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrSuperseded) {
		return err
	}
	if e, ok := rueidis.IsRedisErr(err); ok && op == "put" && strings.Contains(e.Error(), "OOM") {
		return fmt.Errorf("store/redis: %s: %w: the server is full", op, store.ErrTooLarge)
	}
	return fmt.Errorf("store/redis: %s: %w: %s", op, store.ErrUnavailable, harmless(err))
}

// harmless returns the text of an error without what could be a secret. Errors of a
// URL quote it, with its password; a server that does not know a command quotes its
// arguments, which may be those of AUTH.
func harmless(err error) string {
	text := err.Error()
	if strings.Contains(text, "://") {
		return "withheld, since it has a URL in it"
	}
	text, _, _ = strings.Cut(text, ", with args")
	text, _, _ = strings.Cut(text, "\n")
	return text[:min(len(text), 300)]
}

// isWrongType says whether there is something else under a key than there should be.
func isWrongType(err error) bool {
	e, ok := rueidis.IsRedisErr(err)
	return ok && strings.HasPrefix(e.Error(), "WRONGTYPE")
}

// numbers reads the first numbers of a reply into n.
func numbers(list []rueidis.RedisMessage, n []int64) (err error) {
	if len(list) < len(n) {
		return errReply
	}
	for i := range n {
		if n[i], err = list[i].AsInt64(); err != nil {
			return errReply
		}
	}
	return nil
}

// A connection is a client, or the way to get one.
type connection struct {
	connect func() (rueidis.Client, error)

	mu      sync.Mutex // guards all below
	client  rueidis.Client
	attempt *attempt // nil: none is under way
}

// An attempt is a call of connect. All who need the client meanwhile share it.
type attempt struct {
	done   chan struct{} // closed when the rest is set
	client rueidis.Client
	err    error
}

// get returns the client. It takes as long as connect does. Where that panics, it
// has failed.
func (c *connection) get() (client rueidis.Client, err error) {
	c.mu.Lock()
	if c.client != nil {
		defer c.mu.Unlock()
		return c.client, nil
	}
	a := c.attempt
	if a != nil {
		c.mu.Unlock()
		<-a.done
		return a.client, a.err
	}
	a = &attempt{done: make(chan struct{}), err: errEnded}
	c.attempt = a
	c.mu.Unlock()

	defer func() {
		if p := recover(); p != nil {
			a.err = fmt.Errorf("connect panicked: %v", p)
		}
		if a.err == nil && a.client == nil {
			a.err = errors.New("connect returned no client")
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if a.err == nil {
			c.client = a.client
		}
		c.attempt = nil
		close(a.done)
		client, err = a.client, a.err
	}()
	a.client, a.err = c.connect()
	return
}
