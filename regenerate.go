package isr

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"log/slog"
	"net/http"
	"time"

	"github.com/isr-go/isr/internal/flight"
	"github.com/isr-go/isr/internal/front"
	"github.com/isr-go/isr/internal/header"
	"github.com/isr-go/isr/internal/inside"
	"github.com/isr-go/isr/internal/page"
	"github.com/isr-go/isr/internal/pagekey"
	"github.com/isr-go/isr/internal/renew"
	"github.com/isr-go/isr/store"
)

// isForbidden reports whether an unknown page was never prerendered, where its route
// demands that. With a Store the run decides it, after a look there.
func (v *visit) isForbidden(path string) bool {
	return v.route.PrerenderedOnly && !v.site.cache.Admits(path) && (v.site.backing == nil || v.site.runs.IsClosed())
}

// getsPlaceholder reports whether the visitor of an unknown page need not wait for it.
// Crawlers wait, and everybody does when the last attempt has failed: an error is
// better than a placeholder for ever.
func (v *visit) getsPlaceholder(p *page.Page, path string) bool {
	return v.route.Placeholder != nil && (!v.route.PrerenderedOnly || v.site.cache.Admits(path)) &&
		!header.IsCrawler(v.r.UserAgent()) && !p.HasFailed() && !v.site.runs.IsClosed()
}

// wait answers with the outcome of a generation, since p, if there is one, is too old
// to be shown. It reports false where what is stored has changed meanwhile: then the
// visit is decided again.
func (v *visit) wait(p *page.Page) bool {
	s, ctx := v.site, v.r.Context()
	w := flight.Waiter{Streams: v.r.Method == http.MethodGet, Inside: flight.IsInside(ctx), Outer: flight.RunOf(ctx)}
	f, how := s.runs.Join(v.request(), p, &w)
	switch how {
	case flight.Changed:
		return false
	case flight.Closed:
		v.passPrivate(header.Bypass)
		return true
	case flight.Circle:
		v.fail(http.StatusLoopDetected, nil, header.CacheStatus{Fwd: "uri-miss", Detail: "circle"}.String())
		v.done(Miss, http.StatusLoopDetected, 0, errCircle)
		return true
	case flight.Full:
		v.busy()
		return true
	}
	defer w.Leave()
	var streams <-chan flight.Stream
	if w.Streams {
		streams = f.Streams()
	}
	var patience, timeout <-chan time.Time
	if d := v.route.Patience; d > 0 && (!p.IsUnknown() || s.backing != nil) {
		t := time.NewTimer(d - time.Since(v.start))
		defer t.Stop()
		patience = t.C
	}
	if w.Queued() || v.waited { // else the run's own deadline suffices
		t := time.NewTimer(v.route.Timeout - time.Since(v.start))
		defer t.Stop()
		timeout = t.C
	}
	v.waited = true
	over := false // whether Patience is
	for found := f.Found(); ; {
		select {
		case <-f.Done():
			w.Leave()
			return v.answer(f, how == flight.Joined)
		case <-found:
			if v.showStale(f) || over && v.meanwhile("patience", nil) {
				return true
			}
			found = f.Found()
		case st := <-streams:
			return v.stream(f, st)
		case <-patience:
			if over = true; v.meanwhile("patience", nil) {
				return true
			}
		case <-timeout:
			if !f.HasStarted() {
				v.busy()
			} else {
				out := f.TimedOut()
				v.failed(&out, f.Forward(how == flight.Joined))
			}
			return true
		case <-ctx.Done():
			// The visitor may still be there, if it was a middleware's deadline: an
			// empty 200 would pass for a page.
			v.r.Pattern = cmp.Or(f.Matches(), v.r.Pattern)
			v.fail(http.StatusServiceUnavailable, nil, "")
			v.done(Miss, http.StatusServiceUnavailable, 0, ctx.Err())
			return true
		}
	}
}

// showStale answers with a page that the run has found in the Store, if it may be
// shown while the run makes a new one. What the run has ended with is its outcome.
func (v *visit) showStale(f *flight.Flight) bool {
	p, effect := v.site.cache.Get(&v.key, nil)
	if view := p.View(effect, time.Now()); view.State == page.Stale && !f.HasEnded() {
		v.site.runs.Join(v.request(), p, nil)
		v.hit(p, view)
		return true
	}
	return false
}

// stream passes on what is too large to be stored.
func (v *visit) stream(f *flight.Flight, st flight.Stream) bool {
	if f.WasInvalidatedSince(v.asked, st.Tags) {
		st.Close()
		return false
	}
	v.r.Pattern = cmp.Or(st.Pattern, v.r.Pattern)
	err := st.Serve(v.w, v.r, f.Route, "isr; fwd=uri-miss; detail=too-large")
	v.done(Miss, st.Status, 0, err)
	if err != nil {
		panic(http.ErrAbortHandler) // so that no client or cache takes the part for the whole
	}
	return true
}

// meanwhile answers with the stored page, if it may be shown while a new one is not to be
// had. It leaves the run behind as background work, like a stale page's: else, where nobody
// waits for long enough, the page would never be renewed.
func (v *visit) meanwhile(detail string, err error) bool {
	p, effect := v.site.cache.Get(&v.key, nil)
	if view := p.View(effect, time.Now()); view.State != page.Fresh && view.IsShowable() && v.site.mode != Develop {
		v.site.runs.Join(v.request(), p, nil)
	}
	return v.standIn(header.CacheStatus{Fwd: "stale", Detail: detail}, err)
}

// busy answers where too many wait for a slot.
func (v *visit) busy() {
	if v.meanwhile("busy", errBusy) {
		return
	}
	v.w.Header().Set("Retry-After", "1")
	v.fail(http.StatusServiceUnavailable, nil, header.CacheStatus{Fwd: "uri-miss", Detail: "busy"}.String())
	v.done(Miss, http.StatusServiceUnavailable, 0, errBusy)
}

// standIn answers with the stored page, if it may be shown where a new one could
// not be had.
func (v *visit) standIn(fwd header.CacheStatus, err error) bool {
	p, effect := v.site.cache.Get(&v.key, nil)
	switch view := p.View(effect, time.Now()); {
	case v.site.mode == Develop:
		return false
	case view.State == page.Fresh: // by another run, begun later
		v.hit(p, view)
	case view.IsShowable():
		v.tags = p.Subject.Tags
		v.done(StaleHit, p.ServeForwarded(v.w, v.r, view, fwd, v.site.cache), view.Age, err)
	default:
		return false
	}
	return true
}

// answer answers with the outcome of a run. It reports false where the visit has to
// be decided again.
func (v *visit) answer(f *flight.Flight, joined bool) bool {
	s, fwd, out := v.site, f.Forward(joined), f.Outcome()
	switch out.Kind {
	case flight.Again:
		return false
	case flight.Busy:
		v.busy()
		return true
	case flight.Nothing:
		v.notFound()
		return true
	case flight.Found:
		return v.loaded(out.Page)
	case flight.Failed:
		v.failed(out, fwd)
		return true
	}
	made := out.Page
	effect := made.Effect(s.table)
	switch {
	case made.IsHitForPass:
		v.passUncacheable()
	case effect != store.None && made.Subject.Since.Clock < v.asked:
		// Something that the page turned out to depend on was invalidated after
		// the run began and, as far as is known here, before the visitor asked. Any
		// run that can be joined from now on has begun since.
		return false
	default:
		fwd.Stored = out.Stored
		view := made.View(effect, time.Now())
		var compared *page.Page // else nothing holds it while it is sent: the visitor may be slow
		if s.mode == Develop {
			fwd.Detail, compared = "develop", made
		} else if view.State != page.Fresh {
			fwd.Detail = "stale" // from the beginning, by isr.TTL or its data, or since then
		}
		v.tags = made.Subject.Tags
		v.done(Miss, made.ServeForwarded(v.w, v.r, view, fwd, s.cache), view.Age, nil)
		v.compare(compared)
	}
	return true
}

// loaded answers with a page that the Store had. It reports false where the visit
// has to be decided again.
func (v *visit) loaded(p *page.Page) bool {
	s := v.site
	switch view := p.View(p.Effect(s.table), v.start); view.State {
	case page.Stale:
		s.runs.Join(v.request(), p, nil)
		fallthrough
	case page.Fresh:
		v.hit(p, view)
		return true
	}
	return false
}

// finds waits until a run has looked into the Store, where there is one, and
// reports whether there is a page now.
func (v *visit) finds(f *flight.Flight) bool {
	if f == nil || !f.WaitForStore(v.r.Context()) {
		return false
	}
	p, _ := v.site.cache.Get(&v.key, nil)
	return !p.IsUnknown()
}

// failed answers where the generation that the visitor has waited for failed:
// with the last good page if that may still be shown, else with the failure.
func (v *visit) failed(out *flight.Outcome, fwd header.CacheStatus) {
	fwd.FwdStatus = out.Status
	old := fwd
	old.Detail = "stale-if-error"
	if v.standIn(old, out.Err) {
		return
	}
	v.r.Pattern = cmp.Or(out.Pattern, v.r.Pattern)
	v.done(Miss, out.Status, 0, out.Err)
	out.Repanic()
	answer, release := v.site.runs.Hold(out.Answer)
	defer release()
	v.fail(out.Status, answer, fwd.String())
}

// Why there is no page, where no run was begun.
var (
	errBusy   = errors.New("too many visitors wait for pages that are not stored: Options.MaxGenerations")
	errCircle = errors.New("the page is asked for to make itself")
)

// Prerender generates the pages at the given paths, a few at a time, so that the
// first visitors find them; pages that are stored and fresh are left alone. It
// works while its result is ranged over, and yields each path with its error as
// soon as it is done: a failure, a page that may not be stored, an invalid path.
// The loop may be left early. When ctx is done it ends, with ctx's error
// for the paths under way.
//
// Paths are those of Revalidate, less those that end in "/*". A bare path needs
// Options.Origin, since it does not say for which host the page is. The page is that of a
// visitor without any headers; see WithHeader for others. It is made without a pattern of
// a ServeMux around the Site: where that pattern has path values, or a host beside
// Origin, visitors get pages of their own, unless the wrapped handler is a ServeMux
// itself, which sets its own pattern.
func (s *Site) Prerender(ctx context.Context, paths iter.Seq[string]) iter.Seq2[string, error] {
	return s.renew.Prerender(ctx, paths)
}

// WithHeader returns a context under which Prerender makes the pages of visitors who send
// this header: one of Route.Vary, or a Cookie with those of Route.VaryCookies. What a
// route does not declare its pages do not depend on. Call it once for each header.
func WithHeader(ctx context.Context, name, value string) context.Context {
	return renew.WithHeader(ctx, name, value)
}

// Shutdown waits until the generations under way have ended, or ctx is done, whose
// error it then returns. One that has reached its Timeout has ended, even if its
// handler still runs; a response that is streamed is waited for by the server. From
// the call on no generation is started: pages are served as they are stored, requests
// for others go to the handler untouched, and Revalidate and Prerender fail. Writes
// to a Store that are under way are waited for, too, and what the Edge is owed; after that
// this Site does not follow what other instances invalidate, and tells an Edge nothing a
// second time.
func (s *Site) Shutdown(ctx context.Context) error {
	err := s.runs.Shutdown(ctx)
	if s.front != nil {
		err = cmp.Or(err, s.front.Close(ctx))
	}
	if s.backing != nil {
		defer s.backing.Close()
		defer s.builds.Close(ctx)
		err = cmp.Or(err, s.backing.Wait(ctx))
	}
	return err
}

// ended reports the outcome of a run.
func (s *Site) ended(f *flight.Flight, took time.Duration) {
	out := f.Outcome()
	e := s.event(Generated, &f.Key, f.Route)
	e.Duration = took
	switch p := out.Page; {
	case out.Kind == flight.Failed:
		e = s.broke(f, out, took)
	case p == nil: // nobody has waited to the end
		e.Kind, e.Err = Failed, context.Canceled
	case p.IsHitForPass:
		s.warn.NotStored(p.Route, p.NotStored(), p.Key.Shown())
		e.Kind, e.Status = Passed, out.Status
		if s.front != nil && p.Removes && !f.Old().IsUnknown() { // it is gone, or not public any more
			k := &p.Key
			scope := pagekey.Scope{Scheme: k.Scheme, Host: k.Host, Path: k.Path, Query: k.Query}
			s.front.Announce(store.Gone, front.Name{Tag: k.NarrowestTag(), URL: scope.URL()})
		}
	default:
		if p.Unshared {
			s.warn.Unshared(p.Route, p.Key.Shown())
		}
		e.Status, e.Tags = p.Status, pagekey.PlainTags(p.Subject.Tags)
		e.Changed = (s.observe != nil || f.Span() != nil) && !p.IsSame(f.Old())
		s.report(e)
	}
	if end, _ := f.Span().(func(Event)); end != nil {
		end(e)
	}
}

// broke reports a failure, if only of a response of which a visitor has a part already.
func (s *Site) broke(f *flight.Flight, out *flight.Outcome, took time.Duration) Event {
	e := s.event(Failed, &f.Key, f.Route)
	e.Duration, e.Status, e.Err, e.Tags = took, out.Status, out.Err, pagekey.PlainTags(f.Tags())
	var stack []slog.Attr
	if out.Stack != nil {
		stack = append(stack, slog.String("stack", string(out.Stack)))
	}
	s.report(e, stack...)
	return e
}

// damaged reports that the Store's record of a page cannot be read.
func (s *Site) damaged(f *flight.Flight, err error) {
	e := s.event(StoreFailed, &f.Key, f.Route)
	e.Err = err
	s.report(e)
}

// Tag says that the page that is being made under ctx depends on the given tags, as the
// handler's Cache-Tag header does: it is for a data layer that has no ResponseWriter.
// With a tag that is none (empty, longer than 256 bytes, or one that begins with "/")
// the page is not stored, and the Logger says so.
//
// Tag, TTL, Until and Fail work at any depth and on any goroutine, until the handler has
// returned, also after it has written its response or answers 304. What they say then
// holds beside what was said of the stored page. Outside of a generation, as in
// a request that passes, they do nothing; after the handler has returned they do nothing,
// and the Logger warns, once for each route.
func Tag(ctx context.Context, tags ...string) { inside.From(ctx).Tag(tags...) }

// TTL says how long the page that is being made under ctx is fresh. Of several the
// shortest counts. It replaces Route.TTL, be that shorter or NoStore, and may shorten the
// handler's Cache-Control and NotFoundTTL, but not lengthen them. With zero or less the
// page is stale from the beginning: it is shown, and renewed whenever it is asked for.
// Caches in front are told no more than Options.SharedMaxAge allows.
func TTL(ctx context.Context, d time.Duration) { inside.From(ctx).TTL(d) }

// Until says that the page that is being made under ctx expires at t, where something is
// published or taken off: from then on visitors wait for a new one. Of several the
// earliest counts. Nothing in front is allowed to hold the page for longer. Leave out what
// has already happened: with a t in the past every visitor waits.
func Until(ctx context.Context, t time.Time) { inside.From(ctx).Until(t) }

// Fail says that the page that is being made under ctx could not be: the generation has
// failed, whatever the handler writes, and whatever recovers from its panic. Of several
// errors the first is the one that Revalidate and Prerender return and the Logger gets.
// Visitors get the last good page where that may be shown, else the handler's own
// failure, where that is what it writes, or a 500.
func Fail(ctx context.Context, err error) { inside.From(ctx).Fail(err) }

// Generating reports whether ctx is that of a page request, or derived from one. Then it
// holds nothing of any visitor.
func Generating(ctx context.Context) bool { return flight.IsInside(ctx) }
