package hints_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isr-go/isr/store/internal/hints"
)

// There is one subscription for all who are there, which outlives the last of them for a
// while, and no longer.
func TestOneSubscription(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var begun, active atomic.Int64
		h := hints.New(func(ctx context.Context, _ func()) {
			begun.Add(1)
			active.Add(1)
			defer active.Add(-1)
			<-ctx.Done()
		})
		is := func(wantBegun, wantActive int64) {
			t.Helper()
			synctest.Wait()
			if begun.Load() != wantBegun || active.Load() != wantActive || h.Active() != (wantActive > 0) {
				t.Errorf("%d subscriptions, %d now, active is %v; want %d and %d", begun.Load(), active.Load(), h.Active(), wantBegun, wantActive)
			}
		}
		is(0, 0)
		for range 10 {
			h.Enter()
		}
		time.Sleep(time.Minute)
		is(1, 1)
		for range 10 {
			h.Leave()
		}
		time.Sleep(1900 * time.Millisecond)
		h.Enter() // as one who follows does
		time.Sleep(time.Minute)
		is(1, 1)
		h.Leave()
		time.Sleep(2100 * time.Millisecond)
		is(1, 0)
		h.Enter()
		is(2, 1)
		h.Leave()
		time.Sleep(time.Minute)
		is(2, 0)
	})
}

// A hint wakes all who wait for one, once.
func TestHint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		message := make(chan struct{})
		h := hints.New(func(ctx context.Context, hint func()) {
			for {
				select {
				case <-message:
					hint()
				case <-ctx.Done():
					return
				}
			}
		})
		h.Enter()
		message <- struct{}{} // for nobody
		one, two := h.Next(), h.Next()
		synctest.Wait()
		select {
		case <-one:
			t.Error("a hint of before")
		default:
		}
		message <- struct{}{}
		<-one
		<-two
		select {
		case <-h.Next():
			t.Error("a hint comes twice")
		default:
		}
		h.Leave()
		time.Sleep(time.Minute)
	})
}

// A subscription that is lost is had again: at once, then after pauses that double up to five
// seconds; and at once when the engine answers again.
func TestTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var attempts atomic.Int64
		h := hints.New(func(context.Context, func()) { attempts.Add(1) })
		h.Enter()
		// The pauses are 0, 50, 150, 350, 750, 1,550 and 3,150 ms, and then 5 s.
		start := time.Now()
		for _, step := range []struct {
			at   time.Duration
			want int64
		}{
			{0, 2}, {50 * time.Millisecond, 3}, {199 * time.Millisecond, 3}, {200 * time.Millisecond, 4}, {550 * time.Millisecond, 5},
			{6 * time.Second, 8}, {61 * time.Second, 19},
		} {
			time.Sleep(step.at - time.Since(start))
			synctest.Wait()
			if got := attempts.Load(); got != step.want {
				t.Errorf("%d attempts after %v, want %d", got, step.at, step.want)
			}
		}
		time.Sleep(time.Second)
		synctest.Wait()
		before := attempts.Load()
		h.Looked(nil) // no news
		h.Looked(errors.New("connection refused"))
		synctest.Wait()
		if got := attempts.Load(); got != before {
			t.Errorf("%d attempts more, before it answers", got-before)
		}
		h.Looked(nil)
		synctest.Wait()
		if got := attempts.Load(); got != before+1 {
			t.Errorf("%d attempts when it answers again, want 1", got-before)
		}
		h.Leave()
		time.Sleep(time.Minute)
	})
}
