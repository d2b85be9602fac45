package isr_test

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/store/memory"
)

// heap returns how many bytes are allocated and in use: the least of several readings,
// since what a sync.Pool holds survives a collection, and so does what an encoder holds that
// is still at work behind the visitors.
func heap() int64 {
	least := int64(math.MaxInt64)
	for range 8 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		least = min(least, int64(m.HeapAlloc))
	}
	return least
}

// prose returns n bytes of HTML that compress to about a fifth.
func prose(n int) []byte {
	var b bytes.Buffer
	for rng := rand.New(rand.NewPCG(1, 2)); b.Len() < n; {
		fmt.Fprintf(&b, "<p class=\"line\">Some words, and %x among them.</p>\n", rng.Uint32())
	}
	return b.Bytes()[:n]
}

// Stats.Bytes is what the heap grows by, within a fifth, whatever the pages look like
// and however often they were asked for.
func TestMemory(t *testing.T) {
	if raceEnabled {
		t.Skip("the heap without the race detector is the one that counts")
	}
	page := func(contentType string, size int, headers ...string) http.HandlerFunc {
		body := prose(size)
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", contentType)
			for i := 0; i < len(headers); i += 2 {
				w.Header().Set(headers[i], headers[i+1])
			}
			w.Write(body)
		}
	}
	html := func(size int, headers ...string) http.HandlerFunc {
		return page("text/html; charset=utf-8", size, headers...)
	}
	var several []string
	for i := range 12 {
		several = append(several, fmt.Sprintf("X-Header-%d", i), fmt.Sprintf("a value of some length, number %d", i))
	}
	long := strings.Repeat("long", 100)
	tags := strings.Join(several, ",")

	for _, shape := range []struct {
		name    string
		pages   int                // more or fewer by half, because maps may be fuller or emptier
		target  func(i int) string // nil: a short path
		handler http.HandlerFunc
	}{
		{"100 B", 1000, nil, page("text/plain", 100)},
		{"1 KB html", 1000, nil, html(1 << 10)},
		{"10 KB html", 1000, nil, html(10 << 10)},
		{"10 KB image", 1000, nil, page("image/png", 10<<10)},
		{"100 KB html", 200, nil, html(100 << 10)},
		{"long query", 1000, func(i int) string { return fmt.Sprintf("/search?q=%s%d", long, i) }, page("text/plain", 100)},
		{"long path", 1000, func(i int) string { return fmt.Sprintf("/%s/%d", long, i) }, page("text/plain", 100)},
		{"escaped path", 1000, func(i int) string { return fmt.Sprintf("/%s/%d", strings.Repeat("%C3%A9", 70), i) }, page("text/plain", 100)},
		{"several headers", 1000, nil, page("text/plain", 100, several...)},
		{"several headers, 1 KB html", 1000, nil, html(1<<10, several...)},
		{"40 sets of names", 1000, nil, func(w http.ResponseWriter, r *http.Request) {
			n := len(r.URL.Path) + int(r.URL.Path[len(r.URL.Path)-1])*3
			for i := range 12 {
				w.Header().Set(fmt.Sprint("X-", n%40, "-Header-", i), "a value of some length")
			}
			io.WriteString(w, r.URL.Path)
		}},
		{"max-age counts down", 1000, nil, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "max-age="+r.URL.Path[len("/page/"):]+"00")
			io.WriteString(w, r.URL.Path)
		}},
		{"Vary on a long name", 1000, nil, html(100, "Vary", "X-"+strings.Repeat("long", 1000))},
		{"a tag", 1000, nil, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Tag", "section-"+r.URL.Path[len(r.URL.Path)-1:])
			io.WriteString(w, r.URL.Path)
		}},
		{"tags", 1000, nil, page("text/plain", 100, "Cache-Tag", tags)},
		{"empty", 1000, nil, func(http.ResponseWriter, *http.Request) {}},
		{"hit-for-pass", 1000, nil, html(100, "Set-Cookie", "a=b")},
	} {
		t.Run(shape.name, func(t *testing.T) {
			if shape.target == nil {
				shape.target = numbered
			}
			for _, n := range []int{shape.pages, shape.pages * 3 / 2} {
				for visits := range 3 {
					synctest.Test(t, func(t *testing.T) { // it ends when no run holds the Site any more
						before := heap()
						site, w := isr.Wrap(shape.handler, isr.Options{MaxBytes: 1 << 30}), newSink()
						for range 1 + visits {
							for i := range n {
								// Browsers mostly; the others get it plain.
								r := target("GET", shape.target(i), "Accept-Encoding", [...]string{"gzip", "gzip", ""}[visits])
								w.serve(site, r)
							}
						}
						clear(w.header)
						synctest.Wait() // for the encoders
						grown, s := heap()-before, site.Stats()
						if s.Pages != n {
							t.Fatalf("%d pages in memory, want %d", s.Pages, n)
						}
						ratio := float64(s.Bytes) / float64(grown)
						t.Logf("%d pages, %d more visits: the heap grew by %d bytes a page, %d are counted: %.2f", n, visits, grown/int64(n), s.Bytes/int64(n), ratio)
						if ratio < 1/1.2 || ratio > 1.2 {
							t.Errorf("%d pages, %d more visits: the heap grew by %d bytes a page, %d are counted", n, visits, grown/int64(n), s.Bytes/int64(n))
						}
						runtime.KeepAlive(site)
					})
				}
			}
		})
	}
}

// A page of 2 KB that does not compress takes at most 700 bytes beside its body, with a
// route, tags, a header in its key and an observer, however often it is asked for; and
// Stats.Bytes tells what it takes, within a tenth.
func TestMemoryPerPage(t *testing.T) {
	if raceEnabled {
		t.Skip("the heap without the race detector is the one that counts")
	}
	const n, size, most = 20_000, 2 << 10, 700
	body := bytes.Repeat([]byte{0}, size)
	before := heap()
	site, w := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "image/png")
		w.Write(body)
	}), isr.Options{
		MaxBytes: 1 << 30,
		Routes: map[string]isr.Route{
			"/blog/{id}": {TTL: time.Hour, StaleWhileRevalidate: time.Hour, Tags: []string{"blog"}, Vary: []string{"Accept-Language"}},
		},
		Observe: func(isr.Event) {},
	}), newSink()
	for visits := range 3 {
		for i := range n {
			w.serve(site, target("GET", fmt.Sprint("/blog/a-title-of-some-length-", i), "Accept-Language", "de"))
		}
		clear(w.header)
		grown, s := (heap()-before)/n-size, site.Stats()
		counted := s.Bytes/n - size
		t.Logf("%d more visits: %d bytes a page beside the body, %d are counted", visits, grown, counted)
		if s.Pages != n || grown > most || counted > most {
			t.Errorf("%d more visits: %d pages take %d bytes beside the body, %d are counted; want %d of at most %d", visits, s.Pages, grown, counted, n, most)
		}
		if ratio := float64(counted+size) / float64(grown+size); ratio < 0.9 || ratio > 1.1 {
			t.Errorf("%d more visits: a page takes %d bytes, %d are counted", visits, grown+size, counted+size)
		}
	}
	runtime.KeepAlive(site)
}

// The heap stays within the budget when many more pages come and go than there is room
// for.
func TestHeapStaysWithinMaxBytes(t *testing.T) {
	if raceEnabled {
		t.Skip("the heap without the race detector is the one that counts")
	}
	const maxBytes = 4 << 20
	body := prose(4 << 10)
	before := heap()
	site, w := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Write(body[:len(r.URL.Path)*997%len(body)])
	}), isr.Options{MaxBytes: maxBytes}), newSink()
	for i := range 20_000 {
		r := target("GET", "/"+strings.Repeat("a", i%50)+fmt.Sprint(i))
		w.serve(site, r)
		if i%4 == 0 {
			w.serve(site, r)
		}
	}
	clear(w.header)
	grown, s := heap()-before, site.Stats()
	if s.Evicted < 10_000 {
		t.Fatalf("only %d evictions: the budget was never reached", s.Evicted)
	}
	if s.Bytes > maxBytes || s.Bytes < maxBytes*9/10 {
		t.Errorf("%d bytes are counted, want about %d", s.Bytes, maxBytes)
	}
	ratio := float64(s.Bytes) / float64(grown)
	t.Logf("%d pages: the heap grew by %d bytes, %d are counted: %.2f", s.Pages, grown, s.Bytes, ratio)
	if ratio < 1/1.2 || ratio > 1.2 {
		t.Errorf("%d pages: the heap grew by %d bytes, %d are counted", s.Pages, grown, s.Bytes)
	}
	runtime.KeepAlive(site)
}

// Whatever happens, in whatever order: the pages never take more than MaxBytes, and
// what is counted is what is stored.
func TestMaxBytes(t *testing.T) {
	const maxBytes, visitors, paths = 256 << 10, 4, 400
	steps := 2_000
	if raceEnabled {
		steps = 300
	}
	body := prose(300 << 10)
	synctest.Test(t, func(t *testing.T) {
		var generation atomic.Int64
		site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			n := generation.Add(1)
			switch n % 17 {
			case 0:
				w.Header().Set("Cache-Control", "no-store")
			case 1:
				w.WriteHeader(http.StatusInternalServerError)
			case 2:
				w.WriteHeader(http.StatusNotFound)
			case 3:
				w.Write(body) // never fits
			default: // another size each time
				w.Header().Set("Content-Type", "text/html")
				w.Write(body[:n*7919%(20<<10)])
			}
		}), isr.Options{
			Origin:   "https://example.com",
			MaxBytes: maxBytes,
			Default:  isr.Route{TTL: 10 * time.Second, Tags: []string{"all"}},
		})
		var all sync.WaitGroup
		for visitor := range visitors {
			all.Go(func() {
				rng, w := rand.New(rand.NewPCG(uint64(visitor), 1)), newSink()
				for range steps {
					path := numbered(int(rng.ExpFloat64() * paths / 4))
					var err error
					switch op := rng.IntN(100); {
					case op < 80:
						w.serve(site, target("GET", path))
					case op < 85:
						w.serve(site, target("GET", fmt.Sprintf("%s?once=%d", path, rng.Uint64())))
					case op < 90:
						site.Revalidate(t.Context(), path) // which may fail
					case op < 94:
						err = site.Purge(t.Context(), path)
					case op < 96:
						w.serve(site, target("POST", path))
					case op < 97:
						err = site.RevalidateTag(t.Context(), "all")
					case op < 98:
						err = site.PurgeTag(t.Context(), "all")
					default:
						time.Sleep(time.Duration(rng.IntN(5000)) * time.Millisecond)
					}
					if err != nil {
						t.Error(err)
					}
					if s := site.Stats(); s.Bytes > maxBytes || s.Bytes < 0 {
						t.Errorf("%d bytes, want at most %d", s.Bytes, maxBytes)
						return
					}
				}
			})
		}
		all.Wait()
		synctest.Wait()
		s := site.Stats()
		if s.Evicted == 0 || s.Hits == 0 || s.Stale == 0 || s.Failed == 0 || s.Passed == 0 {
			t.Errorf("%+v: the test has tried too little", s)
		}
		// What a tag has purged is not listed until it is evicted: fill the
		// memory with other pages.
		w := newSink()
		for i := range steps {
			r := target("GET", fmt.Sprintf("/other/%d", i))
			w.serve(site, r)
			w.serve(site, r)
		}
		synctest.Wait() // for what is compressed behind the visitors
		var sum int64
		var pages int
		for p := range site.Pages() {
			sum += p.Size
			pages++
		}
		if s := site.Stats(); sum != s.Bytes || pages != s.Pages {
			t.Errorf("%d pages of %d bytes in all; Stats says %d of %d", pages, sum, s.Pages, s.Bytes)
		}
	})
}

// A page that is asked for again and again outlives those that are asked for once: a
// million random query strings evict not one of a hundred pages that were asked for
// twice.
func TestScanResistance(t *testing.T) {
	oneOffs := 1_000_000
	if raceEnabled || testing.Short() {
		oneOffs = 50_000
	}
	const hot = 100
	defer debug.SetGCPercent(debug.SetGCPercent(1000)) // little memory is in use
	generations := make(map[string]int)
	site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RawQuery == "" {
			generations[r.URL.Path]++ // one after the other
		}
		w.Write([]byte("page"))
	}), isr.Options{MaxBytes: 1 << 20})
	w, r := newSink(), target("GET", "/")
	visit := func(i int) string {
		r.URL.Path, r.URL.RawQuery = numbered(i), ""
		w.serve(site, r)
		return w.header.Get("Cache-Status")
	}
	for i := range hot {
		visit(i)
		if got := visit(i); !strings.HasPrefix(got, "isr; hit") {
			t.Fatalf("the second visit to %s: Cache-Status %q", r.URL, got)
		}
	}
	for range 10 { // many more than there is room for, if the old ones counted
		for i := range hot {
			if err := site.Revalidate(t.Context(), numbered(i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	scanners := runtime.GOMAXPROCS(0)
	oneOffs -= oneOffs % scanners
	var all sync.WaitGroup
	for scanner := range scanners {
		all.Go(func() {
			rng, w, r := rand.New(rand.NewPCG(uint64(scanner), 1)), newSink(), target("GET", "/")
			for i := range oneOffs / scanners {
				r.URL.Path = numbered(i % (2 * hot))
				r.URL.RawQuery = "utm=" + strconv.FormatUint(rng.Uint64(), 36)
				w.serve(site, r)
			}
		})
	}
	all.Wait()
	if s := site.Stats(); s.Misses != uint64(hot+oneOffs) || s.Evicted < uint64(oneOffs/2) {
		t.Fatalf("%+v: too few pages for an eviction", s)
	}
	for i := range hot {
		if got := visit(i); !strings.HasPrefix(got, "isr; hit") || generations[r.URL.Path] != 11 {
			t.Errorf("%s: Cache-Status %q after %d generations, want a hit after 11", r.URL, got, generations[r.URL.Path])
		}
	}
}

// A page that is larger than the probation segment is stored all the same.
func TestLargerThanProbation(t *testing.T) {
	site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "image/png")
		io.WriteString(w, strings.Repeat("x", 8_000))
	}), isr.Options{MaxBytes: 40_000})
	for i := range 3 {
		for range 2 {
			get(site, fmt.Sprint("/hot/", i))
		}
	}
	for range 2 {
		get(site, "/new/1")
		get(site, "/new/2")
	}
	if got := get(site, "/new/2").Header.Get("Cache-Status"); got != "isr; hit" {
		t.Errorf("Cache-Status %q", got)
	}
}

// A page that does not fit is served and not stored, and Pages says why.
func TestLargerThanMaxBytes(t *testing.T) {
	c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
		io.WriteString(w, strings.Repeat("x", 1800))
	}}
	site := isr.Wrap(c, isr.Options{MaxBytes: 2000})
	for range 2 {
		if got := body(site, "/"); len(got) != 1800 {
			t.Errorf("got %d bytes", len(got))
		}
	}
	if got, want := pages(site)["/"].NotStored, "takes more than MaxBytes (2000): raise it, or set Route.Bypass"; got != want {
		t.Errorf("not stored because it %q, want %q", got, want)
	}
}

// Pages that are evicted to make room for others are reported.
func TestEvictionsAreReported(t *testing.T) {
	var j journal
	site := isr.Wrap(new(countingHandler), isr.Options{MaxBytes: 10_000, Observe: j.observe})
	for i := range 100 {
		get(site, fmt.Sprint("/", i))
	}
	events, _ := j.taken()
	if !slices.Contains(events, "evicted /0  200 0s <nil>") {
		t.Errorf("no event for the first page: %q", events)
	}
	// The record of a failure counts like a page.
	fails := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(500) }), isr.Options{
		MaxBytes: 10_000, Default: isr.Route{Placeholder: http.NotFoundHandler()},
	})
	for i := range 100 {
		get(fails, fmt.Sprint("/", i), "User-Agent", "Googlebot")
	}
	if st := fails.Stats(); st.Evicted+uint64(st.Pages) != 100 {
		t.Errorf("%+v", st)
	}
	st := site.Stats()
	if st.Evicted+uint64(st.Pages) != 100 || st.Bytes > 10_000 || st.Pages == 0 {
		t.Errorf("%+v", st)
	}
}

// A renewed page keeps its place among the others and its count of visits; and asking
// for a page by name counts like a second visit.
func TestRenewalKeepsItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		site := isr.Wrap(new(countingHandler), isr.Options{MaxBytes: 100_000, Origin: "http://example.com", Default: isr.Route{Tags: []string{"t"}}})
		get(site, "/hot")
		get(site, "/hot")
		for _, err := range site.Prerender(t.Context(), slices.Values([]string{"/named"})) {
			if err != nil {
				t.Fatal(err)
			}
		}
		site.RevalidateTag(t.Context(), "t")
		get(site, "/hot")
		synctest.Wait()
		if got := pages(site)["/hot"]; got.Hits != 2 || got.State != isr.Fresh {
			t.Errorf("%v, %d hits after it was renewed, want 2", got.State, got.Hits)
		}
		for i := range 1000 {
			get(site, fmt.Sprint("/once/", i))
		}
		for target, want := range map[string]string{"/hot": "isr; hit", "/named": "isr; hit; ttl=0; detail=stale"} {
			if got := get(site, target).Header.Get("Cache-Status"); got != want {
				t.Errorf("%s: %q, want %q", target, got, want)
			}
		}
	})
}

// Pages on their way to a slow Store hold a bounded part of memory: what is more than
// that is not written, and does not wait.
func TestPagesOnTheirWayToTheStoreHoldABoundedPartOfMemory(t *testing.T) {
	if raceEnabled {
		t.Skip("the heap without the race detector is the one that counts")
	}
	for name, takes := range map[string]time.Duration{"slow": 450 * time.Millisecond, "hung": time.Hour} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				st := &faultyStore{Store: memory.New()}
				in := fleet(t, st, isr.Options{MaxBytes: 4 << 20, MaxPageBytes: 1 << 20})
				site := in.start(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Content-Type", "image/png")
					w.Write(make([]byte, 200<<10))
				}))
				st.set(only(slow(takes), "put"))
				get(site, "/")
				before := heap()
				for i := range 400 {
					get(site, fmt.Sprint("/", i))
				}
				if grown := heap() - before; grown > 12<<20 {
					t.Errorf("grown by %d MiB with MaxBytes 4 MiB", grown>>20)
				}
				time.Sleep(takes + time.Minute)
				st.set(nil)
				before = int64(st.count("put"))
				get(site, "/another")
				synctest.Wait()
				if int64(st.count("put")) != before+1 {
					t.Error("when the Store is fast again, the next page does not get there")
				}
			})
		})
	}
}

// However slow the Store is: what is prerendered gets there, since it is not generated faster.
func TestPrerenderWaitsForTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &faultyStore{Store: memory.New()}
		in := fleet(t, st, isr.Options{Origin: "http://example.com", MaxBytes: 4 << 20, MaxPageBytes: 1 << 20, MaxRegenerations: 2})
		site := in.start(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "image/png")
			w.Write(make([]byte, 50<<10))
		}))
		time.Sleep(time.Second) // until the Store was reached
		st.set(only(slow(100*time.Millisecond), "put"))
		before := st.count("put")
		var paths []string
		for i := range 200 {
			paths = append(paths, fmt.Sprint("/", i))
		}
		for path, err := range site.Prerender(t.Context(), slices.Values(paths)) {
			if err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}
		time.Sleep(time.Second)
		if n := st.count("put") - before; n != 200 {
			t.Errorf("%d pages of 200 were put", n)
		}
	})
}
