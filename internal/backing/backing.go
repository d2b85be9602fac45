// Package backing is the Store as the Site sees it: calls that come back in time
// whatever the Store does, its invalidations on their way into the Site's table, and
// the Site's own on their way to it. What the Store could not be told is sent when it
// answers again.
package backing

import (
	"context"
	"sync"
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
	Failed   func(error)         // is told of each call that failed, but not while the Store counts as down
	Restored func()              // is told when the Store answers again
}

// A Store is the second level of the cache. It is safe for concurrent use.
type Store struct {
	c       Config
	guard   *guard.Guard
	pending pending // what is on its way to the Store, while nobody waits for it

	stop      context.CancelFunc
	stopped   chan struct{} // closed when nothing is followed any more
	ready     chan struct{} // closed when the first contact was made, or has failed
	readyOnce sync.Once

	unknown    unknownLimiter
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

// Wait waits until the Store has all that was on its way to it, or ctx is done, whose
// error it then returns.
func (s *Store) Wait(ctx context.Context) error { return s.pending.wait(ctx) }

// Close ends the following, and waits for its end.
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

// Get returns what is stored under a key, and the strongest effect on it.
func (s *Store) Get(key string) (*store.Record, store.Effect, error) {
	return s.guard.Get(context.Background(), key)
}

// Lease asks for the permission to generate what belongs under a key. Others wait for
// it at most for ttl.
func (s *Store) Lease(key string, ttl time.Duration) (store.Ticket, error) {
	return s.guard.Begin(context.Background(), key, ttl)
}

// Save stores a record, and gives the lease back.
func (s *Store) Save(key string, t store.Ticket, rec *store.Record) error {
	return s.guard.Put(context.Background(), key, t, rec)
}

// Release gives a lease back, if it is one.
func (s *Store) Release(key string, t store.Ticket) {
	if t.Leader {
		s.guard.End(context.Background(), key, t)
	}
}

// maxReplayTime is how long what is followed may be history from before the start.
const maxReplayTime = 2 * time.Second

// follow takes over what is invalidated in the Store, until ctx is done.
func (s *Store) follow(ctx context.Context) {
	defer close(s.stopped)
	begin, replayed, pause := time.Now(), false, time.Second
	contact := begin // the last
	var next time.Time
	s.guard.Follow(ctx,
		func(c store.Changes) {
			now := time.Now()
			at := now
			switch {
			case !replayed || c.Reset:
				at = time.Time{} // what is from before the Site was there, or its order: unknown
			case now.Sub(contact) > maxReplayTime:
				at = contact // the Store was away, and it can have been right after that
			}
			contact = now
			s.c.Table.Apply(at, c)
			s.setReady()
			replayed = replayed || len(c.List) == 0 || time.Since(begin) > maxReplayTime
		},
		s.c.Restored,
		func() {
			if !s.guard.Down() { // else it answers, but is not trusted yet
				s.c.Table.Reconnected()
			}
			if now := time.Now(); now.After(next) {
				if s.flush(ctx) {
					pause = time.Second
				} else {
					next, pause = now.Add(pause), min(2*pause, time.Minute)
				}
			}
		})
}

// flush tells the Store what it has not yet heard of, and reports whether it has now.
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
		}
	}
}
