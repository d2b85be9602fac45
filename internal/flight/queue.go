package flight

import (
	"time"

	"github.com/isr-go/isr/internal/pagekey"
)

// A slot is what a run needs to call the handler: there is a bounded number of each.
type slot int

const (
	noSlot      slot = iota // of a run that has given its slot back
	forInside               // of a run that another one waits for: without bound, since that one has a slot
	forVisitors             // of a run that visitors wait for: MaxGenerations
	forRenewal              // of a renewal in the background, or of a page asked for by name: MaxRegenerations
	forUnknown              // of an unknown page, behind a Placeholder: as many again, so that they delay no renewal
	forNobody               // of a run whose visitors have left: as many again

	slots
)

// The queues of the runs that wait for a slot, in the order in which they get one.
const (
	queueOfNamed    = iota // an editor has asked for the page by its name; visitors may wait, too
	queueOfStored          // visitors wait, for a page that is stored and too old
	queueOfUnknown         // visitors wait, for a page that is not stored
	queueOfRenewals        // nobody waits, and the page is stored
	queueOfPlaceholders

	queues
)

// slotOf says which slot a queue is for.
var slotOf = [queues]slot{forRenewal, forVisitors, forVisitors, forRenewal, forUnknown}

// maxQueued is how many runs may wait for each slot of their kind, where visitors can
// ask for any number of them.
const maxQueued = 16

// queueOf returns in which queue a run waits for a slot, and how much its page is asked
// for. In a queue those pages come first that are asked for most, so that a stranger who
// asks for many pages delays none of them; but editors get what they ask for in that order.
// It is called under Group.mu.
func (g *Group) queueOf(f *Flight) (queue int, demand uint64) {
	demand, stored := g.c.Cache.Demand(&f.Key, time.Now())
	switch {
	case f.byName:
		return queueOfNamed, 0
	case f.visitors > 0 && stored:
		return queueOfStored, demand
	case f.visitors > 0:
		return queueOfUnknown, 0
	case stored:
		return queueOfRenewals, demand
	}
	return queueOfPlaceholders, 0
}

// dispatch begins a run, or puts it into its queue. It reports false where there is no
// room. It is called under Group.mu.
func (g *Group) dispatch(f *Flight) bool {
	i, demand := g.queueOf(f)
	switch slot := g.slotFor(f, i); {
	case slot != noSlot:
		g.start(f, slot)
	case !g.makeRoom(f, i, demand):
		return false
	default:
		g.enter(f, i, demand)
	}
	return true
}

// requeue is dispatch for a run that waits already, when a waiter has joined or left: it
// keeps its place unless it gets a slot, belongs into another queue, or its page is asked
// for more by now. It is called under Group.mu.
func (g *Group) requeue(f *Flight) bool {
	i, demand := g.queueOf(f)
	switch isThere := f.queue == &g.queues[i]; {
	case g.slotFor(f, i) != noSlot:
	case isThere && demand <= f.demand, f.queue == &g.queues[queueOfStored] && i == queueOfUnknown: // it was evicted
		return true
	case !isThere && !g.makeRoom(f, i, demand):
		return false
	}
	f.leaveQueue()
	return g.dispatch(f)
}

// slotFor returns the slot that a run can have at once, or noSlot. What an editor and
// visitors wait for gets the slot of either, so that nobody waits longer because of the
// others. It is called under Group.mu.
func (g *Group) slotFor(f *Flight, queue int) slot {
	switch own := slotOf[queue]; {
	case g.taken[own] < g.limits[own]:
		return own
	case f.visitors > 0 && g.taken[forVisitors] < g.limits[forVisitors]:
		return forVisitors
	}
	return noSlot
}

// makeRoom reports whether a run may wait in a queue, since there is room, or since the run
// is turned out whose turn would come last: its page is asked for less, or unknown. Those who
// wait for that get a 503; what is to be renewed will be asked for again. Visitors to whom
// the old page may be shown get that instead of another's place. It is called under Group.mu.
func (g *Group) makeRoom(f *Flight, queue int, demand uint64) bool {
	last, length := queue, g.queues[queue].Len()
	switch queue {
	case queueOfNamed: // editors are few, and wait themselves
		return true
	case queueOfStored, queueOfUnknown:
		last, length = queueOfUnknown, g.queues[queueOfStored].Len()+g.queues[queueOfUnknown].Len()
		if g.queues[last].Len() == 0 {
			last = queueOfStored
		}
	}
	if length < maxQueued*g.limits[slotOf[queue]] {
		return true
	}
	out := g.queues[last].Back().Value.(*Flight)
	if last < queue || last == queue && out.demand >= demand || queue == queueOfStored && g.mayShowOld(&f.Key) {
		return false
	}
	g.drop(out, Outcome{Kind: Busy})
	return true
}

// mayShowOld reports whether the page with a key may be shown where a new one is not to be
// had. It is called under Group.mu.
func (g *Group) mayShowOld(k *pagekey.Key) bool {
	p := g.c.Cache.Peek(k)
	return p != nil && !g.c.Anew && p.View(p.Effect(g.c.Table), time.Now()).IsShowable()
}

// enter puts a run into a queue, behind those whose pages are asked for as much, and
// leaveQueue takes it out of the one that it is in. What waits does not hold the page that
// it is to replace, which may be evicted meanwhile. They are called under Group.mu.
func (g *Group) enter(f *Flight, queue int, demand uint64) {
	q := &g.queues[queue]
	f.old, f.queue, f.demand = nil, q, demand
	before := q.Back()
	for before != nil && before.Value.(*Flight).demand < demand {
		before = before.Prev()
	}
	if before == nil {
		f.place = q.PushFront(f)
	} else {
		f.place = q.InsertAfter(f, before)
	}
}

func (f *Flight) leaveQueue() {
	if f.queue != nil {
		f.queue.Remove(f.place)
		f.queue, f.place = nil, nil
	}
}

// setBegan notes that a run begins at this moment. It is called under Group.mu.
func (g *Group) setBegan(f *Flight) {
	g.seq++
	if f.counted {
		f.began = g.c.Table.Now()
	} else {
		f.began, f.hold = g.c.Table.BeginRun()
		f.counted = true
		g.active++
	}
	f.seq = g.seq
}

// start begins a run. It is called under Group.mu.
func (g *Group) start(f *Flight, slot slot) {
	g.setBegan(f)
	f.old = g.c.Cache.Peek(&f.Key)
	f.started, f.slot = true, slot
	g.taken[slot]++
	go f.run()
}

// next starts the runs whose turn it is for the slots that are free. It is called under
// Group.mu.
func (g *Group) next() {
	for i := range g.queues {
		q := &g.queues[i]
		for at := q.Front(); at != nil; {
			f := at.Value.(*Flight)
			switch slot := g.slotFor(f, i); {
			case slot != noSlot && i == queueOfRenewals && g.c.Cache.Peek(&f.Key).IsUnknown():
				g.drop(f, Outcome{Kind: Again}) // it was evicted
				at = q.Front()
			case slot != noSlot:
				f.leaveQueue()
				g.start(f, slot)
				at = q.Front()
			case i == queueOfNamed && g.taken[forVisitors] < g.limits[forVisitors]:
				at = at.Next() // visitors may wait for another one
			default:
				at = nil
			}
		}
	}
}

// releaseSlot gives the slot of a run to the next, if it has one: when its Timeout has
// passed.
func (f *Flight) releaseSlot() {
	g := f.g
	g.mu.Lock()
	defer g.mu.Unlock()
	g.setSlot(f, noSlot)
	g.next()
}

// lendSlot is releaseSlot when a visitor has taken the run's Stream, and retakeSlot gives it
// a slot again, free or not, when they have left: else visitors who leave could have any
// number of handlers. It reports false where the handler has returned.
func (f *Flight) lendSlot() {
	g := f.g
	g.mu.Lock()
	defer g.mu.Unlock()
	if !f.deserted {
		g.setSlot(f, noSlot)
		g.next()
	}
}

func (f *Flight) retakeSlot() bool {
	g := f.g
	g.mu.Lock()
	defer g.mu.Unlock()
	f.deserted = true
	if !f.returned {
		g.setSlot(f, forVisitors)
	}
	return !f.returned
}

// end notes that the handler has returned, or is not called.
func (f *Flight) end() {
	g := f.g
	g.mu.Lock()
	defer g.mu.Unlock()
	f.returned = true
	g.setSlot(f, noSlot)
	g.next()
}

// setSlot gives a run another slot, or none. It is called under Group.mu.
func (g *Group) setSlot(f *Flight, slot slot) {
	g.taken[f.slot]--
	g.taken[slot]++
	f.slot = slot
	if f.lingers && slot == noSlot {
		f.lingers = false
		g.makeWay(f)
	}
}
