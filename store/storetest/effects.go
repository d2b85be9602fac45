package storetest

import (
	"fmt"
	"sync/atomic"

	"github.com/isr-go/isr/store"
)

var allEffects = []store.Effect{store.Stale, store.Expired, store.Gone}

// Each effect is what it is called; of several the strongest counts, in any order
// and on any of the tags; and a new record has none of them.
func effects(t *test) {
	for _, a := range allEffects {
		for _, b := range allEffects {
			key := a.String() + " then " + b.String()
			t.store(0, key, "old", "x "+key, key, "y "+key)
			t.is(key, "old", store.None)
			t.invalidate(0, a, key)
			t.is(key, "old", a)
			t.invalidate(1, b, key)
			t.is(key, "old", max(a, b))
			// Of a new record only what comes then counts.
			t.store(1, key, "new", key)
			t.is(key, "new", store.None)
			t.invalidate(0, b, key)
			t.is(key, "new", b)

			key = a.String() + " and " + b.String()
			t.store(1, key, "old", "x "+key, "y "+key)
			t.invalidate(0, a, "x "+key)
			t.invalidate(1, b, "y "+key)
			t.is(key, "old", max(a, b))
		}
	}
	for i := range t.Stores {
		t.store(i, "untagged", "data")
		t.invalidate(i, store.Gone, "untagged", "")
		t.is("untagged", "data", store.None)
	}
}

// What was begun before an invalidation, and put after it, has its effect.
func staleOnArrival(t *test) {
	for _, effect := range allEffects {
		for i := range t.Stores {
			for _, before := range []string{"", "old"} {
				key := fmt.Sprint(effect, i, before)
				t.invalidate(i, store.Gone, key) // is before all, and nothing to it
				if before != "" {
					t.store(i, key, before, key)
				}
				ticket := t.begin(i, key)
				t.invalidate(1-i, effect, key, "another")
				t.put(i, key, ticket, &store.Record{Tags: []string{"tag", key}, Data: []byte("late")})
				t.is(key, "late", effect)
				// There is no more to it when it was late by two.
				t.invalidate(1-i, store.Stale, key)
				t.is(key, "late", effect)
			}
		}
	}
}

// What is gone makes room for what is begun after it, and for that alone.
func afterGone(t *test) {
	late := t.begin(1, "key")
	t.store(0, "key", "old", "tag")
	t.invalidate(0, store.Gone, "tag")
	t.is("key", "", store.Gone)
	if err := t.Stores[1].Put(t.ctx, "key", late, &store.Record{Tags: []string{"tag"}}); err == nil {
		t.is("key", "", store.Gone)
	}
	t.store(0, "key", "new", "tag")
	t.is("key", "new", store.None)
	if err := t.Stores[1].Put(t.ctx, "key", late, &store.Record{Tags: []string{"other"}}); err == nil {
		t.Error("Put of what is older than the record: no error")
	}
	t.is("key", "new", store.None)
}

// A tag is a tag, byte by byte, and no part, pattern or spelling of another.
func otherTags(t *test) {
	tags := append([]string{"t", "ta", "tag", "tag:", "tag:1", "tag:10", "xtag", "tag*", "t,a", "t a", "Tag"}, hostile...)
	// In each round those fall whose number has a certain bit, so that any two of
	// them differ in one.
	for bit := 1; bit < len(tags); bit *= 2 {
		var fall []string
		for n, tag := range tags {
			t.store(n%2, fmt.Sprint("key", n), tag, tag)
			if n&bit != 0 {
				fall = append(fall, tag)
			}
		}
		t.invalidate(0, store.Gone, fall...)
		for n, tag := range tags {
			if n&bit != 0 {
				t.is(fmt.Sprint("key", n), tag, store.Gone)
			} else {
				t.is(fmt.Sprint("key", n), tag, store.None)
			}
		}
	}
}

// Many tags at once are one invalidation.
func manyTags(t *test) {
	tags := make([]string, 2000)
	for i := range tags {
		tags[i] = fmt.Sprint("tag ", i)
	}
	from := t.invalidate(0, store.Stale, "first")
	sample := []int{0, 1, 99, 100, 511, 512, 999, 1000, 1001, 1023, 1024, 1998, 1999}
	for _, n := range sample {
		t.store(0, tags[n], tags[n], "else", tags[n])
	}
	t.store(0, "else", "else", "else", "tag", "tag 2000")
	v := t.invalidate(1, store.Expired, tags...)
	for _, n := range sample {
		t.is(tags[n], tags[n], store.Expired)
	}
	t.is("else", "else", store.None)
	t.store(0, "new", "new", tags...)
	t.is("new", "new", store.None)

	for i := range t.Stores {
		want := make(map[string]bool)
		for _, tag := range tags {
			want[tag] = true
		}
		for _, c := range t.follow(i, from, v) {
			if !want[c.Tag] || c.Version != v || c.Effect != store.Expired {
				t.Fatalf("store %d: Changes has %+v, want each tag once, with version %d and %v", i, c, v, store.Expired)
			}
			delete(want, c.Tag)
		}
		if len(want) > 0 {
			t.Errorf("store %d: Changes lack %d of %d tags", i, len(want), len(tags))
		}
	}
	t.invalidate(0, store.Gone, append(tags, tags...)...)
	t.is("new", "new", store.Gone)
}

// Versions and tickets are in the order of the calls, by whichever handle.
func order(t *test) {
	last := t.begin(0, "key")
	for n := range 20 {
		v, w := t.invalidate(n%2, store.Stale, "a"), t.invalidate(1-n%2, store.Gone, "a", "b")
		if v <= last.Version || w <= v {
			t.Fatalf("versions %d of a ticket, %d and %d of invalidations: not in order", last.Version, v, w)
		}
		for i := range 4 {
			ticket := t.begin(i/2, "key")
			if ticket.Version < w || ticket.Compare(last) <= 0 {
				t.Fatalf("after version %d and ticket %+v comes ticket %+v", w, last, ticket)
			}
			last = ticket
			if i == 2 {
				t.put(1, "key", ticket, &store.Record{})
			}
		}
	}

	// At the same time: whatever returned before a call counts in it.
	var issued, begun atomic.Uint64
	tickets := make([][]store.Ticket, 8)
	parallel(len(tickets), func(g int) {
		s := t.Stores[g%2]
		for n := range 20 {
			before := store.Version(max(issued.Load(), begun.Load()))
			v, err := s.Invalidate(t.ctx, allEffects[n%3], fmt.Sprint(g), "all")
			if err != nil || v <= before {
				t.Errorf("Invalidate: version %d, %v, after %d", v, err, before)
				return
			}
			raise(&issued, uint64(v))
			before = store.Version(issued.Load())
			ticket, err := Begin(t.ctx, s, "key", long)
			if err != nil || ticket.Version < before {
				t.Errorf("Begin: %+v, %v, after version %d", ticket, err, before)
				return
			}
			raise(&begun, uint64(ticket.Version))
			tickets[g] = append(tickets[g], ticket)
		}
	})
	seen := make(map[[2]uint64]bool)
	for _, list := range tickets {
		for n, ticket := range list {
			if n > 0 && ticket.Compare(list[n-1]) <= 0 {
				t.Errorf("after ticket %+v comes %+v", list[n-1], ticket)
			}
			id := [2]uint64{uint64(ticket.Version), ticket.Fence}
			if seen[id] {
				t.Errorf("ticket %+v was given twice", ticket)
			}
			seen[id] = true
		}
	}
}

// An invalidation of nothing has a version, in order, and no effect.
func noTags(t *test) {
	last := t.invalidate(0, store.Stale, "tag")
	t.store(0, "key", "data", "tag")
	for i := range t.Stores {
		v := t.invalidate(i, store.Gone)
		ticket := t.begin(1-i, "another")
		if v <= last || ticket.Version < v {
			t.Fatalf("store %d: version %d of no tags after %d, and ticket %+v: not in order", i, v, last, ticket)
		}
		for j := range t.Stores {
			if c, err := t.next(j, v); err != nil || c.Reset || len(c.List) > 0 {
				t.Fatalf("store %d: Changes after no tags: %+v, %v, want nothing", j, c, err)
			}
		}
		last = t.invalidate(i, store.Stale, "other")
		if last <= v {
			t.Fatalf("store %d: version %d after %d of no tags", i, last, v)
		}
		for j := range t.Stores {
			if got := t.follow(j, v, last); len(got) != 1 {
				t.Fatalf("store %d: Changes after no tags: %v, want one", j, got)
			}
		}
	}
	t.is("key", "data", store.None)
}

// An unknown effect is an error, and changes nothing.
func unknownEffects(t *test) {
	t.store(0, "key", "data", "tag")
	for i, s := range t.Stores {
		for _, effect := range []store.Effect{-1, store.None, store.Gone + 1} {
			if v, err := s.Invalidate(t.ctx, effect, "tag"); err == nil {
				t.Errorf("store %d: Invalidate(%v): version %d, want an error", i, effect, v)
			}
		}
	}
	t.is("key", "data", store.None)
}
