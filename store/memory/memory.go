// Package memory is a [store.Store] in the memory of the process: the reference,
// for tests and for reading. It outlives no restart and is shared with nobody, so
// in production it does nothing that isr does not do without it.
package memory

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/isr-go/isr/store"
)

// maxTags is how many invalidated tags are remembered one by one. Of those that were
// invalidated longest ago filters remain: see [store.Versions].
const maxTags = 1 << 16

// A Store is an engine and its client in one: all who are to share records share
// the Store. New makes one. It starts no goroutine, and is not bounded: what it
// keeps goes when it is gone, past its TTL and asked for, or replaced.
type Store struct {
	start    store.Version // nothing is known of what was invalidated before
	versions *store.Versions

	mu      sync.Mutex // held for the whole of each change, so that no call sees half of one; before Versions.mu
	records map[string]stored
	leases  map[string]lease
	fence   uint64        // of the last ticket
	changed chan struct{} // closed by the next Invalidate
}

var _ store.Store = (*Store)(nil)

// stored is a record as its caller gave it, in a copy.
type stored struct {
	store.Record
	until time.Time // zero: for ever
}

// A lease is a leader's, by its token.
type lease struct {
	token string
	until time.Time
}

// New returns an empty store.
func New() *Store { return newStore(maxTags) }

func newStore(limit int) *Store {
	now := time.Now()
	s := &Store{
		// Versions go on from those of the last process, whose tickets and cursors
		// somebody may still hold: a clock is all that outlives it.
		start:    store.Version(now.UnixMicro()),
		versions: store.NewVersions(limit),
		records:  make(map[string]stored),
		leases:   make(map[string]lease),
		changed:  make(chan struct{}),
	}
	s.versions.Forget(now, s.start)
	return s
}

// Look implements [store.Store].
func (s *Store) Look(ctx context.Context, key string, have store.Ticket, ttl time.Duration) (*store.Record, store.Effect, store.Ticket, error) {
	var t store.Ticket
	if err := ctx.Err(); err != nil {
		return nil, store.None, t, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	rec, effect, err := s.get(key)
	if ttl > 0 && (err != nil || effect >= store.Expired || have.Compare(rec.Ticket()) >= 0) {
		t = s.begin(key, ttl)
	}
	return rec, effect, t, err
}

// get returns what is stored under a key. It is called under s.mu.
func (s *Store) get(key string) (*store.Record, store.Effect, error) {
	r, ok := s.records[key]
	if !ok {
		return nil, store.None, store.ErrNotFound
	}
	effect, _ := s.versions.Effect(r.Version, r.Tags)
	if effect == store.Gone || !r.until.IsZero() && !time.Now().Before(r.until) {
		delete(s.records, key)
		return nil, store.None, store.ErrNotFound
	}
	return clone(&r.Record), effect, nil
}

// begin returns the next ticket for a key. It is called under s.mu.
func (s *Store) begin(key string, ttl time.Duration) store.Ticket {
	s.fence++
	t := store.Ticket{Version: s.versions.Upto(), Fence: s.fence}
	now := time.Now()
	if held, ok := s.leases[key]; !ok || !now.Before(held.until) {
		t.Leader, t.Token = true, strconv.FormatUint(s.fence, 10)
		s.leases[key] = lease{token: t.Token, until: now.Add(ttl)}
	}
	return t
}

// Put implements [store.Store].
func (s *Store) Put(ctx context.Context, key string, t store.Ticket, rec *store.Record) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.release(key, t)
	if t.Version < s.start || t.Version > s.versions.Upto() {
		return fmt.Errorf("%w: the ticket is another store's", store.ErrSuperseded)
	}
	if old, ok := s.records[key]; ok && t.Compare(old.Ticket()) < 0 {
		return store.ErrSuperseded
	}
	r := stored{Record: *clone(rec)}
	r.Version, r.Fence = t.Version, t.Fence
	if r.TTL > 0 {
		r.until = time.Now().Add(r.TTL)
	}
	s.records[key] = r
	return nil
}

// End implements [store.Store].
func (s *Store) End(ctx context.Context, key string, t store.Ticket) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.release(key, t)
	return nil
}

// release gives the ticket's lease back, where it has it. It is called under s.mu.
func (s *Store) release(key string, t store.Ticket) {
	if t.Leader && s.leases[key].token == t.Token {
		delete(s.leases, key)
	}
}

// Invalidate implements [store.Store].
func (s *Store) Invalidate(ctx context.Context, effect store.Effect, tags ...string) (store.Version, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if effect <= store.None || effect > store.Gone {
		return 0, fmt.Errorf("store/memory: cannot invalidate to %v", effect)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	v := max(store.Version(now.UnixMicro()), s.versions.Upto()+1)
	changes := []store.Change{{Version: v}} // the version counts where there are no tags, too
	for _, tag := range tags {
		changes = append(changes, store.Change{Tag: tag, Version: v, Effect: effect})
	}
	s.versions.Apply(now, changes...)
	close(s.changed)
	s.changed = make(chan struct{})
	return v, nil
}

// Changes implements [store.Store].
func (s *Store) Changes(ctx context.Context, after store.Version) (store.Changes, error) {
	if err := ctx.Err(); err != nil {
		return store.Changes{}, err
	}
	heartbeat := time.NewTimer(time.Second)
	defer heartbeat.Stop()
	for {
		s.mu.Lock()
		c, changed := s.versions.Changes(after), s.changed
		s.mu.Unlock()
		c.History = strconv.FormatUint(uint64(s.start), 10)
		if c.Upto != after || c.Reset {
			return c, nil
		}
		select {
		case <-changed:
		case <-heartbeat.C:
			return c, nil
		case <-ctx.Done():
			return store.Changes{}, ctx.Err()
		}
	}
}

// clone returns a copy that shares nothing with r.
func clone(r *store.Record) *store.Record {
	c := *r
	c.Tags, c.Data = slices.Clone(r.Tags), slices.Clone(r.Data)
	return &c
}
