// Package prometheus counts what an [isr.Site] does, for Prometheus.
//
// Its name is that of Prometheus' own package, so import one of them under
// another:
//
//	import isrprom "github.com/isr-go/isr/metrics/prometheus"
//
// What it counts is labelled with the route that a page belongs to, a pattern of
// isr.Options.Routes, and never with its path: visitors choose paths, and so
// would choose how many series there are. What has no route has the label
// route="other": the pages of isr.Options.Default, and requests such as POST,
// which go to the handler before their route is looked for. The values of an
// [isr.Data] have route="data:" and its Name, never their key.
package prometheus

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/isr-go/isr"
)

// other is the route label of what has no pattern. No pattern is spelt like
// this, since each has a slash, and an empty label would be none at all.
const other = "other"

// buckets are Prometheus' usual ones, up to the Timeout that a route has unless
// it says otherwise.
var buckets = append(slices.Clone(prometheus.DefBuckets), 30)

// Options configure [New]. The zero value is ready for use.
type Options struct {
	// Buckets are the upper bounds, in seconds and in increasing order, of
	// isr_generation_seconds. Empty means 5 ms to 30 s in a dozen steps.
	Buckets []float64
}

// Metrics are the counts of one [isr.Site]. Make them with [New]. Their methods
// are safe for concurrent use.
type Metrics struct {
	requests      *prometheus.CounterVec
	loads         *prometheus.CounterVec
	generations   *prometheus.CounterVec
	seconds       *prometheus.HistogramVec
	invalidations *prometheus.CounterVec

	revalidated, purged prometheus.Counter

	mu     sync.Mutex                     // held to replace routes
	routes atomic.Pointer[map[key]*route] // never changed, only replaced
}

// A key tells routes apart: a pattern may be spelt like the route of data.
type key struct {
	pattern string // isr.Event.Route
	data    bool   // whether the route is that of an isr.Data
}

// A route holds the series of one route, so that an event finds them by one
// look into a map.
type route struct {
	counts  [isr.DataMiss + 1]prometheus.Counter // by kind, of visits or loads, and of generations
	seconds prometheus.Observer
}

// New returns Metrics without any counts. It panics if the Buckets are not in
// increasing order.
func New(opts Options) *Metrics {
	seconds := prometheus.HistogramOpts{
		Name:    "isr_generation_seconds",
		Help:    "How long the generations of pages and data took, failed ones included.",
		Buckets: buckets,
	}
	if len(opts.Buckets) > 0 {
		seconds.Buckets = slices.Clone(opts.Buckets)
	}
	prometheus.NewHistogram(seconds) // panics now, where the vector would with the first event
	m := &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "isr_requests_total",
			Help: "Visits, by what came of them: hit, stale, miss or passed.",
		}, []string{"outcome", "route"}),
		loads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "isr_data_loads_total",
			Help: "Calls of Data.Load, by what came of them: hit or miss.",
		}, []string{"outcome", "route"}),
		generations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "isr_generations_total",
			Help: "Generations of pages and data, by result: generated or failed.",
		}, []string{"result", "route"}),
		seconds: prometheus.NewHistogramVec(seconds, []string{"route"}),
		invalidations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "isr_invalidations_total",
			Help: "Paths and tags that were revalidated or purged.",
		}, []string{"kind"}),
	}
	m.revalidated = m.invalidations.WithLabelValues(isr.Revalidated.String())
	m.purged = m.invalidations.WithLabelValues(isr.Purged.String())
	m.routes.Store(&map[key]*route{})
	return m
}

// Observe counts an event. It is made for [isr.Options.Observe]: it neither
// blocks nor allocates, but for the first event of a route.
func (m *Metrics) Observe(e isr.Event) {
	switch e.Kind {
	case isr.Hit, isr.StaleHit, isr.Miss, isr.Passed:
		m.route(key{e.Route, false}).counts[e.Kind].Inc()
	case isr.DataHit, isr.DataMiss:
		m.route(key{e.Route, true}).counts[e.Kind].Inc()
	case isr.Generated, isr.Failed:
		r := m.route(key{e.Route, strings.HasPrefix(e.Route, "data:")})
		r.counts[e.Kind].Inc()
		r.seconds.Observe(e.Duration.Seconds())
	case isr.Revalidated:
		m.revalidated.Inc()
	case isr.Purged:
		m.purged.Inc()
	}
	// The rest is in the Stats.
}

// route returns the series of a route.
func (m *Metrics) route(k key) *route {
	if r := (*m.routes.Load())[k]; r != nil {
		return r
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	known := *m.routes.Load()
	if r := known[k]; r != nil {
		return r
	}
	// All of them, since rate does not see the first step of a counter that is
	// not there before.
	label := strings.ToValidUTF8(cmp.Or(k.pattern, other), "\uFFFD") // what is not panics
	r := &route{seconds: m.seconds.WithLabelValues(label)}
	for _, kind := range []isr.Kind{isr.Generated, isr.Failed} {
		r.counts[kind] = m.generations.WithLabelValues(kind.String(), label)
	}
	if k.data {
		r.counts[isr.DataHit] = m.loads.WithLabelValues("hit", label)
		r.counts[isr.DataMiss] = m.loads.WithLabelValues("miss", label)
	} else {
		for _, kind := range []isr.Kind{isr.Hit, isr.StaleHit, isr.Miss, isr.Passed} {
			r.counts[kind] = m.requests.WithLabelValues(kind.String(), label)
		}
	}
	routes := maps.Clone(known)
	routes[k] = r
	m.routes.Store(&routes)
	return r
}

// Collector returns what to register: the events that Observe has counted, and
// the [isr.Stats] of the site, as they are when Prometheus asks. It is for the
// site that m observes. Where a process has several, each with Metrics of its
// own, tell them apart with [prometheus.WrapRegistererWith]. Collector panics if
// site is nil.
func (m *Metrics) Collector(site *isr.Site) prometheus.Collector {
	if site == nil {
		panic("isr/metrics/prometheus: Collector: nil site")
	}
	return &collector{m, site}
}

type collector struct {
	*Metrics
	site *isr.Site
}

// What the Stats have to say.
var (
	pagesDesc       = prometheus.NewDesc("isr_pages", "Pages and data in memory, marks for what may not be stored included.", nil, nil)
	bytesDesc       = prometheus.NewDesc("isr_bytes", "Memory that pages and data take.", nil, nil)
	generatingDesc  = prometheus.NewDesc("isr_generating", "Generations under way.", nil, nil)
	evictionsDesc   = prometheus.NewDesc("isr_evictions_total", "Pages and data that had to go for others.", nil, nil)
	storeErrorsDesc = prometheus.NewDesc("isr_store_errors_total", "Errors of the second level.", nil, nil)
	edgeErrorsDesc  = prometheus.NewDesc("isr_edge_errors_total", "Failures of the Edge.", nil, nil)
	edgeOwedDesc    = prometheus.NewDesc("isr_edge_owed", "Paths and tags that the Edge is yet to be told.", nil, nil)
)

func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, vector := range c.vectors() {
		vector.Describe(ch)
	}
	for _, desc := range []*prometheus.Desc{pagesDesc, bytesDesc, generatingDesc, evictionsDesc, storeErrorsDesc, edgeErrorsDesc, edgeOwedDesc} {
		ch <- desc
	}
}

func (c *collector) Collect(ch chan<- prometheus.Metric) {
	for _, vector := range c.vectors() {
		vector.Collect(ch)
	}
	st := c.site.Stats() // once, so that they agree with each other
	send := func(desc *prometheus.Desc, kind prometheus.ValueType, value float64) {
		ch <- prometheus.MustNewConstMetric(desc, kind, value)
	}
	send(pagesDesc, prometheus.GaugeValue, float64(st.Pages))
	send(bytesDesc, prometheus.GaugeValue, float64(st.Bytes))
	send(generatingDesc, prometheus.GaugeValue, float64(st.Generating))
	send(evictionsDesc, prometheus.CounterValue, float64(st.Evicted))
	send(storeErrorsDesc, prometheus.CounterValue, float64(st.StoreErrors))
	send(edgeErrorsDesc, prometheus.CounterValue, float64(st.EdgeErrors))
	send(edgeOwedDesc, prometheus.GaugeValue, float64(st.EdgeOwed))
}

func (m *Metrics) vectors() []prometheus.Collector {
	return []prometheus.Collector{m.requests, m.loads, m.generations, m.seconds, m.invalidations}
}
