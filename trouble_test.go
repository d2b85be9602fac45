package isr_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/store"
	"github.com/isr-go/isr/store/memory"
)

// A mood says whether a store does what it is told, or what it does instead.
type mood func(ctx context.Context, op string) error

// A moody store does what it is told, or else what a test wants.
type moody struct {
	store.Store
	mood  atomic.Pointer[mood] // before it does anything; nil: well
	echo  mood                 // when it has, and before it says so; nil: well
	calls sync.Map             // of *atomic.Int64, by op
}

func (m *moody) feels(f mood) {
	if f == nil {
		m.mood.Store(nil)
		return
	}
	m.mood.Store(&f)
}

func (m *moody) counter(op string) *atomic.Int64 {
	n, _ := m.calls.LoadOrStore(op, new(atomic.Int64))
	return n.(*atomic.Int64)
}

func (m *moody) count(op string) int64 { return m.counter(op).Load() }

func (m *moody) ask(ctx context.Context, op string) error {
	m.counter(op).Add(1)
	if f := m.mood.Load(); f != nil {
		return (*f)(ctx, op)
	}
	return nil
}

func (m *moody) answer(ctx context.Context, op string, err error) error {
	if err == nil && m.echo != nil {
		return m.echo(ctx, op)
	}
	return err
}

func (m *moody) Get(ctx context.Context, key string) (*store.Record, store.Effect, error) {
	if err := m.ask(ctx, "get"); err != nil {
		return nil, 0, err
	}
	rec, effect, err := m.Store.Get(ctx, key)
	return rec, effect, m.answer(ctx, "get", err)
}

func (m *moody) Begin(ctx context.Context, key string, ttl time.Duration) (store.Ticket, error) {
	if err := m.ask(ctx, "begin"); err != nil {
		return store.Ticket{}, err
	}
	t, err := m.Store.Begin(ctx, key, ttl)
	return t, m.answer(ctx, "begin", err)
}

func (m *moody) Put(ctx context.Context, key string, t store.Ticket, rec *store.Record) error {
	if err := m.ask(ctx, "put"); err != nil {
		return err
	}
	return m.answer(ctx, "put", m.Store.Put(ctx, key, t, rec))
}

func (m *moody) End(ctx context.Context, key string, t store.Ticket) error {
	if err := m.ask(ctx, "end"); err != nil {
		return err
	}
	return m.answer(ctx, "end", m.Store.End(ctx, key, t))
}

func (m *moody) Invalidate(ctx context.Context, e store.Effect, tags ...string) (store.Version, error) {
	if err := m.ask(ctx, "invalidate"); err != nil {
		return 0, err
	}
	v, err := m.Store.Invalidate(ctx, e, tags...)
	return v, m.answer(ctx, "invalidate", err)
}

func (m *moody) Changes(ctx context.Context, after store.Version) (store.Changes, error) {
	if err := m.ask(ctx, "changes"); err != nil {
		return store.Changes{}, err
	}
	c, err := m.Store.Changes(ctx, after)
	return c, m.answer(ctx, "changes", err)
}

// Moods.
var (
	down mood = func(context.Context, string) error { return errors.New("connection refused") }

	panics mood = func(context.Context, string) error { panic("a bug in the adapter") }
)

// hung returns a mood in which the store never answers, whatever its context says,
// until the test ends.
func hung(t *testing.T) mood {
	forever := make(chan struct{})
	t.Cleanup(func() { close(forever) })
	return func(context.Context, string) error {
		<-forever
		return errors.New("too late")
	}
}

// slow is a mood in which the store takes its time, whatever its context says.
func slow(d time.Duration) mood {
	return func(context.Context, string) error {
		time.Sleep(d)
		return nil
	}
}

// hiccup is a mood in which one call fails, the nth.
func hiccup(n int64) mood {
	var calls atomic.Int64
	return func(context.Context, string) error {
		if calls.Add(1) == n {
			return errors.New("a hiccup")
		}
		return nil
	}
}

// but is a mood for all operations but some.
func but(f mood, well ...string) mood {
	return func(ctx context.Context, op string) error {
		if slices.Contains(well, op) {
			return nil
		}
		return f(ctx, op)
	}
}

// only is a mood for some of the operations.
func only(f mood, ill ...string) mood {
	return func(ctx context.Context, op string) error {
		if !slices.Contains(ill, op) {
			return nil
		}
		return f(ctx, op)
	}
}

// A store that is down, slow or lying costs time at first, and soon nothing; but no
// visitor ever notices more of it than that.
func TestStoreInABadMood(t *testing.T) {
	for name, test := range map[string]struct {
		mood  func(t *testing.T) mood
		first time.Duration // what the first visitor may wait
	}{
		"down":   {func(*testing.T) mood { return down }, 0},
		"panics": {func(*testing.T) mood { return panics }, 0},
		"hung":   {hung, 100 * time.Millisecond},
		"begins": {func(*testing.T) mood { return but(down, "get", "changes") }, 0},
		"hesitates": {func(t *testing.T) mood {
			return but(hung(t), "get", "changes")
		}, 100 * time.Millisecond},
		"reads only": {func(*testing.T) mood {
			return but(down, "get", "begin", "changes")
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				st := &moody{Store: memory.New()}
				in := fleet(t, st, isr.Options{Default: isr.Route{TTL: time.Minute}})
				var c cms
				site := in.start(&c)
				st.feels(test.mood(t))
				for i := range 20 {
					begin := time.Now()
					res := get(site, fmt.Sprintf("/%d", i))
					if got, want := read(res), fmt.Sprintf("page %d", i+1); got != want || res.StatusCode != http.StatusOK {
						t.Errorf("visit %d: got %d %q, want %q", i, res.StatusCode, got, want)
					}
					if waited := time.Since(begin); waited > test.first || i > 3 && waited > 0 && name == "hung" {
						t.Errorf("visit %d waited for %v", i, waited)
					}
				}
				synctest.Wait()
				if n := st.count("put"); n > 0 && name != "reads only" {
					t.Errorf("%d pages were put that there was no permission for", n)
				}
				if site.Stats().StoreErrors == 0 {
					t.Error("no StoreErrors")
				}
				if err := site.Purge(t.Context(), "/1"); err == nil {
					t.Error("a purge that the store knows nothing of was acknowledged")
				}
				if got := body(site, "/1"); got != "page 21" {
					t.Errorf("but it was to hold here: %q", got)
				}
			})
		})
	}
}

// While the store is down it is asked for nothing but changes, and tried with purges;
// when it is back it hears of what it has missed.
func TestStoreComesBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st := &moody{Store: memory.New()}
		in := fleet(t, st, isr.Options{Default: isr.Route{TTL: time.Hour}})
		var c cms
		site, other := in.start(&c), in.start(&c)
		body(site, "/before")
		body(other, "/before")
		synctest.Wait() // or what is on its way there would speak well of it
		st.feels(down)
		for i := range 3 {
			get(site, fmt.Sprintf("/probe/%d", i))
		}
		gets := st.count("get")
		if got := body(site, "/blind"); got != "page 5" {
			t.Errorf("while it is down: %q", got)
		}
		if n := st.count("get") - gets; n != 0 {
			t.Errorf("a store that is down was asked %d times", n)
		}
		for range 3 {
			if err := site.Purge(t.Context(), "/before"); err == nil || errors.Is(err, store.ErrUnavailable) {
				t.Errorf("Purge: %v", err)
			}
		}
		if err := site.Purge(t.Context(), "/before"); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("after three in vain: %v", err)
		}
		if got := body(other, "/before"); got != "page 1" {
			t.Errorf("nobody has told the other instance, but it has %q", got)
		}
		if got := body(site, "/before"); got != "page 6" {
			t.Errorf("after the purge: %q", got)
		}
		st.feels(nil)
		time.Sleep(10 * time.Second)
		if got := body(other, "/before"); got != "page 7" {
			t.Errorf("the purge never reached the other instance: %q", got)
		}
		if got := body(other, "/blind"); got != "page 8" {
			t.Errorf("what was generated without the store was put there: %q", got)
		}
		synctest.Wait() // until it is put there now
		// It may differ from instance to instance, so it is renewed.
		if got := get(site, "/blind").Header.Get("Cache-Status"); !strings.HasSuffix(got, "detail=stale") {
			t.Errorf("what was generated without the store: %q", got)
		}
		synctest.Wait()
		if got := body(site, "/blind"); got != "page 8" {
			t.Errorf("and then: %q", got)
		}
	})
}

// A store that is down for an hour is no reason to fill the log.
func TestStoreDownIsToldOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st := &moody{Store: memory.New()}
		var log bytes.Buffer
		in := fleet(t, st, isr.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		var c cms
		site := in.start(&c)
		st.feels(down)
		for i := range 1000 {
			get(site, fmt.Sprintf("/%d", i))
			time.Sleep(4 * time.Second)
		}
		st.feels(nil)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if n := strings.Count(log.String(), "store failed"); n < 1 || n > 5 {
			t.Errorf("%d lines tell of it", n)
		}
		for _, want := range []string{"connection refused", "going on without the Store", "the Store answers again"} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("the log does not say %q", want)
			}
		}
	})
}

// However many visitors there are, a store that hangs holds a bounded number of
// goroutines.
func TestCallsAreCapped(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st := &moody{Store: memory.New()}
		in := fleet(t, st, isr.Options{MaxGenerations: 2000})
		var c cms
		site := in.start(&c)
		st.feels(hung(t))
		before := st.count("get")
		var all sync.WaitGroup
		for i := range 2000 {
			all.Go(func() {
				if got := get(site, fmt.Sprintf("/%d", i)); got.StatusCode != http.StatusOK {
					t.Errorf("got %d", got.StatusCode)
				}
			})
		}
		begin := time.Now()
		all.Wait()
		if took := time.Since(begin); took > 100*time.Millisecond {
			t.Errorf("a visitor waited for %v", took)
		}
		if n := st.count("get") - before; n > 256 {
			t.Errorf("%d calls at a time", n)
		}
	})
}

// A burst of visitors is more than a store can answer in time, and no failure of it: no
// purge fails for it.
func TestBurstInFrontOfASlowStore(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st := &moody{Store: memory.New(), echo: only(slow(60*time.Millisecond), "get", "begin", "put")}
		in := fleet(t, st, isr.Options{MaxGenerations: 3000})
		var c cms
		site := in.start(&c)
		var all sync.WaitGroup
		for i := range 3000 {
			all.Go(func() {
				if got := get(site, fmt.Sprintf("/%d", i)); got.StatusCode != http.StatusOK {
					t.Errorf("a visitor got %d", got.StatusCode)
				}
			})
		}
		for i := range 376 {
			all.Go(func() {
				time.Sleep(time.Duration(i) * time.Millisecond)
				if err := site.Purge(t.Context(), fmt.Sprintf("/%d", i)); err != nil {
					t.Errorf("Purge: %v", err)
				}
			})
		}
		all.Wait()
		if n := site.Stats().StoreErrors; n != 0 {
			t.Errorf("%d StoreErrors, which they are none of", n)
		}
	})
}

// Visitors' POSTs wait in a line of their own, which an editor's purge is not in.
func TestPostsDoNotHinderPurges(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st := &moody{Store: memory.New()}
		disk := make(chan struct{}, 1) // one call at a time
		st.echo = only(func(ctx context.Context, op string) error {
			disk <- struct{}{}
			defer func() { <-disk }()
			time.Sleep(20 * time.Millisecond)
			return ctx.Err()
		}, "invalidate")
		in := fleet(t, st, isr.Options{})
		var c cms
		site, other := in.start(&c), in.start(&c)
		for i := range 500 {
			get(other, fmt.Sprintf("/%d", i))
		}
		synctest.Wait()
		var all sync.WaitGroup
		for i := range 500 {
			all.Go(func() { do(site, "POST", fmt.Sprintf("/%d", i)) })
		}
		synctest.Wait()
		begin := time.Now()
		if err := site.Purge(t.Context(), "/purged"); err != nil || time.Since(begin) > time.Second {
			t.Errorf("Purge: %v after %v", err, time.Since(begin))
		}
		all.Wait()
		time.Sleep(10 * time.Second)
		for i := range 500 {
			if got := get(other, fmt.Sprintf("/%d", i)).Header.Get("Cache-Status"); got == "isr; hit" {
				t.Fatalf("the change of /%d has not reached the other instance", i)
			}
		}
	})
}

// One call that fails costs a generation at most: the page is shared all the same,
// at the latest when it is renewed, and nobody waits for an instance that is through.
func TestHiccup(t *testing.T) {
	for name, test := range map[string]struct {
		mood  mood
		calls int64 // of the handler
	}{
		"the first look":  {only(hiccup(1), "get"), 2},
		"the second look": {only(hiccup(2), "get"), 1},
		"the permission":  {only(hiccup(1), "begin"), 2},
		"the page":        {only(hiccup(1), "put"), 2},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				st := &moody{Store: memory.New()}
				in := fleet(t, st, isr.Options{})
				var c cms
				one, two := in.start(&c), in.start(&c)
				st.feels(test.mood)
				for range 2 {
					body(one, "/")
					time.Sleep(10 * time.Second)
				}
				begin := time.Now()
				body(two, "/")
				if took := time.Since(begin); took > 0 {
					t.Errorf("elsewhere a visitor has waited for %v", took)
				}
				synctest.Wait()
				if got := c.calls.Load(); got != test.calls {
					t.Errorf("%d calls of the handler, want %d", got, test.calls)
				}
				if a, b := body(two, "/"), body(in.start(&c), "/"); a != b {
					t.Errorf("%q here, %q after a restart", a, b)
				}
			})
		})
	}
}

// Whoever waits for another instance has permission to put what he makes after all,
// even if the Store fails while he waits.
func TestHiccupWhileWaiting(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st := &moody{Store: memory.New()}
		in := fleet(t, st, isr.Options{})
		release := make(chan struct{})
		stuck := cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			<-release
			w.WriteHeader(http.StatusInternalServerError)
		}}
		var c cms
		one, two := in.start(&stuck), in.start(&c)
		go body(one, "/")
		synctest.Wait()
		st.feels(only(hiccup(5), "begin"))
		body(two, "/")
		synctest.Wait()
		close(release)
		synctest.Wait()
		if got := body(in.start(&c), "/"); got != "page 1" {
			t.Errorf("after a restart: %q", got)
		}
	})
}

// What is generated in the moment in which the Store comes back is renewed, too, and
// put there.
func TestBlindAtTheLastMoment(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st := &moody{Store: memory.New()}
		var site *isr.Site
		var c cms
		visit := sync.OnceFunc(func() { body(site, "/") })
		in := fleet(t, st, isr.Options{Logger: slog.New(listener(func(message string) {
			if strings.Contains(message, "the Store answers again") {
				visit()
			}
		}))})
		site = in.start(&c)
		st.feels(down)
		for i := range 3 {
			get(site, fmt.Sprintf("/%d", i))
		}
		st.feels(nil)
		for range 2 {
			time.Sleep(time.Minute)
			body(site, "/")
		}
		synctest.Wait()
		if a, b := body(site, "/"), body(in.start(&c), "/"); a != b {
			t.Errorf("%q here, %q after a restart", a, b)
		}
	})
}

// A listener is told what is logged.
type listener func(message string)

func (listener) Enabled(context.Context, slog.Level) bool { return true }
func (l listener) WithAttrs([]slog.Attr) slog.Handler     { return l }
func (l listener) WithGroup(string) slog.Handler          { return l }

func (l listener) Handle(_ context.Context, r slog.Record) error {
	l(r.Message)
	return nil
}

// What fails in the store is told to whoever asked for a purge, and to Observe.
func TestStoreFailures(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st := &moody{Store: memory.New()}
		var mu sync.Mutex
		var failures []string
		in := fleet(t, st, isr.Options{Origin: "http://example.com", Observe: func(e isr.Event) {
			if e.Kind == isr.StoreFailed {
				mu.Lock()
				defer mu.Unlock()
				failures = append(failures, e.Err.Error())
			}
		}})
		var c cms
		site := in.start(&c)
		body(site, "/")
		st.feels(but(down, "get", "begin", "put", "changes"))
		for name, f := range map[string]func() error{
			"Revalidate":    func() error { return site.Revalidate(t.Context(), "/") },
			"RevalidateTag": func() error { return site.RevalidateTag(t.Context(), "tag") },
			"Purge":         func() error { return site.Purge(t.Context(), "/") },
			"PurgeTag":      func() error { return site.PurgeTag(t.Context(), "tag") },
		} {
			if err := f(); err == nil || !strings.Contains(err.Error(), "may not know of it") {
				t.Errorf("%s: %v", name, err)
			}
		}
		handler := isr.RevalidateHandler(site, "secret")
		if got := do(handler, "POST", "/?path=/", "Authorization", "Bearer secret").StatusCode; got != http.StatusInternalServerError {
			t.Errorf("the webhook got %d", got)
		}
		mu.Lock()
		defer mu.Unlock()
		if len(failures) == 0 || !strings.HasPrefix(failures[0], "store: invalidate: connection refused") {
			t.Errorf("Observe was told of %q", failures)
		}
	})
}

// Whoever gives up on a purge does not keep the store from hearing of it.
func TestPurgeIsGivenUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st := &moody{Store: memory.New()}
		in := fleet(t, st, isr.Options{})
		var c cms
		one, other := in.start(&c), in.start(&c)
		body(one, "/")
		body(other, "/")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := one.Purge(ctx, "/"); !errors.Is(err, context.Canceled) {
			t.Errorf("Purge: %v", err)
		}
		if n := one.Stats().StoreErrors; n != 0 {
			t.Errorf("%d StoreErrors, which it is none of", n)
		}
		time.Sleep(5 * time.Second)
		if got := body(other, "/"); got != "page 2" {
			t.Errorf("elsewhere: %q", got)
		}
	})
}

// What the Store is yet to hear of it hears when it is trusted again, however often
// it was tried in vain before.
func TestDebtsAreNotPutOff(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st := &moody{Store: memory.New()}
		in := fleet(t, st, isr.Options{})
		var c cms
		one, two := in.start(&c), in.start(&c)
		body(one, "/")
		body(two, "/")
		st.feels(but(down, "changes"))
		for i := range 75 { // in which it is trusted later each time, at last not for half a minute
			get(one, fmt.Sprintf("/%d", i))
			time.Sleep(time.Second)
		}
		one.Purge(t.Context(), "/")
		time.Sleep(10 * time.Second)
		st.feels(nil)
		for i := range 1000 {
			before := st.count("get")
			get(one, fmt.Sprintf("/again/%d", i))
			if st.count("get") > before {
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(10 * time.Second) // it may have been tried a few times in vain when that was trusted
		if got := body(two, "/"); got == "page 1" {
			t.Error("the Store is back, but the purge has not reached the other instance")
		}
	})
}

// Runs that take each other's place are not remembered with all of their pages,
// be there no Store or one that is down.
func TestOustedRunsAreForgotten(t *testing.T) {
	for name, second := range map[string]store.Store{"no store": nil, "down": memory.New()} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c := cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
					time.Sleep(3 * time.Second)
					w.Write(make([]byte, 1<<20))
				}}
				in := fleet(t, nil, isr.Options{MaxBytes: 8 << 20, Default: isr.Route{Tags: []string{"all"}}})
				if second != nil {
					st := &moody{Store: second}
					st.feels(down)
					in.store = st
				}
				site := in.start(&c)
				get(site, "/")
				before := heap()
				for range 40 {
					site.RevalidateTag(t.Context(), "all")
					get(site, "/")
					time.Sleep(2 * time.Second)
				}
				if grown := heap() - before; grown > 20<<20 {
					t.Errorf("the heap has grown by %d MB, for %d MB of pages", grown>>20, site.Stats().Bytes>>20)
				}
			})
		})
	}
}

// What is more than can be remembered for a store that is away is told to whoever asks,
// and becomes nothing that nobody has asked for. Visitors leave room to editors.
func TestMoreIsOwedThanCanBeRemembered(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st := &moody{Store: memory.New()}
		in := fleet(t, st, isr.Options{MaxBytes: 8 << 20})
		var c cms
		one, other := in.start(&c), in.start(&c)
		body(other, "/first")
		body(other, "/never-named")
		st.feels(but(down, "get", "begin", "put", "changes"))
		one.Purge(t.Context(), "/first")
		forgotten := 0
		for i := range 150 {
			var paths []string
			for j := range 100 {
				paths = append(paths, fmt.Sprintf("/%d/%d", i, j))
			}
			switch err := one.Purge(t.Context(), paths...); {
			case err == nil:
				t.Fatal("no error, and no Store")
			case strings.Contains(err.Error(), "will not be told"):
				forgotten++
			case forgotten > 0:
				t.Errorf("%d: remembered, but not what was before it", i)
			}
		}
		if forgotten == 0 || forgotten > 75 {
			t.Errorf("of 150 purges %d were forgotten", forgotten)
		}
		st.feels(nil)
		time.Sleep(2 * time.Minute)
		if got := body(other, "/first"); got == "page 1" {
			t.Error("a purge is lost")
		}
		if got := body(other, "/never-named"); got != "page 2" {
			t.Errorf("what nobody has purged: %q", got)
		}
		if got, want := body(one, "/first"), body(other, "/first"); got != want {
			t.Errorf("%q here, %q there", got, want)
		}
	})
}

// Strangers who post to paths that nobody knows keep the Store busy for a while, but
// drive nothing out of it, and the successful changes of others go on.
func TestStrangersPosts(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st := &moody{Store: memory.New()}
		in := fleet(t, st, isr.Options{})
		c := cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			if r.Method == http.MethodPost {
				http.Redirect(w, r, "/login", http.StatusSeeOther)
			}
		}}
		one, two := in.start(&c), in.start(&c)
		get(one, "/")
		get(two, "/")
		flood := func(n int) int64 {
			before := st.count("invalidate")
			for i := range n {
				do(one, "POST", fmt.Sprintf("/no/such/path/%d", i))
			}
			return st.count("invalidate") - before
		}
		if n := flood(3000); n != 1000 {
			t.Errorf("the Store was told %d times", n)
		}
		time.Sleep(10 * time.Second)
		if n := flood(300); n != 100 {
			t.Errorf("ten seconds later it was told %d times", n)
		}
		time.Sleep(time.Hour)
		if n := flood(3000); n != 1000 {
			t.Errorf("an hour later it was told %d times", n)
		}
		for _, site := range []*isr.Site{one, two} {
			if got := get(site, "/").Header.Get("Cache-Status"); got != "isr; hit" {
				t.Errorf("a page that nobody has changed: %q", got)
			}
		}
		before := st.count("invalidate")
		do(one, "POST", "/")
		if n := st.count("invalidate") - before; n != 1 {
			t.Errorf("of a change to what is known the Store was told %d times", n)
		}
	})
}

// What the store has no room for is generated by each instance, and the developer
// is told.
func TestTooLargeForTheStore(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st := &moody{Store: memory.New()}
		st.feels(func(ctx context.Context, op string) error {
			if op == "put" {
				return fmt.Errorf("%w: by far", store.ErrTooLarge)
			}
			return nil
		})
		var log bytes.Buffer
		in := fleet(t, st, isr.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		var c cms
		one, other := in.start(&c), in.start(&c)
		begin := time.Now()
		if a, b := body(one, "/"), body(other, "/"); a != "page 1" || b != "page 2" {
			t.Errorf("%q and %q", a, b)
		}
		synctest.Wait()
		if time.Since(begin) > 100*time.Millisecond {
			t.Errorf("it took %v", time.Since(begin))
		}
		if got := body(one, "/"); got != "page 1" {
			t.Errorf("again: %q", got)
		}
		if !strings.Contains(log.String(), "too large for the Store") {
			t.Errorf("the log says only:\n%s", log.String())
		}
		if n := one.Stats().StoreErrors; n != 0 {
			t.Errorf("%d StoreErrors", n)
		}
	})
}

// A liar returns something else than it knows.
type liar struct {
	store.Store
	get        func(*store.Record, store.Effect) (*store.Record, store.Effect)
	invalidate func(store.Version) store.Version
	changes    func(store.Changes) store.Changes
}

func (l *liar) Get(ctx context.Context, key string) (*store.Record, store.Effect, error) {
	rec, effect, err := l.Store.Get(ctx, key)
	if err == nil && l.get != nil {
		rec, effect = l.get(rec, effect)
	}
	return rec, effect, err
}

func (l *liar) Invalidate(ctx context.Context, e store.Effect, tags ...string) (store.Version, error) {
	v, err := l.Store.Invalidate(ctx, e, tags...)
	if err == nil && l.invalidate != nil {
		v = l.invalidate(v)
	}
	return v, err
}

func (l *liar) Changes(ctx context.Context, after store.Version) (store.Changes, error) {
	c, err := l.Store.Changes(ctx, after)
	if err == nil && l.changes != nil {
		c = l.changes(c)
	}
	return c, err
}

func TestStoreThatLies(t *testing.T) {
	var other *store.Record
	record := func(lie func(*store.Record) *store.Record) func(*store.Record, store.Effect) (*store.Record, store.Effect) {
		return func(rec *store.Record, effect store.Effect) (*store.Record, store.Effect) { return lie(rec), effect }
	}
	effect := func(e store.Effect) func(*store.Record, store.Effect) (*store.Record, store.Effect) {
		return func(rec *store.Record, _ store.Effect) (*store.Record, store.Effect) { return rec, e }
	}
	for name, lie := range map[string]func(*store.Record, store.Effect) (*store.Record, store.Effect){
		"nothing":             record(func(rec *store.Record) *store.Record { return nil }),
		"no data":             record(func(rec *store.Record) *store.Record { return &store.Record{Version: rec.Version} }),
		"another page":        record(func(rec *store.Record) *store.Record { return other }),
		"a part":              record(func(rec *store.Record) *store.Record { rec.Data = rec.Data[:len(rec.Data)/2]; return rec }),
		"a stump":             record(func(rec *store.Record) *store.Record { rec.Data = rec.Data[:4]; return rec }),
		"a bit":               record(func(rec *store.Record) *store.Record { rec.Data[len(rec.Data)/2] ^= 1; return rec }),
		"more":                record(func(rec *store.Record) *store.Record { rec.Data = append(rec.Data, 0); return rec }),
		"of another format":   record(func(rec *store.Record) *store.Record { rec.Data[0]++; return rec }),
		"gone all the same":   effect(store.Gone),
		"no effect":           effect(-1),
		"an effect too many":  effect(store.Gone + 1),
		"effects and nothing": effect(1 << 20),
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				st := memory.New()
				in := fleet(t, st, isr.Options{})
				var c cms
				site := in.start(&c)
				body(site, "/")
				body(site, "/other")
				synctest.Wait()
				in.store = &liar{Store: st, get: record(func(rec *store.Record) *store.Record { other = rec; return rec })}
				body(in.start(&c), "/other")
				in.store = &liar{Store: st, get: lie}
				site = in.start(&c)
				for range 2 {
					if got := body(site, "/"); got != "page 3" {
						t.Errorf("got %q", got)
					}
					synctest.Wait()
				}
			})
		})
	}
}

// What a newer build may do to a page, this one does not know: rather too much than
// too little.
func TestChangeOfAnUnknownKind(t *testing.T) {
	for _, effect := range []store.Effect{-1, store.None, store.Gone + 1} {
		bubble(t, func(t *testing.T) {
			st := memory.New()
			in := fleet(t, st, isr.Options{})
			var c cms
			one := in.start(&c)
			in.store = &liar{Store: st, changes: func(c store.Changes) store.Changes {
				for i := range c.List {
					c.List[i].Effect = effect
				}
				return c
			}}
			two := in.start(&c)
			body(one, "/")
			body(two, "/")
			if err := one.Purge(t.Context(), "/"); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if got := body(two, "/"); got != "page 2" {
				t.Errorf("after a change with the effect %d: %q", effect, got)
			}
		})
	}
}

// A purge holds where it was made, even if the order that the Store gives is none;
// and who cannot rely on it elsewhere is told.
func TestOrderThatIsNone(t *testing.T) {
	for name, test := range map[string]struct {
		lie          liar
		acknowledges bool
	}{
		"back to zero": {liar{invalidate: func(store.Version) store.Version { return 0 }}, false},
		"back a bit":   {liar{invalidate: func(v store.Version) store.Version { return v - 10e6 }}, false},
		"standing still": {func() liar {
			var first store.Version
			return liar{invalidate: func(v store.Version) store.Version {
				if first == 0 {
					first = v
				}
				return first
			}}
		}(), false},
		"a page from the end of all time": {liar{get: func(r *store.Record, e store.Effect) (*store.Record, store.Effect) {
			r.Version = 1<<64 - 1
			return r, e
		}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				st := memory.New()
				in := fleet(t, st, isr.Options{})
				var c cms
				body(in.start(&c), "/")
				synctest.Wait()
				lie := test.lie
				lie.Store = st
				lie.changes = func(c store.Changes) store.Changes { return store.Changes{Upto: c.Upto} }
				in.store = &lie
				site := in.start(&c)
				if got := body(site, "/"); got != "page 1" {
					t.Fatalf("before: %q", got)
				}
				site.PurgeTag(t.Context(), "something else")
				time.Sleep(time.Second)
				err := site.Purge(t.Context(), "/")
				if got := body(site, "/"); got != "page 2" {
					t.Errorf("after a purge that returned %v: %q", err, got)
				}
				if test.acknowledges != (err == nil) {
					t.Errorf("Purge: %v", err)
				}
			})
		})
	}
}

// A store that has lost its history says so, and every copy counts as stale.
func TestStoreLosesItsHistory(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st, wiped := memory.New(), atomic.Bool{}
		in := fleet(t, &liar{Store: st, changes: func(c store.Changes) store.Changes {
			if !wiped.CompareAndSwap(true, false) {
				return c
			}
			v, _ := st.Invalidate(t.Context(), store.Stale, "a tag that nothing has")
			return store.Changes{Upto: v, Reset: true}
		}}, isr.Options{Default: isr.Route{TTL: time.Hour}})
		var c cms
		site := in.start(&c)
		body(site, "/")
		time.Sleep(2 * time.Second)
		if got := get(site, "/").Header.Get("Cache-Status"); got != "isr; hit; ttl=3598" {
			t.Errorf("before: %q", got)
		}
		wiped.Store(true)
		time.Sleep(2 * time.Second)
		if got := get(site, "/").Header.Get("Cache-Status"); !strings.HasSuffix(got, "detail=stale") {
			t.Errorf("after: %q", got)
		}
		synctest.Wait()
		if got := body(site, "/"); got != "page 2" {
			t.Errorf("and then: %q", got)
		}
	})
}

// Nobody sees what was purged where he looks, and no instance what any of them has
// purged with the Store's word for it, whatever the Store loses, delays or forgets
// to say: visitors and editors all at once, against an oracle.
func TestNoOldDataAfterAPurge(t *testing.T) {
	const (
		docs      = 4
		instances = 3
	)
	for seed := range uint64(6) {
		bubble(t, func(t *testing.T) {
			var mu sync.Mutex
			random := func(i uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, i)) }
			chance := random(0) // of the Store and the handler; guarded by mu
			upto := func(ms int) (time.Duration, float64) {
				mu.Lock()
				defer mu.Unlock()
				return time.Duration(chance.IntN(ms)) * time.Millisecond, chance.Float64()
			}
			var calm atomic.Bool
			fails := []float64{0, 0.05, 0.3}[seed%3]
			trouble := func(context.Context, string) error {
				if calm.Load() {
					return nil
				}
				pause, luck := upto(20)
				if luck > 0.95 {
					pause *= 8
				}
				time.Sleep(pause)
				if luck < fails {
					return errors.New("a hiccup")
				}
				return nil
			}
			st := &moody{Store: memory.New(), echo: trouble}
			st.feels(trouble)
			in := fleet(t, st, isr.Options{Default: isr.Route{
				TTL: []time.Duration{0, 3 * time.Second}[seed%2], Tags: []string{"all"},
			}})
			var data, acknowledged [docs]atomic.Int64 // versions
			var floor [instances][docs]atomic.Int64   // what the visitors of an instance must not see less than
			h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				doc, _ := strconv.Atoi(r.URL.Path[1:])
				before, _ := upto(50)
				time.Sleep(before)
				version := data[doc].Load()
				after, luck := upto(60)
				if luck < 1./3 {
					after *= 50
				}
				time.Sleep(after)
				w.Header().Set("Cache-Tag", fmt.Sprint("doc-", doc))
				fmt.Fprint(w, version)
			})
			shown := func(site *isr.Site, doc int) int64 {
				version, err := strconv.ParseInt(body(site, fmt.Sprint("/", doc)), 10, 64)
				if err != nil {
					t.Errorf("seed %d: %v", seed, err)
				}
				return version
			}
			var sites []*isr.Site
			for range instances {
				sites = append(sites, in.start(h))
			}
			var all sync.WaitGroup
			var stop atomic.Bool
			for i := range 6 * instances { // visitors
				rnd := random(uint64(100 + i))
				all.Go(func() {
					for at := i % instances; !stop.Load(); {
						doc := rnd.IntN(docs)
						least := floor[at][doc].Load()
						if got := shown(sites[at], doc); got < least {
							t.Errorf("seed %d: instance %d shows version %d of /%d, %d was purged before", seed, at, got, doc, least)
						}
						time.Sleep(time.Duration(rnd.IntN(300)) * time.Millisecond)
					}
				})
			}
			for i := range uint64(2) { // editors
				rnd := random(200 + i)
				all.Go(func() {
					for range 40 {
						time.Sleep(time.Duration(rnd.IntN(2000)) * time.Millisecond)
						at, doc := rnd.IntN(instances), rnd.IntN(docs)
						version := data[doc].Add(1)
						var err error
						switch site := sites[at]; rnd.IntN(4) {
						case 0:
							err = site.Purge(context.Background(), fmt.Sprint("/", doc))
						case 1:
							err = site.PurgeTag(context.Background(), fmt.Sprint("doc-", doc))
						case 2:
							err = site.Revalidate(context.Background(), fmt.Sprint("/", doc))
						case 3:
							err = site.PurgeTag(context.Background(), "all")
						}
						raise(&floor[at][doc], version) // whatever the error
						if err == nil {
							raise(&acknowledged[doc], version)
						}
					}
				})
			}
			time.Sleep(90 * time.Second)
			stop.Store(true)
			all.Wait()
			calm.Store(true)
			time.Sleep(3 * time.Minute) // until all debts are paid
			for at, site := range append(sites, in.start(h)) {
				for doc := range docs {
					switch got, want := shown(site, doc), data[doc].Load(); {
					case got < acknowledged[doc].Load():
						t.Errorf("seed %d: at the end instance %d shows version %d of /%d, but %d was acknowledged", seed, at, got, doc, acknowledged[doc].Load())
					case got < want:
						t.Errorf("seed %d: at the end instance %d shows version %d of /%d, but %d is still owed", seed, at, got, doc, want)
					}
				}
			}
		})
	}
}

// raise makes a number at least n.
func raise(a *atomic.Int64, n int64) {
	for old := a.Load(); n > old && !a.CompareAndSwap(old, n); old = a.Load() {
	}
}

// What the Store has not taken it is told again until it does, and of no less than
// it was asked for.
func TestDebtsArePaid(t *testing.T) {
	purge := func(site *isr.Site) { site.PurgeTag(context.Background(), "tag") }
	revalidate := func(site *isr.Site) { site.RevalidateTag(context.Background(), "tag") }
	post := func(site *isr.Site) { do(site, "POST", "/") }
	for name, test := range map[string]struct {
		fail, succeed []func(*isr.Site)
		want          int // the status of what is purged and cannot be had anew
	}{
		"a purge":                          {[]func(*isr.Site){purge}, nil, 500},
		"a POST":                           {[]func(*isr.Site){post}, nil, 200},
		"less than before":                 {[]func(*isr.Site){purge, revalidate}, nil, 500},
		"less than before, with success":   {[]func(*isr.Site){purge}, []func(*isr.Site){revalidate}, 500},
		"more than before":                 {[]func(*isr.Site){revalidate, purge}, nil, 500},
		"a purge of the path, then a POST": {[]func(*isr.Site){func(site *isr.Site) { site.Purge(context.Background(), "/") }}, []func(*isr.Site){post}, 500},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				st := &moody{Store: memory.New()}
				in := fleet(t, st, isr.Options{Default: isr.Route{TTL: time.Hour, Tags: []string{"tag"}}})
				var broken atomic.Bool
				c := cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
					if r.Method == http.MethodGet && broken.Load() {
						w.WriteHeader(http.StatusInternalServerError)
					}
				}}
				one, two := in.start(&c), in.start(&c)
				get(one, "/")
				get(two, "/")
				st.feels(only(down, "invalidate"))
				for _, f := range test.fail {
					f(one)
				}
				st.feels(nil)
				for _, f := range test.succeed {
					f(one)
				}
				time.Sleep(time.Minute)
				broken.Store(true)
				res := get(two, "/")
				if got := res.Header.Get("Cache-Status"); res.StatusCode != test.want || strings.HasPrefix(got, "isr; hit; ttl=3") {
					t.Errorf("elsewhere: %d, %q; want %d", res.StatusCode, got, test.want)
				}
				before := st.count("invalidate")
				time.Sleep(time.Hour)
				if n := st.count("invalidate") - before; n != 0 {
					t.Errorf("then the Store was told %d times", n)
				}
			})
		})
	}
}

// However many tags are owed at once, the Store hears of them, of no less than it was
// asked for, and of nothing else.
func TestMoreIsOwedAtOnce(t *testing.T) {
	var many []string
	for i := range 50_000 {
		many = append(many, fmt.Sprint(i))
	}
	for name, invalidate := range map[string]func(context.Context, *isr.Site){
		"with it": func(ctx context.Context, site *isr.Site) { site.PurgeTag(ctx, append(many, "tag")...) },
		"after it": func(ctx context.Context, site *isr.Site) {
			site.PurgeTag(ctx, "tag")
			site.RevalidateTag(ctx, many...)
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				st := &moody{Store: memory.New()}
				in := fleet(t, st, isr.Options{Routes: map[string]isr.Route{"/{$}": {Tags: []string{"tag"}}}})
				var c cms
				one, two := in.start(&c), in.start(&c)
				body(two, "/")
				get(two, "/other")
				synctest.Wait()
				st.feels(only(down, "invalidate"))
				invalidate(t.Context(), one)
				if got := body(one, "/"); got != "page 3" {
					t.Errorf("where it was purged: %q", got)
				}
				st.feels(nil)
				time.Sleep(time.Minute)
				if got := body(two, "/"); got == "page 1" {
					t.Errorf("elsewhere: %q", got)
				}
				before := c.calls.Load()
				if got := body(in.start(&c), "/other"); c.calls.Load() != before {
					t.Errorf("what was not named, after a restart: %q", got)
				}
			})
		})
	}
}

// As long as the Store is to hear of a purge, what it has is no better than that,
// whatever it is told in between.
func TestOwedButNotForgotten(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st := &moody{Store: memory.New()}
		in := fleet(t, st, isr.Options{Default: isr.Route{Tags: []string{"tag"}}})
		var c cms
		body(in.start(&c), "/")
		one := in.start(&c)
		st.feels(only(down, "invalidate"))
		one.PurgeTag(t.Context(), "tag")
		others := []string{"tag"}
		for i := range 20 {
			others = append(others, fmt.Sprint("other ", i))
		}
		one.RevalidateTag(t.Context(), others...) // a third failure, and the Store would count as down
		st.feels(nil)
		if err := one.PurgeTag(t.Context(), "something else"); err != nil {
			t.Fatal(err)
		}
		if got := body(one, "/"); got != "page 2" {
			t.Errorf("got %q", got)
		}
	})
}

// What is purged once more while the Store hears of the first time is told once more.
func TestOwedAnew(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st := &moody{Store: memory.New(), echo: only(slow(time.Second), "invalidate")}
		in := fleet(t, st, isr.Options{})
		var c cms
		one, two := in.start(&c), in.start(&c)
		body(two, "/")
		st.feels(only(down, "invalidate"))
		one.Purge(t.Context(), "/")
		st.feels(nil)
		for told := st.count("invalidate"); st.count("invalidate") == told; {
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(500 * time.Millisecond)
		if got := body(two, "/"); got != "page 2" {
			t.Errorf("after the first purge: %q", got)
		}
		st.feels(only(down, "invalidate"))
		one.Purge(t.Context(), "/")
		st.feels(nil)
		time.Sleep(time.Minute)
		if got := body(two, "/"); got != "page 3" {
			t.Errorf("after the second: %q", got)
		}
	})
}

// A Store that takes no purges is not asked to all the time.
func TestDebtsAreNotUrged(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st := &moody{Store: memory.New()}
		site := fleet(t, st, isr.Options{}).start(&cms{})
		st.feels(only(down, "invalidate"))
		site.PurgeTag(t.Context(), "tag")
		time.Sleep(time.Hour)
		if n := st.count("invalidate"); n < 50 || n > 70 {
			t.Errorf("asked %d times in an hour", n)
		}
	})
}

// A program starts, and its visitors are served, though its Store has never been there.
func TestStoreIsNeverThere(t *testing.T) {
	for name, test := range map[string]struct {
		mood func(t *testing.T) mood
		wait time.Duration
	}{
		"down": {func(*testing.T) mood { return down }, 0},
		"hung": {hung, 200 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				st := &moody{Store: memory.New()}
				st.feels(test.mood(t))
				in := fleet(t, st, isr.Options{})
				var c cms
				site, begin := in.start(&c), time.Now()
				if got := body(site, "/"); got != "page 1" || time.Since(begin) > test.wait {
					t.Errorf("got %q after %v", got, time.Since(begin))
				}
			})
		})
	}
}

// When the Store comes back nothing in it takes the place of what was made since.
func TestOlderThanWhatWasMadeBlind(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st := &moody{Store: memory.New()}
		in := fleet(t, st, isr.Options{Default: isr.Route{TTL: time.Hour}})
		var c cms
		one, two := in.start(&c), in.start(&c)
		body(two, "/")
		time.Sleep(time.Second)
		st.feels(down)
		if got := body(one, "/"); got != "page 2" {
			t.Fatalf("while the Store is down: %q", got)
		}
		st.feels(nil)
		time.Sleep(10 * time.Second)
		for _, want := range []string{"page 2", "page 3"} {
			if got := body(one, "/"); got != want {
				t.Errorf("when it is back: %q, want %q", got, want)
			}
			synctest.Wait()
		}
	})
}
