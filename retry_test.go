package isr_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isr-go/isr"
)

// From the second failure in a row on there is a pause before the next attempt: a
// second, doubling to thirty.
func TestPauseBetweenAttempts(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		retryAfter string
		want       []time.Duration // of the attempts, in ms since the page has turned stale
	}{
		"none":              {"", []time.Duration{0, 10, 1010, 3010, 7010, 15010, 31010, 61010, 91010}},
		"120":               {"120", []time.Duration{0, 10}},
		"3":                 {"3", []time.Duration{0, 10, 3010, 6010, 10010, 18010, 34010, 64010, 94010}},
		"no number or date": {"soon", []time.Duration{0, 10, 1010, 3010, 7010, 15010, 31010, 61010, 91010}},
		"a malformed date":  {"Saturday, 01-Jan-00 00:00:40 PST", []time.Duration{0, 10, 1010, 3010, 7010, 15010, 31010, 61010, 91010}},
		"a date":            {"Sat, 01 Jan 2000 00:00:40 GMT", []time.Duration{0, 10, 30000, 32000, 36000, 44000, 60000, 90000}},
	} {
		t.Run("Retry-After "+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log strings.Builder
				healthy, begin := true, time.Time{}
				var attempts []time.Duration
				c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
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

// An invalidation ends the pause; Prerender, Revalidate and Renew ignore it; a visit does
// neither.
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
		"Renew": {isr.Route{}, func(ctx context.Context, s *isr.Site) {
			for range s.Renew(ctx, "t") {
			}
		}, 1},
		"when nothing may be shown": {isr.Route{StaleWhileRevalidate: 100 * time.Second, StaleIfError: 100 * time.Second},
			func(context.Context, *isr.Site) { time.Sleep(101 * time.Second) }, 1},
		"after five minutes": {isr.Route{}, func(context.Context, *isr.Site) { time.Sleep(5*time.Minute + 1) }, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				healthy := true
				c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
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

// With Patience a visitor who waits for a new page gets the old one after that long.
func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hangs := false
		c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
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
			t.Errorf("the run did not go on: %q", got)
		}
		site.Purge(t.Context(), "/")
		begin = time.Now()
		if got := body(site, "/"); got != "page 4" || time.Since(begin) != 20*time.Second {
			t.Errorf("after a purge: %q after %v", got, time.Since(begin))
		}
	})
}

// A failure from before a change says nothing of what comes after it: the author of the
// change does not get the old page.
func TestFailureBeforeAChangeDoesNotCount(t *testing.T) {
	for name, early := range map[string]bool{"failed before": true, "began before": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fails := false
				c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
					if fails && r.Method == http.MethodGet {
						time.Sleep(time.Second)
						w.WriteHeader(500)
					}
					fmt.Fprint(w, "page ", n)
				}}
				site := isr.Wrap(c, isr.Options{Default: isr.Route{TTL: time.Second}})
				get(site, "/")
				fails = true
				time.Sleep(time.Second)
				get(site, "/")
				synctest.Wait()
				if early {
					time.Sleep(time.Second)
				}
				fails = false
				do(site, "POST", "/")
				if !early {
					time.Sleep(time.Second)
				}
				synctest.Wait()
				if got := body(site, "/"); got != "page 4" {
					t.Errorf("the author got %q", got)
				}
			})
		})
	}
}
