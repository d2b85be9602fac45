package otel_test

import (
	"context"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/internal/isrtest"
)

// From a generation one gets to the visit that has caused it, and the spans of the handler
// are its children: also where it renews a page behind the visitor.
func TestTrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		exporter := tracetest.NewInMemoryExporter()
		b := newBackend()
		provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter))
		b.opts.TracerProvider = provider
		tel, tracer := b.telemetry(t), provider.Tracer("app")
		query := func(ctx context.Context, what string) {
			_, span := tracer.Start(ctx, "query "+what)
			time.Sleep(time.Second)
			span.End()
		}
		menu := isr.Data[string]{Name: "menu"}
		site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			query(r.Context(), r.URL.Path)
			switch r.URL.Path {
			case "/private":
				w.Header().Set("Cache-Control", "private")
			case "/fails":
				w.WriteHeader(http.StatusServiceUnavailable)
			case "/data":
				menu.Load(r.Context(), "main", func(ctx context.Context) (string, error) {
					query(ctx, "menu")
					return "", nil
				})
			}
		}), isr.Options{Default: isr.Route{TTL: time.Minute}, Observe: tel.Observe, Trace: tel.Trace, Origin: "https://example.com"})
		register(t, tel, site)

		visit := func(name, path string) {
			ctx, span := tracer.Start(t.Context(), name)
			isrtest.Do(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { site.ServeHTTP(w, r.WithContext(ctx)) }), "GET", path)
			span.End()
			time.Sleep(time.Minute) // the handler's own run of /private is over, and so is each TTL
			synctest.Wait()
		}
		visit("ann", "/page")
		visit("bob", "/page")
		visit("ann", "/private")
		visit("ann", "/fails")
		visit("ann", "/data")
		isrtest.Do(site, "GET", "/alone")

		names := make(map[trace.SpanID]string)
		for _, s := range exporter.GetSpans() {
			names[s.SpanContext.SpanID()] = s.Name
		}
		var got []string
		for _, s := range exporter.GetSpans() {
			line := s.Name
			if s.Name == "isr.generate" {
				for _, a := range s.Attributes {
					if a.Key == "url.path" {
						line += " " + a.Value.AsString()
					}
				}
			}
			if s.Parent.IsValid() {
				line += " in " + names[s.Parent.SpanID()]
			}
			for _, link := range s.Links {
				line += " by " + names[link.SpanContext.SpanID()]
			}
			got = append(got, line)
		}
		slices.Sort(got)
		want := []string{
			"ann", "ann", "ann", "ann", "bob",
			"isr.generate /alone",
			"isr.generate /data by ann",
			"isr.generate /fails by ann",
			"isr.generate /page by ann",
			"isr.generate /page by bob",
			"isr.generate /private by ann",
			"isr.generate data:menu by isr.generate",
			"query /alone in isr.generate",
			"query /data in isr.generate",
			"query /fails in isr.generate",
			"query /page in isr.generate",
			"query /page in isr.generate",
			"query /private in ann", // their own request, since it may not be stored
			"query /private in isr.generate",
			"query menu in isr.generate data:menu",
		}
		slices.Sort(want)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		var generations uint64
		for _, v := range b.series(t) {
			if h, ok := v.(histogram); ok {
				generations += h.Count
			}
		}
		if generations != 6 {
			t.Errorf("%d generations in the histogram, want the 6 that were stored or failed", generations)
		}
	})
}
