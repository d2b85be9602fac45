package isr

// What no visitor can bring about at will, because there is no code of his between
// the one look into the cache and the other.

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isr-go/isr/internal/flight"
	"github.com/isr-go/isr/internal/pagekey"
	"github.com/isr-go/isr/store/memory"
)

// Who has found nothing in the cache, and finds no run either, looks again before
// he starts one: the run may have ended in between.
func TestJoinLooksAgain(t *testing.T) {
	site := Wrap(http.NotFoundHandler(), Options{})
	site.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	req := flight.Request{Key: pagekey.Key{Scheme: "http", Host: "example.com", Path: "/"}, Route: site.routes.Of(httptest.NewRequest("GET", "/", nil), "/")}
	if f, how := site.runs.Join(req, nil, &flight.Waiter{}); f != nil || how != flight.Changed {
		t.Error("a second run was started")
	}
	p, _ := site.cache.Get(&req.Key, nil)
	if p == nil {
		t.Fatal("no page")
	}
	if f, _ := site.runs.Join(req, p, &flight.Waiter{}); f == nil {
		t.Error("no run was started for whoever wants another page")
	} else {
		<-f.Done()
	}
}

// A page that a machine whose clock is ahead has made is fresh for its TTL, and not
// for as long as that clock is ahead.
func TestClockThatIsAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, ctx := memory.New(), t.Context()
		visit := func(site *Site) string {
			w := httptest.NewRecorder()
			site.ServeHTTP(w, httptest.NewRequest("GET", "/a?b=c", nil))
			synctest.Wait()
			return w.Header().Get("Cache-Status")
		}
		open := func() *Site {
			site := Wrap(http.NotFoundHandler(), Options{Store: st, Default: Route{TTL: time.Hour, NotFoundTTL: time.Minute}})
			t.Cleanup(func() { site.Shutdown(context.Background()) })
			return site
		}
		one := open()
		visit(one)
		p := one.cache.All()[0]
		p.Generated = p.Generated.Add(24 * time.Hour)
		key := one.backing.Key(&p.Key)
		ticket, err := st.Begin(ctx, key, time.Second)
		if err == nil {
			err = st.Put(ctx, key, ticket, p.Record(key))
		}
		if err != nil {
			t.Fatal(err)
		}
		two := open()
		for _, want := range []string{"isr; hit; ttl=60", "isr; fwd=stale; stored"} {
			if got := visit(two); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
			time.Sleep(61 * time.Second)
		}
	})
}
