package prometheus_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/internal/isrtest"
	isrprom "github.com/isr-go/isr/metrics/prometheus"
	"github.com/isr-go/isr/store"
)

// register returns the handler that Prometheus asks.
func register(t testing.TB, m *isrprom.Metrics, site *isr.Site) http.Handler {
	t.Helper()
	reg := prometheus.NewPedanticRegistry() // which compares Describe with Collect
	if err := reg.Register(m.Collector(site)); err != nil {
		t.Fatal(err)
	}
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{})
}

// samples returns the value of each series in an exposition, by its name and
// labels as they are in it.
func samples(t testing.TB, exposition string) map[string]float64 {
	t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(exposition))
	if err != nil {
		t.Fatalf("%v in:\n%s", err, exposition)
	}
	out := make(map[string]float64)
	for name, family := range families {
		for _, m := range family.Metric {
			set := func(suffix string, value float64, labels ...*dto.LabelPair) {
				var b strings.Builder
				for _, l := range append(slices.Clone(m.Label), labels...) {
					fmt.Fprintf(&b, ",%s=%q", l.GetName(), l.GetValue())
				}
				series := name + suffix
				if b.Len() > 0 {
					series += "{" + b.String()[1:] + "}"
				}
				out[series] = value
			}
			switch family.GetType() {
			case dto.MetricType_COUNTER:
				set("", m.Counter.GetValue())
			case dto.MetricType_GAUGE:
				set("", m.Gauge.GetValue())
			case dto.MetricType_HISTOGRAM:
				h := m.Histogram
				set("_count", float64(h.GetSampleCount()))
				set("_sum", h.GetSampleSum())
				for _, b := range h.Bucket {
					name, le := "le", fmt.Sprint(b.GetUpperBound())
					set("_bucket", float64(b.GetCumulativeCount()), &dto.LabelPair{Name: &name, Value: &le})
				}
			default:
				t.Errorf("%s is a %v", name, family.GetType())
			}
		}
	}
	return out
}

// Prometheus asks, over the wire, after a bit of everything.
func TestScrape(t *testing.T) {
	var metrics http.Handler
	var site *isr.Site
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		m := isrprom.New(isrprom.Options{Buckets: []float64{0.5, 1, 5}})
		h := new(isrtest.SlowHandler)
		site = isr.Wrap(h, isr.Options{
			Routes: map[string]isr.Route{
				"/blog/{id}": {TTL: 10 * time.Second, Tags: []string{"blog"}},
				"/account/":  {Bypass: isr.Always},
			},
			Origin:  "https://example.com",
			Observe: m.Observe,
		})
		metrics = register(t, m, site)

		isrtest.Do(site, "GET", "/blog/1") // miss
		isrtest.Do(site, "GET", "/blog/1") // hit
		isrtest.Do(site, "HEAD", "/blog/1")
		time.Sleep(11 * time.Second)
		isrtest.Do(site, "GET", "/blog/1") // stale, and renewed
		synctest.Wait()
		if got := samples(t, isrtest.Do(metrics, "GET", "/metrics").Body.String())["isr_generating"]; got != 1 {
			t.Errorf("isr_generating is %v during a generation", got)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		isrtest.Do(site, "GET", "/blog/1") // hit

		h.Fails.Store(true)
		time.Sleep(11 * time.Second)
		isrtest.Do(site, "GET", "/blog/1") // stale, and not renewed
		time.Sleep(time.Second)
		synctest.Wait()
		isrtest.Do(site, "GET", "/blog/2") // miss, and failed
		h.Fails.Store(false)

		isrtest.Do(site, "GET", "/account/")
		isrtest.Do(site, "POST", "/comments") // passed, before its route is looked for
		isrtest.Do(site, "GET", "/")          // miss, of the default route
		site.RevalidateTag(ctx, "blog", "news")
		site.Purge(ctx, "/blog/1")
		site.Revalidate(ctx, "/") // generated
		synctest.Wait()
	})

	server := httptest.NewServer(metrics)
	defer server.Close()
	res, err := http.Get(server.URL + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	exposition, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}

	st := site.Stats()
	if st.Pages == 0 || st.Bytes == 0 {
		t.Errorf("nothing is stored: %+v", st)
	}
	want := map[string]float64{
		`isr_requests_total{outcome="hit",route="/blog/{id}"}`:         3,
		`isr_requests_total{outcome="stale",route="/blog/{id}"}`:       2,
		`isr_requests_total{outcome="miss",route="/blog/{id}"}`:        2,
		`isr_requests_total{outcome="passed",route="/blog/{id}"}`:      0,
		`isr_generations_total{result="generated",route="/blog/{id}"}`: 2,
		`isr_generations_total{result="failed",route="/blog/{id}"}`:    2,
		`isr_generation_seconds_bucket{route="/blog/{id}",le="0.5"}`:   0,
		`isr_generation_seconds_bucket{route="/blog/{id}",le="1"}`:     4,
		`isr_generation_seconds_bucket{route="/blog/{id}",le="5"}`:     4,
		`isr_generation_seconds_bucket{route="/blog/{id}",le="+Inf"}`:  4,
		`isr_generation_seconds_sum{route="/blog/{id}"}`:               4,
		`isr_generation_seconds_count{route="/blog/{id}"}`:             4,

		`isr_requests_total{outcome="hit",route="/account/"}`:         0,
		`isr_requests_total{outcome="stale",route="/account/"}`:       0,
		`isr_requests_total{outcome="miss",route="/account/"}`:        0,
		`isr_requests_total{outcome="passed",route="/account/"}`:      1,
		`isr_generations_total{result="generated",route="/account/"}`: 0,
		`isr_generations_total{result="failed",route="/account/"}`:    0,
		`isr_generation_seconds_bucket{route="/account/",le="0.5"}`:   0,
		`isr_generation_seconds_bucket{route="/account/",le="1"}`:     0,
		`isr_generation_seconds_bucket{route="/account/",le="5"}`:     0,
		`isr_generation_seconds_bucket{route="/account/",le="+Inf"}`:  0,
		`isr_generation_seconds_sum{route="/account/"}`:               0,
		`isr_generation_seconds_count{route="/account/"}`:             0,

		`isr_requests_total{outcome="hit",route="other"}`:         0,
		`isr_requests_total{outcome="stale",route="other"}`:       0,
		`isr_requests_total{outcome="miss",route="other"}`:        1,
		`isr_requests_total{outcome="passed",route="other"}`:      1,
		`isr_generations_total{result="generated",route="other"}`: 2,
		`isr_generations_total{result="failed",route="other"}`:    0,
		`isr_generation_seconds_bucket{route="other",le="0.5"}`:   0,
		`isr_generation_seconds_bucket{route="other",le="1"}`:     2,
		`isr_generation_seconds_bucket{route="other",le="5"}`:     2,
		`isr_generation_seconds_bucket{route="other",le="+Inf"}`:  2,
		`isr_generation_seconds_sum{route="other"}`:               2,
		`isr_generation_seconds_count{route="other"}`:             2,

		`isr_invalidations_total{kind="revalidated"}`: 3,
		`isr_invalidations_total{kind="purged"}`:      1,
		`isr_pages`:                                   float64(st.Pages),
		`isr_bytes`:                                   float64(st.Bytes),
		`isr_generating`:                              0,
		`isr_evictions_total`:                         0,
		`isr_store_errors_total`:                      0,
		`isr_edge_errors_total`:                       0,
		`isr_edge_owed`:                               0,
	}
	if diff := cmp.Diff(want, samples(t, string(exposition))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	problems, err := promlint.New(strings.NewReader(string(exposition))).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("promlint: %s: %s", p.Metric, p.Text)
	}
}

// However many paths visitors come for, there are no more series.
func TestSeriesAreBounded(t *testing.T) {
	m := isrprom.New(isrprom.Options{})
	site := isr.Wrap(http.NotFoundHandler(), isr.Options{
		Routes:   map[string]isr.Route{"/blog/{id}": {}},
		MaxBytes: 100_000,
		Observe:  m.Observe,
	})
	metrics := register(t, m, site)
	visit := func(i int) {
		isrtest.Do(site, "GET", fmt.Sprint("/blog/", i))
		isrtest.Do(site, "GET", fmt.Sprint("/", i, "?q=", i))
		isrtest.Do(site, "POST", fmt.Sprint("/", i))
		site.RevalidateTag(context.Background(), fmt.Sprint("tag", i))
	}
	visit(0)
	before := samples(t, isrtest.Do(metrics, "GET", "/metrics").Body.String())
	for i := range 1000 {
		visit(i)
	}
	after := samples(t, isrtest.Do(metrics, "GET", "/metrics").Body.String())
	const want = 2*21 + 9 // as the README says, of two routes
	if len(before) != want || len(after) != want {
		t.Errorf("%d series have become %d, want %d", len(before), len(after), want)
	}
	st := site.Stats()
	if got := after["isr_evictions_total"]; got == 0 || got != float64(st.Evicted) {
		t.Errorf("isr_evictions_total is %v, the site says %d", got, st.Evicted)
	}
	if got := after["isr_bytes"]; got > 100_000 || got != float64(st.Bytes) {
		t.Errorf("isr_bytes is %v, the site says %d", got, st.Bytes)
	}
}

// No event is lost where observers and scrapes overlap.
func TestConcurrently(t *testing.T) {
	const events, observers = 1000, 8
	m := isrprom.New(isrprom.Options{})
	metrics := register(t, m, isr.Wrap(http.NotFoundHandler(), isr.Options{}))
	var all sync.WaitGroup
	for range observers {
		all.Go(func() {
			for i := range events {
				route := fmt.Sprintf("/%d/", i%20)
				m.Observe(isr.Event{Kind: isr.Hit, Route: route})
				m.Observe(isr.Event{Kind: isr.Generated, Route: route, Duration: time.Second})
				if i%100 == 0 {
					isrtest.Do(metrics, "GET", "/metrics")
				}
			}
		})
	}
	all.Wait()
	got := samples(t, isrtest.Do(metrics, "GET", "/metrics").Body.String())
	for i := range 20 {
		for _, series := range []string{
			`isr_requests_total{outcome="hit",route="/%d/"}`,
			`isr_generations_total{result="generated",route="/%d/"}`,
			`isr_generation_seconds_sum{route="/%d/"}`,
		} {
			series := fmt.Sprintf(series, i)
			if want := float64(events * observers / 20); got[series] != want {
				t.Errorf("%s is %v, want %v", series, got[series], want)
			}
		}
	}
}

// Several sites are distinguished by their labels.
func TestTwoSites(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	for _, name := range []string{"blog", "shop"} {
		m := isrprom.New(isrprom.Options{})
		site := isr.Wrap(http.NotFoundHandler(), isr.Options{Observe: m.Observe})
		prometheus.WrapRegistererWith(prometheus.Labels{"site": name}, reg).MustRegister(m.Collector(site))
		isrtest.Do(site, "GET", "/"+name)
	}
	got := samples(t, isrtest.Do(promhttp.HandlerFor(reg, promhttp.HandlerOpts{}), "GET", "/metrics").Body.String())
	for _, name := range []string{"blog", "shop"} {
		if series := fmt.Sprintf(`isr_requests_total{outcome="miss",route="other",site=%q}`, name); got[series] != 1 {
			t.Errorf("%s is %v", series, got[series])
		}
	}
}

// Nothing that a pattern or an event may hold reaches a visitor as a panic.
func TestUnusualEvents(t *testing.T) {
	m := isrprom.New(isrprom.Options{Buckets: []float64{}})
	metrics := register(t, m, isr.Wrap(http.NotFoundHandler(), isr.Options{}))
	before := samples(t, isrtest.Do(metrics, "GET", "/metrics").Body.String())
	m.Observe(isr.Event{Kind: -1})
	m.Observe(isr.Event{Kind: math.MaxInt})
	m.Observe(isr.Event{Kind: isr.Evicted, Route: "/"})
	m.Observe(isr.Event{Kind: isr.StoreFailed, Route: "/"})
	if diff := cmp.Diff(before, samples(t, isrtest.Do(metrics, "GET", "/metrics").Body.String())); diff != "" {
		t.Errorf("events that are not counted here (-before +after):\n%s", diff)
	}
	m.Observe(isr.Event{Kind: isr.Hit, Route: "/caf\xe9/\"\n"})
	got := samples(t, isrtest.Do(metrics, "GET", "/metrics").Body.String())
	if series := `isr_requests_total{outcome="hit",route="/caf�/\"\n"}`; got[series] != 1 {
		t.Errorf("%s is not among %v", series, got)
	}
}

func TestPanics(t *testing.T) {
	for name, f := range map[string]func(){
		"buckets": func() { isrprom.New(isrprom.Options{Buckets: []float64{2, 1}}) },
		"site":    func() { isrprom.New(isrprom.Options{}).Collector(nil) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			f()
		}()
	}
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
	example := strings.NewReplacer("package prometheus_test", "package main", "func Example()", "func main()").Replace(read("example_test.go"))
	if diff := cmp.Diff(example, program); diff != "" {
		t.Errorf("the program (-example +README):\n%s", diff)
	}

	m := isrprom.New(isrprom.Options{})
	m.Observe(isr.Event{Kind: isr.Generated})
	m.Observe(isr.Event{Kind: isr.DataHit, Route: "data:menu"})
	known := make(map[string]bool)
	exposition := isrtest.Do(register(t, m, isr.Wrap(http.NotFoundHandler(), isr.Options{})), "GET", "/metrics").Body.String()
	for _, line := range regexp.MustCompile(`(?m)^# TYPE (\S+)`).FindAllStringSubmatch(exposition, -1) {
		known[line[1]] = true
		if !strings.Contains(readme, "| `"+line[1]) {
			t.Errorf("the README's table lacks %s", line[1])
		}
	}
	for _, name := range regexp.MustCompile(`\bisr_\w+`).FindAllString(readme, -1) {
		if !known[strings.TrimSuffix(name, "_bucket")] {
			t.Errorf("the README's %s is unknown", name)
		}
	}
}

// An event is counted without an allocation, so that a hit has none.
func TestObserveAllocations(t *testing.T) {
	m := isrprom.New(isrprom.Options{})
	for _, e := range []isr.Event{
		{Kind: isr.Hit, Route: "/blog/{id}"},
		{Kind: isr.Generated, Route: "/blog/{id}", Duration: time.Second},
		{Kind: isr.Revalidated, Path: "/blog/1"},
	} {
		m.Observe(e)
		if n := testing.AllocsPerRun(100, func() { m.Observe(e) }); n != 0 {
			t.Errorf("%v: %v allocations", e.Kind, n)
		}
	}
}

func BenchmarkObserve(b *testing.B) {
	m := isrprom.New(isrprom.Options{})
	for i := range 50 { // as many routes as a large site has
		m.Observe(isr.Event{Kind: isr.Hit, Route: fmt.Sprintf("/section%d/{id}", i)})
	}
	for _, e := range []isr.Event{
		{Kind: isr.Hit, Path: "/section7/1", Route: "/section7/{id}", Status: 200, Duration: time.Microsecond},
		{Kind: isr.Generated, Path: "/section7/1", Route: "/section7/{id}", Status: 200, Duration: time.Second},
	} {
		b.Run(e.Kind.String()+"/serial", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				m.Observe(e)
			}
		})
		b.Run(e.Kind.String()+"/parallel", func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					m.Observe(e)
				}
			})
		})
	}
}

// Loads of data are no visits, and however many keys there are, there are no more series.
func TestDataIsCountedApart(t *testing.T) {
	m := isrprom.New(isrprom.Options{})
	site := isr.Wrap(http.NotFoundHandler(), isr.Options{Observe: m.Observe})
	posts := isr.Data[string]{Name: "posts"}
	ctx := site.Context(t.Context())
	for i := range 100 {
		for range 3 {
			posts.Load(ctx, fmt.Sprint(i), func(context.Context) (string, error) { return "a post", nil })
		}
	}
	posts.Load(ctx, "none", func(context.Context) (string, error) { return "", io.EOF })
	got := samples(t, isrtest.Do(register(t, m, site), "GET", "/metrics").Body.String())
	for series := range got {
		if strings.Contains(series, "_bucket") || strings.Contains(series, "_sum") || !strings.Contains(series, "route") {
			delete(got, series)
		}
	}
	want := map[string]float64{
		`isr_data_loads_total{outcome="hit",route="data:posts"}`:       200,
		`isr_data_loads_total{outcome="miss",route="data:posts"}`:      101,
		`isr_generations_total{result="generated",route="data:posts"}`: 100,
		`isr_generations_total{result="failed",route="data:posts"}`:    1,
		`isr_generation_seconds_count{route="data:posts"}`:             101,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
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
		st := site.Stats()
		got := samples(t, isrtest.Do(register(t, isrprom.New(isrprom.Options{}), site), "GET", "/metrics").Body.String())
		if st.EdgeErrors == 0 || got["isr_edge_errors_total"] != float64(st.EdgeErrors) || st.EdgeOwed != 2 || got["isr_edge_owed"] != 2 {
			t.Errorf("%v errors, %v owed, and the Stats are %+v", got["isr_edge_errors_total"], got["isr_edge_owed"], st)
		}
	})
}
