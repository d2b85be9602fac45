package otel_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/internal/isrtest"
	isrotel "github.com/isr-go/isr/metrics/otel"
	"github.com/isr-go/isr/store"
)

// A backend is where metrics and spans go.
type backend struct {
	reader *sdkmetric.ManualReader
	spans  *tracetest.SpanRecorder
	opts   isrotel.Options
}

func newBackend(attrs ...attribute.KeyValue) *backend {
	reader, spans := sdkmetric.NewManualReader(), tracetest.NewSpanRecorder()
	return &backend{reader, spans, isrotel.Options{
		MeterProvider:  sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)),
		TracerProvider: sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)),
		Attributes:     attrs,
	}}
}

func (b *backend) telemetry(t testing.TB) *isrotel.Telemetry {
	t.Helper()
	tel, err := isrotel.New(b.opts)
	if err != nil {
		t.Fatal(err)
	}
	return tel
}

func register(t testing.TB, tel *isrotel.Telemetry, site *isr.Site) metric.Registration {
	t.Helper()
	r, err := tel.Register(site)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (b *backend) collect(t testing.TB) []metricdata.Metrics {
	t.Helper()
	var rm metricdata.ResourceMetrics
	if err := b.reader.Collect(context.Background(), &rm); err != nil {
		t.Fatal(err)
	}
	var out []metricdata.Metrics
	for _, scope := range rm.ScopeMetrics {
		if got, want := scope.Scope.Name, "github.com/isr-go/isr/metrics/otel"; got != want {
			t.Errorf("scope %q, want %q", got, want)
		}
		out = append(out, scope.Metrics...)
	}
	return out
}

// A histogram is what the tests compare of a histogram's series.
type histogram struct {
	Count  uint64
	Sum    float64
	Counts map[float64]uint64 // by upper bound, without the empty ones
}

// series returns the value of each series, by name and attributes.
func (b *backend) series(t testing.TB) map[string]any {
	t.Helper()
	out := make(map[string]any)
	for _, m := range b.collect(t) {
		name := func(set attribute.Set) string {
			return m.Name + "{" + set.Encoded(attribute.DefaultEncoder()) + "}"
		}
		switch data := m.Data.(type) {
		case metricdata.Sum[int64]:
			for _, p := range data.DataPoints {
				out[name(p.Attributes)] = p.Value
			}
		case metricdata.Histogram[float64]:
			for _, p := range data.DataPoints {
				h := histogram{p.Count, p.Sum, make(map[float64]uint64)}
				for i, n := range p.BucketCounts {
					if n != 0 {
						h.Counts[append(p.Bounds, math.Inf(1))[i]] = n
					}
				}
				out[name(p.Attributes)] = h
			}
		default:
			t.Errorf("%s is a %T", m.Name, data)
		}
	}
	return out
}

// A span is what the tests compare of a span.
type span struct {
	Name       string
	Start, End time.Duration // since the beginning
	Status     sdktrace.Status
	Attributes map[string]any
}

func (b *backend) ended(since time.Time) []span {
	var out []span
	for _, s := range b.spans.Ended() {
		attrs := make(map[string]any)
		for _, a := range s.Attributes() {
			attrs[string(a.Key)] = a.Value.AsInterface()
		}
		out = append(out, span{s.Name(), s.StartTime().Sub(since), s.EndTime().Sub(since), s.Status(), attrs})
	}
	return out
}

// A reader gets the series, and a backend the spans, of each kind of outcome.
func TestSeriesAndSpans(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		begin := time.Now()
		b := newBackend(attribute.String("site", "news"))
		tel := b.telemetry(t)
		h := new(isrtest.SlowHandler)
		site := isr.Wrap(h, isr.Options{
			Routes: map[string]isr.Route{
				"/blog/{id}": {TTL: 10 * time.Second, Tags: []string{"blog"}},
				"/account/":  {Bypass: isr.Always},
			},
			Origin:  "https://example.com",
			Observe: tel.Observe,
		})
		register(t, tel, site)

		isrtest.Do(site, "GET", "/blog/1?q=secret") // miss, at 0 s
		isrtest.Do(site, "GET", "/blog/1?q=secret") // hit
		isrtest.Do(site, "HEAD", "/blog/1?q=secret")
		time.Sleep(11 * time.Second)
		isrtest.Do(site, "GET", "/blog/1?q=secret") // stale, and renewed, at 12 s
		synctest.Wait()
		if got := b.series(t)[`isr.active_generations{site=news}`]; got != int64(1) {
			t.Errorf("isr.active_generations is %v during a generation", got)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		isrtest.Do(site, "GET", "/blog/1?q=secret") // hit

		h.Fails.Store(true)
		time.Sleep(11 * time.Second)
		isrtest.Do(site, "GET", "/blog/1?q=secret") // stale, and not renewed, at 24 s
		time.Sleep(time.Second)
		synctest.Wait()
		isrtest.Do(site, "GET", "/blog/2") // miss, and failed, at 25 s
		h.Fails.Store(false)

		isrtest.Do(site, "GET", "/account/")
		isrtest.Do(site, "POST", "/comments") // passed, before its route is looked for
		isrtest.Do(site, "GET", "/")          // miss, of the default route, at 28 s
		site.RevalidateTag(ctx, "blog", "news")
		site.Purge(ctx, "/blog/1")
		site.Revalidate(ctx, "/") // generated, at 29 s
		synctest.Wait()

		st := site.Stats()
		if st.Pages == 0 || st.Bytes == 0 {
			t.Errorf("nothing is stored: %+v", st)
		}
		want := map[string]any{
			`isr.requests{http.route=/blog/{id},isr.outcome=hit,site=news}`:    int64(3),
			`isr.requests{http.route=/blog/{id},isr.outcome=stale,site=news}`:  int64(2),
			`isr.requests{http.route=/blog/{id},isr.outcome=miss,site=news}`:   int64(2),
			`isr.requests{http.route=/blog/{id},isr.outcome=passed,site=news}`: int64(0),

			`isr.requests{http.route=/account/,isr.outcome=hit,site=news}`:    int64(0),
			`isr.requests{http.route=/account/,isr.outcome=stale,site=news}`:  int64(0),
			`isr.requests{http.route=/account/,isr.outcome=miss,site=news}`:   int64(0),
			`isr.requests{http.route=/account/,isr.outcome=passed,site=news}`: int64(1),

			`isr.requests{isr.outcome=hit,site=news}`:    int64(0),
			`isr.requests{isr.outcome=stale,site=news}`:  int64(0),
			`isr.requests{isr.outcome=miss,site=news}`:   int64(1),
			`isr.requests{isr.outcome=passed,site=news}`: int64(1),

			`isr.generation.duration{http.route=/blog/{id},site=news}`:                histogram{2, 2, map[float64]uint64{1: 2}},
			`isr.generation.duration{error.type=503,http.route=/blog/{id},site=news}`: histogram{2, 2, map[float64]uint64{1: 2}},
			`isr.generation.duration{site=news}`:                                      histogram{2, 2, map[float64]uint64{1: 2}},

			`isr.invalidations{isr.invalidation.kind=revalidated,site=news}`: int64(3),
			`isr.invalidations{isr.invalidation.kind=purged,site=news}`:      int64(1),
			`isr.page.count{site=news}`:                                      int64(st.Pages),
			`isr.memory.usage{site=news}`:                                    st.Bytes,
			`isr.active_generations{site=news}`:                              int64(0),
			`isr.evictions{site=news}`:                                       int64(0),
			`isr.store.errors{site=news}`:                                    int64(0),
			`isr.edge.errors{site=news}`:                                     int64(0),
			`isr.edge.owed{site=news}`:                                       int64(0),
		}
		if diff := cmp.Diff(want, b.series(t)); diff != "" {
			t.Errorf("metrics (-want +got):\n%s", diff)
		}

		good := func(at time.Duration, route, path string) span {
			s := span{"isr.generate " + route, at, at + time.Second, sdktrace.Status{}, map[string]any{
				"site": "news", "http.route": route, "url.path": path, "http.response.status_code": int64(200),
			}}
			if route == "" {
				s.Name = "isr.generate"
				delete(s.Attributes, "http.route")
			}
			return s
		}
		bad := func(at time.Duration, route, path string) span {
			s := good(at, route, path)
			s.Status = sdktrace.Status{Code: codes.Error, Description: "the handler answered 503 Service Unavailable"}
			s.Attributes["http.response.status_code"] = int64(503)
			s.Attributes["error.type"] = "503"
			return s
		}
		spans := []span{
			good(0, "/blog/{id}", "/blog/1"),
			good(12*time.Second, "/blog/{id}", "/blog/1"),
			bad(24*time.Second, "/blog/{id}", "/blog/1"),
			bad(25*time.Second, "/blog/{id}", "/blog/2"),
			good(28*time.Second, "", "/"),
			good(29*time.Second, "", "/"),
		}
		if diff := cmp.Diff(spans, b.ended(begin)); diff != "" {
			t.Errorf("spans (-want +got):\n%s", diff)
		}
	})
}

// From a slow bucket one gets to the spans that are in it.
func TestExemplars(t *testing.T) {
	b := newBackend()
	b.telemetry(t).Observe(isr.Event{Kind: isr.Generated, Path: "/", Route: "/", Status: 200, Duration: 3 * time.Second})
	id := b.spans.Ended()[0].SpanContext().SpanID()
	for _, m := range b.collect(t) {
		if m.Name != "isr.generation.duration" {
			continue
		}
		exemplars := m.Data.(metricdata.Histogram[float64]).DataPoints[0].Exemplars
		if len(exemplars) != 1 || exemplars[0].Value != 3 || string(exemplars[0].SpanID) != string(id[:]) {
			t.Errorf("exemplars %+v, want one of span %s", exemplars, id)
		}
		return
	}
	t.Error("no isr.generation.duration")
}

// However many paths visitors come for, there are no more series.
func TestSeriesAreBounded(t *testing.T) {
	b := newBackend()
	tel := b.telemetry(t)
	site := isr.Wrap(http.NotFoundHandler(), isr.Options{
		Routes:   map[string]isr.Route{"/blog/{id}": {}},
		MaxBytes: 100_000,
		Observe:  tel.Observe,
	})
	register(t, tel, site)
	visit := func(i int) {
		isrtest.Do(site, "GET", fmt.Sprint("/blog/", i))
		isrtest.Do(site, "GET", fmt.Sprint("/blog/", i)) // hit
		isrtest.Do(site, "GET", fmt.Sprint("/", i, "?q=", i))
		isrtest.Do(site, "GET", fmt.Sprint("/", i, "?q=", i))
		isrtest.Do(site, "POST", fmt.Sprint("/", i))
		site.RevalidateTag(context.Background(), fmt.Sprint("tag", i))
	}
	visit(0)
	before := b.series(t)
	for i := range 1000 {
		visit(i)
	}
	after := b.series(t)
	if len(before) != len(after) {
		t.Errorf("%d series have become %d", len(before), len(after))
	}
	st := site.Stats()
	if got := after["isr.evictions{}"]; st.Evicted == 0 || got != int64(st.Evicted) {
		t.Errorf("isr.evictions is %v, the site says %d", got, st.Evicted)
	}
	if got := after["isr.memory.usage{}"]; st.Bytes > 100_000 || got != st.Bytes {
		t.Errorf("isr.memory.usage is %v, the site says %d", got, st.Bytes)
	}
}

// No event is lost where observers and readers overlap.
func TestConcurrently(t *testing.T) {
	const events, observers = 1000, 8
	b := newBackend()
	tel := b.telemetry(t)
	register(t, tel, isr.Wrap(http.NotFoundHandler(), isr.Options{}))
	var all sync.WaitGroup
	for range observers {
		all.Go(func() {
			for i := range events {
				route := fmt.Sprintf("/%d/", i%20)
				tel.Observe(isr.Event{Kind: isr.Hit, Route: route})
				tel.Observe(isr.Event{Kind: isr.Failed, Route: route, Status: 500, Duration: time.Second})
				if i%100 == 0 {
					b.collect(t)
				}
			}
		})
	}
	all.Wait()
	got := b.series(t)
	for i := range 20 {
		const n = events * observers / 20
		for series, want := range map[string]any{
			`isr.requests{http.route=/%d/,isr.outcome=hit}`:           int64(n),
			`isr.generation.duration{error.type=500,http.route=/%d/}`: histogram{n, n, map[float64]uint64{1: n}},
		} {
			series := fmt.Sprintf(series, i)
			if diff := cmp.Diff(want, got[series]); diff != "" {
				t.Errorf("%s (-want +got):\n%s", series, diff)
			}
		}
	}
	if n := len(b.spans.Ended()); n != events*observers {
		t.Errorf("%d spans, want %d", n, events*observers)
	}
}

var globalProviders sync.Once // they take the place of what was there before once in a process

// The global providers may be set when the site is at work already.
func TestGlobalProviders(t *testing.T) {
	globalProviders.Do(func() { testGlobalProviders(t) })
}

func testGlobalProviders(t *testing.T) {
	tel, err := isrotel.New(isrotel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	site := isr.Wrap(http.NotFoundHandler(), isr.Options{Observe: tel.Observe})
	register(t, tel, site)
	isrtest.Do(site, "GET", "/early")

	b := newBackend()
	otel.SetMeterProvider(b.opts.MeterProvider)
	otel.SetTracerProvider(b.opts.TracerProvider)
	isrtest.Do(site, "GET", "/late")
	if got := b.series(t)["isr.requests{isr.outcome=miss}"]; got != int64(2) {
		t.Errorf("isr.requests is %v", got)
	}
	if got := b.series(t)["isr.page.count{}"]; got != int64(2) {
		t.Errorf("isr.page.count is %v", got)
	}
	if spans := b.ended(time.Time{}); len(spans) != 1 || spans[0].Name != "isr.generate" {
		t.Errorf("spans %+v", spans)
	}
}

// Several sites are distinguished by their attributes, and a site that is unregistered
// is not read any more.
func TestTwoSites(t *testing.T) {
	b := newBackend()
	var last metric.Registration
	for i, name := range []string{"blog", "shop"} {
		b.opts.Attributes = []attribute.KeyValue{attribute.String("site", name)}
		tel := b.telemetry(t)
		site := isr.Wrap(http.NotFoundHandler(), isr.Options{Observe: tel.Observe})
		last = register(t, tel, site)
		for j := range i + 1 {
			isrtest.Do(site, "GET", fmt.Sprint("/", j))
		}
	}
	got := b.series(t)
	for series, want := range map[string]int64{
		"isr.requests{isr.outcome=miss,site=blog}": 1, "isr.page.count{site=blog}": 1,
		"isr.requests{isr.outcome=miss,site=shop}": 2, "isr.page.count{site=shop}": 2,
	} {
		if got[series] != want {
			t.Errorf("%s is %v, want %d", series, got[series], want)
		}
	}
	if err := last.Unregister(); err != nil {
		t.Fatal(err)
	}
	got = b.series(t)
	if got["isr.requests{isr.outcome=miss,site=shop}"] != nil || got["isr.page.count{site=shop}"] != nil || got["isr.page.count{site=blog}"] != int64(1) {
		t.Errorf("after Unregister: %v", got)
	}
}

// No pattern, and no kind of event, spoils an export.
func TestUnusualEvents(t *testing.T) {
	b := newBackend()
	tel := b.telemetry(t)
	register(t, tel, isr.Wrap(http.NotFoundHandler(), isr.Options{}))
	before := b.series(t)
	tel.Observe(isr.Event{Kind: -1})
	tel.Observe(isr.Event{Kind: math.MaxInt})
	tel.Observe(isr.Event{Kind: isr.Evicted, Route: "/"})
	tel.Observe(isr.Event{Kind: isr.StoreFailed, Route: "/"})
	if diff := cmp.Diff(before, b.series(t)); diff != "" {
		t.Errorf("events that are not counted here (-before +after):\n%s", diff)
	}
	const odd = "/caf\xe9"
	tel.Observe(isr.Event{Kind: isr.Hit, Route: odd})
	tel.Observe(isr.Event{Kind: isr.Failed, Route: odd, Path: odd, Err: errors.New(odd)})
	tel.Observe(isr.Event{Kind: isr.Failed, Route: odd, Path: odd})
	for name := range b.series(t) {
		if !utf8.ValidString(name) {
			t.Errorf("%q is not UTF-8", name)
		}
	}
	want := map[string]any{"http.route": "/caf�", "url.path": "/caf�", "error.type": "_OTHER"}
	for i, why := range []string{"/caf�", ""} {
		s := b.ended(time.Time{})[i]
		if diff := cmp.Diff(span{"isr.generate /caf�", s.Start, s.End, sdktrace.Status{Code: codes.Error, Description: why}, want}, s); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

// Visitors choose paths, and spans wait in memory: how long a path is, does not matter.
func TestLongPathsAreCut(t *testing.T) {
	b := newBackend()
	tel := b.telemetry(t)
	long := "/" + strings.Repeat("é", 1<<20)
	tel.Observe(isr.Event{Kind: isr.Failed, Path: long, Err: errors.New(long)})
	s := b.ended(time.Time{})[0]
	path, _ := s.Attributes["url.path"].(string)
	for what, text := range map[string]string{"path": path, "error": s.Status.Description} {
		if len(text) < 1000 || len(text) > 3000 || !utf8.ValidString(text) || !strings.HasSuffix(text, "…") {
			t.Errorf("%s of %d bytes: %.20q", what, len(text), text)
		}
	}
}

// A broken is a MeterProvider that has something against one instrument.
type broken struct {
	noop.MeterProvider
	name string
}

func (b broken) Meter(string, ...metric.MeterOption) metric.Meter { return brokenMeter{name: b.name} }

type brokenMeter struct {
	noop.Meter
	name string
}

func (m brokenMeter) Float64Histogram(name string, _ ...metric.Float64HistogramOption) (metric.Float64Histogram, error) {
	if name == m.name {
		return nil, errors.New("no " + name)
	}
	return noop.Float64Histogram{}, nil
}

func (m brokenMeter) Int64ObservableCounter(name string, _ ...metric.Int64ObservableCounterOption) (metric.Int64ObservableCounter, error) {
	if name == m.name {
		return nil, errors.New("no " + name)
	}
	return noop.Int64ObservableCounter{}, nil
}

func TestErrors(t *testing.T) {
	if tel, err := isrotel.New(isrotel.Options{MeterProvider: broken{name: "isr.generation.duration"}}); tel != nil || fmt.Sprint(err) != "no isr.generation.duration" {
		t.Errorf("New: %v, %v", tel, err)
	}
	tel, err := isrotel.New(isrotel.Options{MeterProvider: broken{name: "isr.evictions"}})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := tel.Register(isr.Wrap(http.NotFoundHandler(), isr.Options{})); r != nil || fmt.Sprint(err) != "no isr.evictions" {
		t.Errorf("Register: %v, %v", r, err)
	}
	defer func() {
		if recover() == nil {
			t.Error("Register: no panic without a site")
		}
	}()
	tel.Register(nil)
}

// The README holds the example as it is compiled, and the names as they are.
func TestREADME(t *testing.T) {
	read := func(name string) string {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	readme := read("README.md")

	_, program, _ := strings.Cut(readme, "```go\n")
	program, _, _ = strings.Cut(program, "```\n")
	example := strings.NewReplacer("package otel_test", "package main", "func Example()", "func main()").Replace(read("example_test.go"))
	if diff := cmp.Diff(example, program); diff != "" {
		t.Errorf("the program (-example +README):\n%s", diff)
	}

	b := newBackend()
	tel := b.telemetry(t)
	register(t, tel, isr.Wrap(http.NotFoundHandler(), isr.Options{}))
	for kind := isr.Hit; kind <= isr.DataMiss; kind++ {
		tel.Observe(isr.Event{Kind: kind})
	}
	known := make(map[string]bool) // spelt as Prometheus does, which is how the queries spell them
	for _, m := range b.collect(t) {
		name := strings.ReplaceAll(m.Name, ".", "_")
		switch sum, _ := m.Data.(metricdata.Sum[int64]); {
		case m.Unit == "By":
			name += "_bytes"
		case m.Unit == "s":
			name += "_seconds"
		case sum.IsMonotonic:
			name += "_total"
		}
		known[name] = true
		if !strings.Contains(readme, "| `"+m.Name+"` | ") || !strings.Contains(readme, "| `"+m.Unit+"` |") {
			t.Errorf("the README's table lacks %s, in %s", m.Name, m.Unit)
		}
	}
	for _, name := range regexp.MustCompile(`\bisr_[a-z]\w+`).FindAllString(readme, -1) {
		if name = regexp.MustCompile("_(bucket|count)$").ReplaceAllString(name, ""); !known[name] && !known[name+"_count"] && name != "isr_outcome" && name != "isr_invalidation_kind" {
			t.Errorf("the README's %s is unknown", name)
		}
	}
}

// A visit is counted without an allocation, so that a hit has none.
func TestObserveAllocations(t *testing.T) {
	tel := newBackend().telemetry(t)
	for _, e := range []isr.Event{
		{Kind: isr.Hit, Route: "/blog/{id}"},
		{Kind: isr.Revalidated, Path: "/blog/1"},
	} {
		tel.Observe(e)
		if n := testing.AllocsPerRun(100, func() { tel.Observe(e) }); n != 0 {
			t.Errorf("%v: %v allocations", e.Kind, n)
		}
	}
}

func BenchmarkObserve(b *testing.B) {
	backend := newBackend()
	backend.opts.TracerProvider = sdktrace.NewTracerProvider() // a SpanRecorder keeps them all
	tel := backend.telemetry(b)
	for i := range 50 { // as many routes as a large site has
		tel.Observe(isr.Event{Kind: isr.Hit, Route: fmt.Sprintf("/section%d/{id}", i)})
	}
	for _, e := range []isr.Event{
		{Kind: isr.Hit, Path: "/section7/1", Route: "/section7/{id}", Status: 200, Duration: time.Microsecond},
		{Kind: isr.Generated, Path: "/section7/1", Route: "/section7/{id}", Status: 200, Duration: time.Second},
	} {
		b.Run(e.Kind.String()+"/serial", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				tel.Observe(e)
			}
		})
		b.Run(e.Kind.String()+"/parallel", func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					tel.Observe(e)
				}
			})
		})
	}
}

// Loads of data are no visits; and neither series nor spans have their keys.
func TestDataIsCountedApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackend()
		tel := b.telemetry(t)
		site := isr.Wrap(http.NotFoundHandler(), isr.Options{Observe: tel.Observe})
		register(t, tel, site)
		posts := isr.Data[string]{Name: "posts"}
		begin, ctx := time.Now(), site.Context(t.Context())
		for range 3 {
			posts.Load(ctx, "s3cret", func(context.Context) (string, error) { time.Sleep(time.Second); return "a post", nil })
		}
		posts.Load(ctx, "s3cret too", func(context.Context) (string, error) { return "", errors.New("no rows") })
		want := map[string]any{
			`isr.data.loads{http.route=data:posts,isr.outcome=hit}`:         int64(2),
			`isr.data.loads{http.route=data:posts,isr.outcome=miss}`:        int64(2),
			`isr.generation.duration{http.route=data:posts}`:                histogram{1, 1, map[float64]uint64{1: 1}},
			`isr.generation.duration{error.type=500,http.route=data:posts}`: histogram{1, 0, map[float64]uint64{0.005: 1}},
		}
		got := b.series(t)
		for series := range got {
			if !strings.Contains(series, "route") {
				delete(got, series)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("metrics (-want +got):\n%s", diff)
		}
		spans := []span{
			{"isr.generate data:posts", 0, time.Second, sdktrace.Status{}, map[string]any{"http.route": "data:posts", "http.response.status_code": int64(200)}},
			{"isr.generate data:posts", time.Second, time.Second, sdktrace.Status{Code: codes.Error, Description: "no rows"},
				map[string]any{"http.route": "data:posts", "http.response.status_code": int64(500), "error.type": "500"}},
		}
		if diff := cmp.Diff(spans, b.ended(begin)); diff != "" {
			t.Errorf("spans (-want +got):\n%s", diff)
		}
	})
}

// A brokenEdge takes nothing until it works.
type brokenEdge struct{ works atomic.Bool }

func (*brokenEdge) Mark(http.Header, []string) bool { return false }

func (e *brokenEdge) Tell(context.Context, store.Effect, []string) error {
	if e.works.Load() {
		return nil
	}
	return errors.New("broken")
}

// What the Edge has not taken is counted, and what it is owed is there while it is.
func TestEdge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var e brokenEdge
		site := isr.Wrap(http.NotFoundHandler(), isr.Options{Edge: &e})
		defer site.Shutdown(t.Context()) // which waits for it
		defer e.works.Store(true)
		if err := site.PurgeTag(t.Context(), "a", "b"); err != nil {
			t.Log(err)
		}
		synctest.Wait()
		b := newBackend()
		tel, err := isrotel.New(b.opts)
		if err != nil {
			t.Fatal(err)
		}
		register(t, tel, site)
		st, got := site.Stats(), b.series(t)
		if st.EdgeErrors == 0 || got["isr.edge.errors{}"] != int64(st.EdgeErrors) || st.EdgeOwed != 2 || got["isr.edge.owed{}"] != int64(2) {
			t.Errorf("%v errors, %v owed, and the Stats are %+v", got["isr.edge.errors{}"], got["isr.edge.owed{}"], st)
		}
	})
}
