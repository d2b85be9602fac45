package flight

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"net/http"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"github.com/isr-go/isr/internal/header"
	"github.com/isr-go/isr/internal/page"
	"github.com/isr-go/isr/internal/policy"
	"github.com/isr-go/isr/internal/respwriter"
	"github.com/isr-go/isr/store"
)

// run looks into the Store, where there is one, and calls the handler. In every case
// the run ends: with the handler's response, its panic, its Goexit, or at the deadline.
func (f *Flight) run() {
	g := f.g
	defer f.endDropped()
	defer f.end()
	defer f.encode()
	if g.c.Backing != nil && f.fetch() || !f.call() {
		return
	}
	asked := ""         // the pattern of the page request
	var r *http.Request // as the handler gets it
	matched := func() string {
		if r == nil || r.Pattern == asked {
			return ""
		}
		return r.Pattern
	}
	var timer *time.Timer // the deadline
	rec := respwriter.NewRecorder(respwriter.Config{
		Context: f.ctx, Limit: g.c.MaxPageBytes, Budget: g.c.Slow,
		IsFailure: f.Route.IsFailure, Rewrite: f.Route.Rewrite, Refuses: f.Route.Refuses, Renew: f.renewal(),
		RefusesAtEnd: f.refusesAtEnd, Failed: f.scope.Err,
		HandOff: func(st *respwriter.Stream) bool {
			return f.handOff(Stream{st, matched(), f.tagsOf(st.Header)})
		},
		ToTheEnd: f.mattersToTheEnd,
		Broken:   func(res respwriter.Result) { f.broke(failureOf(res)) },
		Left: sync.OnceFunc(func() {
			if f.retakeSlot() {
				timer.Reset(f.Route.Timeout) // it ends as that of any other run does
			}
		}),
		Cancel:    func() { f.ctx.cancel(context.Canceled) },
		KeepAlive: func() { timer.Reset(f.Route.Timeout) },
		Done:      f.recorded,
	})
	timer = time.AfterFunc(f.Route.Timeout, func() { // first the outcome, before the handler sees that its context is done
		if res, ok := rec.TooLarge(); ok {
			f.recorded(res) // however long it is
		} else {
			f.finish(f.TimedOut())
		}
		f.ctx.cancel(context.DeadlineExceeded)
		rec.Abort(ErrTimeout)
		f.releaseSlot()
	})
	returned := false
	stop := context.AfterFunc(f.ctx.base, func() { f.ctx.cancel(f.ctx.base.Err()) })
	defer func() {
		stop()
		timer.Stop()
		f.ctx.cancel(context.Canceled)
		f.scope.Close()
		if returned {
			return
		}
		out := Outcome{Kind: Failed, Err: errGoexit, goexit: true, Status: http.StatusInternalServerError, Pattern: matched()}
		if v := recover(); v != nil {
			out.Err, out.goexit, out.panic = fmt.Errorf("the handler panicked: %v", v), false, v
			if v == http.ErrAbortHandler {
				out.Err = http.ErrAbortHandler
			} else {
				out.Stack = debug.Stack()
			}
		}
		if err := f.scope.Err(); err != nil {
			out.Err = err // that it has failed was said before it panicked
		}
		streaming := rec.IsStreaming()
		rec.Abort(out.Err)
		switch {
		case f.finish(out):
		case streaming:
			f.broke(out)
		case out.Stack != nil && g.c.Log != nil: // it reaches no visitor and no report
			g.c.Log.Error("isr: a handler panicked whose response was not waited for any more",
				"path", f.Key.Shown(), "route", f.Route.Pattern, "error", out.Err, "stack", string(out.Stack))
		}
	}()
	// The handler gets a context of the context package itself: what it derives from
	// that needs no goroutine, through any number of WithValue.
	ctx, cancel := context.WithCancel(f.ctx)
	defer cancel()
	if f.Fetch != nil {
		f.runFetch(ctx, rec)
		returned = true
		return
	}
	r = f.Build(ctx, g.c.Origin)
	asked = r.Pattern
	if f.old != nil && !f.old.HasData && !f.old.Inherited && f.old.Effect(g.c.Table) < store.Expired { // a handler that answers 304 may not have looked at its data
		rec.SetConditional(f.old.Validators().Ask(r.Header))
	}
	g.c.Handler.ServeHTTP(rec, r)
	if rec.Retry() {
		r = f.Build(ctx, g.c.Origin)
		g.c.Handler.ServeHTTP(rec, r)
	}
	f.matched = matched()
	f.scope.Close()
	rec.Finish()
	returned = true
}

// TimedOut returns the Outcome for those who wait no longer, though the handler runs.
func (f *Flight) TimedOut() Outcome {
	return Outcome{Kind: Failed, Err: ErrTimeout, Status: http.StatusGatewayTimeout, Pattern: f.Matches()}
}

// Matches returns the pattern that the handler has presumably matched, while it runs: that
// of the page before, or else what is known of it. The handler's own request cannot be
// looked at before it returns.
func (f *Flight) Matches() string {
	switch old := f.Old(); {
	case f.Fetch != nil:
		return ""
	case old != nil && old.Matched() != "":
		return old.Matched()
	}
	return f.g.c.Matches(f.Build(context.Background(), f.g.c.Origin))
}

// runFetch makes a value.
func (f *Flight) runFetch(ctx context.Context, rec *respwriter.Recorder) {
	v, body, size, err := f.Fetch.Do(ctx)
	f.scope.Close()
	if failed := f.scope.Err(); failed != nil {
		err = failed
	}
	said := f.scope.Said()
	switch {
	case said.BadTag != nil && err == nil:
		err = said.BadTag
		fallthrough
	case err != nil:
		rec.Abort(err)
		f.finish(Outcome{Kind: Failed, Err: err, Status: http.StatusInternalServerError})
		return
	}
	m := f.meta()
	m.Said, f.value = said, v
	why := f.Route.RefusesAtEnd(http.StatusOK, nil, &said)
	if int64(len(body)) > f.g.c.MaxPageBytes {
		why = policy.Refusal{Why: fmt.Sprintf("is larger than MaxPageBytes (%d)", f.g.c.MaxPageBytes), Remedy: "raise it, or load less at a time"}
	}
	p := page.HitForPass(m, why)
	if why == (policy.Refusal{}) {
		p = page.NewValue(m, v, size, body)
	}
	f.finish(Outcome{Page: p, Stale: said.Stale})
}

// call notes that the handler is about to be called, and reports false where the run
// has been dropped meanwhile.
func (f *Flight) call() bool {
	g := f.g
	base := context.Background()
	if g.c.BaseContext != nil {
		base = g.c.BaseContext()
	}
	var span any
	if g.c.Trace != nil && !f.ended.Load() {
		base, span = f.trace(base)
	}
	begin := time.Now()
	ctx := newDeadlineContext(begin.Add(f.Route.Timeout), base, f.scope)
	g.mu.Lock()
	defer g.mu.Unlock()
	f.begin, f.ctx, f.span, f.Cause = begin, ctx, span, nil
	g.longest = max(g.longest, f.Route.Timeout)
	return !f.ended.Load()
}

// renewal returns what updates the stored page by a 304, or nil where there is none.
func (f *Flight) renewal() func(h http.Header) (status int, updated http.Header, ok bool) {
	old := f.old
	if old.IsUnknown() || old.Inherited {
		return nil
	}
	return func(h http.Header) (int, http.Header, bool) {
		if !old.Validators().Match(h) {
			return 0, nil, false
		}
		return old.Status, old.Merge(h), true
	}
}

// tagsOf returns the tags that a response has.
func (f *Flight) tagsOf(h http.Header) []string {
	said := f.scope.Said()
	return f.Route.TagsOf(h, &said)
}

// Depends returns the tags of what the run has made so far.
func (f *Flight) Depends() []string { return f.tagsOf(nil) }

// refusesAtEnd says why a response may not be stored after all.
func (f *Flight) refusesAtEnd(status int, h http.Header) policy.Refusal {
	said := f.scope.Said()
	return f.Route.RefusesAtEnd(status, h, &said)
}

// recorded ends the run with the recorder's Result.
func (f *Flight) recorded(res respwriter.Result) {
	switch res.Kind {
	case respwriter.Page:
		m := f.meta()
		m.Matched, m.Said = f.matched, f.scope.Said()
		f.finish(Outcome{Page: f.zip(page.New(m, res.Status, res.Header, res.Body, f.old)), Stale: m.Said.Stale})
	case respwriter.Renewal:
		m := f.meta()
		m.Matched, m.Said = f.matched, f.scope.Said()
		f.finish(Outcome{Page: f.zip(page.Freshen(m, f.old, res.Header)), Stale: m.Said.Stale})
	case respwriter.Refused:
		mark := page.HitForPass(f.meta(), res.Why)
		mark.Removes = policy.Removes(res.Status, res.Header)
		f.finish(Outcome{Page: mark, Status: res.Status, Location: res.Header.Get("Location")})
	case respwriter.Failure:
		out := failureOf(res)
		out.Pattern = f.matched
		if res.Header != nil {
			out.Answer = &Answer{header.Forwardable(res.Header, res.Body), bytes.Clone(res.Body)}
		}
		f.finish(out)
	}
}

func failureOf(res respwriter.Result) Outcome {
	return Outcome{Kind: Failed, Status: res.Status, Err: res.Err, retryAfter: res.RetryAfter}
}

// mattersToTheEnd reports whether it matters how a response ends that is too large to be
// stored: an editor waits for it, or it is to replace a page.
func (f *Flight) mattersToTheEnd() bool {
	f.g.mu.Lock()
	defer f.g.mu.Unlock()
	return f.editors > 0 || !f.old.IsUnknown()
}

// broke notes that a response has failed of which a visitor has a part already. The run has
// ended with it as one that is too large, and what it has put into the cache is undone.
func (f *Flight) broke(out Outcome) {
	<-f.done
	g := f.g
	switch p := g.c.Cache.Peek(&f.Key); {
	case p == nil:
	case p == f.outcome.Page && !p.Removes:
		g.c.Cache.Drop(p)
	case p.Reinstate(f.seq):
		p.Fail(out.Err, f.began, f.seq, out.retryAfter)
	}
	g.c.Broke(f, &out, time.Since(f.begin))
}

// smallAnswer is how large an answer may be that every visitor gets, however slow they are.
const smallAnswer = 64 << 10

// Hold returns what a visitor gets of an answer, until release is called: nil, where so
// many are slow that there is no memory for one that is so large.
func (g *Group) Hold(a *Answer) (held *Answer, release func()) {
	if a == nil || len(a.Body) <= smallAnswer {
		return a, func() {}
	}
	release, ok := g.c.Slow.Hold(int64(len(a.Body)))
	if !ok {
		return nil, func() {}
	}
	return a, release
}

// zip compresses a page before it is stored, where no visitor waits for it: then no
// visitor gets it without encoding.
func (f *Flight) zip(p *page.Page) *page.Page {
	f.g.mu.Lock()
	f.zipped = f.visitors == 0
	f.g.mu.Unlock()
	if f.zipped {
		f.g.c.Encodings.Gzip(p)
	}
	return p
}

// encode compresses the page that the run has stored, if it has, when those who have
// waited have it.
func (f *Flight) encode() {
	select {
	case <-f.done:
	default:
		return // it has reached its Timeout just now
	}
	runtime.Gosched() // those who have waited go first
	var done <-chan struct{}
	if out := &f.outcome; out.Stored && f.Fetch == nil {
		done = f.g.c.Encodings.Encode(out.Page, f.zipped, f.isByName() || !f.old.IsUnknown())
	}
	if f.encoded != nil {
		f.encoded <- done
	}
}

// A Stream is a response that is too large to be stored, for one of those who wait.
type Stream struct {
	*respwriter.Stream
	Pattern string   // that the handler has matched, where it differs from the request's
	Tags    []string // that the page would have
}

// handOff hands a stream to one of those who wait, if there is one, and no editor waits to
// hear whether it fails. The run's slot goes to the next run: from now on the handler runs
// at the pace of that visitor, until they leave.
func (f *Flight) handOff(o Stream) bool {
	for f.takers.Load() > 0 && !f.isNamed() {
		select {
		case f.offer <- o:
			f.lendSlot()
			f.ctx.open.Store(true)
			return true
		case <-f.left:
			continue
		case <-f.ctx.Done():
		}
		break
	}
	return false
}

// markOf returns the hit-for-pass that is kept in place of what the run has made, or nil
// where that is a page that there is room for.
func (f *Flight) markOf(made *page.Page) *page.Page {
	if made.IsHitForPass {
		return made
	}
	limit := f.g.c.Cache.MaxBytes()
	if made.Size.Load() <= limit {
		return nil
	}
	mark := page.HitForPass(f.meta(), policy.Refusal{Why: fmt.Sprintf("is larger than MaxBytes (%d), with what is kept beside it", limit), Remedy: "raise it"})
	mark.Removes = policy.IsNotFound(made.Status)
	return mark
}

// finish sets the outcome, and reports false where it was set before. The page is
// stored before those who wait get it, and before the next run can begin. The Store
// gets it afterwards.
func (f *Flight) finish(out Outcome) bool {
	if f.ended.Swap(true) {
		return false
	}
	g := f.g
	defer close(f.done)
	defer func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.done(f)
	}()
	if out.Kind == Found || out.Kind == Nothing {
		f.outcome = out
		return true
	}
	took := time.Since(f.begin)
	var evicted []*page.Page
	old := g.c.Cache.Peek(&f.Key)
	if p := out.Page; p != nil {
		p.Took = took
		p.Subject.NotBefore = p.Began().UnixNano()
		if mark := f.markOf(p); mark == nil || mark.Removes || !old.SetAside(g.c.Table, mark) { // else old is kept for errors
			evicted, out.Stored = g.c.Cache.Put(cmp.Or(mark, p), f.isByName())
			out.Stored = out.Stored && (mark == nil || mark == p)
		}
	} else if old != nil && old.Seq <= f.seq {
		old.Fail(out.Err, f.began, f.seq, out.retryAfter)
	} else if old == nil && f.Route.Placeholder != nil {
		p = page.HitForPass(f.meta(), policy.Refusal{Why: "could not be generated"})
		p.Fail(out.Err, f.began, f.seq, 0)
		evicted, _ = g.c.Cache.Put(p, false) // else the placeholder would hide every error
	}
	f.outcome = out
	if len(evicted) > 0 {
		g.c.Evicted(evicted)
	}
	g.c.Ended(f, took)
	return true
}
