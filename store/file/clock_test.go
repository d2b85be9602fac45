package file_test

import (
	"errors"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isr-go/isr/store"
	"github.com/isr-go/isr/store/file"
	"github.com/isr-go/isr/store/storetest"
)

// The clock goes back by years while the directory is used, and then forward again: in a
// bubble it is the year 2000. Versions and fences grow all the same, what is purged stays so,
// a lease of the future is none, and what lives for ever survives both.
func TestClockJumps(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, file.Options{})
	last, err := s.Invalidate(t.Context(), store.Gone, "first")
	if err != nil {
		t.Fatal(err)
	}
	var ticket store.Ticket
	var fence uint64
	// grow fails the test if a version or a fence does not.
	grow := func(t *testing.T, s store.Store, when string) {
		t.Helper()
		v, err := s.Invalidate(t.Context(), store.Stale, "any")
		if err != nil || v <= last {
			t.Fatalf("%s: version %d after %d, %v", when, v, last, err)
		}
		last = v
		ticket, err = storetest.Begin(t.Context(), s, "key", time.Minute)
		if err != nil || ticket.Version < v || ticket.Fence <= fence {
			t.Fatalf("%s: %+v after version %d and fence %d, %v", when, ticket, v, fence, err)
		}
		if !ticket.Leader {
			t.Errorf("%s: the lease of another time holds", when)
		}
		fence = ticket.Fence
	}
	grow(t, s, "today")
	put(t, s, "kept", "data", "kept")
	put(t, s, "purged", "data", "purged")
	from := last

	synctest.Test(t, func(t *testing.T) {
		s := open(t, dir, file.Options{})
		grow(t, s, "long ago")
		is(t, s, "kept", "data", store.None)
		if _, err := s.Invalidate(t.Context(), store.Gone, "purged"); err != nil {
			t.Fatal(err)
		}
		is(t, s, "purged", "", store.Gone)
		ticket, err := storetest.Begin(t.Context(), s, "minutes", time.Minute)
		if err == nil {
			err = s.Put(t.Context(), "minutes", ticket, &store.Record{TTL: 10 * time.Minute, Tags: []string{"kept"}, Data: []byte("data")})
		}
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(9 * time.Minute)
		is(t, s, "minutes", "data", store.None)
		time.Sleep(2 * time.Minute)
		is(t, s, "minutes", "", store.Gone)
		put(t, s, "long ago", "data", "long ago")
		last = ticket.Version
	})

	grow(t, s, "today again")
	is(t, s, "kept", "data", store.None)
	is(t, s, "purged", "", store.Gone)
	is(t, s, "long ago", "data", store.None)
	c, err := s.Changes(t.Context(), from)
	if err != nil || c.Reset || c.Upto != last {
		t.Errorf("Changes over the jumps: %+v, %v, want all up to %d", c, err, last)
	}
}

// The disk needs long to make a purge durable. Nobody else waits for it: pages are looked up,
// put and purged meanwhile, and each purge returns when its own is durable.
func TestSlowDisk(t *testing.T) {
	s := open(t, t.TempDir(), file.Options{})
	put(t, s, "purged", "data", "purged")
	put(t, s, "other", "data", "other")
	syncing, durable := make(chan struct{}), make(chan struct{})
	var once sync.Once
	s.SetSync(func(f *os.File) error {
		once.Do(func() { close(syncing) })
		<-durable
		return f.Sync()
	})
	returned := make(chan error, 4)
	purge := func(tag string) {
		_, err := s.Invalidate(t.Context(), store.Gone, tag)
		returned <- err
	}
	go purge("purged")
	<-syncing
	for _, tag := range []string{"a", "b", "c"} {
		go purge(tag)
	}
	is(t, s, "other", "data", store.None)
	put(t, s, "new", "data", "new")
	is(t, s, "new", "data", store.None)
	if _, err := storetest.Begin(t.Context(), s, "ticket", time.Minute); err != nil {
		t.Error(err)
	}
	select {
	case err := <-returned:
		t.Fatalf("a purge that is not durable is acknowledged: %v", err)
	default:
	}
	close(durable)
	for range 4 {
		if err := <-returned; err != nil {
			t.Error(err)
		}
	}
	is(t, s, "purged", "", store.Gone)
}

// The disk fails while a purge is made durable: it is not acknowledged.
func TestDiskThatFails(t *testing.T) {
	s := open(t, t.TempDir(), file.Options{})
	put(t, s, "key", "data", "tag")
	s.SetSync(func(*os.File) error { return errors.New("input/output error") })
	if _, err := s.Invalidate(t.Context(), store.Gone, "tag"); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("a purge that is not durable: %v", err)
	}
	s.SetSync((*os.File).Sync)
	if _, err := s.Invalidate(t.Context(), store.Gone, "tag"); err != nil {
		t.Error(err)
	}
	is(t, s, "key", "", store.Gone)
}

// A Store that was just opened lists no directory, however many pages there are: its first
// look reads one file. What there is gets counted when something is put.
func TestOpenReadsNothing(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, file.Options{})
	for _, key := range []string{"a", "b", "c"} {
		put(t, s, key, "data", "tag")
	}
	s.Settle()
	s = open(t, dir, file.Options{})
	is(t, s, "a", "data", store.None)
	is(t, s, "nothing", "", store.Gone)
	if _, err := storetest.Begin(t.Context(), s, "b", time.Minute); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Changes(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if s.Swept() {
		t.Error("the directory was listed before anything was put")
	}
	put(t, s, "d", "data", "tag")
	if !s.Swept() {
		t.Error("the pages were not counted")
	}
}
