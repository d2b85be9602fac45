// Package backing is the Store as the Site sees it. Calls return in time, also where the
// Store is down or slow; its invalidations are applied to the Site's table, and the
// Site's own are delivered to it. Those that it has not taken wait in an outbox until it
// answers again.
package backing

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/isr-go/isr/internal/guard"
	"github.com/isr-go/isr/internal/invalidation"
	"github.com/isr-go/isr/internal/pagekey"
	"github.com/isr-go/isr/store"
)

// A Config is what a Store is opened with.
type Config struct {
	Store    store.Store
	Build    string // what the keys of this program's build begin with, by BuildName
	Origin   pagekey.Origin
	Table    *invalidation.Table // what other instances invalidate goes there
	Failed   func(error)         // is called for each call that failed, but not while the Store counts as down
	Restored func()              // is called when the Store answers again

	// Delivered, if not nil, is called when the Store has taken what it had not at first.
	Delivered func(effect store.Effect, tags []string)
}

// A Store is the second level of the cache. It is safe for concurrent use.
type Store struct {
	c       Config
	guard   *guard.Guard
	pending pendingWrites

	stop      context.CancelFunc
	stopped   chan struct{} // closed when follow has ended
	ready     chan struct{} // closed when the first contact was made, or has failed
	readyOnce sync.Once

	announcing chan struct{} // slots of Announce
}

// Open makes a Store the second level, and begins to follow what is invalidated in
// it. Close ends that.
func Open(c Config) *Store {
	ctx, stop := context.WithCancel(context.Background())
	s := &Store{
		c: c, stop: stop, stopped: make(chan struct{}), ready: make(chan struct{}),
		announcing: make(chan struct{}, maxAnnouncing),
	}
	s.guard = guard.New(c.Store, func(err error) {
		s.setReady()
		c.Failed(err)
	})
	go s.follow(ctx)
	return s
}

// Wait waits until the writes under way have ended, or ctx is done, whose error it then
// returns.
func (s *Store) Wait(ctx context.Context) error { return s.pending.wait(ctx) }

// Close stops following the Store, and waits until that has ended.
func (s *Store) Close() {
	s.stop()
	<-s.stopped
}

func (s *Store) setReady() { s.readyOnce.Do(func() { close(s.ready) }) }

// maxReadyTime is how long Ready waits.
const maxReadyTime = 100 * time.Millisecond

// Ready waits for the first contact, but not for long: history that arrives in this
// time is applied before the first page is read, which then does not count as stale.
func (s *Store) Ready() {
	select {
	case <-s.ready:
		return
	default:
	}
	t := time.NewTimer(maxReadyTime)
	defer t.Stop()
	select {
	case <-s.ready:
	case <-t.C:
	}
}

// A Found is what Look returns.
type Found = guard.Found

// Look returns what is stored under a key and, where that is not newer than what the caller
// has, or was invalidated, a ticket to generate what belongs there. Other instances wait for
// its leader for ttl at most; zero: no ticket is wanted.
func (s *Store) Look(key string, have store.Ticket, ttl time.Duration) (Found, error) {
	return s.guard.Look(context.Background(), key, have, ttl)
}

// Save stores a record, and gives the lease back.
func (s *Store) Save(key string, t store.Ticket, rec *store.Record) error {
	return s.SaveLater(key, t, func() *store.Record { return rec }, func() {})
}

// SaveLater is Save of a record that is made when the Store can take it. Done is called when
// nothing holds it any longer, which may be later than SaveLater returns.
func (s *Store) SaveLater(key string, t store.Ticket, record func() *store.Record, done func()) error {
	return s.guard.Put(context.Background(), key, t, record, done)
}

// Release gives the lease back, if the ticket has it.
func (s *Store) Release(key string, t store.Ticket) {
	if t.Leader {
		s.guard.End(context.Background(), key, t)
	}
}

// maxReplayTime is how long after the start Changes may still be history from before it.
const maxReplayTime = 2 * time.Second

// errForgotten is reported where the Store may have lost more than is remembered.
var errForgotten = errors.New("the Store's history is another one, and more was invalidated within 10 minutes than can be sent to it again: invalidate it once more, or empty the Store")

// follow applies what is invalidated in the Store, until ctx is done.
func (s *Store) follow(ctx context.Context) {
	defer close(s.stopped)
	begin, replayed := time.Now(), false
	contact := begin // the last
	history := ""    // whose versions are known here
	var urgent atomic.Bool
	deliver := make(chan struct{}, 1)
	delivered := make(chan struct{})
	go func() {
		defer close(delivered)
		s.deliver(ctx, deliver, &urgent)
	}()
	defer func() { <-delivered }()
	s.guard.Follow(ctx,
		func(c store.Changes) {
			now := time.Now()
			at := now
			switch {
			case !replayed || c.Reset:
				at = time.Time{} // unknown: it is from before the Site began, or the history is another
			case now.Sub(contact) > maxReplayTime:
				at = contact // the Store was down, and it may have been right after the last contact
			}
			contact = now
			if c.Reset || history != "" && c.History != "" && c.History != history {
				// It may have lost what it has taken.
				if !s.c.Table.DeliverAgain() {
					s.c.Failed(errForgotten)
				}
				urgent.Store(true)
			}
			history = cmp.Or(c.History, history)
			s.c.Table.Apply(at, c)
			s.setReady()
			replayed = replayed || len(c.List) == 0 || time.Since(begin) > maxReplayTime
		},
		s.c.Restored,
		func() {
			if !s.guard.Down() { // else it answers, but the breaker is still open
				s.c.Table.Reconnected()
			}
			select {
			case deliver <- struct{}{}:
			default:
			}
		})
}

// deliver delivers the outbox when it is told that the Store answers, whatever becomes of
// look-ups meanwhile. Where the Store does not take it, it pauses, unless it is urgent.
func (s *Store) deliver(ctx context.Context, contact <-chan struct{}, urgent *atomic.Bool) {
	pause := time.Second
	var next time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-contact:
		}
		if now := time.Now(); urgent.Swap(false) || now.After(next) {
			if s.flush(ctx) {
				pause = time.Second
			} else {
				next, pause = now.Add(pause), min(2*pause, time.Minute)
			}
		}
	}
}

// flush delivers the outbox, and reports whether the Store has taken it all.
func (s *Store) flush(ctx context.Context) bool {
	for {
		undelivered, asked := s.c.Table.Undelivered()
		if len(undelivered) == 0 {
			return true
		}
		for effect, tags := range undelivered {
			v, err := s.guard.Invalidate(ctx, effect, tags...)
			if err != nil {
				return false
			}
			s.c.Table.Ack(effect, v, asked, tags...)
			if s.c.Delivered != nil {
				s.c.Delivered(effect, tags)
			}
		}
	}
}
