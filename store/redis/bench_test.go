package redis_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

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

// How long the server is kept from all others, at most, by one Invalidate of a million tags:
// what its SLOWLOG has. The table is full, so that as many are forgotten.
func BenchmarkInvalidateMillion(b *testing.B) {
	needServer(b)
	server := newServer(b)
	admin := server.client()
	s := redis.New(admin, redis.Options{})
	s.SetRecent(0)
	do(b, admin, "CONFIG", "SET", "slowlog-log-slower-than", "2000", "slowlog-max-len", "100000")
	tags := make([]string, 1_000_000)
	for b.Loop() {
		for n := range tags {
			tags[n] = fmt.Sprint(rand.Uint64())
		}
		do(b, admin, "SLOWLOG", "RESET")
		before := cpu(b, admin)
		mustInvalidate(b, s, store.Gone, tags...)
		b.ReportMetric((cpu(b, admin)-before)*1000/float64(len(tags)/2000), "ms-cpu/call")
		entries, err := do(b, admin, "SLOWLOG", "GET", "-1").ToArray()
		if err != nil {
			b.Fatal(err)
		}
		longest := int64(0)
		for _, entry := range entries {
			fields, err := entry.ToArray()
			if err != nil {
				b.Fatal(err)
			}
			took, err := fields[2].AsInt64()
			if err != nil {
				b.Fatal(err)
			}
			longest = max(longest, took)
		}
		b.ReportMetric(float64(longest)/1000, "ms-longest")
	}
}

// cpu returns how many seconds of processor time the server has used.
func cpu(b *testing.B, admin rueidis.Client) (seconds float64) {
	info, err := do(b, admin, "INFO", "cpu").ToString()
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(info) {
		if name, n, _ := strings.Cut(strings.TrimSpace(line), ":"); name == "used_cpu_user" || name == "used_cpu_sys" {
			s, _ := strconv.ParseFloat(n, 64)
			seconds += s
		}
	}
	return seconds
}
