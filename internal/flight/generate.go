package flight

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/isr-go/isr/internal/inside"
	"github.com/isr-go/isr/internal/page"
	"github.com/isr-go/isr/internal/policy"
)

// Why no run is begun.
var (
	ErrClosed = errors.New("the site is shut down")
	errCircle = errors.New("it is asked for to make itself")
)

// Generate waits until a fresh page is stored, or fails with the error of its run. All
// that was invalidated before is known by the page's key.
func (g *Group) Generate(ctx context.Context, req Request) error {
	if g.c.Off {
		return nil
	}
	isInside := IsInside(ctx)
	req.Cause = ctx
	for ctx.Err() == nil {
		p, effect := g.c.Cache.Get(&req.Key, nil)
		if p.View(effect, time.Now()).State == page.Fresh {
			return nil
		}
		w := &Waiter{ByName: true, Inside: isInside, Outer: RunOf(ctx)}
		f, how := g.Join(req, p, w)
		switch {
		case how == Closed:
			return ErrClosed
		case how == Circle:
			return errCircle
		case f == nil:
			continue
		}
		select {
		case <-f.Done():
			w.Leave()
		case <-ctx.Done():
			w.Leave()
			return ctx.Err()
		}
		switch out := f.Outcome(); {
		case out.Kind == Failed:
			return out.Err
		case out.Kind != Generated:
		case out.Page.IsHitForPass:
			return &NotStoredError{out.Page.NotStored(), out.Status, out.Location}
		default:
			g.c.Writing.Await(ctx) // else what is generated faster than the Store takes it would not get there
			return out.Stale
		}
	}
	return ctx.Err()
}

// Try calls answer with a page request, as a run would call the handler with it, until ctx
// is done. It takes no slot, and nothing comes of it.
func (g *Group) Try(ctx context.Context, req Request, answer func(*http.Request)) {
	f := &Flight{Request: req, g: g, began: g.c.Table.Now()}
	f.scope = inside.New(f, g.c.Site, func() {})
	base := context.Background()
	if g.c.BaseContext != nil {
		base = g.c.BaseContext()
	}
	c := newDeadlineContext(time.Now().Add(req.Route.Timeout), base, f.scope)
	defer context.AfterFunc(ctx, func() { c.cancel(ctx.Err()) })()
	defer c.cancel(context.Canceled)
	defer f.scope.Close()
	answer(req.Build(c, g.c.Origin))
}

// A NotStoredError says that the response may not be stored.
type NotStoredError struct {
	Why      policy.Refusal
	Status   int    // of the response; zero where there was none
	Location string // its Location
}

func (e *NotStoredError) Error() string { return "not stored: it " + e.Why.String() }
