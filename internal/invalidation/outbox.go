package invalidation

import (
	"time"

	"github.com/isr-go/isr/internal/pagekey"
	"github.com/isr-go/isr/store"
)

// An entry is what the Store has not yet heard of about one tag.
type entry struct {
	last    [store.Gone + 1]uint64 // by effect: the clock of the last invalidation with it, or zero
	pending bool                   // whether nobody is telling the Store
}

// effect returns the strongest effect that the Store has not yet heard of.
func (e entry) effect() store.Effect {
	for effect := store.Gone; effect > store.None; effect-- {
		if e.last[effect] != 0 {
			return effect
		}
	}
	return store.None
}

// A Delivery says whether the Store is to hear of an invalidation.
type Delivery int

const (
	Delivered Delivery = iota // it has heard, or there is none
	InFlight                  // somebody is telling it
	Pending                   // somebody has to
)

// entryOverhead is what an entry takes beside its tag.
const entryOverhead = 130

// enter adds to what the Store is yet to hear of. It reports false where that is too
// much to be remembered. The entries of visitors leave a half to others. It is called under
// t.mu.
func (t *Table) enter(effect store.Effect, clock uint64, due bool, tags []string) (all bool) {
	all = true
	limit := t.limit
	if !due {
		limit /= 2
	}
	for _, tag := range tags {
		e, ok := t.outbox[tag]
		if !ok {
			n := entryOverhead + int64(len(tag))
			if t.outboxBytes+n > limit {
				all = false
				continue
			}
			t.outboxBytes += n
		}
		e.last[effect], e.pending = clock, e.pending || due
		t.outbox[tag] = e
	}
	return all
}

// forget drops an entry. It is called under t.mu.
func (t *Table) forget(tag string) {
	delete(t.outbox, tag)
	t.outboxBytes -= entryOverhead + int64(len(tag))
}

// Undelivered returns some of what the Store is yet to hear of, by effect, and the
// clock.
func (t *Table) Undelivered() (m map[store.Effect][]string, clock uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	m = make(map[store.Effect][]string)
	for tag, e := range t.outbox {
		if effect := e.effect(); e.pending {
			m[effect] = append(m[effect], tag)
			if len(m[effect]) == maxBatch {
				break
			}
		}
	}
	return m, t.clock.Load()
}

// UndeliveredEffect returns the strongest effect that the Store is yet to hear of on a page
// that comes from there. What it has heard meanwhile is among theirs, and newer than
// the snapshot of a run that has asked it before.
func (t *Table) UndeliveredEffect(k *pagekey.Key, tags []string) (strongest store.Effect) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.outbox) == 0 {
		return store.None
	}
	look := func(tag string) { strongest = max(strongest, t.outbox[tag].effect()) }
	for _, tag := range tags {
		look(tag)
	}
	for tag := range k.Tags {
		look(tag)
	}
	look(pagekey.Everything)
	return strongest
}

// Ack notes what the Store knows of, and the version that it gave it. It was asked at
// a clock: what was entered since then stays, and so does what has a stronger effect,
// which is another call's.
func (t *Table) Ack(effect store.Effect, v store.Version, asked uint64, tags ...string) {
	t.apply(time.Now(), store.Changes{List: changesOf(effect, v, tags), Upto: v}) // before it leaves the outbox; see UndeliveredEffect
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, tag := range tags {
		e, ok := t.outbox[tag]
		if !ok {
			continue
		}
		for weaker := range effect + 1 {
			if e.last[weaker] <= asked {
				e.last[weaker] = 0
			}
		}
		if e.effect() == store.None {
			t.forget(tag)
		} else {
			t.outbox[tag] = e
		}
	}
}

// Nack says that somebody who was telling the Store could not.
func (t *Table) Nack(tags []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, tag := range tags {
		if e, ok := t.outbox[tag]; ok {
			e.pending = true
			t.outbox[tag] = e
		}
	}
}

func changesOf(effect store.Effect, v store.Version, tags []string) []store.Change {
	list := make([]store.Change, len(tags))
	for i, tag := range tags {
		list[i] = store.Change{Tag: tag, Version: v, Effect: effect}
	}
	return list
}

// maxBatch is of how many tags the Store is told at a time where it has missed
// some.
const maxBatch = 1000
