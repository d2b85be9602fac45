package isr_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isr-go/isr"
)

// Renew generates what is stored with a tag, fresh or not, those first that visitors ask
// for most, a few at a time, and says what has failed. Meanwhile no visitor waits.
func TestRenew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var broken atomic.Bool
		var now, most atomic.Int64
		var mu sync.Mutex
		var made []string
		c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			mu.Lock()
			made = append(made, r.URL.RequestURI())
			mu.Unlock()
			most.Store(max(most.Load(), now.Add(1)))
			time.Sleep(time.Second)
			now.Add(-1)
			if broken.Load() && r.URL.Path == "/fails" {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			if r.URL.Path != "/other" {
				w.Header().Set("Cache-Tag", "posts")
			}
			fmt.Fprint(w, "page ", n)
		}}
		site := isr.Wrap(c, isr.Options{Origin: "http://example.com", MaxRegenerations: 2})
		for visits, path := range []string{"/fails", "/1", "/2?q=1", "/3", "/gone", "/other"} {
			for range visits + 1 {
				get(site, path)
				time.Sleep(time.Second)
			}
		}
		if err := errors.Join(site.Purge(t.Context(), "/gone"), site.Expire(t.Context(), "/1")); err != nil {
			t.Fatal(err)
		}
		broken.Store(true)
		made = nil
		got := make(map[string]string)
		for path, err := range site.Renew(t.Context(), "posts", "none") {
			if len(got) == 0 {
				if cached := get(site, "/fails").Header.Get("Cache-Status"); cached != "isr; hit; ttl=-1; detail=stale" {
					t.Errorf("who asks meanwhile: %q", cached)
				}
			}
			got[path] = fmt.Sprint(err)
		}
		want := map[string]string{
			"/3": "<nil>", "/2?q=1": "<nil>", "/1": "<nil>",
			"/fails": "isr: renew /fails: the handler answered 503 Service Unavailable",
		}
		if diff := cmp.Diff(want, got); diff != "" || most.Load() > 3 {
			t.Errorf("%d at a time (-want +got):\n%s", most.Load(), diff)
		}
		if first := slices.Sorted(slices.Values(made[:2])); !slices.Equal(first, []string{"/2?q=1", "/3"}) {
			t.Errorf("the first are %q", first)
		}
		for _, path := range []string{"/1", "/2?q=1", "/3", "/other"} {
			if got := get(site, path).Header.Get("Cache-Status"); got != "isr; hit" {
				t.Errorf("%s: %q", path, got)
			}
		}
		synctest.Wait()
	})
}

// Without a tag, or with an invalid one, Renew does nothing, and says so once. It ends
// with its context.
func TestRenewOfNothing(t *testing.T) {
	c := new(countingHandler)
	site := isr.Wrap(c, isr.Options{Origin: "http://example.com", Default: isr.Route{Tags: []string{"x"}}})
	get(site, "/")
	collect := func(ctx context.Context, tags ...string) (got []string) {
		for path, err := range site.Renew(ctx, tags...) {
			got = append(got, fmt.Sprintf("%s: %v", path, err))
		}
		return got
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for i, got := range [][]string{collect(t.Context()), collect(t.Context(), "x", "a,b"), collect(t.Context(), "y"), collect(ended, "x")} {
		want := [][]string{{": isr: renew: no tag is named"}, {`: isr: tag "a,b": a tag has no comma and no control character`}, nil, nil}[i]
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%d (-want +got):\n%s", i, diff)
		}
	}
	if c.calls.Load() != 1 {
		t.Errorf("%d runs", c.calls.Load())
	}
}
