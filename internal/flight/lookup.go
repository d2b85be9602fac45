package flight

import (
	"context"
	"errors"
	"time"

	"github.com/isr-go/isr/internal/backing"
	"github.com/isr-go/isr/internal/invalidation"
	"github.com/isr-go/isr/internal/page"
	"github.com/isr-go/isr/internal/policy"
	"github.com/isr-go/isr/store"
)

// lookFirst asks the Store for the page before the run needs a slot: a page that is
// stored there does not queue behind pages that are not. It is called under Group.mu.
func (g *Group) lookFirst(f *Flight) {
	g.looking++
	f.looking = true
	g.setBegan(f)
	ttl := f.leaseTTL()
	if i, _ := g.queueOf(f); g.slotFor(f, i) == noSlot && !f.inside {
		ttl = 0 // others shall not wait for one that waits for a slot
	}
	go func() {
		g.c.Backing.Ready()
		key := g.c.Backing.Key(&f.Key)
		first, ended := f.look(key, f.have(), ttl)
		f.looked()
		if ended {
			defer f.encode()
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		g.looking--
		f.looking = false
		if !ended {
			f.first = first
		}
		switch {
		case ended:
		case g.closed, !f.isAwaited() && !f.kept:
			g.drop(f, Outcome{Kind: Again})
		case f.inside:
			g.start(f, forInside)
		case !g.dispatch(f):
			g.drop(f, Outcome{Kind: Busy})
		}
		if !f.started {
			f.giveBack(key)
		}
	}()
}

// giveBack gives back the lease of a run that has not begun. It is called under Group.mu.
func (f *Flight) giveBack(key string) {
	if first := f.first; first != nil && first.Ticket.Leader {
		f.first = nil // it looks again when it has a slot
		f.g.c.Backing.WriteBehind(func() { f.g.c.Backing.Release(key, first.Ticket) })
	}
}

// A look is what the Store has answered.
type look struct {
	backing.Found
	err        error
	have       store.Ticket // of what the run has seen by now
	again      bool         // whether to look again, for a ticket: the Store's page would do by what it knows, or none was wanted
	clock      uint64       // the Site's before it was asked
	reconnects uint64       // how often the Store had recovered by then
}

// look asks the Store for the page, and, where it has none that is newer than have, for a
// lease of ttl to generate it. It reports whether the run has ended with that: a page that
// another instance has made need not be made here.
func (f *Flight) look(key string, have store.Ticket, ttl time.Duration) (l *look, ended bool) {
	g := f.g
	admits := func() bool { return !f.Route.PrerenderedOnly || g.c.Cache.Admits(f.Key.Path) }
	if !admits() {
		ttl = 0 // it is not generated
	}
	before := g.c.Table.Now()
	l = &look{have: have, again: ttl == 0, clock: before.Clock, reconnects: g.c.Table.Reconnects()}
	l.Found, l.err = g.c.Backing.Look(key, have, ttl)
	if l.Record != nil {
		if t := l.Record.Ticket(); t.Compare(have) > 0 {
			l.have, l.again = t, l.Ticket == (store.Ticket{})
		}
	}
	if l.Record != nil && f.adopt(key, l.Record, l.Effect, store.None, before) || l.Record == nil && l.err == nil && f.inherit(key, l.Ticket) {
		g.c.Backing.WriteBehind(func() { g.c.Backing.Release(key, l.Ticket) })
		return l, true
	}
	if !admits() {
		f.finish(Outcome{Kind: Nothing})
		return l, true
	}
	return l, false
}

// have returns the ticket of the page that the run is to replace: the Store need not lease
// what is newer.
func (f *Flight) have() store.Ticket {
	g := f.g
	g.mu.Lock()
	defer g.mu.Unlock()
	if f.old.IsUnknown() {
		return store.Ticket{}
	}
	return store.Ticket{Version: f.old.Order.Version, Fence: f.old.Order.Fence}
}

// maxLeaderWait is how long a visitor waits for a page that another instance is
// generating, before it is generated for them.
const maxLeaderWait = 2 * time.Second

// fetch asks the Store for the page, and for the lease to generate it. It reports whether
// the run has ended with that. Failures of the Store cost time, and nothing else.
func (f *Flight) fetch() (ended bool) {
	g, key := f.g, f.g.c.Backing.Key(&f.Key)
	defer f.looked()
	g.c.Backing.Ready()
	begin, have := time.Now(), f.have()
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		l := f.first
		if f.first = nil; l == nil {
			if l, ended = f.look(key, have, f.leaseTTL()); ended {
				return true
			}
		}
		f.looked()
		if l.Ticket != (store.Ticket{}) {
			f.setLease(l.Ticket, l.clock)
		}
		have = l.have
		switch {
		case f.ended.Load(): // nobody waits any more
			g.c.Backing.Release(key, l.Ticket)
			return true
		case l.err != nil:
			f.markOffline(l.reconnects)
			return false
		case l.Ticket.Leader:
			return f.waiting && f.abandon() // it has no slot to generate in
		case time.Since(begin) > maxLeaderWait:
			return f.abandon()
		case l.again:
			continue
		case !f.freeSlot():
			return f.abandon()
		}
		time.Sleep(pause)
	}
}

// leaseTTL returns how long others shall wait for the run at most: not for long, if
// this process is killed, yet long enough for a page that is known to be slow.
func (f *Flight) leaseTTL() time.Duration {
	ttl := maxLeaderWait
	if !f.old.IsUnknown() {
		ttl = max(ttl, 4*f.old.Took)
	}
	return min(ttl, f.Route.Timeout+time.Second)
}

// adopt stores what the Store has returned, if it is newer than what is stored here. What
// another build has made has an effect on it from the beginning: inherited. It reports
// whether the run has ended with that.
func (f *Flight) adopt(key string, rec *store.Record, effect, inherited store.Effect, before invalidation.Snapshot) bool {
	g := f.g
	p, err := page.Decode(rec.Data, key, page.Meta{Key: f.Key, Route: f.Route, Mark: f.mark(), Codings: g.c.Encodings.Codings()})
	switch isOwn := inherited == store.None; {
	case err != nil && isOwn:
		g.c.Damaged(f, err)
		return false
	case err != nil: // of a build that encodes pages in another way
		return false
	case !isOwn:
		p.Inherited, rec.Fence = true, 0 // which says nothing of the order among this build's
	}
	if f.Fetch != nil {
		v, size, err := f.Fetch.Decode(p.Body())
		if err != nil { // of a build whose values have another type
			g.c.Damaged(f, err)
			return false
		}
		p.SetValue(v, size)
	}
	said := effect
	effect = max(said, g.c.Table.KnownEffect(rec.Version, &p.Key, p.Subject.Tags))
	p.Order, p.Seq, p.Subject.StoreEffect = page.OrderOf(rec.Ticket()), f.seq, effect
	p.Subject.Since = invalidation.Snapshot{Clock: before.Clock, Version: max(before.Version, rec.Version)}
	if now := time.Now(); p.Generated.After(now) { // by a clock that is ahead of this instance's
		p.Generated = now
	}
	p.Subject.NotBefore = p.Began().UnixNano()
	if p.Inherited && effect == store.None {
		p.Subject.NotBefore = time.Now().UnixNano()
	}
	if effect != store.None {
		p.Subject.SetInvalidatedAt(g.c.Table.FirstKnown(rec.Version, said, p.Began(), &p.Key, p.Subject.Tags))
	}
	p.Subject.StoreEffect = max(effect, inherited)
	also := store.None // on what is stored here
	switch old := g.c.Cache.Peek(&f.Key); {
	case old != nil && !p.IsNewerThan(old): // another run of this instance has stored it meanwhile
		if !old.IsNewerThan(p) {
			also = effect
		}
		p = old
	default:
		if old != nil {
			p.Seq = max(p.Seq, old.Seq)
		}
		evicted, ok := g.c.Cache.Put(p, f.isByName())
		if len(evicted) > 0 {
			g.c.Evicted(evicted)
		}
		if !ok {
			return false
		}
	}
	if f.Route.PrerenderedOnly {
		g.c.Cache.Admit(f.Key.Path) // else it would not be in the Store
	}
	g.mu.Lock()
	f.old = p
	stale := f.visitors > 0 && !f.renews // whether a stale page will do
	mayUse := !f.inside || f.MayUse(g, p)
	g.mu.Unlock()
	switch p.View(max(also, p.Effect(g.c.Table)), time.Now()).State { // after it was known that all is known
	case page.Fresh:
		if !mayUse { // the Store has said nothing of what was made here meanwhile
			return false
		}
	case page.Stale:
		if !stale {
			return false
		}
	default:
		return false
	}
	f.finish(Outcome{Kind: Found, Page: p, Stored: true})
	return true
}

// Found returns a channel that is closed when the Store was asked for the page, by the run
// before this one or, where that has asked it, by this one. It is nil where both have, and
// without a Store.
func (f *Flight) Found() <-chan struct{} {
	f.g.mu.Lock()
	defer f.g.mu.Unlock()
	for _, asks := range [...]*Flight{f.g.flights[f.Key], f} {
		if asks == nil || asks.found == nil {
			continue
		}
		select {
		case <-asks.found:
		default:
			return asks.found
		}
	}
	return nil
}

// WaitForStore waits until the Store was asked for the page, or ctx is done, where the
// run has begun to ask it. It reports false where it has not.
func (f *Flight) WaitForStore(ctx context.Context) bool {
	f.g.mu.Lock()
	begun := f.counted || f.ended.Load()
	f.g.mu.Unlock()
	if f.found == nil || !begun {
		return false
	}
	select {
	case <-f.found:
	case <-ctx.Done():
	}
	return true
}

// heldLease returns the run's ticket of the Store.
func (f *Flight) heldLease() store.Ticket {
	g := f.g
	g.mu.Lock()
	defer g.mu.Unlock()
	return f.lease
}

// setLease notes the ticket that the Store gave to the run.
func (f *Flight) setLease(t store.Ticket, clock uint64) {
	g := f.g
	g.mu.Lock()
	defer g.mu.Unlock()
	f.lease = t
	f.began.Clock = clock
	f.began.Version = max(f.began.Version, t.Version)
	g.c.Table.Observe(t.Version)
}

// markOffline notes that the Store has given no ticket, unless it has before.
func (f *Flight) markOffline(reconnects uint64) {
	if f.lease != (store.Ticket{}) {
		return
	}
	g := f.g
	g.mu.Lock()
	defer g.mu.Unlock()
	g.c.Table.GeneratedOffline()
	f.began.Offline = reconnects + 1
}

// freeSlot frees the slot of a run in the background that waits for another instance.
// It reports false where as many wait so as may.
func (f *Flight) freeSlot() bool {
	g := f.g
	g.mu.Lock()
	defer g.mu.Unlock()
	if (f.slot == forRenewal || f.slot == forUnknown) && !f.isAwaited() {
		if g.waiting == g.limits[forRenewal] {
			return false
		}
		g.taken[f.slot]--
		g.taken[noSlot]++
		f.slot, f.waiting = noSlot, true
		g.waiting++
		g.next()
	}
	return true
}

// leaderHeadStart is how long a page that another instance is renewing is left alone.
const leaderHeadStart = 100 * time.Millisecond

// abandon ends a run that nobody waits for, since another instance generates the page.
// It reports false where somebody waits.
func (f *Flight) abandon() bool {
	g := f.g
	g.mu.Lock()
	defer g.mu.Unlock()
	if f.isAwaited() {
		return false
	}
	if f.old != nil {
		f.old.LeftToLeaderUntil.Store(time.Now().Add(leaderHeadStart).UnixNano())
	}
	g.drop(f, Outcome{Kind: Nothing})
	return true
}

// maxEncodingWait is how long a page that other instances may wait for is kept from them
// until it is encoded. What is not ready then is not in its record: they encode it, too.
const maxEncodingWait = 100 * time.Millisecond

// awaitEncodings waits until the page is encoded, but not for long.
func (f *Flight) awaitEncodings() {
	late := time.NewTimer(maxEncodingWait)
	defer late.Stop()
	var done <-chan struct{}
	select {
	case done = <-f.encoded:
	case <-late.C:
		return
	}
	select {
	case <-done:
	case <-late.C:
	}
}

// reserve takes the memory that the run's page holds on its way to the Store: twice the
// page, since the cache may have evicted it, and there is the record. It returns nil where
// the page is not for the Store, or pages that wait for a slow Store hold as much as they
// may: where it is needed again, it is generated again.
func (f *Flight) reserve() (release func()) {
	out := &f.outcome
	p := out.Page
	if p == nil || !out.Stored || out.Kind != Generated || p.IsHitForPass || p.Subject.Since.Offline != 0 {
		return nil
	}
	release, _ = f.g.c.Writing.Hold(2 * p.Size.Load())
	return release
}

// writeBehind saves the run's page in the Store, after the visitors have it, if there is
// memory for that, or else gives the lease back.
func (f *Flight) writeBehind(release func()) {
	g := f.g
	<-f.done
	key, out, lease := g.c.Backing.Key(&f.Key), &f.outcome, f.heldLease()
	p := out.Page
	if release != nil {
		if f.Fetch == nil {
			f.awaitEncodings()
		}
		err := g.c.Backing.SaveLater(key, lease, func() *store.Record { return p.Record(key) }, release)
		if err == nil || errors.Is(err, store.ErrSuperseded) {
			if policy.IsNotFound(p.Status) {
				f.disinherit()
			}
			return
		}
		if errors.Is(err, store.ErrTooLarge) {
			g.c.TooLarge(f)
		}
	}
	g.c.Backing.Release(key, lease)
	if p != nil && out.Kind == Generated {
		f.remove(p)
	}
}

// remove has the Store show nothing any more of a page that is gone, or not public any
// more, where what the run has made is not there in its place.
func (f *Flight) remove(made *page.Page) {
	is404 := policy.IsNotFound(made.Status)
	switch old := f.old; {
	case !made.Removes && !is404:
	case old.IsUnknown(), is404 && policy.IsNotFound(old.Status):
		f.disinherit()
	default:
		f.g.c.Backing.Announce(store.Gone, f.Key.NarrowestTag())
	}
}
