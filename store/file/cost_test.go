//go:build unix

package file_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/isr-go/isr/store"
	"github.com/isr-go/isr/store/file"
	"github.com/isr-go/isr/store/storetest"
)

// cpu returns what this process has used.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// size returns what a folder's files have, and what they take.
func size(b *testing.B, dir string) (bytes, onDisk int64) {
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if !d.IsDir() {
			bytes += info.Size()
		}
		onDisk += info.Sys().(*syscall.Stat_t).Blocks * 512
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	return bytes, onDisk
}

// What calls cost the machine: CPU, and what they leave on disk. Each is made a number of
// times of its own, so that
//
//	go test -run '^$' -bench Cost -benchtime 1x ./store/file
//
// has them all. It is what docs/fleet.md calculates with.
func BenchmarkCost(b *testing.B) {
	const calls = 2_000
	each := func(b *testing.B, f func(i int) error) {
		before, begin := cpu(b), time.Now()
		for i := range calls {
			if err := f(i); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(time.Since(begin).Microseconds())/calls, "µs/call")
		b.ReportMetric(float64((cpu(b)-before).Microseconds())/calls, "CPU-µs/call")
		b.ReportMetric(0, "ns/op")
	}
	for _, data := range []int{2 << 10, 10 << 10} {
		dir := b.TempDir()
		s := open(b, dir, file.Options{})
		b.Run(fmt.Sprintf("Put/%dKiB", data>>10), func(b *testing.B) {
			rec := &store.Record{Tags: []string{"/blog/1", "blog", "everything"}, Data: make([]byte, data)}
			each(b, func(i int) error {
				key := fmt.Sprint("https://example.com/blog/", i)
				t, err := storetest.Begin(b.Context(), s, key, time.Minute)
				if err != nil {
					return err
				}
				return s.Put(b.Context(), key, t, rec)
			})
			bytes, onDisk := size(b, dir)
			b.ReportMetric(float64(bytes)/calls-float64(data), "bytes-beside-data")
			b.ReportMetric(float64(onDisk)/calls, "disk-B/page")
		})
		b.Run(fmt.Sprintf("Look/%dKiB", data>>10), func(b *testing.B) {
			each(b, func(i int) error {
				_, _, err := storetest.Get(b.Context(), s, fmt.Sprint("https://example.com/blog/", i))
				return err
			})
		})
	}
	b.Run("Invalidate", func(b *testing.B) {
		dir := b.TempDir()
		s := open(b, dir, file.Options{})
		each(b, func(i int) error {
			_, err := s.Invalidate(b.Context(), store.Gone, fmt.Sprint("https://example.com/blog/", i))
			return err
		})
		info, err := os.Stat(filepath.Join(dir, "purges"))
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(info.Size())/calls, "log-B/tag")
	})
}
