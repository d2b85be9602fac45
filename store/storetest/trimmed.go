package storetest

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/isr-go/isr/store"
)

// What a store has no room to remember one by one counts all the same, on what has its tags;
// and nearly all else is spared.
func trimmed(t *test) {
	if t.Limit == 0 {
		t.Skip("no limit to test")
	}
	const others, perEffect = 200, 5
	from := t.invalidate(0, store.Stale, "first")
	for n := range others {
		var tags []string
		for i := range 12 {
			tags = append(tags, fmt.Sprintf("other %d, tag %d", n, i))
		}
		t.store(n%2, fmt.Sprint("other ", n), "data", tags...)
	}
	var want []store.Change
	for _, effect := range allEffects {
		for n := range perEffect {
			tag := fmt.Sprint(effect, n)
			t.store(n%2, tag, "data", "x "+tag, tag)
			want = append(want, store.Change{Tag: tag, Version: t.invalidate(n%2, effect, tag), Effect: effect})
		}
	}
	before := t.invalidate(0, store.Stale, "between")
	invalidated := 0
	// fill has a number of other tags purged in all, and returns the last version.
	fill := func(upto int) (v store.Version) {
		for invalidated < upto {
			var tags []string
			for range min(2000, max(t.Limit/2, 1), upto-invalidated) {
				tags = append(tags, fmt.Sprint("import ", invalidated))
				invalidated++
			}
			v = t.invalidate(invalidated%2, store.Gone, tags...)
		}
		return v
	}
	// holds fails the test if what was invalidated is shown as if it had not been, or if
	// those who follow are not told of it.
	holds := func() {
		t.Helper()
		for _, c := range want {
			for i, s := range t.Stores {
				switch rec, effect, err := Get(t.ctx, s, c.Tag); {
				case errors.Is(err, store.ErrNotFound):
				case err != nil:
					t.Fatalf("store %d: Get(%q): %v", i, c.Tag, err)
				case effect < c.Effect:
					t.Fatalf("store %d: Get(%q) is %q, %v, after it was %v and %d other tags", i, c.Tag, rec.Data, effect, c.Effect, invalidated)
				}
			}
		}
		for i := range t.Stores {
			c, err := t.Stores[i].Changes(t.ctx, from)
			if err != nil {
				t.Fatalf("store %d: Changes: %v", i, err)
			}
			if !c.Reset { // then all must be there, in as many calls as it takes
				c.List = t.follow(i, from, before)
			}
			for _, w := range want {
				if c.Floors[w.Effect] < w.Version && !slices.Contains(c.List, w) {
					t.Fatalf("store %d: Changes after %d has neither %+v nor a floor for it: Reset %v, %v", i, from, w, c.Reset, c.Floors)
				}
			}
		}
		t.store(0, "new", "data", "new", "import 0", want[0].Tag)
		t.is("new", "data", store.None)
	}

	last := fill(4 * t.Limit)
	holds()
	suffer := 0
	for n := range others {
		if _, effect, err := Get(t.ctx, t.Stores[n%2], fmt.Sprint("other ", n)); err != nil || effect != store.None {
			suffer++
		}
	}
	if suffer > others/20 {
		t.Errorf("of %d pages %d suffer from %d purges of other tags, more than 5 %%", others, suffer, invalidated)
	}
	for i := range t.Stores {
		if c, err := t.next(i, last); err != nil || c.Reset || len(c.List) > 0 {
			t.Errorf("store %d: Changes after the last: %+v, %v, want nothing", i, c, err)
		}
	}

	// Nobody remembers without end. What is too old may count as invalidated; what was, does.
	fill(40 * t.Limit)
	holds()
}

// Import has a number of tags purged, as an import of that many articles does, and fails the
// test if a page that has one of them is shown, or if more than 5 % of those suffer that
// have none, with 12 tags each. It is for stores as they are, whatever they remember.
func Import(t *testing.T, s store.Store, purges int) {
	const pages = 1000
	ctx := t.Context()
	put := func(key string, tags ...string) {
		t.Helper()
		ticket, err := Begin(ctx, s, key, long)
		if err == nil {
			err = s.Put(ctx, key, ticket, &store.Record{Tags: tags, Data: []byte("data")})
		}
		if err != nil {
			t.Fatalf("%s: %v", key, err)
		}
	}
	for n := range pages {
		var tags []string
		for i := range 12 {
			tags = append(tags, fmt.Sprintf("page %d, tag %d", n, i))
		}
		put(fmt.Sprint("other ", n), tags...)
		put(fmt.Sprint("imported ", n), append(tags, fmt.Sprint("article ", n*(purges/pages)))...)
	}
	for n := 0; n < purges; {
		var tags []string
		for range min(2000, purges-n) {
			tags = append(tags, fmt.Sprint("article ", n))
			n++
		}
		if _, err := s.Invalidate(ctx, store.Gone, tags...); err != nil {
			t.Fatalf("after %d purges: %v", n, err)
		}
	}
	suffer := 0
	for n := range pages {
		if _, effect, err := Get(ctx, s, fmt.Sprint("other ", n)); err != nil || effect != store.None {
			suffer++
		}
		if _, effect, err := Get(ctx, s, fmt.Sprint("imported ", n)); !errors.Is(err, store.ErrNotFound) {
			t.Fatalf("article %d was purged, and is shown: %v, %v", n*(purges/pages), effect, err)
		}
	}
	t.Logf("of %d pages that %d purges do not concern, %d suffer from them", pages, purges, suffer)
	if suffer > pages/20 {
		t.Errorf("of %d pages that %d purges do not concern, %d suffer from them: more than 5 %%", pages, purges, suffer)
	}
}
