package redis

import (
	"context"
	"sync"
	"time"

	"github.com/redis/rueidis"
)

const (
	// linger is how long a subscription outlives the last call of Changes: longer
	// than one who follows them needs between two calls.
	linger = 2 * time.Second

	// maxPause is the longest time between two attempts to subscribe.
	maxPause = 5 * time.Second
)

// hints are one subscription for all calls of Changes: there while there are any.
// A hint says no more than that it is time to look.
type hints struct {
	// subscribe calls hint for each message, and when it has subscribed, until ctx
	// is done or there is no subscription any more.
	subscribe func(ctx context.Context, hint func())

	mu      sync.Mutex    // guards all below
	waiting int           // calls of Changes
	stop    func()        // ends the subscription; nil: there is none
	linger  *time.Timer   // does that, after a while; nil: nobody has left yet
	hint    chan struct{} // closed by the next hint; nil: nobody waits for it
	silent  bool          // whether the last look has failed
	back    chan struct{} // told when one has not, after that
}

// enter makes sure that there is a subscription until leave is called.
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

// looked notes whether the server answers. Where it does again, there is no reason
// to wait any longer before the next attempt to subscribe.
func (h *hints) looked(err error) {
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
func (h *hints) follow(ctx context.Context) {
	pause := time.Duration(0)
	for ctx.Err() == nil {
		began := time.Now()
		h.subscribe(ctx, h.wake)
		if time.Since(began) > maxPause {
			pause = 0
		}
		select {
		case <-time.After(pause):
			pause = min(2*pause+50*time.Millisecond, maxPause)
		case <-h.back:
			pause = 50 * time.Millisecond
		case <-ctx.Done():
		}
	}
}

// subscribe is what hints need. The connection is one of its own: on a shared one
// the answers to all others would wait, and end, with the subscription.
func (s *Store) subscribe(ctx context.Context, hint func()) {
	client, err := call(ctx, s, "subscribe", func(_ context.Context, client rueidis.Client) (rueidis.Client, error) {
		return client, nil
	})
	if err != nil {
		return
	}
	dedicated, release := client.Dedicate()
	defer release()
	ctx = rueidis.WithOnSubscriptionHook(ctx, func(rueidis.PubSubSubscription) { hint() })
	dedicated.Receive(ctx, dedicated.B().Subscribe().Channel(s.table).Build(), func(rueidis.PubSubMessage) { hint() })
	// Not back to the pool, where nobody would close it.
	dedicated.Close()
}
