package isr

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"time"

	"github.com/isr-go/isr/internal/flight"
	"github.com/isr-go/isr/internal/page"
	"github.com/isr-go/isr/internal/pagekey"
	"github.com/isr-go/isr/internal/policy"
)

// ended tells what has come of a run.
func (s *Site) ended(f *flight.Flight, took time.Duration) {
	out := f.Outcome()
	e := s.event(Generated, &f.Key, f.Route)
	e.Duration = took
	switch p := out.Page; {
	case out.Kind == flight.Failed:
		e.Kind, e.Status, e.Err, e.Tags = Failed, out.Status, out.Err, pagekey.PlainTags(f.Tags())
		var stack []slog.Attr
		if out.Stack != nil {
			stack = append(stack, slog.String("stack", string(out.Stack)))
		}
		s.report(e, stack...)
	case p.NotStored != (policy.Refusal{}):
		s.warn(p.Route, p.NotStored, p.Key.Path)
	default:
		e.Status, e.Tags = p.Status, pagekey.PlainTags(p.Subject.Tags)
		e.Changed = s.observe != nil && !p.IsSame(f.Old())
		s.report(e)
	}
}

// damaged tells that what the Store has of a page cannot be read.
func (s *Site) damaged(f *flight.Flight, err error) {
	e := s.event(StoreFailed, &f.Key, f.Route)
	e.Err = err
	s.report(e)
}

// tooLarge tells that a page cannot be shared.
func (s *Site) tooLarge(f *flight.Flight) {
	s.warn(f.Route, policy.Refusal{Why: "is too large for the Store", Remedy: "each instance generates it by itself; make it smaller, or set a smaller MaxPageBytes"}, f.Key.Path)
}

// event returns an event about a page.
func (s *Site) event(kind Kind, k *pagekey.Key, rt *policy.Route) Event {
	return Event{Kind: kind, Host: cmp.Or(k.Host, s.origin.Host), Path: k.Path, Query: k.Query, Route: rt.Pattern}
}

// evicted tells which pages had to go for others.
func (s *Site) evicted(pages []*page.Page) {
	for _, p := range pages {
		e := s.event(Evicted, &p.Key, p.Route)
		e.Status, e.Tags = p.Status, pagekey.PlainTags(p.Subject.Tags)
		s.report(e)
	}
}

// Shutdown waits until the generations under way have ended, or ctx has, whose
// error it then returns. One that has come to its Timeout has ended, whatever its
// handler still does; what is being streamed is the server's to wait for. From the
// call on no generation is started: pages are served as they are stored, requests
// for others go to the handler untouched, and Revalidate and Prerender fail. What
// is on its way to a Store is waited for, too; after that nothing is heard any
// more of what other instances invalidate.
func (s *Site) Shutdown(ctx context.Context) error {
	if s.backing == nil {
		return s.runs.Shutdown(ctx)
	}
	defer s.backing.Close()
	return cmp.Or(s.runs.Shutdown(ctx), s.backing.Wait(ctx))
}

// Why there is no page, where no run says so.
var (
	errClosed = errors.New("the site is shut down")
	errBusy   = errors.New("too many visitors wait for pages that are not stored: Options.MaxGenerations")
)

// generate waits until a fresh page is stored. All that was invalidated before is
// known by the page's key.
func (s *Site) generate(ctx context.Context, req flight.Request) error {
	inside := flight.IsInside(ctx)
	for ctx.Err() == nil {
		p, effect := s.cache.Get(&req.Key, nil)
		if p.View(effect, time.Now()).State == page.Fresh {
			return nil
		}
		w := &flight.Waiter{ByName: true, Inside: inside}
		f, how := s.runs.Join(req, p, w)
		switch {
		case how == flight.Closed:
			return errClosed
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
		case out.Kind == flight.Failed:
			return out.Err
		case out.Kind != flight.Generated:
		case out.Page.NotStored != (policy.Refusal{}):
			return &notStoredError{out.Page.NotStored, out.Status, out.Location}
		default:
			return nil
		}
	}
	return ctx.Err()
}

// A notStoredError says that a page is generated for each visitor anew.
type notStoredError struct {
	why      policy.Refusal
	status   int    // of the response; zero where it has not come to that
	location string // its Location
}

func (e *notStoredError) Error() string { return "not stored: it " + e.why.String() }

// Prerender generates the pages at the given paths, a few at a time, so that the
// first visitors find them; pages that are stored and fresh are left alone. It
// works while its result is ranged over, and yields each path with its error as
// soon as it is done: a failure, a page that may not be stored, a path that is
// none. The loop may be left early. When ctx is done it ends, with ctx's error
// for the paths under way.
//
// Paths are those of Revalidate. A bare path needs Options.Origin, since it does
// not say for which host the page is. The pages are made without a pattern of a
// ServeMux around the Site: where that pattern has path values, or a host beside
// Origin, visitors get pages of their own, unless the wrapped handler is a ServeMux
// itself, which sets its own pattern.
func (s *Site) Prerender(ctx context.Context, paths iter.Seq[string]) iter.Seq2[string, error] {
	type result struct {
		path string
		err  error
	}
	return func(yield func(string, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		results := make(chan result, s.regenerations)
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
			return yield(r.path, r.err)
		}
		for path := range paths {
			if busy == s.regenerations && !next() {
				return
			}
			if ctx.Err() != nil {
				break
			}
			req, err := s.toPrerender(path) // here, where a panic of Bypass or Normalize is the caller's
			if err != nil {
				if !yield(path, err) {
					return
				}
				continue
			}
			busy++
			go func() {
				err := s.generate(ctx, req)
				if err != nil {
					err = fmt.Errorf("isr: prerender %s: %w", path, err)
				}
				results <- result{path, err}
			}()
		}
		for busy > 0 && next() {
		}
	}
}

// toPrerender returns the page that a path given to Prerender names.
func (s *Site) toPrerender(path string) (req flight.Request, err error) {
	t, err := s.parseTarget(path)
	if err != nil {
		return req, err
	}
	req, ok := s.pageOf(t)
	switch {
	case !ok:
		return req, fmt.Errorf("isr: prerender %s: no host: set Options.Origin, or name the page with scheme and host", path)
	case s.bypasses(req):
		return req, fmt.Errorf("isr: prerender %s: its route's Bypass keeps it out of the cache", path)
	}
	s.admit(&t)
	return req, nil
}
