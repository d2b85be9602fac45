package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/internal/isrtest"
	"github.com/isr-go/isr/store/redis"
)

// A page is purged, the server loses everything, and the handler fails from then on, so that
// an old page would do where there is one. The one that was purged is never shown: by the
// instance that has purged it, by one that was cut off meanwhile and has it in memory, two
// seconds after it is back, nor by one that starts then. Another page is, by those who have it.
func TestFlushallBringsNoPurgedPageBack(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"redis-server", "valkey-server"} {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			server := mustStart(t, needProgram(t, program))
			must(t, server, "ACL SETUSER two on >secret ~* &* +@all")
			var broken atomic.Bool
			start := func(option rueidis.ClientOption) *isr.Site {
				option.InitAddress = []string{server.addr}
				return siteOf(t, redis.New(dial(t, option), redis.Options{}), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if broken.Load() {
						http.Error(w, "broken", http.StatusInternalServerError)
						return
					}
					fmt.Fprint(w, r.URL.Path)
				}))
			}
			one, two := start(rueidis.ClientOption{}), start(rueidis.ClientOption{Username: "two", Password: "secret"})
			status := func(site *isr.Site, path string) int {
				w := httptest.NewRecorder()
				site.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
				return w.Code
			}
			for _, site := range []*isr.Site{one, two} {
				for _, path := range []string{"/purged", "/other"} {
					if got := status(site, path); got != http.StatusOK {
						t.Fatalf("%s: %d", path, got)
					}
				}
			}
			time.Sleep(time.Second) // until all is stored

			must(t, server, "ACL SETUSER two off", "CLIENT KILL USER two")
			if err := one.Purge(t.Context(), "/purged"); err != nil {
				t.Fatal(err)
			}
			broken.Store(true)
			must(t, server, "FLUSHALL")
			for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
				if got := status(one, "/purged"); got != http.StatusInternalServerError {
					t.Fatalf("the instance that has purged it shows it: %d", got)
				}
			}

			must(t, server, "ACL SETUSER two on")
			isrtest.Eventually(t, "answer", func() error { return two.RevalidateTag(t.Context(), "another") })
			time.Sleep(2 * time.Second)
			last := start(rueidis.ClientOption{})
			for range 100 {
				for name, site := range map[string]*isr.Site{"has purged it": one, "was cut off": two, "has just started": last} {
					if got := status(site, "/purged"); got != http.StatusInternalServerError {
						t.Fatalf("the instance that %s shows it: %d", name, got)
					}
				}
				time.Sleep(10 * time.Millisecond)
			}
			for name, site := range map[string]*isr.Site{"one": one, "two": two} {
				if got := status(site, "/other"); got != http.StatusOK {
					t.Errorf("the other page is not shown by instance %s: %d", name, got)
				}
			}
		})
	}
}
