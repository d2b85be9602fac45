// Package hints is one subscription to what an engine pushes, for all calls of Changes of a
// Store: it is there while there are any, and is tried again when it is lost. A hint says no
// more than that it is time to look. What was missed is seen with the next look.
package hints

import (
	"context"
	"sync"
	"time"
)

const (
	// linger is how long a subscription outlives the last call of Changes: longer
	// than one who follows them needs between two calls.
	linger = 2 * time.Second

	// minPause and maxPause are the times between two attempts to subscribe.
	minPause = 50 * time.Millisecond
	maxPause = 5 * time.Second
)

// Hints are a subscription. New makes one. It is safe for concurrent use.
type Hints struct {
	subscribe func(ctx context.Context, hint func())
	back      chan struct{} // told when the engine answers, after it has not

	mu      sync.Mutex    // guards what follows; held alone
	waiting int           // calls of Changes
	stop    func()        // ends the subscription; nil: there is none
	linger  *time.Timer   // does that, after a while; nil: nobody has left yet
	hint    chan struct{} // closed by the next hint; nil: nobody waits for it
	silent  bool          // whether the last look has failed
}

// New returns Hints without a subscription. Subscribe calls hint for each message, and when
// it has subscribed, until ctx is done or there is no subscription any more.
func New(subscribe func(ctx context.Context, hint func())) *Hints {
	return &Hints{subscribe: subscribe, back: make(chan struct{}, 1)}
}

// Enter makes sure that there is a subscription, or an attempt at one, until Leave is called.
func (h *Hints) Enter() {
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

// Leave ends what Enter began, if nobody enters soon.
func (h *Hints) Leave() {
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

// Active reports whether there is a subscription, or an attempt at one.
func (h *Hints) Active() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.stop != nil
}

// Next returns a channel that the next hint closes. It is for who looks afterwards.
func (h *Hints) Next() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.hint == nil {
		h.hint = make(chan struct{})
	}
	return h.hint
}

// wake closes it.
func (h *Hints) wake() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.hint != nil {
		close(h.hint)
		h.hint = nil
	}
}

// Looked notes whether the engine answers. Where it does again, there is no reason to wait
// any longer before the next attempt to subscribe.
func (h *Hints) Looked(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err == nil && h.silent {
		select {
		case h.back <- struct{}{}:
		default:
		}
	}
	h.silent = err != nil
}

// follow subscribes until ctx is done, again and again. A subscription that was had
// is had again at once, the first time.
func (h *Hints) follow(ctx context.Context) {
	pause := time.Duration(0)
	for ctx.Err() == nil {
		began := time.Now()
		h.subscribe(ctx, h.wake)
		if time.Since(began) > maxPause {
			pause = 0
		}
		select {
		case <-time.After(pause):
			pause = min(2*pause+minPause, maxPause)
		case <-h.back:
			pause = minPause
		case <-ctx.Done():
		}
	}
}
