package trial

import (
	"fmt"
	"net/http"
	"net/url"
	"runtime"
	"strconv"
	"sync"
	"time"
)

// A Row is what one operation costs; or why it does not exist.
type Row struct {
	Ns     float64 // of wall-clock time
	Allocs float64
	Bytes  float64 // allocated
	None   string  // why there is no such thing; then the others are zero
}

// Rows are by name.
type Rows map[string]Row

// A sink is a ResponseWriter that costs next to nothing.
type sink struct {
	header http.Header
	status int
	n      int
}

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

// request returns one as a server makes it.
func request(path string, headers ...string) *http.Request {
	r := &http.Request{
		Method: http.MethodGet, URL: &url.URL{Path: path}, RequestURI: path, Host: "example.com",
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, RemoteAddr: "192.0.2.1:1234",
		Header: http.Header{"User-Agent": {"bench"}, "Accept": {"*/*"}}, Body: http.NoBody,
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return r
}

const ownServer = "has its own server: see the wire"

// Cost measures hits without a network. Each row takes about d.
func Cost(p Peer, c Config, d time.Duration) (Rows, error) {
	rows := make(Rows)
	if p.OwnServer {
		for _, name := range []string{"one page", "one page, all cores", "one of 1,000", "gzip", "304"} {
			rows[name] = Row{None: ownServer}
		}
		return rows, nil
	}
	origin, cache, err := start(p, c)
	if err != nil {
		return nil, err
	}
	h := cache.Handler
	thousand := make([]*http.Request, 1000)
	for i := range thousand {
		thousand[i] = request("/page/" + strconv.Itoa(i))
	}
	gzip := request("/page/7", "Accept-Encoding", "gzip")
	w := &sink{header: make(http.Header)}
	warm := func(rs ...*http.Request) {
		for range 3 {
			for _, r := range rs {
				w.serve(h, r)
			}
		}
	}
	warm(thousand...)
	warm(gzip)
	time.Sleep(50 * time.Millisecond) // what a cache does behind its visitors' backs
	plain, etag := w.n, ""
	w.serve(h, thousand[7])
	compressed := w.n > plain
	etag = w.header.Get("Etag")

	before := origin.Renders("page")
	rows["one page"] = measure(d, func(n int) { serveAll(h, n, thousand[7]) })
	rows["one page, all cores"] = measure(d, func(n int) {
		var wg sync.WaitGroup
		for range runtime.GOMAXPROCS(0) {
			wg.Go(func() { serveAll(h, n/runtime.GOMAXPROCS(0), request("/page/7")) })
		}
		wg.Wait()
	})
	rows["one of 1,000"] = measure(d, func(n int) { serveAll(h, n, thousand...) })
	rows["gzip"] = measure(d, func(n int) { serveAll(h, n, gzip) })
	if !compressed {
		rows["gzip"] = Row{None: "does not compress"}
	}
	conditional := request("/page/7", "If-None-Match", etag)
	if w.serve(h, conditional); w.status == http.StatusNotModified {
		rows["304"] = measure(d, func(n int) { serveAll(h, n, conditional) })
	} else {
		rows["304"] = Row{None: "sends the page again"}
	}
	if n := origin.Renders("page") - before; n > 10 && (!p.Floor || p.Keeps) {
		return nil, fmt.Errorf("%s: %d renders where there should have been hits", p.Name, n)
	}
	return rows, nil
}

// Crowd measures hits among 100,000 pages of 1 KB.
func Crowd(p Peer, c Config, d time.Duration) (Rows, error) {
	const name, n = "one of 100,000 (1 KB)", 100_000
	if p.OwnServer {
		return Rows{name: {None: ownServer}}, nil
	}
	origin, cache, err := start(p, c)
	if err != nil {
		return nil, err
	}
	w, r := &sink{header: make(http.Header)}, request("/")
	for i := range n {
		r.URL.Path = "/small/" + strconv.Itoa(i)
		r.RequestURI = r.URL.Path
		w.serve(cache.Handler, r)
	}
	asked := make([]*http.Request, 1<<12) // few enough that requests are not what is measured
	for i := range asked {
		asked[i] = request("/small/" + strconv.Itoa(i*7919%n))
		w.serve(cache.Handler, asked[i])
		w.serve(cache.Handler, asked[i])
	}
	before := origin.Renders("small")
	row := measure(d, func(n int) { serveAll(cache.Handler, n, asked...) })
	if n := origin.Renders("small") - before; n > 10 && (!p.Floor || p.Keeps) {
		row = Row{None: "does not hold them"}
	}
	return Rows{name: row}, nil
}

// Tags measures the purge of a tag that 100,000 pages have, until the call
// returns.
func Tags(p Peer, c Config, d time.Duration) (Rows, error) {
	const name, n = "purge of a tag with 100,000 pages", 100_000
	origin, cache, err := start(p, c)
	if err != nil {
		return nil, err
	}
	if cache.PurgeTag == nil || cache.Handler == nil {
		return Rows{name: {None: "has no tags"}}, nil
	}
	w, r := &sink{header: make(http.Header)}, request("/")
	begin := time.Now()
	for i := range n {
		r.URL.Path = "/tagged/" + strconv.Itoa(i)
		r.RequestURI = r.URL.Path
		w.serve(cache.Handler, r)
		if i%1000 == 0 && time.Since(begin) > d {
			return Rows{name: {None: fmt.Sprintf("filling it took longer than %v: only %d pages by then", d, i)}}, nil
		}
	}
	time.Sleep(100 * time.Millisecond) // some index tags behind their visitors' backs
	begin = time.Now()
	if err := cache.PurgeTag("all"); err != nil {
		return nil, err
	}
	row := Row{Ns: float64(time.Since(begin))}
	before := origin.Renders("tagged")
	for i := range 100 {
		w.serve(cache.Handler, request("/tagged/"+strconv.Itoa(i*997)))
	}
	if renewed := origin.Renders("tagged") - before; renewed < 100 {
		row = Row{None: fmt.Sprintf("of 100 pages looked at afterwards, %d were still the old ones", 100-renewed)}
	}
	return Rows{name: row}, nil
}

// serveAll serves n requests, in turn.
func serveAll(h http.Handler, n int, rs ...*http.Request) {
	w := &sink{header: make(http.Header)}
	for i, k := 0, 0; i < n; i++ {
		w.serve(h, rs[k])
		if k++; k == len(rs) {
			k = 0
		}
	}
}

// measure runs f with a growing number of operations until they take d.
func measure(d time.Duration, f func(n int)) Row {
	for n := 64; ; {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		begin := time.Now()
		f(n)
		took := time.Since(begin)
		runtime.ReadMemStats(&after)
		if took >= d || n > 1<<30 {
			per := 1 / float64(n)
			return Row{
				Ns:     float64(took) * per,
				Allocs: float64(after.Mallocs-before.Mallocs) * per,
				Bytes:  float64(after.TotalAlloc-before.TotalAlloc) * per,
			}
		}
		grow := 1.2 * float64(d) / float64(max(took, time.Microsecond))
		n = int(float64(n) * min(max(grow, 1.5), 100))
	}
}
