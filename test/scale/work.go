package main

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A trial is a container with its pages.
type trial struct {
	order
	*cache
	*answer
	origin        *origin
	paths         paths
	uniform, zipf []uint32 // which pages visitors ask for, again and again
}

// measurePages fills a container, and does all that is measured in memory.
func measurePages(o order) (*answer, error) {
	i := slices.IndexFunc(engines, func(e engine) bool { return e.name == o.Engine })
	if i < 0 {
		return nil, fmt.Errorf("no container %q", o.Engine)
	}
	debug.SetGCPercent(o.Percent)
	t := &trial{order: o, answer: newAnswer(), origin: new(origin), paths: makePaths(o.Pages)}
	t.uniform, t.zipf = orders(o.Pages)
	before := live()
	var err error
	if t.cache, err = engines[i].make(t.origin, o.Pages); err != nil {
		return nil, err
	}
	began := time.Now()
	if err := t.fill(); err != nil {
		return nil, err
	}
	t.Values["fill"] = float64(o.Pages) / time.Since(began).Seconds()
	after := live()
	t.Values["overhead"] = (float64(after.HeapAlloc)-float64(before.HeapAlloc))/float64(o.Pages) - pageBytes
	t.Values["objects"] = (float64(after.HeapObjects) - float64(before.HeapObjects)) / float64(o.Pages)
	t.collect()
	t.hits()
	t.share()
	if err := t.purgeOthers(); err != nil {
		return nil, err
	}
	err = t.purges()
	runtime.KeepAlive(t)
	return t.answer, err
}

// orders returns which pages visitors ask for: all alike, and few of them much more often
// than the others. These lie anywhere among them.
func orders(n int) (uniform, zipf []uint32) {
	const asked = 1 << 20
	chance := rand.New(rand.NewPCG(1, 2))
	z := rand.NewZipf(chance, 1.1, 1, uint64(n-1))
	uniform, zipf = make([]uint32, asked), make([]uint32, asked)
	place := chance.Perm(n)
	for i := range asked {
		uniform[i], zipf[i] = uint32(chance.IntN(n)), uint32(place[z.Uint64()])
	}
	return uniform, zipf
}

// fill asks for each page until all are there, which is at once for most containers.
func (t *trial) fill() error {
	const attempts = 20
	var missing int64
	for range attempts {
		before := t.origin.generated.Load()
		var all sync.WaitGroup
		visitors := runtime.GOMAXPROCS(0)
		for first := range visitors {
			all.Go(func() {
				v := newVisitor(t)
				for i := first; i < t.Pages; i += visitors {
					// As in a server, the path is the request's own: a container may keep it.
					v.get(strings.Clone(t.paths.at(uint32(i))))
				}
			})
		}
		all.Wait()
		t.settle()
		if missing = t.origin.generated.Load() - before; missing == 0 {
			return nil
		}
	}
	if missing > int64(t.Pages/1000) {
		return fmt.Errorf("%d of %d pages are not kept", missing, t.Pages)
	}
	return nil
}

// live returns what is in use once the collector has had time.
func live() (m runtime.MemStats) {
	for range 3 { // pools, finalizers
		runtime.GC()
		time.Sleep(20 * time.Millisecond)
	}
	runtime.ReadMemStats(&m)
	return m
}

// collect measures a garbage collection while nothing else is to be done.
func (t *trial) collect() {
	var took, used []float64
	for range 5 {
		cpu, _ := processor()
		began := time.Now()
		runtime.GC()
		took = append(took, ms(time.Since(began)))
		after, _ := processor()
		used = append(used, 1e3*(after-cpu))
	}
	t.Values["gc time"], t.Values["gc cpu"] = median(took), median(used)
}

// processor returns the seconds that the collector and all of the program have used, up
// to the end of the last collection.
func processor() (collector, all float64) {
	s := []metrics.Sample{{Name: "/cpu/classes/gc/total:cpu-seconds"}, {Name: "/cpu/classes/total:cpu-seconds"}, {Name: "/cpu/classes/idle:cpu-seconds"}}
	metrics.Read(s)
	return s[0].Value.Float64(), s[1].Value.Float64() - s[2].Value.Float64()
}

// hits measures hits while nothing else is to be done, and while one collection follows
// the other.
func (t *trial) hits() {
	for _, by := range []struct {
		name  string
		order []uint32
	}{{"uniform", t.uniform}, {"zipf", t.zipf}} {
		v := newVisitor(t)
		v.ask(by.order, after(t.For/4)) // the processor's caches, and the container's own
		before := t.origin.generated.Load()
		quiet := v.ask(by.order, after(t.For))
		t.Values[by.name+" quiet p50"] = float64(quiet.quantile(0.5))
		t.Values[by.name+" quiet p99"] = float64(quiet.quantile(0.99))

		var collections atomic.Int64
		end, ended := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(ended)
			for {
				select {
				case <-end:
					return
				default:
					runtime.GC()
					collections.Add(1)
				}
			}
		}()
		late := after(t.For)
		busy := v.ask(by.order, func() bool { return late() && collections.Load() >= 2 })
		close(end)
		<-ended
		t.Values[by.name+" p50"] = float64(busy.quantile(0.5))
		t.Values[by.name+" p99"] = float64(busy.quantile(0.99))
		t.Values[by.name+" p99.9"] = float64(busy.quantile(0.999))
		if n := t.origin.generated.Load() - before; n > int64(quiet.n+busy.n)/1000 {
			for _, c := range []string{"quiet p50", "quiet p99", "p50", "p99", "p99.9"} {
				delete(t.Values, by.name+" "+c)
				t.None[by.name+" "+c] = "does not keep all pages"
			}
		}
	}
}

// share measures which part of the processors the collector takes, at the usual GOGC, while
// all of them serve hits. Each request is read anew, and leaves what it leaves in a server.
func (t *trial) share() {
	const collections, limit = 2, time.Minute
	runtime.GC()
	collectorBefore, allBefore := processor()
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	var end atomic.Bool
	var all sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		all.Go(func() {
			v := newVisitor(t)
			chance := rand.N(len(t.uniform))
			for i := 0; !end.Load(); i++ {
				v.getAnew(t.paths.at(t.uniform[(chance+i)%len(t.uniform)]))
			}
		})
	}
	began := time.Now()
	for time.Since(began) < limit {
		time.Sleep(min(t.For/10+time.Millisecond, 100*time.Millisecond))
		var now runtime.MemStats
		runtime.ReadMemStats(&now)
		if now.NumGC-before.NumGC >= collections && time.Since(began) > t.For {
			break
		}
	}
	collector, used := processor() // of whole collections, with the pauses between them
	end.Store(true)
	all.Wait()
	if used == allBefore {
		t.None["gc share"] = "no collection within " + limit.String()
		return
	}
	t.Values["gc share"] = 100 * (collector - collectorBefore) / (used - allBefore)
}

// purgeOthers purges pages that are not stored, one after the other, while a visitor asks
// for those that are: what a purge leaves behind is theirs to pay.
func (t *trial) purgeOthers() error {
	runtime.GC() // what other measurements have left
	var purged error
	var took time.Duration
	var done atomic.Bool
	go func() {
		began := time.Now()
		for i := range t.Others {
			purged = cmp.Or(purged, t.purge("/other/"+strconv.Itoa(i)))
		}
		took = time.Since(began)
		done.Store(true)
	}()
	before := t.origin.generated.Load()
	v := newVisitor(t)
	seen := v.ask(t.uniform, done.Load)
	if purged != nil {
		return purged
	}
	t.Values["others rate"] = float64(t.Others) / took.Seconds()
	t.Values["others p50"] = float64(seen.quantile(0.5))
	t.Values["others p99"] = float64(seen.quantile(0.99))
	t.Values["others p99.9"] = float64(seen.quantile(0.999))
	t.Values["others max"] = ms(seen.max)
	for i := range t.Pages {
		v.get(t.paths.at(uint32(i)))
	}
	t.Values["others anew"] = float64(t.origin.generated.Load() - before)
	return nil
}

// purges measures the purge of a tag and of a prefix with a tenth of the pages each, and of
// everything; and how long others' hits wait meanwhile.
func (t *trial) purges() error {
	const tagged, below, kept = 7, 3, 1 // sections
	others := slices.DeleteFunc(slices.Clone(t.uniform), func(i uint32) bool { return i%sections != kept })
	if len(others) == 0 {
		others = []uint32{kept}
	}
	for _, p := range []struct {
		name   string
		do     func() error
		gone   uint32   // a page that has to be gone then
		others []uint32 // those that are not
	}{
		{"tag", bind(t.purgeTag, tags[tagged]), tagged, others},
		{"prefix", bind(t.purgePrefix, fmt.Sprintf("/%d/", below)), below, others},
		{"everything", t.purgeAll, kept, nil},
	} {
		if p.do == nil {
			t.None["purge "+p.name] = "cannot be walked"
			t.None["purge "+p.name+" wait"] = "cannot be walked"
			continue
		}
		runtime.GC()
		var end atomic.Bool
		ended := make(chan *histogram)
		if p.others != nil {
			go func() {
				v := newVisitor(t)
				v.ask(p.others, after(t.For/20)) // it is at work by then
				ended <- v.ask(p.others, end.Load)
			}()
			time.Sleep(t.For / 10)
		}
		began := time.Now()
		if err := p.do(); err != nil {
			return err
		}
		took := time.Since(began)
		t.Values["purge "+p.name] = float64(took) / float64(time.Millisecond)
		if p.others != nil {
			time.Sleep(t.For / 20) // what it does behind its visitors' backs
			end.Store(true)
			t.Values["purge "+p.name+" wait"] = ms((<-ended).max)
		}
		t.settle()
		before := t.origin.generated.Load()
		newVisitor(t).get(strings.Clone(t.paths.at(p.gone)))
		if t.origin.generated.Load() == before {
			return fmt.Errorf("after the purge of %s, the old page is still there", p.name)
		}
		if p.others == nil {
			continue
		}
		newVisitor(t).get(strings.Clone(t.paths.at(kept)))
		if n := t.origin.generated.Load() - before; n != 1 {
			return fmt.Errorf("the purge of %s has removed other pages, too", p.name)
		}
	}
	return nil
}

func bind(f func(string) error, s string) func() error {
	if f == nil {
		return nil
	}
	return func() error { return f(s) }
}

// after returns a function that reports whether so much time has passed.
func after(d time.Duration) func() bool {
	end := time.Now().Add(d)
	return func() bool { return time.Now().After(end) }
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// A visitor asks for pages, one after the other. Nothing of it is allocated anew.
type visitor struct {
	*trial
	handler http.Handler
	request *http.Request
	w       *sink
	raw     []byte
	reader  bytes.Reader
	lines   *bufio.Reader
}

func newVisitor(t *trial) *visitor {
	return &visitor{
		trial: t, handler: t.cache.Handler,
		request: &http.Request{
			Method: http.MethodGet, URL: new(url.URL), Host: "example.com",
			Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, RemoteAddr: "192.0.2.1:1234",
			Header: http.Header{"User-Agent": {"scale"}, "Accept": {"*/*"}}, Body: http.NoBody,
		},
		w:     &sink{header: make(http.Header)},
		lines: bufio.NewReader(nil),
	}
}

// A sink is a ResponseWriter that costs next to nothing.
type sink struct {
	header http.Header
	n      int
}

func (w *sink) Header() http.Header { return w.header }
func (w *sink) WriteHeader(int)     {}
func (w *sink) Write(b []byte) (int, error) {
	w.n += len(b)
	return len(b), nil
}

func (v *visitor) get(path string) {
	v.request.URL.Path, v.request.RequestURI = path, path
	clear(v.w.header)
	v.handler.ServeHTTP(v.w, v.request)
}

// getAnew reads the request from its bytes, as a server does.
func (v *visitor) getAnew(path string) {
	v.raw = append(append(append(v.raw[:0], "GET "...), path...), " HTTP/1.1\r\nHost: example.com\r\nUser-Agent: scale\r\nAccept: */*\r\n\r\n"...)
	v.reader.Reset(v.raw)
	v.lines.Reset(&v.reader)
	r, err := http.ReadRequest(v.lines)
	if err != nil {
		panic(err) // the bytes are ours
	}
	clear(v.w.header)
	v.handler.ServeHTTP(v.w, r)
}

// ask asks for pages, each as soon as the last one is there, until the end, and returns
// how long they took. The clock's own share is among it, for all containers alike.
func (v *visitor) ask(pages []uint32, end func() bool) *histogram {
	h := new(histogram)
	for i := 0; ; i++ {
		if i%256 == 0 && i > 0 && end() {
			return h
		}
		path := v.paths.at(pages[i%len(pages)])
		began := time.Now()
		v.get(path)
		h.add(time.Since(began))
	}
}
