package isr_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/store"
	"github.com/isr-go/isr/store/memory"
)

// A reentrant is code of the developer's, or a Store's, that asks the Site for all it
// can do, which waits for every lock that the Site holds.
type reentrant struct {
	t      *testing.T
	made   atomic.Pointer[isr.Site]
	inside atomic.Bool
	n      atomic.Int64
	called map[string]bool // written under inside
}

// call is called by everything that the Site calls.
func (r *reentrant) call(name string) {
	site := r.made.Load()
	if site == nil || !r.inside.CompareAndSwap(false, true) {
		return
	}
	defer r.inside.Store(false)
	r.called[name] = true
	done := make(chan struct{})
	go func() {
		defer close(done)
		site.Stats()
		for range site.Pages() {
		}
		body(site, fmt.Sprint("/inner/", r.n.Add(1))) // stores a page
		site.PurgeTag(context.Background(), "inner")
		site.Purge(context.Background(), "/inner/1")
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		panic(name + " is called with a lock held: the Site does not answer")
	}
}

func (r *reentrant) Enabled(context.Context, slog.Level) bool { return true }

func (r *reentrant) Handle(_ context.Context, rec slog.Record) error {
	r.call("Logger: " + rec.Level.String())
	return nil
}

func (r *reentrant) WithAttrs([]slog.Attr) slog.Handler { return r }

func (r *reentrant) WithGroup(string) slog.Handler { return r }

// A reentrantStore asks the Site in each of its calls.
type reentrantStore struct {
	store.Store
	r *reentrant
}

func (s reentrantStore) Look(ctx context.Context, key string, have store.Ticket, ttl time.Duration) (*store.Record, store.Effect, store.Ticket, error) {
	s.r.call("Store")
	return s.Store.Look(ctx, key, have, ttl)
}

func (s reentrantStore) Put(ctx context.Context, key string, t store.Ticket, rec *store.Record) error {
	s.r.call("Store")
	return s.Store.Put(ctx, key, t, rec)
}

func (s reentrantStore) Invalidate(ctx context.Context, e store.Effect, tags ...string) (store.Version, error) {
	s.r.call("Store")
	return s.Store.Invalidate(ctx, e, tags...)
}

// Whatever the Site calls may call the Site: it holds no lock then.
func TestCallsWithoutLocks(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"memory only", "with a Store"} {
		t.Run(name, func(t *testing.T) {
			r := &reentrant{t: t, called: make(map[string]bool)}
			opts := isr.Options{
				Origin: "https://example.com", MaxBytes: 64 << 10, MaxPageBytes: 4 << 10,
				Logger: slog.New(r), Observe: func(isr.Event) { r.call("Observe") },
				Default: isr.Route{
					Vary:        []string{"Accept"},
					Normalize:   func(http.Header) { r.call("Normalize") },
					Bypass:      func(*http.Request) bool { r.call("Bypass"); return false },
					Failure:     func(int, http.Header) bool { r.call("Failure"); return false },
					Placeholder: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { r.call("Placeholder") }),
				},
			}
			if name == "with a Store" {
				opts.Store = reentrantStore{memory.New(), r}
			}
			opts.Routes = map[string]isr.Route{"/waited/": opts.Default, "/inner/": {Tags: []string{"inner"}}}
			waited := opts.Routes["/waited/"]
			waited.Placeholder = nil
			opts.Routes["/waited/"] = waited
			h := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				r.call("handler")
				switch req.URL.Path {
				case "/waited/broken":
					w.WriteHeader(http.StatusInternalServerError)
				case "/waited/private":
					w.Header().Set("Cache-Control", "private")
				case "/waited/large":
					w.Write(make([]byte, 8<<10))
				default:
					io.WriteString(w, req.URL.Path)
				}
			})
			site := isr.Wrap(h, opts)
			r.made.Store(site)
			ctx := context.Background()
			for _, path := range []string{"/people", "/waited/1", "/waited/broken", "/waited/private", "/waited/large"} {
				body(site, path)
				body(site, path)
				do(site, http.MethodPost, path)
				site.Revalidate(ctx, path)
				site.RevalidateTag(ctx, "tag")
				body(site, path)
				site.Purge(ctx, path)
			}
			for i := range 200 { // more than there is room for
				body(site, fmt.Sprint("/waited/", i))
				body(site, fmt.Sprint("/people/", i%20))
			}
			if err := site.Shutdown(ctx); err != nil {
				t.Fatal(err)
			}
			want := []string{
				"handler", "Normalize", "Bypass", "Failure", "Placeholder", "Observe",
				"Logger: DEBUG", "Logger: INFO", "Logger: WARN", "Logger: ERROR",
			}
			if opts.Store != nil {
				want = []string{"Store"} // which is nearly always called while a handler is
			}
			for _, name := range want {
				if !r.called[name] {
					t.Errorf("%s was not called", name)
				}
			}
		})
	}
}

// That a table is full is said once, and no invalidation waits until it is said: the
// Logger itself may invalidate more than there is room for.
func TestLoggerInvalidatesMoreThanIsRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var site *isr.Site
		fill := func(name string) {
			for i := range 1 << 20 / 100 { // tags fill the table
				site.RevalidateTag(t.Context(), fmt.Sprint(name, i))
			}
		}
		log := &fullHandler{full: func() { fill("from the Logger ") }} // it never returns if a lock is held
		began, end := make(chan struct{}), make(chan struct{})
		site = isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			close(began)
			<-end
		}), isr.Options{MaxBytes: 1 << 20, Logger: slog.New(log)})
		go get(site, "/")
		<-began
		fill("tag ")
		close(end)
		synctest.Wait()
		if n := log.warned.Load(); n != 1 {
			t.Errorf("it was said %d times that the table is full, want once", n)
		}
	})
}

// A fullHandler calls full for each warning.
type fullHandler struct {
	full   func()
	warned atomic.Int64
}

func (h *fullHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }

func (h *fullHandler) Handle(context.Context, slog.Record) error {
	h.warned.Add(1)
	h.full()
	return nil
}

func (h *fullHandler) WithAttrs([]slog.Attr) slog.Handler { return h }

func (h *fullHandler) WithGroup(string) slog.Handler { return h }
