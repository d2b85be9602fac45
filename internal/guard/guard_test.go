package guard_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isr-go/isr/internal/guard"
	"github.com/isr-go/isr/store"
)

// A stub is a store whose methods a test writes.
type stub struct {
	store.Store
	get     func(ctx context.Context) (*store.Record, store.Effect, error)
	begin   func(ctx context.Context) (store.Ticket, error)
	put     func(ctx context.Context) error
	end     func(ctx context.Context, t store.Ticket) error
	purge   func(ctx context.Context) (store.Version, error)
	tags    func(n int) // how many a purge has; nil: nobody asks
	changes func(ctx context.Context, after store.Version) (store.Changes, error)
}

func (s *stub) Look(ctx context.Context, _ string, _ store.Ticket, ttl time.Duration) (rec *store.Record, effect store.Effect, t store.Ticket, err error) {
	if ttl > 0 {
		t, err = s.begin(ctx)
	} else {
		rec, effect, err = s.get(ctx)
	}
	return rec, effect, t, err
}
func (s *stub) Put(ctx context.Context, _ string, _ store.Ticket, _ *store.Record) error {
	return s.put(ctx)
}
func (s *stub) End(ctx context.Context, _ string, t store.Ticket) error { return s.end(ctx, t) }
func (s *stub) Invalidate(ctx context.Context, _ store.Effect, tags ...string) (store.Version, error) {
	if s.tags != nil {
		s.tags(len(tags))
	}
	return s.purge(ctx)
}
func (s *stub) Changes(ctx context.Context, after store.Version) (store.Changes, error) {
	return s.changes(ctx, after)
}

// get looks, without a ticket.
func get(ctx context.Context, g *guard.Guard) (guard.Found, error) {
	return g.Look(ctx, "", store.Ticket{}, 0)
}

// put puts a record that says nothing.
func put(ctx context.Context, g *guard.Guard) error {
	return g.Put(ctx, "", store.Ticket{}, func() *store.Record { return nil }, func() {})
}

func failing(err error) func(context.Context) (*store.Record, store.Effect, error) {
	return func(context.Context) (*store.Record, store.Effect, error) { return nil, 0, err }
}

// What opens the breaker: three failures in a row, and nothing that is none.
func TestBreaker(t *testing.T) {
	broken := errors.New("broken")
	for name, test := range map[string]struct {
		errs   []error
		down   bool
		failed int
	}{
		"three failures": {[]error{broken, broken, broken}, true, 3},
		"not in a row":   {[]error{broken, broken, nil, broken, broken}, false, 4},
		"misses": {[]error{
			store.ErrNotFound, fmt.Errorf("%w: damaged", store.ErrNotFound), store.ErrSuperseded, store.ErrTooLarge,
		}, false, 0},
		"a miss between":   {[]error{broken, broken, store.ErrNotFound, broken, broken}, false, 4},
		"and what follows": {[]error{broken, broken, broken, broken, broken}, true, 3},
	} {
		t.Run(name, func(t *testing.T) {
			var st stub
			failed := 0
			g := guard.New(&st, func(error) { failed++ })
			for _, err := range test.errs {
				st.get = failing(err)
				if err == nil {
					st.get = func(context.Context) (*store.Record, store.Effect, error) { return &store.Record{}, 0, nil }
				}
				if errors.Is(err, store.ErrNotFound) {
					err = nil // which is no error of a look
				}
				if _, got := get(t.Context(), g); err == nil && got != nil || err != nil && !g.Down() && !errors.Is(got, err) {
					t.Errorf("Get: %v, want %v", got, err)
				}
			}
			if g.Down() != test.down || failed != test.failed {
				t.Errorf("down: %v, %d failures; want %v, %d", g.Down(), failed, test.down, test.failed)
			}
			if _, err := get(t.Context(), g); test.down && !errors.Is(err, store.ErrUnavailable) {
				t.Errorf("Get: %v", err)
			}
		})
	}
}

// A caller that cancels its call is no failure of the store.
func TestCancelledCallIsNoFailure(t *testing.T) {
	st := stub{get: func(ctx context.Context) (*store.Record, store.Effect, error) {
		<-ctx.Done()
		return nil, 0, ctx.Err()
	}}
	g := guard.New(&st, func(err error) { t.Errorf("failed: %v", err) })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 5 {
		if _, err := get(ctx, g); !errors.Is(err, context.Canceled) {
			t.Errorf("Get: %v", err)
		}
	}
	if g.Down() {
		t.Error("the store counts as down")
	}
}

// A long list goes to the store in parts, each with a deadline of its own; the version is
// the last one's, and a part that fails ends it.
func TestLongListsInParts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var parts []int
		fails := 0 // the part that does
		st := stub{
			purge: func(context.Context) (store.Version, error) {
				time.Sleep(1900 * time.Millisecond)
				if len(parts) == fails {
					return 0, errors.New("broken")
				}
				return store.Version(len(parts)), nil
			},
			tags: func(n int) { parts = append(parts, n) },
		}
		g := guard.New(&st, func(error) {})
		for tags, want := range map[int][]int{0: {0}, 1: {1}, 2000: {2000}, 2001: {2000, 1}, 7000: {2000, 2000, 2000, 1000}} {
			parts = nil
			v, err := g.Invalidate(t.Context(), store.Gone, make([]string, tags)...)
			if err != nil || !slices.Equal(parts, want) || v != store.Version(len(want)) {
				t.Errorf("%d tags: %v, version %d, %v, want %v", tags, parts, v, err, want)
			}
		}
		parts, fails = nil, 2
		if _, err := g.Invalidate(t.Context(), store.Gone, make([]string, 7000)...); err == nil || len(parts) != 2 {
			t.Errorf("%v after %d parts, want an error after 2", err, len(parts))
		}
	})
}

// Each call ends at its deadline, whatever the store does.
func TestDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		forever := make(chan struct{})
		defer close(forever)
		st := stub{
			get:   func(context.Context) (*store.Record, store.Effect, error) { <-forever; return nil, 0, nil },
			begin: func(context.Context) (store.Ticket, error) { <-forever; return store.Ticket{}, nil },
			put:   func(context.Context) error { <-forever; return nil },
			end:   func(context.Context, store.Ticket) error { <-forever; return nil },
			purge: func(context.Context) (store.Version, error) { <-forever; return 0, nil },
		}
		for name, test := range map[string]struct {
			call func(*guard.Guard) error
			want time.Duration
		}{
			"Look":       {func(g *guard.Guard) error { _, err := get(t.Context(), g); return err }, 100 * time.Millisecond},
			"for ticket": {func(g *guard.Guard) error { _, err := g.Look(t.Context(), "", store.Ticket{}, 1); return err }, 100 * time.Millisecond},
			"Put":        {func(g *guard.Guard) error { return put(t.Context(), g) }, 500 * time.Millisecond},
			"End":        {func(g *guard.Guard) error { return g.End(t.Context(), "", store.Ticket{}) }, 500 * time.Millisecond},
			"Invalidate": {func(g *guard.Guard) error { _, err := g.Invalidate(t.Context(), store.Gone, ""); return err }, 2 * time.Second},
		} {
			start := time.Now()
			if err := test.call(guard.New(&st, func(error) {})); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != test.want {
				t.Errorf("%s: %v after %v, want the deadline's after %v", name, err, time.Since(start), test.want)
			}
		}
	})
}

// A store may take a look's time for longer, or say that it takes the usual.
type slowStub struct {
	stub
	time time.Duration
}

func (s *slowStub) LookTimeout() time.Duration { return s.time }

// How long a look may take is the store's to say.
func TestLookTimeout(t *testing.T) {
	for says, want := range map[time.Duration]time.Duration{0: 100 * time.Millisecond, time.Second: time.Second} {
		synctest.Test(t, func(t *testing.T) {
			st := slowStub{time: says, stub: stub{get: func(ctx context.Context) (*store.Record, store.Effect, error) {
				<-ctx.Done()
				return nil, 0, ctx.Err()
			}}}
			begin := time.Now()
			if _, err := get(t.Context(), guard.New(&st, func(error) {})); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != want {
				t.Errorf("a LookTimeout of %v: %v after %v, want %v", says, err, time.Since(begin), want)
			}
		})
	}
}

// To find nothing is no error; and what no store should return is as good as nothing.
func TestOddAnswers(t *testing.T) {
	for _, test := range []struct {
		rec    *store.Record
		effect store.Effect
		err    error
		found  bool
	}{
		{&store.Record{}, store.None, nil, true},
		{&store.Record{}, store.Gone, nil, true},
		{nil, store.None, nil, false},
		{nil, store.None, store.ErrNotFound, false},
		{&store.Record{}, store.None, fmt.Errorf("no: %w", store.ErrNotFound), false},
		{&store.Record{}, store.None - 1, nil, false},
		{&store.Record{}, store.Gone + 1, nil, false},
	} {
		st := stub{get: func(context.Context) (*store.Record, store.Effect, error) { return test.rec, test.effect, test.err }}
		g := guard.New(&st, func(err error) { t.Errorf("failed: %v", err) })
		want := guard.Found{}
		if test.found {
			want = guard.Found{Record: test.rec, Effect: test.effect}
		}
		if got, err := get(t.Context(), g); err != nil || got != want {
			t.Errorf("%v, %v: %+v, %v", test.rec, test.effect, got, err)
		}
	}
}

// A store that forgets its deadline is left behind, and a lease that it gives out
// after that is given back, even where the caller has gone.
func TestLateLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan store.Ticket, 1)
		st := stub{
			begin: func(context.Context) (store.Ticket, error) {
				time.Sleep(time.Second)
				return store.Ticket{Leader: true, Token: "late"}, nil
			},
			end: func(ctx context.Context, t store.Ticket) error { ended <- t; return ctx.Err() },
		}
		g := guard.New(&st, func(error) {})
		start := time.Now()
		if _, err := g.Look(t.Context(), "", store.Ticket{}, time.Minute); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Look: %v", err)
		}
		if took := time.Since(start); took != 100*time.Millisecond {
			t.Errorf("Look took %v", took)
		}
		if got := <-ended; got.Token != "late" {
			t.Errorf("given back: %v", got)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := g.Look(ctx, "", store.Ticket{}, time.Minute); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Look: %v", err)
		}
		if got := <-ended; got.Token != "late" {
			t.Errorf("given back: %v", got)
		}
	})
}

// Leases that could not be given back are given back when the store answers again, but not
// those that are over by then, nor more of them than a number.
func TestOwedLeases(t *testing.T) {
	for name, test := range map[string]struct {
		leases int
		down   time.Duration
		want   int64 // given back
	}{
		"one":        {1, time.Second, 1},
		"many":       {1000, time.Second, 256},
		"for long":   {1, 20 * time.Second, 1},
		"it is over": {1, 40 * time.Second, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				var down atomic.Bool
				var ended atomic.Int64
				st := stub{
					changes: func(ctx context.Context, _ store.Version) (store.Changes, error) { // also while the rest fails
						select {
						case <-time.After(time.Second):
						case <-ctx.Done():
						}
						return store.Changes{}, ctx.Err()
					},
					end: func(context.Context, store.Ticket) error {
						if down.Load() {
							return errors.New("broken")
						}
						ended.Add(1)
						return nil
					},
				}
				g := guard.New(&st, func(error) {})
				go g.Follow(ctx, func(store.Changes) {}, func() {}, func() {})
				down.Store(true)
				for range test.leases {
					if g.End(t.Context(), "", store.Ticket{Leader: true, Token: "token"}) == nil {
						t.Fatal("given back, by a store that is down")
					}
				}
				g.End(t.Context(), "", store.Ticket{Version: 1}) // no lease
				time.Sleep(test.down)
				down.Store(false)
				time.Sleep(time.Minute)
				if got := ended.Load(); got != test.want {
					t.Errorf("%d were given back, want %d", got, test.want)
				}
			})
		})
	}
}

// Calls that are more than a working store can answer in time get an error that says so,
// and do not count as its failures. Where it answers none of them, they do.
func TestBurst(t *testing.T) {
	for name, test := range map[string]struct {
		takes time.Duration
		slots int // of the store's own
		down  bool
	}{
		"fast":              {time.Millisecond, 3000, false},
		"slow":              {60 * time.Millisecond, 3000, false},
		"just":              {99 * time.Millisecond, 3000, false},
		"too slow":          {101 * time.Millisecond, 3000, true},
		"it hangs":          {time.Hour, 3000, true},
		"one at a time":     {time.Millisecond, 1, false},
		"few at a time":     {30 * time.Millisecond, 4, false},
		"few, and too slow": {101 * time.Millisecond, 4, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				slots := make(chan struct{}, test.slots)
				st := stub{
					get: func(ctx context.Context) (*store.Record, store.Effect, error) {
						select {
						case slots <- struct{}{}:
							defer func() { <-slots }()
						case <-ctx.Done():
							return nil, 0, ctx.Err()
						}
						time.Sleep(test.takes)
						return &store.Record{}, 0, nil
					},
					purge: func(context.Context) (store.Version, error) { return 1, nil },
				}
				var failed atomic.Int64
				g := guard.New(&st, func(error) { failed.Add(1) })
				var all sync.WaitGroup
				var well, busy atomic.Int64
				for range 3000 {
					all.Go(func() {
						switch _, err := get(t.Context(), g); {
						case err == nil:
							well.Add(1)
						case errors.Is(err, store.ErrUnavailable):
							busy.Add(1)
						}
					})
				}
				begin := time.Now()
				all.Wait()
				if took := time.Since(begin); took > 100*time.Millisecond {
					t.Errorf("it took %v", took)
				}
				if test.down != g.Down() || test.down != (failed.Load() > 0) || !test.down && well.Load()+busy.Load() != 3000 {
					t.Errorf("down: %v, %d failures, %d answers, %d busy", g.Down(), failed.Load(), well.Load(), busy.Load())
				}
				if _, err := g.Invalidate(t.Context(), store.Gone, ""); err != nil {
					t.Errorf("Invalidate: %v", err)
				}
				time.Sleep(2 * time.Hour) // until it has come back from all calls
			})
		})
	}
}

// In a crowd, too, a store that stops answering costs the callers nothing after about a
// second, and is reported: whether the crowd fills all slots, or not.
func TestHangInACrowd(t *testing.T) {
	for name, every := range map[string]time.Duration{"dense": time.Millisecond, "less dense": 5 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var hangs atomic.Bool
				forever := make(chan struct{})
				st := stub{get: func(context.Context) (*store.Record, store.Effect, error) {
					if hangs.Load() {
						<-forever
					}
					return &store.Record{}, 0, nil
				}}
				var failed atomic.Int64
				g := guard.New(&st, func(error) { failed.Add(1) })
				if _, err := get(t.Context(), g); err != nil {
					t.Fatal(err)
				}
				hangs.Store(true)
				for range 1500 * time.Millisecond / every {
					go get(t.Context(), g)
					time.Sleep(every)
				}
				begin := time.Now()
				if _, err := get(t.Context(), g); !errors.Is(err, store.ErrUnavailable) || time.Since(begin) > 0 {
					t.Errorf("%v after %v", err, time.Since(begin))
				}
				if failed.Load() == 0 {
					t.Error("nobody is told")
				}
				close(forever)
			})
		})
	}
}

// A call that is late where there is no crowd is a failure, also while the store answers
// others: who looks after it should know.
func TestLateCallIsAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		takes := time.Hour
		st := stub{get: func(context.Context) (*store.Record, store.Effect, error) {
			time.Sleep(takes)
			return &store.Record{}, 0, nil
		}}
		var failed atomic.Int64
		g := guard.New(&st, func(error) { failed.Add(1) })
		go get(t.Context(), g)
		synctest.Wait()
		takes = time.Millisecond
		for range 200 {
			get(t.Context(), g)
		}
		if g.Down() || failed.Load() != 1 {
			t.Errorf("down: %v, %d failures, want 1", g.Down(), failed.Load())
		}
		time.Sleep(time.Hour)
	})
}

// What a store makes of invalidations says nothing of the rest, and the other way round:
// neither is refused, nor has to wait, because the other fails, or hangs in all its slots.
func TestBreakersAreApart(t *testing.T) {
	broken := errors.New("broken")
	for name, fails := range map[string]func(forever chan struct{}) error{
		"fails": func(chan struct{}) error { return broken },
		"hangs": func(forever chan struct{}) error { <-forever; return broken },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				forever := make(chan struct{})
				var looks, purges atomic.Bool // whether they fail
				answer := func(bad *atomic.Bool) error {
					if bad.Load() {
						return fails(forever)
					}
					return nil
				}
				st := stub{
					get: func(context.Context) (*store.Record, store.Effect, error) {
						err := answer(&looks)
						return &store.Record{}, 0, err
					},
					put:   func(context.Context) error { return answer(&looks) },
					purge: func(context.Context) (store.Version, error) { return 1, answer(&purges) },
				}
				atOnce := func(what string, f func() error) {
					t.Helper()
					begin := time.Now()
					if err := f(); err != nil || time.Since(begin) > 0 {
						t.Errorf("%s: %v after %v", what, err, time.Since(begin))
					}
				}
				many := func(f func(*guard.Guard) error) *guard.Guard {
					g := guard.New(&st, func(error) {})
					var all sync.WaitGroup
					for range 600 {
						all.Go(func() { f(g) })
					}
					all.Wait()
					if err := f(g); !errors.Is(err, store.ErrUnavailable) {
						t.Errorf("the store does not count as down: %v", err)
					}
					return g
				}
				look := func(g *guard.Guard) error { _, err := get(t.Context(), g); return err }
				put := func(g *guard.Guard) error { return put(t.Context(), g) }
				purge := func(g *guard.Guard) error { _, err := g.Invalidate(t.Context(), store.Gone, ""); return err }

				looks.Store(true)
				for _, f := range []func(*guard.Guard) error{look, put} {
					g := many(f)
					atOnce("Invalidate", func() error { return purge(g) })
				}
				looks.Store(false)
				purges.Store(true)
				g := many(purge)
				atOnce("Look", func() error { return look(g) })
				atOnce("Put", func() error { return put(g) })
				if g.Down() {
					t.Error("the store counts as down for look-ups")
				}
				close(forever)
			})
		})
	}
}

// A store that fails soon after its recovery has a longer cooldown, however long it was
// down before; one that has worked for long begins anew without any.
func TestCooldownGrowsWithFlapping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := stub{
			get: failing(errors.New("broken")),
			changes: func(context.Context, store.Version) (store.Changes, error) {
				return store.Changes{}, errors.New("broken")
			},
		}
		well := func(context.Context, store.Version) (store.Changes, error) {
			time.Sleep(10 * time.Millisecond)
			return store.Changes{}, nil
		}
		ill := st.changes
		var current atomic.Pointer[func(context.Context, store.Version) (store.Changes, error)]
		st.changes = func(ctx context.Context, after store.Version) (store.Changes, error) {
			return (*current.Load())(ctx, after)
		}
		current.Store(&well)
		g := guard.New(&st, func(error) {})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			g.Follow(ctx, func(store.Changes) {}, func() {}, func() {})
		}()
		fall := func(away time.Duration) time.Duration {
			current.Store(&ill)
			for range 3 {
				get(ctx, g)
			}
			time.Sleep(away)
			current.Store(&well)
			start := time.Now()
			for g.Down() {
				time.Sleep(10 * time.Millisecond)
			}
			return time.Since(start)
		}
		if held := fall(0); held > 200*time.Millisecond {
			t.Errorf("at first it was trusted after %v", held)
		}
		time.Sleep(time.Minute)
		if held := fall(time.Minute); held > 1100*time.Millisecond {
			t.Errorf("after a minute in health it was trusted after %v", held)
		}
		for range 3 {
			fall(0)
		}
		if held := fall(0); held < 7*time.Second {
			t.Errorf("after the fourth relapse it was trusted after %v", held)
		}
		time.Sleep(time.Minute)
		if held := fall(0); held > 200*time.Millisecond {
			t.Errorf("after another minute in health it was trusted after %v", held)
		}
		cancel()
		<-done
		time.Sleep(time.Second)
	})
}

// Only Follow closes the breaker; and where the store is soon down again, later each
// time.
func TestContact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var restored []time.Duration
		start := time.Now()
		st := stub{
			get: failing(errors.New("broken")),
			changes: func(ctx context.Context, after store.Version) (store.Changes, error) {
				time.Sleep(time.Second)
				return store.Changes{Upto: 1}, nil
			},
		}
		g := guard.New(&st, func(error) {})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			g.Follow(ctx, func(store.Changes) {}, func() { restored = append(restored, time.Since(start)) }, func() {})
		}()
		time.Sleep(50 * time.Millisecond) // never at the same moment
		for time.Since(start) < 100*time.Second {
			get(ctx, g)
			time.Sleep(100 * time.Millisecond)
		}
		cancel()
		<-done
		time.Sleep(time.Second) // until the last call returns
		want := []time.Duration{1, 3, 6, 11, 20, 37, 68, 99}
		for i := range want {
			want[i] *= time.Second
		}
		if !slices.Equal(restored, want) {
			t.Errorf("restored at %v, want %v", restored, want)
		}
	})
}

// A store that has nothing to say, but says so at once, is not asked all the time;
// one that hangs is asked again.
func TestFollow(t *testing.T) {
	for name, test := range map[string]struct {
		changes  func(ctx context.Context, after store.Version) (store.Changes, error)
		min, max int64 // calls in a minute
	}{
		"hasty":  {func(context.Context, store.Version) (store.Changes, error) { return store.Changes{}, nil }, 1000, 3100},
		"resets": {func(context.Context, store.Version) (store.Changes, error) { return store.Changes{Reset: true}, nil }, 1000, 3100},
		"fails":  {func(context.Context, store.Version) (store.Changes, error) { return store.Changes{}, errors.New("no") }, 40, 80},
		"hangs": {func(ctx context.Context, _ store.Version) (store.Changes, error) {
			<-ctx.Done()
			return store.Changes{}, ctx.Err()
		}, 10, 20},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var calls atomic.Int64
				st := stub{changes: func(ctx context.Context, after store.Version) (store.Changes, error) {
					calls.Add(1)
					return test.changes(ctx, after)
				}}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				guard.New(&st, func(error) {}).Follow(ctx, func(store.Changes) {}, func() {}, func() {})
				if n := calls.Load(); n < test.min || n > test.max {
					t.Errorf("%d calls in a minute", n)
				}
			})
		})
	}
}

// Each Change comes once, in parts as large as the store likes.
func TestFollowGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := stub{changes: func(ctx context.Context, after store.Version) (store.Changes, error) {
			if after == 10 {
				<-ctx.Done()
				return store.Changes{}, ctx.Err()
			}
			return store.Changes{List: []store.Change{{Version: after + 1}}, Upto: after + 1}, nil
		}}
		ctx, cancel := context.WithCancel(t.Context())
		var got []store.Version
		guard.New(&st, func(error) {}).Follow(ctx, func(c store.Changes) {
			got = append(got, c.List[0].Version)
			if c.Upto == 10 {
				cancel()
			}
		}, func() {}, func() {})
		if want := []store.Version{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}; !slices.Equal(got, want) {
			t.Errorf("got %v", got)
		}
	})
}

// A store that was wiped is followed from where it says; one that goes back without
// saying so is not.
func TestFollowsFrom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		answers := []store.Changes{{Upto: 10}, {Upto: 4}, {Upto: 3, Reset: true}, {Upto: 5}}
		var got []store.Version
		st := stub{changes: func(_ context.Context, after store.Version) (store.Changes, error) {
			got = append(got, after)
			if len(got) > len(answers) {
				cancel()
				return store.Changes{}, ctx.Err()
			}
			return answers[len(got)-1], nil
		}}
		guard.New(&st, func(error) {}).Follow(ctx, func(store.Changes) {}, func() {}, func() {})
		if want := []store.Version{0, 10, 10, 3, 5}; !slices.Equal(got, want) {
			t.Errorf("asked after %v, want %v", got, want)
		}
	})
}

// A call that hangs, whatever its context says, does not keep the next from making
// contact.
func TestFollowsPastACallThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		forever := make(chan struct{})
		defer close(forever)
		var calls atomic.Int64
		st := stub{changes: func(context.Context, store.Version) (store.Changes, error) {
			if calls.Add(1) == 1 {
				<-forever
			}
			return store.Changes{Upto: 1}, nil
		}}
		start, contact := time.Now(), time.Duration(0)
		guard.New(&st, func(error) {}).Follow(ctx, func(store.Changes) {}, func() {}, func() {
			contact = time.Since(start)
			cancel()
		})
		if contact == 0 || contact > 5*time.Second {
			t.Errorf("contact after %v", contact)
		}
	})
}

// To wait for a slot is no failure of the store, however long the calls hang that have them;
// and nobody waits in vain.
func TestOwnSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls, failed atomic.Int64
		forever := make(chan struct{})
		defer close(forever)
		st := stub{
			get: func(context.Context) (*store.Record, store.Effect, error) {
				if calls.Add(1) <= 256 {
					<-forever
				}
				return &store.Record{}, 0, nil
			},
			changes: func(context.Context, store.Version) (store.Changes, error) {
				time.Sleep(time.Second)
				return store.Changes{}, nil
			},
		}
		g := guard.New(&st, func(error) { failed.Add(1) })
		var all sync.WaitGroup
		for range 256 {
			all.Go(func() { get(t.Context(), g) })
		}
		all.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			g.Follow(ctx, func(store.Changes) {}, func() {}, func() {})
		}()
		time.Sleep(5 * time.Second)
		before := failed.Load()
		for range 10 {
			begin := time.Now()
			if _, err := get(t.Context(), g); !errors.Is(err, store.ErrUnavailable) || time.Since(begin) > 0 {
				t.Errorf("all slots are taken: %v after %v", err, time.Since(begin))
			}
		}
		if g.Down() || failed.Load() != before {
			t.Errorf("down: %v, %d failures more", g.Down(), failed.Load()-before)
		}
		cancel()
		<-done
		time.Sleep(time.Minute) // until the last call returns
	})
}
