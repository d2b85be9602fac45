package isr_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/internal/isrtest"
	"github.com/isr-go/isr/store"
)

// do sends a request with headers given as name, value, name, value.
func do(h http.Handler, method, target string, header ...string) *http.Response {
	return isrtest.Do(h, method, target, header...).Result()
}

func get(h http.Handler, target string, header ...string) *http.Response {
	return do(h, http.MethodGet, target, header...)
}

func body(h http.Handler, target string, header ...string) string {
	return read(get(h, target, header...))
}

func read(res *http.Response) string {
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return "error: " + err.Error()
	}
	return string(b)
}

// recovered calls f and returns what it panicked with.
func recovered(f func()) (v any) {
	defer func() { v = recover() }()
	f()
	return nil
}

// A countingHandler numbers its responses, or leaves them to serve.
type countingHandler struct {
	calls atomic.Int64
	serve func(w http.ResponseWriter, r *http.Request, n int64)
}

func (c *countingHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n := c.calls.Add(1)
	if c.serve != nil {
		c.serve(w, r, n)
		return
	}
	fmt.Fprintf(w, "page %d", n)
}

// A step is one visit, and what the visitor must get.
type step struct {
	after  time.Duration // slept before it
	status int           // zero: 200
	body   string
	cache  string // Cache-Status
	age    string
	calls  int64 // of the handler, in all, when no goroutine runs any more
}

func (s step) String() string { return fmt.Sprintf("after %v", s.after) }

// walk takes the steps one by one, inside a bubble.
func walk(t *testing.T, h http.Handler, c *countingHandler, target string, steps ...step) {
	t.Helper()
	for i, want := range steps {
		time.Sleep(want.after)
		res := get(h, target)
		synctest.Wait()
		if want.status == 0 {
			want.status = http.StatusOK
		}
		got := step{want.after, res.StatusCode, read(res), res.Header.Get("Cache-Status"), res.Header.Get("Age"), c.calls.Load()}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(step{})); diff != "" {
			t.Errorf("step %d, %v (-want +got):\n%s", i, want, diff)
		}
	}
}

// pages returns what is stored, by path and query.
func pages(site *isr.Site) map[string]isr.Page {
	m := make(map[string]isr.Page)
	for p := range site.Pages() {
		name := p.Path
		if p.Query != "" {
			name += "?" + p.Query
		}
		m[name] = p
	}
	return m
}

// A slowHandler takes a while for each response, and counts how many calls there are at
// a time.
type slowHandler struct {
	takes     time.Duration
	obeys     bool // whether it returns when its context ends
	calls     atomic.Int64
	now, most atomic.Int64
	paths     sync.Map // path to the number of its last call
}

func (c *slowHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.paths.Store(r.URL.Path, c.calls.Add(1))
	n := c.now.Add(1)
	defer c.now.Add(-1)
	for m := c.most.Load(); n > m && !c.most.CompareAndSwap(m, n); m = c.most.Load() {
	}
	var done <-chan struct{}
	if c.obeys {
		done = r.Context().Done()
	}
	select {
	case <-time.After(c.takes):
		fmt.Fprint(w, "page")
	case <-done:
		http.Error(w, "cancelled", http.StatusServiceUnavailable)
	}
}

// visit asks for a page as a visitor who leaves after a while.
func visit(site http.Handler, target string, stays time.Duration) *httptest.ResponseRecorder {
	ctx, cancel := context.WithTimeout(context.Background(), stays)
	defer cancel()
	w := httptest.NewRecorder()
	site.ServeHTTP(w, httptest.NewRequest("GET", target, nil).WithContext(ctx))
	return w
}

// A journal records events and log lines.
type journal struct {
	mu     sync.Mutex
	events []string
	log    bytes.Buffer
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.log.Write(b)
}

func (j *journal) observe(e isr.Event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if e.Path != "" && e.Tag != "" {
		j.events = append(j.events, "both a path and a tag")
	}
	j.events = append(j.events, fmt.Sprintf("%v %s %s %d %v %v", e.Kind, e.Path+e.Tag, e.Route, e.Status, e.Duration, e.Err))
}

// taken returns what was collected, and forgets it.
func (j *journal) taken() (events []string, log string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	events, log = j.events, j.log.String()
	j.events = nil
	j.log.Reset()
	return events, log
}

func (j *journal) logger(level slog.Level) *slog.Logger {
	return slog.New(slog.NewTextHandler(j, &slog.HandlerOptions{
		Level: level,
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey || a.Key == "stack" {
				return slog.Attr{}
			}
			return a
		},
	}))
}

// instances are Sites with one Store: the processes of a fleet, or a process and the
// one after its restart.
type instances struct {
	t     *testing.T
	store store.Store
	opts  isr.Options
}

// start starts an instance, which ends with the test.
func (in *instances) start(h http.Handler) *isr.Site {
	opts := in.opts
	opts.Store = in.store
	site := isr.Wrap(h, opts)
	in.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		defer cancel()
		if err := site.Shutdown(ctx); err != nil {
			in.t.Errorf("Shutdown: %v", err)
		}
	})
	synctest.Wait() // until it follows the Store
	return site
}

// fleet returns instances with that Store and those options; none has started.
func fleet(t *testing.T, s store.Store, opts isr.Options) *instances {
	return &instances{t, s, opts}
}

// A fault is called for each operation of a faultyStore: an error is returned in the
// place of the Store's answer.
type fault func(ctx context.Context, op string) error

// A faultyStore works, or fails as a test wants.
type faultyStore struct {
	store.Store
	before atomic.Pointer[fault] // instead of the call; nil: none
	after  fault                 // after a call that succeeded, before it returns; nil: none
	calls  sync.Map              // by operation, *atomic.Int64
}

func (s *faultyStore) set(f fault) {
	if f == nil {
		s.before.Store(nil)
		return
	}
	s.before.Store(&f)
}

func (s *faultyStore) counter(op string) *atomic.Int64 {
	n, _ := s.calls.LoadOrStore(op, new(atomic.Int64))
	return n.(*atomic.Int64)
}

func (s *faultyStore) count(op string) int64 { return s.counter(op).Load() }

func (s *faultyStore) ask(ctx context.Context, op string) error {
	s.counter(op).Add(1)
	if f := s.before.Load(); f != nil {
		return (*f)(ctx, op)
	}
	return nil
}

func (s *faultyStore) answer(ctx context.Context, op string, err error) error {
	if err == nil && s.after != nil {
		return s.after(ctx, op)
	}
	return err
}

func (s *faultyStore) Look(ctx context.Context, key string, have store.Ticket, ttl time.Duration) (*store.Record, store.Effect, store.Ticket, error) {
	if err := s.ask(ctx, "look"); err != nil {
		return nil, 0, store.Ticket{}, err
	}
	rec, effect, t, err := s.Store.Look(ctx, key, have, ttl)
	if err := s.answer(ctx, "look", nil); err != nil {
		return nil, 0, store.Ticket{}, err
	}
	return rec, effect, t, err
}

func (s *faultyStore) Put(ctx context.Context, key string, t store.Ticket, rec *store.Record) error {
	op := "put"
	if isManifest(rec) {
		op = "put manifest"
	}
	if err := s.ask(ctx, op); err != nil {
		return err
	}
	return s.answer(ctx, op, s.Store.Put(ctx, key, t, rec))
}

// isManifest reports whether a record is what the builds of a program know of each other:
// it has no tags, as every page has.
func isManifest(rec *store.Record) bool { return len(rec.Tags) == 0 }

func (s *faultyStore) End(ctx context.Context, key string, t store.Ticket) error {
	if err := s.ask(ctx, "end"); err != nil {
		return err
	}
	return s.answer(ctx, "end", s.Store.End(ctx, key, t))
}

func (s *faultyStore) Invalidate(ctx context.Context, e store.Effect, tags ...string) (store.Version, error) {
	if err := s.ask(ctx, "invalidate"); err != nil {
		return 0, err
	}
	v, err := s.Store.Invalidate(ctx, e, tags...)
	return v, s.answer(ctx, "invalidate", err)
}

func (s *faultyStore) Changes(ctx context.Context, after store.Version) (store.Changes, error) {
	if err := s.ask(ctx, "changes"); err != nil {
		return store.Changes{}, err
	}
	c, err := s.Store.Changes(ctx, after)
	return c, s.answer(ctx, "changes", err)
}

var (
	// down is a fault in which the Store cannot be reached.
	down fault = func(context.Context, string) error { return errors.New("connection refused") }

	// panics is a fault of the adapter.
	panics fault = func(context.Context, string) error { panic("a bug in the adapter") }
)

// hung returns a fault in which the Store never answers, whatever its context says,
// until the test ends.
func hung(t *testing.T) fault {
	forever := make(chan struct{})
	t.Cleanup(func() { close(forever) })
	return func(context.Context, string) error {
		<-forever
		return errors.New("too late")
	}
}

// slow is a fault in which the Store needs a while, whatever its context says.
func slow(d time.Duration) fault {
	return func(context.Context, string) error {
		time.Sleep(d)
		return nil
	}
}

// nthFails is a fault of the nth call alone.
func nthFails(n int64) fault {
	var calls atomic.Int64
	return func(context.Context, string) error {
		if calls.Add(1) == n {
			return errors.New("a fault of the network")
		}
		return nil
	}
}

// except is a fault of all operations but some.
func except(f fault, well ...string) fault {
	return func(ctx context.Context, op string) error {
		if slices.Contains(well, op) {
			return nil
		}
		return f(ctx, op)
	}
}

// only is a fault of some operations.
func only(f fault, ill ...string) fault {
	return func(ctx context.Context, op string) error {
		if !slices.Contains(ill, op) {
			return nil
		}
		return f(ctx, op)
	}
}
