package budget_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isr-go/isr/internal/budget"
)

// What is held is no more than the Budget, but for what is alone in it; and what is given
// back can be had again.
func TestHold(t *testing.T) {
	b := budget.New(100)
	one, ok := b.Hold(1000)
	if !ok {
		t.Fatal("one alone")
	}
	if _, ok := b.Hold(1); ok {
		t.Error("beside one that is too large")
	}
	one()
	one()
	two, ok := b.Hold(60)
	if !ok {
		t.Fatal("60 of 100")
	}
	if _, ok := b.Hold(41); ok {
		t.Error("101 of 100")
	}
	if _, ok := b.Hold(40); !ok {
		t.Error("100 of 100")
	}
	two()
	if _, ok := b.Hold(60); !ok {
		t.Error("100 of 100, again")
	}
}

// Who waits goes on when half is free, when the context ends, or after half a second.
func TestAwait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(100)
		release, _ := b.Hold(51)
		took := func(ctx context.Context) time.Duration {
			begin := time.Now()
			b.Await(ctx)
			return time.Since(begin)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 12*time.Millisecond)
		defer cancel()
		if got := took(ctx); got != 12*time.Millisecond {
			t.Errorf("until the context ends: %v", got)
		}
		if got := took(t.Context()); got != 500*time.Millisecond {
			t.Errorf("nothing is given back: %v", got)
		}
		time.AfterFunc(20*time.Millisecond, release)
		if got := took(t.Context()); got > 25*time.Millisecond {
			t.Errorf("after 20ms all is free: %v", got)
		}
		if got := took(t.Context()); got != 0 {
			t.Errorf("all is free: %v", got)
		}
	})
}
