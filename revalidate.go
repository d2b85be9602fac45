package isr

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/isr-go/isr/internal/changed"
	"github.com/isr-go/isr/internal/flight"
	"github.com/isr-go/isr/internal/invalidation"
	"github.com/isr-go/isr/internal/page"
	"github.com/isr-go/isr/internal/pagekey"
	"github.com/isr-go/isr/internal/policy"
	"github.com/isr-go/isr/internal/respwriter"
	"github.com/isr-go/isr/internal/routing"
	"github.com/isr-go/isr/internal/webhook"
	"github.com/isr-go/isr/store"
)

// Revalidate renews the pages at the given paths. It expires them, so that from
// now on no visitor gets the old ones as long as new ones can be had. It generates
// at once those that are stored, and the one that is not where its host is
// known, MaxRegenerations at a time. Of a path that is stored in many variants these
// are the one without query and headers, and the 16 others that were asked for most
// within the last hour; the rest are generated when they are next asked for. Where a
// page turns out to be a redirect to the same path with or without the slash at its
// end, that path is renewed, too.
//
// Revalidate waits for the pages that it generates, at most until ctx is done;
// what has begun goes on after that, and what has not is generated when it is next
// asked for. A nil error means that every visitor gets a page whose data was read
// after the call. Otherwise the last good page is kept, and the error says what
// failed.
//
// A path begins with "/" and is matched as the page's key is. Without a query it
// stands for every stored variant: host, query, headers. A whole URL names the
// host and scheme, too. If any path is invalid, nothing changes.
//
// Next.js calls this revalidatePath.
func (s *Site) Revalidate(ctx context.Context, paths ...string) error {
	targets, err := s.routes.Targets(paths)
	if err != nil {
		return err
	}
	return s.revalidate(ctx, targets)
}

// revalidate is Revalidate of targets.
func (s *Site) revalidate(ctx context.Context, targets []routing.Target) error {
	renewals, undelivered := s.expire(ctx, targets)
	err := s.renew(ctx, renewals)
	var moved []routing.Target
	for _, r := range renewals {
		if t, ok := s.movedTo(r); ok {
			moved = append(moved, t)
		}
	}
	if len(moved) > 0 {
		more, alsoUndelivered := s.expire(ctx, moved)
		err = errors.Join(err, s.renew(ctx, more), alsoUndelivered)
	}
	return errors.Join(err, undelivered)
}

// A renewal is a page that Revalidate generates.
type renewal struct {
	flight.Request
	target *routing.Target
	stored bool // whether anything was, under the target
	err    error
}

// expire expires what is stored at the targets, and returns what is to be generated
// now: the plain pages first. Its error says that the Store has not taken it.
func (s *Site) expire(ctx context.Context, targets []routing.Target) (renewals []*renewal, err error) {
	err = s.invalidate(ctx, store.Expired, routing.Tags(targets)...)
	seen := make(map[pagekey.Key]bool)
	var others []*renewal
	for i := range targets {
		t := &targets[i]
		s.report(s.targetEvent(Revalidated, t))
		s.admit(t)
		add := func(list *[]*renewal, req flight.Request, stored bool) {
			if !seen[req.Key] {
				seen[req.Key] = true
				*list = append(*list, &renewal{Request: req, target: t, stored: stored})
			}
		}
		stored := s.stored(t)
		if req, ok := s.pageOf(t); ok && len(stored) == 0 && !s.bypasses(req) {
			add(&renewals, req, false)
		}
		plain, more := s.mostAsked(t, stored)
		if plain != nil {
			add(&renewals, flight.Request{Key: plain.Key, Route: plain.Route, Pattern: plain.Pattern}, true)
		}
		for _, p := range more {
			add(&others, flight.Request{Key: p.Key, Route: p.Route, Pattern: p.Pattern}, true)
		}
	}
	return append(renewals, others...), err
}

// maxVariants is how many variants of a path, beside the plain page, Revalidate
// generates: visitors can ask for any number of queries and hosts.
const maxVariants = 16

// mostAsked returns the plain page of a target, if it is among pages, and those of
// the others that were asked for most within the last hour.
func (s *Site) mostAsked(t *routing.Target, pages []*page.Page) (plain *page.Page, others []*page.Page) {
	counts := s.cache.RecentHits(pages, time.Now())
	slices.SortStableFunc(pages, func(a, b *page.Page) int { return cmp.Compare(counts[b], counts[a]) })
	if i := slices.IndexFunc(pages, func(p *page.Page) bool { return t.IsPlain(&p.Key) }); i >= 0 {
		plain = pages[i]
		pages = slices.Delete(pages, i, i+1)
	}
	return plain, pages[:min(len(pages), maxVariants)]
}

// renew generates pages, MaxRegenerations at a time, in this order.
func (s *Site) renew(ctx context.Context, renewals []*renewal) error {
	errs := make([]error, len(renewals))
	var all sync.WaitGroup
	slots := make(chan struct{}, s.regenerations)
	for i, r := range renewals {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			r.err = s.runs.Generate(ctx, r.Request)
			if notStored := (*flight.NotStoredError)(nil); r.err != nil && !errors.As(r.err, &notStored) {
				errs[i] = fmt.Errorf("isr: revalidate %s: %w", r.Key.Path, r.err)
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// movedTo returns the path to which a renewal has turned out to redirect, where it
// differs only by the slash at the end. A path that was not stored and has no page is
// logged: the editor may have named the wrong one.
func (s *Site) movedTo(r *renewal) (t routing.Target, ok bool) {
	status, location := 0, ""
	if notStored := (*flight.NotStoredError)(nil); errors.As(r.err, &notStored) {
		status, location = notStored.Status, notStored.Location
	} else if p := s.cache.Peek(&r.Key); r.err == nil && !p.IsUnknown() {
		h, _ := p.Header()
		status, location = p.Status, h.Get("Location")
	}
	redirects := status >= 300 && status < 400
	if gone := status == http.StatusNotFound || status == http.StatusGone; s.log != nil && !r.stored && (redirects || gone) {
		s.log.Warn("isr: a path was revalidated that was not stored and has no page",
			"path", r.Key.Path, "route", r.Route.Pattern, "status", status)
	}
	path, ok := r.Key.OtherSlash(s.origin, location)
	if !redirects || !ok {
		return t, false
	}
	scope := r.target.Scope
	scope.Scheme, scope.Host, scope.Path = r.Key.Scheme, r.Key.Host, path
	return s.routes.At(scope), true
}

// bypasses reports whether the page would never be stored because of its route.
func (s *Site) bypasses(req flight.Request) bool {
	return req.Route.Bypasses(req.Build(context.Background(), s.origin))
}

// Purge drops the pages at the given paths: they are never served again, not
// even where a new one cannot be had. Paths are those of Revalidate. If any path
// is invalid, nothing changes.
func (s *Site) Purge(ctx context.Context, paths ...string) error {
	targets, err := s.routes.Targets(paths)
	if err != nil {
		return err
	}
	return s.purge(ctx, targets)
}

// purge is Purge of targets.
func (s *Site) purge(ctx context.Context, targets []routing.Target) error {
	err := s.invalidate(ctx, store.Gone, routing.Tags(targets)...)
	for i := range targets {
		for _, p := range s.pages(&targets[i]) {
			s.cache.Get(&p.Key, nil) // which drops what is gone
		}
		s.report(s.targetEvent(Purged, &targets[i]))
	}
	return err
}

// RevalidateTag makes all pages with one of the tags stale: each is served once
// more, and renewed in the background. It takes the same time however many pages
// have the tag. If any tag is invalid, nothing changes. ctx bounds the work on a
// Store; without one there is nothing to wait for.
func (s *Site) RevalidateTag(ctx context.Context, tags ...string) error {
	return s.invalidateTags(ctx, store.Stale, Revalidated, tags)
}

// PurgeTag drops all pages with one of the tags: they are never served again,
// not even where a new one cannot be had. It takes the same time however many
// pages have the tag; their memory is freed when they are asked for or evicted. If
// any tag is invalid, nothing changes.
func (s *Site) PurgeTag(ctx context.Context, tags ...string) error {
	return s.invalidateTags(ctx, store.Gone, Purged, tags)
}

func (s *Site) invalidateTags(ctx context.Context, effect store.Effect, kind Kind, tags []string) error {
	if err := checkTags(tags); err != nil {
		return err
	}
	err := s.invalidate(ctx, effect, pagekey.WithBuckets(tags)...)
	for _, tag := range tags {
		s.report(Event{Kind: kind, Tag: tag})
	}
	return err
}

func checkTags(tags []string) error {
	var errs []error
	for _, tag := range tags {
		if err := pagekey.CheckTag(tag); err != nil {
			errs = append(errs, fmt.Errorf("isr: tag %q: %w", tag, err))
		}
	}
	return errors.Join(errs...)
}

// invalidate has an effect on all pages with one of the tags, here and, where
// there is a Store, in every instance. An error says that the Store has not taken
// it; then it holds here, and is delivered when the Store answers again.
func (s *Site) invalidate(ctx context.Context, effect store.Effect, tags ...string) error {
	if s.backing == nil || len(tags) == 0 {
		s.table.Invalidate(effect, invalidation.Delivered, tags...)
		return nil
	}
	return s.backing.Invalidate(ctx, effect, tags...)
}

// pages returns what is stored of the target.
func (s *Site) pages(t *routing.Target) []*page.Page {
	return s.cache.At(pagekey.CanonicalPath(t.Path), func(p *page.Page) bool {
		return p.NotStored == (policy.Refusal{}) && t.Matches(&p.Key)
	})
}

// stored returns what is stored of the target, less what is purged.
func (s *Site) stored(t *routing.Target) []*page.Page {
	return slices.DeleteFunc(s.pages(t), func(p *page.Page) bool { return p.Effect(s.table) == store.Gone })
}

// pageOf returns the page that a visitor without any headers gets at the target,
// where its host is known.
func (s *Site) pageOf(t *routing.Target) (req flight.Request, ok bool) {
	k, ok := t.Key(s.origin)
	return flight.Request{Key: k, Route: t.Route}, ok
}

// targetEvent returns an event about a target.
func (s *Site) targetEvent(kind Kind, t *routing.Target) Event {
	return Event{Kind: kind, Host: cmp.Or(t.Host, s.origin.Host), Path: t.Path, Query: t.Query, Route: t.Route.Pattern}
}

// change passes on a request that may change the page at its path, and expires
// that page if it does, and those that the answer names.
func (v *visit) change() {
	own, ok := changed.Own(v.r)
	if !ok {
		v.pass(fwdMethod)
		return
	}
	s, r := v.site, v.r // a hit's visit stays on the stack
	changes, looked := []change{{Path: own, elsewhere: s.mayBeElsewhere(r, own)}}, false
	v.forward(respwriter.PassConfig{CacheStatus: fwdMethod, OnSuccess: func(status int, h http.Header, committed bool) {
		if !looked {
			looked = true
			if changed.OnlyCleansPath(r, status, h) {
				changes = nil
				return
			}
			for _, p := range changed.Named([]changed.Path{own}, r, h, s.origin)[1:] {
				changes = append(changes, change{Path: p, elsewhere: s.mayBeElsewhere(r, p)})
			}
		}
		for i := range changes {
			if c := &changes[i]; s.expireChanged(c, committed) && !c.reported {
				c.reported = true
				s.report(Event{Kind: Revalidated, Path: c.Clean})
			}
		}
	}})
}

// A change is a path whose pages a visitor's successful request has changed.
type change struct {
	changed.Path
	elsewhere bool // whether a page there may be stored where this instance does not know of it
	effect    store.Effect
	reported  bool
}

// maxAnnounceTime is how long a visitor's POST waits for the Store.
const maxAnnounceTime = 100 * time.Millisecond

// expireChanged expires the pages at a path that a visitor has changed, and reports
// whether there may be any. Where no page is stored and no run under way, nothing is
// remembered, however many paths unauthenticated requests may name; but a Store may
// hold what this instance does not. It learns of the change when the answer is
// committed: when the visitor may know that they succeeded.
func (s *Site) expireChanged(c *change, committed bool) bool {
	here := s.runs.Concerns(c.Canonical) || s.cache.Holds(c.Canonical) // in this order: a run ends by storing
	tag := pagekey.PathTag("", "", c.Canonical)
	if c.effect == store.None && (here || c.elsewhere) {
		c.effect = store.Expired
		if c.ByLocation && !s.locations.Allow(c.Canonical, time.Now()) {
			c.effect = store.Stale
		}
	}
	switch {
	case here && (s.backing == nil || !committed):
		s.table.Invalidate(c.effect, invalidation.Delivered, tag)
	case committed && (here || c.elsewhere && s.backing.AllowUnknown()):
		select {
		case <-s.backing.Announce(c.effect, tag):
		case <-time.After(maxAnnounceTime):
		}
	default:
		return false
	}
	return true
}

// mayBeElsewhere reports whether the page that r would change at a path may be stored
// where this instance does not know of it.
func (s *Site) mayBeElsewhere(r *http.Request, p changed.Path) bool {
	if s.backing == nil {
		return false
	}
	at := r
	if p.URL != r.URL {
		at = r.WithContext(r.Context())
		at.URL = p.URL
	}
	rt := s.routes.Of(at, p.Clean)
	return rt.Bypass == nil || !s.bypasses(flight.Request{Key: s.key(at, p.Clean, rt), Route: rt})
}

// RevalidateHandler returns a handler with which a CMS renews pages on demand.
// It panics if the secret is empty.
//
// A POST revalidates; so does a GET, for webhooks that can do no other; a DELETE
// purges. What is concerned is named by path and tag, each repeatable, in the
// query or in a form, or as JSON: {"paths": ["/blog/1"], "tags": ["blog"]}, at
// most 1 MiB. Where the query names something, a body of another shape is ignored:
// a CMS may send one of its own. The secret comes as "Authorization: Bearer …" or as
// ?secret=…; the former does not appear in access logs. With several it is refused.
//
// The answers are JSON and no-store: 200 {"revalidated":true,"pages":{"/blog/1":1}}
// when every page is renewed (those with a tag when they are next asked for), with
// how many were stored here under each path that was named; 401 for a wrong secret,
// 400 where nothing is named, or an invalid path or tag, 405, 413, and 500 where a
// page could not be generated: then the last good one is kept, and the reason is
// logged. A path that was not stored and turns out to be a redirect or a 404 is logged
// at Warn.
func RevalidateHandler(site *Site, secret string) http.Handler {
	if site == nil {
		panic("isr: RevalidateHandler: nil site")
	}
	if secret == "" {
		panic("isr: RevalidateHandler: empty secret; with one, only those who know it can renew pages")
	}
	return webhook.Handler(secret, site.handleWebhook)
}

// handleWebhook purges, or revalidates, what a request to a RevalidateHandler names.
func (s *Site) handleWebhook(ctx context.Context, purge bool, paths, tags []string) (map[string]int, error) {
	targets, err := s.routes.Targets(paths)
	if err = errors.Join(err, checkTags(tags)); err != nil {
		return nil, webhook.Invalid{Err: err}
	}
	pages := make(map[string]int, len(targets))
	for i := range targets {
		pages[paths[i]] = len(s.stored(&targets[i]))
	}
	if purge {
		err = errors.Join(s.PurgeTag(ctx, tags...), s.purge(ctx, targets))
	} else {
		err = errors.Join(s.RevalidateTag(ctx, tags...), s.revalidate(ctx, targets))
	}
	if err != nil && s.log != nil {
		s.log.Error("isr: revalidation failed", "error", err)
	}
	return pages, err
}
