package file_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/isr-go/isr/internal/isrtest"
	"github.com/isr-go/isr/store"
	"github.com/isr-go/isr/store/file"
	"github.com/isr-go/isr/store/storetest"
)

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Config {
		const maxBytes, limit = 8 << 20, 500
		dir := t.TempDir()
		reopen := func() (stores [2]store.Store) {
			for i := range stores {
				s := open(t, dir, file.Options{MaxBytes: maxBytes})
				s.SetLimit(limit)
				s.SetSlack(4096)
				stores[i] = s
			}
			return stores
		}
		return storetest.Config{
			Stores:   reopen(),
			MaxBytes: maxBytes - 256,
			Limit:    limit,
			Wipe:     func() { wipe(t, dir) },
			Reopen:   reopen,
			Corrupt: func(key string) {
				path := pagePath(dir, key)
				if b, err := os.ReadFile(path); err == nil { // or it is damaged, and swept
					b[len(b)/2] ^= 1
					os.WriteFile(path, b, 0o600)
				}
			},
		}
	})
}

// An import of many articles spares nearly all pages that it does not concern: when they are
// no longer recent.
func TestImport(t *testing.T) {
	s := open(t, t.TempDir(), file.Options{})
	s.SetLimit(1 << 16)
	storetest.Import(t, s, 300_000)
}

// open opens a store, which has settled before the test removes its directory.
func open(t testing.TB, dir string, opts file.Options) *file.Store {
	t.Helper()
	s, err := file.Open(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Settle) // what goes on would write in a directory that the test removes
	return s
}

// wipe deletes a directory, while others may be writing in it.
func wipe(t testing.TB, dir string) {
	t.Helper()
	isrtest.Eventually(t, "deletion", func() error { return os.RemoveAll(dir) })
}

// pagePath is where the README says that a page is.
func pagePath(dir, key string) string {
	sum := sha256.Sum256([]byte(key))
	name := hex.EncodeToString(sum[:])
	return filepath.Join(dir, "pages", name[:2], name[2:])
}

// edit changes a file in place.
func edit(t testing.TB, path string, f func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, f(b), 0o600); err != nil {
		t.Fatal(err)
	}
}

// put stores a page of today.
func put(t testing.TB, s store.Store, key, data string, tags ...string) {
	t.Helper()
	ticket, err := storetest.Begin(t.Context(), s, key, time.Minute)
	if err != nil {
		t.Fatalf("Begin(%q): %v", key, err)
	}
	if err := s.Put(t.Context(), key, ticket, &store.Record{Tags: tags, Data: []byte(data)}); err != nil {
		t.Fatalf("Put(%q): %v", key, err)
	}
}

func invalidate(t testing.TB, s store.Store, effect store.Effect, tags ...string) store.Version {
	t.Helper()
	v, err := s.Invalidate(t.Context(), effect, tags...)
	if err != nil {
		t.Fatalf("Invalidate(%v, %q): %v", effect, tags, err)
	}
	return v
}

// is fails the test if a page is not there with an effect. Gone: it is not there.
func is(t testing.TB, s store.Store, key, data string, want store.Effect) {
	t.Helper()
	rec, effect, err := storetest.Get(context.Background(), s, key)
	switch {
	case want == store.Gone:
		if err == nil {
			t.Fatalf("Get(%q) is %.50q, %v, want nothing", key, rec.Data, effect)
		}
		wantError(t, err, store.ErrNotFound)
	case err != nil:
		t.Fatalf("Get(%q): %v", key, err)
	case string(rec.Data) != data || effect != want:
		t.Fatalf("Get(%q) is %.50q, %v, want %.50q, %v", key, rec.Data, effect, data, want)
	}
}

func wantError(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
}
