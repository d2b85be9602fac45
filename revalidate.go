package isr

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"net/http"
	"time"

	"github.com/isr-go/isr/internal/changed"
	"github.com/isr-go/isr/internal/expire"
	"github.com/isr-go/isr/internal/flight"
	"github.com/isr-go/isr/internal/front"
	"github.com/isr-go/isr/internal/header"
	"github.com/isr-go/isr/internal/invalidation"
	"github.com/isr-go/isr/internal/pagekey"
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
// after the call, also those whom Options.Edge answers. Otherwise the last good page is
// kept, and the error says what failed.
//
// A path begins with "/" and is matched as the page's key is. Without a query it
// stands for every stored variant: host, query, headers. A whole URL names the
// host and scheme, too. If any path is invalid, nothing changes.
//
// A path that ends in "/*" stands for all that is below it: "/blog/*" for "/blog/" and
// "/blog/1", but not for "/blog"; "/*" for every page. These become stale, as by
// RevalidateTag: nothing is generated before somebody asks, and it takes the same time
// however many pages there are. More than seven segments before the star count as the
// first seven. A star anywhere else is an error: in a path it is written "%2A".
//
// Next.js calls this revalidatePath.
func (s *Site) Revalidate(ctx context.Context, paths ...string) error {
	targets, err := s.routes.Targets(paths)
	if err != nil {
		return err
	}
	return s.revalidate(ctx, targets, store.Stale)
}

// revalidate is Revalidate of targets, with an effect on what is below a path.
func (s *Site) revalidate(ctx context.Context, targets []routing.Target, effect store.Effect) (err error) {
	paths, below := routing.Split(targets)
	defer func() { // also where a Bypass panics
		err = errors.Join(err, s.tellEdge(ctx, order(effect, below), order(store.Expired, paths)))
	}()
	undelivered := errors.Join(
		s.invalidateTargets(ctx, effect, Revalidated, below),
		s.invalidateTargets(ctx, store.Expired, Revalidated, paths))
	renewals := s.renew.Of(paths)
	err = s.renew.Generate(ctx, renewals)
	if moved := s.renew.MovedTo(renewals); len(moved) > 0 {
		alsoUndelivered := s.invalidateTargets(ctx, store.Expired, Revalidated, moved)
		err = errors.Join(err, s.renew.Generate(ctx, s.renew.Of(moved)), alsoUndelivered)
		paths = append(paths, moved...)
	}
	return errors.Join(err, undelivered)
}

// Expire is Revalidate, but nothing is generated before somebody asks for it: no visitor
// gets an old page any more as long as a new one can be had, and the first waits for it.
// What is below a path that ends in "/*" is expired, too. ctx bounds the work on a Store.
func (s *Site) Expire(ctx context.Context, paths ...string) error {
	targets, err := s.routes.Targets(paths)
	if err != nil {
		return err
	}
	for i := range targets {
		s.renew.Admit(&targets[i])
	}
	err = s.invalidateTargets(ctx, store.Expired, Revalidated, targets)
	return errors.Join(err, s.tellEdge(ctx, order(store.Expired, targets)))
}

// Purge drops the pages at the given paths: they are never served again, not
// even where a new one cannot be had. Paths are those of Revalidate; the memory of what is
// below a path that ends in "/*" is freed when it is asked for or evicted. If any path
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
	err := s.invalidateTargets(ctx, store.Gone, Purged, targets)
	for i := range targets {
		for _, p := range s.renew.Pages(&targets[i]) {
			s.cache.Get(&p.Key, nil) // which drops what is gone
		}
	}
	return errors.Join(err, s.tellEdge(ctx, order(store.Gone, targets)))
}

// invalidateTargets has an effect on what is at the targets, and reports it.
func (s *Site) invalidateTargets(ctx context.Context, effect store.Effect, kind Kind, targets []routing.Target) error {
	if len(targets) == 0 {
		return nil
	}
	err := s.invalidate(ctx, effect, routing.Tags(targets)...)
	for i := range targets {
		t := &targets[i]
		e := Event{Kind: kind, Host: cmp.Or(t.Host, s.origin.Host), Path: t.Path, Query: t.Query, Route: t.Route.Pattern}
		if t.Below {
			e.Route = "" // there may be many
		}
		s.report(e)
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

// Renew generates all stored pages with one of the tags anew, those first that were asked
// for most within the last hour, a few at a time. Until its turn each is stale, as after
// RevalidateTag, so that no visitor waits; what ExpireTag has expired stays so. What is
// not stored here any more when its turn comes is left out.
//
// It works while its result is ranged over, and yields each path, with its query, and its
// error as soon as it is done. The path is empty where the error is not one page's:
// there is no tag, or one is invalid, and nothing is done; or the Store has not taken it,
// and other instances may not know of it. The loop may be left early; then, and when ctx
// is done, the rest is renewed when it is next asked for.
func (s *Site) Renew(ctx context.Context, tags ...string) iter.Seq2[string, error] {
	return s.renew.Tagged(ctx, tags, func() error { return s.RevalidateTag(ctx, tags...) })
}

// Warm generates what the builds before this one, and its other instances, were asked for
// within the last hours, most asked for first and a few at a time, so that no visitor waits
// for it: call it before the program reports that it is ready. What is stored and fresh is
// left alone, also in the Store, so that the second instance takes it from there.
//
// It works while its result is ranged over, and yields each path, with its query, and its
// error as soon as it is done. The loop may be left early; ctx bounds it. The path is empty
// where the error is not one page's: there is no Store, it does not answer, or the list there is
// damaged. Each instance writes what it was asked for most into that list once a minute,
// and at Shutdown: at most 1,000 pages, and none with an Authorization in its Vary.
func (s *Site) Warm(ctx context.Context) iter.Seq2[string, error] {
	return s.renew.Warm(ctx, s.builds, &s.patterns)
}

// ExpireTag expires all pages with one of the tags: from now on no visitor gets an old one
// as long as a new one can be had, and nothing is generated before somebody asks for it.
// It takes the same time however many pages have the tag. If any tag is invalid, nothing
// changes. ctx bounds the work on a Store.
//
// Next.js calls this updateTag.
func (s *Site) ExpireTag(ctx context.Context, tags ...string) error {
	return s.invalidateTags(ctx, store.Expired, Revalidated, tags)
}

// PurgeTag drops all pages with one of the tags: they are never served again,
// not even where a new one cannot be had. It takes the same time however many
// pages have the tag; their memory is freed when they are asked for or evicted. If
// any tag is invalid, nothing changes.
func (s *Site) PurgeTag(ctx context.Context, tags ...string) error {
	return s.invalidateTags(ctx, store.Gone, Purged, tags)
}

func (s *Site) invalidateTags(ctx context.Context, effect store.Effect, kind Kind, tags []string) error {
	if err := pagekey.CheckTags(tags); err != nil {
		return err
	}
	tags, named := pagekey.WithBuckets(tags), tags
	err := s.invalidate(ctx, effect, tags...)
	for _, tag := range named {
		s.report(Event{Kind: kind, Tag: tag})
	}
	return errors.Join(err, s.tellEdge(ctx, front.Order{Effect: effect, Names: front.Tags(tags)}))
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

// tellEdge tells the Edge, where there is one, what was invalidated until now.
func (s *Site) tellEdge(ctx context.Context, orders ...front.Order) error {
	if s.front == nil {
		return nil
	}
	return s.front.Tell(ctx, time.Now(), orders...)
}

// An EdgePurge is a path or tag that the Edge was told, or is yet to be told.
type EdgePurge struct {
	Host, Path, Query, Tag, Route string    // as in Event: a path, which may end in "/*", or a tag; no Host: of any
	Soft                          bool      // whether as stale, which is the Edge's soft purge
	Told                          time.Time // zero while it is owed
	Owed                          bool      // whether the Edge has not taken it, or was not yet asked to
	Next                          time.Time // when it is told again, or once more; zero: now, or if it is not owed, not
	Err                           error     // why the Edge has not taken it
}

// EdgePurges returns what the Edge is owed, and then what it was told, the last first: a
// few hundred at most of each.
func (s *Site) EdgePurges() []EdgePurge {
	if s.front == nil {
		return nil
	}
	log := s.front.Log()
	all := make([]EdgePurge, len(log))
	for i, r := range log {
		p := EdgePurge{Tag: r.Tag, Soft: r.Effect == store.Stale, Told: r.Told, Owed: r.Owed, Next: r.Next, Err: r.Err}
		if r.URL != "" {
			p.Tag, p.Path = "", r.URL
			if t, err := s.routes.Target(r.URL); err == nil { // else it was cut
				p.Host, p.Path, p.Query, p.Route = t.Host, t.Path, t.Query, t.Route.Pattern
			}
		}
		all[i] = p
	}
	return all
}

// order returns the order for what is at the targets.
func order(effect store.Effect, targets []routing.Target) front.Order {
	o := front.Order{Effect: effect, Names: make([]front.Name, len(targets))}
	for i := range targets {
		o.Names[i] = front.Name{Tag: targets[i].Tag(), URL: targets[i].URL()}
	}
	return o
}

// change passes on a request that may change the page at its path, and expires
// that page if it does, and those that the answer names.
func (v *visit) change() {
	own, ok := changed.Own(v.r)
	if !ok {
		v.pass(header.Method)
		return
	}
	s, r, host := v.site, v.r, v.host() // a hit's visit stays on the stack
	changes, looked := []expire.Path{{Path: own, Elsewhere: s.mayBeElsewhere(r, own)}}, false
	var tags *expire.Tags
	reported := make(map[string]bool)
	report := func(key string, e Event) {
		if !reported[key] {
			reported[key] = true
			s.report(e)
		}
	}
	v.forward(respwriter.PassConfig{CacheStatus: header.Method, OnSuccess: func(status int, h http.Header, committed bool) {
		if !looked {
			looked = true
			if changed.OnlyCleansPath(r, status, h) {
				changes = nil
				return
			}
			for _, p := range changed.Named([]changed.Path{own}, r, h, s.origin)[1:] {
				changes = append(changes, expire.Path{Path: p, Elsewhere: s.mayBeElsewhere(r, p)})
			}
			tags = s.expire.TagsOf(changed.Groups(h))
		}
		for i := range changes {
			if c := &changes[i]; s.expire.Expire(c, committed) {
				report(c.Canonical, Event{Kind: Revalidated, Host: host, Path: c.Clean})
			}
		}
		for _, tag := range s.expire.ExpireTags(tags, committed) {
			report("\x00"+tag, Event{Kind: Revalidated, Tag: tag})
		}
	}})
}

// mayBeElsewhere reports whether the page that r would change at a path may be stored
// where this instance does not know of it.
func (s *Site) mayBeElsewhere(r *http.Request, p changed.Path) bool {
	if !s.expire.IsElsewhere() {
		return false
	}
	at := r
	if p.URL != r.URL {
		at = r.WithContext(r.Context())
		at.URL = p.URL
	}
	rt := s.routes.Of(at, p.Clean)
	return rt.Bypass == nil || !s.renew.Bypasses(flight.Request{Key: rt.Rules.Key(at, p.Clean, s.origin, &s.patterns), Route: rt})
}

// RevalidateHandler returns a handler with which a CMS renews pages on demand.
// It panics if the secret is empty.
//
// A POST revalidates; so does a GET, for webhooks that can do no other; a DELETE
// purges. What is concerned is named by path and tag, each repeatable, in the
// query or in a form, or as JSON: {"paths": ["/blog/1"], "tags": ["blog"]}, at
// most 1 MiB. Where the query names something, a body is ignored that is larger, of another
// shape, or has an invalid path or tag: a CMS may send one of its own. With expire=1, in the
// query or form, the pages with a tag, or below a path that ends in "/*", are expired
// instead of stale. The secret comes as "Authorization: Bearer …" or as ?secret=…; the
// former does not appear in access logs. With several it is refused.
//
// The answers are JSON and no-store: 200 {"revalidated":true,"pages":{"/blog/1":1}}
// when every page is renewed (those with a tag when they are next asked for), with
// how many were stored here under each path that was named, unless that ends in "/*"; 401 for a wrong secret,
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
	return webhook.Handler(secret, site.checkOrder, site.handleWebhook)
}

// checkOrder reports what is invalid of what a request to a RevalidateHandler names.
func (s *Site) checkOrder(o webhook.Order) error {
	_, err := s.routes.Targets(o.Paths)
	return errors.Join(err, pagekey.CheckTags(o.Tags))
}

// handleWebhook does what a request to a RevalidateHandler asks for.
func (s *Site) handleWebhook(ctx context.Context, o webhook.Order) (map[string]int, error) {
	targets, err := s.routes.Targets(o.Paths)
	if err != nil {
		return nil, err // checkOrder has found none
	}
	pages := make(map[string]int, len(targets))
	for i := range targets {
		if t := &targets[i]; !t.Below {
			pages[o.Paths[i]] = len(s.renew.Stored(t))
		}
	}
	switch {
	case o.Purge:
		err = errors.Join(s.PurgeTag(ctx, o.Tags...), s.purge(ctx, targets))
	case o.Expire:
		err = errors.Join(s.ExpireTag(ctx, o.Tags...), s.revalidate(ctx, targets, store.Expired))
	default:
		err = errors.Join(s.RevalidateTag(ctx, o.Tags...), s.revalidate(ctx, targets, store.Stale))
	}
	if err != nil && s.log != nil {
		s.log.Error("isr: revalidation failed", "error", err)
	}
	return pages, err
}
