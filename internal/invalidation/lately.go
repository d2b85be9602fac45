package invalidation

import (
	"iter"
	"time"

	"github.com/isr-go/isr/store"
)

// remembered is for how long the Store may have lost what it has taken.
const remembered = 10 * time.Minute

// lately is what this Site has invalidated in the Store within that time. It is bounded:
// what visitors cause is left out where it takes a half, and of the rest the oldest goes,
// since a Store that fails over has lost the newest. It is guarded by Table.mu.
type lately struct {
	limit       int64      // of each generation, in bytes
	young, old  generation // what is added goes to the young one
	droppedUpto time.Time  // what is from before it may have been dropped
}

// A generation is what was invalidated from a time on.
type generation struct {
	since time.Time
	bytes int64
	tags  map[string]times
}

// times are when a tag was invalidated last, by effect less one: in seconds from the
// beginning of its generation, plus one; zero: never.
type times [store.Gone]uint32

// latelyOverhead is what an invalidation takes beside its tag.
const latelyOverhead = 64

func (l *lately) add(now time.Time, effect store.Effect, tag string, byVisitor bool) {
	if l.young.tags == nil || now.Sub(l.young.since) > remembered {
		l.age(now)
	}
	last, ok := l.young.tags[tag]
	if !ok {
		size, limit := latelyOverhead+int64(len(tag)), l.limit
		if byVisitor {
			limit /= 2
		}
		switch {
		case l.young.bytes+size <= limit:
		case byVisitor:
			return
		default:
			l.age(now)
		}
		l.young.bytes += size
	}
	last[effect-1] = uint32(now.Sub(l.young.since)/time.Second) + 1
	l.young.tags[tag] = last
}

// age begins another generation, and drops the old one.
func (l *lately) age(now time.Time) {
	if len(l.old.tags) > 0 {
		l.droppedUpto = l.young.since
	}
	l.old, l.young = l.young, generation{since: now, tags: make(map[string]times)}
}

// from returns what was invalidated from a time on, some of it twice, the youngest first,
// and whether that is all of it, but for what visitors have caused.
func (l *lately) from(t time.Time) (all iter.Seq2[string, store.Effect], complete bool) {
	return func(yield func(string, store.Effect) bool) {
		for _, g := range []*generation{&l.young, &l.old} {
			for tag, last := range g.tags {
				for i, at := range last {
					if at != 0 && !g.since.Add(time.Duration(at)*time.Second).Before(t) && !yield(tag, store.Effect(i+1)) {
						return
					}
				}
			}
		}
	}, !l.droppedUpto.After(t)
}
