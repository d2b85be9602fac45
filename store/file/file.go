// Package file is a [store.Store] on plain files in a directory: for one machine,
// whose pages are to outlive a restart, and for several processes on it that share
// them.
//
// # The idea
//
// The order of the invalidations is a log, to which all processes append under one
// lock, and which is on the disk before Invalidate returns. Every other call first
// looks whether the log has grown. So no process tells another anything, and none
// can miss anything.
//
// Pages are one file each, written beside and renamed into place, and not forced to
// the disk: what a power failure tears is recognized by its checksum, and is a miss.
//
// # What holds
//
// After a crash of a process, everything. After a power failure, every invalidation
// that was acknowledged, and every page that had reached the disk. When the directory
// is deleted, while it is used or between, all is lost at once, and versions go on
// from the clock, or from what a process remembers, whichever is newer: only a clock
// that was set back while no process was there to remember can make them go back.
//
// The directory is for a local file system, and for one user, whose alone it is: one
// that belongs to another user, or that others may write, is refused. On a network file
// system, locks and sizes need not be what they are for others.
package file

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/isr-go/isr/store"
)

const (
	defaultMaxBytes = 1 << 30
	pollInterval    = 20 * time.Millisecond // how often Changes looks
	heartbeat       = time.Second           // how long it does
	maxCalls        = 64                    // of each kind, at a time: a file system that hangs blocks a thread for each
)

// Options configure a [Store].
type Options struct {
	// MaxBytes is how much the pages may take, each rounded up to 4 KiB, as on the
	// disk. When it gets short of room, those are removed that were not used for the
	// longest time. All who share a directory should give the same. Zero means 1 GiB,
	// and less than zero no limit.
	MaxBytes int64
}

// A Store keeps records in a directory. Open makes one. Several may be open on the same
// directory, in one process or many. It holds no lock between calls, and nothing that
// would have to be closed.
//
// Where the directory cannot be written, Look and Changes work, the tickets are without
// leases, and all else is an error that wraps [store.ErrUnavailable].
//
// A call returns when its context ends, even where the file system hangs. What it
// has begun then comes to its end, or to nothing, without it.
type Store struct {
	dir      string
	maxBytes int64
	history  *history
	turn     chan struct{} // holds whose turn it is, in this process, to wait for the lock of all
	pageTurn chan struct{} // holds the one call for a page that may wait for the turn: invalidations wait for no crowd

	// They hold the calls under way: reads, which wait for no lock, writes of pages and
	// their leases, which may, and invalidations.
	reads, writes, invalidations chan struct{}

	sweeper sweeper

	mu    sync.Mutex // guards fence; held alone
	fence uint64     // of the last ticket that was given without the lock
}

var _ store.Store = (*Store)(nil)

// errFull says that there is no room under MaxBytes.
var errFull = errors.New("the directory is full")

// Open returns a store in a directory, and makes the directory, for this user alone,
// where there is none. Nothing in it is read before it is needed. A directory that
// cannot be made, a file in its place, or one that holds what another version of this
// package has stored there, is an error.
//
// So is, on Unix, a directory that belongs to another user, that its group or others may
// write, or that is a symbolic link of another user but root, also where it is only read,
// and for root, too: who can write there chooses what visitors get. Where the directory is
// replaced later by another user's, all calls fail. On other systems none of this is
// looked at: keep others out by its rights.
func Open(dir string, opts Options) (*Store, error) {
	if dir == "" {
		return nil, errors.New("store/file: no directory given")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("store/file: %w", err)
	}
	s := &Store{
		dir:      dir,
		maxBytes: opts.MaxBytes,
		history:  newHistory(dir),
		turn:     make(chan struct{}, 1),
		pageTurn: make(chan struct{}, 1),

		reads:         make(chan struct{}, maxCalls),
		writes:        make(chan struct{}, maxCalls),
		invalidations: make(chan struct{}, maxCalls),
	}
	if s.maxBytes == 0 {
		s.maxBytes = defaultMaxBytes
	}
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = mkdir(dir)
	case err == nil && !info.IsDir():
		err = fmt.Errorf("%s is a file, and not a directory", dir)
	case err == nil:
		if err = private(dir); err == nil {
			err = checkFormat(s.history.path)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("store/file: %w", err)
	}
	return s, nil
}

// checkFormat returns an error if a log is there that cannot be used.
func checkFormat(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	b := make([]byte, headerSize)
	n, err := io.ReadFull(f, b)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return err
	}
	if _, err = parseHeader(b[:n]); errors.Is(err, errDamaged) {
		return nil // its history is lost, and the next one to write begins another
	}
	return err
}

// A found is what Look returns.
type found struct {
	rec    *store.Record
	effect store.Effect
	ticket store.Ticket
}

// doesFor says whether a record will do for a caller who has another, by the contract.
func (f *found) doesFor(have store.Ticket) bool {
	return f.rec != nil && f.effect < store.Expired && f.rec.Ticket().Compare(have) > 0
}

// Look implements [store.Store]. Only who gets a ticket waits for the lock.
func (s *Store) Look(ctx context.Context, key string, have store.Ticket, ttl time.Duration) (*store.Record, store.Effect, store.Ticket, error) {
	hash := hashOf(key)
	f, err := call(ctx, s.reads, "look", func() (f found, err error) {
		f.rec, f.effect, err = s.get(hash)
		return f, err
	})
	if ttl > 0 && (err == nil || errors.Is(err, store.ErrNotFound)) && !f.doesFor(have) {
		miss, first := err, f // a call that is given up may still read it
		if f, err = call(ctx, s.writes, "look", func() (found, error) {
			return again(func() (found, error) { return s.begin(ctx, hash, first, have, ttl) })
		}); err == nil && f.rec == nil {
			err = cmp.Or(miss, error(store.ErrNotFound))
		}
	}
	return f.rec, f.effect, f.ticket, err
}

func (s *Store) get(key keyHash) (*store.Record, store.Effect, error) {
	path := filepath.Join(s.dir, key.path())
	p, b, used, err := readPage(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, store.None, store.ErrNotFound
	}
	if err != nil {
		return nil, store.None, err
	}
	now := time.Now()
	if p.expired(now) {
		return nil, store.None, store.ErrNotFound
	}
	// The log is read after the page, so that it is not behind it.
	v, err := s.history.follow()
	if err != nil {
		return nil, store.None, err
	}
	if !v.knows(p.history, p.ticket.Version) {
		return nil, store.None, store.ErrNotFound
	}
	rec := new(store.Record)
	if err := rec.UnmarshalBinary(b); err != nil {
		return nil, store.None, err
	}
	effect := v.effect(rec.Version, rec.Tags)
	if effect == store.Gone {
		return nil, store.None, store.ErrNotFound
	}
	if now.Sub(used) > recently {
		os.Chtimes(path, now, now) // for the sweeper; a page that may not be touched is as good
	}
	return rec, effect, nil
}

// begin adds a ticket to what was found under a key, or finds, now that it has the lock, a
// record that will do.
func (s *Store) begin(ctx context.Context, key keyHash, f found, have store.Ticket, ttl time.Duration) (found, error) {
	l, err := s.lockForPage(ctx, os.O_CREATE)
	if err != nil {
		f.ticket, err = s.beginWithout(ctx)
		return f, err
	}
	defer l.unlock()
	v, err := s.history.writable(l.held)
	if err != nil {
		return f, err
	}
	// Who had the lease until now may have stored a record.
	if p, err := readHead(filepath.Join(s.dir, key.path())); err == nil && (f.rec == nil || p.ticket.Compare(f.rec.Ticket()) > 0) {
		switch rec, effect, err := s.get(key); {
		case err == nil:
			f = found{rec: rec, effect: effect}
		case !errors.Is(err, store.ErrNotFound):
			return f, err
		}
		if f.doesFor(have) {
			return f, nil
		}
	}
	f.ticket = store.Ticket{Version: v.top, Fence: l.next()}
	token, lease := newToken(v.head.id, true)
	if f.ticket.Leader = l.lease(&key, lease, ttl); !f.ticket.Leader {
		token, _ = newToken(v.head.id, false)
	}
	f.ticket.Token = token
	return f, nil
}

// beginWithout gives a ticket where there is no lock to be had: the page can be
// rendered, if hardly stored, and nobody should wait for it.
func (s *Store) beginWithout(ctx context.Context) (store.Ticket, error) {
	if err := ctx.Err(); err != nil {
		return store.Ticket{}, err
	}
	v, err := s.history.follow()
	if err != nil {
		return store.Ticket{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fence = max(clock(), s.fence+1)
	t := store.Ticket{Version: v.top, Fence: s.fence, Leader: true}
	t.Token, _ = newToken(cmp.Or(v.head.id, rand.Uint64()), false) // no log, no history
	return t, nil
}

// Put implements [store.Store]. A disk or quota that is full is an
// [store.ErrTooLarge], like a record that is larger than MaxBytes: there may be room
// for a smaller one.
func (s *Store) Put(ctx context.Context, key string, t store.Ticket, rec *store.Record) error {
	hash := hashOf(key)
	r := *rec
	r.Version, r.Fence = t.Version, t.Fence
	history, _ := parseToken(t)
	// The record is the caller's again when the context has ended, so it is copied
	// before.
	b, err := encodePage(history, &r)
	if err != nil {
		return err
	}
	_, err = call(ctx, s.writes, "put", func() (struct{}, error) {
		err := s.put(ctx, hash, t, b)
		for range 8 { // others take the room, too
			if !errors.Is(err, errFull) || ctx.Err() != nil {
				break
			}
			done := s.sweep(true)
			if !s.squeeze(ctx, counted(int64(len(b)))) && done != nil { // or the sum is wrong
				select {
				case <-done:
				case <-ctx.Done():
					return struct{}{}, ctx.Err()
				}
			}
			err = s.put(ctx, hash, t, b)
		}
		if err != nil {
			s.end(ctx, hash, t)
		}
		if full(err) || errors.Is(err, errFull) {
			err = fmt.Errorf("%w: %w", store.ErrTooLarge, err)
		}
		return struct{}{}, err
	})
	return err
}

// put is Put of an encoded file.
func (s *Store) put(ctx context.Context, key keyHash, t store.Ticket, b []byte) error {
	size := counted(int64(len(b)))
	if s.maxBytes > 0 && size > s.maxBytes {
		return fmt.Errorf("%w: %d bytes of %d", store.ErrTooLarge, size, s.maxBytes)
	}
	_, err := again(func() (struct{}, error) {
		temp, err := writeTemp(s.dir, "page-", b, false)
		if err == nil {
			if err = s.commit(ctx, key, t, temp, size); err != nil {
				os.Remove(temp)
			}
		}
		return struct{}{}, err
	})
	return err
}

// commit puts a file into the place of an older record's.
func (s *Store) commit(ctx context.Context, key keyHash, t store.Ticket, temp string, size int64) error {
	l, err := s.lockForPage(ctx, os.O_CREATE)
	if err != nil {
		return err
	}
	defer l.unlock()
	history, lease := parseToken(t)
	path := filepath.Join(s.dir, key.path())
	old, err := readHead(path)
	if err != nil {
		return err
	}
	v, err := s.history.writable(l.held)
	if err != nil {
		return err
	}
	switch {
	case !v.knows(history, t.Version):
		return fmt.Errorf("%w: the ticket is of a history that is lost", store.ErrSuperseded)
	case v.knows(old.history, old.ticket.Version) && t.Compare(old.ticket) < 0:
		return store.ErrSuperseded
	case s.maxBytes > 0 && l.bytes-old.size+size > s.maxBytes:
		return errFull
	}
	if err = s.place(temp, path); err != nil {
		return err
	}
	l.setBytes(l.bytes + size - old.size)
	l.release(&key, lease)
	s.sweep(s.maxBytes > 0 && l.bytes > s.highWater())
	return nil
}

// End implements [store.Store].
func (s *Store) End(ctx context.Context, key string, t store.Ticket) error {
	hash := hashOf(key)
	_, err := call(ctx, s.writes, "end", func() (struct{}, error) { return struct{}{}, s.end(ctx, hash, t) })
	return err
}

func (s *Store) end(ctx context.Context, key keyHash, t store.Ticket) error {
	_, lease := parseToken(t)
	if lease == 0 {
		return nil
	}
	l, err := s.lockForPage(ctx, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer l.unlock()
	l.release(&key, lease)
	return nil
}

// Invalidate implements [store.Store].
func (s *Store) Invalidate(ctx context.Context, effect store.Effect, tags ...string) (store.Version, error) {
	if effect <= store.None || effect > store.Gone {
		return 0, fmt.Errorf("store/file: cannot invalidate to %v", effect)
	}
	tags = slices.Clone(tags)
	return call(ctx, s.invalidations, "invalidate", func() (store.Version, error) {
		return again(func() (store.Version, error) { return s.invalidate(ctx, effect, tags) })
	})
}

func (s *Store) invalidate(ctx context.Context, effect store.Effect, tags []string) (store.Version, error) {
	v, f, err := s.append(ctx, effect, tags)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return v, s.history.sync(f) // those that wait for the disk do so together, and hold no lock
}

// append adds an invalidation to the log, which sync makes durable.
func (s *Store) append(ctx context.Context, effect store.Effect, tags []string) (store.Version, *os.File, error) {
	l, err := s.lock(ctx, os.O_CREATE)
	if err != nil {
		return 0, nil, err
	}
	defer l.unlock()
	return s.history.append(effect, tags, l.held)
}

// Changes implements [store.Store].
func (s *Store) Changes(ctx context.Context, after store.Version) (store.Changes, error) {
	end := time.NewTimer(heartbeat)
	defer end.Stop()
	poll := time.NewTicker(pollInterval)
	defer poll.Stop()
	for {
		v, err := call(ctx, s.reads, "changes", func() (*view, error) {
			return again(func() (*view, error) { return s.current(ctx) })
		})
		if err != nil {
			return store.Changes{}, err
		}
		c := v.changes(after)
		if c.Reset || len(c.List) > 0 || c.Upto > after {
			return c, nil
		}
		select {
		case <-poll.C:
		case <-end.C:
			return c, nil
		case <-ctx.Done():
			return store.Changes{}, ctx.Err()
		}
	}
}

// current returns a view that belongs to a log, and to one that is as new as all that
// this process has seen.
func (s *Store) current(ctx context.Context) (*view, error) {
	v, err := s.history.follow()
	if err != nil || v.info != nil && !v.behind {
		return v, err
	}
	l, err := s.lock(ctx, os.O_CREATE)
	if err != nil {
		if v.info != nil && ctx.Err() == nil {
			return v, nil // it cannot be replaced here, and is all there is
		}
		return nil, err
	}
	defer l.unlock()
	return s.history.writable(l.held)
}
