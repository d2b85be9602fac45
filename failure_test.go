package isr_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/store/memory"
)

// recovers is a recovery middleware as it stands in many sites: inside.
func recovers(w http.ResponseWriter, f func()) {
	defer func() {
		if recover() != nil {
			http.Error(w, "Internal Server Error", 500)
		}
	}()
	f()
}

// brokenPages are answers that begin as a page and end as a failure.
var brokenPages = map[string]func(w http.ResponseWriter){
	"a template that breaks": func(w http.ResponseWriter) {
		io.WriteString(w, strings.Repeat("<p>half a page</p>", 100))
		http.Error(w, "template: no such field", 500)
	},
	"a recovery inside": func(w http.ResponseWriter) {
		recovers(w, func() {
			io.WriteString(w, "<p>half a page</p>")
			panic("nil pointer")
		})
	},
	"a header and nothing else": func(w http.ResponseWriter) {
		w.WriteHeader(200)
		w.WriteHeader(503)
	},
	"a flush": func(w http.ResponseWriter) {
		io.WriteString(w, "<p>half")
		w.(http.Flusher).Flush()
		w.WriteHeader(502)
	},
	"too many requests": func(w http.ResponseWriter) {
		io.WriteString(w, "<p>half")
		w.WriteHeader(429)
	},
}

// A failure that comes after the header is one: half a page replaces none.
func TestHalfAPage(t *testing.T) {
	for name, broken := range brokenPages {
		t.Run(name, func(t *testing.T) {
			breaks := false
			c := &cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
				if breaks {
					broken(w)
					return
				}
				w.Header().Set("ETag", `"good"`)
				io.WriteString(w, "a good page")
			}}
			site := isr.Wrap(c, isr.Options{Origin: "https://example.com"})
			get(site, "/")
			breaks = true
			if err := site.Revalidate(t.Context(), "/"); err == nil || !strings.Contains(err.Error(), "after it had begun to answer") {
				t.Errorf("Revalidate: %v", err)
			}
			if got := body(site, "/"); got != "a good page" {
				t.Errorf("visitors get %q", got)
			}
			if res := get(site, "/new"); res.StatusCode < 429 || strings.Contains(read(res), "half") || res.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("the first visitor of a page gets %d %v", res.StatusCode, res.Header)
			}
			if n := site.Stats().Pages; n != 1 {
				t.Errorf("%d pages stored", n)
			}
		})
	}
}

// What becomes of a stored page by what is answered when it is to be renewed.
func TestWhatTakesAPageAway(t *testing.T) {
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
		"400":           {status(400), standby}, "206": {status(206), standby},
		"too large": {func(w http.ResponseWriter) { io.WriteString(w, strings.Repeat("new", 1000)) }, standby},
		"private":   {header("Cache-Control", "private"), gone}, "no-store, private": {header("Cache-Control", "no-store, private"), gone},
		"Set-Cookie": {header("Set-Cookie", "a=b"), gone},
		"401":        {status(401), gone}, "402": {status(402), gone}, "403": {status(403), gone}, "451": {status(451), gone},
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
					c := &cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) { serve(w) }}
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
// request fails in whatever way, and is a page again when the handler says so.
func TestStandsBy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mode := ""
		c := &cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			switch mode {
			case "no-store":
				w.Header().Set("Cache-Control", "no-store")
			case "down":
				w.Header().Set("X-Debug", "stack")
				w.WriteHeader(503)
			case "says so without a word":
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
		for _, mode = range []string{"down", "panics", "says so without a word"} {
			res := get(site, "/")
			if got := read(res); got != "page 1" || res.StatusCode != 200 || res.Header.Get("X-Debug") != "" ||
				!strings.HasSuffix(res.Header.Get("Cache-Status"), "detail=stale-if-error") {
				t.Errorf("%s: %q %d %v", mode, got, res.StatusCode, res.Header)
			}
		}
		mode = "breaks"
		if recovered(func() { get(site, "/") }) != http.ErrAbortHandler {
			t.Error("what breaks off in the middle of an answer passes for all of it")
		}
		mode = "flushes"
		if got := body(site, "/"); got != "page 8" {
			t.Errorf("%q", got)
		}
		mode = "down"
		time.Sleep(10 * time.Second) // the mark has had its time
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

// While the last good page stands by, the handler finds what the visitor's writer can
// do, and hints are no failure.
func TestAbilitiesWhileAPageStandsBy(t *testing.T) {
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

// A Route.Failure that panics is as a handler that does: the last good page stays up,
// and the next visitor is not kept waiting.
func TestFailureThatPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := false
		site := isr.Wrap(new(cms), isr.Options{MaxGenerations: 1, MaxRegenerations: 1, Default: isr.Route{
			TTL: time.Second, StaleIfError: time.Minute,
			Failure: func(int, http.Header) bool {
				if broken {
					panic("nil map")
				}
				return false
			},
		}})
		get(site, "/")
		time.Sleep(time.Second)
		broken = true
		begin := time.Now()
		for range 2 {
			if got := body(site, "/"); got != "page 1" {
				t.Errorf("%q", got)
			}
			synctest.Wait()
		}
		if got := recovered(func() { get(site, "/other") }); got != "nil map" {
			t.Errorf("recovered %v", got)
		}
		broken = false
		if got := get(site, "/more").StatusCode; got != 200 || time.Since(begin) > 0 {
			t.Errorf("%d after %v", got, time.Since(begin))
		}
	})
}

// After the second failure in a row a page is left alone for a while: a second, twice
// that, and so on up to thirty.
func TestPauseBetweenAttempts(t *testing.T) {
	for name, test := range map[string]struct {
		retryAfter string
		want       []time.Duration // of the attempts, in ms since the page has turned stale
	}{
		"none":       {"", []time.Duration{0, 10, 1010, 3010, 7010, 15010, 31010, 61010, 91010}},
		"120":        {"120", []time.Duration{0, 10}},
		"3":          {"3", []time.Duration{0, 10, 3010, 6010, 10010, 18010, 34010, 64010, 94010}},
		"no number":  {"soon", []time.Duration{0, 10, 1010, 3010, 7010, 15010, 31010, 61010, 91010}},
		"no date":    {"Saturday, 01-Jan-00 00:00:40 PST", []time.Duration{0, 10, 1010, 3010, 7010, 15010, 31010, 61010, 91010}},
		"an instant": {"Sat, 01 Jan 2000 00:00:40 GMT", []time.Duration{0, 10, 30000, 32000, 36000, 44000, 60000, 90000}},
	} {
		t.Run("Retry-After "+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log strings.Builder
				healthy, begin := true, time.Time{}
				var attempts []time.Duration
				c := &cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
					if healthy {
						io.WriteString(w, "page")
						return
					}
					attempts = append(attempts, time.Since(begin)/time.Millisecond)
					if test.retryAfter != "" {
						w.Header().Set("Retry-After", test.retryAfter)
					}
					http.Error(w, "down", http.StatusServiceUnavailable)
				}}
				site := isr.Wrap(c, isr.Options{
					Default: isr.Route{TTL: 10 * time.Second},
					Logger:  slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelError})),
				})
				get(site, "/")
				time.Sleep(10 * time.Second)
				healthy, begin = false, time.Now()
				for time.Since(begin) < 95*time.Second {
					if res := get(site, "/"); res.StatusCode != 200 {
						t.Fatalf("%d after %v", res.StatusCode, time.Since(begin))
					}
					synctest.Wait()
					time.Sleep(10 * time.Millisecond)
				}
				if diff := cmp.Diff(test.want, attempts); diff != "" {
					t.Errorf("attempts (-want +got):\n%s", diff)
				}
				if n := strings.Count(log.String(), "\n"); n != len(attempts) {
					t.Errorf("%d lines in the log for %d attempts", n, len(attempts))
				}
			})
		})
	}
}

// What ends a pause, and what does not ask.
func TestPauseEnds(t *testing.T) {
	for name, test := range map[string]struct {
		route isr.Route
		then  func(ctx context.Context, site *isr.Site)
		want  int64 // runs
	}{
		"not by a visit": {isr.Route{}, func(context.Context, *isr.Site) {}, 0},
		"RevalidateTag":  {isr.Route{}, func(ctx context.Context, s *isr.Site) { s.RevalidateTag(ctx, "t") }, 1},
		"Revalidate":     {isr.Route{}, func(ctx context.Context, s *isr.Site) { s.Revalidate(ctx, "/") }, 1},
		"Prerender": {isr.Route{}, func(ctx context.Context, s *isr.Site) {
			for range s.Prerender(ctx, slices.Values([]string{"/"})) {
			}
		}, 1},
		"when nothing may be shown": {isr.Route{StaleWhileRevalidate: 100 * time.Second, StaleIfError: 100 * time.Second},
			func(context.Context, *isr.Site) { time.Sleep(101 * time.Second) }, 1},
		"after five minutes": {isr.Route{}, func(context.Context, *isr.Site) { time.Sleep(5*time.Minute + 1) }, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				healthy := true
				c := &cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
					if !healthy {
						w.Header().Set("Retry-After", "86400")
						w.WriteHeader(503)
					}
				}}
				test.route.TTL, test.route.Tags = 10*time.Second, []string{"t"}
				site := isr.Wrap(c, isr.Options{Origin: "http://example.com", Default: test.route})
				get(site, "/")
				healthy = false
				time.Sleep(10 * time.Second)
				for range 2 {
					get(site, "/")
					synctest.Wait()
				}
				before := c.calls.Load()
				test.then(t.Context(), site)
				get(site, "/")
				synctest.Wait()
				if got := c.calls.Load() - before; got != test.want {
					t.Errorf("%d attempts, want %d", got, test.want)
				}
			})
		})
	}
}

// With Patience a visitor who waits for a new page gets the old one after a while.
func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hangs := false
		c := &cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			if hangs {
				time.Sleep(20 * time.Second)
			}
			fmt.Fprint(w, "page ", n)
		}}
		site := isr.Wrap(c, isr.Options{Origin: "http://example.com", Default: isr.Route{TTL: time.Hour, Patience: 2 * time.Second}})
		get(site, "/")
		hangs = true
		go site.Revalidate(t.Context(), "/")
		synctest.Wait()
		begin := time.Now()
		res := get(site, "/")
		if got := read(res); got != "page 1" || time.Since(begin) != 2*time.Second {
			t.Errorf("got %q after %v", got, time.Since(begin))
		}
		if got := res.Header.Get("Cache-Status"); got != "isr; fwd=stale; detail=patience" {
			t.Errorf("Cache-Status %q", got)
		}
		if got := body(site, "/new"); got != "page 3" || time.Since(begin) != 22*time.Second {
			t.Errorf("without an old page: %q after %v", got, time.Since(begin))
		}
		if got := body(site, "/"); got != "page 2" {
			t.Errorf("the run has not gone on: %q", got)
		}
		site.Purge(t.Context(), "/")
		begin = time.Now()
		if got := body(site, "/"); got != "page 4" || time.Since(begin) != 20*time.Second {
			t.Errorf("after a purge: %q after %v", got, time.Since(begin))
		}
	})
}

// Prerender renews what the Store has and is stale, once, and ends.
func TestPrerenderOfStalePages(t *testing.T) {
	for how, age := range map[string]func(*isr.Site){
		"by its TTL": func(*isr.Site) { time.Sleep(time.Minute) },
		"by a tag":   func(s *isr.Site) { s.RevalidateTag(context.Background(), "t") },
		"expired":    func(s *isr.Site) { do(s, "POST", "/"); time.Sleep(time.Second) },
	} {
		t.Run(how, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				in := fleet(t, memory.New(), isr.Options{Origin: "http://example.com", Default: isr.Route{TTL: time.Minute, Tags: []string{"t"}}})
				c := cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {}}
				one := in.start(&c)
				get(one, "/")
				synctest.Wait()
				age(one)
				before := c.calls.Load()
				for _, site := range []*isr.Site{one, in.start(&c)} {
					for path, err := range site.Prerender(t.Context(), slices.Values([]string{"/"})) {
						if err != nil {
							t.Error(path, err)
						}
					}
					synctest.Wait()
				}
				if got := c.calls.Load() - before; got != 1 {
					t.Errorf("%d runs, want 1", got)
				}
			})
		})
	}
}

// Who asks for a page that the Store has, while an editor has it made anew, gets the
// stale one at once.
func TestStaleFromTheStoreWhileItIsRenewed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{Origin: "http://example.com", Default: isr.Route{TTL: time.Minute}})
		c := cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			if n > 1 {
				time.Sleep(10 * time.Second)
			}
			fmt.Fprint(w, "page ", n)
		}}
		get(in.start(&c), "/")
		time.Sleep(time.Minute)
		two := in.start(&c)
		go func() {
			for range two.Prerender(t.Context(), slices.Values([]string{"/"})) {
			}
		}()
		synctest.Wait()
		begin := time.Now()
		if got := body(two, "/"); got != "page 1" || time.Since(begin) != 0 {
			t.Errorf("%q after %v", got, time.Since(begin))
		}
		time.Sleep(10 * time.Second)
	})
}
