package isr_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isr-go/isr"
)

// A tracer notes what Options.Trace is called with, and gives each run a name that its
// handler sees.
type tracer struct {
	mu   sync.Mutex
	runs []string
}

type traceKey struct{}

func (tr *tracer) trace(ctx, cause context.Context, e isr.Event) (context.Context, func(isr.Event)) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	i := len(tr.runs)
	tr.runs = append(tr.runs, fmt.Sprint(e.Route, " ", e.Path, " by ", cause.Value(contextKey{})))
	return context.WithValue(ctx, traceKey{}, fmt.Sprint("run ", i)), func(end isr.Event) {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		tr.runs[i] += fmt.Sprint(": ", end.Kind, " ", end.Status, " ", end.Duration)
		if end.Err != nil {
			tr.runs[i] += " " + end.Err.Error()
		}
	}
}

// visitAs asks for a page with a value in the request's context that is the visitor's.
func visitAs(site http.Handler, name, target string) *http.Response {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		site.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), contextKey{}, name)))
	})
	return get(h, target)
}

// Each generation is told of with the context of who has caused it, and ends once, however
// it ends. The handler sees what Trace returns, and nothing of the visitor's.
func TestTrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := new(tracer)
		menu := isr.Data[string]{Name: "menu"}
		mux := http.NewServeMux()
		mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
			if v := r.Context().Value(contextKey{}); v != nil && isr.Generating(r.Context()) {
				t.Errorf("the handler sees %v", v)
			}
			time.Sleep(time.Second)
			switch r.URL.Path {
			case "/data":
				_, err := menu.Load(r.Context(), "main", func(ctx context.Context) (string, error) {
					return fmt.Sprint(ctx.Value(traceKey{})), nil
				})
				if err != nil {
					t.Error(err)
				}
			case "/private":
				w.Header().Set("Cache-Control", "private")
			case "/panics":
				panic("oops")
			case "/hangs":
				time.Sleep(time.Minute)
			}
			fmt.Fprint(w, r.Context().Value(traceKey{}))
		})
		site := isr.Wrap(mux, isr.Options{
			Origin: "https://example.com", Trace: tr.trace, MaxRegenerations: 1,
			Routes: map[string]isr.Route{"/page": {TTL: time.Minute}},
		})
		if got := read(visitAs(site, "ann", "/page")); got != "run 0" {
			t.Errorf("the handler sees %q", got)
		}
		visitAs(site, "bob", "/page")
		time.Sleep(2 * time.Minute)
		visitAs(site, "bob", "/page")
		visitAs(site, "eve", "/page")
		time.Sleep(time.Minute)
		visitAs(site, "ann", "/private")
		recovered(func() { visitAs(site, "ann", "/panics") })
		visitAs(site, "ann", "/hangs")
		visitAs(site, "ann", "/data")
		for range site.Prerender(context.WithValue(t.Context(), contextKey{}, "job"), slices.Values([]string{"/new"})) {
		}
		var all sync.WaitGroup
		for i := range 2 { // of the one run that goes on when its visitor has left, the other is cancelled
			all.Go(func() { visit(site, fmt.Sprint("/left/", i), time.Millisecond) })
			time.Sleep(10 * time.Millisecond)
		}
		all.Wait()
		time.Sleep(time.Minute)
		want := []string{
			"/page /page by ann: generated 200 1s",
			"/page /page by bob: generated 200 1s",
			" /private by ann: passed 200 1s",
			" /panics by ann: failed 500 1s the handler panicked: oops",
			" /hangs by ann: failed 504 30s the handler did not finish within Route.Timeout",
			" /data by ann: generated 200 1s",
			"data:menu menu by <nil>: generated 200 0s",
			" /new by job: generated 200 1s",
			" /left/0 by <nil>: generated 200 1s",
			" /left/1 by <nil>: failed 0 1s context canceled",
		}
		synctest.Wait()
		if diff := cmp.Diff(want, tr.runs); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// A context that is made on the visitor's is not that of a page, whatever Trace does.
func TestTraceLeaksNothing(t *testing.T) {
	var log bytes.Buffer
	site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Context().Value(contextKey{}))
	}), isr.Options{Logger: logger(&log), Trace: func(ctx, cause context.Context, _ isr.Event) (context.Context, func(isr.Event)) {
		return context.WithoutCancel(cause), nil
	}})
	for _, path := range []string{"/1", "/2"} {
		if got := read(visitAs(site, "ann", path)); got != "<nil>" {
			t.Errorf("the page holds %s", got)
		}
	}
	if got := strings.Count(log.String(), "Trace has returned"); got != 1 {
		t.Errorf("%d warnings, want 1", got)
	}
}

// Trace may look at the context of a visitor whose fetch is watched meanwhile.
func TestTraceOfParallelValues(t *testing.T) {
	tr := new(tracer)
	a, b := isr.Data[int]{Name: "a"}, isr.Data[int]{Name: "b"}
	began, traced := make(chan struct{}), make(chan struct{})
	site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var all sync.WaitGroup
		all.Go(func() {
			a.Load(r.Context(), "", func(context.Context) (int, error) {
				close(began)
				<-traced
				return 1, nil
			})
		})
		<-began
		_, err := b.Load(r.Context(), "", func(context.Context) (int, error) { return 2, errors.New("none") })
		close(traced)
		all.Wait()
		fmt.Fprint(w, err)
	}), isr.Options{Default: isr.Route{Bypass: isr.Always}, Trace: tr.trace})
	if got := read(visitAs(site, "ann", "/")); !strings.HasSuffix(got, "none") {
		t.Error(got)
	}
	if len(tr.runs) != 2 {
		t.Errorf("%q", tr.runs)
	}
}
