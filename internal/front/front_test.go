package front_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isr-go/isr/edge"
	"github.com/isr-go/isr/internal/front"
	"github.com/isr-go/isr/store"
)

// A product is an Edge that notes what it is told, and when.
type product struct {
	mu    sync.Mutex
	begin time.Time
	told  []string
	tell  func(ctx context.Context, effect store.Effect, names []string) error // nil: it takes all
}

func newProduct() *product { return &product{begin: time.Now()} }

func (p *product) Mark(http.Header, []string) bool { return true }

func (p *product) Tell(ctx context.Context, effect store.Effect, names []string) error {
	if len(names) == 0 {
		panic("no names")
	}
	p.mu.Lock()
	tell := p.tell
	p.mu.Unlock()
	var err error
	if tell != nil {
		err = tell(ctx, effect, names)
	}
	names = slices.Sorted(slices.Values(names))
	if len(names) > 4 {
		names = append(names[:2:2], fmt.Sprintf("… %d", len(names)))
	}
	what := fmt.Sprintf("%v %d %s", time.Since(p.begin), effect, strings.Join(names, " "))
	if err != nil {
		what += " failed"
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.told = append(p.told, what)
	return err
}

func (p *product) set(tell func(ctx context.Context, effect store.Effect, names []string) error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tell = tell
}

// was compares what was told since the last call.
func (p *product) was(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	if d := cmp.Diff(want, p.told); d != "" {
		t.Errorf("told (-want +got):\n%s", d)
	}
	p.told = nil
}

// forget forgets what was told, and returns in how many calls.
func (p *product) forget() int {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.told)
	p.told = nil
	return n
}

func (p *product) String() string { return "product" }

type config = front.Config

// open returns a Teller of an Edge.
func open(t *testing.T, e edge.Edge, edit ...func(*config)) *front.Teller {
	c := config{
		Edge: e, MaxBytes: 1 << 20, Flight: func() time.Duration { return 30 * time.Second },
		Failed: func(error) {}, Restored: func() {},
	}
	for _, f := range edit {
		f(&c)
	}
	f := front.New(c)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		defer cancel()
		f.Close(ctx)
	})
	return f
}

func tags(names ...string) front.Order {
	return front.Order{Effect: store.Expired, Names: front.Tags(names)}
}

var errDown = errors.New("it is down")

func down(context.Context, store.Effect, []string) error { return errDown }

// What is told is told once more when what was under way has arrived.
func TestOnceMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProduct()
		f := open(t, p)
		if err := f.Tell(t.Context(), time.Now(), tags("a", "b"), front.Order{Effect: store.Stale, Names: front.Tags([]string{"c"})}); err != nil {
			t.Error(err)
		}
		p.was(t, "0s 2 a b", "0s 1 c")
		time.Sleep(10 * time.Second)
		f.Tell(t.Context(), time.Now(), tags("a"))
		p.was(t, "10s 2 a")
		time.Sleep(time.Hour)
		p.was(t, "30s 2 a b", "30s 1 c", "40s 2 a")
	})
}

// In a fleet nothing is told before every instance has heard of it, and what a visitor has
// changed is told at once and then.
func TestFleet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProduct()
		f := open(t, p, func(c *config) { c.Hearing = time.Second })
		f.Tell(t.Context(), time.Now(), tags("a"))
		p.was(t, "1s 2 a")
		time.Sleep(9 * time.Second)
		<-f.Announce(store.Expired, front.Name{Tag: "b"})
		p.was(t, "10s 2 b")
		time.Sleep(time.Hour)
		p.was(t, "11s 2 b", "30s 2 a", "40s 2 b")

		// Who leaves before that leaves a debt.
		p.begin = time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second/2)
		defer cancel()
		if err := f.Tell(ctx, time.Now(), tags("c")); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		time.Sleep(time.Hour)
		p.was(t, "1s 2 c", "30s 2 c")
	})
}

// What could not be told is an error, is owed, and is told when the Edge answers again: in
// seconds, and however long it was down.
func TestOwed(t *testing.T) {
	for _, outage := range []time.Duration{time.Second, time.Minute, 10 * time.Minute, 12 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			p := newProduct()
			failed, restored := 0, 0
			f := open(t, p, func(c *config) {
				c.Failed = func(err error) {
					if err == nil || !strings.Contains(err.Error(), "it is down") {
						t.Error(err)
					}
					failed++
				}
				c.Restored = func() { restored++ }
			})
			p.set(down)
			if err := f.Tell(t.Context(), time.Now(), tags("a")); !errors.Is(err, errDown) {
				t.Errorf("%v", err)
			}
			if n := f.Owed(); n != 1 {
				t.Errorf("%d are owed", n)
			}
			time.Sleep(outage)
			synctest.Wait()
			calls := p.forget()
			if most := 2 + min(int(outage/time.Second)*2, 200) + int(outage/(30*time.Second)); calls > most {
				t.Errorf("it is asked %d times in %v, want at most %d", calls, outage, most)
			}
			if most := 1 + int(outage/time.Minute); failed < 1 || failed > most {
				t.Errorf("%d failures are reported in %v", failed, outage)
			}
			p.set(nil)
			time.Sleep(min(outage/20+time.Second, 30*time.Second))
			synctest.Wait()
			if n := f.Owed(); n != 0 || restored != 1 {
				t.Errorf("after %v %d are owed, restored %d times", outage, n, restored)
			}
			time.Sleep(time.Hour)
		})
	}
}

// Of what an Edge has told in part the rest is owed, no earlier than it says.
func TestOwedInPart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProduct()
		f := open(t, p)
		p.set(func(_ context.Context, _ store.Effect, names []string) error {
			return &edge.UntoldError{Tags: []string{"b"}, After: 12 * time.Second, Err: errDown}
		})
		if err := f.Tell(t.Context(), time.Now(), tags("a", "b", "c")); !errors.Is(err, errDown) {
			t.Errorf("%v", err)
		}
		p.was(t, "0s 2 a b c failed")
		p.set(nil)
		if f.Owed() != 1 {
			t.Errorf("%d are owed", f.Owed())
		}
		time.Sleep(time.Minute)
		p.was(t, "12s 2 b", "30s 2 a b c")
	})
}

// The strongest of several effects is owed, and nothing once it was told.
func TestEffects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProduct()
		f := open(t, p)
		order := func(e store.Effect) error {
			return f.Tell(t.Context(), time.Now(), front.Order{Effect: e, Names: front.Tags([]string{"a"})})
		}
		p.set(func(_ context.Context, effect store.Effect, _ []string) error {
			if effect == store.Gone {
				return errDown
			}
			return nil
		})
		order(store.Gone)
		order(store.Stale)
		if f.Owed() != 1 {
			t.Error("to tell that it is stale is enough for what has gone")
		}
		order(store.Expired)
		if f.Owed() != 0 {
			t.Error("to tell that it has expired is not enough for what has gone")
		}
		p.set(nil)
		time.Sleep(time.Hour)
	})
}

// An Edge that hangs, panics or calls Goexit holds nobody up, is owed what it was told, and
// does not take more goroutines than there are calls.
func TestBadEdge(t *testing.T) {
	for name, tell := range map[string]func(context.Context, store.Effect, []string) error{
		"hangs":        func(context.Context, store.Effect, []string) error { time.Sleep(time.Hour); return nil },
		"panics":       func(context.Context, store.Effect, []string) error { panic("oh") },
		"calls Goexit": func(context.Context, store.Effect, []string) error { runtime.Goexit(); return nil },
	} {
		synctest.Test(t, func(t *testing.T) {
			p := newProduct()
			f := open(t, p)
			p.set(tell)
			begin := time.Now()
			for range 100 {
				err := f.Tell(t.Context(), time.Now(), tags("a"))
				if err == nil || !strings.Contains(err.Error(), "product: ") {
					t.Errorf("%s: %v", name, err)
				}
			}
			if took := time.Since(begin); took > 100*11*time.Second {
				t.Errorf("%s: it took %v", name, took)
			}
			synctest.Wait()
			if n := runtime.NumGoroutine(); n > 100 {
				t.Errorf("%s: %d goroutines", name, n)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			begin = time.Now()
			f.Announce(store.Gone, front.Name{Tag: "b"})
			if f.Tell(ctx, time.Now(), tags("a")); time.Since(begin) > 2*time.Second {
				t.Errorf("%s: who leaves after a second is kept for %v", name, time.Since(begin))
			}
			p.set(nil)
			time.Sleep(3 * time.Hour)
			if f.Owed() > 0 {
				t.Errorf("%s: it is owed something for ever", name)
			}
		})
	}
}

// What is remembered is bounded: at the bound it is everything that is owed.
func TestOwedIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProduct()
		f := open(t, p, func(c *config) { c.MaxBytes = 100 << 10 })
		p.set(down)
		for i := range 10000 {
			f.Tell(t.Context(), time.Now(), tags(fmt.Sprint("tag", i)))
			if n := f.Owed(); n > 400 {
				t.Fatalf("%d are owed", n)
			}
		}
		all := make([]string, 10000)
		for i := range all {
			all[i] = fmt.Sprint("tag", i)
		}
		f.Tell(t.Context(), time.Now(), tags(all...))
		p.set(nil)
		p.forget()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if n := f.Owed(); n > 0 {
			t.Errorf("%d are owed", n)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if !slices.ContainsFunc(p.told, func(s string) bool { return strings.Contains(s, "2 \x00") }) {
			t.Errorf("everything was not told: %q", p.told)
		}
	})
}

// What visitors change is told together, and leaves time to others where the Edge is slow.
func TestVisitorsShareCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProduct()
		f := open(t, p)
		var calls atomic.Int64
		p.set(func(context.Context, store.Effect, []string) error {
			calls.Add(1)
			time.Sleep(10 * time.Second)
			return nil
		})
		for i := range 600 {
			f.Announce(store.Expired, front.Name{Tag: fmt.Sprint("p", i%50)})
			time.Sleep(time.Second)
		}
		if n := calls.Load(); n > 15 {
			t.Errorf("%d calls of ten seconds each in ten minutes", n)
		}
		time.Sleep(time.Hour)
		if f.Owed() > 0 {
			t.Errorf("%d are owed", f.Owed())
		}
	})
}

// Close tells what is owed, and does not wait for what would be told once more.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProduct()
		f := open(t, p)
		p.set(down)
		f.Tell(t.Context(), time.Now(), tags("a"))
		p.set(nil)
		f.Tell(t.Context(), time.Now(), tags("b"))
		begin := time.Now()
		if err := f.Close(t.Context()); err != nil || time.Since(begin) > 0 {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		if n := p.forget(); n < 3 || f.Owed() > 0 {
			t.Errorf("%d calls, %d are owed", n, f.Owed())
		}
		// What comes later is told once.
		f.Tell(t.Context(), time.Now(), tags("c"))
		f.Announce(store.Gone, front.Name{Tag: "d"})
		time.Sleep(time.Hour)
		p.was(t, "0s 2 c", "0s 3 d")
	})
	synctest.Test(t, func(t *testing.T) {
		p := newProduct()
		f := open(t, p)
		p.set(down)
		f.Tell(t.Context(), time.Now(), tags("a"))
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := f.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("with an Edge that is down: %v", err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		if err := open(t, newProduct()).Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// byURL is told by URL what has one.
type byURL struct{ *product }

func (p byURL) TellURLs(ctx context.Context, effect store.Effect, urls []string) error {
	return p.Tell(ctx, effect, append([]string{"URLs:"}, urls...))
}

func TestURLs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProduct()
		f := open(t, byURL{p}, func(c *config) { c.Flight = func() time.Duration { return 0 } })
		o := front.Order{Effect: store.Gone, Names: []front.Name{{Tag: "\x00/a", URL: "/a"}, {Tag: "/a"}, front.Everything}}
		if err := f.Tell(t.Context(), time.Now(), o); err != nil {
			t.Error(err)
		}
		p.was(t, "0s 3 /* URLs:")
		o.Names = o.Names[:2]
		f.Tell(t.Context(), time.Now(), o)
		p.was(t, "0s 3 /a URLs:", "0s 3 /a")
		p.set(func(_ context.Context, _ store.Effect, names []string) error {
			if names[0] == "URLs:" {
				return &edge.UntoldError{Tags: []string{"/a"}, Err: errDown}
			}
			return nil
		})
		if f.Tell(t.Context(), time.Now(), o) == nil || f.Owed() != 1 {
			t.Errorf("%d are owed", f.Owed())
		}
		p.set(nil)
		p.forget()
		time.Sleep(time.Minute)
		p.was(t, "500ms 3 /a URLs:")
	})
}

// The log says what was told, when, and what is owed.
func TestLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProduct()
		f := open(t, p)
		begin := time.Now()
		f.Tell(t.Context(), begin, tags("a", "\x00~07"))
		time.Sleep(time.Second)
		p.set(down)
		f.Tell(t.Context(), begin, tags("b"))
		got := f.Log()
		want := []front.Record{
			{Name: front.Name{Tag: "b"}, Effect: store.Expired, Owed: true, Next: begin.Add(1500 * time.Millisecond), Err: errDown},
			{Name: front.Name{Tag: "a"}, Effect: store.Expired, Told: begin, Next: begin.Add(30 * time.Second)},
		}
		equal := cmp.Comparer(func(a, b error) bool { return errors.Is(a, b) || errors.Is(b, a) })
		if d := cmp.Diff(want, got, equal); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
		p.set(nil)
		time.Sleep(time.Hour)
	})
}

// Mark that panics does not fit.
func TestMarkPanics(t *testing.T) {
	failed := ""
	f := open(t, panics{}, func(c *config) { c.Failed = func(err error) { failed = err.Error() } })
	if f.Mark(http.Header{}, nil) || !strings.Contains(failed, "oh") {
		t.Errorf("it fits: %q", failed)
	}
}

type panics struct{ *product }

func (panics) Mark(http.Header, []string) bool { panic("oh") }

// Editors and visitors at the same time.
func TestConcurrent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProduct()
		f := open(t, p, func(c *config) { c.MaxBytes = 20 << 10 })
		fails := 0
		p.set(func(_ context.Context, _ store.Effect, names []string) error {
			time.Sleep(10 * time.Millisecond)
			p.mu.Lock()
			defer p.mu.Unlock()
			if fails++; fails%3 == 0 {
				return &edge.UntoldError{Tags: names[:1], Err: errDown}
			}
			return nil
		})
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				for j := range 50 {
					if i%2 == 0 {
						f.Announce(store.Effect(1+j%3), front.Name{Tag: fmt.Sprint(j * i)})
						time.Sleep(time.Millisecond)
					} else {
						f.Tell(t.Context(), time.Now(), tags(fmt.Sprint(j), fmt.Sprint(i*j), "all"))
					}
					f.Log()
				}
			})
		}
		wg.Wait()
		p.set(nil)
		time.Sleep(2 * time.Minute)
		if n := f.Owed(); n > 0 {
			t.Errorf("%d are owed", n)
		}
	})
}
