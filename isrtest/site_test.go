package isrtest_test

import (
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/isrtest"
)

// A page ages, is renewed behind its visitors, and stays while the handler fails.
func TestSite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		site := isrtest.New(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			n++
			fmt.Fprint(w, "page ", n, r.Header["Accept-Language"])
		}), isr.Options{Default: isr.Route{TTL: time.Minute, Vary: []string{"Accept-Language"}}})
		visit := func(body, cache string) {
			t.Helper()
			if got := site.Get("/", "Accept-Language", "de"); got.Status != 200 || got.Body != body || got.Cache != cache {
				t.Errorf("got %+v, want %q, %q", got, body, cache)
			}
		}
		visit("page 1 [de]", "isr; fwd=uri-miss; stored")
		visit("page 1 [de]", "isr; hit; ttl=60")
		site.Age(time.Minute)
		visit("page 1 [de]", "isr; hit; ttl=0; detail=stale")
		visit("page 2 [de]", "isr; hit; ttl=60")
		site.Fail(true)
		site.Age(2 * time.Minute)
		visit("page 2 [de]", "isr; hit; ttl=-60; detail=stale")
		if got := site.Get("/other"); got.Status != 500 {
			t.Errorf("status %d while the handler fails", got.Status)
		}
		site.Fail(false)
		visit("page 2 [de]", "isr; hit; ttl=-60; detail=stale")
		visit("page 3 [de]", "isr; hit; ttl=60")
		if calls := site.Calls(); calls != 5 {
			t.Errorf("%d calls", calls)
		}
	})
}

func ExampleCheck() {
	t := new(testing.T) // of your test
	router := http.NewServeMux()
	router.HandleFunc("GET /posts/{id}", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "post ", r.PathValue("id"))
	})
	isrtest.Check(t, router, isr.Options{Default: isr.Route{TTL: time.Minute}}, "/posts/1")
	fmt.Println("failed:", t.Failed())
	// Output: failed: false
}
