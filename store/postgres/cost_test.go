//go:build linux

package postgres_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/isr-go/isr/store"
	"github.com/isr-go/isr/store/postgres"
	"github.com/isr-go/isr/store/storetest"
)

// cpu returns what all processes of the server have used.
func (s *server) cpu() (used time.Duration) {
	for _, pid := range append(s.children(), s.cmd.Process.Pid) {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		_, rest, _ := strings.Cut(string(b), ") ")
		fields := strings.Fields(rest)
		if len(fields) < 15 {
			continue // it has ended
		}
		ticks := fields[11:13] // utime, stime
		if pid == s.cmd.Process.Pid {
			ticks = fields[11:15] // those of the children that have ended, too
		}
		for _, t := range ticks {
			n, _ := strconv.Atoi(t)
			used += time.Duration(n) * 10 * time.Millisecond
		}
	}
	return used
}

// memory returns what a process has for itself.
func memory(tb testing.TB, pid uint32) (bytes int64) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		tb.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "Private_Dirty:" {
			kb, _ := strconv.ParseInt(f[1], 10, 64)
			bytes += kb << 10
		}
	}
	return bytes
}

// A countedConn counts bytes.
type countedConn struct {
	net.Conn
	bytes *atomic.Int64
}

func (c countedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.bytes.Add(int64(n))
	return n, err
}

func (c countedConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.bytes.Add(int64(n))
	return n, err
}

// What calls cost the server, and not who waits for it: its CPU, bytes on the wire and in
// the log that it writes ahead, and what is on disk. Each is made a number of times of its
// own, so that
//
//	go test -run '^$' -bench Cost -benchtime 1x ./store/postgres
//
// has them all. It is what docs/fleet.md calculates with.
func BenchmarkCost(b *testing.B) {
	const calls, listeners = 4_000, 60
	server := newServer(b)
	admin := server.pool()
	b.Cleanup(admin.Close)
	number := func(b *testing.B, sql string) (n int64) {
		b.Helper()
		if err := admin.QueryRow(b.Context(), sql).Scan(&n); err != nil {
			b.Fatal(err)
		}
		return n
	}
	var bytes atomic.Int64
	open := func(b *testing.B) *postgres.Store {
		b.Helper()
		for _, sql := range []string{"DROP SCHEMA public CASCADE", "CREATE SCHEMA public"} {
			if _, err := admin.Exec(b.Context(), sql); err != nil {
				b.Fatal(err)
			}
		}
		config := admin.Config()
		config.MaxConns = 7 // four for pages
		config.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, addr)
			return countedConn{conn, &bytes}, err
		}
		pool, err := pgxpool.NewWithConfig(b.Context(), config)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(pool.Close)
		s := postgres.New(pool, postgres.Options{})
		if _, err := s.Invalidate(b.Context(), store.Stale, "the first"); err != nil {
			b.Fatal(err)
		}
		return s
	}
	// each measures n calls, some at a time, after others that are not measured: those have
	// the connections made.
	each := func(b *testing.B, n, atOnce int, f func(i int) error) {
		b.Helper()
		round := func(from, until int) {
			var all sync.WaitGroup
			for w := range atOnce {
				all.Go(func() {
					for i := from + w; i < until; i += atOnce {
						if err := f(i); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			all.Wait()
		}
		round(n, n+100)
		cpu, wire, wal := server.cpu(), bytes.Load(), number(b, "SELECT pg_current_wal_insert_lsn() - '0/0'")
		round(0, n)
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(float64((server.cpu()-cpu).Microseconds())/float64(n), "server-µs/call")
		b.ReportMetric(float64(bytes.Load()-wire)/float64(n), "wire-B/call")
		b.ReportMetric(float64(number(b, "SELECT pg_current_wal_insert_lsn() - '0/0'")-wal)/float64(n), "WAL-B/call")
	}
	page := &store.Record{Tags: []string{"/blog/1", "blog", "everything"}, Data: make([]byte, 10<<10)}
	put := func(b *testing.B, s *postgres.Store, key string) error {
		t, err := storetest.Begin(b.Context(), s, key, time.Minute)
		if err != nil {
			return err
		}
		return s.Put(b.Context(), key, t, page)
	}

	b.Run("Put/10KiB", func(b *testing.B) {
		s := open(b)
		each(b, calls, 4, func(i int) error { return put(b, s, fmt.Sprint("https://example.com/blog/", i)) })
		size := number(b, "SELECT pg_total_relation_size('isr_pages') + pg_total_relation_size('isr_leases')")
		b.ReportMetric(float64(size)/(calls+100)-10<<10, "disk-B-beside-data")
	})
	b.Run("Look/10KiB", func(b *testing.B) {
		s := open(b)
		if err := put(b, s, "key"); err != nil {
			b.Fatal(err)
		}
		each(b, calls, 4, func(int) error {
			_, _, err := storetest.Get(b.Context(), s, "key")
			return err
		})
	})
	b.Run("Invalidate", func(b *testing.B) {
		s := open(b)
		each(b, calls, 4, func(i int) error {
			_, err := s.Invalidate(b.Context(), store.Gone, fmt.Sprint("https://example.com/blog/", i))
			return err
		})
		b.ReportMetric(float64(number(b, "SELECT pg_total_relation_size('isr_versions')"))/(calls+100), "disk-B/tag")
	})
	// The hint alone: what it costs more than without anybody who listens, for each of them.
	b.Run("hint", func(b *testing.B) {
		s := open(b)
		const hints = 500
		invalidate := func() (cpu time.Duration) {
			before := server.cpu()
			for range hints {
				if _, err := s.Invalidate(b.Context(), store.Gone, "tag"); err != nil {
					b.Fatal(err)
				}
			}
			time.Sleep(time.Second) // until all have heard of it
			return server.cpu() - before
		}
		without := invalidate()
		var all sync.WaitGroup
		var private int64
		var heard atomic.Int64
		ctx, cancel := context.WithCancel(b.Context())
		defer cancel()
		for range listeners {
			config := admin.Config().ConnConfig
			config.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
				conn, err := new(net.Dialer).DialContext(ctx, network, addr)
				return countedConn{conn, &heard}, err
			}
			conn, err := pgx.ConnectConfig(ctx, config)
			if err == nil {
				_, err = conn.Exec(ctx, "LISTEN isr_versions")
			}
			if err != nil {
				b.Fatal(err)
			}
			private += memory(b, conn.PgConn().PID())
			all.Go(func() {
				defer conn.Close(context.Background())
				for err == nil {
					_, err = conn.WaitForNotification(ctx)
				}
			})
		}
		heard.Store(0)
		with := invalidate()
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(float64((with-without).Nanoseconds())/1e3/hints/listeners, "server-µs/listener")
		b.ReportMetric(float64(heard.Load())/hints/listeners, "wire-B/listener")
		b.ReportMetric(float64(private)/listeners, "memory-B/listener")
		cancel()
		all.Wait()
	})
	for _, changes := range []int{0, 1, 100} {
		b.Run(fmt.Sprint("Changes/", changes), func(b *testing.B) {
			s := open(b)
			cursor, err := s.Invalidate(b.Context(), store.Gone, "before")
			for i := 0; i < changes && err == nil; i++ {
				_, err = s.Invalidate(b.Context(), store.Gone, fmt.Sprint("https://example.com/blog/", i))
			}
			if err != nil {
				b.Fatal(err)
			}
			n, atOnce := calls/4, 4
			if changes == 0 { // each takes a second
				atOnce = n / 2
			}
			each(b, n, atOnce, func(int) error {
				c, err := s.Changes(b.Context(), cursor)
				if err == nil && len(c.List) != changes {
					err = fmt.Errorf("%d changes", len(c.List))
				}
				return err
			})
		})
	}
	// What connections that are used for pages have for themselves.
	b.Run("connection", func(b *testing.B) {
		s := open(b)
		if err := put(b, s, "key"); err != nil {
			b.Fatal(err)
		}
		pool, err := pgxpool.New(b.Context(), admin.Config().ConnString()+"&pool_max_conns=1")
		if err != nil {
			b.Fatal(err)
		}
		defer pool.Close()
		own := postgres.New(pool, postgres.Options{})
		for range 100 {
			if err := put(b, own, "key"); err != nil {
				b.Fatal(err)
			}
			if _, _, err := storetest.Get(b.Context(), own, "key"); err != nil {
				b.Fatal(err)
			}
		}
		c, err := pool.Acquire(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		defer c.Release()
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(float64(memory(b, c.Conn().PgConn().PID())), "memory-B")
	})
}
