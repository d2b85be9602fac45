package file_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/isr-go/isr/store"
	"github.com/isr-go/isr/store/file"
	"github.com/isr-go/isr/store/storetest"
)

func BenchmarkStore(b *testing.B) {
	s := open(b, b.TempDir(), file.Options{})
	rec := &store.Record{Tags: []string{"a", "b", "c"}, Data: make([]byte, 10_000)}
	ticket, err := storetest.Begin(background, s, "key", time.Minute)
	if err == nil {
		err = s.Put(background, "key", ticket, rec)
	}
	if err != nil {
		b.Fatal(err)
	}
	do := func(name string, f func() error) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := f(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	do("Get10KB", func() error {
		_, _, err := storetest.Get(b.Context(), s, "key")
		return err
	})
	do("Put10KB", func() error { return s.Put(b.Context(), "key", ticket, rec) })
	n := 0
	do("Put10KBNew", func() error {
		n++
		return s.Put(b.Context(), fmt.Sprint(n), ticket, rec)
	})
	do("BeginEnd", func() error {
		ticket, err := storetest.Begin(b.Context(), s, "key", time.Minute)
		if err != nil {
			return err
		}
		return s.End(b.Context(), "key", ticket)
	})
	do("Invalidate", func() error {
		_, err := s.Invalidate(b.Context(), store.Stale, "tag")
		return err
	})
	b.Run("InvalidateParallel", func(b *testing.B) {
		b.SetParallelism(16)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := s.Invalidate(background, store.Stale, "tag"); err != nil {
					b.Fatal(err)
				}
			}
		})
	})
}
