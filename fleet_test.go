package isr_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/store/memory"
)

// The whole fleet generates a page once, and all visitors who wait get it.
func TestFleetGeneratesOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{Default: isr.Route{TTL: time.Minute}})
		c := countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			time.Sleep(300 * time.Millisecond)
			fmt.Fprintf(w, "page %d", n)
		}}
		var sites []*isr.Site
		for range 5 {
			sites = append(sites, in.start(&c))
		}
		for round, want := range []string{"page 1", "page 1", "page 2"} {
			if round > 0 {
				time.Sleep(61 * time.Second)
			}
			for _, site := range sites {
				for range 20 {
					go func() {
						if got := body(site, "/"); got != want {
							t.Errorf("round %d: got %q, want %q", round, got, want)
						}
					}()
				}
			}
			time.Sleep(10 * time.Second) // the first run is waited for; later ones go on behind stale pages
			if got, want := c.calls.Load(), int64(round+1); got != want {
				t.Errorf("round %d: %d calls of the handler, want %d", round, got, want)
			}
		}
	})
}

// An invalidation on one instance reaches the memory of the others, whatever its kind.
func TestInvalidationsReachTheFleet(t *testing.T) {
	long := "/" + strings.Repeat("long/", 100)
	for name, test := range map[string]struct {
		path string
		do   func(*isr.Site) error
		want string // on the other instance, at once
		then string // and the time after
	}{
		"Revalidate":    {"/", func(s *isr.Site) error { return s.Revalidate(context.Background(), "/") }, "page 2", "page 2"},
		"RevalidateTag": {"/", func(s *isr.Site) error { return s.RevalidateTag(context.Background(), "all") }, "page 1", "page 2"},
		"Purge":         {"/", func(s *isr.Site) error { return s.Purge(context.Background(), "/") }, "page 2", "page 2"},
		"PurgeTag":      {"/", func(s *isr.Site) error { return s.PurgeTag(context.Background(), "all") }, "page 2", "page 2"},
		"of a query":    {"/?q=1", func(s *isr.Site) error { return s.Purge(context.Background(), "/?q=1") }, "page 2", "page 2"},
		"of another":    {"/?q=1", func(s *isr.Site) error { return s.Purge(context.Background(), "/?q=2", "/other") }, "page 1", "page 1"},
		"of a long one": {long, func(s *isr.Site) error { return s.Purge(context.Background(), long) }, "page 2", "page 2"},
		"of a whole URL": {"/", func(s *isr.Site) error {
			return s.Purge(context.Background(), "http://example.com/")
		}, "page 2", "page 2"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				in := fleet(t, memory.New(), isr.Options{Default: isr.Route{
					TTL: time.Minute, StaleWhileRevalidate: time.Minute, Tags: []string{"all"},
				}})
				var c countingHandler
				one, other := in.start(&c), in.start(&c)
				time.Sleep(10 * time.Second) // so that later changes are not from before its start
				if a, b := body(one, test.path), body(other, test.path); a != "page 1" || b != "page 1" {
					t.Fatalf("before: %q and %q", a, b)
				}
				if err := test.do(one); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				for i, want := range []string{test.want, test.then} {
					if got := body(other, test.path); got != want {
						t.Errorf("visit %d: got %q, want %q", i, got, want)
					}
					time.Sleep(time.Second)
				}
				body(one, test.path) // which may be shown stale once
				synctest.Wait()
				if a, b := body(one, test.path), body(other, test.path); a != b {
					t.Errorf("%q on one instance, %q on the other", a, b)
				}
			})
		})
	}
}

// A page that was generated across a purge is stale on arrival, in every instance.
func TestFleetStaleOnArrival(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{Default: isr.Route{Tags: []string{"all"}}})
		c := countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			if n == 1 {
				time.Sleep(10 * time.Second)
			}
			fmt.Fprintf(w, "page %d", n)
		}}
		one, other := in.start(&c), in.start(&c)
		first := make(chan string)
		go func() { first <- body(one, "/") }()
		time.Sleep(time.Second)
		if err := other.PurgeTag(t.Context(), "all"); err != nil {
			t.Fatal(err)
		}
		if got := body(other, "/"); got != "page 2" {
			t.Errorf("after the purge, elsewhere: %q", got)
		}
		synctest.Wait()
		if got := body(one, "/"); got != "page 2" {
			t.Errorf("after the purge, where it was being generated: %q", got)
		}
		<-first
		synctest.Wait()
		for _, site := range []*isr.Site{one, other, in.start(&c)} {
			if got := body(site, "/"); got != "page 2" {
				t.Errorf("when all is over: %q", got)
			}
		}
	})
}

// A visitor who comes after a purge gets a page that was made after it, from the run
// that waits behind the one that began before it, although that one holds the lease.
func TestPurgeWhileLeading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{})
		c := countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			if n == 1 {
				time.Sleep(10 * time.Second)
			}
			fmt.Fprintf(w, "page %d", n)
		}}
		site := in.start(&c)
		go body(site, "/")
		synctest.Wait()
		site.Purge(t.Context(), "/")
		begin := time.Now()
		if got := body(site, "/"); got != "page 2" || time.Since(begin) < 10*time.Second {
			t.Errorf("got %q after %v", got, time.Since(begin))
		}
		synctest.Wait()
		for _, site := range []*isr.Site{site, in.start(&c)} {
			if got := body(site, "/"); got != "page 2" {
				t.Errorf("when the first has come to its end: %q", got)
			}
		}
	})
}

// A visitor waits for another instance for two seconds at most, and not at all for a
// page that may be shown stale.
func TestLeaderThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{Default: isr.Route{TTL: 20 * time.Second, Timeout: time.Minute}})
		release := make(chan struct{})
		stuck := countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) { <-release }}
		var c countingHandler
		one, other := in.start(&stuck), in.start(&c)
		go body(one, "/")
		synctest.Wait()
		begin := time.Now()
		if got := body(other, "/"); got != "page 1" {
			t.Errorf("got %q", got)
		}
		if waited := time.Since(begin); waited < time.Second || waited > 2200*time.Millisecond {
			t.Errorf("the visitor waited for %v", waited)
		}
		time.Sleep(21 * time.Second) // by now one's lease is over
		for _, want := range []string{"page 1", "page 2"} {
			begin = time.Now()
			if got := body(other, "/"); got != want || time.Since(begin) > 0 {
				t.Errorf("a stale page: %q after %v, want %q at once", got, time.Since(begin), want)
			}
			synctest.Wait()
		}
		close(release)
	})
}

// A run that fails gives its lease back to the next.
func TestFailureGivesTheLeaseBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{})
		failing := countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			switch n {
			case 1:
				w.WriteHeader(http.StatusInternalServerError)
			case 2:
				panic(http.ErrAbortHandler)
			case 3:
				w.Header().Set("Set-Cookie", "a=b") // a hit-for-pass
			default:
				w.Write(make([]byte, 5<<20)) // a stream
			}
		}}
		var c countingHandler
		one := in.start(&failing)
		for i := range 4 {
			target := fmt.Sprintf("/%d", i)
			recovered(func() { get(one, target) })
			synctest.Wait()
			begin := time.Now()
			if got, want := body(in.start(&c), target), fmt.Sprintf("page %d", i+1); got != want || time.Since(begin) > 0 {
				t.Errorf("%d: got %.20q after %v, want %q at once", i, got, time.Since(begin), want)
			}
		}
	})
}

// A visitor who waits for the renewal of another instance gets it when it is finished,
// time and again; the others ask the Store only now and then.
func TestRenewalOfAnotherInstance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &faultyStore{Store: memory.New()}
		in := fleet(t, st, isr.Options{MaxRegenerations: 1, Default: isr.Route{TTL: time.Minute}})
		c := countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			if n > 1 {
				time.Sleep(time.Second)
			}
			io.WriteString(w, "page")
		}}
		one, two := in.start(&c), in.start(&c)
		get(one, "/")
		get(two, "/")
		for round := range 3 {
			time.Sleep(time.Minute)
			get(one, "/")
			synctest.Wait()
			get(two, "/")
			time.Sleep(1500 * time.Millisecond)
			if got := get(two, "/").Header.Get("Cache-Status"); got != "isr; hit; ttl=60" && got != "isr; hit; ttl=59" {
				t.Errorf("round %d: %q", round, got)
			}
		}
	})
}

// Two sites that share a Store, and have no host in their keys, share no page.
func TestOriginsSharingAStoreAreApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{Origin: "https://one.example"})
		var c countingHandler
		body(in.start(&c), "/")
		for i, origin := range []string{"https://two.example", "http://one.example"} {
			in.opts.Origin = origin
			if got, want := body(in.start(&c), "/"), fmt.Sprintf("page %d", i+2); got != want {
				t.Errorf("%s: got %q, want %q", origin, got, want)
			}
		}
	})
}

// The Host that a visitor sends to a site without an Origin names no page of the site
// with that Origin.
func TestHostOfAVisitorIsNoOrigin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{Version: "1"})
		named := func(name string) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, name) })
		}
		open := in.start(named("open"))
		in.opts.Origin = "http://example.com"
		fixed := in.start(named("fixed"))
		for _, site := range []*isr.Site{open, fixed, open} { // in both directions
			want := map[*isr.Site]string{open: "open", fixed: "fixed"}[site]
			if got := body(site, "/"); got != want {
				t.Errorf("got the page of %q, want that of %q", got, want)
			}
			synctest.Wait()
		}
	})
}

// When a page becomes private, it is removed at once, in every instance.
func TestFleetForgetsWhatBecomesPrivate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{Default: isr.Route{TTL: time.Minute}})
		c := countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			if n > 1 {
				w.Header().Set("Cache-Control", "private")
			}
			fmt.Fprintf(w, "page %d", n)
		}}
		one, other := in.start(&c), in.start(&c)
		body(one, "/")
		time.Sleep(30 * time.Second)
		if got := body(other, "/"); got != "page 1" {
			t.Fatalf("got %q", got)
		}
		one.Revalidate(t.Context(), "/")
		synctest.Wait()
		for _, site := range []*isr.Site{one, other, in.start(&c)} {
			if got := body(site, "/"); got == "page 1" {
				t.Error("a page that has become private is still shown")
			}
		}
	})
}

// A hit-for-pass ends when the page is changed, on every instance.
func TestChangeEndsHitForPassInTheFleet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{})
		var public atomic.Bool
		h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !public.Load() {
				w.Header().Set("Cache-Control", "private")
			}
		})
		one, two := in.start(h), in.start(h)
		get(two, "/")
		public.Store(true)
		if got := get(two, "/").Header.Get("Cache-Status"); got != "isr; fwd=bypass; detail=uncacheable" {
			t.Errorf("before: %q", got)
		}
		do(one, "POST", "/")
		synctest.Wait()
		if got := get(two, "/").Header.Get("Cache-Status"); got != "isr; fwd=uri-miss; stored" {
			t.Errorf("after: %q", got)
		}
	})
}
