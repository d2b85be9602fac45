package isr_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isr-go/isr"
)

// The handler's Cache-Control overrides the route's durations, in every form that RFC
// 9111 allows.
func TestCacheControlOfTheHandler(t *testing.T) {
	for _, test := range []struct {
		lines []string
		// How long the page is fresh (negative: not stored), may be shown stale,
		// and may be shown where the handler fails; -1 for not at all.
		ttl, stale, onError time.Duration
	}{
		{nil, 10, 20, 40},
		{[]string{"public"}, 10, 20, 40},
		{[]string{"max-age=5"}, 5, 20, 40},
		{[]string{"MAX-AGE=5"}, 5, 20, 40},
		{[]string{`max-age="5"`}, 5, 20, 40},
		{[]string{"max-age = 5 , public"}, 5, 20, 40},
		{[]string{"max-age=5, max-age=6"}, 5, 20, 40},
		{[]string{"max-age=5", "s-maxage=7"}, 7, 20, 40},
		{[]string{"s-maxage=7, max-age=5"}, 7, 20, 40},
		{[]string{"max-age=99999999999"}, 1<<31 - 1, 20, 40},
		{[]string{"max-age=99999999999999999999999"}, 1<<31 - 1, 20, 40},
		{[]string{"max-age=0"}, 0, 20, 40},
		{[]string{"max-age=-1"}, 0, 20, 40},
		{[]string{"max-age=soon"}, 0, 20, 40},
		{[]string{"max-age=1.5"}, 0, 20, 40},
		{[]string{"max-age"}, 0, 20, 40},
		{[]string{"max-age=5, stale-while-revalidate=3"}, 5, 3, 40},
		{[]string{"max-age=5, stale-while-revalidate=0"}, 5, -1, 40},
		{[]string{"stale-while-revalidate=3, stale-if-error=7"}, 10, 3, 7},
		{[]string{"max-age=5, stale-if-error=0, stale-while-revalidate=0"}, 5, -1, -1},
		{[]string{"must-revalidate"}, 10, -1, -1},
		{[]string{"max-age=5, proxy-revalidate, stale-while-revalidate=3"}, 5, -1, -1},
		{[]string{`extension="max-age=1, no-store", max-age=5`}, 5, 20, 40},
		{[]string{`extension="a \" b, no-store", max-age=5`}, 5, 20, 40},
		{[]string{`max-age=5, extension="not closed, no-store`}, -1, 0, 0}, // rather not stored than stored by mistake
		{[]string{",, ,max-age=5,"}, 5, 20, 40},
		{[]string{"max-age=5,private"}, -1, 0, 0},
		{[]string{"max-age=5", "No-Store"}, -1, 0, 0},
		{[]string{`no-cache="Set-Cookie", max-age=5`}, -1, 0, 0},
	} {
		t.Run(strings.Join(test.lines, " | "), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				healthy := true
				c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
					if !healthy {
						w.WriteHeader(500)
						return
					}
					for _, line := range test.lines {
						w.Header().Add("Cache-Control", line)
					}
					io.WriteString(w, "page")
				}}
				site := isr.Wrap(c, isr.Options{Default: isr.Route{
					TTL: 10 * time.Second, StaleWhileRevalidate: 20 * time.Second, StaleIfError: 40 * time.Second,
				}})
				res := get(site, "/")
				if test.lines != nil {
					if got, want := res.Header.Values("Cache-Control"), strings.Join(test.lines, ", "); test.ttl >= 0 && (len(got) != 1 || got[0] != want) {
						t.Errorf("Cache-Control %q, want the handler's, %q", got, want)
					}
				}
				state := func() isr.State {
					p, ok := pages(site)["/"]
					if !ok {
						t.Fatal("no page")
					}
					return p.State
				}
				if test.ttl < 0 {
					if got := state(); got != isr.Uncacheable {
						t.Errorf("%v, want it not stored", got)
					}
					return
				}
				if got, want := max(0, pages(site)["/"].TTL), test.ttl*time.Second; got != want {
					t.Errorf("TTL %v, want %v", got, want)
				}
				if test.ttl > 0 {
					time.Sleep(test.ttl*time.Second - 1)
					if got := state(); got != isr.Fresh {
						t.Errorf("%v at the end of the TTL", got)
					}
					time.Sleep(time.Nanosecond)
				}
				healthy = false
				visit := func() int {
					res := get(site, "/")
					synctest.Wait()
					return res.StatusCode
				}
				if test.stale > 0 {
					if got := state(); got != isr.Stale {
						t.Errorf("%v after the TTL", got)
					}
					time.Sleep(test.stale*time.Second - 1)
					if got := state(); got != isr.Stale {
						t.Errorf("%v at the end of being stale", got)
					}
					time.Sleep(time.Nanosecond)
				}
				if got := state(); got != isr.Expired {
					t.Errorf("%v when it may no longer be stale", got)
				}
				if test.onError > 0 {
					time.Sleep((test.onError-max(0, test.stale))*time.Second - 1)
					if got := visit(); got != 200 {
						t.Errorf("%d while it may be shown on errors", got)
					}
					time.Sleep(time.Nanosecond)
				}
				if got := visit(); got != 500 {
					t.Errorf("%d when it may no longer be shown at all", got)
				}
			})
		})
	}
}

// What goes out is the handler's Cache-Control, else the route's, else a derived one.
func TestCacheControlSent(t *testing.T) {
	for _, test := range []struct {
		route   isr.Route
		shared  time.Duration // SharedMaxAge
		handler string
		want    string
	}{
		{isr.Route{}, 0, "", "public, max-age=0, s-maxage=60"},
		{isr.Route{}, time.Hour, "", "public, max-age=0, s-maxage=3600"},
		{isr.Route{}, 20 * 365 * 24 * time.Hour, "", "public, max-age=0, s-maxage=31536000"},
		{isr.Route{}, -1, "", "public, max-age=0"},
		{isr.Route{TTL: 10 * time.Second}, 0, "", "public, max-age=0, s-maxage=10"},
		{isr.Route{TTL: time.Hour}, 0, "", "public, max-age=0, s-maxage=60"},
		{isr.Route{TTL: time.Hour}, 2 * time.Hour, "", "public, max-age=0, s-maxage=3600"},
		{isr.Route{TTL: time.Hour}, -1, "", "public, max-age=0"},
		{isr.Route{TTL: 1500 * time.Millisecond}, 0, "", "public, max-age=0, s-maxage=1"},
		{isr.Route{StaleWhileRevalidate: time.Hour}, 0, "", "public, max-age=0, s-maxage=60"}, // Chromium and shared caches would obey it after a purge
		{isr.Route{TTL: time.Minute, CacheControl: "public, max-age=5"}, 0, "", "public, max-age=5"},
		{isr.Route{TTL: time.Minute, CacheControl: "no-store"}, -1, "", "no-store"},
		{isr.Route{TTL: time.Minute, CacheControl: "public, max-age=5"}, 0, "s-maxage=7, max-age=3", "s-maxage=7, max-age=3"},
		{isr.Route{}, 0, "max-age=3600, s-maxage=7200", "max-age=3600, s-maxage=7200"}, // the handler's promise stays
		{isr.Route{}, 0, "s-maxage=7", "s-maxage=7, max-age=0"},                        // or browsers would guess (RFC 9111, section 4.2.2)
		{isr.Route{}, 0, `S-MaxAge="7"`, `S-MaxAge="7", max-age=0`},
		{isr.Route{}, 0, "public", "public"},
		// public would let others share what answers an Authorization (RFC 9111, section 3.5).
		{isr.Route{TTL: time.Minute, Vary: []string{"Authorization"}}, 0, "", "private, max-age=0"},
	} {
		c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			if test.handler != "" {
				w.Header().Set("Cache-Control", test.handler)
			}
			io.WriteString(w, "page")
		}}
		site := isr.Wrap(c, isr.Options{Default: test.route, SharedMaxAge: test.shared})
		for range 2 {
			if got := get(site, "/").Header["Cache-Control"]; len(got) != 1 || got[0] != test.want {
				t.Errorf("%+v, %q: got %q, want %q", test.route, test.handler, got, test.want)
			}
		}
		if got := c.calls.Load(); got != 1 {
			t.Errorf("%+v, %q: not stored", test.route, test.handler)
		}
	}
}

// A page that is shown although it was invalidated must not be stored downstream,
// however long its TTL still is.
func TestCacheControlOfInvalidated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			w.Header().Set("Cache-Control", "public, max-age=600")
			if n > 1 {
				time.Sleep(time.Second)
			}
			fmt.Fprint(w, "page ", n)
		}}
		site := isr.Wrap(c, isr.Options{Default: isr.Route{Tags: []string{"t"}}})
		get(site, "/")
		time.Sleep(5 * time.Second)
		if err := site.RevalidateTag(t.Context(), "t"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		res := get(site, "/")
		got := [...]string{res.Header.Get("Cache-Control"), res.Header.Get("Cache-Status"), res.Header.Get("Age"), read(res)}
		want := [...]string{"public, max-age=0, must-revalidate", "isr; hit; ttl=-2; detail=stale", "2", "page 1"}
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if got := get(site, "/").Header.Get("Cache-Control"); got != "public, max-age=600" {
			t.Errorf("Cache-Control %q of the new page", got)
		}
	})
}

// Invalidating a page does not widen who may share or store it.
func TestInvalidationWidensNoSharing(t *testing.T) {
	for _, test := range []struct {
		route isr.Route
		want  string
	}{
		{isr.Route{}, "public, max-age=0, must-revalidate"},
		{isr.Route{Vary: []string{"Authorization"}}, "private, max-age=0, must-revalidate"},
		{isr.Route{CacheControl: "max-age=60, Private"}, "private, max-age=0, must-revalidate"},
		{isr.Route{CacheControl: "no-store"}, "no-store"},
	} {
		synctest.Test(t, func(t *testing.T) {
			test.route.Tags = []string{"t"}
			site := isr.Wrap(new(countingHandler), isr.Options{Default: test.route})
			get(site, "/")
			if err := site.RevalidateTag(t.Context(), "t"); err != nil {
				t.Fatal(err)
			}
			if got := get(site, "/").Header["Cache-Control"]; !cmp.Equal(got, []string{test.want}) {
				t.Errorf("%+v: Cache-Control %q, want %q", test.route, got, test.want)
			}
		})
	}
}

// targeted is a header with the fields that some caches obey instead of Cache-Control.
func targeted(h http.Header) {
	for _, name := range []string{"CDN-Cache-Control", "Cloudflare-CDN-Cache-Control", "Surrogate-Control", "cdn-cache-control"} {
		h[name] = []string{"max-age=3600"}
	}
	h.Set("X-Accel-Expires", "3600") // nginx
	h.Set("X-Cdn", "kept")
}

// hasTargeted returns which of those fields h has.
func hasTargeted(h http.Header) (names []string) {
	for name := range h {
		if lower := strings.ToLower(name); strings.HasSuffix(lower, "cdn-cache-control") || lower == "surrogate-control" || lower == "x-accel-expires" {
			names = append(names, name)
		}
	}
	return names
}

// Where isr overrides the handler's Cache-Control, the targeted fields that some caches
// obey instead are removed, too; elsewhere they stay (RFC 9213).
func TestTargetedFields(t *testing.T) {
	get := func(site http.Handler, header ...string) *http.Response { return do(site, "GET", "/", header...) }
	for name, test := range map[string]struct {
		route isr.Route
		outer func(h http.Header)
		serve func(w http.ResponseWriter, r *http.Request)
		visit func(t *testing.T, site *isr.Site, h http.Handler) *http.Response
		kept  bool
	}{
		"a fresh page": {visit: func(t *testing.T, site *isr.Site, h http.Handler) *http.Response { return get(h) }, kept: true},
		"a page with a TTL from inside": {
			serve: func(w http.ResponseWriter, r *http.Request) { isr.TTL(r.Context(), time.Minute); targeted(w.Header()) },
			visit: func(t *testing.T, site *isr.Site, h http.Handler) *http.Response { return get(h) },
		},
		"one that is longer": {
			route: isr.Route{TTL: time.Second},
			serve: func(w http.ResponseWriter, r *http.Request) { isr.TTL(r.Context(), time.Minute); targeted(w.Header()) },
			visit: func(t *testing.T, site *isr.Site, h http.Handler) *http.Response { return get(h) },
		},
		"one beside a Cache-Control that is shorter": {
			serve: func(w http.ResponseWriter, r *http.Request) {
				isr.TTL(r.Context(), time.Minute)
				w.Header().Set("Cache-Control", "max-age=5")
				targeted(w.Header())
			},
			visit: func(t *testing.T, site *isr.Site, h http.Handler) *http.Response { return get(h) },
		},
		"one that a 304 renews": {
			serve: func(w http.ResponseWriter, r *http.Request) {
				targeted(w.Header())
				w.Header().Set("Etag", `"1"`)
				if r.Header.Get("If-None-Match") != "" {
					w.WriteHeader(304)
					return
				}
				isr.TTL(r.Context(), time.Minute)
			},
			visit: func(t *testing.T, site *isr.Site, h http.Handler) *http.Response {
				get(h)
				time.Sleep(time.Minute)
				get(h)
				synctest.Wait()
				return get(h)
			},
		},
		"a page with an Expires beyond MaxTTL": {
			route: isr.Route{MaxTTL: time.Minute},
			serve: func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Expires", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat))
				targeted(w.Header())
			},
			visit: func(t *testing.T, site *isr.Site, h http.Handler) *http.Response {
				res := get(h)
				if e := res.Header.Get("Expires"); e != "" {
					t.Errorf("Expires: %s", e)
				}
				return res
			},
		},
		"a page with nothing beside them beyond MaxTTL": {
			route: isr.Route{MaxTTL: time.Minute},
			visit: func(t *testing.T, site *isr.Site, h http.Handler) *http.Response { return get(h) },
		},
		"a page within MaxTTL": {
			route: isr.Route{MaxTTL: time.Hour},
			visit: func(t *testing.T, site *isr.Site, h http.Handler) *http.Response { return get(h) }, kept: true,
		},
		"fields that let nobody keep it": {
			serve: func(w http.ResponseWriter, r *http.Request) {
				isr.Until(r.Context(), time.Now().Add(time.Minute))
				w.Header().Set("CDN-Cache-Control", "no-store")
			},
			visit: func(t *testing.T, site *isr.Site, h http.Handler) *http.Response { return get(h) }, kept: true,
		},
		"an invalidated page": {
			route: isr.Route{Tags: []string{"t"}},
			visit: func(t *testing.T, site *isr.Site, h http.Handler) *http.Response {
				get(h)
				if err := site.RevalidateTag(t.Context(), "t"); err != nil {
					t.Fatal(err)
				}
				return get(h)
			},
		},
		"its 304": {
			route: isr.Route{Tags: []string{"t"}},
			visit: func(t *testing.T, site *isr.Site, h http.Handler) *http.Response {
				etag := get(h).Header.Get("Etag")
				if err := site.RevalidateTag(t.Context(), "t"); err != nil {
					t.Fatal(err)
				}
				return get(h, "If-None-Match", etag)
			},
		},
		"beside a cookie of outer middleware": {
			outer: func(h http.Header) { h.Set("Set-Cookie", "session=1") },
			visit: func(t *testing.T, site *isr.Site, h http.Handler) *http.Response { get(h); return get(h) },
		},
		"beside a private of outer middleware": {
			outer: func(h http.Header) { h.Set("Cache-Control", "private") },
			visit: func(t *testing.T, site *isr.Site, h http.Handler) *http.Response { get(h); return get(h) },
		},
		"outer middleware's own, beside its cookie": {
			outer: func(h http.Header) { h.Set("Set-Cookie", "session=1"); targeted(h) },
			serve: func(w http.ResponseWriter, r *http.Request) {},
			visit: func(t *testing.T, site *isr.Site, h http.Handler) *http.Response { return get(h) },
		},
		"a failure": {
			serve: func(w http.ResponseWriter, r *http.Request) { targeted(w.Header()); w.WriteHeader(500) },
			visit: func(t *testing.T, site *isr.Site, h http.Handler) *http.Response { return get(h) },
		},
		"a placeholder": {
			route: isr.Route{Placeholder: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { targeted(w.Header()) })},
			visit: func(t *testing.T, site *isr.Site, h http.Handler) *http.Response { return get(h) },
		},
		"what was not prerendered": {
			route: isr.Route{PrerenderedOnly: true},
			outer: targeted,
			visit: func(t *testing.T, site *isr.Site, h http.Handler) *http.Response { return get(h) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if test.serve == nil {
					test.serve = func(w http.ResponseWriter, r *http.Request) { targeted(w.Header()); io.WriteString(w, "page") }
				}
				site := isr.Wrap(http.HandlerFunc(test.serve), isr.Options{Default: test.route})
				res := test.visit(t, site, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if test.outer != nil {
						test.outer(w.Header())
					}
					site.ServeHTTP(w, r)
				}))
				synctest.Wait()
				if got := hasTargeted(res.Header); (len(got) > 0) != test.kept {
					t.Errorf("%s goes out with %q, beside Cache-Control %q", res.Status, got, res.Header.Get("Cache-Control"))
				}
			})
		})
	}
}
