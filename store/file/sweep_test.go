package file_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/isr-go/isr/store"
	"github.com/isr-go/isr/store/file"
	"github.com/isr-go/isr/store/storetest"
)

// taken returns the bytes of all pages, and how many there are.
func taken(t *testing.T, dir string) (bytes int64, n int) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(dir, "pages"), func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil // swept meanwhile
		}
		if err == nil {
			bytes, n = bytes+info.Size(), n+1
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return bytes, n
}

// stored says whether a page has a file.
func stored(dir, key string) bool {
	_, err := os.Stat(pagePath(dir, key))
	return err == nil
}

// age makes a file look as if it was used last some time ago.
func age(t *testing.T, path string, d time.Duration) {
	t.Helper()
	at := time.Now().Add(-d)
	if err := os.Chtimes(path, at, at); err != nil {
		t.Fatal(err)
	}
}

// The pages never take more than MaxBytes, whichever process puts them.
func TestLimit(t *testing.T) {
	dir := t.TempDir()
	const limit = 512 << 10
	opts := file.Options{MaxBytes: limit}
	stores := []*file.Store{open(t, dir, opts), open(t, dir, opts)}
	most := int64(0)
	for n := range 400 {
		s, key := stores[n%2], fmt.Sprint("key ", n)
		ticket, err := storetest.Begin(t.Context(), s, key, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		err = s.Put(t.Context(), key, ticket, &store.Record{Data: make([]byte, n*17%20000)})
		if err != nil {
			t.Fatalf("Put %d: %v", n, err)
		}
		bytes, _ := taken(t, dir)
		most = max(most, bytes)
	}
	if most > limit || most < limit/3 {
		t.Errorf("the pages took up to %d bytes of %d", most, limit)
	}
	t.Logf("up to %d bytes of %d were taken", most, limit)
}

// While another process sweeps, however long that takes, pages are put, and none is refused:
// those that were not used for the longest time make room for them.
func TestPutWhileAnotherSweeps(t *testing.T) {
	dir := t.TempDir()
	const limit = 40 * 4096
	stores := []*file.Store{open(t, dir, file.Options{MaxBytes: limit}), open(t, dir, file.Options{MaxBytes: limit})}
	stores[0].HoldSweep(t)
	for n := range 300 {
		s, key := stores[n%2], fmt.Sprint("key ", n)
		put(t, s, key, "data")
		is(t, s, key, "data", store.None)
		age(t, pagePath(dir, key), time.Hour*time.Duration(1000-n))
		if bytes, _ := taken(t, dir); bytes > limit {
			t.Fatalf("%d bytes of %d are taken", bytes, limit)
		}
	}
	for n := 270; n < 300; n++ {
		if !stored(dir, fmt.Sprint("key ", n)) {
			t.Errorf("key %d went, and there are older ones", n)
		}
	}
	// A record that needs the room of many pages, and one for which there is none.
	large := &store.Record{Data: make([]byte, limit*3/4)}
	ticket, err := storetest.Begin(t.Context(), stores[1], "large", time.Minute)
	if err == nil {
		err = stores[1].Put(t.Context(), "large", ticket, large)
	}
	if err != nil || !stored(dir, "large") {
		t.Errorf("a large page: %v", err)
	}
	large.Data = make([]byte, limit+1)
	if err := stores[1].Put(t.Context(), "too large", ticket, large); !errors.Is(err, store.ErrTooLarge) {
		t.Errorf("too large a page: %v", err)
	}
}

// Several put at the same time, more than there is room for: none is refused, and the sum
// stays right.
func TestPutsAtTheLimit(t *testing.T) {
	dir := t.TempDir()
	const limit = 60 * 4096
	var stores []*file.Store
	for range 4 {
		stores = append(stores, open(t, dir, file.Options{MaxBytes: limit}))
	}
	var all sync.WaitGroup
	for i, s := range stores {
		all.Go(func() {
			for n := range 60 {
				key := fmt.Sprintf("key %d of %d", n, i)
				ticket, err := storetest.Begin(t.Context(), s, key, time.Minute)
				if err == nil {
					err = s.Put(t.Context(), key, ticket, &store.Record{Data: make([]byte, 1000)})
				}
				if err != nil {
					t.Errorf("%s: %v", key, err)
				}
			}
		})
	}
	all.Wait()
	for _, s := range stores {
		s.Settle()
	}
	if bytes, n := taken(t, dir); n > 60 || n < 30 {
		t.Errorf("%d pages with %d bytes, want 30 to 60", n, bytes)
	}
}

// Expired pages are removed first, and then those that were not used for the longest
// time.
func TestSweepOrder(t *testing.T) {
	dir := t.TempDir()
	const limit = 40 * 4096
	s := open(t, dir, file.Options{MaxBytes: limit})
	key := func(n int) string { return fmt.Sprint("key ", n) }
	for n := range 30 {
		put(t, s, key(n), "data")
		s.Settle() // the first Put begins a sweep, which the others would be counted by twice
		age(t, pagePath(dir, key(n)), time.Hour*time.Duration(100-n))
	}
	for n := range 5 {
		ticket, err := storetest.Begin(t.Context(), s, "expired", time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Put(t.Context(), fmt.Sprint("expired ", n), ticket, &store.Record{TTL: 1}); err != nil {
			t.Fatal(err)
		}
	}
	is(t, s, key(3), "data", store.None) // it is used
	for n := range 3 {                   // the third is more than there is room for without a sweep
		put(t, s, fmt.Sprint("new ", n), "data")
	}
	s.Settle()
	for n := range 5 {
		if stored(dir, fmt.Sprint("expired ", n)) {
			t.Errorf("expired %d is still there", n)
		}
	}
	for n := range 30 {
		if !stored(dir, key(n)) {
			t.Errorf("key %d went, and there was room enough without the expired", n)
		}
	}
	for n := 3; n < 10; n++ {
		put(t, s, fmt.Sprint("new ", n), "data")
	}
	s.Settle()
	if _, n := taken(t, dir); n > 32 {
		t.Errorf("%d pages, want at most 32", n)
	}
	for n := range 10 {
		if n < 5 && n != 3 && stored(dir, key(n)) {
			t.Errorf("key %d is old, and still there", n)
		}
		if !stored(dir, fmt.Sprint("new ", n)) && n < 8 {
			t.Errorf("new %d is not there", n)
		}
	}
	if !stored(dir, key(3)) {
		t.Error("key 3 went, and had been used")
	}
}

// What killed processes have left is removed, and what is being written is not. A
// process that starts counts what there is.
func TestSweepAtStart(t *testing.T) {
	dir := t.TempDir()
	const limit = 20 * 4096
	s := open(t, dir, file.Options{MaxBytes: -1})
	for n := range 40 {
		put(t, s, fmt.Sprint("key ", n), "data")
	}
	s.Settle()
	old, young := filepath.Join(dir, "tmp", "page-1"), filepath.Join(dir, "tmp", "page-2")
	for _, path := range []string{old, young} {
		if err := os.WriteFile(path, []byte("half a pa"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	age(t, old, 2*time.Hour)
	lost := pagePath(dir, "of a history that is lost")
	b, err := os.ReadFile(pagePath(dir, "key 0"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(lost), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(lost, b[:20], 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "state")); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, file.Options{MaxBytes: limit})
	put(t, s, "new", "data")
	s.Settle()
	if _, n := taken(t, dir); n > 20 {
		t.Errorf("%d pages, want at most 20", n)
	}
	if _, err := os.Stat(old); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what a killed process has left is still there: %v", err)
	}
	if _, err := os.Stat(young); err != nil {
		t.Error("a file that may be being written was removed")
	}
	if stored(dir, "of a history that is lost") {
		t.Error("half a page is still there")
	}
}
