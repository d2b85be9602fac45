// Package renew generates pages on demand: what is stored at paths that were revalidated,
// and where that leads, and what is stored with a tag.
package renew

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/isr-go/isr/internal/builds"
	"github.com/isr-go/isr/internal/cache"
	"github.com/isr-go/isr/internal/flight"
	"github.com/isr-go/isr/internal/invalidation"
	"github.com/isr-go/isr/internal/page"
	"github.com/isr-go/isr/internal/pagekey"
	"github.com/isr-go/isr/internal/parallel"
	"github.com/isr-go/isr/internal/routing"
	"github.com/isr-go/isr/store"
)

// A Renewer generates pages of one Site. It is safe for concurrent use; its fields are not
// changed.
type Renewer struct {
	Runs   *flight.Group
	Cache  *cache.Cache
	Table  *invalidation.Table
	Routes *routing.Table
	Origin pagekey.Origin
	Limit  int          // how many generations it waits for at a time
	Off    bool         // Tagged and Warm do nothing
	Anew   bool         // Warm does nothing: each visit makes its page
	Log    *slog.Logger // may be nil
}

// A Renewal is a page that is to be generated.
type Renewal struct {
	flight.Request
	target *routing.Target
	stored bool // whether anything was, under the target
	err    error
}

// Pages returns what is in memory at a target, also what is purged. Of a target that is
// below a path it returns nothing: to find that would take a look at every page.
func (r *Renewer) Pages(t *routing.Target) []*page.Page {
	if t.Below {
		return nil
	}
	return r.Cache.At(pagekey.CanonicalPath(t.Path), func(p *page.Page) bool {
		return !p.IsHitForPass && t.Matches(&p.Key)
	})
}

// Stored returns what is stored of a target.
func (r *Renewer) Stored(t *routing.Target) []*page.Page {
	return slices.DeleteFunc(r.Pages(t), func(p *page.Page) bool { return p.Effect(r.Table) == store.Gone })
}

// PageOf returns the page that a visitor who sends the headers gets at a target, where its
// host is known.
func (r *Renewer) PageOf(t *routing.Target, sent http.Header) (req flight.Request, ok bool) {
	k, ok := t.Key(r.Origin, sent)
	return flight.Request{Key: k, Route: t.Route}, ok
}

// Bypasses reports whether the page would never be stored because of its route.
func (r *Renewer) Bypasses(req flight.Request) bool {
	return req.Route.Bypasses(req.Build(context.Background(), r.Origin))
}

// Admit makes a path known to its PrerenderedOnly route.
func (r *Renewer) Admit(t *routing.Target) {
	if t.Below {
		return
	}
	if t.Route.PrerenderedOnly || r.Routes.HasHosts() && t.Host == "" {
		r.Cache.Admit(t.Path)
	}
}

// Of returns what is to be generated now at paths whose pages were expired: the plain
// pages first.
func (r *Renewer) Of(targets []routing.Target) []*Renewal {
	seen := make(map[pagekey.Key]bool)
	var first, others []*Renewal
	for i := range targets {
		t := &targets[i]
		r.Admit(t)
		add := func(list *[]*Renewal, req flight.Request, stored bool) {
			if !seen[req.Key] {
				seen[req.Key] = true
				*list = append(*list, &Renewal{Request: req, target: t, stored: stored})
			}
		}
		stored := r.Stored(t)
		isStored := len(stored) > 0
		plain, more := r.mostAsked(t, stored)
		if plain != nil {
			add(&first, requestOf(plain), true)
		} else if req, ok := r.PageOf(t, nil); ok && !r.Bypasses(req) {
			add(&first, req, isStored)
		}
		for _, p := range more {
			add(&others, requestOf(p), true)
		}
	}
	return append(first, others...)
}

func requestOf(p *page.Page) flight.Request {
	return flight.Request{Key: p.Key, Route: p.Route}
}

// maxVariants is how many variants of a path, beside the plain page, are generated:
// visitors can ask for any number of queries and hosts.
const maxVariants = 16

// mostAsked returns the plain page of a target, if it is among pages, and those of
// the others that were asked for most within the last hour.
func (r *Renewer) mostAsked(t *routing.Target, pages []*page.Page) (plain *page.Page, others []*page.Page) {
	r.Cache.SortByRecentHits(pages, time.Now())
	if i := slices.IndexFunc(pages, func(p *page.Page) bool { return t.IsPlain(&p.Key) }); i >= 0 {
		plain = pages[i]
		pages = slices.Delete(pages, i, i+1)
	}
	return plain, pages[:min(len(pages), maxVariants)]
}

// Generate generates pages, Limit at a time, in this order.
func (r *Renewer) Generate(ctx context.Context, renewals []*Renewal) error {
	errs := make([]error, len(renewals))
	var all sync.WaitGroup
	slots := make(chan struct{}, r.Limit)
	for i, n := range renewals {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			n.err = r.Runs.Generate(ctx, n.Request)
			if notStored := (*flight.NotStoredError)(nil); n.err != nil && !errors.As(n.err, &notStored) {
				errs[i] = fmt.Errorf("isr: revalidate %s: %w", n.Key.Path, n.err)
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// MovedTo returns the paths to which renewals have turned out to redirect, where they
// differ only by the slash at the end.
func (r *Renewer) MovedTo(renewals []*Renewal) (targets []routing.Target) {
	for _, n := range renewals {
		if t, ok := r.movedTo(n); ok {
			targets = append(targets, t)
		}
	}
	return targets
}

// movedTo is MovedTo of one. A path that was not stored and has no page is logged: the
// editor may have named the wrong one.
func (r *Renewer) movedTo(n *Renewal) (t routing.Target, ok bool) {
	status, location := 0, ""
	if notStored := (*flight.NotStoredError)(nil); errors.As(n.err, &notStored) {
		status, location = notStored.Status, notStored.Location
	} else if p := r.Cache.Peek(&n.Key); n.err == nil && !p.IsUnknown() {
		h, _ := p.Header()
		status, location = p.Status, h.Get("Location")
	}
	redirects := status >= 300 && status < 400
	if gone := status == http.StatusNotFound || status == http.StatusGone; r.Log != nil && !n.stored && (redirects || gone) {
		r.Log.Warn("isr: a path was revalidated that was not stored and has no page",
			"path", n.Key.Path, "route", n.Route.Pattern, "status", status)
	}
	path, ok := n.Key.OtherSlash(r.Origin, location)
	if !redirects || !ok {
		return t, false
	}
	scope := n.target.Scope
	scope.Scheme, scope.Host, scope.Path = n.Key.Scheme, n.Key.Host, path
	return r.Routes.At(scope), true
}

// headerKey is the context key of the headers that WithHeader has added.
type headerKey struct{}

// WithHeader returns a context under which toPrerender returns the page of a visitor who
// sends a header, beside those that ctx has already.
func WithHeader(ctx context.Context, name, value string) context.Context {
	h := make(http.Header)
	if before, ok := ctx.Value(headerKey{}).(http.Header); ok {
		h = before.Clone()
	}
	h.Add(name, value)
	return context.WithValue(ctx, headerKey{}, h)
}

// toPrerender returns the page that a path given to Prerender names. It is called where
// a panic of Bypass or Normalize is that of Prerender's caller.
func (r *Renewer) toPrerender(ctx context.Context, path string) (req flight.Request, err error) {
	t, err := r.Routes.Page(path)
	if err != nil {
		return req, err
	}
	sent, _ := ctx.Value(headerKey{}).(http.Header)
	req, ok := r.PageOf(&t, sent)
	switch {
	case !ok:
		return req, fmt.Errorf("isr: prerender %s: no host: set Options.Origin, or name the page with scheme and host", path)
	case r.Bypasses(req):
		return req, fmt.Errorf("isr: prerender %s: its route's Bypass keeps it out of the cache", path)
	}
	r.Admit(&t)
	return req, nil
}

// Prerender generates the pages at paths, Limit at a time, and yields each with its error.
func (r *Renewer) Prerender(ctx context.Context, paths iter.Seq[string]) iter.Seq2[string, error] {
	return parallel.Each(ctx, r.Limit, paths,
		func(path string) (flight.Request, error) { return r.toPrerender(ctx, path) },
		func(ctx context.Context, path string, req flight.Request) error {
			return named("prerender", path, r.Runs.Generate(ctx, req))
		})
}

// named says which page an error is of.
func named(what, page string, err error) error {
	if err != nil {
		err = fmt.Errorf("isr: %s %s: %w", what, page, err)
	}
	return err
}

// each generates pages, Limit at a time, and calls yield with the path and query of each
// and its error.
func (r *Renewer) each(ctx context.Context, what string, pages iter.Seq[flight.Request], yield func(string, error) bool) {
	generated := parallel.Each(ctx, r.Limit, pages,
		func(req flight.Request) (flight.Request, error) { return req, nil },
		func(ctx context.Context, req, _ flight.Request) error {
			return named(what, req.Key.Target(), r.Runs.Generate(ctx, req))
		})
	for req, err := range generated {
		if !yield(req.Key.Target(), err) {
			return
		}
	}
}

// Warm generates what the builds of the program were asked for, most asked for first, Limit
// at a time, and yields each with its error. What is not for the cache any more, or at
// another origin, is left out. A panic of Bypass or Normalize is that of the caller.
func (r *Renewer) Warm(ctx context.Context, k *builds.Keeper, patterns *pagekey.Patterns) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		if r.Off || r.Anew {
			return
		}
		visits, err := k.Visits()
		if err != nil {
			yield("", fmt.Errorf("isr: warm: %w", err))
			return
		}
		seen := make(map[pagekey.Key]bool)
		r.each(ctx, "warm", func(yield func(flight.Request) bool) {
			for _, v := range visits {
				req, ok := r.visited(v, patterns)
				if !ok || seen[req.Key] {
					continue
				}
				seen[req.Key] = true
				if !yield(req) {
					return
				}
			}
		}, yield)
	}
}

// visited returns the page that a visit was for, if it is one of this Site's.
func (r *Renewer) visited(v builds.Visit, patterns *pagekey.Patterns) (req flight.Request, ok bool) {
	if r.Origin.Host != "" && (pagekey.Origin{Scheme: v.Scheme, Host: v.Host}) != r.Origin {
		return req, false
	}
	k := pagekey.Key{Scheme: v.Scheme, Host: v.Host, Path: v.Path, Pattern: v.Pattern, Query: v.Query}
	visit := k.Request(context.Background(), r.Origin)
	maps.Copy(visit.Header, v.Header)
	rt := r.Routes.Of(visit, v.Path)
	if rt.Bypasses(visit) {
		return req, false
	}
	if rt.PrerenderedOnly {
		r.Cache.Admit(v.Path) // as a page that the Store has is known
	}
	key := rt.Rules.Key(visit, v.Path, r.Origin, patterns)
	if rt.Rules.Segment != nil { // of the visitors, which the visit's request does not tell
		key.Variant = rt.Rules.VariantIn(v.Header.Get(pagekey.SegmentHeader), visit.Header)
	}
	return flight.Request{Key: key, Route: rt}, true
}

// errNoTags says that nothing is named.
var errNoTags = errors.New("isr: renew: no tag is named")

// Tagged generates the pages that are stored with one of the tags, those first that were
// asked for most, Limit at a time, and yields each with its error. Before, it calls
// invalidate, which makes them stale. A page with too many tags is generated where it may
// have the tag.
func (r *Renewer) Tagged(ctx context.Context, tags []string, invalidate func() error) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		switch {
		case len(tags) == 0:
			yield("", errNoTags)
			return
		case r.Off:
			return
		}
		if err := invalidate(); err != nil && (!yield("", err) || pagekey.CheckTags(tags) != nil) {
			return
		}
		has := make(map[string]bool)
		for _, tag := range pagekey.WithBuckets(tags) {
			has[tag] = true
		}
		pages := slices.DeleteFunc(r.Cache.All(), func(p *page.Page) bool {
			return p.IsUnknown() || !p.Key.IsPath() || !slices.ContainsFunc(p.Subject.Tags, func(tag string) bool { return has[tag] })
		})
		r.Cache.SortByRecentHits(pages, time.Now())
		r.each(ctx, "renew", func(yield func(flight.Request) bool) {
			for _, p := range pages {
				if now, _ := r.Cache.Get(&p.Key, nil); !now.IsUnknown() && !yield(requestOf(p)) {
					return
				}
			}
		}, yield)
	}
}
