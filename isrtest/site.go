package isrtest

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isr-go/isr"
)

// A Site is a site under test, in a bubble of [testing/synctest], where time passes at
// once. Use [New].
//
//	synctest.Test(t, func(t *testing.T) {
//		site := isrtest.New(t, router, options)
//		site.Get("/posts/1")
//		site.Age(time.Minute)         // the page is stale
//		site.Fail(true)               // the database is down
//		site.Get("/posts/1")          // the old page, which could not be renewed
//	})
type Site struct {
	*isr.Site
	calls atomic.Int64
	fails atomic.Bool
}

// New wraps the handler, in a bubble. The Site is shut down at the end of the test.
func New(t testing.TB, h http.Handler, opts isr.Options) *Site {
	s := new(Site)
	s.Site = isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.calls.Add(1)
		if s.fails.Load() {
			http.Error(w, "isrtest: the handler fails", http.StatusInternalServerError)
			return
		}
		h.ServeHTTP(w, r)
	}), opts)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("isrtest: Shutdown: %v", err)
		}
	})
	return s
}

// A Response is what a visitor got.
type Response struct {
	Status int
	Header http.Header
	Body   string
	Cache  string // Cache-Status, such as "isr; hit"
}

// A recorder has CloseNotify, as a server's ResponseWriter has: gin's Stream asks for it.
type recorder struct{ *httptest.ResponseRecorder }

// CloseNotify returns nil: the visitor stays.
func (recorder) CloseNotify() <-chan bool { return nil }

// Get asks for a page as a visitor does who sends headers, given as name, value, name,
// value, and waits until what that has begun is done, such as renewing the page. What the
// visitor got was sent before.
func (s *Site) Get(target string, header ...string) Response {
	r, w := httptest.NewRequest(http.MethodGet, target, nil), recorder{httptest.NewRecorder()}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	s.ServeHTTP(w, r)
	res := w.Result()
	body, _ := io.ReadAll(res.Body) // from memory
	synctest.Wait()
	return Response{res.StatusCode, res.Header, string(body), res.Header.Get("Cache-Status")}
}

// Age lets time pass, for all pages, and waits until what that has begun is done.
func (s *Site) Age(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// Fail makes the handler answer 500 from now on, or lets it work again.
func (s *Site) Fail(fails bool) { s.fails.Store(fails) }

// Calls returns how often the handler was called, for pages and for requests that pass.
func (s *Site) Calls() int { return int(s.calls.Load()) }
