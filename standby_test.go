package isr_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/store"
	"github.com/isr-go/isr/store/memory"
)

// A renewal may keep the stored page, replace it, remove it, or leave it to stand by,
// depending on what the handler answers.
func TestRenewalOutcomes(t *testing.T) {
	const (
		stays    = "stays"     // and is shown
		standby  = "stands by" // visitors get their own answers; the page is shown where those are failures
		gone     = "gone"      // and never shown again
		replaced = "replaced"
	)
	type answer = func(w http.ResponseWriter)
	status := func(n int) answer { return func(w http.ResponseWriter) { w.WriteHeader(n); io.WriteString(w, "new") } }
	header := func(name, value string) answer {
		return func(w http.ResponseWriter) { w.Header().Set(name, value); io.WriteString(w, "new") }
	}
	for name, test := range map[string]struct {
		answer answer
		want   string
	}{
		"200": {status(200), replaced}, "404": {status(404), replaced}, "410": {status(410), replaced}, "301": {status(301), replaced},
		"500": {status(500), stays}, "503": {status(503), stays}, "429": {status(429), stays}, "408": {status(408), stays}, "425": {status(425), stays},
		"Route.Failure": {header("X-Failure", "yes"), stays},
		"panic":         {func(http.ResponseWriter) { panic(http.ErrAbortHandler) }, stays},
		"short":         {header("Content-Length", "9"), stays},
		"no-store":      {header("Cache-Control", "no-store"), standby},
		"no-cache":      {header("Cache-Control", "no-cache"), standby},
		"Vary: *":       {header("Vary", "*"), standby},
		"Vary: Origin":  {header("Vary", "Origin"), standby},
		"event stream":  {header("Content-Type", "text/event-stream"), standby},
		"400":           {status(400), standby}, "206 (RFC 9111, section 3.3)": {status(206), standby},
		"too large": {func(w http.ResponseWriter) { io.WriteString(w, strings.Repeat("new", 1000)) }, standby},
		"private":   {header("Cache-Control", "private"), gone}, "no-store, private": {header("Cache-Control", "no-store, private"), gone},
		"Set-Cookie":           {header("Set-Cookie", "a=b"), gone},
		"an invalid Cache-Tag": {header("Cache-Tag", "/a"), standby},
		"301, no-store": {func(w http.ResponseWriter) {
			w.Header().Set("Cache-Control", "no-store")
			w.WriteHeader(301)
		}, gone},
		"308, no-cache": {func(w http.ResponseWriter) {
			w.Header().Set("Cache-Control", "no-cache")
			w.WriteHeader(308)
		}, gone},
		"404, no-cache": {func(w http.ResponseWriter) {
			w.Header().Set("Cache-Control", "no-cache, must-revalidate, max-age=0")
			w.WriteHeader(404)
		}, gone},
		"410, Vary: *": {func(w http.ResponseWriter) { w.Header().Set("Vary", "*"); w.WriteHeader(410) }, gone},
		"404, too large": {func(w http.ResponseWriter) {
			w.WriteHeader(404)
			io.WriteString(w, strings.Repeat("new", 1000))
		}, gone},
		"401": {status(401), gone}, "402": {status(402), gone}, "403": {status(403), gone}, "451": {status(451), gone},
		"302": {status(302), gone}, "307": {status(307), gone},
		"303, no-store": {func(w http.ResponseWriter) {
			w.Header().Set("Cache-Control", "no-store")
			w.WriteHeader(303)
		}, gone},
	} {
		for how, rt := range map[string]isr.Route{"behind": {}, "waiting": {StaleWhileRevalidate: -1}} {
			t.Run(name+", "+how, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					serve := func(w http.ResponseWriter) { io.WriteString(w, "good") }
					c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) { serve(w) }}
					rt.TTL, rt.NotFoundTTL = 10*time.Second, 10*time.Second
					rt.Failure = func(status int, h http.Header) bool { return h.Get("X-Failure") != "" }
					site := isr.Wrap(c, isr.Options{Default: rt, MaxPageBytes: 1000})
					get(site, "/")
					time.Sleep(10 * time.Second)
					serve = test.answer
					recovered(func() { get(site, "/") })
					synctest.Wait()

					shown := body(site, "/")
					synctest.Wait()
					serve = func(w http.ResponseWriter) { http.Error(w, "down", http.StatusServiceUnavailable) }
					outage := get(site, "/")
					synctest.Wait()
					got := replaced
					switch now := read(outage); {
					case shown == "good":
						got = stays
					case now == "good" && outage.StatusCode == 200:
						got = standby
					case outage.StatusCode == 503:
						got = gone
					}
					if got != test.want {
						t.Errorf("%s, want %s: shown %.10q, in an outage %d %s", got, test.want, shown, outage.StatusCode, outage.Header.Get("Cache-Status"))
					}
					if test.want != standby {
						return
					}
					if err := site.Purge(t.Context(), "http://example.com/"); err != nil {
						t.Fatal(err)
					}
					if got := get(site, "/").StatusCode; got != 503 {
						t.Errorf("%d after a purge", got)
					}
				})
			})
		}
	}
}

// A page that stands by is listed with the reason, is shown where the visitor's own
// request fails, and is a page again when the handler sends one.
func TestPageStandsBy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mode := ""
		c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			switch mode {
			case "no-store":
				w.Header().Set("Cache-Control", "no-store")
			case "down":
				w.Header().Set("X-Debug", "stack")
				w.WriteHeader(503)
			case "Route.Failure, without a body":
				w.Header().Set("X-Failure", "yes")
				return
			case "panics":
				panic("no database")
			case "breaks":
				fmt.Fprint(w, "half a page")
				panic(http.ErrAbortHandler)
			case "flushes":
				w.Header().Set("Cache-Control", "no-store")
				http.NewResponseController(w).Flush()
			}
			fmt.Fprint(w, "page ", n)
		}}
		failure := func(status int, h http.Header) bool { return status == 200 && h.Get("X-Failure") != "" }
		site := isr.Wrap(c, isr.Options{Origin: "https://example.com", Default: isr.Route{TTL: 5 * time.Second, Failure: failure}})
		get(site, "/")
		mode = "no-store"
		time.Sleep(5 * time.Second)
		get(site, "/")
		synctest.Wait()
		if p := pages(site)["/"]; p.State != isr.Uncacheable || p.NotStored != "is no-store by its Cache-Control" || p.Status != 200 {
			t.Errorf("%v %q %d", p.State, p.NotStored, p.Status)
		}
		res := get(site, "/")
		if got := read(res); got != "page 3" || res.Header.Get("Cache-Status") != "isr; fwd=bypass; detail=uncacheable" {
			t.Errorf("%q %v", got, res.Header)
		}
		for _, mode = range []string{"down", "panics", "Route.Failure, without a body"} {
			res := get(site, "/")
			if got := read(res); got != "page 1" || res.StatusCode != 200 || res.Header.Get("X-Debug") != "" ||
				!strings.HasSuffix(res.Header.Get("Cache-Status"), "detail=stale-if-error") {
				t.Errorf("%s: %q %d %v", mode, got, res.StatusCode, res.Header)
			}
		}
		mode = "breaks"
		if recovered(func() { get(site, "/") }) != http.ErrAbortHandler {
			t.Error("a response that breaks off passes for a complete one")
		}
		mode = "flushes"
		if got := body(site, "/"); got != "page 8" {
			t.Errorf("%q", got)
		}
		mode = "down"
		time.Sleep(10 * time.Second) // the hit-for-pass is over
		if res := get(site, "/"); read(res) != "page 1" || res.StatusCode != 200 {
			t.Errorf("%d %v", res.StatusCode, res.Header)
		}
		mode = ""
		if err := site.Revalidate(t.Context(), "/"); err != nil {
			t.Fatal(err)
		}
		if res := get(site, "/"); res.Header.Get("Cache-Status") != "isr; hit; ttl=5" {
			t.Errorf("%v", res.Header)
		}
	})
}

// While the last good page stands by, the handler gets the abilities of the visitor's
// ResponseWriter, and informational responses are no failure.
func TestWriterWhileAPageStandsBy(t *testing.T) {
	for name, serve := range map[string]func(w http.ResponseWriter){
		"CloseNotify": func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "text/event-stream")
			w.(interface{ CloseNotify() <-chan bool }).CloseNotify()
			fmt.Fprint(w, "answer")
		},
		"Hijack": func(w http.ResponseWriter) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				http.Error(w, "no connection", 500)
				return
			}
			defer conn.Close()
			fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nanswer")
		},
		"hints": func(w http.ResponseWriter) {
			w.Header().Set("Cache-Control", "no-store")
			w.WriteHeader(103)
			fmt.Fprint(w, "answer")
		},
	} {
		good := true
		site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if good {
				fmt.Fprint(w, "page")
			} else {
				serve(w)
			}
		}), isr.Options{Origin: "https://example.com", Default: isr.Route{Failure: func(status int, h http.Header) bool { return status != 200 }}})
		server := httptest.NewServer(site)
		defer server.Close()
		for _, want := range []string{"page", "answer"} {
			res, err := http.Get(server.URL)
			if err != nil {
				t.Fatal(err)
			}
			if got := read(res); got != want {
				t.Errorf("%s: got %q, want %q", name, got, want)
			}
			res.Body.Close()
			good = false
			if err := site.Revalidate(t.Context(), "/"); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// A page that is not found any more does not come back, whether or not the 404 may be
// stored: not in an outage, nor after a restart, nor from a Store that did not take the
// 404.
func TestWhatIsNotFoundStaysAway(t *testing.T) {
	for name, test := range map[string]struct {
		route  isr.Route
		header string // Cache-Control of the 404
		fault  fault  // while it is made
	}{
		"NotFoundTTL":                 {isr.Route{TTL: time.Minute, NotFoundTTL: -1}, "", nil},
		"NoStore":                     {isr.Route{TTL: isr.NoStore}, "", nil},
		"no-store":                    {isr.Route{TTL: time.Minute}, "no-store", nil},
		"stored":                      {isr.Route{TTL: time.Minute}, "", nil},
		"too large for the Store":     {isr.Route{TTL: time.Minute}, "", only(func(context.Context, string) error { return store.ErrTooLarge }, "put")},
		"the Store is down":           {isr.Route{TTL: time.Minute}, "", down},
		"the Store is down, no-store": {isr.Route{TTL: time.Minute}, "no-store", down},
	} {
		for _, inStore := range []bool{false, true} {
			if test.fault != nil && !inStore {
				continue
			}
			t.Run(fmt.Sprint(name, ", with a Store: ", inStore), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					status := 200
					c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
						w.Header().Set("Cache-Control", "max-age=1800")
						if status != 200 {
							w.Header().Del("Cache-Control")
						}
						if status == 404 && test.header != "" {
							w.Header().Set("Cache-Control", test.header)
						}
						w.WriteHeader(status)
						fmt.Fprint(w, "post")
					}}
					st := &faultyStore{Store: memory.New()}
					in := fleet(t, nil, isr.Options{Origin: "http://example.com", Default: test.route})
					if inStore {
						in.store = st
					}
					site := in.start(c)
					get(site, "/")
					synctest.Wait()
					status = 404
					st.set(test.fault)
					site.Revalidate(t.Context(), "/")
					synctest.Wait()
					st.set(nil)
					time.Sleep(5 * time.Minute)
					status = 503
					if got := get(site, "/").StatusCode; got == 200 {
						t.Error("an outage shows the deleted post")
					}
					if !inStore {
						return
					}
					if got := get(in.start(c), "/").StatusCode; got == 200 {
						t.Error("an outage after a restart shows the deleted post")
					}
					status = 404
					if got := get(in.start(c), "/").StatusCode; got == 200 {
						t.Error("a restart shows the deleted post")
					}
				})
			})
		}
	}
}

// A page that stands by is shown where the handler fails, and never else: not when its
// pass mark is over, nor when it is invalidated, nor after failures of long ago.
func TestPageStandsByForFailuresAlone(t *testing.T) {
	for name, test := range map[string]struct {
		failed int // attempts before the handler answered no-store
		then   func(ctx context.Context, site *isr.Site) error
	}{
		"the mark is over":                 {},
		"the mark is over, after failures": {failed: 3},
		"RevalidateTag":                    {then: func(ctx context.Context, s *isr.Site) error { return s.RevalidateTag(ctx, "t") }},
		"RevalidateTag, after failures":    {1, func(ctx context.Context, s *isr.Site) error { return s.RevalidateTag(ctx, "t") }},
		"RevalidateTag, twice": {then: func(ctx context.Context, s *isr.Site) error {
			return errors.Join(s.RevalidateTag(ctx, "t"), s.RevalidateTag(ctx, "t"))
		}},
		"Revalidate of what is above": {then: func(ctx context.Context, s *isr.Site) error { return s.Revalidate(ctx, "/*") }},
		"ExpireTag":                   {then: func(ctx context.Context, s *isr.Site) error { return s.ExpireTag(ctx, "t") }},
		"an unsafe method":            {then: func(ctx context.Context, s *isr.Site) error { do(s, "POST", "/"); return nil }},
	} {
		for _, after := range []time.Duration{time.Second, 11 * time.Second, 3 * time.Hour} {
			if test.then == nil && after < 10*time.Second {
				continue
			}
			t.Run(fmt.Sprint(name, " after ", after), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					mode := ""
					c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
						switch mode {
						case "down":
							w.WriteHeader(503)
						case "no-store":
							w.Header().Set("Cache-Control", "no-store")
						}
						fmt.Fprint(w, "page ", n)
					}}
					site := isr.Wrap(c, isr.Options{Origin: "http://example.com", Default: isr.Route{TTL: 5 * time.Second, Tags: []string{"t"}}})
					get(site, "/")
					time.Sleep(5 * time.Second)
					mode = "down"
					for range test.failed {
						get(site, "/")
						synctest.Wait()
						time.Sleep(time.Minute)
					}
					mode = "no-store"
					get(site, "/") // the old one, and behind it the answer that sets it aside
					synctest.Wait()
					time.Sleep(after)
					if test.then != nil {
						if err := test.then(t.Context(), site); err != nil {
							t.Fatal(err)
						}
					}
					for range 3 {
						if res := get(site, "/"); read(res) == "page 1" {
							t.Errorf("the old page is shown, though the handler is well: %s", res.Header.Get("Cache-Status"))
						}
						synctest.Wait()
						time.Sleep(4 * time.Second)
					}
					mode = "down"
					if got := body(site, "/"); got != "page 1" {
						t.Errorf("in an outage: %q", got)
					}
				})
			})
		}
	}
}

// Failures before and after an answer that may not be stored are not failures in a row:
// there is no pause after the first of them.
func TestNoStoreEndsARowOfFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mode := ""
		c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			switch mode {
			case "down":
				w.WriteHeader(503)
			case "no-store":
				w.Header().Set("Cache-Control", "no-store")
			}
		}}
		site := isr.Wrap(c, isr.Options{Default: isr.Route{TTL: 5 * time.Second}})
		get(site, "/")
		time.Sleep(5 * time.Second)
		for range 3 {
			for i, want := range []int{1, 2} {
				mode = "down"
				before := c.calls.Load()
				get(site, "/")
				synctest.Wait()
				if p := pages(site)["/"]; p.Failures != want || c.calls.Load() != before+1 {
					t.Errorf("attempt %d: %d failures in a row, %d calls", i, p.Failures, c.calls.Load()-before)
				}
			}
			time.Sleep(2 * time.Second)
			mode = "no-store"
			get(site, "/")
			synctest.Wait()
			if p := pages(site)["/"]; p.Failures != 0 || p.Err != nil {
				t.Errorf("%d failures, %v, after an answer", p.Failures, p.Err)
			}
			time.Sleep(11 * time.Second)
		}
	})
}

// A page stands by, too, where the new one is refused only when it is complete.
func TestPageStandsByWhatIsRefusedAtTheEnd(t *testing.T) {
	for name, refused := range map[string]func(w http.ResponseWriter, r *http.Request){
		"an invalid isr.Tag": func(w http.ResponseWriter, r *http.Request) { isr.Tag(r.Context(), "/a"); io.WriteString(w, "new") },
		"NoStore, no lifetime": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Del("Cache-Control")
			io.WriteString(w, "new")
		},
		"larger than MaxBytes":    func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, strings.Repeat("new ", 4990)) },
		"much larger, in a burst": func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, strings.Repeat("new ", 9000)) },
	} {
		for _, inStore := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", with a Store: ", inStore), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					mode := "good"
					c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
						w.Header().Set("Cache-Control", "max-age=10")
						switch mode {
						case "good":
							io.WriteString(w, "good")
						case "down":
							w.WriteHeader(503)
						default:
							refused(w, r)
						}
					}}
					in := fleet(t, nil, isr.Options{MaxBytes: 20_000, Default: isr.Route{TTL: isr.NoStore}})
					if inStore {
						in.store = memory.New()
					}
					site := in.start(c)
					get(site, "/")
					time.Sleep(10 * time.Second)
					mode = "refused"
					get(site, "/")
					synctest.Wait()
					for range 3 {
						if got := body(site, "/"); !strings.HasPrefix(got, "new") {
							t.Errorf("visitors get %.20q", got)
						}
						time.Sleep(6 * time.Second)
					}
					mode = "down"
					if got := body(site, "/"); got != "good" {
						t.Errorf("in an outage %.20q", got)
					}
				})
			})
		}
	}
}
