//go:build linux

package postgres_test

import (
	"errors"
	"testing"
	"time"

	"github.com/isr-go/isr/store"
	"github.com/isr-go/isr/store/storetest"
)

// What the calls cost, one caller at a time.
func Benchmark(b *testing.B) {
	s := newServer(b).open(b)
	page := &store.Record{Tags: []string{"/blog/1", "blog", "everything"}, Data: make([]byte, 10<<10)}
	ticket, err := storetest.Begin(b.Context(), s, "key", time.Hour)
	if err == nil {
		err = s.Put(b.Context(), "key", ticket, page)
	}
	if err == nil {
		_, err = s.Invalidate(b.Context(), store.Stale, "another")
	}
	if err != nil {
		b.Fatal(err)
	}
	bench := func(name string, f func() error) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := f(); err != nil && !errors.Is(err, store.ErrNotFound) {
					b.Fatal(err)
				}
			}
		})
	}
	bench("Look", func() error {
		_, _, err := storetest.Get(b.Context(), s, "key")
		return err
	})
	bench("Miss", func() error {
		_, _, err := storetest.Get(b.Context(), s, "nothing")
		return err
	})
	bench("LookForTicket", func() error {
		_, err := storetest.Begin(b.Context(), s, "key", time.Minute)
		return err
	})
	bench("Put", func() error { return s.Put(b.Context(), "key", ticket, page) })
	bench("Invalidate", func() error {
		_, err := s.Invalidate(b.Context(), store.Stale, "tag")
		return err
	})
	tags := make([]string, 2000)
	for i := range tags {
		tags[i] = time.Duration(i).String()
	}
	bench("Invalidate2000", func() error {
		_, err := s.Invalidate(b.Context(), store.Stale, tags...)
		return err
	})
}
