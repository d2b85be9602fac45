package redis_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/isr-go/isr/store"
	"github.com/isr-go/isr/store/redis"
	"github.com/isr-go/isr/store/storetest"
)

// What the calls cost, with few and with many tags in the table.
func Benchmark(b *testing.B) {
	needServer(b)
	for _, tags := range []int{100, 60_000} {
		b.Run(fmt.Sprintf("tags=%d", tags), func(b *testing.B) {
			server := newServer(b)
			s := redis.New(server.client(), redis.Options{})
			for n := 0; n < tags; n += 100 {
				var batch []string
				for i := range 100 {
					batch = append(batch, fmt.Sprint("tag ", n+i))
				}
				mustInvalidate(b, s, store.Stale, batch...)
			}
			page := &store.Record{Tags: []string{"/blog/1", "blog", "everything"}, Data: make([]byte, 10<<10)}
			ticket, err := storetest.Begin(b.Context(), s, "key", time.Hour)
			if err == nil {
				err = s.Put(b.Context(), "key", ticket, page)
			}
			if err != nil {
				b.Fatal(err)
			}
			mustInvalidate(b, s, store.Stale, "tag 0") // or nothing is newer than the page

			bench := func(name string, f func() error) {
				b.Run(name, func(b *testing.B) {
					b.ReportAllocs()
					for b.Loop() {
						if err := f(); err != nil {
							b.Fatal(err)
						}
					}
				})
				b.Run(name+"/parallel", func(b *testing.B) {
					b.SetParallelism(16)
					b.RunParallel(func(pb *testing.PB) {
						for pb.Next() {
							if err := f(); err != nil {
								b.Error(err)
							}
						}
					})
				})
			}
			bench("Look", func() error {
				_, _, err := storetest.Get(b.Context(), s, "key")
				return err
			})
			bench("Look/miss", func() error {
				if _, _, err := storetest.Get(b.Context(), s, "none"); !errors.Is(err, store.ErrNotFound) {
					return fmt.Errorf("Look for nothing: %w", err)
				}
				return nil
			})
			bench("Look/ticket", func() error {
				_, err := storetest.Begin(b.Context(), s, "key", time.Hour)
				return err
			})
			bench("Put", func() error { return s.Put(b.Context(), "key", ticket, page) })
			bench("Invalidate", func() error {
				_, err := s.Invalidate(b.Context(), store.Stale, "blog")
				return err
			})
		})
	}
}
