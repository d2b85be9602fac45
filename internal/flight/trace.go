package flight

import (
	"context"
	"time"

	"github.com/isr-go/isr/internal/inside"
)

// A Trace is called when a run begins, with what BaseContext returns and the context of
// what has caused it. It returns what the run's context is made on, and what Span returns.
type Trace func(f *Flight, base, cause context.Context) (ctx context.Context, span any)

// A causeContext is that of a visitor, to be looked at and not to be used.
type causeContext struct{ context.Context }

type causeKey struct{}

func (c causeContext) Value(key any) any {
	if key == (causeKey{}) {
		return true
	}
	return c.Context.Value(key)
}

// trace calls Trace, and returns what the run's context is made on. What holds a visitor's
// values is not used.
func (f *Flight) trace(base context.Context) (ctx context.Context, span any) {
	cause := f.Cause
	if cause == nil {
		cause = context.Background()
	}
	inside.Unguarded(cause, func() { ctx, span = f.g.c.Trace(f, base, causeContext{cause}) })
	switch {
	case ctx == nil:
		ctx = base
	case ctx.Value(causeKey{}) != nil:
		f.g.c.Leaks(f.Route)
		ctx = base
	}
	return ctx, span
}

// Span returns what Trace has returned of the run.
func (f *Flight) Span() any { return f.span }

// endDropped reports the end of a run that has begun to call the handler, and for which
// nobody has waited to the end.
func (f *Flight) endDropped() {
	if f.span == nil {
		return
	}
	<-f.done
	if f.dropped {
		f.g.c.Ended(f, time.Since(f.begin))
	}
}
