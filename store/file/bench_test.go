package file_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/isr-go/isr"
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

// How long a process that starts needs until its first visitor has a page which is stored:
// with many pages in the directory, and with many purges in the log.
func BenchmarkColdStart(b *testing.B) {
	for _, has := range []struct{ pages, purges int }{{1000, 0}, {200_000, 0}, {1000, 60_000}, {1000, 300_000}} {
		b.Run(fmt.Sprintf("pages=%d/purges=%d", has.pages, has.purges), func(b *testing.B) {
			dir := b.TempDir()
			start := func() (*isr.Site, *file.Store) {
				s, err := file.Open(dir, file.Options{MaxBytes: -1})
				if err != nil {
					b.Fatal(err)
				}
				return isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					w.Write(make([]byte, 10_000))
				}), isr.Options{Origin: "https://example.com", Version: "1", Store: s}), s
			}
			visit := func(site *isr.Site) string {
				w := httptest.NewRecorder()
				site.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
				return w.Header().Get("Cache-Status")
			}
			end := func(site *isr.Site, s *file.Store) {
				if err := site.Shutdown(background); err != nil {
					b.Fatal(err)
				}
				s.Settle()
			}
			site, s := start()
			if err := s.Fill(has.pages); err != nil {
				b.Fatal(err)
			}
			for n := 0; n < has.purges; n += 2000 {
				tags := make([]string, 2000)
				for i := range tags {
					tags[i] = fmt.Sprintf("/articles/a-title-of-some-words-%d", n+i)
				}
				if _, err := s.Invalidate(background, store.Gone, tags...); err != nil {
					b.Fatal(err)
				}
			}
			visit(site)
			end(site, s)
			var longest time.Duration
			generated := 0
			for b.Loop() {
				begin := time.Now()
				site, s := start()
				if got := visit(site); !strings.HasPrefix(got, "isr; hit") {
					generated++ // the log was not read in time
				}
				longest = max(longest, time.Since(begin))
				b.StopTimer()
				end(site, s)
				b.StartTimer()
			}
			b.ReportMetric(float64(longest)/1e6, "ms-longest")
			b.ReportMetric(float64(generated)/float64(b.N), "generated/op")
		})
	}
}
