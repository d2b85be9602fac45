package postgres

import (
	"context"
	"sync"
	"time"
)

// linger is how long the connection that listens outlives the last call of Changes: longer
// than one who follows them needs between two calls.
const linger = 2 * time.Second

// maxPause is the longest time between two attempts to listen.
const maxPause = 5 * time.Second

// hints are one connection that listens, for all calls of Changes: there while there are any.
type hints struct {
	listen func(ctx context.Context, hint func()) // until ctx is done or it fails

	mu      sync.Mutex    // guards what follows; held alone
	waiting int           // calls of Changes
	stop    func()        // ends the listening; nil: there is none
	linger  *time.Timer   // does that, after a while; nil: nobody has left yet
	hint    chan struct{} // closed by the next hint; nil: nobody waits for it
}

// enter makes sure that somebody listens until leave is called.
func (h *hints) enter() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.waiting++
	if h.linger != nil {
		h.linger.Stop()
	}
	if h.stop == nil {
		ctx, cancel := context.WithCancel(context.Background())
		h.stop = cancel
		go h.follow(ctx)
	}
}

// leave ends what enter began, if nobody enters soon.
func (h *hints) leave() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.waiting--; h.waiting > 0 {
		return
	}
	h.linger = time.AfterFunc(linger, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.waiting == 0 && h.stop != nil { // who has entered meanwhile came too late to stop this
			h.stop()
			h.stop = nil
		}
	})
}

// next returns a channel that the next hint closes.
func (h *hints) next() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.hint == nil {
		h.hint = make(chan struct{})
	}
	return h.hint
}

// wake closes it.
func (h *hints) wake() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.hint != nil {
		close(h.hint)
		h.hint = nil
	}
}

// follow listens until ctx is done, again and again.
func (h *hints) follow(ctx context.Context) {
	pause := time.Duration(0)
	for ctx.Err() == nil {
		began := time.Now()
		h.listen(ctx, h.wake)
		if time.Since(began) > maxPause {
			pause = 0
		}
		select {
		case <-time.After(pause):
			pause = min(2*pause+50*time.Millisecond, maxPause)
		case <-ctx.Done():
		}
	}
}

// listen is what hints need.
func (s *Store) listen(ctx context.Context, hint func()) {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return
	}
	c := conn.Hijack() // it listens still, so that it must not go back
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		c.Close(ctx)
	}()
	if _, err := c.Exec(ctx, "LISTEN isr_versions"); err != nil {
		return
	}
	hint() // what came before
	for {
		if _, err := c.WaitForNotification(ctx); err != nil {
			return
		}
		hint()
	}
}
