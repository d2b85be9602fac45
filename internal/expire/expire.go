// Package expire expires the pages that a visitor's successful unsafe request has changed:
// here, in the Store and in the caches in front. What strangers can make it cost is
// bounded.
package expire

import (
	"slices"
	"time"

	"github.com/isr-go/isr/internal/backing"
	"github.com/isr-go/isr/internal/cache"
	"github.com/isr-go/isr/internal/changed"
	"github.com/isr-go/isr/internal/flight"
	"github.com/isr-go/isr/internal/front"
	"github.com/isr-go/isr/internal/invalidation"
	"github.com/isr-go/isr/internal/pagekey"
	"github.com/isr-go/isr/store"
)

// A Config says where pages are.
type Config struct {
	Runs    *flight.Group
	Cache   *cache.Cache
	Table   *invalidation.Table
	Backing *backing.Store // nil without a Store
	Front   *front.Teller  // nil without an Edge
}

// An Expirer expires pages. It is safe for concurrent use.
type Expirer struct {
	Config

	// How often answers may expire what they name. What is stored here is counted apart:
	// strangers can name any number of paths that do not exist.
	here, elsewhere, tags *changed.Limiter

	// How often what may be stored elsewhere alone may be changed: by requests to its own
	// path, by those to paths that get many, and by what a Location names.
	own, busy, named changed.Bucket
	posts            *changed.Limiter // says which paths get many
}

// New returns an Expirer.
func New(c Config) *Expirer {
	return &Expirer{
		Config: c, here: changed.NewLimiter(), elsewhere: changed.NewLimiter(), tags: changed.NewLimiter(), posts: changed.NewLimiter(),
	}
}

// A Path is one whose pages a request has changed.
type Path struct {
	changed.Path
	Elsewhere bool // whether a page there may be stored where this instance does not know of it

	effect store.Effect
}

// maxWait is how long a visitor's request waits for the Store and the Edge.
const maxWait = 100 * time.Millisecond

// IsElsewhere reports whether pages may be stored where this instance does not know of
// them.
func (e *Expirer) IsElsewhere() bool { return e.Backing != nil || e.Front != nil }

// Expire expires the pages at a path, and reports whether there may be any. Where no page
// is stored and no run under way, nothing is remembered, however many paths
// unauthenticated requests may name; but a Store or an Edge may hold what this instance
// does not. It learns of the change when the answer is committed: when the visitor may
// know that they succeeded.
func (e *Expirer) Expire(p *Path, committed bool) bool {
	here := e.isHere(p.Canonical) || e.isHere(pagekey.TagPath(p.Canonical))
	tag := pagekey.PathTag("", "", p.Canonical) // one for all spellings that expire the same pages
	now, limit := time.Now(), e.here
	if !here {
		if !committed || !p.Elsewhere || !e.mayAnnounce(p, tag, now) {
			return false
		}
		limit = e.elsewhere
	}
	if p.effect == store.None {
		p.effect = store.Expired
		if p.ByLocation && !limit.Allow(tag, now) {
			p.effect = store.Stale
		}
	}
	scope := pagekey.Scope{Path: p.Clean, AllQueries: true}
	e.announce(p.effect, []string{tag}, []front.Name{{Tag: tag, URL: scope.URL()}}, here, committed)
	return true
}

// isHere reports whether a page at a canonical path is stored, or being made.
func (e *Expirer) isHere(path string) bool {
	return e.Runs.Concerns(path) || e.Cache.Holds(path) // in this order: a run ends by storing
}

// mayAnnounce reports whether a change to what is not stored here is told elsewhere. A path
// that gets many requests, such as a login's, takes nothing from others.
func (e *Expirer) mayAnnounce(p *Path, tag string, now time.Time) bool {
	switch {
	case p.ByLocation:
		return e.named.Allow(now)
	case !e.posts.Allow(tag, now):
		return e.busy.Allow(now)
	}
	return e.own.Allow(now)
}

// Tags are those that an answer has named.
type Tags struct {
	by [store.Gone + 1][]string // by effect
}

// TagsOf returns the tags, with the effect that they have: each expires its pages ten
// times a minute, and beyond that turns them stale.
func (e *Expirer) TagsOf(names []string) *Tags {
	t := new(Tags)
	for _, tag := range names {
		effect := store.Expired
		if !e.tags.Allow(tag, time.Now()) {
			effect = store.Stale
		}
		t.by[effect] = append(t.by[effect], tag)
	}
	return t
}

// ExpireTags expires the pages with the tags, and returns those.
func (e *Expirer) ExpireTags(t *Tags, committed bool) (all []string) {
	if t == nil {
		return nil
	}
	for effect, tags := range slices.Backward(t.by[:]) {
		if len(tags) > 0 {
			all = append(all, tags...)
			tags = pagekey.WithBuckets(tags)
			e.announce(store.Effect(effect), tags, front.Tags(tags), true, committed)
		}
	}
	return all
}

// announce has an effect here and, once it is committed, elsewhere.
func (e *Expirer) announce(effect store.Effect, tags []string, names []front.Name, here, committed bool) {
	var timeout <-chan time.Time
	if committed && e.IsElsewhere() {
		timeout = time.After(maxWait)
	}
	switch {
	case committed && e.Backing != nil:
		select {
		case <-e.Backing.Announce(effect, tags...):
		case <-timeout:
			timeout = time.After(0)
		}
	case here:
		e.Table.Invalidate(effect, invalidation.Delivered, tags...)
	}
	if committed && e.Front != nil {
		select {
		case <-e.Front.Announce(effect, names...):
		case <-timeout:
		}
	}
}
