package flight

import (
	"github.com/isr-go/isr/internal/page"
	"github.com/isr-go/isr/internal/policy"
	"github.com/isr-go/isr/store"
)

// inherit looks for the page among those of other builds, where nothing is stored of this
// one's. It reports whether the run has ended with that. Of a page that will do it gives the
// lease of its own back first: the renewal behind the visitor would have to wait for it.
func (f *Flight) inherit(own string, lease store.Ticket) (ended bool) {
	g := f.g
	if g.c.Inherit == store.None || f.hasInherited || f.Fetch != nil || g.c.Cache.Peek(&f.Key) != nil {
		return false
	}
	f.hasInherited = true
	before := g.c.Table.Now()
	key, rec, effect := f.elsewhere()
	f.isNowhere = rec == nil
	if rec != nil && g.c.Inherit == store.Stale {
		g.c.Backing.Release(own, lease)
	}
	return rec != nil && f.adopt(key, rec, effect, g.c.Inherit, before)
}

// disinherit has no other build's page inherited any more: this one knows that there is
// none, or that it is not public.
func (f *Flight) disinherit() {
	if f.Fetch != nil || f.isNowhere {
		return
	}
	if _, rec, _ := f.elsewhere(); rec != nil {
		f.g.c.Backing.Announce(store.Gone, f.Key.NarrowestTag())
	}
}

// elsewhere returns what the last of the other builds that has the page has of it, but for
// what is not found there, either.
func (f *Flight) elsewhere() (key string, rec *store.Record, effect store.Effect) {
	g := f.g
	for _, build := range g.c.Builds.Others() {
		key = g.c.Backing.KeyIn(build, &f.Key)
		found, err := g.c.Backing.Look(key, store.Ticket{}, 0)
		if err != nil || found.Record == nil {
			continue
		}
		rec, effect := found.Record, found.Effect
		if p, err := page.Decode(rec.Data, key, page.Meta{Key: f.Key, Route: f.Route}); err == nil && !policy.IsNotFound(p.Status) {
			return key, rec, effect
		}
	}
	return "", nil, store.None
}
