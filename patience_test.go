package isr_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/store/memory"
)

// A visitor who gets the old page while the run waits for a slot leaves the renewal behind,
// as background work: because of Patience, or because they have waited for Timeout, or were
// turned away.
func TestOldPageLeavesTheRenewalBehind(t *testing.T) {
	for name, test := range map[string]struct {
		route   isr.Route
		waiting int // how many others wait for a slot
		want    string
		after   time.Duration
	}{
		"Patience":    {isr.Route{Patience: time.Second}, 0, "isr; fwd=stale; detail=patience", time.Second},
		"Timeout":     {isr.Route{Timeout: 20 * time.Second}, 0, "isr; fwd=stale; detail=busy", 20 * time.Second},
		"turned away": {isr.Route{}, 16, "isr; fwd=stale; detail=busy", 0},
	} {
		for _, withStore := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", Store: ", withStore), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
						if r.URL.Path != "/" {
							time.Sleep(29 * time.Second)
						}
						fmt.Fprint(w, "page ", n)
					}}
					test.route.TTL, test.route.StaleWhileRevalidate = time.Minute, -1
					in := fleet(t, nil, isr.Options{MaxGenerations: 1, Default: test.route, Routes: map[string]isr.Route{"/slow/": {}}})
					if withStore {
						in.store = memory.New()
					}
					site := in.start(c)
					get(site, "/")
					time.Sleep(time.Minute)
					for i := range test.waiting + 1 {
						go get(site, fmt.Sprint("/slow/", i))
						synctest.Wait()
					}
					begin := time.Now()
					res := get(site, "/")
					if got := read(res); got != "page 1" || time.Since(begin) != test.after || res.Header.Get("Cache-Status") != test.want {
						t.Errorf("got %q after %v: %s, want %s", got, time.Since(begin), res.Header.Get("Cache-Status"), test.want)
					}
					synctest.Wait()
					if got := get(site, "/").Header.Get("Cache-Status"); got != "isr; hit; ttl=60" {
						t.Errorf("then %q: the page was not renewed", got)
					}
					time.Sleep(time.Hour)
				})
			})
		}
	}
}

// So does a request that gets an old value.
func TestOldValueLeavesTheRenewalBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { time.Sleep(25 * time.Second) }), isr.Options{MaxGenerations: 1})
		values := &isr.Data[int64]{Name: "value", TTL: time.Minute, StaleWhileRevalidate: -1, Timeout: 5 * time.Second}
		var n int64
		load := func() int64 {
			v, err := values.Load(site.Context(t.Context()), "a", func(context.Context) (int64, error) { n++; return n, nil })
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
		load()
		time.Sleep(time.Minute)
		go get(site, "/slow")
		synctest.Wait()
		if got := load(); got != 1 {
			t.Errorf("got value %d where there is no slot", got)
		}
		synctest.Wait()
		begin := time.Now()
		if got := load(); got != 2 || time.Since(begin) != 0 {
			t.Errorf("then value %d after %v, want the second at once", got, time.Since(begin))
		}
		time.Sleep(time.Minute)
	})
}

// A page that the Store returns when Patience is over is shown at once, if it may be shown
// on errors: to who waits for that run, and to who waits for the one behind it.
func TestPatienceShorterThanALook(t *testing.T) {
	for name, test := range map[string]struct {
		route  isr.Route
		behind bool
		want   string
		after  time.Duration
	}{
		"showable":        {isr.Route{}, false, "page 1", 50 * time.Millisecond},
		"not on errors":   {isr.Route{StaleIfError: -1}, false, "page 2", 20100 * time.Millisecond},
		"behind this run": {isr.Route{}, true, "page 1", 45 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hangs := false
				c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
					if hangs {
						time.Sleep(20 * time.Second)
					}
					fmt.Fprint(w, "page ", n)
				}}
				st := &faultyStore{Store: memory.New()}
				test.route.TTL, test.route.StaleWhileRevalidate, test.route.Patience = time.Minute, -1, 20*time.Millisecond
				in := fleet(t, st, isr.Options{Default: test.route})
				get(in.start(c), "/")
				time.Sleep(time.Minute)
				hangs = true
				site := in.start(c)
				st.set(only(slow(50*time.Millisecond), "look"))
				if test.behind {
					go get(site, "/")
					time.Sleep(5 * time.Millisecond)
					if err := site.Expire(t.Context(), "/"); err != nil {
						t.Fatal(err)
					}
				}
				begin := time.Now()
				if got := body(site, "/"); got != test.want || time.Since(begin) != test.after {
					t.Errorf("%q after %v, want %q after %v", got, time.Since(begin), test.want, test.after)
				}
				time.Sleep(time.Hour)
				synctest.Wait()
			})
		})
	}
}

// In Develop each visit gets the page that is made for it, whatever Patience and
// MaxGenerations are.
func TestDevelopShowsNoOldPage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			time.Sleep(2 * time.Second)
			fmt.Fprint(w, "page ", n)
		}}
		site := isr.Wrap(c, isr.Options{Mode: isr.Develop, MaxGenerations: 1, Default: isr.Route{Patience: time.Second, Timeout: 3 * time.Second}})
		for n := range 3 {
			if got, want := body(site, "/"), fmt.Sprint("page ", n+1); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
	})
}
