package isr_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/internal/isrtest"
)

// A sink is a ResponseWriter that costs next to nothing: it counts the body, and
// its header map is used again and again. The bare handlers get it, too.
type sink struct {
	header http.Header
	status int
	n      int
}

func newSink() *sink { return &sink{header: make(http.Header)} }

func (w *sink) Header() http.Header { return w.header }

func (w *sink) WriteHeader(status int) { w.status = status }

func (w *sink) Write(b []byte) (int, error) {
	w.n += len(b)
	return len(b), nil
}

// serve answers r anew.
func (w *sink) serve(h http.Handler, r *http.Request) {
	clear(w.header)
	w.status, w.n = http.StatusOK, 0
	h.ServeHTTP(w, r)
}

// body10k is a page of 10 KB that compresses as pages do.
var body10k = func() []byte {
	var b bytes.Buffer
	for i := 0; b.Len() < 10<<10; i++ {
		fmt.Fprintf(&b, "<p>Line %d of a page, with <a href=\"/blog/%d\">a link</a> to another one.</p>\n", i, i*7919)
	}
	return b.Bytes()[:10<<10]
}()

// bare10k is the yardstick: a handler that sets three headers and writes 10 KB.
func bare10k(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(body10k)))
	h.Set("Cache-Control", "public, max-age=60")
	w.Write(body10k)
}

// page10k is the handler behind isr in most benchmarks.
func page10k(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Write(body10k)
}

// tiny is the handler where many pages are needed.
func tiny(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	io.WriteString(w, r.URL.Path)
}

// target returns a request as a server would get it. Headers are names and
// values in turn.
func target(method, path string, headers ...string) *http.Request {
	r := httptest.NewRequest(method, path, nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return r
}

// warm asks for a page until it is served from memory, as one that is asked for
// again and again.
func warm(tb testing.TB, h http.Handler, r *http.Request) {
	tb.Helper()
	w := newSink()
	w.serve(h, r)
	zipped := target("GET", r.URL.RequestURI(), "Accept-Encoding", "gzip")
	isrtest.Eventually(tb, "compressing the page", func() error {
		w.serve(h, zipped)
		if w.header.Get("Vary") != "" && w.header.Get("Content-Encoding") == "" {
			return errors.New("it has no encoding")
		}
		return nil
	})
	for range 2 {
		w.serve(h, r)
	}
	if got := w.header.Get("Cache-Status"); !strings.HasPrefix(got, "isr; hit") {
		tb.Fatalf("%s %s: Cache-Status %q: not a hit", r.Method, r.URL, got)
	}
}

// twentyRoutes are patterns as a middling site has them.
func twentyRoutes() map[string]isr.Route {
	routes := map[string]isr.Route{
		"/{$}":                           {TTL: time.Hour},
		"/about":                         {},
		"/account/":                      {Bypass: isr.Always},
		"/blog/{id}":                     {TTL: time.Hour, Tags: []string{"blog"}},
		"/blog/{id}/comments":            {TTL: time.Minute},
		"/docs/{version}/{page...}":      {TTL: time.Hour},
		"/search":                        {TTL: time.Hour, Query: []string{"q", "page"}},
		"GET /feed.xml":                  {TTL: time.Hour},
		"/shop/{category}/{item}":        {TTL: time.Hour},
		"/shop/{category}/{item}/review": {TTL: time.Hour},
	}
	for i := range 10 {
		routes[fmt.Sprintf("/section%d/{topic}/{id}", i)] = isr.Route{TTL: time.Hour}
	}
	return routes
}

// browser is what a browser sends with a request.
var browser = []string{
	"Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
	"Accept-Encoding", "gzip, deflate, br, zstd",
	"Accept-Language", "de,en-US;q=0.7,en;q=0.3",
	"Connection", "keep-alive",
	"Cookie", "session=0123456789abcdef; theme=dark; consent=yes",
	"Priority", "u=0, i",
	"Referer", "https://example.com/shop/shoes",
	"Sec-Fetch-Dest", "document",
	"Sec-Fetch-Mode", "navigate",
	"Sec-Fetch-Site", "same-origin",
	"Sec-Fetch-User", "?1",
	"Te", "trailers",
	"Upgrade-Insecure-Requests", "1",
	"User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:143.0) Gecko/20100101 Firefox/143.0",
}

// A hitCase is one way to hit a page.
type hitCase struct {
	name string
	opts isr.Options
	req  *http.Request
	want int // the status
}

func hitCases() []hitCase {
	routed := isr.Options{Routes: twentyRoutes()}
	return []hitCase{
		{"plain", isr.Options{}, target("GET", "/blog/1"), 200},
		{"ttl", isr.Options{Default: isr.Route{TTL: time.Hour}}, target("GET", "/blog/1"), 200},
		{"origin", isr.Options{Origin: "https://example.com"}, target("GET", "/blog/1"), 200},
		{"routed", routed, target("GET", "/shop/shoes/42"), 200},
		{"gzip", isr.Options{}, target("GET", "/blog/1", "Accept-Encoding", "gzip, deflate, br, zstd"), 200},
		{"browser", routed, target("GET", "/shop/shoes/42", browser...), 200},
		{"HEAD", isr.Options{}, target("HEAD", "/blog/1"), 200},
		{"query", routed, target("GET", "/search?page=2&q=shoes"), 200},
		{"anyquery", isr.Options{}, target("GET", "/blog/1?page=2&q=shoes"), 200},
	}
}

// notModified returns a request for what r gets, on the condition that it has
// changed.
func notModified(h http.Handler, r *http.Request) *http.Request {
	w := newSink()
	w.serve(h, r)
	r = r.Clone(context.Background())
	r.Header.Set("If-None-Match", w.header.Get("Etag"))
	return r
}

func BenchmarkBare(b *testing.B) {
	h, r, w := http.HandlerFunc(bare10k), target("GET", "/blog/1"), newSink()
	b.ReportAllocs()
	for b.Loop() {
		w.serve(h, r)
	}
}

func BenchmarkBareParallel(b *testing.B) {
	h := http.HandlerFunc(bare10k)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		r, w := target("GET", "/blog/1"), newSink()
		for pb.Next() {
			w.serve(h, r)
		}
	})
}

func BenchmarkHit(b *testing.B) {
	for _, c := range hitCases() {
		b.Run(c.name, func(b *testing.B) {
			site, w := isr.Wrap(http.HandlerFunc(page10k), c.opts), newSink()
			warm(b, site, c.req)
			b.ReportAllocs()
			for b.Loop() {
				w.serve(site, c.req)
			}
		})
	}
}

func Benchmark304(b *testing.B) {
	site, w := isr.Wrap(http.HandlerFunc(page10k), isr.Options{}), newSink()
	r := notModified(site, target("GET", "/blog/1"))
	warm(b, site, r)
	b.ReportAllocs()
	for b.Loop() {
		w.serve(site, r)
	}
}

// All goroutines ask for the same page: the worst case for what they share.
func BenchmarkHitParallel(b *testing.B) {
	site := isr.Wrap(http.HandlerFunc(page10k), isr.Options{Routes: twentyRoutes()})
	warm(b, site, target("GET", "/shop/shoes/42"))
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		r, w := target("GET", "/shop/shoes/42"), newSink()
		for pb.Next() {
			w.serve(site, r)
		}
	})
}

// filled returns a site with n tiny pages, all in memory, tagged "all".
func filled(b *testing.B, n int) *isr.Site {
	site := isr.Wrap(http.HandlerFunc(tiny), isr.Options{
		Default:  isr.Route{Tags: []string{"all"}},
		MaxBytes: int64(n)*4096 + 1<<20,
	})
	r, w := target("GET", "/"), newSink()
	for i := range n {
		r.URL.Path = numbered(i)
		w.serve(site, r)
	}
	if got := site.Stats().Pages; got != n {
		b.Fatalf("%d pages in memory, want %d", got, n)
	}
	return site
}

func numbered(i int) string { return "/page/" + strconv.Itoa(i) }

// Hits all over a great many pages: what the index and the processor's caches
// make of it.
func BenchmarkHitPages(b *testing.B) {
	for _, n := range []int{1_000, 100_000, 1_000_000} {
		if testing.Short() && n > 100_000 {
			b.Logf("no %d pages with -short", n)
			continue
		}
		site := filled(b, n)
		r := target("GET", "/")
		paths := make([]string, min(n, 1<<12))
		for i := range paths {
			paths[i] = numbered(i * (n / len(paths)))
			r.URL.Path = paths[i]
			warm(b, site, r)
		}
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			w, i := newSink(), 0
			b.ReportAllocs()
			for b.Loop() {
				r.URL.Path = paths[i%len(paths)]
				w.serve(site, r)
				i++
			}
		})
	}
}

// A miss: the key, the run, its goroutine and its deadline, the recorder, ETag,
// gzip, the page's place in memory, an eviction.
func BenchmarkMiss(b *testing.B) {
	for _, c := range []struct {
		name    string
		handler http.HandlerFunc
	}{{"tiny", tiny}, {"10k", page10k}} {
		b.Run(c.name, func(b *testing.B) {
			site, w := isr.Wrap(c.handler, isr.Options{MaxBytes: 1 << 20}), newSink()
			r, i := target("GET", "/"), 0
			b.ReportAllocs()
			for b.Loop() {
				i++
				r.URL.Path = numbered(i)
				w.serve(site, r)
			}
			if s := site.Stats(); s.Hits > 0 {
				b.Fatalf("%d hits", s.Hits)
			}
		})
	}
}

// Each invalidation must cost the same however many pages have the tag.
func BenchmarkInvalidateTag(b *testing.B) {
	for _, n := range []int{1_000, 100_000} {
		site := filled(b, n)
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := site.RevalidateTag(b.Context(), "all"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// To purge all pages must take no longer than to purge one, however many there are.
func BenchmarkPurge(b *testing.B) {
	for _, n := range []int{1_000, 1_000_000} {
		if testing.Short() && n > 1_000 {
			b.Logf("no %d pages with -short", n)
			continue
		}
		site := filled(b, n)
		for _, path := range []string{"/page/1", "/*"} {
			b.Run(fmt.Sprintf("%d%s", n, path), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if err := site.Purge(b.Context(), path); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// Purges of as many paths as there are calls, none of which is stored: no other page
// may be made anew for them.
func BenchmarkPurgeOthers(b *testing.B) {
	for _, n := range []int{1_000, 100_000} {
		site := filled(b, n)
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			i := 0
			b.ReportAllocs()
			for b.Loop() {
				i++
				if err := site.Purge(b.Context(), "/other/"+strconv.Itoa(i)); err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			r, w := target("GET", "/"), newSink()
			before := site.Stats().Hits
			for i := range n {
				r.URL.Path = numbered(i)
				w.serve(site, r)
			}
			b.ReportMetric(float64(n-int(site.Stats().Hits-before)), "spurious")
		})
	}
}

// A hit right after the invalidation of a tag that the page does not have: it has
// to be judged anew.
func BenchmarkHitAfterInvalidateTag(b *testing.B) {
	site, w := isr.Wrap(http.HandlerFunc(page10k), isr.Options{Default: isr.Route{Tags: []string{"all"}}}), newSink()
	r := target("GET", "/blog/1")
	warm(b, site, r)
	b.ReportAllocs()
	for b.Loop() {
		if err := site.RevalidateTag(b.Context(), "other"); err != nil {
			b.Fatal(err)
		}
		w.serve(site, r)
	}
	if s := site.Stats(); s.Generated != 1 {
		b.Fatalf("%d generations, want 1", s.Generated)
	}
}

// Over loopback connections that are kept alive, isr against the bare handler.
// The client does as little as it can, so that the server's share is large.
func BenchmarkWire(b *testing.B) {
	for _, c := range []struct {
		name    string
		handler http.Handler
	}{
		{"bare", http.HandlerFunc(bare10k)},
		{"isr", isr.Wrap(http.HandlerFunc(page10k), isr.Options{Routes: twentyRoutes()})},
	} {
		b.Run(c.name, func(b *testing.B) {
			server := httptest.NewServer(c.handler)
			defer server.Close()
			request := []byte("GET /shop/shoes/42 HTTP/1.1\r\nHost: example.com\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n")
			b.ReportAllocs()
			b.SetBytes(int64(len(body10k)))
			b.SetParallelism(4)
			b.RunParallel(func(pb *testing.PB) {
				conn, err := net.Dial("tcp", server.Listener.Addr().String())
				if err != nil {
					b.Error(err)
					return
				}
				defer conn.Close()
				in := bufio.NewReaderSize(conn, 16<<10)
				for pb.Next() {
					if _, err := conn.Write(request); err != nil {
						b.Error(err)
						return
					}
					if err := skipPage(in); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// skipPage reads a response with all of body10k.
func skipPage(in *bufio.Reader) error {
	status, length := "", ""
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return err
		}
		switch name, value, ok := bytes.Cut(bytes.TrimSpace(line), []byte(": ")); {
		case status == "":
			status = string(line)
		case string(name) == "Content-Length":
			length = string(value)
		case !ok:
			if !strings.HasPrefix(status, "HTTP/1.1 200 ") || length != strconv.Itoa(len(body10k)) {
				return fmt.Errorf("%s with %q bytes", status, length)
			}
			_, err := in.Discard(len(body10k))
			return err
		}
	}
}

// A hit allocates the values of its headers in one piece, and nothing else.
func TestHitAllocs(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates, too")
	}
	for _, c := range append(hitCases(), hitCase{"304", isr.Options{}, nil, 304},
		hitCase{"tracking parameters", isr.Options{}, target("GET", "/blog/1?fbclid=%zz&page=2&q=x&utm_source=a+b"), 200},
		hitCase{"path with a dot", isr.Options{}, target("GET", "/.well-known/.x"), 200},
	) {
		t.Run(c.name, func(t *testing.T) {
			site, w := isr.Wrap(http.HandlerFunc(page10k), c.opts), newSink()
			if c.req == nil {
				c.req = notModified(site, target("GET", "/blog/1"))
			}
			warm(t, site, c.req)
			before := site.Stats()
			got := testing.AllocsPerRun(1000, func() { w.serve(site, c.req) })
			if got > 1 {
				t.Errorf("a hit makes %v allocations, want at most 1", got)
			}
			after := site.Stats()
			if hits := after.Hits - before.Hits; hits != 1001 || w.status != c.want || after.Generated != 1 {
				t.Errorf("%d hits, status %d, %d generations; want 1001, %d, 1", hits, w.status, after.Generated, c.want)
			}
		})
	}
}

// A value that is in memory, beside a look-up in a map of as many.
func BenchmarkLoad(b *testing.B) {
	const n = 1000
	keys, plain := make([]string, n), make(map[string]*menu, n)
	menus := &isr.Data[*menu]{Name: "menu"}
	site := isr.Wrap(http.NotFoundHandler(), isr.Options{})
	ctx := site.Context(b.Context())
	load := func(key string) (*menu, error) {
		return menus.Load(ctx, key, func(context.Context) (*menu, error) { return &menu{Items: []string{key}}, nil })
	}
	for i := range keys {
		keys[i] = fmt.Sprint("key ", i)
		plain[keys[i]] = new(menu)
		if _, err := load(keys[i]); err != nil {
			b.Fatal(err)
		}
	}
	var mu sync.RWMutex
	b.Run("map", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			mu.RLock()
			m := plain[keys[i%n]]
			mu.RUnlock()
			if m == nil {
				b.Fatal("no value")
			}
		}
	})
	b.Run("data", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if m, err := load(keys[i%n]); err != nil || m == nil {
				b.Fatal(err)
			}
		}
	})
}
