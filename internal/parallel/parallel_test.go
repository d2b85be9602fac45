package parallel_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isr-go/isr/internal/parallel"
)

// Each value comes with its error, no more are under way than asked for, and what
// prepare refuses is not done.
func TestEach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		busy, most, odd := 0, 0, errors.New("odd")
		lock := make(chan struct{}, 1)
		count := func(n int) {
			lock <- struct{}{}
			busy += n
			most = max(most, busy)
			<-lock
		}
		got := maps.Collect(parallel.Each(t.Context(), 3, slices.Values([]string{"a", "b", "", "c", "dd", "e"}),
			func(s string) (int, error) {
				if s == "" {
					return 0, errors.New("empty")
				}
				return len(s), nil
			},
			func(_ context.Context, s string, n int) error {
				count(1)
				defer count(-1)
				time.Sleep(time.Second)
				if n > 1 {
					return odd
				}
				return nil
			}))
		if most != 3 || len(got) != 6 || got["dd"] != odd || got["a"] != nil || got[""] == nil || !strings.Contains(got[""].Error(), "empty") {
			t.Errorf("%d at a time; %v", most, got)
		}
	})
}

// Who leaves the loop ends what is under way, and waits for its end.
func TestEachLeftEarly(t *testing.T) {
	for name, leave := range map[string]func(cancel func()) bool{
		"break":   func(func()) bool { return true },
		"context": func(cancel func()) bool { cancel(); return false },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				begun, ended := make(chan int, 100), make(chan int, 100)
				for v := range parallel.Each(ctx, 2, func(yield func(int) bool) {
					for i := 0; yield(i); i++ {
					}
				}, func(int) (struct{}, error) { return struct{}{}, nil }, func(ctx context.Context, v int, _ struct{}) error {
					begun <- v
					if v > 0 {
						<-ctx.Done()
					}
					ended <- v
					return nil
				}) {
					if v == 0 && leave(cancel) {
						break
					}
				}
				if len(begun) != len(ended) || len(begun) > 3 {
					t.Errorf("%d have begun and %d have ended", len(begun), len(ended))
				}
			})
		})
	}
}
