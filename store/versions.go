package store

import (
	"cmp"
	"container/list"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/isr-go/isr/store/internal/filter"
)

// Versions is a table of invalidations: for each tag the newest Version of each
// effect. It is the rule by which records are judged, for the memory of an
// instance and for stores that keep the table themselves.
//
// It remembers a number of tags. When there are more, it forgets those that were
// invalidated longest ago, but for filters that know 16 times as many: of what is older
// than those, a page of a hundred may count as invalidated that is not. What is older than
// the filters counts as invalidated, whatever its tags, which is safe. Its methods are safe
// for concurrent use.
type Versions struct {
	limit int

	mu    sync.RWMutex             // guards what follows; no lock is taken under it
	tags  map[string]*list.Element // of *tagVersions
	order *list.List               // those invalidated last at the back
	floor marks                    // the newest of what was forgotten altogether
	past  marks                    // the newest of what the filters know
	rest  *filter.Filters          // nil: nothing was forgotten for lack of room
	upto  Version
	bytes int64
}

// tagOverhead is what a tag takes beside its own bytes: its versions, its place in
// the list, and one in the map, which may be half empty.
const tagOverhead = 300

type tagVersions struct {
	tag    string
	newest Version
	marks  marks
}

// marks are the latest invalidations, by effect.
type marks [Gone + 1]mark

type mark struct {
	version Version
	at      time.Time
}

// NewVersions returns an empty table that remembers limit tags, if no Change
// concerns more of them than that.
func NewVersions(limit int) *Versions {
	return &Versions{limit: limit, tags: make(map[string]*list.Element), order: list.New()}
}

// Apply adds what was invalidated, at a time that Effect will tell. What is
// older than what the table has is ignored, and so is, but for its version, an
// effect that it does not know.
func (t *Versions) Apply(at time.Time, changes ...Change) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.tags) == 0 { // a whole history takes long enough without growing the map
		t.tags = make(map[string]*list.Element, min(len(changes), t.limit))
	}
	for _, c := range changes {
		t.upto = max(t.upto, c.Version) // it was issued, whatever it means
		if c.Effect <= None || c.Effect > Gone {
			continue
		}
		e, ok := t.tags[c.Tag]
		if !ok {
			v := &tagVersions{tag: strings.Clone(c.Tag)}
			e = t.order.PushBack(v)
			t.tags[v.tag] = e
			t.bytes += tagOverhead + int64(len(v.tag))
		}
		v := e.Value.(*tagVersions)
		if c.Version > v.marks[c.Effect].version {
			v.marks[c.Effect] = mark{c.Version, at}
		}
		if c.Version > v.newest || !ok {
			v.newest = c.Version
			t.place(e)
		}
	}
	for len(t.tags) > t.limit && t.oldest() != t.upto {
		t.filter(t.forget())
	}
}

// place moves a tag to where its version belongs, which is hardly ever far from
// the back. It is called under t.mu.
func (t *Versions) place(e *list.Element) {
	newest := e.Value.(*tagVersions).newest
	for before := t.order.Back(); before != nil; before = before.Prev() {
		if before != e && before.Value.(*tagVersions).newest <= newest {
			t.order.MoveAfter(e, before)
			return
		}
	}
	t.order.MoveToFront(e)
}

// oldest returns when the tag that forget drops was invalidated last. Where that is
// the newest of all, everything would count as invalidated. It is called under t.mu.
func (t *Versions) oldest() Version { return t.order.Front().Value.(*tagVersions).newest }

// forget drops the tag whose last invalidation is the oldest. It is called under t.mu.
func (t *Versions) forget() *tagVersions {
	e := t.order.Front()
	v := e.Value.(*tagVersions)
	t.order.Remove(e)
	delete(t.tags, v.tag)
	t.bytes -= tagOverhead + int64(len(v.tag))
	return v
}

// filter leaves of a tag that was forgotten what the filters keep. It is called under t.mu.
func (t *Versions) filter(v *tagVersions) {
	if t.rest == nil {
		t.rest = filter.New(t.limit)
	}
	for effect, m := range &v.marks {
		if m.version == 0 {
			continue
		}
		t.raise(t.rest.Add(v.tag, effect, uint64(m.version)))
		t.past.raise(effect, m)
	}
}

// raise raises the floor to what the filters have let go. It is called under t.mu.
func (t *Versions) raise(floors filter.Newest) {
	for effect, v := range floors {
		t.floor.raise(effect, mark{Version(v), t.past[effect].at})
	}
}

func (m *marks) raise(effect int, to mark) {
	if to.version > m[effect].version {
		m[effect] = to
	}
}

// Compact forgets up to n tags that were not invalidated after a version, those that
// were invalidated longest ago first, and reports whether there may be more. What is
// older than what was forgotten then counts as invalidated: it is for callers who have
// judged all that is.
func (t *Versions) Compact(upto Version, n int) (more bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for range n {
		if len(t.tags) == 0 || t.oldest() > upto {
			if t.rest != nil {
				t.raise(t.rest.Drop(uint64(upto)))
			}
			return false
		}
		for effect, m := range t.forget().marks {
			t.floor.raise(effect, m)
		}
	}
	return true
}

// Shrink forgets up to n tags, those that were invalidated longest ago first, while the
// table takes more than a number of bytes, and reports whether it still does. Of what was
// forgotten filters remain, which take an eighth of that number.
func (t *Versions) Shrink(bytes int64, n int) (more bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.rest == nil {
		t.rest = filter.New(min(t.limit, filter.TagsIn(bytes/8)))
	}
	for range n {
		if len(t.tags) == 0 || t.bytes+t.rest.Bytes() <= bytes {
			return false
		}
		t.filter(t.forget())
	}
	return true
}

// Bytes returns about how much memory the table takes.
func (t *Versions) Bytes() int64 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if t.rest != nil {
		return t.bytes + t.rest.Bytes()
	}
	return t.bytes
}

// Forget says that nothing is known of what was invalidated up to a version:
// everything older counts as stale.
func (t *Versions) Forget(at time.Time, upto Version) {
	t.Raise(at, [Gone + 1]Version{Stale: upto})
}

// Raise says that everything that is older than a version, by effect, counts as having
// that effect.
func (t *Versions) Raise(at time.Time, floors [Gone + 1]Version) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for e := Stale; e <= Gone; e++ {
		t.floor.raise(int(e), mark{floors[e], at})
		t.upto = max(t.upto, floors[e])
	}
}

// Effect returns the strongest effect that invalidations after a version have on
// what has one of the tags, and when the last of that strength was applied: of those that
// were forgotten, the last of all.
func (t *Versions) Effect(after Version, tags []string) (strongest Effect, at time.Time) {
	return t.effect(after, tags, true)
}

// Known is Effect by what is remembered of the tags alone, also by the filters: what was
// forgotten altogether has none.
func (t *Versions) Known(after Version, tags []string) Effect {
	effect, _ := t.effect(after, tags, false)
	return effect
}

// First returns when the first of the invalidations was applied that are remembered of one
// of the tags, of those after a version that were applied at a time or later. Of each tag
// and effect the last is remembered.
func (t *Versions) First(after Version, notBefore time.Time, tags []string) (at time.Time, ok bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, tag := range tags {
		e := t.tags[tag]
		if e == nil {
			continue
		}
		for _, m := range e.Value.(*tagVersions).marks {
			if m.version > after && !m.at.Before(notBefore) && (!ok || m.at.Before(at)) {
				at, ok = m.at, true
			}
		}
	}
	return at, ok
}

func (t *Versions) effect(after Version, tags []string, forgotten bool) (strongest Effect, at time.Time) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if t.upto <= after {
		return None, at
	}
	var last Version
	look := func(m *marks) {
		for e := Gone; e > None && e >= strongest; e-- {
			if v := m[e].version; v > after && (e > strongest || v > last) {
				strongest, last, at = e, v, m[e].at
			}
		}
	}
	if forgotten {
		look(&t.floor)
	}
	for _, tag := range tags {
		if e, ok := t.tags[tag]; ok {
			look(&e.Value.(*tagVersions).marks)
		}
	}
	if t.rest != nil {
		if e := t.rest.Effect(uint64(after), tags, int(strongest)); e > int(strongest) {
			strongest, at = Effect(e), t.past[e].at
		}
	}
	return strongest, at
}

// Changes returns what was applied after a version.
func (t *Versions) Changes(after Version) Changes {
	t.mu.RLock()
	defer t.mu.RUnlock()
	c := Changes{Upto: t.upto, Reset: after > t.upto}
	for effect := range t.floor {
		c.Floors[effect] = max(t.floor[effect].version, t.past[effect].version)
		c.Reset = c.Reset || c.Floors[effect] > after
	}
	if !c.Reset {
		c.Floors = [Gone + 1]Version{}
	}
	for e := t.order.Back(); e != nil; e = e.Prev() {
		v := e.Value.(*tagVersions)
		if v.newest <= after {
			break
		}
		for effect, m := range v.marks {
			if m.version > after {
				c.List = append(c.List, Change{v.tag, m.version, Effect(effect)})
			}
		}
	}
	slices.Reverse(c.List) // which mostly sorts it
	slices.SortStableFunc(c.List, func(a, b Change) int {
		return cmp.Compare(a.Version, b.Version)
	})
	return c
}

// Upto returns the newest version that the table has heard of.
func (t *Versions) Upto() Version {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.upto
}
