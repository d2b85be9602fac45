package invalidation_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isr-go/isr/internal/invalidation"
	"github.com/isr-go/isr/internal/pagekey"
	"github.com/isr-go/isr/store"
)

const limit = 1 << 20

// newTable returns a Table without pages, which must not overflow.
func newTable(t *testing.T) *invalidation.Table {
	return invalidation.New(limit, func(*invalidation.Judgements) {}, func() { t.Error("the table is full") })
}

// undelivered fails the test unless just these tags are pending.
func undelivered(t *testing.T, table *invalidation.Table, want map[store.Effect][]string) {
	t.Helper()
	got, clock := table.Undelivered()
	for _, tags := range got {
		slices.Sort(tags)
	}
	for effect := store.None; effect <= store.Gone; effect++ {
		if !slices.Equal(got[effect], want[effect]) {
			t.Errorf("undelivered with effect %v: %q, want %q", effect, got[effect], want[effect])
		}
	}
	if clock != table.Clock() {
		t.Errorf("undelivered up to clock %d, want %d", clock, table.Clock())
	}
}

// untaken fails the test unless invalidations that the Store has not taken have an
// effect on a page with a tag.
func untaken(t *testing.T, table *invalidation.Table, tag string, want store.Effect) {
	t.Helper()
	if got := table.KnownEffect(math.MaxUint64, &pagekey.Key{Path: "/"}, []string{tag}); got != want {
		t.Errorf("what the Store has not taken has effect %v on %q, want %v", got, tag, want)
	}
}

// What is delivered never enters the outbox; what is in flight is in it, and becomes
// pending when the call fails; what is pending stays so until Ack.
func TestOutbox(t *testing.T) {
	table := newTable(t)
	table.Invalidate(store.Gone, invalidation.Delivered, "delivered")
	table.Invalidate(store.Expired, invalidation.InFlight, "flying", "lost")
	table.Invalidate(store.Stale, invalidation.Pending, "a", "b")
	undelivered(t, table, map[store.Effect][]string{store.Stale: {"a", "b"}})
	untaken(t, table, "delivered", store.None)
	untaken(t, table, "flying", store.Expired)
	untaken(t, table, "b", store.Stale)

	table.Nack([]string{"lost", "never entered"})
	undelivered(t, table, map[store.Effect][]string{store.Stale: {"a", "b"}, store.Expired: {"lost"}})

	table.Ack(store.Expired, 10, table.Clock(), "flying", "lost", "never entered")
	table.Ack(store.Stale, 11, table.Clock(), "a")
	undelivered(t, table, map[store.Effect][]string{store.Stale: {"b"}})
	for tag, want := range map[string]store.Effect{"flying": store.None, "lost": store.None, "a": store.None, "b": store.Stale} {
		untaken(t, table, tag, want)
	}
}

// Every tag by which a page can be named counts for a page that comes from the Store, also
// those of what is below a path.
func TestOutboxKnowsPagesByTheirKeys(t *testing.T) {
	k := pagekey.Key{Scheme: "https", Host: "example.com", Path: "/a%2Fb", Query: "q=1"}
	other := pagekey.Key{Scheme: "https", Host: "example.com", Path: "/b", Query: "q=1"}
	tags := []string{pagekey.Everything}
	for tag := range k.Tags {
		tags = append(tags, tag)
	}
	for _, tag := range tags {
		table := newTable(t)
		table.Invalidate(store.Expired, invalidation.Pending, tag)
		if got := table.KnownEffect(math.MaxUint64, &k, nil); got != store.Expired {
			t.Errorf("%q: %v", tag, got)
		}
		if got := table.KnownEffect(math.MaxUint64, &other, nil); got != store.None && tag != pagekey.Everything && !strings.HasSuffix(tag, "/") {
			t.Errorf("%q: %v on another page", tag, got)
		}
	}
}

// An Ack removes what the call has delivered, and no more: what was invalidated since
// then, or has a stronger effect, stays. In whatever order the calls return, nothing is
// left when all have.
func TestOutboxAck(t *testing.T) {
	type ack struct {
		effect store.Effect
		asked  int // 1: after the first invalidation, 2: after the second
	}
	for name, test := range map[string]struct {
		first, second store.Effect
		acks          []ack
		want          []store.Effect // after each
	}{
		"as asked":                  {store.Gone, store.Gone, []ack{{store.Gone, 2}}, []store.Effect{store.None}},
		"before the second":         {store.Stale, store.Stale, []ack{{store.Stale, 1}, {store.Stale, 2}}, []store.Effect{store.Stale, store.None}},
		"in the other order":        {store.Stale, store.Stale, []ack{{store.Stale, 2}, {store.Stale, 1}}, []store.Effect{store.None, store.None}},
		"stronger than asked":       {store.Stale, store.Stale, []ack{{store.Gone, 2}}, []store.Effect{store.None}},
		"weaker than asked":         {store.Gone, store.Gone, []ack{{store.Stale, 2}, {store.Gone, 2}}, []store.Effect{store.Gone, store.None}},
		"the stronger came second":  {store.Stale, store.Gone, []ack{{store.Stale, 1}, {store.Gone, 2}}, []store.Effect{store.Gone, store.None}},
		"the stronger came first":   {store.Gone, store.Stale, []ack{{store.Gone, 1}, {store.Stale, 2}}, []store.Effect{store.Stale, store.None}},
		"and is acknowledged last":  {store.Gone, store.Stale, []ack{{store.Stale, 2}, {store.Gone, 1}}, []store.Effect{store.Gone, store.None}},
		"the stronger was enough":   {store.Gone, store.Stale, []ack{{store.Gone, 2}}, []store.Effect{store.None}},
		"the middle one came first": {store.Expired, store.Stale, []ack{{store.Expired, 1}, {store.Stale, 2}}, []store.Effect{store.Stale, store.None}},
	} {
		for _, d := range []invalidation.Delivery{invalidation.InFlight, invalidation.Pending} {
			t.Run(fmt.Sprint(name, d), func(t *testing.T) {
				table := newTable(t)
				var clocks [3]uint64
				for i, effect := range []store.Effect{test.first, test.second} {
					table.Invalidate(effect, d, "tag")
					clocks[i+1] = table.Clock()
				}
				untaken(t, table, "tag", max(test.first, test.second))
				for i, a := range test.acks {
					table.Ack(a.effect, store.Version(10+i), clocks[a.asked], "tag")
					untaken(t, table, "tag", test.want[i])
					if d == invalidation.Pending {
						want := map[store.Effect][]string{test.want[i]: {"tag"}}
						delete(want, store.None)
						undelivered(t, table, want)
					}
				}
			})
		}
	}
}

// fill invalidates tags of 100 bytes, a hundred at a time, until one call is not
// remembered, and returns how many calls were.
func fill(t *testing.T, table *invalidation.Table, prefix string, d invalidation.Delivery) (calls int) {
	t.Helper()
	for calls = range 1000 {
		tags := make([]string, 100)
		for i := range tags {
			tags[i] = fmt.Sprintf("%s %03d %094d", prefix, calls, i)
		}
		if !table.Invalidate(store.Stale, d, tags...) {
			return calls
		}
	}
	t.Fatal("the outbox has no bound")
	return 0
}

// Visitors' changes fill half of the outbox at most, so that editors' purges always have
// the other half. What it has no room for holds here all the same, and what it knows it
// can make stronger even when it is full.
func TestOutboxOverflow(t *testing.T) {
	table := invalidation.New(limit, func(*invalidation.Judgements) {}, func() {})
	visitors := fill(t, table, "visitor", invalidation.InFlight)
	editors := fill(t, table, "editor", invalidation.Pending)
	if visitors == 0 || editors < visitors*9/10 || editors > visitors*11/10 {
		t.Errorf("visitors had room for %d calls, editors for %d: want a half each", visitors, editors)
	}
	if table.Invalidate(store.Gone, invalidation.InFlight, "one more visitor") || table.Invalidate(store.Gone, invalidation.Pending, "one more "+fmt.Sprintf("%0200d", 0)) {
		t.Error("remembered, and there is no room")
	}
	since := invalidation.Snapshot{Clock: table.Clock() - 1}
	if !table.Since(&since, &pagekey.Key{Path: "/"}, []string{"one more " + fmt.Sprintf("%0200d", 0)}) {
		t.Error("what the outbox has no room for does not hold here")
	}
	known := fmt.Sprintf("editor %03d %094d", 0, 0)
	if !table.Invalidate(store.Gone, invalidation.Pending, known) {
		t.Error("not remembered, and it is in the outbox")
	}
	untaken(t, table, known, store.Gone)

	// What is delivered makes room.
	for {
		m, clock := table.Undelivered()
		if len(m) == 0 {
			break
		}
		for effect, tags := range m {
			if len(tags) > 1000 {
				t.Fatalf("%d tags in one call", len(tags))
			}
			table.Ack(effect, store.Version(clock), clock, tags...)
		}
	}
	if got := fill(t, table, "editor again", invalidation.Pending); got < editors*9/10 {
		t.Errorf("room for %d calls after all of %d were delivered", got, editors)
	}
}

// Any number of goroutines may fill, read and empty the outbox; nothing is left when all
// have delivered theirs.
func TestOutboxConcurrent(t *testing.T) {
	table := newTable(t)
	var version atomic.Uint64
	var all sync.WaitGroup
	for n := range 8 {
		all.Go(func() {
			for i := range 200 {
				tag, effect := fmt.Sprint("tag ", i%7), store.Effect(1+(n+i)%3)
				table.Invalidate(effect, invalidation.InFlight, tag)
				asked := table.Clock()
				if i%5 == 0 {
					table.Nack([]string{tag})
					continue
				}
				table.Ack(effect, store.Version(version.Add(1)), asked, tag)
				table.KnownEffect(math.MaxUint64, &pagekey.Key{Path: "/"}, []string{tag})
			}
		})
	}
	all.Wait()
	for m, asked := table.Undelivered(); len(m) > 0; m, asked = table.Undelivered() {
		for effect, tags := range m {
			table.Ack(effect, store.Version(version.Add(1)), asked, tags...)
		}
	}
	for i := range 7 {
		untaken(t, table, fmt.Sprint("tag ", i), store.None)
	}
}

// What the Store has taken within ten minutes is delivered again when it may have lost it,
// with all of its effects, as often as that happens, and no later.
func TestDeliverAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := newTable(t)
		version := store.Version(10)
		take := func(effect store.Effect, tags ...string) {
			version++
			table.Ack(effect, version, table.Clock(), tags...)
		}
		take(store.Gone, "old")
		time.Sleep(5 * time.Minute)
		take(store.Gone, "a")
		take(store.Stale, "a", "b")
		time.Sleep(6 * time.Minute)
		for range 2 {
			table.DeliverAgain()
			undelivered(t, table, map[store.Effect][]string{store.Gone: {"a"}, store.Stale: {"b"}})
			untaken(t, table, "a", store.Gone)
			take(store.Gone, "a")
			take(store.Stale, "b")
			undelivered(t, table, nil)
		}
		time.Sleep(5 * time.Minute) // what was delivered again is no newer for that
		table.DeliverAgain()
		undelivered(t, table, nil)
	})
}

// What was invalidated lately is bounded: of what visitors cause some is left out, and then
// the oldest goes, which DeliverAgain tells. Nothing becomes an invalidation of everything.
func TestDeliverAgainIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := invalidation.New(limit, func(*invalidation.Judgements) {}, func() {})
		version := store.Version(0)
		take := func(effect store.Effect, tag string) {
			version++
			table.Ack(effect, version, table.Clock(), tag)
		}
		for i := range 4000 {
			tag := fmt.Sprint("visitors ", i)
			table.Invalidate(store.Expired, invalidation.InFlight, tag)
			take(store.Expired, tag)
		}
		take(store.Stale, "editors")
		if !table.DeliverAgain() {
			t.Error("what editors have invalidated is not all")
		}
		for tag, want := range map[string]store.Effect{"editors": store.Stale, "visitors 1": store.Expired, "visitors 3999": store.None} {
			untaken(t, table, tag, want)
		}
		deliver := func() {
			for {
				undelivered, clock := table.Undelivered()
				if len(undelivered) == 0 {
					return
				}
				for effect, tags := range undelivered {
					version++
					table.Ack(effect, version, clock, tags...)
				}
			}
		}
		deliver()
		time.Sleep(time.Minute)
		for i := range 8000 {
			take(store.Gone, fmt.Sprint("import ", i))
		}
		if table.DeliverAgain() {
			t.Error("of 8000 that is all")
		}
		for tag, want := range map[string]store.Effect{"import 7999": store.Gone, "import 6000": store.Gone, "no matter which": store.None} {
			untaken(t, table, tag, want)
		}
		deliver()
		time.Sleep(time.Hour)
		take(store.Gone, "later")
		if !table.DeliverAgain() {
			t.Error("an hour later that is not all")
		}
	})
}

// A page from the Store is judged by what is known here, too, in the Store's order.
func TestKnownEffect(t *testing.T) {
	table := newTable(t)
	table.Ack(store.Gone, 10, table.Clock(), "tag")
	for v, want := range map[store.Version]store.Effect{9: store.Gone, 10: store.None, 11: store.None} {
		if got := table.KnownEffect(v, &pagekey.Key{Path: "/"}, []string{"tag"}); got != want {
			t.Errorf("on version %d: %v, want %v", v, got, want)
		}
	}
}
