package store_test

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/isr-go/isr/store"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// second returns a time that differs from the others.
func second(n int) time.Time { return epoch.Add(time.Duration(n) * time.Second) }

// judge fails the test if the effect on what is newer than a version and has the
// tags is another one, or of another time.
func judge(t *testing.T, v *store.Versions, after store.Version, tags []string, want store.Effect, at time.Time) {
	t.Helper()
	got, since := v.Effect(after, tags)
	if got != want || !since.Equal(at) {
		t.Errorf("after %d, %q: %v at %v, want %v at %v", after, tags, got, since, want, at)
	}
}

// remembered returns how many tags the table still has.
func remembered(v *store.Versions) int {
	tags := make(map[string]bool)
	for _, c := range v.Changes(0).List {
		tags[c.Tag] = true
	}
	return len(tags)
}

func TestEffectString(t *testing.T) {
	for effect, want := range map[store.Effect]string{
		store.None: "none", store.Stale: "stale", store.Expired: "expired", store.Gone: "gone",
		-1: "Effect(-1)", store.Gone + 1: "Effect(4)",
	} {
		if got := effect.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// Of all that came after, on any of the tags, the strongest counts, and the last
// of those.
func TestVersionsEffect(t *testing.T) {
	v := store.NewVersions(100)
	judge(t, v, 0, []string{"a"}, store.None, time.Time{})
	v.Apply(second(1), store.Change{Tag: "a", Version: 10, Effect: store.Gone})
	v.Apply(second(2), store.Change{Tag: "a", Version: 20, Effect: store.Stale}, store.Change{Tag: "b", Version: 20, Effect: store.Stale})
	v.Apply(second(3), store.Change{Tag: "b", Version: 30, Effect: store.Expired})
	v.Apply(second(4), store.Change{Tag: "b", Version: 40, Effect: store.Stale})
	for _, test := range []struct {
		after store.Version
		tags  []string
		want  store.Effect
		at    time.Time
	}{
		{0, nil, store.None, time.Time{}},
		{0, []string{"", "A", "ab", "c"}, store.None, time.Time{}},
		{0, []string{"a"}, store.Gone, second(1)},
		{9, []string{"b", "a"}, store.Gone, second(1)},
		{10, []string{"a"}, store.Stale, second(2)},
		{10, []string{"a", "b"}, store.Expired, second(3)},
		{19, []string{"b"}, store.Expired, second(3)},
		{30, []string{"b"}, store.Stale, second(4)},
		{10, []string{"a", "c"}, store.Stale, second(2)},
		{20, []string{"a"}, store.None, time.Time{}},
		{39, []string{"a", "b"}, store.Stale, second(4)},
		{40, []string{"a", "b"}, store.None, time.Time{}},
		{1 << 60, []string{"a", "b"}, store.None, time.Time{}},
	} {
		judge(t, v, test.after, test.tags, test.want, test.at)
	}

	// Both are stale, whichever is named first: b was last.
	v.Apply(second(5), store.Change{Tag: "c", Version: 50, Effect: store.Stale})
	judge(t, v, 30, []string{"b", "c"}, store.Stale, second(5))
	judge(t, v, 30, []string{"c", "b"}, store.Stale, second(5))
}

// What comes late, again, or means nothing changes nothing that is known.
func TestVersionsApplyLate(t *testing.T) {
	v := store.NewVersions(100)
	v.Apply(second(1), store.Change{Tag: "a", Version: 20, Effect: store.Expired})
	v.Apply(second(2), store.Change{Tag: "a", Version: 20, Effect: store.Expired}) // again
	v.Apply(second(3), store.Change{Tag: "a", Version: 10, Effect: store.Expired})
	judge(t, v, 0, []string{"a"}, store.Expired, second(1))
	judge(t, v, 10, []string{"a"}, store.Expired, second(1))
	v.Apply(second(4), store.Change{Tag: "a", Version: 15, Effect: store.Gone})
	judge(t, v, 14, []string{"a"}, store.Gone, second(4))
	judge(t, v, 15, []string{"a"}, store.Expired, second(1))
	v.Apply(second(5), store.Change{Tag: "b", Version: 5, Effect: store.Stale})
	judge(t, v, 4, []string{"b"}, store.Stale, second(5))
	if n := remembered(v); v.Upto() != 20 || n != 2 {
		t.Errorf("upto %d with %d tags, want 20 with 2", v.Upto(), n)
	}

	v.Apply(second(6), store.Change{Tag: "a", Version: 30, Effect: store.None},
		store.Change{Tag: "c", Version: 31, Effect: store.Gone + 1}, store.Change{Tag: "c", Version: 32, Effect: -1})
	judge(t, v, 20, []string{"a", "b", "c"}, store.None, time.Time{})
	if n := remembered(v); n != 2 {
		t.Errorf("%d tags, want 2", n)
	}
	// Yet those versions were issued, and must not be issued again.
	if v.Upto() != 32 {
		t.Errorf("upto %d, want 32", v.Upto())
	}
}

// Tags that the table has no room for count as invalidated as they were, for what is older
// than the newest of them. Other tags do not.
func TestVersionsForgotten(t *testing.T) {
	v := store.NewVersions(3)
	for n, effect := range []store.Effect{store.Stale, store.Gone, store.Expired, store.Stale, store.Stale, store.Stale} {
		v.Apply(second(n+1), store.Change{Tag: fmt.Sprint(n + 1), Version: store.Version(n + 1), Effect: effect})
	}
	if n := remembered(v); n != 3 {
		t.Fatalf("%d tags, want 3", n)
	}
	judge(t, v, 0, nil, store.None, time.Time{})
	judge(t, v, 0, []string{"never heard of"}, store.None, time.Time{})
	judge(t, v, 0, []string{"never heard of", "2", "1"}, store.Gone, second(2))
	judge(t, v, 1, []string{"2", "3"}, store.Gone, second(2))
	judge(t, v, 2, []string{"2", "3"}, store.Expired, second(3))
	judge(t, v, 3, []string{"2", "3"}, store.None, time.Time{})
	judge(t, v, 3, []string{"4"}, store.Stale, second(4))
	// The next process does not see the filters, and counts all that is older.
	for after, reset := range []bool{true, true, true, false, false, false, false} {
		c := v.Changes(store.Version(after))
		var floors [store.Gone + 1]store.Version
		if reset {
			floors = [...]store.Version{0, 1, 3, 2}
		}
		if c.Reset != reset || c.Upto != 6 || c.Floors != floors {
			t.Errorf("Changes after %d: %+v, want Reset %v, floors %v", after, c, reset, floors)
		}
	}

	// The tag whose last invalidation is the oldest is trimmed.
	v.Apply(second(7), store.Change{Tag: "4", Version: 7, Effect: store.Gone})
	v.Apply(second(8), store.Change{Tag: "8", Version: 8, Effect: store.Gone})
	judge(t, v, 5, []string{"5"}, store.None, time.Time{}) // trimmed, but not counted to 6
	judge(t, v, 4, []string{"8"}, store.Gone, second(8))
	judge(t, v, 4, []string{"x"}, store.None, time.Time{})
	judge(t, v, 4, []string{"5"}, store.Stale, second(5))
	judge(t, v, 5, []string{"4"}, store.Gone, second(7))
	// And what comes too late for the table counts all the same.
	v.Apply(second(9), store.Change{Tag: "late", Version: 5, Effect: store.Expired})
	judge(t, v, 4, []string{"late"}, store.Expired, second(9))
	judge(t, v, 5, []string{"late"}, store.None, time.Time{})
}

// What is older than all that the table can tell counts as invalidated, whatever its tags;
// and the table takes a bounded number of bytes.
func TestVersionsFloor(t *testing.T) {
	const limit, all = 10, 1000
	v := store.NewVersions(limit)
	var bytes int64
	for n := range all {
		effect := store.Gone
		if n%2 == 1 {
			effect = store.Stale
		}
		v.Apply(second(n+1), store.Change{Tag: fmt.Sprint(n + 1), Version: store.Version(n + 1), Effect: effect})
		if n == 200 {
			bytes = v.Bytes()
		}
	}
	if got := v.Bytes(); got > bytes+100 {
		t.Errorf("%d bytes, and %d long before", got, bytes)
	}
	for after, want := range map[store.Version]store.Effect{0: store.Gone, 828: store.Gone, 829: store.Stale, 830: store.None} {
		if got, _ := v.Effect(after, []string{"never heard of"}); got != want {
			t.Errorf("after %d: %v, want %v", after, got, want)
		}
	}
	for n := range all {
		want := store.Gone
		if n%2 == 1 {
			want = store.Stale
		}
		if got, _ := v.Effect(store.Version(n), []string{fmt.Sprint(n + 1)}); got < want {
			t.Errorf("of %d: %v, want %v", n+1, got, want)
		}
	}
}

// A table that is made smaller takes no more than was said, and knows of what it has
// forgotten until that is judged: each tag keeps its effect, and hardly any other has one.
func TestVersionsShrink(t *testing.T) {
	const tags, limit = 1000, 100_000
	v := store.NewVersions(math.MaxInt)
	for n := range tags {
		v.Apply(second(n+1), store.Change{Tag: fmt.Sprint(n), Version: store.Version(n + 1), Effect: store.Expired})
	}
	calls := 1
	for v.Shrink(limit, 100) {
		calls++
	}
	if calls < 5 {
		t.Errorf("%d calls forget 100 tags each, of %d", calls, tags)
	}
	if n := v.Bytes(); n > limit {
		t.Errorf("%d bytes, want %d at most", n, limit)
	}
	others := 0
	for n := range tags {
		if got := v.Known(store.Version(n), []string{fmt.Sprint(n)}); got != store.Expired {
			t.Errorf("of %d: %v, want expired", n, got)
		}
		if got, _ := v.Effect(0, []string{fmt.Sprint("another ", n)}); got != store.None {
			others++
		}
	}
	if others > tags/20 {
		t.Errorf("%d of %d others count as invalidated", others, tags)
	}
	for v.Compact(tags, 100) {
	}
	judge(t, v, 0, []string{"another"}, store.Expired, second(tags))
	judge(t, v, tags, []string{"0", "another"}, store.None, time.Time{})
	if got := v.Known(0, []string{"0"}); got != store.None {
		t.Errorf("what was judged is still known: %v", got)
	}
	if n := v.Bytes(); n != 0 {
		t.Errorf("%d bytes, and all was judged", n)
	}
}

// A table counts as stale what is older than its history.
func TestVersionsForget(t *testing.T) {
	v := store.NewVersions(10)
	v.Apply(second(1), store.Change{Tag: "a", Version: 10, Effect: store.Gone})
	v.Forget(second(2), 20)
	v.Forget(second(3), 15) // is already unknown
	if v.Upto() != 20 {
		t.Errorf("upto %d, want 20", v.Upto())
	}
	judge(t, v, 19, nil, store.Stale, second(2))
	judge(t, v, 20, []string{"a"}, store.None, time.Time{})
	judge(t, v, 9, []string{"a"}, store.Gone, second(1))
	judge(t, v, 9, []string{"b"}, store.Stale, second(2))
	if c := v.Changes(19); !c.Reset || c.Upto != 20 || len(c.List) > 0 {
		t.Errorf("Changes after 19: %+v, want Reset and nothing else", c)
	}
	if c := v.Changes(20); c.Reset || c.Upto != 20 || len(c.List) > 0 {
		t.Errorf("Changes after 20: %+v, want nothing", c)
	}
	v.Apply(second(4), store.Change{Tag: "a", Version: 21, Effect: store.Expired})
	judge(t, v, 20, []string{"a"}, store.Expired, second(4))
	judge(t, v, 10, []string{"a"}, store.Expired, second(4))
}

// Changes are those after the cursor, by version, and a cursor of another history gets
// a Reset.
func TestVersionsChanges(t *testing.T) {
	v := store.NewVersions(100)
	if c := v.Changes(0); c.Reset || c.Upto != 0 || len(c.List) > 0 {
		t.Errorf("Changes of nothing: %+v", c)
	}
	a1 := store.Change{Tag: "a", Version: 1, Effect: store.Gone}
	b2 := store.Change{Tag: "b", Version: 2, Effect: store.Stale}
	a3 := store.Change{Tag: "a", Version: 3, Effect: store.Stale}
	b4 := store.Change{Tag: "b", Version: 4, Effect: store.Stale}
	v.Apply(epoch, a3, a1)
	v.Apply(epoch, b2, b4)
	for after, want := range []store.Changes{
		{List: []store.Change{a1, a3, b4}, Upto: 4}, // b4 does for b2
		{List: []store.Change{a3, b4}, Upto: 4},
		{List: []store.Change{a3, b4}, Upto: 4},
		{List: []store.Change{b4}, Upto: 4},
		{Upto: 4},
		{Upto: 4, Reset: true},
	} {
		if diff := gocmp.Diff(want, v.Changes(store.Version(after)), equal); diff != "" {
			t.Errorf("Changes after %d (-want +got):\n%s", after, diff)
		}
	}
}

// Tags of one version go together: there may be more of them than the limit, or
// what is new would be old, but only until the next.
func TestVersionsMany(t *testing.T) {
	v := store.NewVersions(100)
	v.Apply(epoch, store.Change{Tag: "before", Version: 1, Effect: store.Gone})
	many := make([]store.Change, 2000)
	for n := range many {
		many[n] = store.Change{Tag: fmt.Sprint(n), Version: 2, Effect: store.Stale}
	}
	v.Apply(second(2), many...)
	if n := remembered(v); n != 2000 {
		t.Fatalf("%d tags, want 2000", n)
	}
	for _, n := range []int{0, 99, 100, 1899, 1900, 1999} {
		judge(t, v, 1, []string{fmt.Sprint(n)}, store.Stale, second(2))
		judge(t, v, 2, []string{fmt.Sprint(n)}, store.None, time.Time{})
	}
	judge(t, v, 1, []string{"2000"}, store.None, time.Time{})
	if c := v.Changes(1); len(c.List) != 2000 || c.Reset {
		t.Errorf("%d changes, Reset %v, want 2000", len(c.List), c.Reset)
	}
	if c := v.Changes(0); !c.Reset {
		t.Error("no Reset for who does not know of the first one")
	}

	v.Apply(second(3), store.Change{Tag: "next", Version: 3, Effect: store.Stale})
	if n := remembered(v); n != 100 {
		t.Errorf("%d tags, want 100", n)
	}
	judge(t, v, 1, []string{"2000"}, store.Stale, second(2))
	judge(t, v, 2, []string{"2000"}, store.None, time.Time{})
	judge(t, v, 2, []string{"next"}, store.Stale, second(3))
}

// Against a list of all changes, in whatever order they come: without a limit it is
// the same, and with one it is the same from the floor on, and as safe before it.
func TestVersionsOracle(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	effects := []store.Effect{store.Stale, store.Expired, store.Gone}
	for range 60 {
		limit := 1 + rng.IntN(30)
		tags := 1 + rng.IntN(20)
		v := store.NewVersions(limit)
		at := make(map[store.Version]time.Time)
		var all, pending []store.Change
		for n := range store.Version(1 + rng.IntN(40)) {
			effect := effects[rng.IntN(len(effects))]
			for _, tag := range rng.Perm(tags)[:1+rng.IntN(min(tags, 3))] {
				pending = append(pending, store.Change{Tag: fmt.Sprint(tag), Version: n + 1, Effect: effect})
			}
			at[n+1] = second(int(n))
		}
		if rng.IntN(2) == 0 {
			rng.Shuffle(len(pending), func(i, j int) { pending[i], pending[j] = pending[j], pending[i] })
		}
		for _, c := range pending {
			v.Apply(at[c.Version], c)
			all = append(all, c)
			compare(t, v, limit, tags, all, at, rng)
		}
	}
}

// compare compares the table with all changes that were applied.
func compare(t *testing.T, v *store.Versions, limit, tags int, all []store.Change, at map[store.Version]time.Time, rng *rand.Rand) {
	t.Helper()
	newest := make(map[string]store.Version)
	var upto store.Version
	for _, c := range all {
		newest[c.Tag] = max(newest[c.Tag], c.Version)
		upto = max(upto, c.Version)
	}
	// No tag was trimmed that is newer than this one.
	var floor store.Version
	if order := slices.Sorted(maps.Values(newest)); len(order) > limit {
		floor = order[len(order)-limit-1]
	}
	if v.Upto() != upto {
		t.Fatalf("upto %d, want %d", v.Upto(), upto)
	}
	for range 5 {
		after := store.Version(rng.IntN(int(upto) + 2))
		var of []string
		for _, tag := range rng.Perm(tags)[:rng.IntN(tags+1)] {
			of = append(of, fmt.Sprint(tag))
		}
		var last store.Change
		for _, c := range all {
			if c.Version > after && slices.Contains(of, c.Tag) && cmp.Or(cmp.Compare(c.Effect, last.Effect), cmp.Compare(c.Version, last.Version)) > 0 {
				last = c
			}
		}
		got, since := v.Effect(after, of)
		if got < last.Effect || after >= floor && (got != last.Effect || !since.Equal(at[last.Version])) {
			t.Fatalf("limit %d, after %d (floor %d), %q: %v at %v, want %v at %v, of\n%v", limit, after, floor, of, got, since, last.Effect, at[last.Version], all)
		}

		type tagEffect struct {
			tag    string
			effect store.Effect
		}
		want := make(map[tagEffect]store.Change)
		for _, c := range all {
			if k := (tagEffect{c.Tag, c.Effect}); c.Version > after && c.Version > want[k].Version {
				want[k] = c
			}
		}
		c := v.Changes(after)
		if !slices.IsSortedFunc(c.List, func(a, b store.Change) int { return cmp.Compare(a.Version, b.Version) }) {
			t.Fatalf("Changes after %d are not in order: %v", after, c.List)
		}
		for _, change := range c.List {
			// A trimmed tag may come again with a late change.
			k := tagEffect{change.Tag, change.Effect}
			if want[k] != change && (after >= floor || !slices.Contains(all, change)) {
				t.Fatalf("Changes after %d (floor %d): %v, want %v, of\n%v", after, floor, change, want[k], all)
			}
			if want[k] == change {
				delete(want, k)
			}
		}
		known := after >= floor && after <= upto
		if c.Upto != upto || known && c.Reset || !c.Reset && (len(want) > 0 || after > upto) {
			t.Fatalf("Changes after %d (floor %d): %+v, without %v, of\n%v", after, floor, c, want, all)
		}
	}
}

// The methods may be called at the same time, and a version that is seen is seen on all
// of its tags.
func TestVersionsConcurrent(t *testing.T) {
	v := store.NewVersions(10)
	tags := []string{"a", "b", "c"}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for n := range store.Version(200) {
				var changes []store.Change
				for _, tag := range tags {
					changes = append(changes, store.Change{Tag: tag, Version: n + 1, Effect: store.Stale})
				}
				v.Apply(epoch, changes...)
			}
		})
		wg.Go(func() {
			for range 200 {
				upto := v.Upto()
				c := v.Changes(upto)
				if len(c.List) != 0 && len(c.List) != len(tags) || c.Upto < upto {
					t.Errorf("Changes after %d: %+v: a part", upto, c)
				}
				if upto > 0 {
					for _, tag := range tags {
						if got, _ := v.Effect(upto-1, []string{tag}); got != store.Stale {
							t.Errorf("%s after %d: %v, want stale", tag, upto-1, got)
						}
					}
				}
				if n := remembered(v); n > len(tags) {
					t.Errorf("%d tags", n)
				}
			}
		})
	}
	wg.Wait()
}

// First is when the first of what concerns one of the tags was applied, also of a weaker
// effect; what was applied before a time, or has no version after another, does not count.
func TestFirst(t *testing.T) {
	v := store.NewVersions(10)
	v.Apply(second(1), store.Change{Tag: "a", Version: 1, Effect: store.Gone})
	v.Apply(second(2), store.Change{Tag: "a", Version: 2, Effect: store.Stale})
	v.Apply(second(3), store.Change{Tag: "b", Version: 3, Effect: store.Expired})
	v.Apply(time.Time{}, store.Change{Tag: "c", Version: 4, Effect: store.Stale})
	for _, test := range []struct {
		after     store.Version
		notBefore time.Time
		tags      []string
		want      time.Time
		ok        bool
	}{
		{0, time.Time{}, []string{"b", "a"}, second(1), true},
		{1, time.Time{}, []string{"b", "a"}, second(2), true},
		{0, second(2), []string{"b", "a"}, second(2), true},
		{2, time.Time{}, []string{"b", "a"}, second(3), true},
		{3, time.Time{}, []string{"b", "a"}, time.Time{}, false},
		{0, second(4), []string{"b", "a"}, time.Time{}, false},
		{0, time.Time{}, []string{"a", "c"}, time.Time{}, true},
		{0, second(0), []string{"a", "c"}, second(1), true},
		{0, time.Time{}, []string{"other"}, time.Time{}, false},
	} {
		if got, ok := v.First(test.after, test.notBefore, test.tags); ok != test.ok || !got.Equal(test.want) {
			t.Errorf("%+v: got %v, %v", test, got, ok)
		}
	}
}
