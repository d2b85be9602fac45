package front

import (
	"slices"
	"time"

	"github.com/isr-go/isr/store"
)

// A key is what an entry is told by.
type key struct {
	name  string
	isURL bool
}

// keyOf returns the key of a name: its URL, if the Edge is told those.
func keyOf(name Name, byURL bool) key {
	if byURL && name.URL != "" {
		return key{name.URL, true}
	}
	return key{name.Tag, false}
}

// An entry is what one name has coming. It is owed while asked is more than told.
type entry struct {
	key
	Name
	asked, told uint64       // the numbers of the last order, and of the last that the Edge has taken
	effect      store.Effect // the strongest that is owed
	since       time.Time    // of the last order's invalidation
	from        time.Time    // not before
	calls       int          // under way, or about to be
	visitor     bool         // whether only visitors have asked for it
	again       time.Time    // when it is told once more; zero: not
	repeat      store.Effect // the strongest of what is told then
	err         error        // of the last call that failed
	gone        bool         // whether it is part of Everything now
}

func (e *entry) owed() bool { return e.asked > e.told }

// entryOverhead is what an entry takes beside its strings.
const entryOverhead = 300

// A batch is what is told in one call with one effect.
type batch struct {
	effect store.Effect
	items  []*entry
	asked  []uint64 // of each item, when the call was prepared
}

// begin notes an order, and returns it as a batch that is about to be told. It is called
// under t.mu.
func (t *Teller) begin(o Order, since time.Time, visitor bool) batch {
	b := batch{effect: o.Effect}
	if slices.Contains(o.Names, Everything) {
		o.Names = []Name{Everything}
	}
	for _, name := range o.Names {
		t.orders++
		e := t.entry(name, visitor)
		if !e.owed() {
			e.effect = store.None
		}
		e.effect, e.asked = max(e.effect, o.Effect), t.orders
		if since.After(e.since) {
			e.since = since
		}
		if n := len(b.items); n > 0 && b.items[n-1] == e { // Everything, again and again
			b.asked[n-1] = e.asked
			continue
		}
		e.calls++
		b.items, b.asked = append(b.items, e), append(b.asked, e.asked)
	}
	if all := t.entries[keyOf(Everything, t.urls != nil)]; all != nil && slices.Contains(b.items, all) && len(b.items) > 1 {
		for _, e := range b.items {
			if e.gone {
				continue
			}
			if e.calls--; e.calls == 0 && e != all {
				t.absorb(all, e)
			}
		}
		all.calls++
		b.items, b.asked = []*entry{all}, []uint64{all.asked}
	}
	return b
}

// entry returns the entry of a name. Where there are too many, it is that of Everything.
// It is called under t.mu.
func (t *Teller) entry(name Name, visitor bool) *entry {
	k := keyOf(name, t.urls != nil)
	if e := t.entries[k]; e != nil {
		e.visitor = e.visitor && visitor
		return e
	}
	n := int64(entryOverhead + len(name.Tag) + len(name.URL))
	if name != Everything {
		limit := t.c.MaxBytes
		if visitor {
			limit /= 2
		}
		if t.bytes+n > limit {
			t.forgetRepeats()
		}
		if t.bytes+n > limit {
			return t.collapse()
		}
	}
	e := &entry{key: k, Name: name, visitor: visitor}
	t.entries[k] = e
	t.bytes += n
	return e
}

// forgetRepeats makes room: what visitors have changed, and the Edge has taken, is not told
// once more. It is called under t.mu.
func (t *Teller) forgetRepeats() {
	for _, e := range t.entries {
		if e.visitor && !e.owed() && e.calls == 0 {
			t.remove(e)
		}
	}
}

// collapse makes one entry of all, and returns it. It is called under t.mu.
func (t *Teller) collapse() *entry {
	all := t.entry(Everything, false)
	for _, e := range t.entries {
		if e != all {
			t.absorb(all, e)
		}
	}
	t.start()
	return all
}

// absorb makes an entry a part of that of Everything. It is called under t.mu.
func (t *Teller) absorb(all, e *entry) {
	if e.owed() {
		if !all.owed() {
			all.effect = store.None
		}
		t.orders++
		all.asked, all.effect = t.orders, max(all.effect, e.effect)
		if all.err == nil {
			all.err = e.err
		}
		if e.from.After(all.from) {
			all.from = e.from
		}
	}
	if !e.again.IsZero() && (all.again.IsZero() || e.again.Before(all.again)) {
		all.again = e.again
	}
	all.repeat = max(all.repeat, e.repeat)
	if e.since.After(all.since) {
		all.since = e.since
	}
	t.remove(e)
}

// remove is called under t.mu.
func (t *Teller) remove(e *entry) {
	e.gone = true
	delete(t.entries, e.key)
	t.bytes -= int64(entryOverhead + len(e.Tag) + len(e.URL))
	if len(t.entries) == 0 && t.idle != nil {
		close(t.idle)
		t.idle = nil
	}
}
