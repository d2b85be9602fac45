// Package page is a stored response: how it is made, judged, encoded for a Store, and
// sent.
package page

import (
	"net/http"
	"sync/atomic"
	"time"
	"unique"

	"github.com/isr-go/isr/internal/invalidation"
	"github.com/isr-go/isr/internal/pagekey"
	"github.com/isr-go/isr/internal/policy"
	"github.com/isr-go/isr/store"
)

// HitForPassTTL is how long requests for a page that may not be stored go straight to
// the handler before the page is tried again.
const HitForPassTTL = 10 * time.Second

// A Page is a stored response, or a hit-for-pass: the note that there is none.
type Page struct {
	// What was generated. Plain data that never changes; see encode.
	Key       pagekey.Key
	Route     *policy.Route
	Subject   invalidation.Subject // what the invalidations are held against
	Generated time.Time
	Lifetime  policy.Lifetime
	plain     representation             // zero for a hit-for-pass
	encoded   atomic.Pointer[[]Encoding] // best first; written before the page is shared, and under cache.Cache.mu
	encoding  atomic.Int32               // whether more of them may come: unfinished, begun or zero
	Place     uint32                     // in the cache; zero: none; guarded by cache.Cache.mu
	Size      atomic.Int64               // in bytes; written as encoded is
	matched   unique.Handle[string]      // the pattern by the handler, as http.Request has it; many pages share it
	Status    int
	Seq       uint64 // which of the Site's generations it is: a later one has more
	Order     Order  // the Store's; zero where it was not to be had
	Took      time.Duration
	extra     *extra // nil for a plain page

	IsHitForPass bool   // whether it is the note that there is no page: see NotStored
	Removes      bool   // for a hit-for-pass: whether there is no page any more, or it is not for everybody
	HasData      bool   // whether the handler has loaded data for it
	Inherited    bool   // whether another build has made it
	Unshared     bool   // whether no cache in front may keep it, since it could not be told of it
	ownControl   bool   // whether the Cache-Control is the handler's
	ownETag      bool   // whether the ETag is the handler's
	saidTags     uint32 // how many of the last tags are by isr.Tag

	Recent Hourly // guarded by cache.Cache.mu

	Hits              atomic.Uint64
	Touched           atomic.Int64                  // the second of the last move to the front of the list
	LeftToLeaderUntil atomic.Int64                  // Unix time in ns until which it is not renewed: another instance does it, or the data is not to be had
	failures          atomic.Pointer[failureRecord] // the failures since
	standby           atomic.Pointer[standby]       // since when this page is kept only for errors, and why, if so
}

// Matched returns the pattern that the handler has matched, empty for none.
func (p *Page) Matched() string {
	if p.matched == (unique.Handle[string]{}) {
		return ""
	}
	return p.matched.Value()
}

// extra is what a plain page does without. It is written before the page is shared.
type extra struct {
	notStored unique.Handle[policy.Refusal] // zero: it is stored
	value     any
	own       []field       // of the handler's header, what does not go out as it is
	upstream  time.Duration // the Age that the page came with, by which Generated is earlier
	saidTTL   time.Duration // by isr.TTL, or below zero
}

// extras returns the page's extra, or that of a plain page.
func (p *Page) extras() extra {
	if p.extra == nil {
		return extra{saidTTL: -1}
	}
	return *p.extra
}

// addExtra returns the page's extra for writing.
func (p *Page) addExtra() *extra {
	if p.extra == nil {
		p.extra = &extra{saidTTL: -1}
	}
	return p.extra
}

// NotStored returns why the response of a hit-for-pass may not be stored.
func (p *Page) NotStored() (why policy.Refusal) {
	if shared := p.extras().notStored; shared != (unique.Handle[policy.Refusal]{}) {
		why = shared.Value()
	}
	return why
}

// Value returns the decoded body of a page of data.
func (p *Page) Value() any { return p.extras().value }

// An Order is the place of a page in the Store's order: what store.Ticket says of it.
type Order struct {
	Version store.Version
	Fence   uint64
}

// OrderOf returns the place of what is made with a ticket.
func OrderOf(t store.Ticket) Order { return Order{t.Version, t.Fence} }

// IsNewerThan reports whether a page from the Store is newer than one that is
// stored here. What was generated without the Store has no place in its order.
func (p *Page) IsNewerThan(old *Page) bool {
	if old.Subject.Since.Offline != 0 {
		return p.Generated.After(old.Generated)
	}
	a, b := p.Order, old.Order
	return store.Ticket{Version: a.Version, Fence: a.Fence}.Compare(store.Ticket{Version: b.Version, Fence: b.Fence}) > 0
}

// Began returns when the generation began. What was invalidated before that does
// not concern the page, so that it is also when a page counts as stale from whose
// invalidation has no known time.
func (p *Page) Began() time.Time { return p.Generated.Add(p.extras().upstream - p.Took) }

// Judge stores in a page what the invalidations did to it.
func (p *Page) Judge(table *invalidation.Table, by *invalidation.Judgements) store.Effect {
	effect := p.Effect(table)
	if mark := p.standby.Load(); mark != nil && !mark.over && !table.SubjectSince(&mark.subject, &p.Key, p.Subject.Tags) { // else it will count as such
		mark.subject.Judge(by, store.None)
	}
	if t := p.failures.Load(); t != nil && !table.Since(&t.began, &p.Key, p.Subject.Tags) { // likewise
		judged := *t
		judged.began = by.Advance(t.began)
		p.failures.CompareAndSwap(t, &judged) // where it fails, there is a newer one
	}
	p.Subject.Judge(by, effect)
	return effect
}

// Effect returns the strongest effect on a page since its generation began.
func (p *Page) Effect(table *invalidation.Table) store.Effect {
	if mark := p.standby.Load(); mark != nil && !mark.over && table.SubjectSince(&mark.subject, &p.Key, p.Subject.Tags) {
		p.standby.CompareAndSwap(mark, &standby{over: true}) // the handler may say something else now
	}
	return table.Effect(&p.Subject, &p.Key)
}

// A Meta is what is known of a page before its response is.
type Meta struct {
	Key      pagekey.Key
	Route    *policy.Route
	Matched  string                // the pattern that the handler has matched
	Since    invalidation.Snapshot // when its generation began
	Seq      uint64                // which of the Site's generations it is: a later one has more
	Order    store.Ticket          // the Store's; zero where it was not to be had
	MaxBytes int64                 // of memory, for all pages
	Codings  []string              // in which there may be encodings, best first
	Said     policy.Said           // from inside of the generation

	// Mark puts the tags into the header for caches in front that can be told (see
	// edge.Edge), and reports whether they fit. Nil: there are none.
	Mark func(h http.Header, tags []string) (fits bool)
}

// IsUnknown reports whether there is no page, or only a hit-for-pass.
func (p *Page) IsUnknown() bool { return p == nil || p.IsHitForPass }
