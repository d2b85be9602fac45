package invalidation

import (
	"time"

	"github.com/isr-go/isr/internal/pagekey"
	"github.com/isr-go/isr/store"
)

// remembered is for how long the Store may have lost what it has taken.
const remembered = 10 * time.Minute

// lately is what this Site has invalidated in the Store within that time. It is bounded:
// what visitors cause is left out where it takes a half, and what is more than all is
// remembered as an invalidation of everything. It is guarded by Table.mu.
type lately struct {
	limit  int64
	bytes  int64
	tags   map[string]times
	pruned time.Time
}

// times are when a tag was invalidated last, by effect; zero: never.
type times [store.Gone + 1]time.Time

// latelyOverhead is what an invalidation takes beside its tag.
const latelyOverhead = 160

func (l *lately) add(now time.Time, effect store.Effect, tag string, byVisitor bool) {
	last, ok := l.tags[tag]
	size := latelyOverhead + int64(len(tag))
	if !ok {
		limit := l.limit
		if byVisitor {
			limit /= 2
		}
		if l.bytes+size > limit && now.Sub(l.pruned) > time.Second {
			l.since(now.Add(-remembered))
			l.pruned = now
		}
		switch {
		case l.bytes+size <= limit:
		case byVisitor:
			return
		default:
			l.collapse(now, effect)
			return
		}
		l.bytes += size
	}
	if l.tags == nil {
		l.tags = make(map[string]times)
	}
	last[effect] = now
	l.tags[tag] = last
}

// collapse remembers all that there is, and an effect, as one invalidation of everything.
func (l *lately) collapse(now time.Time, strongest store.Effect) {
	for _, last := range l.tags {
		for effect, at := range last {
			if !at.IsZero() {
				strongest = max(strongest, store.Effect(effect))
			}
		}
	}
	var last times
	last[strongest] = now
	l.tags = map[string]times{pagekey.Everything: last}
	l.bytes = latelyOverhead + int64(len(pagekey.Everything))
}

// since drops what is from before a time, and returns the rest.
func (l *lately) since(t time.Time) map[string]times {
	for tag, last := range l.tags {
		left := false
		for effect, at := range last {
			if at.Before(t) {
				last[effect] = time.Time{}
			} else {
				left = true
			}
		}
		if left {
			l.tags[tag] = last
		} else {
			delete(l.tags, tag)
			l.bytes -= latelyOverhead + int64(len(tag))
		}
	}
	return l.tags
}
