package isr_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isr-go/isr"
)

// What each kind of invalidation does to a page, before the next visit and at it.
func TestInvalidation(t *testing.T) {
	type visit struct{ cache, body string }
	for name, test := range map[string]struct {
		route      isr.Route
		invalidate func(*isr.Site) error
		healthy    []visit // the visits after it
		failing    []visit // the same, where the handler fails from then on
	}{
		"Revalidate": {
			isr.Route{},
			func(s *isr.Site) error { return s.Revalidate(context.Background(), "/a") },
			[]visit{{"isr; hit", "page 2"}, {"isr; hit", "page 2"}},
			[]visit{{"isr; hit; ttl=0; detail=stale", "page 1"}, {"isr; hit; ttl=0; detail=stale", "page 1"}},
		},
		"Revalidate, no stale on errors": {
			isr.Route{StaleIfError: -1},
			func(s *isr.Site) error { return s.Revalidate(context.Background(), "/a") },
			[]visit{{"isr; hit", "page 2"}},
			[]visit{{"isr; fwd=stale; fwd-status=500", "error 3"}, {"isr; fwd=stale; fwd-status=500", "error 4"}},
		},
		"RevalidateTag": {
			isr.Route{},
			func(s *isr.Site) error { return s.RevalidateTag(context.Background(), "mine") },
			[]visit{{"isr; hit; ttl=0; detail=stale", "page 1"}, {"isr; hit", "page 2"}},
			[]visit{{"isr; hit; ttl=0; detail=stale", "page 1"}, {"isr; hit; ttl=0; detail=stale", "page 1"}},
		},
		"RevalidateTag, of the handler": {
			isr.Route{},
			func(s *isr.Site) error { return s.RevalidateTag(context.Background(), "nothing", "its") },
			[]visit{{"isr; hit; ttl=0; detail=stale", "page 1"}, {"isr; hit", "page 2"}},
			[]visit{{"isr; hit; ttl=0; detail=stale", "page 1"}},
		},
		"RevalidateTag, never stale": {
			isr.Route{StaleWhileRevalidate: -1},
			func(s *isr.Site) error { return s.RevalidateTag(context.Background(), "mine") },
			[]visit{{"isr; fwd=stale; stored", "page 2"}},
			[]visit{{"isr; fwd=stale; fwd-status=500; detail=stale-if-error", "page 1"}, {"isr; hit; ttl=0; detail=stale", "page 1"}},
		},
		"Purge": {
			isr.Route{},
			func(s *isr.Site) error { return s.Purge(context.Background(), "/a") },
			[]visit{{"isr; fwd=uri-miss; stored", "page 2"}},
			[]visit{{"isr; fwd=uri-miss; fwd-status=500", "error 2"}},
		},
		"PurgeTag": {
			isr.Route{},
			func(s *isr.Site) error { return s.PurgeTag(context.Background(), "mine") },
			[]visit{{"isr; fwd=uri-miss; stored", "page 2"}},
			[]visit{{"isr; fwd=uri-miss; fwd-status=500", "error 2"}},
		},
		"the strongest counts": {
			isr.Route{},
			func(s *isr.Site) error {
				s.PurgeTag(context.Background(), "mine")
				return s.RevalidateTag(context.Background(), "mine")
			},
			[]visit{{"isr; fwd=uri-miss; stored", "page 2"}},
			[]visit{{"isr; fwd=uri-miss; fwd-status=500", "error 2"}},
		},
		"other tags and paths": {
			isr.Route{},
			func(s *isr.Site) error {
				ctx := context.Background()
				return errors.Join(s.PurgeTag(ctx, "min", "mine2", "a"), s.Purge(ctx, "/a/", "/", "/A", "/a?x=y", "http://example.org/a"))
			},
			[]visit{{"isr; hit", "page 1"}},
			[]visit{{"isr; hit", "page 1"}},
		},
		"another spelling of the path": {
			isr.Route{},
			func(s *isr.Site) error { return s.Purge(context.Background(), "/%61") },
			[]visit{{"isr; fwd=uri-miss; stored", "page 2"}},
			[]visit{{"isr; fwd=uri-miss; fwd-status=500", "error 2"}},
		},
	} {
		for _, fails := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, failing %v", name, fails), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					down := false
					c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
						if down {
							w.WriteHeader(500)
							fmt.Fprint(w, "error ", n)
							return
						}
						w.Header().Set("Cache-Tag", "its, more")
						fmt.Fprint(w, "page ", n)
					}}
					test.route.Tags = []string{"mine"}
					site := isr.Wrap(c, isr.Options{Default: test.route})
					get(site, "/a")
					down = fails
					if err := test.invalidate(site); (err != nil) != (fails && strings.HasPrefix(name, "Revalidate,") || fails && name == "Revalidate") {
						t.Errorf("error %v", err)
					}
					want := test.healthy
					if fails {
						want = test.failing
					}
					for i, want := range want {
						res := get(site, "/a")
						synctest.Wait()
						if got := (visit{res.Header.Get("Cache-Status"), read(res)}); got != want {
							t.Errorf("visit %d: got %q, want %q", i, got, want)
						}
					}
				})
			})
		}
	}
}

// A visitor who asks after an invalidation gets a run that started after it, never one
// under way, and the result of that one is not stored as fresh.
func TestNoAnswerFromBeforeAnInvalidation(t *testing.T) {
	ctx := context.Background()
	for name, test := range map[string]struct {
		invalidate func(*isr.Site) error
		regenerate bool // whether it waits for a run of its own
	}{
		"Revalidate":             {func(s *isr.Site) error { return s.Revalidate(ctx, "/") }, true},
		"RevalidateTag":          {func(s *isr.Site) error { return s.RevalidateTag(ctx, "t") }, false},
		"Purge":                  {func(s *isr.Site) error { return s.Purge(ctx, "/") }, false},
		"PurgeTag":               {func(s *isr.Site) error { return s.PurgeTag(ctx, "t") }, false},
		"a tag of the handler's": {func(s *isr.Site) error { return s.PurgeTag(ctx, "found-on-the-way") }, false},
		"POST": {func(s *isr.Site) error {
			if got := do(s, "POST", "/").StatusCode; got != 204 {
				return fmt.Errorf("status %d", got)
			}
			return nil
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGated()
				site := isr.Wrap(g, isr.Options{Origin: "http://example.com", Default: isr.Route{Tags: []string{"t"}}})
				var before, after string
				var all sync.WaitGroup
				all.Go(func() { before = body(site, "/") })
				synctest.Wait()
				first := <-g.gates

				g.data.Store(100)
				if name == "POST" {
					g.data.Store(99)
				}
				if test.regenerate {
					all.Go(func() {
						if err := test.invalidate(site); err != nil {
							t.Error(err)
						}
					})
				} else if err := test.invalidate(site); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				all.Go(func() { after = body(site, "/") })
				synctest.Wait()
				if n := len(g.gates); n != 0 {
					t.Errorf("%d runs at once", n+1)
				}
				close(first)
				synctest.Wait()
				if before != "data 0" || after != "" {
					t.Errorf("a visitor before got %q, one after got %q too early", before, after)
				}
				close(<-g.gates)
				all.Wait()
				if before != "data 0" || after != "data 100" {
					t.Errorf("a visitor before got %q, one after %q", before, after)
				}
				synctest.Wait()
				if got := body(site, "/"); got != "data 100" {
					t.Errorf("the result of the old run stayed: %q", got)
				}
				if n := len(g.gates); n != 0 {
					t.Errorf("%d runs too many", n)
				}
			})
		})
	}
}

// A page that was invalidated during its generation is not stored as fresh.
func TestStaleOnArrival(t *testing.T) {
	for name, test := range map[string]struct {
		invalidate func(*isr.Site) error
		state      isr.State
		stored     int
	}{
		"tag":   {func(s *isr.Site) error { return s.RevalidateTag(t.Context(), "found-on-the-way") }, isr.Stale, 1},
		"POST":  {func(s *isr.Site) error { do(s, "POST", "/"); return nil }, isr.Expired, 1},
		"purge": {func(s *isr.Site) error { return s.Purge(t.Context(), "/") }, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGated()
				site := isr.Wrap(g, isr.Options{})
				var res *http.Response
				go func() { res = get(site, "/") }()
				synctest.Wait()
				if err := test.invalidate(site); err != nil {
					t.Fatal(err)
				}
				close(<-g.gates)
				synctest.Wait()
				if got := res.Header.Get("Cache-Control"); got != "public, max-age=0, must-revalidate" {
					t.Errorf("a visitor before got Cache-Control %q", got)
				}
				stored := pages(site)
				if site.Stats().Pages != test.stored || len(stored) != test.stored || test.stored > 0 && stored["/"].State != test.state {
					t.Errorf("%d pages stored, %v", len(stored), stored["/"].State)
				}
			})
		})
	}
}

// Failures extend no bound, and neither does a second invalidation.
func TestInvalidationExtendsNoBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		healthy := true
		c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			if !healthy {
				w.WriteHeader(500)
			}
		}}
		site := isr.Wrap(c, isr.Options{Default: isr.Route{
			Tags: []string{"t"}, StaleWhileRevalidate: 30 * time.Second, StaleIfError: time.Minute,
		}})
		get(site, "/")
		healthy = false
		for i := range 7 {
			if err := site.RevalidateTag(t.Context(), "t"); err != nil {
				t.Fatal(err)
			}
			want := 200
			if i == 6 {
				want = 500
			}
			if got := get(site, "/").StatusCode; got != want {
				t.Errorf("after %d s: %d, want %d", i*10, got, want)
			}
			synctest.Wait()
			time.Sleep(10 * time.Second)
		}
	})
}

// A gated handler reads its data, waits until it is let through, and answers with what
// it has read.
type gated struct {
	data  atomic.Int64
	gates chan chan bool // each run's, in order
}

func (g *gated) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		g.data.Add(1)
		w.WriteHeader(http.StatusNoContent)
		return
	}
	read := g.data.Load()
	gate := make(chan bool)
	g.gates <- gate
	<-gate
	w.Header().Set("Cache-Tag", "found-on-the-way")
	fmt.Fprint(w, "data ", read)
}

func newGated() *gated { return &gated{gates: make(chan chan bool, 100)} }
