package invalidation

import (
	"math"
	"runtime"

	"github.com/isr-go/isr/store"
)

// A Hold keeps what was invalidated after it from being forgotten.
type Hold struct {
	clock   uint64
	version store.Version
}

// BeginRun returns the snapshot of a run that begins now. What is invalidated from now on is remembered until endRun.
func (f *Table) BeginRun() (Snapshot, Hold) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.Now()
	h := Hold{t.Clock, t.Version}
	f.running[h]++
	return t, h
}

// EndRun says that what has come of a run is stored, or never will be.
func (f *Table) EndRun(h Hold) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.running[h]--; f.running[h] == 0 {
		delete(f.running, h)
	}
}

// makeRoom sees to it that the tables stay within their bound. It is called without
// locks. Where they are full it waits for the compaction; mostly that is long over by
// then.
func (f *Table) makeRoom() {
	switch n := f.bytes(); {
	case n <= f.trigger.Load():
	case n <= f.limit:
		if f.compacting.TryLock() {
			go f.compact()
		}
	default:
		f.compacting.Lock()
		if f.bytes() <= f.limit {
			f.compacting.Unlock()
			return
		}
		f.compact()
	}
}

// bytes returns how much memory the larger of the two tables takes.
func (f *Table) bytes() int64 { return max(f.ours.Bytes(), f.theirs.Bytes()) }

// compact judges all pages, and forgets what no run under way can be concerned by.
// What is put meanwhile is from a run that was under way, or has begun since. It is
// called under f.compacting, and gives it back.
func (f *Table) compact() {
	full := f.forgetOld()
	f.compacting.Unlock()
	if full {
		f.overflown()
	}
}

// forgetOld is compact, and reports whether a table was full of what cannot be
// forgotten.
func (f *Table) forgetOld() (full bool) {
	f.mu.Lock()
	upto := Hold{version: store.Version(f.followed.Load())} // before the clock, which was moved first
	upto.clock = f.clock.Load()
	oldest := upto
	for h := range f.running {
		oldest.clock, oldest.version = min(oldest.clock, h.clock), min(oldest.version, h.version)
	}
	f.mu.Unlock()
	var by Judgements
	for effect := range by {
		by[effect] = &judgement{upto, store.Effect(effect)}
	}
	f.judgeAll(&by)
	const some = 256
	for f.ours.Compact(store.Version(oldest.clock), some) {
		runtime.Gosched()
	}
	for f.theirs.Compact(oldest.version, some) {
		runtime.Gosched()
	}
	// Runs that are slower than the tables are large: what they make counts as
	// invalidated. The pages are judged.
	for _, table := range []*store.Versions{f.ours, f.theirs} {
		if table.Bytes() <= f.limit {
			continue
		}
		for table.Bytes() > f.limit/8*7 && table.Compact(math.MaxUint64, some) {
		}
		full = true
	}
	f.trigger.Store(max(f.limit/4*3, min(f.limit, f.bytes()+f.limit/8)))
	return full
}
