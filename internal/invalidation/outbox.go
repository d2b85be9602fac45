package invalidation

import (
	"time"

	"github.com/isr-go/isr/internal/pagekey"
	"github.com/isr-go/isr/store"
)

// An entry is what the Store has not yet taken of one tag.
type entry struct {
	last    [store.Gone + 1]uint64 // by effect: the clock of the last invalidation with it, or zero
	pending bool                   // whether no call to deliver it is under way
	again   bool                   // whether the Store had taken it before
}

// effect returns the strongest effect that the Store has not yet taken.
func (e entry) effect() store.Effect {
	for effect := store.Gone; effect > store.None; effect-- {
		if e.last[effect] != 0 {
			return effect
		}
	}
	return store.None
}

// A Delivery says whether an invalidation has to be delivered to the Store.
type Delivery int

const (
	Delivered Delivery = iota // the Store has it, or there is none
	InFlight                  // a call is under way
	Pending                   // no call is under way
)

// entryOverhead is what an entry takes beside its tag.
const entryOverhead = 130

// enter adds entries to the outbox. It reports false where that is full. Entries of
// visitors, which are not pending, leave a half to others. It is called under t.mu.
func (t *Table) enter(effect store.Effect, clock uint64, pending bool, tags []string) (all bool) {
	all = true
	limit := t.limit
	if !pending {
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
		e.last[effect], e.pending, e.again = clock, e.pending || pending, false
		t.outbox[tag] = e
	}
	return all
}

// remove removes an entry. It is called under t.mu.
func (t *Table) remove(tag string) {
	delete(t.outbox, tag)
	t.outboxBytes -= entryOverhead + int64(len(tag))
}

// Undelivered returns some of the pending entries, by effect, and the clock.
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

// KnownEffect returns the strongest effect on a page that comes from the Store with a
// version, by what is known here: of what the Store has not yet taken, and of what it has
// taken and may have lost.
func (t *Table) KnownEffect(v store.Version, k *pagekey.Key, tags []string) store.Effect {
	all := append(append(make([]string, 0, 32), tags...), pagekey.Everything)
	for tag := range k.Tags {
		all = append(all, tag)
	}
	return max(t.theirs.Known(v, all), t.undeliveredEffect(all))
}

// undeliveredEffect returns the strongest effect that the Store has not yet taken. What it
// has taken meanwhile is among theirs, and newer than the snapshot of a run that has asked
// it before.
func (t *Table) undeliveredEffect(tags []string) (strongest store.Effect) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.outbox) == 0 {
		return store.None
	}
	for _, tag := range tags {
		strongest = max(strongest, t.outbox[tag].effect())
	}
	return strongest
}

// Ack notes what the Store has taken, and the version that it gave it. The call began at
// the clock asked: what was entered since then stays, and so does a stronger effect, which
// is another call's.
func (t *Table) Ack(effect store.Effect, v store.Version, asked uint64, tags ...string) {
	t.apply(time.Now(), store.Changes{List: changesOf(effect, v, tags), Upto: v}) // before it leaves the outbox; see KnownEffect
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	for _, tag := range tags {
		e, ok := t.outbox[tag]
		if !ok || !e.again {
			t.lately.add(now, effect, tag, ok && !e.pending)
		}
		if !ok {
			continue
		}
		for weaker := range effect + 1 {
			if e.last[weaker] <= asked {
				e.last[weaker] = 0
			}
		}
		if e.effect() == store.None {
			t.remove(tag)
		} else {
			t.outbox[tag] = e
		}
	}
}

// Nack notes that a call to deliver tags has failed.
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

// DeliverAgain enters what the Store has taken lately, and may have lost. It reports false
// where that is not all of it, since more was invalidated than is remembered.
func (t *Table) DeliverAgain() (all bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	clock := t.clock.Load()
	lately, all := t.lately.from(time.Now().Add(-remembered))
	for tag, effect := range lately {
		e, owed := t.outbox[tag]
		again := e.again || !owed
		all = t.enter(effect, max(clock, e.last[effect]), true, []string{tag}) && all
		if e, ok := t.outbox[tag]; ok && again {
			e.again = true
			t.outbox[tag] = e
		}
	}
	return all
}

// maxBatch is how many tags of an effect are delivered at a time.
const maxBatch = 1000
