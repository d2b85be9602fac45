package storetest

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/isr-go/isr/store"
)

// next returns the changes after a version by store i, once, if they are such as
// may come on any call.
func (t *test) next(i int, after store.Version) (store.Changes, error) {
	c, err := t.Stores[i].Changes(t.ctx, after)
	if err != nil {
		return c, err
	}
	if len(c.List) == 0 {
		// A store that does not wait would be asked in a busy loop.
		<-time.After(time.Millisecond)
	}
	last := after
	for _, change := range c.List {
		if change.Version < last || change.Version == after || change.Version > c.Upto {
			return c, fmt.Errorf("%+v after %d, upto %d: not in order", change, last, c.Upto)
		}
		last = change.Version
	}
	if c.Upto < after && !c.Reset {
		return c, fmt.Errorf("upto %d after %d without Reset", c.Upto, after)
	}
	return c, nil
}

// follow returns the changes after a version up to another one, in as many calls as
// it takes.
func (t *test) follow(i int, after, upto store.Version) []store.Change {
	t.Helper()
	list, reset, err := t.collect(i, after, upto)
	if err != nil || reset {
		t.Fatalf("store %d: from %d to %d: Reset is %v, error %v", i, after, upto, reset, err)
	}
	return list
}

// collect is follow for other goroutines than the test's.
func (t *test) collect(i int, after, upto store.Version) (list []store.Change, reset bool, err error) {
	for after < upto {
		c, err := t.next(i, after)
		if err != nil {
			return list, reset, fmt.Errorf("changes after %d on the way to %d: %w", after, upto, err)
		}
		reset = reset || c.Reset
		list = append(list, c.List...)
		after = c.Upto
	}
	return list, reset, nil
}

// sorted returns changes by version, tag and effect.
func sorted(list []store.Change) []store.Change {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b store.Change) int {
		return cmp.Or(cmp.Compare(a.Version, b.Version), cmp.Compare(a.Tag, b.Tag), cmp.Compare(a.Effect, b.Effect))
	})
	return list
}

// Whatever several processes invalidate at the same time, each of those who follow
// sees all of it, once, and in order.
func changes(t *test) {
	from := t.invalidate(0, store.Stale, "first")
	const writers, each = 8, 25
	var (
		mu     sync.Mutex                    // guards what follows
		own    = make(map[store.Change]bool) // of a tag that occurs once
		shared = make(map[store.Change]bool)
	)
	followers := make(chan func(), 4)
	for f := range 4 {
		go func() {
			// It follows from the start, until it sees the end.
			var list []store.Change
			reset, ended := false, false
			after := from
			var err error
			for err == nil && !ended {
				var c store.Changes
				c, err = t.next(f%2, after)
				list, reset, after = append(list, c.List...), reset || c.Reset, c.Upto
				ended = slices.ContainsFunc(c.List, func(c store.Change) bool { return c.Tag == "last" })
			}
			followers <- func() {
				if err != nil || reset {
					t.Fatalf("follower %d: Reset is %v, error %v", f, reset, err)
				}
				t.follower(fmt.Sprint("follower ", f), list, own, shared)
			}
		}()
	}
	parallel(writers, func(g int) {
		for n := range each {
			tag, effect := fmt.Sprintf("tag %d of %d", n, g), allEffects[(n+g)%3]
			v, err := t.Stores[g%2].Invalidate(t.ctx, effect, tag, "shared")
			if err != nil {
				t.Errorf("Invalidate: %v", err)
				return
			}
			mu.Lock()
			own[store.Change{Tag: tag, Version: v, Effect: effect}] = true
			shared[store.Change{Tag: "shared", Version: v, Effect: effect}] = true
			mu.Unlock()
		}
	})
	v := t.invalidate(0, store.Gone, "last")
	own[store.Change{Tag: "last", Version: v, Effect: store.Gone}] = true
	var checks []func()
	for range 4 {
		checks = append(checks, <-followers)
	}
	for _, check := range checks {
		check()
	}
	for i := range t.Stores {
		t.follower(fmt.Sprint("replay by store ", i), t.follow(i, from, v), own, shared)
	}
}

// follower fails the test if a list lacks some of the changes or has others. Of the
// shared tag the last of each effect is enough.
func (t *test) follower(who string, list []store.Change, own, shared map[store.Change]bool) {
	t.Helper()
	missing := maps.Clone(own)
	var newest [store.Gone + 1]store.Change
	for c := range shared {
		if c.Version > newest[c.Effect].Version {
			newest[c.Effect] = c
		}
	}
	for _, effect := range allEffects {
		missing[newest[effect]] = true
	}
	seen := make(map[store.Change]bool)
	for _, c := range list {
		if seen[c] {
			t.Fatalf("%s: %+v came twice", who, c)
		}
		if !own[c] && !shared[c] {
			t.Fatalf("%s: %+v was never", who, c)
		}
		seen[c] = true
		delete(missing, c)
	}
	for c := range missing {
		t.Fatalf("%s: %+v and %d more were lost", who, c, len(missing)-1)
	}
}

// Any version that was ever returned is a cursor, and zero is one, too.
func replay(t *test) {
	var all []store.Change
	var versions []store.Version
	for n := range 30 {
		effect := allEffects[n%3]
		tags := []string{fmt.Sprint("tag ", n), fmt.Sprint("other ", n)}
		v := t.invalidate(n%2, effect, tags...)
		versions = append(versions, v)
		for _, tag := range tags {
			all = append(all, store.Change{Tag: tag, Version: v, Effect: effect})
		}
	}
	last := versions[len(versions)-1]
	for i := range t.Stores {
		for n, after := range versions {
			got := t.follow(i, after, last)
			if want := all[2*n+2:]; !slices.Equal(sorted(got), sorted(want)) {
				t.Fatalf("store %d: Changes after %d:\n got %v\nwant %v", i, after, got, want)
			}
		}
		// A store may not know what was before its first version, and say so.
		got, _, err := t.collect(i, 0, last)
		if err != nil || !slices.Equal(sorted(got), sorted(all)) {
			t.Fatalf("store %d: Changes after 0: %v\n got %v\nwant %v", i, err, got, all)
		}
	}
}

// A call that finds nothing returns all the same, as proof of contact.
func heartbeat(t *test) {
	after := t.invalidate(0, store.Stale, "tag")
	for i := range t.Stores {
		c, err := t.next(i, after)
		if err != nil || c.Reset || len(c.List) > 0 {
			t.Fatalf("store %d: Changes after %d: %+v, %v, want nothing", i, after, c, err)
		}
		after = c.Upto
	}
	v := t.invalidate(1, store.Stale, "tag")
	for i := range t.Stores {
		if got := t.follow(i, after, v); len(got) != 1 {
			t.Errorf("store %d: Changes after %d: %v, want one", i, after, got)
		}
	}
}

// What is there already is not waited for. Only in a bubble does that differ from a slow
// engine.
func atOnce(t *test) {
	after := t.invalidate(0, store.Stale, "first")
	t.invalidate(0, store.Stale, "tag")
	for i := range t.Stores {
		start := time.Now()
		c, err := t.next(i, after)
		if waited := time.Since(start); t.bubble && waited > 0 {
			t.Errorf("store %d: Changes has waited %v for what was there", i, waited)
		}
		if err != nil || c.Reset || len(c.List) == 0 {
			t.Errorf("store %d: Changes after %d: %+v, %v, want one", i, after, c, err)
		}
	}
}

// A version that the store has not issued belongs to a history that is lost.
func unknownCursor(t *test) {
	last := t.invalidate(0, store.Stale, "tag")
	for i := range t.Stores {
		var c store.Changes
		t.eventually("Reset", func() bool {
			var err error
			if c, err = t.next(i, last+1<<40); err != nil {
				t.Fatalf("store %d: Changes of an unknown version: %v", i, err)
			}
			return c.Reset
		})
		if c.Upto < last || c.Upto >= last+1<<40 {
			t.Fatalf("store %d: Reset to %d, want %d or little more", i, c.Upto, last)
		}
		v := t.invalidate(i, store.Gone, "next")
		want := []store.Change{{Tag: "next", Version: v, Effect: store.Gone}}
		if got := t.follow(i, c.Upto, v); !slices.Equal(got, want) {
			t.Fatalf("store %d: Changes after the Reset: %v, want %v", i, got, want)
		}
	}
}

// A history has one name, for everybody and as long as it lasts; and what comes after a wipe
// is another one.
func history(t *test) {
	after := t.invalidate(0, store.Stale, "first")
	name := func(i int) string {
		t.Helper()
		var c store.Changes
		t.eventually("Changes", func() bool {
			var err error
			c, err = t.next(i, after)
			return err == nil
		})
		return c.History
	}
	first := name(0)
	if first == "" {
		t.Skip("the store names no history")
	}
	t.store(0, "key", "data", "tag")
	t.invalidate(1, store.Gone, "tag")
	for i := range t.Stores {
		if got := name(i); got != first {
			t.Errorf("store %d: the history is %q, and was %q", i, got, first)
		}
	}
	if t.Wipe == nil {
		return
	}
	t.Wipe()
	second := name(1)
	for i := range t.Stores {
		if got := name(i); got == first || got != second {
			t.Errorf("store %d: the history is %q after a wipe, and %q for the other; before it was %q", i, got, second, first)
		}
	}
}
