package invalidation

import (
	"runtime"

	"github.com/isr-go/isr/store"
)

// A Hold keeps what was invalidated after it in the table.
type Hold struct {
	clock   uint64
	version store.Version
}

// BeginRun returns the snapshot of a run that begins now. What is invalidated from now on
// is kept until EndRun.
func (t *Table) BeginRun() (Snapshot, Hold) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.Now()
	h := Hold{now.Clock, now.Version}
	t.running[h]++
	return now, h
}

// EndRun notes that a run's page is stored, or never will be.
func (t *Table) EndRun(h Hold) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.running[h]--; t.running[h] == 0 {
		delete(t.running, h)
	}
}

// makeRoom keeps the tables within their bound. It is called without locks. Where they are
// full it waits for the compaction, which has mostly ended by then.
func (t *Table) makeRoom() {
	switch n := t.bytes(); {
	case n <= t.trigger.Load():
	case n <= t.limit:
		if t.compacting.TryLock() {
			go t.compact()
		}
	default:
		t.compacting.Lock()
		if t.bytes() <= t.limit {
			t.compacting.Unlock()
			return
		}
		t.compact()
	}
}

// bytes returns how much memory the larger of the two tables takes.
func (t *Table) bytes() int64 { return max(t.ours.Bytes(), t.theirs.Bytes()) }

// compact judges all pages, and removes what concerns no run under way. What is put
// meanwhile is from a run that was under way, or has begun since. It is called under
// t.compacting, and unlocks it.
func (t *Table) compact() {
	full := t.forgetOld()
	t.compacting.Unlock()
	if full {
		t.overflown()
	}
}

// forgetOld is compact, and reports whether a table was full of what has to be kept.
func (t *Table) forgetOld() (full bool) {
	const some = 256
	upto, oldest := t.complete()
	for {
		var by Judgements
		for effect := range by {
			by[effect] = &judgement{upto, store.Effect(effect)}
		}
		t.judgeAll(&by)
		for t.ours.Compact(store.Version(oldest.clock), some) {
			runtime.Gosched()
		}
		for t.theirs.Compact(oldest.version, some) {
			runtime.Gosched()
		}
		last := oldest
		if upto, oldest = t.complete(); !(t.ours.Bytes() > t.limit && oldest.clock > last.clock ||
			t.theirs.Bytes() > t.limit && oldest.version > last.version) {
			break // else it is full of what came meanwhile
		}
	}
	// Runs that are slower than the tables are large, or a Store that has taken more than
	// it has told of: some pages more count as invalidated, by the filters.
	for _, table := range []*store.Versions{t.ours, t.theirs} {
		if table.Bytes() <= t.limit {
			continue
		}
		for table.Shrink(t.limit/8*7, some) {
			runtime.Gosched()
		}
		full = true
	}
	t.trigger.Store(max(t.limit/4*3, min(t.limit, t.bytes()+t.limit/8)))
	return full
}

// complete returns up to where all that was invalidated is known, and up to where it
// concerns no run under way either.
func (t *Table) complete() (upto, oldest Hold) {
	t.mu.Lock()
	defer t.mu.Unlock()
	upto = Hold{version: store.Version(t.followed.Load())} // before the clock, which was moved first
	upto.clock = t.clock.Load()
	oldest = upto
	for h := range t.running {
		oldest.clock, oldest.version = min(oldest.clock, h.clock), min(oldest.version, h.version)
	}
	return upto, oldest
}
