// Package parallel does one thing for many values, a few of them at a time.
package parallel

import (
	"context"
	"iter"
)

// Each calls do for the values of in, at most limit of them at a time, and yields each
// with its error as soon as it is done. Before, it calls prepare on the caller's own
// goroutine: where that fails, do is not called.
//
// The loop may be left early: then the context of the calls under way is done, and Each
// returns when they have returned. It takes no more values once ctx is done.
func Each[V, P any](ctx context.Context, limit int, in iter.Seq[V], prepare func(V) (P, error), do func(context.Context, V, P) error) iter.Seq2[V, error] {
	type result struct {
		v   V
		err error
	}
	return func(yield func(V, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		results := make(chan result, limit)
		busy := 0
		defer func() {
			cancel()
			for ; busy > 0; busy-- {
				<-results
			}
		}()
		next := func() bool {
			r := <-results
			busy--
			return yield(r.v, r.err)
		}
		for v := range in {
			if busy == limit && !next() {
				return
			}
			if ctx.Err() != nil {
				break
			}
			p, err := prepare(v)
			if err != nil {
				if !yield(v, err) {
					return
				}
				continue
			}
			busy++
			go func() { results <- result{v, do(ctx, v, p)} }()
		}
		for busy > 0 && next() {
		}
	}
}
