package file

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/isr-go/isr/store"
)

// SetSlack has the log rewritten as soon as it has grown by n bytes.
func (s *Store) SetSlack(n int64) { s.history.slack = n }

// SetLimit has the log keep so many tags when it is rewritten, however recent they are.
func (s *Store) SetLimit(tags int) { s.history.limit, s.history.recent = tags, 0 }

// HoldLock holds the lock of all processes, as one that was stopped does.
func HoldLock(t *testing.T, dir string) (release func()) {
	f, err := os.OpenFile(filepath.Join(dir, "state"), os.O_RDWR, 0)
	if err == nil {
		err = flock(f)
	}
	if err != nil {
		t.Fatal(err)
	}
	return func() { f.Close() }
}

// Fill puts a number of pages of 2 KB into the directory, by their files alone.
func (s *Store) Fill(pages int) error {
	v, err := s.history.follow()
	if err != nil {
		return err
	}
	b, err := encodePage(v.head.id, &store.Record{Version: v.top, Tags: []string{"a", "b", "c"}, Data: make([]byte, 2000)})
	if err != nil {
		return err
	}
	for n := range pages {
		hash := hashOf(strconv.Itoa(n))
		path := filepath.Join(s.dir, hash.path())
		if n < 10_000 {
			os.MkdirAll(filepath.Dir(path), 0o700)
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// HoldSweep makes all others believe that a process sweeps, which takes a minute.
func (s *Store) HoldSweep(t *testing.T) {
	l, err := s.lock(t.Context(), os.O_CREATE)
	if err != nil {
		t.Fatal(err)
	}
	defer l.unlock()
	if _, token := newToken(0, true); !l.lease(&sweeperKey, token, sweepLease) {
		t.Fatal("somebody sweeps")
	}
}

// Swept reports whether this Store has begun to sweep.
func (s *Store) Swept() bool {
	s.sweeper.mu.Lock()
	defer s.sweeper.mu.Unlock()
	return !s.sweeper.last.IsZero()
}

// SetSync has a function called in the place of the log's fsync.
func (s *Store) SetSync(f func(*os.File) error) { s.history.fsync = f }

// Settle waits until nothing goes on: no call that its caller has left, and no sweep.
func (s *Store) Settle() {
	for _, room := range []chan struct{}{s.reads, s.writes, s.invalidations} {
		for range cap(room) {
			room <- struct{}{}
		}
		defer func() {
			for range cap(room) {
				<-room
			}
		}()
	}
	s.sweeper.mu.Lock()
	done := s.sweeper.done
	s.sweeper.mu.Unlock()
	if done != nil {
		<-done
	}
}
