package file

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/isr-go/isr/store"
)

// The file "state" is the lock of all processes, and keeps what may be lost without
// harm: the last fence, the sum of the pages' bytes, that of those that were ever removed, and the leases, in a hash table
// of fixed size. A leader that finds no room in it has no lease. Where the file itself
// is lost while a process has the lock, see confirm.
const (
	fenceAt   = 0
	bytesAt   = 8
	removedAt = 16
	leasesAt  = 4096

	buckets    = 1024
	slots      = 8          // of a bucket
	slotSize   = 16 + 8 + 8 // part of the key's hash, end in Unix nanoseconds, token
	bucketSize = slots * slotSize
	maxLease   = 10 * time.Minute // what is longer was made before the clock went back, or is damaged
)

// A keyHash stands for a key, in file names and in the table of leases.
type keyHash [sha256.Size]byte

func hashOf(key string) keyHash { return sha256.Sum256([]byte(key)) }

// path is where the record is, below the store's directory.
func (k *keyHash) path() string {
	name := hex.EncodeToString(k[:])
	return filepath.Join("pages", name[:2], name[2:])
}

// A locked is the state under the lock.
type locked struct {
	f       *os.File
	give    func() // gives the turn to the next one
	fence   uint64
	bytes   int64
	removed uint64 // how many bytes were ever removed, by anybody
}

// lock waits for the lock of all processes, with os.O_CREATE in the flag also where
// the directory must be created for it. The caller's goroutine may be stuck in it as
// long as another process sleeps on the lock, and then holds up the others of its own
// process, which return when their contexts end.
func (s *Store) lock(ctx context.Context, flag int) (*locked, error) {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	f, err := s.lockFile(flag)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		if f != nil {
			f.Close()
		}
		<-s.turn
		return nil, err
	}
	l := &locked{f: f, give: func() { <-s.turn }}
	var b [24]byte
	if n, _ := f.ReadAt(b[:], 0); n == len(b) {
		l.fence = binary.LittleEndian.Uint64(b[fenceAt:])
		l.bytes = max(0, int64(binary.LittleEndian.Uint64(b[bytesAt:])))
		l.removed = binary.LittleEndian.Uint64(b[removedAt:])
	}
	return l, nil
}

// lockForPage is lock, behind all other calls for pages and one at most of the rest.
func (s *Store) lockForPage(ctx context.Context, flag int) (*locked, error) {
	select {
	case s.pageTurn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	l, err := s.lock(ctx, flag)
	if err != nil {
		<-s.pageTurn
		return nil, err
	}
	give := l.give
	l.give = func() { give(); <-s.pageTurn }
	return l, nil
}

// lockFile opens and locks the file which has the name when it is locked.
func (s *Store) lockFile(flag int) (*os.File, error) {
	path := filepath.Join(s.dir, "state")
	for range 100 {
		f, err := os.OpenFile(path, os.O_RDWR|flag, 0o600)
		if errors.Is(err, fs.ErrNotExist) && flag&os.O_CREATE != 0 {
			if err = mkdir(s.dir); err != nil {
				return nil, err
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		if err := private(s.dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return f, err // another user's has come into the place of ours
		}
		if err := flock(f); err != nil {
			return f, &fs.PathError{Op: "lock", Path: path, Err: err}
		}
		if named(f) == nil {
			return f, nil
		}
		f.Close() // the directory was deleted while we were waiting
	}
	return nil, errReplaced
}

// named returns an error if a file has lost its name.
func named(f *os.File) error {
	mine, err := f.Stat()
	if err != nil {
		return err
	}
	info, err := os.Stat(f.Name())
	if err == nil && !os.SameFile(mine, info) {
		err = errReplaced
	}
	return err
}

// held returns an error if others may have the lock, too: not this one, but that of
// a directory which has replaced this one.
func (l *locked) held() error { return named(l.f) }

func (l *locked) unlock() {
	unflock(l.f) // Close does it, too, where no child process is just being started
	l.f.Close()
	l.give()
}

// next issues a fence. One that cannot be written still is newer than those before,
// by the clock.
func (l *locked) next() uint64 {
	if l.fence >= 1<<63 {
		l.fence = 0 // damaged
	}
	l.fence = max(clock(), l.fence+1)
	l.f.WriteAt(binary.LittleEndian.AppendUint64(nil, l.fence), fenceAt)
	return l.fence
}

// setBytes changes the sum of the pages' bytes.
func (l *locked) setBytes(n int64) {
	l.bytes = max(0, n)
	l.f.WriteAt(binary.LittleEndian.AppendUint64(nil, uint64(l.bytes)), bytesAt)
}

// remove takes what a page has had from the sum.
func (l *locked) remove(n int64) {
	n = min(n, l.bytes)
	l.setBytes(l.bytes - n)
	l.removed += uint64(n)
	l.f.WriteAt(binary.LittleEndian.AppendUint64(nil, l.removed), removedAt)
}

// bucket returns the slots that a key's lease may be in, and where they are.
func (l *locked) bucket(key *keyHash) (b [bucketSize]byte, at int64) {
	at = leasesAt + int64(binary.LittleEndian.Uint16(key[:])%buckets)*bucketSize
	l.f.ReadAt(b[:], at) // what is behind the end is zero, and free
	return b, at
}

// lease gives the key's lease to a token, unless another holds it.
func (l *locked) lease(key *keyHash, token uint64, ttl time.Duration) bool {
	b, at := l.bucket(key)
	now := time.Now()
	free := -1
	for i := 0; i < len(b); i += slotSize {
		end := time.Unix(0, int64(binary.LittleEndian.Uint64(b[i+16:])))
		held := now.Before(end) && end.Sub(now) <= maxLease
		own := string(b[i:i+16]) == string(key[16:])
		switch {
		case own && held:
			return false
		case own, !held && free < 0:
			free = i
		}
	}
	if free >= 0 && ttl > 0 {
		slot := append(make([]byte, 0, slotSize), key[16:]...)
		slot = binary.LittleEndian.AppendUint64(slot, uint64(now.Add(min(ttl, maxLease)).UnixNano()))
		slot = binary.LittleEndian.AppendUint64(slot, token)
		l.f.WriteAt(slot, at+int64(free))
	}
	return true
}

// release gives the key's lease back, if it is the token's.
func (l *locked) release(key *keyHash, token uint64) {
	if token == 0 {
		return
	}
	b, at := l.bucket(key)
	for i := 0; i < len(b); i += slotSize {
		if string(b[i:i+16]) == string(key[16:]) && binary.LittleEndian.Uint64(b[i+24:]) == token {
			l.f.WriteAt(make([]byte, slotSize), at+int64(i))
		}
	}
}

// A token of a ticket is the history that it belongs to, and the lease, which is zero
// for those who have none.
func newToken(history uint64, leader bool) (token string, lease uint64) {
	if leader {
		lease = rand.Uint64() | 1
	}
	return hex.EncodeToString(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, history), lease)), lease
}

// parseToken returns zeros for what is no token.
func parseToken(t store.Ticket) (history, lease uint64) {
	if len(t.Token) != 32 {
		return 0, 0
	}
	history, err := strconv.ParseUint(t.Token[:16], 16, 64)
	if err != nil {
		return 0, 0
	}
	if lease, err = strconv.ParseUint(t.Token[16:], 16, 64); err != nil || !t.Leader {
		lease = 0
	}
	return history, lease
}
