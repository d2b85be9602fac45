package isr_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/store/memory"
)

// Shutdown waits for the runs under way, and drops those in the queue; afterwards the
// Site serves what is stored, and generates nothing.
func TestShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			time.Sleep(10 * time.Second)
			fmt.Fprint(w, "page ", n)
		}}
		site := isr.Wrap(c, isr.Options{
			MaxRegenerations: 1, Origin: "http://example.com", Default: isr.Route{TTL: time.Second},
			Routes: map[string]isr.Route{"/expired": {TTL: time.Second, StaleWhileRevalidate: -1}},
		})
		get(site, "/expired")
		get(site, "/a")
		get(site, "/b")
		time.Sleep(time.Second)
		get(site, "/a") // under way
		get(site, "/b") // in the queue
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := site.Shutdown(ctx); err != context.DeadlineExceeded {
			t.Errorf("Shutdown returned %v before the generation had ended", err)
		}
		if err := site.Shutdown(t.Context()); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if got := c.calls.Load(); got != 4 {
			t.Errorf("%d runs, want 4, none of the queue", got)
		}
		time.Sleep(time.Second)
		for _, test := range [][2]string{
			{"/a", "isr; hit; ttl=0; detail=stale"},
			{"/expired", "isr; hit; ttl=-31; detail=stale"},
			{"/c", "isr; fwd=bypass"},
		} {
			if got := get(site, test[0]).Header.Get("Cache-Status"); got != test[1] {
				t.Errorf("%s: Cache-Status %q, want %q", test[0], got, test[1])
			}
		}
		if err := site.Revalidate(t.Context(), "/a"); err == nil || !strings.Contains(err.Error(), "shut down") {
			t.Errorf("Revalidate: %v", err)
		}
		if err := site.Shutdown(t.Context()); err != nil {
			t.Errorf("second Shutdown: %v", err)
		}
	})
}

// Visitors in the queue when the Site is shut down have their own requests served.
func TestShutdownWithAQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &slowHandler{takes: time.Second}
		site := isr.Wrap(c, isr.Options{MaxGenerations: 1})
		var all sync.WaitGroup
		for i := range 5 {
			all.Go(func() {
				if got := body(site, fmt.Sprint("/", i)); got != "page" {
					t.Errorf("got %q", got)
				}
			})
		}
		synctest.Wait()
		begin := time.Now()
		if err := site.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		all.Wait()
		if took := time.Since(begin); took != time.Second {
			t.Errorf("took %v", took)
		}
	})
}

// After Shutdown visitors' own requests are answered; what the handler says of the page
// does not apply to those answers.
func TestPassesAfterShutdownArePrivate(t *testing.T) {
	site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "public, s-maxage=60")
		fmt.Fprint(w, r.Header.Get("Cookie"))
	}), isr.Options{})
	if err := site.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	res := get(site, "/", "Cookie", "session=1")
	if got := res.Header.Get("Cache-Control"); got != "private, max-age=0" || read(res) != "session=1" {
		t.Errorf("Cache-Control %q", got)
	}
}

// Shutdown ends following the Store's Changes, even where its context ends first.
func TestStoreIsFollowedUntilShutdown(t *testing.T) {
	for name, hangs := range map[string]bool{"in time": false, "out of time": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				st := &faultyStore{Store: memory.New()}
				release := make(chan struct{})
				site := fleet(t, st, isr.Options{}).start(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
				time.Sleep(10 * time.Second)
				if n := st.count("changes"); n < 8 || n > 15 {
					t.Errorf("asked for changes %d times in 10 seconds", n)
				}
				if hangs {
					go get(site, "/")
					synctest.Wait()
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if err := site.Shutdown(ctx); (err != nil) != hangs {
					t.Fatal(err)
				}
				synctest.Wait() // for a call that had begun
				before := st.count("changes")
				time.Sleep(10 * time.Second)
				if n := st.count("changes") - before; n != 0 {
					t.Errorf("asked for changes %d times after Shutdown", n)
				}
				close(release)
			})
		})
	}
}
