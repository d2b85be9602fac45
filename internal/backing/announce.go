package backing

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/isr-go/isr/internal/invalidation"
	"github.com/isr-go/isr/store"
)

// Invalidate has an effect on all that is older and has one of the tags, here and in
// every instance. An error says that the Store has not taken it; then it holds here,
// and is delivered when the Store answers again.
func (s *Store) Invalidate(ctx context.Context, effect store.Effect, tags ...string) error {
	table := s.c.Table
	asked := table.Now()
	v, err := s.guard.Invalidate(ctx, effect, tags...)
	if err == nil && v <= asked.Version {
		err = errors.New("its versions have gone back")
	}
	if err != nil {
		if !table.Invalidate(effect, invalidation.Pending, tags...) {
			err = fmt.Errorf("%w; and the outbox is full, so that it will not be delivered later", err)
		}
		return fmt.Errorf("isr: the Store, and with it other instances and the next start, may not know of it: %w", err)
	}
	table.Invalidate(effect, invalidation.Delivered, tags...) // it holds here even if the Store answers with a later version
	table.Ack(effect, v, asked.Clock, tags...)
	return nil
}

// maxAnnouncing is how many calls to the Store at a time are on behalf of visitors: the
// rest are for Revalidate and Purge.
const maxAnnouncing = 32

// Announce is Invalidate for callers that cannot wait for the Store, or not for long: it
// holds here at once. The channel is closed when the Store has taken it, or has failed;
// or where too many calls are under way, and it is delivered with the rest of the outbox.
func (s *Store) Announce(effect store.Effect, tags ...string) <-chan struct{} {
	table := s.c.Table
	table.Invalidate(effect, invalidation.InFlight, tags...)
	asked, announced := table.Clock(), make(chan struct{})
	select {
	case s.announcing <- struct{}{}:
	default:
		table.Nack(tags)
		close(announced)
		return announced
	}
	s.WriteBehind(func() {
		defer close(announced)
		defer func() { <-s.announcing }()
		if v, err := s.guard.Invalidate(context.Background(), effect, tags...); err == nil {
			table.Ack(effect, v, asked, tags...)
		} else {
			table.Nack(tags)
		}
	})
	return announced
}

// WriteBehind calls f, which writes to the Store, in the background. Wait waits for it.
func (s *Store) WriteBehind(f func()) {
	s.pending.add(1)
	go func() {
		defer s.pending.add(-1)
		f()
	}()
}

// pendingWrites counts writes under way. Unlike a sync.WaitGroup it may be waited for
// while more are added.
type pendingWrites struct {
	mu   sync.Mutex // guards what follows; under Group.mu
	n    int
	idle chan struct{} // closed when n is zero; nil while Wait is not called
}

func (p *pendingWrites) add(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.n += n; p.n == 0 && p.idle != nil {
		close(p.idle)
		p.idle = nil
	}
}

func (p *pendingWrites) wait(ctx context.Context) error {
	p.mu.Lock()
	if p.n == 0 {
		p.mu.Unlock()
		return nil
	}
	if p.idle == nil {
		p.idle = make(chan struct{})
	}
	idle := p.idle
	p.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
