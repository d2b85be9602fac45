package file_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/isr-go/isr/internal/isrtest"
	"github.com/isr-go/isr/store"
	"github.com/isr-go/isr/store/file"
	"github.com/isr-go/isr/store/storetest"
)

var background = context.Background()

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	a := filepath.Join(dir, "a")
	if err := os.WriteFile(a, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"", a, filepath.Join(a, "b"), "nul\x00"} {
		if _, err := file.Open(bad, file.Options{}); err == nil || !strings.HasPrefix(err.Error(), "store/file: ") {
			t.Errorf("Open(%q): %v", bad, err)
		}
	}
	deep := filepath.Join(dir, "x", "y")
	s := open(t, deep, file.Options{})
	put(t, s, "key", "data")
	err := filepath.Walk(filepath.Join(dir, "x"), func(path string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A directory of another version of this package is left alone.
func TestOtherFormat(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, file.Options{})
	put(t, s, "key", "data")
	later := filepath.Join(dir, "later")
	if err := os.WriteFile(later, []byte("isr/store/file 2\nwhatever it is"), 0o600); err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(dir, "purges")
	if err := os.Rename(later, log); err != nil {
		t.Fatal(err)
	}
	if _, err := file.Open(dir, file.Options{}); err == nil || !strings.Contains(err.Error(), "format 2") {
		t.Errorf("Open: %v", err)
	}
	_, err := s.Invalidate(t.Context(), store.Gone, "tag")
	wantError(t, err, store.ErrUnavailable)
	_, _, err = storetest.Get(t.Context(), s, "key")
	wantError(t, err, store.ErrUnavailable)
	if b, err := os.ReadFile(log); err != nil || string(b) != "isr/store/file 2\nwhatever it is" {
		t.Errorf("it was changed to %q, %v", b, err)
	}
}

// Whatever becomes of the log, what may have been purged is not shown, and the store
// goes on.
func TestLostLog(t *testing.T) {
	damages := map[string]func([]byte) []byte{
		"deleted":        nil,
		"empty":          func(b []byte) []byte { return nil },
		"header damaged": func(b []byte) []byte { b[30] ^= 1; return b },
		"header cut":     func(b []byte) []byte { return b[:20] },
		"purge damaged":  func(b []byte) []byte { b[len(b)-45] ^= 1; return b },
		"garbage":        func(b []byte) []byte { return []byte(strings.Repeat("garbage", 1000)) },
	}
	for name, damage := range damages {
		for _, restart := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/restart %v", name, restart), func(t *testing.T) {
				dir := t.TempDir()
				s := open(t, dir, file.Options{})
				put(t, s, "key", "old", "tag")
				late, err := storetest.Begin(t.Context(), s, "late", time.Minute)
				if err != nil {
					t.Fatal(err)
				}
				invalidate(t, s, store.Gone, "tag")
				last := invalidate(t, s, store.Stale, "other")
				path := filepath.Join(dir, "purges")
				if damage == nil {
					if err := os.Remove(path); err != nil {
						t.Fatal(err)
					}
				} else {
					edit(t, path, damage)
				}
				if restart {
					s = open(t, dir, file.Options{})
				}
				is(t, s, "key", "", store.Gone)
				if v := invalidate(t, s, store.Stale, "tag"); v <= last {
					t.Errorf("version %d after %d", v, last)
				}
				if err := s.Put(t.Context(), "late", late, &store.Record{Tags: []string{"tag"}}); err == nil {
					is(t, s, "late", "", store.Gone)
				}
				put(t, s, "key", "new", "tag")
				is(t, s, "key", "new", store.None)
				invalidate(t, s, store.Expired, "tag")
				is(t, s, "key", "new", store.Expired)
				// Damage to what a process need not read again is noticed by the next one,
				// so that what came then is lost, too.
				fresh := open(t, dir, file.Options{})
				if rec, effect, err := storetest.Get(t.Context(), fresh, "key"); err == nil && effect != store.Expired {
					t.Errorf("Get: %q, %v", rec.Data, effect)
				}
				put(t, fresh, "key", "newest", "tag")
				for _, s := range []store.Store{s, fresh} {
					is(t, s, "key", "newest", store.None)
				}
				invalidate(t, s, store.Gone, "tag")
				is(t, fresh, "key", "", store.Gone)
			})
		}
	}
}

// A log that has lost entries under a running process is known to have lost them.
func TestCutLog(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, file.Options{})
	put(t, s, "key", "old", "tag")
	invalidate(t, s, store.Gone, "tag")
	last := invalidate(t, s, store.Gone, "other")
	edit(t, filepath.Join(dir, "purges"), func(b []byte) []byte { return b[:len(b)-45] })
	is(t, s, "key", "", store.Gone)
	if c, err := s.Changes(t.Context(), last); err != nil || !c.Reset || c.Upto <= last {
		t.Errorf("Changes: %+v, %v, want Reset to more than %d", c, err, last)
	}
	is(t, s, "key", "", store.Gone)
	is(t, open(t, dir, file.Options{}), "key", "", store.Gone)
	put(t, s, "key", "new", "tag")
	is(t, s, "key", "new", store.None)
}

// A page that is damaged or cut anywhere is a miss.
func TestDamagedPage(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, file.Options{})
	put(t, s, "key", "data", "tag")
	path := pagePath(dir, "key")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	write := func(b []byte) {
		t.Helper()
		if err := os.WriteFile(path, b, 0o600); err != nil { // the sweeper may have removed it
			t.Fatal(err)
		}
	}
	for i := range whole {
		damaged := bytes.Clone(whole)
		damaged[i] ^= 1
		write(damaged)
		is(t, s, "key", "", store.Gone)
		write(whole[:i])
		is(t, s, "key", "", store.Gone)
	}
	write(whole)
	is(t, s, "key", "data", store.None)
}

// Files that are longer than anything that was written are damaged, and take neither
// memory nor the process.
func TestHugeFiles(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, file.Options{})
	put(t, s, "key", "data", "tag")
	huge := func(path string) {
		t.Helper()
		if err := os.Truncate(path, 1<<43); err != nil {
			t.Skipf("the file system has no files of this size: %v", err)
		}
	}
	huge(pagePath(dir, "key"))
	is(t, s, "key", "", store.Gone)
	put(t, s, "key", "new", "tag")
	is(t, s, "key", "new", store.None)

	last := invalidate(t, s, store.Stale, "tag")
	log := filepath.Join(dir, "purges")
	for _, s := range []*file.Store{s, open(t, dir, file.Options{})} {
		huge(log)
		is(t, s, "key", "", store.Gone)
		put(t, s, "key", "newest", "tag")
		is(t, s, "key", "newest", store.None)
		if v := invalidate(t, s, store.Gone, "tag"); v <= last {
			t.Errorf("version %d after %d", v, last)
		}
		is(t, s, "key", "", store.Gone)
	}
}

// The directory is deleted while it is used, again and again: calls fail cleanly or
// not at all, and no page is shown that was purged.
func TestDeletedWhileRunning(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	var stop atomic.Bool
	var group sync.WaitGroup
	var rounds atomic.Int64
	for g := range 4 {
		s := open(t, dir, file.Options{})
		group.Go(func() {
			last := store.Version(0)
			for n := 0; !stop.Load(); n++ {
				rounds.Add(1)
				key := fmt.Sprint("key ", g)
				ticket, err := storetest.Begin(background, s, key, time.Minute)
				if err == nil {
					err = s.Put(background, key, ticket, &store.Record{Tags: []string{key}})
				}
				if err != nil && !errors.Is(err, store.ErrSuperseded) && !errors.Is(err, store.ErrUnavailable) {
					t.Errorf("Begin or Put: %v", err)
				}
				v, err := s.Invalidate(background, store.Gone, key)
				if err == nil && v <= last {
					t.Errorf("version %d after %d", v, last)
				} else if err == nil {
					last = v
				} else if !errors.Is(err, store.ErrUnavailable) {
					t.Errorf("Invalidate: %v", err)
				}
				if _, _, got := storetest.Get(background, s, key); err == nil && !errors.Is(got, store.ErrNotFound) {
					t.Errorf("Get of what was purged: %v", got)
				}
			}
		})
	}
	for range 50 {
		n := rounds.Load()
		isrtest.Eventually(t, "20 rounds", func() error {
			if rounds.Load() <= n+20 {
				return errors.New("too few")
			}
			return nil
		})
		os.RemoveAll(dir) // or as much of it as it can, when there is always more
	}
	stop.Store(true)
	group.Wait()
	s := open(t, dir, file.Options{})
	put(t, s, "key", "data", "tag")
	is(t, s, "key", "data", store.None)
}

// A process that is stopped while it holds the lock delays no call beyond its deadline,
// and no reader at all.
func TestLockHeld(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, file.Options{})
	put(t, s, "key", "data", "tag")
	release := file.HoldLock(t, dir)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	done := make(chan error)
	for range 50 {
		go func() {
			_, err := storetest.Begin(ctx, s, "key", time.Minute)
			done <- err
		}()
		go func() {
			_, err := s.Invalidate(ctx, store.Gone, "tag")
			done <- err
		}()
	}
	is(t, s, "key", "data", store.None)
	reader, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, _, err := storetest.Get(reader, s, "key"); err != nil || ctx.Err() != nil {
		t.Errorf("Get: %v; the others wait: %v", err, ctx.Err() == nil)
	}
	for range 100 {
		wantError(t, <-done, context.DeadlineExceeded)
	}
	release()
	// What was given up was not done.
	put(t, s, "another", "data")
	is(t, s, "key", "data", store.None)
	invalidate(t, s, store.Gone, "tag")
	is(t, s, "key", "", store.Gone)
}
