package flight

import "container/list"

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
	queueOfStored  = iota // visitors wait, and may be shown an old page if all else fails
	queueOfUnknown        // visitors wait, for a page that is not stored
	queueOfRenewals
	queueOfPlaceholders

	queues
)

// slotOf says which slot a queue is for.
var slotOf = [queues]slot{forVisitors, forVisitors, forRenewal, forUnknown}

// maxQueued is how many runs may wait for each slot of their kind, where visitors can
// ask for any number of them.
const maxQueued = 16

// queueIndex returns in which queue a run waits for a slot. It is called under Group.mu.
func (f *Flight) queueIndex() int {
	switch unknown := f.old.IsUnknown(); {
	case f.visitors > 0 && unknown:
		return queueOfUnknown
	case f.visitors > 0:
		return queueOfStored
	case unknown && !f.byName:
		return queueOfPlaceholders
	}
	return queueOfRenewals
}

// dispatch begins a run, or puts it into its queue. It reports false where that is
// full. It is called under Group.mu.
func (g *Group) dispatch(f *Flight) bool {
	i := f.queueIndex()
	switch slot, free := g.slotFor(f, slotOf[i]); {
	case free:
		g.start(f, slot)
	case !g.hasRoom(i):
		return false
	default:
		f.enter(&g.queues[i])
	}
	return true
}

// requeue is dispatch for a run that waits already, when a waiter has joined or left: it
// keeps its place unless it gets a slot, or belongs into another queue. It is called
// under Group.mu.
func (g *Group) requeue(f *Flight) bool {
	i := f.queueIndex()
	switch _, free := g.slotFor(f, slotOf[i]); {
	case free:
	case f.queue == &g.queues[i]:
		return true
	case !g.hasRoom(i):
		return false
	}
	f.leaveQueue()
	return g.dispatch(f)
}

// slotFor returns the slot that a run can have at once, if there is one: its own, or
// that of a renewal where an editor has asked for it by its name, so that they do not
// queue among visitors. It is called under Group.mu.
func (g *Group) slotFor(f *Flight, own slot) (slot, bool) {
	switch {
	case g.taken[own] < g.limits[own]:
		return own, true
	case f.editors > 0 && g.taken[forRenewal] < g.limits[forRenewal]:
		return forRenewal, true
	}
	return noSlot, false
}

// hasRoom reports whether another run may wait in a queue. It is called under Group.mu.
func (g *Group) hasRoom(queue int) bool {
	slot, length := slotOf[queue], g.queues[queue].Len()
	if slot == forVisitors {
		length = g.queues[queueOfStored].Len() + g.queues[queueOfUnknown].Len()
	}
	return queue == queueOfRenewals || length < maxQueued*g.limits[slot]
}

// enter puts a run at the end of a queue, and leaveQueue takes it out of the one
// that it is in. They are called under Group.mu.
func (f *Flight) enter(q *list.List) { f.queue, f.place = q, q.PushBack(f) }

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
	f.started, f.slot = true, slot
	g.taken[slot]++
	go f.run()
}

// next starts the runs that have waited longest for the slots that are free. It is
// called under Group.mu.
func (g *Group) next() {
	for i := range g.queues {
		for q, slot := &g.queues[i], slotOf[i]; q.Len() > 0 && g.taken[slot] < g.limits[slot]; {
			f := q.Front().Value.(*Flight)
			f.leaveQueue()
			g.start(f, slot)
		}
	}
}

// releaseSlot gives the slot of a run to the next: when the handler has returned, when
// its Timeout has passed, or when a visitor has taken its Stream.
func (f *Flight) releaseSlot() {
	g := f.g
	g.mu.Lock()
	defer g.mu.Unlock()
	g.taken[f.slot]--
	g.taken[noSlot]++
	f.slot = noSlot
	g.next()
}
