// Package budget bounds how many bytes are held outside of the cache: by readers who are
// slow, and on the way to a Store.
package budget

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// A Budget is a number of bytes that may be held. It is safe for concurrent use.
type Budget struct {
	max  int64
	held atomic.Int64
}

// New returns a Budget of max bytes.
func New(max int64) *Budget { return &Budget{max: max} }

// Hold takes n bytes of the Budget until release is called, or reports false where fewer
// are left. What is alone in it may have any size. Release may be called more than once.
func (b *Budget) Hold(n int64) (release func(), ok bool) {
	if held := b.held.Add(n); n > 0 && held > b.max && held > n {
		b.held.Add(-n)
		return nil, false
	}
	return sync.OnceFunc(func() { b.held.Add(-n) }), true
}

// Bounds of Await.
const (
	awaitPoll = 5 * time.Millisecond
	maxAwait  = 500 * time.Millisecond
)

// Await waits until half of the Budget is free, but not for long: it slows down who would
// else come to its end.
func (b *Budget) Await(ctx context.Context) {
	for end := time.Now().Add(maxAwait); b.held.Load() > b.max/2 && time.Now().Before(end); {
		t := time.NewTimer(awaitPoll)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
	}
}
