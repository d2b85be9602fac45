package isr_test

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/internal/isrtest"
)

// stuck is a number of visitors who read nothing until they are released.
type stuck struct {
	site    http.Handler
	gate    chan struct{}
	writers []*stuckWriter
	cut     atomic.Int64 // how many connections were cut off
	all     sync.WaitGroup
}

// visit adds one, who has sent the given headers.
func (s *stuck) visit(url string, headers ...string) {
	w := &stuckWriter{header: make(http.Header), gate: s.gate}
	s.writers = append(s.writers, w)
	r := target("GET", url, headers...)
	s.all.Go(func() {
		if recovered(func() { s.site.ServeHTTP(w, r) }) != nil {
			s.cut.Add(1)
		}
	})
	synctest.Wait()
}

// release has all of them read, and returns how many have got size bytes.
func (s *stuck) release(size int) (whole int) {
	close(s.gate)
	s.all.Wait()
	for _, w := range s.writers {
		if w.n == size {
			whole++
		}
	}
	return whole
}

// Slow readers of pages that have left the cache hold at most a quarter of MaxBytes, and a
// small piece each: those who are slowest are cut off, and no client takes the part for
// the whole.
func TestSlowReadersOfPagesHoldABoundedPartOfMemory(t *testing.T) {
	if raceEnabled {
		t.Skip("the heap without the race detector is the one that counts")
	}
	const size, readers = 256 << 10, 100
	for name, test := range map[string]struct {
		contentType string
		headers     []string
		hits        bool
	}{
		"first visits": {contentType: "image/png"},
		"hits":         {contentType: "image/png", hits: true},
		"ranges":       {contentType: "image/png", headers: []string{"Range", "bytes=0-"}},
		"conditional":  {contentType: "image/png", headers: []string{"If-None-Match", `"another"`}, hits: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Content-Type", test.contentType)
					w.Write(make([]byte, size))
				}), isr.Options{MaxBytes: 4 << 20, MaxPageBytes: 1 << 20})
				s := &stuck{site: site, gate: make(chan struct{})}
				before := heap()
				for i := range readers {
					if test.hits {
						newSink().serve(site, target("GET", fmt.Sprint("/?x=", i)))
					}
					s.visit(fmt.Sprint("/?x=", i), test.headers...)
				}
				if grown := heap() - before; grown > 12<<20 {
					t.Errorf("grown by %d MiB with MaxBytes 4 MiB", grown>>20)
				}
				whole := s.release(size)
				if cut := int(s.cut.Load()); whole < 12 || whole > 25 || whole+cut != readers {
					t.Errorf("%d have got all, %d were cut off", whole, cut)
				}
			})
		})
	}
}

// Who reads slowly gets the whole of a page that is renewed meanwhile, or evicted, if they
// are not many; and of one that is stored, however many they are.
func TestSlowReadersGetTheirPage(t *testing.T) {
	const size = 256 << 10
	for name, test := range map[string]struct{ readers, others, renewals int }{
		"renewed": {readers: 10, renewals: 1},
		"evicted": {readers: 10, others: 40},
		"stored":  {readers: 200},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Content-Type", "image/png")
					w.Write(make([]byte, size))
				}), isr.Options{MaxBytes: 4 << 20, MaxPageBytes: 1 << 20, Origin: "http://example.com"})
				s := &stuck{site: site, gate: make(chan struct{})}
				for range test.readers {
					s.visit("/")
				}
				for range test.renewals {
					site.Revalidate(t.Context(), "/")
				}
				for i := range test.others {
					get(site, fmt.Sprint("/", i))
				}
				if whole := s.release(size); whole != test.readers || s.cut.Load() != 0 {
					t.Errorf("%d of %d have got all, %d were cut off", whole, test.readers, s.cut.Load())
				}
			})
		})
	}
}

// Slow readers of a handler's errors share that quarter; the others get the status alone.
func TestSlowReadersOfErrorsHoldABoundedPartOfMemory(t *testing.T) {
	if raceEnabled {
		t.Skip("the heap without the race detector is the one that counts")
	}
	const size, readers = 256 << 10, 100
	synctest.Test(t, func(t *testing.T) {
		site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusInternalServerError)
			w.Write(make([]byte, size))
		}), isr.Options{MaxBytes: 4 << 20, MaxPageBytes: 1 << 20})
		s := &stuck{site: site, gate: make(chan struct{})}
		before := heap()
		for i := range readers {
			s.visit(fmt.Sprint("/?x=", i))
		}
		if grown := heap() - before; grown > 4<<20 {
			t.Errorf("grown by %d MiB with MaxBytes 4 MiB", grown>>20)
		}
		if whole := s.release(size); whole != 4 {
			t.Errorf("%d have got all, want 4", whole)
		}
		for _, w := range s.writers {
			if w.status != http.StatusInternalServerError {
				t.Errorf("status %d", w.status)
			}
		}
		if got := len(read(get(site, "/?x=1"))); got != size {
			t.Errorf("when all have read what they wanted: %d bytes", got)
		}
	})
}

// A page that is sent in pieces is the same in every way that it can be asked for.
func TestLargePageInPieces(t *testing.T) {
	var b strings.Builder
	for i := range 30_000 {
		fmt.Fprintf(&b, "%x ", i*i*7919)
	}
	want := b.String()
	site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		io.WriteString(w, want)
	}), isr.Options{})
	get(site, "/", "Accept-Encoding", "gzip")
	for range 2 {
		if got := read(get(site, "/")); got != want {
			t.Errorf("got %d bytes, want %d", len(got), len(want))
		}
	}
	var res *http.Response
	isrtest.Eventually(t, "gzip", func() error {
		if res = get(site, "/", "Accept-Encoding", "gzip"); res.Header.Get("Content-Encoding") != "gzip" {
			return errors.New("not yet")
		}
		return nil
	})
	z, err := gzip.NewReader(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(z); string(got) != want || err != nil {
		t.Errorf("gzip: %d bytes, %v; want %d", len(got), err, len(want))
	}
	for asked, want := range map[string]string{"bytes=100000-": want[100000:], "bytes=-5": want[len(want)-5:], "bytes=40000-140000": want[40000:140001]} {
		if res := get(site, "/", "Range", asked); res.StatusCode != http.StatusPartialContent || read(res) != want {
			t.Errorf("%s: %d, another body", asked, res.StatusCode)
		}
	}
	if res := get(site, "/", "If-None-Match", `"another"`); read(res) != want {
		t.Error("conditional: another body")
	}
}
