package edgekit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isr-go/isr/edge"
	"github.com/isr-go/isr/store"
)

// A product notes what it is told.
type product struct {
	mu       sync.Mutex
	requests []string // "soft a b" or "hard a b"
	at       []time.Duration
	began    time.Time
	takes    time.Duration
	fail     func(n int, items []string) error
}

func (p *product) send(_ context.Context, soft bool, items []string) error {
	p.mu.Lock()
	n := len(p.requests)
	p.requests = append(p.requests, map[bool]string{true: "soft ", false: "hard "}[soft]+strings.Join(items, " "))
	p.at = append(p.at, time.Since(p.began))
	p.mu.Unlock()
	time.Sleep(p.takes)
	if p.fail != nil {
		return p.fail(n, items)
	}
	return nil
}

func bubble(t *testing.T, q *Queue, p *product, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p.began = time.Now()
		q.Name, q.Send = "product", p.send
		f(t)
		synctest.Wait()
		if q.senders != 0 || len(q.waiting[0].named)+len(q.waiting[1].named) != 0 {
			t.Errorf("%d senders are left, and %d items", q.senders, len(q.waiting[0].named)+len(q.waiting[1].named))
		}
	})
}

func names(prefix string, n int) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprintf("%s%d", prefix, i))
	}
	return all
}

func untoldOf(t *testing.T, err error) *edge.UntoldError {
	t.Helper()
	var untold *edge.UntoldError
	if !errors.As(err, &untold) {
		t.Fatalf("%v is no UntoldError", err)
	}
	return untold
}

// What is asked for while a request is under way shares the next one, each name once,
// purges before soft purges.
func TestRequestsAreShared(t *testing.T) {
	p := &product{takes: time.Second}
	q := &Queue{MaxItems: 3}
	bubble(t, q, p, func(t *testing.T) {
		ctx := t.Context()
		var wg sync.WaitGroup
		tell := func(effect store.Effect, items ...string) {
			wg.Go(func() {
				if err := q.Tell(ctx, effect, items); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		tell(store.Gone, "a")
		tell(store.Stale, "s", "s")
		tell(store.Gone, "a", "b")
		tell(store.Expired, "b", "c")
		tell(store.Gone, "d")
		wg.Wait()
		if want := []string{"hard a", "hard a b c", "hard d", "soft s"}; !slices.Equal(p.requests, want) {
			t.Errorf("the requests are %q, want %q", p.requests, want)
		}
	})
}

// A request holds no more than the product takes, in number and in bytes.
func TestBatches(t *testing.T) {
	for _, c := range []struct{ items, bytes, want int }{{0, 0, 1}, {10, 0, 10}, {0, 30, 10}, {7, 30, 15}} {
		p := &product{}
		q := &Queue{MaxItems: c.items, MaxBytes: c.bytes}
		bubble(t, q, p, func(t *testing.T) {
			if err := q.Tell(t.Context(), store.Gone, names("x", 100)); err != nil {
				t.Fatal(err)
			}
			if c.items+c.bytes > 0 && len(p.requests) < c.want || c.items+c.bytes == 0 && len(p.requests) != 1 {
				t.Errorf("%+v: %d requests", c, len(p.requests))
			}
			told := map[string]bool{}
			for _, r := range p.requests {
				items := strings.Fields(r)[1:]
				if c.items > 0 && len(items) > c.items || c.bytes > 0 && len(strings.Join(items, " ")) > c.bytes {
					t.Errorf("%+v: a request for %q", c, items)
				}
				for _, name := range items {
					told[name] = true
				}
			}
			if len(told) != 100 {
				t.Errorf("%d of 100 were told", len(told))
			}
		})
	}
}

// A burst of requests goes out at once; then one each Every.
func TestTokenBucket(t *testing.T) {
	p := &product{}
	q := &Queue{MaxItems: 1, Every: 12 * time.Second, Burst: 3}
	bubble(t, q, p, func(t *testing.T) {
		if err := q.Tell(t.Context(), store.Gone, names("x", 5)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(24 * time.Second)
		if err := q.Tell(t.Context(), store.Gone, names("y", 3)); err != nil {
			t.Fatal(err)
		}
		want := []time.Duration{0, 0, 0, 12 * time.Second, 24 * time.Second, 48 * time.Second, 48 * time.Second, 60 * time.Second}
		if !slices.Equal(p.at, want) {
			t.Errorf("requests at %v, want %v", p.at, want)
		}
	})
}

// Who cannot have a token before the deadline hears that at once, with what was told
// and what was not; so a debt gets smaller with each attempt.
func TestDeadlineBeforeToken(t *testing.T) {
	p := &product{}
	q := &Queue{MaxItems: 2, Every: 12 * time.Second, Burst: 2}
	bubble(t, q, p, func(t *testing.T) {
		owed := names("x", 9)
		for attempt := 1; ; attempt++ {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			began := time.Now()
			err := q.Tell(ctx, store.Gone, owed)
			cancel()
			if time.Since(began) != 0 {
				t.Errorf("attempt %d took %v", attempt, time.Since(began))
			}
			if err == nil {
				break
			}
			untold := untoldOf(t, err)
			if len(untold.Tags) >= len(owed) {
				t.Fatalf("attempt %d: %v", attempt, err)
			}
			if untold.After != 12*time.Second || err.Error() != fmt.Sprintf("%d not told: product takes no more requests for 12s", len(untold.Tags)) {
				t.Errorf("after %v: %v", untold.After, err)
			}
			owed = untold.Tags
			// Nor does a call that comes later wait for nothing.
			ctx, cancel = context.WithTimeout(t.Context(), 11*time.Second)
			if err := q.Tell(ctx, store.Stale, []string{"late"}); !slices.Equal(untoldOf(t, err).Tags, []string{"late"}) {
				t.Error(err)
			}
			cancel()
			time.Sleep(untold.After)
		}
		if len(p.requests) != 5 {
			t.Errorf("%q", p.requests)
		}
	})
}

// A product that is busy is asked again when it says so, and at the third time that is
// an error.
func TestBusy(t *testing.T) {
	p := &product{}
	q := &Queue{MaxItems: 2}
	busy := func(n int, items []string) error {
		if n == 0 {
			return &BusyError{After: 7 * time.Second, Err: errors.New("429")}
		}
		return nil
	}
	p.fail = busy
	bubble(t, q, p, func(t *testing.T) {
		if err := q.Tell(t.Context(), store.Stale, []string{"a", "b"}); err != nil {
			t.Fatal(err)
		}
		if want := []time.Duration{0, 7 * time.Second}; !slices.Equal(p.at, want) {
			t.Errorf("asked at %v, want %v", p.at, want)
		}
	})
	p = &product{fail: busy}
	q = &Queue{}
	bubble(t, q, p, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		untold := untoldOf(t, q.Tell(ctx, store.Gone, []string{"a"}))
		if untold.After != 7*time.Second || untold.Err.Error() != "429" || len(p.requests) != 1 {
			t.Errorf("%v after %v, %q", untold, untold.After, p.requests)
		}
	})
	p = &product{fail: func(int, []string) error { return &BusyError{After: time.Second, Err: errors.New("429")} }}
	q = &Queue{}
	bubble(t, q, p, func(t *testing.T) {
		if untold := untoldOf(t, q.Tell(t.Context(), store.Gone, []string{"a"})); len(p.requests) != maxAttempts || untold.After != time.Second {
			t.Errorf("%v after %v, %q", untold, untold.After, p.requests)
		}
	})
}

// A request that fails is an error for those who asked for what was in it, and for
// nobody else.
func TestFailures(t *testing.T) {
	p := &product{fail: func(_ int, items []string) error {
		if slices.Contains(items, "bad") {
			return errors.New("no")
		}
		return nil
	}}
	q := &Queue{MaxItems: 2}
	bubble(t, q, p, func(t *testing.T) {
		err := q.Tell(t.Context(), store.Gone, []string{"a", "b", "bad", "c", "d", "d"})
		if untold := untoldOf(t, err); !slices.Equal(untold.Tags, []string{"bad", "c"}) || untold.Err.Error() != "no" {
			t.Errorf("%q: %v", untold.Tags, err)
		}
		if err := q.Tell(t.Context(), store.Gone, []string{"c"}); err != nil {
			t.Error(err)
		}
	})
}

// Who leaves is told at once, and takes along what nobody else waits for.
func TestWhoLeaves(t *testing.T) {
	p := &product{takes: time.Minute}
	q := &Queue{MaxItems: 1}
	bubble(t, q, p, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		other := make(chan error, 1)
		go func() { other <- q.Tell(context.Background(), store.Gone, []string{"a", "shared"}) }()
		synctest.Wait()
		began := time.Now()
		err := q.Tell(ctx, store.Gone, []string{"mine", "shared"})
		if untold := untoldOf(t, err); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Second || !slices.Equal(untold.Tags, []string{"mine", "shared"}) {
			t.Errorf("%v after %v: %q", err, time.Since(began), untold.Tags)
		}
		if err := <-other; err != nil {
			t.Error(err)
		}
		if want := []string{"hard a", "hard shared"}; !slices.Equal(p.requests, want) {
			t.Errorf("%q, want %q", p.requests, want)
		}
		if err := q.Tell(ctx, store.Gone, []string{"x"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
	// A sender that waits for a token waits for nobody.
	p = &product{}
	q = &Queue{Every: time.Hour, Burst: 1}
	bubble(t, q, p, func(t *testing.T) {
		if err := q.Tell(t.Context(), store.Gone, []string{"a"}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if err := q.Tell(ctx, store.Gone, []string{"b"}); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		synctest.Wait()
		if time.Since(p.began) != time.Second {
			t.Errorf("the sender has waited for %v", time.Since(p.began))
		}
	})
}

// Nothing is asked where there is nothing to tell.
func TestNothing(t *testing.T) {
	p := &product{}
	q := &Queue{}
	bubble(t, q, p, func(t *testing.T) {
		for _, err := range []error{
			q.Tell(t.Context(), store.Gone, nil), q.Tell(t.Context(), store.None, []string{"a"}), q.TellTags(t.Context(), store.Gone, nil),
		} {
			if err != nil {
				t.Error(err)
			}
		}
		if p.requests != nil {
			t.Errorf("%q", p.requests)
		}
	})
}

// Errors are about tags, as they were given, and not about tokens.
func TestErrorsNameTags(t *testing.T) {
	p := &product{fail: func(_ int, items []string) error { return errors.New("no") }}
	q := &Queue{}
	bubble(t, q, p, func(t *testing.T) {
		tags := []string{"plain", "a b", "\x00/path", "a b"}
		if untold := untoldOf(t, q.TellTags(t.Context(), store.Gone, tags)); !slices.Equal(untold.Tags, tags[:3]) {
			t.Errorf("%q", untold.Tags)
		}
	})
}
