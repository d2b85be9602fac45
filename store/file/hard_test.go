package file

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isr-go/isr/store"
	"github.com/isr-go/isr/store/storetest"
)

// mustOpen returns n stores in one directory.
func mustOpen(t *testing.T, dir string, n int) []*Store {
	t.Helper()
	stores := make([]*Store, n)
	for i := range stores {
		s, err := Open(dir, Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Settle)
		stores[i] = s
	}
	return stores
}

func mustInvalidate(t *testing.T, s *Store, tag string) store.Version {
	t.Helper()
	v, err := s.Invalidate(t.Context(), store.Gone, tag)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// A process is stopped after it has seen that it has the lock, and goes on when it has
// it no longer: what another one acknowledged meanwhile holds, wherever the first one
// writes over it.
func TestLockLost(t *testing.T) {
	for name, slack := range map[string]int64{"rewriting": -1 << 40, "appending": slack} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			stores := mustOpen(t, dir, 2)
			one, two := stores[0], stores[1]
			mustInvalidate(t, one, "a")
			ticket, err := storetest.Begin(t.Context(), one, "key", 0)
			if err == nil {
				err = one.Put(t.Context(), "key", ticket, &store.Record{Tags: []string{"secret"}})
			}
			if err != nil {
				t.Fatal(err)
			}
			one.SetSlack(slack)
			l, err := one.lock(t.Context(), 0)
			if err != nil {
				t.Fatal(err)
			}
			lost := false
			held := func() error {
				err := l.held()
				if !lost {
					lost = true
					if err := os.Remove(filepath.Join(dir, "state")); err != nil {
						t.Fatal(err)
					}
					mustInvalidate(t, two, "secret")
				}
				return err
			}
			if name == "rewriting" {
				_, _, err = one.history.append(store.Gone, []string{"b"}, held)
			} else {
				v := mustFollow(t, one)
				f, err2 := os.OpenFile(one.history.path, os.O_RDWR, 0)
				if err2 != nil {
					t.Fatal(err2)
				}
				defer f.Close()
				// The view is of before what the other one writes.
				held()
				err = one.history.appendTo(f, v, entry{version: v.top + 1, effect: store.Gone, tags: []string{"b"}}, held)
			}
			if err == nil {
				t.Error("what was written without the lock is acknowledged")
			}
			l.unlock()
			mustInvalidate(t, one, "b")
			for i, s := range append(stores, mustOpen(t, dir, 1)...) {
				if _, effect, err := storetest.Get(t.Context(), s, "key"); !errors.Is(err, store.ErrNotFound) {
					t.Errorf("store %d: the purge is lost: %v, %v", i, effect, err)
				}
			}
		})
	}
}

// A process that has read the log before it was damaged does not go on behind the
// damage, and reports it.
func TestGapIsNotPassed(t *testing.T) {
	stores := mustOpen(t, t.TempDir(), 2)
	a, b := stores[0], stores[1]
	first := mustInvalidate(t, a, "first")
	old := mustFollow(t, b)
	mustInvalidate(t, a, "lost")
	damaged, err := os.ReadFile(a.history.path)
	if err != nil {
		t.Fatal(err)
	}
	damaged[len(damaged)-1] ^= 1
	if err := os.WriteFile(a.history.path, damaged, 0o600); err != nil {
		t.Fatal(err)
	}
	last := mustInvalidate(t, a, "last")
	now := mustFollow(t, b)
	if c := old.changes(first); len(c.List) > 0 || c.Upto != first || c.Reset {
		t.Errorf("the old view: %+v, want nothing after %d", c, first)
	}
	if c := now.changes(first); len(c.List) != 1 || c.Upto != last || !c.Reset {
		t.Errorf("the new view: %+v, want the last, and Reset", c)
	}
	if effect := now.effect(first, []string{"first"}); effect != store.Gone {
		t.Errorf("what is older than the damage is %v", effect)
	}
	if c := now.changes(0); len(c.List) != 2 {
		t.Errorf("the new view has forgotten what was before the damage: %+v", c)
	}
}

// A panic is an error to the caller, and leaves no lock behind.
func TestPanic(t *testing.T) {
	s := mustOpen(t, t.TempDir(), 1)[0]
	mustInvalidate(t, s, "tag")
	history := s.history
	s.history = nil
	if _, err := s.Changes(t.Context(), 0); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("Changes: %v", err)
	}
	if _, err := s.Invalidate(t.Context(), store.Gone, "tag"); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("Invalidate: %v", err)
	}
	<-s.sweep(true)
	s.history = history
	mustInvalidate(t, s, "tag")
}

// A lease lasts no longer than a page may take, whatever is asked for, and one that
// says otherwise does not count.
func TestLongLease(t *testing.T) {
	s := mustOpen(t, t.TempDir(), 1)[0]
	l, err := s.lock(t.Context(), os.O_CREATE)
	if err != nil {
		t.Fatal(err)
	}
	defer l.unlock()
	key := hashOf("key")
	if !l.lease(&key, 1, 24*time.Hour) || l.lease(&key, 2, time.Minute) {
		t.Fatal("no lease")
	}
	end := leaseEnd(l, &key)
	if d := time.Until(end); d <= 0 || d > 10*time.Minute {
		t.Errorf("the lease ends in %v", d)
	}
}

// leaseEnd returns the end of a key's lease, in an otherwise empty bucket.
func leaseEnd(l *locked, key *keyHash) time.Time {
	b, _ := l.bucket(key)
	return time.Unix(0, int64(binary.LittleEndian.Uint64(b[16:])))
}

// However many calls for pages there are, or hang in their slots: an invalidation waits for
// one of them at most.
func TestInvalidateWaitsForNoCrowdOfPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := Open(t.TempDir(), Options{})
		if err != nil {
			t.Fatal(err)
		}
		before := mustInvalidate(t, s, "tag")
		l, err := s.lock(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		tickets := make(chan store.Ticket, 3*maxCalls)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		for i := range cap(tickets) {
			go func() {
				ticket, err := storetest.Begin(ctx, s, fmt.Sprint(i), time.Minute)
				if err != nil {
					t.Error(err)
				}
				tickets <- ticket
			}()
		}
		synctest.Wait()
		var after store.Version
		go func() {
			v, err := s.Invalidate(ctx, store.Gone, "tag")
			if err != nil {
				t.Error(err)
			}
			after = v
		}()
		synctest.Wait()
		l.unlock()
		older := 0
		for range cap(tickets) {
			if v := (<-tickets).Version; v == before {
				older++
			}
		}
		synctest.Wait()
		if after <= before || older > 1 {
			t.Errorf("%d tickets were given before the invalidation", older)
		}
		s.Settle()
	})
}
