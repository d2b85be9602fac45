package redis_test

import (
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/isr-go/isr/store"
	"github.com/isr-go/isr/store/redis"
	"github.com/isr-go/isr/store/storetest"
)

// stats are numbers of a server.
type stats struct {
	cpu    time.Duration
	bytes  int64 // to and from all clients
	memory int64
}

func statsOf(tb testing.TB, admin rueidis.Client) (s stats) {
	tb.Helper()
	values := make(map[string]float64)
	for _, section := range []string{"cpu", "stats", "memory"} {
		text, err := do(tb, admin, "INFO", section).ToString()
		if err != nil {
			tb.Fatal(err)
		}
		for line := range strings.Lines(text) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
			values[name], _ = strconv.ParseFloat(value, 64)
		}
	}
	s.cpu = time.Duration((values["used_cpu_user"] + values["used_cpu_sys"]) * 1e9)
	s.bytes = int64(values["total_net_input_bytes"] + values["total_net_output_bytes"])
	s.memory = int64(values["used_memory"])
	return s
}

// What calls cost the server, and not who waits for it: its CPU, bytes on the wire, and
// memory. Each is made a number of times of its own, so that
//
//	go test -run '^$' -bench Cost -benchtime 1x ./store/redis
//
// has them all. It is what docs/fleet.md calculates with.
func BenchmarkCost(b *testing.B) {
	needServer(b)
	const calls, subscribers = 10_000, 200
	open := func(b *testing.B) (*redis.Store, rueidis.Client, *server) {
		server := newServer(b)
		s := redis.New(server.client(), redis.Options{})
		mustInvalidate(b, s, store.Stale, "the first")
		if _, _, err := storetest.Get(b.Context(), s, "none"); err == nil { // the scripts are loaded
			b.Fatal("a page")
		}
		return s, server.client(), server
	}
	// each measures n calls, four at a time.
	each := func(b *testing.B, admin rueidis.Client, n int, f func(i int) error) (cost stats) {
		before := statsOf(b, admin)
		var all sync.WaitGroup
		for w := range 4 {
			all.Go(func() {
				for i := w; i < n; i += 4 {
					if err := f(i); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		all.Wait()
		after := statsOf(b, admin)
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(float64((after.cpu-before.cpu).Microseconds())/float64(n), "server-µs/call")
		b.ReportMetric(float64(after.bytes-before.bytes)/float64(n), "wire-B/call")
		return stats{memory: (after.memory - before.memory) / int64(n)}
	}
	page := func(n int) *store.Record {
		return &store.Record{Tags: []string{"/blog/1", "blog", "everything"}, Data: make([]byte, n)}
	}

	for _, size := range []int{2 << 10, 10 << 10} {
		b.Run(fmt.Sprintf("Put/%dKiB", size>>10), func(b *testing.B) {
			s, admin, _ := open(b)
			cost := each(b, admin, calls, func(i int) error {
				key := fmt.Sprint("https://example.com/blog/", i)
				t, err := storetest.Begin(b.Context(), s, key, time.Minute)
				if err != nil {
					return err
				}
				return s.Put(b.Context(), key, t, page(size))
			})
			b.ReportMetric(float64(cost.memory-int64(size)), "memory-B-beside-data")
		})
	}
	b.Run("Look/10KiB", func(b *testing.B) {
		s, admin, _ := open(b)
		t, err := storetest.Begin(b.Context(), s, "key", time.Minute)
		if err == nil {
			err = s.Put(b.Context(), "key", t, page(10<<10))
		}
		if err != nil {
			b.Fatal(err)
		}
		mustInvalidate(b, s, store.Stale, "another")
		each(b, admin, calls, func(int) error {
			_, _, err := storetest.Get(b.Context(), s, "key")
			return err
		})
	})
	b.Run("Invalidate", func(b *testing.B) {
		s, admin, _ := open(b)
		cost := each(b, admin, calls, func(i int) error {
			_, err := s.Invalidate(b.Context(), store.Gone, fmt.Sprint("https://example.com/blog/", i))
			return err
		})
		b.ReportMetric(float64(cost.memory), "memory-B/tag")
	})
	// An instance that is busy, and follows what is invalidated.
	b.Run("instance", func(b *testing.B) {
		server := newServer(b)
		s := redis.New(newClient(b, rueidis.ClientOption{InitAddress: []string{server.addr}, ClientName: "instance"}), redis.Options{})
		var all sync.WaitGroup
		all.Go(func() { s.Changes(b.Context(), mustInvalidate(b, s, store.Gone, "tag")) })
		for i := range 64 {
			all.Go(func() { storetest.Get(b.Context(), s, fmt.Sprint(i)) })
		}
		all.Wait()
		list, err := do(b, server.client(), "CLIENT", "LIST").ToString()
		if err != nil {
			b.Fatal(err)
		}
		n := strings.Count(list, " name=instance ")
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(float64(n), "connections")
	})
	// The hint alone: what it costs more than without anybody who listens, for each of them.
	b.Run("hint", func(b *testing.B) {
		s, admin, server := open(b)
		invalidate := func(int) error {
			_, err := s.Invalidate(b.Context(), store.Gone, "tag")
			return err
		}
		const hints = 500
		before := statsOf(b, admin)
		for i := range hints {
			if err := invalidate(i); err != nil {
				b.Fatal(err)
			}
		}
		without := statsOf(b, admin)
		for range subscribers {
			conn, err := net.Dial("tcp", server.addr)
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { conn.Close() })
			fmt.Fprintf(conn, "SUBSCRIBE %s\r\n", s.Table())
			if _, err := conn.Read(make([]byte, 1)); err != nil {
				b.Fatal(err)
			}
			go io.Copy(io.Discard, conn)
		}
		quiet := statsOf(b, admin)
		for i := range hints {
			if err := invalidate(i); err != nil {
				b.Fatal(err)
			}
		}
		with := statsOf(b, admin)
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(float64(((with.cpu-quiet.cpu)-(without.cpu-before.cpu)).Nanoseconds())/1e3/hints/subscribers, "server-µs/listener")
		b.ReportMetric(float64((with.bytes-quiet.bytes)-(without.bytes-before.bytes))/hints/subscribers, "wire-B/listener")
	})
	for _, changes := range []int{0, 1, 100} {
		b.Run(fmt.Sprint("Changes/", changes), func(b *testing.B) {
			s, admin, _ := open(b)
			cursor := mustInvalidate(b, s, store.Gone, "before")
			for i := range changes {
				mustInvalidate(b, s, store.Gone, fmt.Sprint("https://example.com/blog/", i))
			}
			if changes == 0 {
				s.SetHeartbeat(time.Nanosecond)
			}
			each(b, admin, calls/10, func(int) error {
				c, err := s.Changes(b.Context(), cursor)
				if err == nil && len(c.List) != changes {
					err = fmt.Errorf("%d changes", len(c.List))
				}
				return err
			})
		})
	}
}
