package isr_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/store"
	"github.com/isr-go/isr/store/memory"
	"github.com/isr-go/isr/store/storetest"
)

// A putRecorder remembers the last record that was put.
type putRecorder struct {
	store.Store
	key string
	rec *store.Record
}

func (s *putRecorder) Put(ctx context.Context, key string, t store.Ticket, rec *store.Record) error {
	s.key, s.rec = key, rec
	return s.Store.Put(ctx, key, t, rec)
}

// A page that a machine whose clock is ahead has made is fresh for its TTL, and not
// for as long as that clock is ahead.
func TestClockThatIsAhead(t *testing.T) {
	start := func(t *testing.T, st store.Store) *isr.Site {
		return fleet(t, st, isr.Options{Default: isr.Route{TTL: time.Hour, NotFoundTTL: time.Minute}}).start(http.NotFoundHandler())
	}
	visit := func(site *isr.Site) string {
		w := httptest.NewRecorder()
		site.ServeHTTP(w, httptest.NewRequest("GET", "/a?b=c", nil))
		synctest.Wait()
		return w.Header().Get("Cache-Status")
	}
	var ahead putRecorder
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(24 * time.Hour)
		ahead.Store = memory.New()
		visit(start(t, &ahead))
	})
	synctest.Test(t, func(t *testing.T) { // a day earlier
		st := memory.New()
		ticket, err := storetest.Begin(t.Context(), st, ahead.key, time.Second)
		if err == nil {
			err = st.Put(t.Context(), ahead.key, ticket, ahead.rec)
		}
		if err != nil {
			t.Fatal(err)
		}
		site := start(t, st)
		for _, want := range []string{"isr; hit; ttl=60", "isr; fwd=stale; stored"} {
			if got := visit(site); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
			time.Sleep(61 * time.Second)
		}
	})
}
