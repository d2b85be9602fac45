// Package otel tells OpenTelemetry what an [isr.Site] does: metrics, and a span
// for each generation of a page.
//
// Its name is that of OpenTelemetry's own package, so import one of them under
// another:
//
//	import isrotel "github.com/isr-go/isr/metrics/otel"
//
// Metrics have the route that a page belongs to as their http.route, a pattern
// of isr.Options.Routes, and never its path: visitors choose paths, and so would
// choose how many series there are. There is no http.route on what has none: the
// pages of isr.Options.Default, and requests such as POST, which go to the
// handler before their route is looked for.
package otel

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/isr-go/isr"
)

const scope = "github.com/isr-go/isr/metrics/otel"

// buckets are those of http.server.request.duration, up to the Timeout that a
// route has unless it says otherwise. A View of the MeterProvider overrides them.
var buckets = []float64{0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 30}

// Options configure [New]. The zero value uses the global providers, which may be
// set afterwards.
type Options struct {
	// MeterProvider is where the metrics go. Nil means the global one.
	MeterProvider metric.MeterProvider

	// TracerProvider is where the spans go. Nil means the global one. Export them
	// in batches: a visitor who waits for a page waits for the end of its span, too.
	TracerProvider trace.TracerProvider

	// Attributes are added to all metrics and spans, to tell several sites of one
	// process apart.
	Attributes []attribute.KeyValue
}

// Telemetry is what OpenTelemetry gets of one [isr.Site]. Make it with [New].
// Its methods are safe for concurrent use.
type Telemetry struct {
	meter   metric.Meter
	tracer  trace.Tracer
	attrs   []attribute.KeyValue // Options.Attributes
	seconds metric.Float64Histogram

	revalidated, purged counter

	tracing atomic.Bool // whether Trace makes the spans

	mu     sync.Mutex                     // held to replace routes
	routes atomic.Pointer[map[key]*route] // never changed, only replaced
}

// A key tells routes apart: a pattern may be spelt like the route of data.
type key struct {
	pattern string // isr.Event.Route
	data    bool   // whether the route is that of an isr.Data
}

// A counter is read when the metrics are collected. To add to an instrument of
// the SDK takes longer than all else that a hit takes.
type counter struct {
	n     atomic.Int64
	attrs metric.MeasurementOption
}

// A route holds what the events of one route have in common.
type route struct {
	span      string // the name
	data      bool
	attrs     []attribute.KeyValue
	counts    []counter // of visits, by kind; or of loads, from isr.DataHit
	generated []metric.RecordOption
}

// New returns a Telemetry. Its error is that of a MeterProvider that refuses an
// instrument.
func New(opts Options) (*Telemetry, error) {
	if opts.MeterProvider == nil {
		opts.MeterProvider = otel.GetMeterProvider()
	}
	if opts.TracerProvider == nil {
		opts.TracerProvider = otel.GetTracerProvider()
	}
	t := &Telemetry{
		meter:  opts.MeterProvider.Meter(scope, metric.WithSchemaURL(semconv.SchemaURL)),
		tracer: opts.TracerProvider.Tracer(scope, trace.WithSchemaURL(semconv.SchemaURL)),
		attrs:  slices.Clone(opts.Attributes),
	}
	t.routes.Store(&map[key]*route{})
	t.revalidated.attrs = with(t.attrs, attribute.String("isr.invalidation.kind", isr.Revalidated.String()))
	t.purged.attrs = with(t.attrs, attribute.String("isr.invalidation.kind", isr.Purged.String()))
	var err error
	t.seconds, err = t.meter.Float64Histogram("isr.generation.duration", metric.WithUnit("s"),
		metric.WithDescription("How long the generations of pages and data took, failed ones included."),
		metric.WithExplicitBucketBoundaries(buckets...))
	if err != nil {
		return nil, err
	}
	return t, nil
}

// with makes an option of attributes.
func with(common []attribute.KeyValue, more ...attribute.KeyValue) metric.MeasurementOption {
	return metric.WithAttributeSet(attribute.NewSet(slices.Concat(common, more)...))
}

// Observe counts an event, and makes a span of a generation, where Trace does not. It is
// made for [isr.Options.Observe].
func (t *Telemetry) Observe(e isr.Event) {
	switch e.Kind {
	case isr.Hit, isr.StaleHit, isr.Miss, isr.Passed:
		t.route(key{e.Route, false}).counts[e.Kind].n.Add(1)
	case isr.DataHit, isr.DataMiss:
		t.route(key{e.Route, true}).counts[e.Kind-isr.DataHit].n.Add(1)
	case isr.Generated, isr.Failed:
		if t.tracing.Load() {
			return
		}
		end := time.Now()
		ctx, span := t.start(context.Background(), e, trace.WithTimestamp(end.Add(-e.Duration)))
		t.end(ctx, span, e, end)
	case isr.Revalidated:
		t.revalidated.n.Add(1)
	case isr.Purged:
		t.purged.n.Add(1)
	}
	// The rest is in the Stats.
}

// Trace begins the span of a generation, with a link to that of the visit or call which
// has caused it; the spans that the handler makes are its children. The generation is the
// root of a trace of its own, since it is for all visitors, and may outlive them. It is
// made for [isr.Options.Trace], beside Observe.
func (t *Telemetry) Trace(ctx, cause context.Context, e isr.Event) (context.Context, func(isr.Event)) {
	t.tracing.Store(true)
	ctx, span := t.start(ctx, e, trace.WithNewRoot(), trace.WithLinks(linksTo(cause)...))
	return ctx, func(e isr.Event) { t.end(ctx, span, e, time.Now()) }
}

// linksTo returns a link to the span of a context, if it has one.
func linksTo(cause context.Context) []trace.Link {
	if link := trace.LinkFromContext(cause); link.SpanContext.IsValid() {
		return []trace.Link{link}
	}
	return nil
}

// start begins the span of a generation.
func (t *Telemetry) start(ctx context.Context, e isr.Event, opts ...trace.SpanStartOption) (context.Context, trace.Span) {
	r := t.generated(e)
	attrs := slices.Clip(r.attrs)
	if !r.data { // whose path is its name, which the route has
		attrs = append(attrs, semconv.URLPath(valid(e.Path)))
	}
	return t.tracer.Start(ctx, r.span, append(opts, trace.WithAttributes(attrs...))...)
}

// end ends the span of a generation, and counts it, unless its response may not be stored.
func (t *Telemetry) end(ctx context.Context, span trace.Span, e isr.Event, at time.Time) {
	r := t.generated(e)
	record := r.generated
	if e.Status != 0 {
		span.SetAttributes(semconv.HTTPResponseStatusCode(e.Status))
	}
	if e.Kind == isr.Failed {
		kind := semconv.ErrorTypeOther
		if e.Status != 0 {
			kind = semconv.ErrorTypeKey.String(strconv.Itoa(e.Status))
		}
		why := ""
		if e.Err != nil {
			why = valid(e.Err.Error())
		}
		span.SetAttributes(kind)
		span.SetStatus(codes.Error, why)
		record = []metric.RecordOption{with(r.attrs, kind)}
	}
	if e.Kind != isr.Passed {
		t.seconds.Record(ctx, e.Duration.Seconds(), record...) // in the span, which makes it an exemplar
	}
	span.End(trace.WithTimestamp(at))
}

// generated returns what the generations of a route have in common.
func (t *Telemetry) generated(e isr.Event) *route {
	return t.route(key{e.Route, strings.HasPrefix(e.Route, "data:")})
}

// route returns what the events of a route have in common.
func (t *Telemetry) route(k key) *route {
	if r := (*t.routes.Load())[k]; r != nil {
		return r
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	known := *t.routes.Load()
	if r := known[k]; r != nil {
		return r
	}
	r := &route{span: "isr.generate", data: k.data, attrs: slices.Clone(t.attrs)}
	if pattern := k.pattern; pattern != "" {
		r.span += " " + valid(pattern)
		r.attrs = append(r.attrs, semconv.HTTPRoute(valid(pattern)))
	}
	r.generated = []metric.RecordOption{with(r.attrs)}
	outcomes := []string{isr.Hit.String(), isr.StaleHit.String(), isr.Miss.String(), isr.Passed.String()}
	if k.data {
		outcomes = []string{"hit", "miss"}
	}
	r.counts = make([]counter, len(outcomes))
	for i, outcome := range outcomes {
		r.counts[i].attrs = with(r.attrs, attribute.String("isr.outcome", outcome))
	}
	routes := maps.Clone(known)
	routes[k] = r
	t.routes.Store(&routes)
	return r
}

// maxText is how much of a path or an error a span has: visitors choose paths, and
// spans wait in memory to be exported.
const maxText = 2 << 10

// valid makes s what OTLP takes: one string that is not UTF-8 fails the export of
// all that goes with it.
func valid(s string) string {
	if len(s) > maxText {
		s = s[:maxText] + "…" // what is cut in two is not UTF-8
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// Register adds what is read when the metrics are collected: the events that
// Observe has counted, and the [isr.Stats] of the site. Call it once, with the
// site that t observes. Unregister the result where the site does not live as
// long as the MeterProvider. Register panics if site is nil.
func (t *Telemetry) Register(site *isr.Site) (metric.Registration, error) {
	if site == nil {
		panic("isr/metrics/otel: Register: nil site")
	}
	var errs []error
	count := func(name, unit, about string) metric.Int64ObservableCounter {
		i, err := t.meter.Int64ObservableCounter(name, metric.WithUnit(unit), metric.WithDescription(about))
		errs = append(errs, err)
		return i
	}
	// Not gauges: the pages of several instances add up.
	amount := func(name, unit, about string) metric.Int64ObservableUpDownCounter {
		i, err := t.meter.Int64ObservableUpDownCounter(name, metric.WithUnit(unit), metric.WithDescription(about))
		errs = append(errs, err)
		return i
	}
	requests := count("isr.requests", "{request}", "Visits, by what came of them: hit, stale, miss or passed.")
	loads := count("isr.data.loads", "{load}", "Calls of Data.Load, by what came of them: hit or miss.")
	invalidations := count("isr.invalidations", "{invalidation}", "Paths and tags that were revalidated or purged.")
	evictions := count("isr.evictions", "{page}", "Pages and data that had to go for others.")
	storeErrors := count("isr.store.errors", "{error}", "Errors of the second level.")
	edgeErrors := count("isr.edge.errors", "{error}", "Failures of the Edge.")
	edgeOwed := amount("isr.edge.owed", "{invalidation}", "Paths and tags that the Edge is yet to be told.")
	pages := amount("isr.page.count", "{page}", "Pages and data in memory, marks for what may not be stored included.")
	memory := amount("isr.memory.usage", "By", "Memory that pages and data take.")
	generating := amount("isr.active_generations", "{generation}", "Generations under way.")
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	attrs := with(t.attrs)
	return t.meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		for _, r := range *t.routes.Load() {
			counter := requests
			if r.data {
				counter = loads
			}
			for i := range r.counts {
				o.ObserveInt64(counter, r.counts[i].n.Load(), r.counts[i].attrs)
			}
		}
		o.ObserveInt64(invalidations, t.revalidated.n.Load(), t.revalidated.attrs)
		o.ObserveInt64(invalidations, t.purged.n.Load(), t.purged.attrs)

		st := site.Stats() // once, so that they agree with each other
		o.ObserveInt64(evictions, int64(st.Evicted), attrs)
		o.ObserveInt64(storeErrors, int64(st.StoreErrors), attrs)
		o.ObserveInt64(edgeErrors, int64(st.EdgeErrors), attrs)
		o.ObserveInt64(edgeOwed, int64(st.EdgeOwed), attrs)
		o.ObserveInt64(pages, int64(st.Pages), attrs)
		o.ObserveInt64(memory, st.Bytes, attrs)
		o.ObserveInt64(generating, int64(st.Generating), attrs)
		return nil
	}, requests, loads, invalidations, evictions, storeErrors, edgeErrors, edgeOwed, pages, memory, generating)
}
