package memory_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isr-go/isr/store"
	"github.com/isr-go/isr/store/memory"
	"github.com/isr-go/isr/store/storetest"
)

const limit = 500

func TestStore(t *testing.T) {
	storetest.RunInBubbles(t, func(t *testing.T) storetest.Config {
		s := memory.NewLimited(limit)
		return storetest.Config{Stores: [2]store.Store{s, s}, Limit: limit}
	})
}

// What belongs to the store of the last process is old to that of the next one.
func TestNextProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		last := memory.New()
		v, err := last.Invalidate(t.Context(), store.Gone, "tag")
		if err != nil {
			t.Fatal(err)
		}
		old, err := storetest.Begin(t.Context(), last, "key", time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
		next := memory.New()
		if err := next.Put(t.Context(), "key", old, &store.Record{}); !errors.Is(err, store.ErrSuperseded) {
			t.Errorf("Put: %v, want ErrSuperseded", err)
		}
		if c, err := next.Changes(t.Context(), v); err != nil || !c.Reset {
			t.Errorf("Changes: %+v, %v, want Reset", c, err)
		}
		if now, err := storetest.Begin(t.Context(), next, "key", time.Minute); err != nil || now.Version <= v {
			t.Errorf("Begin: %+v, %v, want a version after %d", now, err, v)
		}
		// The clock was set back: that is a ticket of the future.
		if err := last.Put(t.Context(), "key", store.Ticket{Version: v + 1}, &store.Record{}); !errors.Is(err, store.ErrSuperseded) {
			t.Errorf("Put: %v, want ErrSuperseded", err)
		}
	})
}

func BenchmarkStore(b *testing.B) {
	s, ctx := memory.New(), b.Context()
	rec := &store.Record{Tags: []string{"blog", "/blog/1"}, Data: make([]byte, 10<<10)}
	b.Run("Begin and Put 10 KB", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			t, err := storetest.Begin(ctx, s, "key", time.Minute)
			if err == nil {
				err = s.Put(ctx, "key", t, rec)
			}
			if err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Get 10 KB", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, _, err := storetest.Get(ctx, s, "key"); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Invalidate", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := s.Invalidate(ctx, store.Stale, "blog"); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// An import of many articles spares nearly all pages that it does not concern.
func TestImport(t *testing.T) { storetest.Import(t, memory.New(), 300_000) }
