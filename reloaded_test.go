package isr_test

import (
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/store/memory"
)

// The bounds of an invalidated page hold when it was evicted and comes back from the Store,
// as if it had stayed in memory: this instance knows when it was invalidated. Where it does
// not, the page counts as stale since its own generation began.
func TestBoundsAfterAnEviction(t *testing.T) {
	onError := isr.Route{StaleWhileRevalidate: -1, StaleIfError: 30 * time.Minute}
	stale := isr.Route{StaleWhileRevalidate: 30 * time.Minute, StaleIfError: -1}
	const shown, failed = "200 isr; fwd=stale; fwd-status=500; detail=stale-if-error", "500 isr; fwd=stale; fwd-status=500"
	tag := func(t *testing.T, here, other *isr.Site, st *faultyStore) { here.RevalidateTag(t.Context(), "all") }
	for name, test := range map[string]struct {
		route      isr.Route
		invalidate func(t *testing.T, here, other *isr.Site, st *faultyStore)
		after      time.Duration // from the invalidation to the visit
		want       string
	}{
		"within StaleIfError":         {onError, tag, 29 * time.Minute, shown},
		"past StaleIfError":           {onError, tag, 31 * time.Minute, failed},
		"within StaleWhileRevalidate": {stale, tag, 29 * time.Minute, "200 isr; hit; ttl=-1740; detail=stale"},
		"past StaleWhileRevalidate":   {stale, tag, 31 * time.Minute, failed},
		"by a POST": {onError, func(t *testing.T, here, other *isr.Site, st *faultyStore) {
			do(here, "POST", "/")
		}, 29 * time.Minute, shown},
		"by another instance": {onError, func(t *testing.T, here, other *isr.Site, st *faultyStore) {
			other.RevalidateTag(t.Context(), "all")
		}, 29 * time.Minute, shown},
		"by another instance, past it": {onError, func(t *testing.T, here, other *isr.Site, st *faultyStore) {
			other.RevalidateTag(t.Context(), "all")
		}, 31 * time.Minute, failed},
		"by another instance a moment ago": {onError, func(t *testing.T, here, other *isr.Site, st *faultyStore) {
			time.Sleep(time.Minute)
			st.set(only(slow(time.Second), "changes"))
			time.Sleep(2 * time.Second)
			other.RevalidateTag(t.Context(), "all")
		}, 0, shown},
		"twice": {onError, func(t *testing.T, here, other *isr.Site, st *faultyStore) {
			here.Expire(t.Context(), "/")
			time.Sleep(20 * time.Minute)
			here.RevalidateTag(t.Context(), "all")
		}, 11 * time.Minute, failed},
		"what the Store has not taken": {onError, func(t *testing.T, here, other *isr.Site, st *faultyStore) {
			st.set(only(down, "invalidate"))
			here.RevalidateTag(t.Context(), "all")
		}, 29 * time.Minute, shown},
		"what the Store has not taken, past it": {onError, func(t *testing.T, here, other *isr.Site, st *faultyStore) {
			st.set(only(down, "invalidate"))
			here.RevalidateTag(t.Context(), "all")
		}, 31 * time.Minute, failed},
		"what the Store has taken late": {onError, func(t *testing.T, here, other *isr.Site, st *faultyStore) {
			st.set(only(down, "invalidate"))
			here.RevalidateTag(t.Context(), "all")
			time.Sleep(20 * time.Minute)
			st.set(nil)
		}, 11 * time.Minute, failed},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fails := false
				c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
					if fails && r.Method == http.MethodGet && r.URL.Path == "/" {
						w.WriteHeader(http.StatusInternalServerError)
						return
					}
					w.Write(make([]byte, 10_000))
				}}
				test.route.TTL, test.route.Tags = 24*time.Hour, []string{"all"}
				st := &faultyStore{Store: memory.New()}
				in := fleet(t, st, isr.Options{Origin: "http://example.com", MaxBytes: 200_000, Default: test.route, Routes: map[string]isr.Route{"/other/": {}}})
				here, other := in.start(c), in.start(http.NotFoundHandler())
				get(here, "/")
				time.Sleep(time.Hour)
				fails = true
				for i := range 30 {
					get(here, fmt.Sprint("/other/", i))
					synctest.Wait()
				}
				if _, ok := pages(here)["/"]; ok {
					t.Fatal("the page was not evicted")
				}
				test.invalidate(t, here, other, st)
				time.Sleep(test.after)
				res := get(here, "/")
				if got := fmt.Sprint(res.StatusCode, " ", res.Header.Get("Cache-Status")); got != test.want {
					t.Errorf("got %q, want %q", got, test.want)
				}
				st.set(nil)
				time.Sleep(time.Minute)
			})
		})
	}
}
