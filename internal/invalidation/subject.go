package invalidation

import (
	"sync/atomic"
	"time"

	"github.com/isr-go/isr/store"
)

// A Snapshot is a moment in the orders of invalidations: by the clock in that of this
// Site, by the version in that of the Store.
type Snapshot struct {
	Clock   uint64
	Version store.Version
	Offline uint64 // where the Store was not to be had: how often it had come back by then, plus one
}

// A Subject is what invalidations are held against: a page, by when its generation
// began, and by its tags. What is not atomic is written before it is shared.
type Subject struct {
	Since       Snapshot
	Tags        []string
	StoreEffect store.Effect // what the Store said of it, where it comes from there
	NotBefore   int64        // Unix time in ns when its generation began: nothing before that concerns it

	judged   atomic.Pointer[judgement] // what came of the last compaction
	verdict  atomic.Uint64             // clock<<2 | effect: the last look at the invalidations
	effectAt atomic.Int64              // Unix time in ns of the invalidation that it was first seen to be stale by
}

// InvalidatedAt returns when what has an effect was invalidated, but not before its
// generation began.
func (s *Subject) InvalidatedAt() time.Time { return time.Unix(0, max(s.effectAt.Load(), s.NotBefore)) }

// SetInvalidatedAt says when what has a StoreEffect was invalidated; zero: that is not
// known. It is called before the subject is shared.
func (s *Subject) SetInvalidatedAt(at time.Time) {
	if !at.IsZero() {
		s.effectAt.Store(max(1, s.NotBefore, at.UnixNano()))
	}
}

// A judgement says what became of a page by what was invalidated up to a point.
type judgement struct {
	Hold
	effect store.Effect
}

// Judgements are one judgement for each effect, which the pages share.
type Judgements [store.Gone + 1]*judgement

// Judge stores in a subject the effect that a compaction has found.
func (s *Subject) Judge(by *Judgements, effect store.Effect) { s.judged.Store(by[effect]) }

// Advance returns the snapshot from which on what had no effect by a compaction is
// still to be judged.
func (by *Judgements) Advance(s Snapshot) Snapshot {
	s.Clock, s.Version = max(s.Clock, by[store.None].clock), max(s.Version, by[store.None].version)
	return s
}

// from returns the snapshot from which on a subject is still to be judged.
func (s *Subject) from(j *judgement) Snapshot {
	t := s.Since
	if j != nil {
		t.Clock, t.Version = max(t.Clock, j.clock), max(t.Version, j.version)
	}
	return t
}
