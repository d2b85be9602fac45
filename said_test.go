package isr_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/internal/isrtest"
	"github.com/isr-go/isr/store/memory"
)

// ask returns the response to a visit.
func ask(h http.Handler, target string) *httptest.ResponseRecorder {
	return isrtest.Do(h, http.MethodGet, target)
}

// logger writes to w.
func logger(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }

// A tag from any depth and any goroutine counts, beside those of the route and of the
// header, until the handler has returned; also where it answers 304.
func TestTagFromInside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		version := 0
		site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			version++
			ctx, cancel := context.WithTimeout(context.WithValue(r.Context(), name("depth"), 1), time.Second)
			defer cancel()
			isr.Tag(ctx, "before", "route")
			w.Header().Set("Cache-Tag", "header")
			w.Header().Set("Etag", `"same"`)
			if r.Header.Get("If-None-Match") != "" {
				isr.Tag(ctx, "on 304")
				w.WriteHeader(http.StatusNotModified)
				return
			}
			io.WriteString(w, "page")
			var all sync.WaitGroup
			for i := range 10 {
				all.Go(func() { isr.Tag(ctx, fmt.Sprint("after ", i%3)) })
			}
			all.Wait()
		}), isr.Options{Default: isr.Route{Tags: []string{"route"}}})
		ask(site, "/")
		want := []string{"route", "header", "before", "after 0", "after 1", "after 2"}
		check := func() {
			t.Helper()
			got := pages(site)["/"].Tags
			slices.Sort(got[min(3, len(got)):])
			if !slices.Equal(got, want) {
				t.Errorf("tags %q, want %q", got, want)
			}
		}
		check()
		for i, tag := range []string{"before", "after 2", "on 304"} {
			if err := site.RevalidateTag(t.Context(), tag); err != nil {
				t.Fatal(err)
			}
			ask(site, "/")
			synctest.Wait()
			if version != i+2 {
				t.Errorf("the page was made %d times when %q was revalidated", version, tag)
			}
			if i == 0 {
				want = append(want, "on 304") // and what was said of the page that is as good as new
			}
			check()
		}
	})
}

// How long a page is fresh the shortest TTL says that was called, instead of the route;
// the handler's Cache-Control it can only shorten.
func TestTTLFromInside(t *testing.T) {
	for name, test := range map[string]struct {
		route   isr.Route
		status  int
		control string
		ttls    []time.Duration
		want    time.Duration // less than zero: never fresh; zero: until revalidated
		sent    string
	}{
		"shorter":                  {route: isr.Route{TTL: time.Hour}, ttls: []time.Duration{time.Minute, 20 * time.Second, time.Hour}, want: 20 * time.Second, sent: "public, max-age=0, s-maxage=20"},
		"longer":                   {route: isr.Route{TTL: time.Second}, ttls: []time.Duration{time.Hour}, want: time.Hour, sent: "public, max-age=0, s-maxage=60"},
		"none":                     {route: isr.Route{TTL: time.Second}, want: time.Second, sent: "public, max-age=0, s-maxage=1"},
		"of a page kept for ever":  {ttls: []time.Duration{30 * time.Second}, want: 30 * time.Second, sent: "public, max-age=0, s-maxage=30"},
		"on NoStore":               {route: isr.Route{TTL: isr.NoStore}, ttls: []time.Duration{30 * time.Second}, want: 30 * time.Second, sent: "public, max-age=0, s-maxage=30"},
		"zero":                     {route: isr.Route{TTL: time.Hour}, ttls: []time.Duration{0}, want: -1, sent: "public, max-age=0, s-maxage=0"},
		"less than zero":           {route: isr.Route{TTL: time.Hour}, ttls: []time.Duration{-time.Hour}, want: -1, sent: "public, max-age=0, s-maxage=0"},
		"shorter than the header":  {control: "public, max-age=3600, immutable", ttls: []time.Duration{30 * time.Second}, want: 30 * time.Second, sent: "public, max-age=30"},
		"shorter than s-maxage":    {control: "max-age=5, s-maxage=3600, stale-while-revalidate=60", ttls: []time.Duration{30 * time.Second}, want: 30 * time.Second, sent: "max-age=5, s-maxage=30"},
		"longer than the header":   {control: "public, max-age=5", ttls: []time.Duration{time.Hour}, want: 5 * time.Second, sent: "public, max-age=5"},
		"of a 404, longer":         {status: 404, ttls: []time.Duration{time.Hour}, want: 10 * time.Second, sent: "public, max-age=0, s-maxage=10"},
		"of a 404, shorter":        {status: 404, ttls: []time.Duration{time.Second}, want: time.Second, sent: "public, max-age=0, s-maxage=1"},
		"with Route.CacheControl":  {route: isr.Route{CacheControl: "max-age=99"}, ttls: []time.Duration{time.Second}, want: time.Second, sent: "max-age=99"},
		"on NoStore, and a header": {route: isr.Route{TTL: isr.NoStore}, control: "max-age=9", ttls: []time.Duration{5 * time.Second}, want: 5 * time.Second, sent: "max-age=5"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if test.control != "" {
						w.Header().Set("Cache-Control", test.control)
					}
					w.WriteHeader(max(200, test.status))
					io.WriteString(w, "page")
					for _, ttl := range test.ttls {
						isr.TTL(r.Context(), ttl)
					}
				}), isr.Options{Default: test.route})
				w := ask(site, "/")
				if got := w.Header().Get("Cache-Control"); got != test.sent {
					t.Errorf("sent %q, want %q", got, test.sent)
				}
				p, ok := pages(site)["/"]
				if !ok || p.NotStored != "" || p.TTL != test.want {
					t.Errorf("stored: %v (%s), TTL %v, want %v", ok, p.NotStored, p.TTL, test.want)
				}
				if test.want < 0 { // shown, and renewed
					if got := ask(site, "/").Header().Get("Cache-Status"); !strings.Contains(got, "hit") || !strings.Contains(got, "stale") {
						t.Errorf("a page that was never fresh: %q", got)
					}
				}
			})
		})
	}
}

// A NoStore page that nobody gives a lifetime is not stored, whenever that is known.
func TestNoStoreFromInside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "page ")
			if r.URL.Path == "/flushes" {
				http.NewResponseController(w).Flush()
			}
			fmt.Fprint(w, isr.Generating(r.Context()))
		}), isr.Options{Default: isr.Route{TTL: isr.NoStore}})
		for _, path := range []string{"/", "/flushes"} {
			for range 2 {
				if w := ask(site, path); w.Body.String() != "page false" {
					t.Errorf("%s: %q, %s", path, w.Body, w.Header().Get("Cache-Status"))
				}
			}
		}
	})
}

// At the time of Until a page is expired: visitors wait for the new one, unless that
// cannot be had; and nothing in front may show it for longer.
func TestUntilFromInside(t *testing.T) {
	for name, route := range map[string]isr.Route{
		"kept for ever": {},
		"with a TTL":    {TTL: 10 * time.Second},
		"invalidated":   {Tags: []string{"tag"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				made, failing, st := 0, false, memory.New()
				publish := time.Now().Add(time.Minute)
				open := func() *isr.Site {
					site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						if failing {
							isr.Fail(r.Context(), errors.New("no database"))
						}
						made++
						if time.Now().Before(publish) {
							isr.Until(r.Context(), publish.Add(time.Hour))
							isr.Until(r.Context(), publish)
						}
						fmt.Fprint(w, time.Now().Before(publish))
					}), isr.Options{Default: route, Store: st, SharedMaxAge: time.Hour})
					t.Cleanup(func() { site.Shutdown(context.Background()) })
					return site
				}
				site := open()
				ask(site, "/")
				if route.Tags != nil {
					if err := site.RevalidateTag(t.Context(), "tag"); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(59 * time.Second)
				other := open() // which has it from the Store
				for _, site := range []*isr.Site{site, other} {
					if w := ask(site, "/"); w.Body.String() != "true" {
						t.Errorf("before its time: %q", w.Body)
					}
					synctest.Wait()
				}
				time.Sleep(time.Second)
				failing = true
				for _, site := range []*isr.Site{site, other} {
					if w := ask(site, "/"); w.Body.String() != "true" || !strings.Contains(w.Header().Get("Cache-Status"), "stale") {
						t.Errorf("where no other can be had: %q, %q", w.Body, w.Header().Get("Cache-Status"))
					}
				}
				failing = false
				time.Sleep(time.Second)
				if err := site.Revalidate(t.Context(), "/"); err != nil {
					t.Fatal(err)
				}
				if w := ask(site, "/"); w.Body.String() != "false" {
					t.Errorf("after it: %q", w.Body)
				}
				time.Sleep(2 * time.Second)
				if w := ask(other, "/"); w.Body.String() != "false" {
					t.Errorf("in another instance: %q", w.Body)
				}
			})
		})
	}
}

// Until shortens what the handler and the route promise to those in front.
func TestUntilIsSent(t *testing.T) {
	for name, test := range map[string]struct{ route, handler, want string }{
		"derived":                {want: "public, max-age=0, s-maxage=30"},
		"by the route":           {route: "max-age=3600, immutable", want: "max-age=30"},
		"by the handler":         {handler: "public, max-age=3600, stale-if-error=60", want: "public, max-age=30"},
		"silent of browsers":     {handler: "s-maxage=3600", want: "s-maxage=30, max-age=0"},
		"silent of all lifetime": {handler: "public", want: "public, max-age=30"},
		"shorter":                {handler: "max-age=5", want: "max-age=5"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if test.handler != "" {
						w.Header().Set("Cache-Control", test.handler)
					}
					w.Header().Set("Expires", "Thu, 01 Jan 2099 00:00:00 GMT")
					w.Header().Set("CDN-Cache-Control", "max-age=3600")
					isr.Until(r.Context(), time.Now().Add(30*time.Second))
				}), isr.Options{Default: isr.Route{CacheControl: test.route}})
				h := ask(site, "/").Header()
				if got := h.Get("Cache-Control"); got != test.want {
					t.Errorf("got %q, want %q", got, test.want)
				}
				if h["Expires"] != nil || h["Cdn-Cache-Control"] != nil {
					t.Errorf("what promises more is sent, too: %v", h)
				}
			})
		})
	}
}

// Fail makes the generation a failure, whatever is written and whatever recovers: the last
// good page stays, and the error is the one that an editor and the log get.
func TestFailFromInside(t *testing.T) {
	noDatabase := errors.New("no database")
	recovers := func(h http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			defer func() {
				if v := recover(); v != nil {
					io.WriteString(w, "sorry")
				}
			}()
			h(w, r)
		}
	}
	for name, test := range map[string]struct {
		handler http.HandlerFunc
		status  int    // of the first visit of a page that was never made
		body    string // likewise
	}{
		"before a page":         {func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "page") }, 500, "Internal Server Error\n"},
		"and a page like a 503": {func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(503); io.WriteString(w, "down") }, 503, "down"},
		"and a cookie": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Set-Cookie", "a=b")
			io.WriteString(w, "page")
		}, 500, "Internal Server Error\n"},
		"and a 304":        {func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(304) }, 500, "Internal Server Error\n"},
		"and a large page": {func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, strings.Repeat("x", 2000)) }, 500, "Internal Server Error\n"},
		"and a panic":      {recovers(func(http.ResponseWriter, *http.Request) { panic("no rows") }), 500, "Internal Server Error\n"},
		"and nothing":      {func(http.ResponseWriter, *http.Request) {}, 500, "Internal Server Error\n"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				failing, failed := false, make([]error, 0)
				site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if !failing && r.URL.Path == "/" {
						w.Header().Set("Etag", `"1"`)
						io.WriteString(w, "good")
						return
					}
					isr.Fail(r.Context(), noDatabase)
					isr.Fail(r.Context(), errors.New("later"))
					test.handler(w, r)
				}), isr.Options{Origin: "https://example.com", MaxPageBytes: 1000, Observe: func(e isr.Event) {
					if e.Kind == isr.Failed {
						failed = append(failed, e.Err)
					}
				}})
				ask(site, "/")
				failing = true
				if err := site.Revalidate(t.Context(), "/"); !errors.Is(err, noDatabase) {
					t.Errorf("Revalidate: %v", err)
				}
				if w := ask(site, "/"); w.Code != 200 || w.Body.String() != "good" {
					t.Errorf("the page is gone: %d %q", w.Code, w.Body)
				}
				synctest.Wait()
				w := ask(site, "/new")
				if w.Code != test.status || w.Body.String() != test.body || !strings.Contains(w.Header().Get("Cache-Control"), "no-store") {
					t.Errorf("a page that was never made: %d %q %v", w.Code, w.Body, w.Header())
				}
				for _, err := range failed {
					if err != noDatabase {
						t.Errorf("Observe was told %v", err)
					}
				}
				if len(failed) < 2 || pages(site)["/new"].Path != "" {
					t.Errorf("%d failures; stored: %v", len(failed), pages(site)["/new"])
				}
			})
		})
	}
}

// Where a response has become too large to be stored before Fail is called, its visitor
// does not take the part for the whole.
func TestFailWhileStreaming(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, strings.Repeat("x", 2000))
			isr.Fail(r.Context(), errors.New("no more rows"))
		}), isr.Options{MaxPageBytes: 1000})
		defer func() {
			if v := recover(); v != http.ErrAbortHandler {
				t.Errorf("the visitor got it all: %v", v)
			}
		}()
		ask(site, "/")
	})
}

// A handler's panic stays one for the visitor who waits, and its error is that of Fail.
func TestFailBeforePanic(t *testing.T) {
	var failed error
	site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		isr.Fail(r.Context(), nil)
		panic("no rows")
	}), isr.Options{Observe: func(e isr.Event) {
		if e.Kind == isr.Failed {
			failed = e.Err
		}
	}})
	defer func() {
		if v := recover(); v != "no rows" || failed == nil || !strings.Contains(failed.Error(), "isr.Fail") {
			t.Errorf("panicked with %v, failed with %v", v, failed)
		}
	}()
	ask(site, "/")
}

// A tag that is none keeps the page from being stored, with a warning that says which.
func TestBadTagFromInside(t *testing.T) {
	for name, tag := range map[string]string{"empty": "", "a path": "/blog", "long": strings.Repeat("x", 257)} {
		t.Run(name, func(t *testing.T) {
			var log strings.Builder
			site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				isr.Tag(r.Context(), "good", tag)
			}), isr.Options{Logger: logger(&log)})
			ask(site, "/")
			if p := pages(site)["/"]; p.NotStored == "" || !strings.Contains(log.String(), "level=WARN") || !strings.Contains(log.String(), "tag") {
				t.Errorf("%+v\n%s", p, &log)
			}
		})
	}
}

// What is said when the handler has returned has no effect, and is warned of once for
// each route.
func TestSaidTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ctx := context.WithoutCancel(r.Context())
			go func() {
				time.Sleep(time.Second)
				isr.Tag(ctx, "late")
				isr.TTL(ctx, time.Second)
				isr.Until(ctx, time.Now())
				isr.Fail(ctx, errors.New("late"))
			}()
			io.WriteString(w, "page")
		}), isr.Options{Routes: map[string]isr.Route{"/blog/{id}": {}}, Logger: logger(&log)})
		for _, path := range []string{"/blog/1", "/blog/2", "/about"} {
			ask(site, path)
			time.Sleep(2 * time.Second)
			synctest.Wait()
			if p := pages(site)[path]; p.State != isr.Fresh || len(p.Tags) != 0 || p.TTL != 0 || p.Failures != 0 {
				t.Errorf("%+v", p)
			}
		}
		if got := log.String(); strings.Count(got, "level=WARN") != 2 || !strings.Contains(got, "route=/blog/{id}") {
			t.Errorf("warnings:\n%s", got)
		}
	})
}

// Outside of a generation nothing is said: not in a request that passes, nor anywhere
// else.
func TestSaidOutside(t *testing.T) {
	site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		isr.Tag(r.Context(), "")
		isr.TTL(r.Context(), -1)
		isr.Until(r.Context(), time.Time{})
		isr.Fail(r.Context(), errors.New("no"))
		fmt.Fprint(w, isr.Generating(r.Context()))
	}), isr.Options{Default: isr.Route{Bypass: isr.Always}})
	for _, method := range []string{"GET", "POST"} {
		w := httptest.NewRecorder()
		site.ServeHTTP(w, httptest.NewRequest(method, "/", nil))
		if w.Code != 200 || w.Body.String() != "false" {
			t.Errorf("%s: %d %q", method, w.Code, w.Body)
		}
	}
	if isr.Generating(t.Context()) {
		t.Error("a test is a generation")
	}
}
