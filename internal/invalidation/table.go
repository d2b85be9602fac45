// Package invalidation says which pages an invalidation has reached: in the Site's own
// order, of what was invalidated here, and in that of the Store. Each invalidation costs
// the same however many pages it concerns, and concerns no others, however many there
// have been.
package invalidation

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/isr-go/isr/internal/pagekey"
	"github.com/isr-go/isr/store"
)

// A table of invalidations takes an eighth of MaxBytes, and so does the outbox: to judge
// all pages, when it is full, then costs each invalidation about the same, whatever
// MaxBytes is.
const MinBytes = 1 << 20

// A Table keeps results that are older than an invalidation from passing for
// fresh. Each invalidation leaves a version on its tags; a page carries the ones
// of the moment when its generation began, and is compared with its tags when it
// is read. So an invalidation costs the same however many pages it concerns, and
// reaches those that are still on their way.
//
// The table is bounded. When three quarters of it are used, all pages are judged, and
// carry the result from then on; then what is older than the oldest run under way is
// removed from the table. No page is affected by that. Where that is not enough, filters
// remain of what is removed, which affect a page of some hundred.
//
// There are two orders of versions: the Site's own, of what was invalidated here,
// which holds whatever becomes of the Store; and that of the Store, if there is one.
type Table struct {
	ours, theirs     *store.Versions
	clock            atomic.Uint64 // the newest of ours; moved with theirs, too, and when the table already holds it
	highest          atomic.Uint64 // the newest of theirs that is known: what begins now begins after it
	generatedOffline atomic.Bool   // whether anything was generated offline since the last contact
	reconnects       atomic.Uint64 // how often the Store has recovered
	follows          atomic.Bool   // whether theirs are complete up to a moment ago: the last of them were no history

	limit         int64         // of each table, in bytes
	trigger       atomic.Int64  // from how many bytes on a compaction is worth it
	followed      atomic.Uint64 // theirs are complete up to here
	reconnectedAt atomic.Int64  // Unix time in ns of the Store's last recovery
	judgeAll      func(*Judgements)
	overflown     func()     // is called where a table is full of what has to be kept
	compacting    sync.Mutex // held by the one compaction; an outermost lock

	mu          sync.Mutex       // guards what follows; under all others, before Versions.mu
	running     map[Hold]int     // the runs under way, by when they began
	outbox      map[string]entry // what the Store has not yet taken, by tag
	outboxBytes int64
	lately      lately
	reset       store.Version // of the last Reset
}

// New returns an empty Table, of two orders with a number of bytes each. It has
// all pages judged by judgeAll before it removes anything, and calls overflown where a
// table is full of what has to be kept.
func New(limit int64, judgeAll func(*Judgements), overflown func()) *Table {
	t := &Table{
		ours: store.NewVersions(math.MaxInt), theirs: store.NewVersions(math.MaxInt), limit: limit,
		judgeAll: judgeAll, overflown: overflown, running: make(map[Hold]int), outbox: make(map[string]entry),
	}
	t.lately.limit = limit / 4
	t.trigger.Store(limit / 4 * 3)
	t.clock.Store(1) // a page that was never judged has 0
	return t
}

// Clock returns the newest moment in the Site's own order.
func (t *Table) Clock() uint64 { return t.clock.Load() }

// Followed returns the version up to which all that was invalidated in the Store is known.
func (t *Table) Followed() store.Version { return store.Version(t.followed.Load()) }

// Reconnects returns how often the Store has recovered.
func (t *Table) Reconnects() uint64 { return t.reconnects.Load() }

// GeneratedOffline notes that something was generated without the Store: it counts as
// stale when that has recovered.
func (t *Table) GeneratedOffline() { t.generatedOffline.Store(true) }

// Now returns the snapshot of what begins now.
func (t *Table) Now() Snapshot {
	return Snapshot{Clock: t.clock.Load(), Version: store.Version(t.highest.Load())}
}

// Observe notes a version that the Store has given out.
func (t *Table) Observe(v store.Version) {
	for {
		old := t.highest.Load()
		if uint64(v) <= old || t.highest.CompareAndSwap(old, uint64(v)) {
			return
		}
	}
}

// Invalidate has an effect on all that is older, in the Site's own order. What is
// undelivered is kept in the outbox until Ack; Invalidate reports false where the outbox
// is full.
func (t *Table) Invalidate(effect store.Effect, d Delivery, tags ...string) (remembered bool) {
	t.makeRoom()
	defer t.makeRoom()
	t.mu.Lock()
	defer t.mu.Unlock()
	clock, now := t.clock.Load()+1, time.Now()
	for _, tag := range tags {
		t.ours.Apply(now, store.Change{Tag: tag, Version: store.Version(clock), Effect: effect})
	}
	remembered = d == Delivered || t.enter(effect, clock, d == Pending, tags)
	t.clock.Store(clock)
	return remembered
}

// apply applies what was invalidated in the Store.
func (t *Table) apply(at time.Time, c store.Changes) {
	t.Observe(c.Upto)
	if len(c.List) == 0 && !c.Reset {
		return
	}
	t.makeRoom()
	if c.Reset {
		t.theirs.Forget(at, c.Upto)
		t.theirs.Raise(at, c.Floors)
	}
	t.theirs.Apply(at, c.List...)
	t.tick()
}

// Apply applies all that was invalidated in the Store up to a version, at a time. Where that
// is zero, it is history.
func (t *Table) Apply(at time.Time, c store.Changes) {
	if c.Reset && uint64(c.Upto) <= t.followed.Load() {
		// It is another history: what was judged by a later version is unknown in it.
		t.mu.Lock()
		if c.Upto != t.reset {
			t.reset = c.Upto
			t.ours.Forget(at, store.Version(t.clock.Load()+1))
			t.clock.Add(1)
		}
		t.mu.Unlock()
	}
	t.apply(at, c)
	t.follows.Store(!at.IsZero())
	if uint64(c.Upto) > t.followed.Load() { // only one goroutine follows
		t.followed.Store(uint64(c.Upto))
		t.makeRoom()
	}
}

// Reconnected notes that the Store has recovered: what was generated without it counts as
// stale.
func (t *Table) Reconnected() {
	if !t.generatedOffline.Swap(false) {
		return
	}
	t.reconnectedAt.Store(time.Now().UnixNano())
	t.reconnects.Add(1)
	t.tick()
}

// tick moves the clock, so that every page is judged again.
func (t *Table) tick() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.clock.Add(1)
}

// Effect returns the strongest effect on what has a key since its generation began.
func (t *Table) Effect(s *Subject, k *pagekey.Key) store.Effect {
	for {
		clock := t.clock.Load()
		if v := s.verdict.Load(); v>>2 == clock {
			return store.Effect(v & 3)
		}
		judged := s.judged.Load()
		from := s.from(judged)
		strongest, at := t.effectSince(&from, k, s.Tags)
		if judged != nil && judged.effect > strongest {
			strongest = judged.effect // s.at has its time
		}
		if s.StoreEffect > strongest {
			strongest, at = s.StoreEffect, time.Time{}
		}
		if s.judged.Load() != judged {
			continue // a compaction may have removed what matters
		}
		if strongest != store.None {
			s.effectAt.CompareAndSwap(0, max(1, s.NotBefore, at.UnixNano()))
		}
		s.verdict.Store(clock<<2 | uint64(strongest)) // of the clock before the look: a later one looks again
		return strongest
	}
}

// SubjectSince reports whether what has a key and tags was invalidated since the
// generation of a subject began.
func (t *Table) SubjectSince(s *Subject, k *pagekey.Key, tags []string) bool {
	for {
		judged := s.judged.Load()
		from := s.from(judged)
		was := t.Since(&from, k, tags)
		if s.judged.Load() == judged {
			return was
		}
	}
}

// Since reports whether a page, as far as its tags are known, was invalidated after a
// generation began.
func (t *Table) Since(since *Snapshot, k *pagekey.Key, tags []string) bool {
	if since.Clock == t.clock.Load() {
		return false
	}
	strongest, _ := t.effectSince(since, k, tags)
	return strongest != store.None
}

// effectSince returns the strongest effect on what has one of the tags after a
// generation began, and when that was.
func (t *Table) effectSince(began *Snapshot, k *pagekey.Key, tags []string) (strongest store.Effect, at time.Time) {
	var buf [32]string // on the stack
	all := append(append(buf[:0], tags...), pagekey.Everything)
	for tag := range k.Tags {
		all = append(all, tag)
	}
	strongest, at = t.ours.Effect(store.Version(began.Clock), all)
	if e, when := t.theirs.Effect(began.Version, all); e > strongest {
		strongest, at = e, when
	}
	if began.Offline != 0 && began.Offline <= t.reconnects.Load() && strongest == store.None {
		return store.Stale, time.Unix(0, t.reconnectedAt.Load())
	}
	return strongest, at
}

// FirstKnown returns when what comes from the Store with a version, and was invalidated, was
// so first, as far as that is known here; else zero. The Store says that it has an effect,
// and its generation began at a time.
func (t *Table) FirstKnown(v store.Version, effect store.Effect, began time.Time, k *pagekey.Key, tags []string) (first time.Time) {
	if forgotten, _ := t.theirs.Effect(v, nil); forgotten != store.None {
		return first
	}
	all := append(append(make([]string, 0, 32), tags...), pagekey.Everything)
	for tag := range k.Tags {
		all = append(all, tag)
	}
	first, ok := t.theirs.First(v, time.Time{}, all)
	if t.theirs.Known(v, all) < effect { // of what was invalidated since the last contact
		switch {
		case !t.follows.Load():
			return time.Time{}
		case !ok:
			first, ok = time.Now(), true
		}
	}
	if at, has := t.ours.First(0, began, all); has && (!ok || at.Before(first)) { // what is not delivered, or was later
		first = at
	}
	return first
}
