package invalidation_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isr-go/isr/internal/invalidation"
	"github.com/isr-go/isr/internal/pagekey"
	"github.com/isr-go/isr/store"
)

var root = pagekey.Key{Scheme: "http", Host: "example.com", Path: "/"}

// subject returns what a generation that begins now will be judged by.
func subject(table *invalidation.Table, tags ...string) *invalidation.Subject {
	return &invalidation.Subject{Since: table.Now(), Tags: tags}
}

// affected fails the test if the effect on a subject is another one.
func affected(t *testing.T, table *invalidation.Table, what string, s *invalidation.Subject, want store.Effect) {
	t.Helper()
	if got := table.Effect(s, &root); got != want {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func change(tag string, v store.Version, effect store.Effect) []store.Change {
	return []store.Change{{Tag: tag, Version: v, Effect: effect}}
}

// An invalidation reaches what began before it and has the tag, whether that is stored
// yet or not; what begins after it is fresh. The strongest counts.
func TestInvalidate(t *testing.T) {
	table := newTable(t)
	before, tagless := subject(table, "a", "b"), subject(table)
	affected(t, table, "nothing was invalidated", before, store.None)
	table.Invalidate(store.Stale, invalidation.Delivered, "c", "b")
	between := subject(table, "b", "a")
	affected(t, table, "it began before", before, store.Stale)
	affected(t, table, "it has no such tag", tagless, store.None)
	affected(t, table, "it began after", between, store.None)
	table.Invalidate(store.Gone, invalidation.Delivered, "a")
	table.Invalidate(store.Stale, invalidation.Delivered, "a", "b")
	affected(t, table, "the strongest of three", before, store.Gone)
	affected(t, table, "the strongest of two", between, store.Gone)
	table.Invalidate(store.Expired, invalidation.Delivered, pagekey.Everything)
	affected(t, table, "everything", tagless, store.Expired)
	affected(t, table, "everything, and gone before", before, store.Gone)
	affected(t, table, "it began after all", subject(table, "a", "b"), store.None)
}

// A page is reached by each way in which its key can be named, and by no other.
func TestInvalidateByKey(t *testing.T) {
	k := pagekey.Key{Scheme: "https", Host: "example.com", Path: "/a", Query: "q=1"}
	for scope, want := range map[pagekey.Scope]bool{
		{Path: "/a", AllQueries: true}: true,
		{Path: "/a", Query: "q=1"}:     true,
		{Path: "/%61", Query: "q=1"}:   true,
		{Path: "/a"}:                   false,
		{Path: "/", AllQueries: true}:  false,
		{Scheme: "https", Host: "example.com", Path: "/a", AllQueries: true}:   true,
		{Scheme: "https", Host: "example.com", Path: "/a", Query: "q=1"}:       true,
		{Scheme: "http", Host: "example.com", Path: "/a", AllQueries: true}:    false,
		{Scheme: "https", Host: "www.example.com", Path: "/a", Query: "q=1"}:   false,
		{Scheme: "https", Host: "example.com", Path: "/a", Query: "q=1&page="}: false,
	} {
		table := newTable(t)
		began := table.Now()
		table.Invalidate(store.Gone, invalidation.Delivered, scope.Tag())
		if got := table.Since(&began, &k, nil); got != want {
			t.Errorf("%+v: reached %v, want %v", scope, got, want)
		}
	}
}

// A subject counts as invalidated from the invalidation on that it was first seen to be
// stale by, and not from before its generation began.
func TestInvalidatedAt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := newTable(t)
		s := subject(table, "a")
		s.NotBefore = time.Now().UnixNano()
		time.Sleep(time.Minute)
		at := time.Now()
		table.Invalidate(store.Stale, invalidation.Delivered, "a")
		time.Sleep(time.Minute)
		affected(t, table, "a minute ago", s, store.Stale)
		if got := s.InvalidatedAt(); !got.Equal(at) {
			t.Errorf("invalidated at %v, want %v", got, at)
		}
		table.Invalidate(store.Gone, invalidation.Delivered, "a")
		affected(t, table, "again", s, store.Gone)
		if got := s.InvalidatedAt(); !got.Equal(at) {
			t.Errorf("invalidated again at %v, want %v", got, at)
		}

		// The Store does not say when.
		late := subject(table, "b")
		late.NotBefore = time.Now().UnixNano()
		table.Apply(time.Time{}, store.Changes{List: change("b", 5, store.Stale), Upto: 5})
		affected(t, table, "history", late, store.Stale)
		if got := late.InvalidatedAt(); got.UnixNano() != late.NotBefore {
			t.Errorf("invalidated at %v, want %v", got, late.NotBefore)
		}
	})
}

// What the Store says of a page that comes from there holds, unless what is known here
// is stronger.
func TestStoreEffect(t *testing.T) {
	table := newTable(t)
	s := subject(table, "a")
	s.StoreEffect = store.Stale
	affected(t, table, "as the Store says", s, store.Stale)
	table.Invalidate(store.Expired, invalidation.Delivered, "a")
	affected(t, table, "and here", s, store.Expired)
}

// What other instances invalidate has its effect here by the Store's order: on what
// began before a version was heard of, however late the history of it comes.
func TestApply(t *testing.T) {
	table := newTable(t)
	before := subject(table, "a", "b")
	table.Observe(20) // a ticket's, or an answer to Invalidate
	table.Observe(10)
	after := subject(table, "a", "b")
	if after.Since.Version != 20 {
		t.Errorf("a generation begins after version %d, want 20", after.Since.Version)
	}
	table.Apply(time.Now(), store.Changes{List: change("a", 20, store.Expired), Upto: 20})
	affected(t, table, "it began before", before, store.Expired)
	affected(t, table, "it began when the version was known", after, store.None)
	table.Apply(time.Now(), store.Changes{List: change("b", 21, store.Gone), Upto: 25})
	affected(t, table, "both began before", before, store.Gone)
	affected(t, table, "both began before", after, store.Gone)
	if got := table.Now().Version; got != 25 {
		t.Errorf("it is complete up to 25, but a generation begins after %d", got)
	}
	affected(t, table, "it began after", subject(table, "a", "b"), store.None)
}

// What the Store has taken from this instance has its effect by the Store's order, too, with
// the version that it was given: on what the Store dates before it.
func TestAckHoldsInTheStoresOrder(t *testing.T) {
	table := newTable(t)
	table.Invalidate(store.Gone, invalidation.InFlight, "a")
	asked := table.Clock()
	fromStore := &invalidation.Subject{Since: invalidation.Snapshot{Clock: asked, Version: 9}, Tags: []string{"a"}}
	affected(t, table, "before the Store has said", fromStore, store.None)
	table.Ack(store.Gone, 10, asked, "a")
	affected(t, table, "the Store has it from before", fromStore, store.Gone)
	affected(t, table, "it began after", subject(table, "a"), store.None)
}

// After a Reset whatever is held counts as stale, and what begins then is fresh; after
// one with a version that was reached before, too, and but once.
func TestReset(t *testing.T) {
	table := newTable(t)
	began := subject(table, "a")
	table.Apply(time.Now(), store.Changes{List: change("b", 10, store.Gone), Upto: 10, Reset: true})
	affected(t, table, "it began before the first history", began, store.Stale)
	second := subject(table, "a")
	affected(t, table, "it began after", second, store.None)

	// The engine was wiped, and has gone back.
	table.Apply(time.Now(), store.Changes{Upto: 5, Reset: true})
	affected(t, table, "the history has gone", second, store.Stale)
	third := subject(table, "a")
	affected(t, table, "it began after that", third, store.None)
	table.Apply(time.Now(), store.Changes{Upto: 5, Reset: true})
	affected(t, table, "the same once more", third, store.None)
	table.Apply(time.Now(), store.Changes{Upto: 6, Reset: true})
	affected(t, table, "another one", third, store.Stale)
}

// What was generated without the Store counts as stale when that is back, and only
// then: other instances may have made another page meanwhile.
func TestReconnected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := newTable(t)
		online := subject(table, "a")
		table.Reconnected()
		if n := table.Reconnects(); n != 0 {
			t.Errorf("it has come back %d times, and was never away", n)
		}
		offline := func() *invalidation.Subject {
			s := subject(table, "a")
			s.Since.Offline = table.Reconnects() + 1
			table.GeneratedOffline()
			return s
		}
		first := offline()
		affected(t, table, "the Store is away", first, store.None)
		time.Sleep(time.Minute)
		back := time.Now()
		table.Reconnected()
		affected(t, table, "the Store is back", first, store.Stale)
		if got := first.InvalidatedAt(); !got.Equal(back) {
			t.Errorf("stale since %v, want %v", got, back)
		}
		affected(t, table, "generated with the Store", online, store.None)
		second := offline()
		affected(t, table, "it is away again", second, store.None)
		table.Invalidate(store.Gone, invalidation.Delivered, "a")
		table.Reconnected()
		affected(t, table, "stronger than that", second, store.Gone)
		if n := table.Reconnects(); n != 2 {
			t.Errorf("it has come back %d times, want 2", n)
		}
	})
}

// A table as large as may be is judged and forgotten, and no generation under way
// notices: what it holds is remembered until it ends.
func TestHold(t *testing.T) {
	var judged atomic.Int64
	table := invalidation.New(limit, func(*invalidation.Judgements) { judged.Add(1) }, func() { t.Error("the table is full") })
	table.Invalidate(store.Gone, invalidation.Delivered, "before")
	began, hold := table.BeginRun()
	same, again := table.BeginRun()
	if began != same || began != table.Now() {
		t.Errorf("two runs began at %+v and %+v", began, same)
	}
	table.Invalidate(store.Expired, invalidation.Delivered, "held")
	flood := func(calls int) {
		for i := range calls {
			table.Invalidate(store.Stale, invalidation.Delivered, fmt.Sprint("flood ", i))
		}
	}
	flood(limit / 300 * 9 / 10)
	table.EndRun(again)
	flood(limit / 300 * 9 / 10) // the same tags
	if table.Since(&began, &root, []string{"before"}) {
		t.Error("what was invalidated before the run is held against it")
	}
	if !table.Since(&began, &root, []string{"held"}) {
		t.Error("what was invalidated since the run began is forgotten")
	}
	table.EndRun(hold)
	for range 10 {
		for i := range limit / 300 {
			table.Invalidate(store.Stale, invalidation.Delivered, fmt.Sprint("more ", judged.Load(), i))
		}
	}
	if judged.Load() < 5 {
		t.Errorf("the pages were judged %d times, for ten times as much as there is room for", judged.Load())
	}
}

// However slow a run is, and however long the Store does not tell of what it has taken, the
// tables stay within their bound, and what was invalidated meanwhile keeps its effect. Of
// other pages a few are affected, too, and all only where there is far more than that.
func TestTablesAreBounded(t *testing.T) {
	const others = 1000
	for order, add := range map[string]func(table *invalidation.Table, i int, effect store.Effect){
		"ours, during a run": func(table *invalidation.Table, i int, effect store.Effect) {
			table.Invalidate(effect, invalidation.Delivered, fmt.Sprint("tag ", i))
		},
		"theirs, during a run": func(table *invalidation.Table, i int, effect store.Effect) {
			v := store.Version(1 + i)
			table.Apply(time.Now(), store.Changes{List: change(fmt.Sprint("tag ", i), v, effect), Upto: v})
		},
		"theirs, not told": func(table *invalidation.Table, i int, effect store.Effect) {
			table.Ack(effect, store.Version(1+i), table.Clock(), fmt.Sprint("tag ", i))
		},
	} {
		t.Run(order, func(t *testing.T) {
			var overflown atomic.Int64
			table := invalidation.New(limit, func(*invalidation.Judgements) {}, func() { overflown.Add(1) })
			began, hold := table.BeginRun()
			if order == "theirs, not told" {
				table.EndRun(hold)
			} else {
				defer table.EndRun(hold)
			}
			fill := func(from, upto int) {
				for i := from; i < upto; i++ {
					add(table, i, store.Expired)
					if n := table.Bytes(); n > limit+1000 {
						t.Fatalf("the tables take %d bytes of %d", n, limit)
					}
				}
			}
			fill(0, limit/100)
			if overflown.Load() == 0 {
				t.Error("overflown was not called for a table that is full")
			}
			for i := range limit / 100 {
				s := &invalidation.Subject{Since: began, Tags: []string{fmt.Sprint("tag ", i)}}
				affected(t, table, "it was invalidated", s, store.Expired)
			}
			hit := 0
			for i := range others {
				if s := (&invalidation.Subject{Since: began, Tags: []string{fmt.Sprint("another ", i)}}); table.Effect(s, &root) != store.None {
					hit++
				}
			}
			if hit > others/20 {
				t.Errorf("%d of %d other pages were affected", hit, others)
			}
			affected(t, table, "one that begins now", subject(table, "never invalidated"), store.None)
			fill(limit/100, limit/10)
			affected(t, table, "it cannot be known", &invalidation.Subject{Since: began, Tags: []string{"never invalidated"}}, store.Expired)
			affected(t, table, "one that begins now", subject(table, "never invalidated"), store.None)
		})
	}
}

// However many are invalidated at the same time, or with one call, all pages are judged
// first: none that it does not concern is affected.
func TestLargeCallsAreJudged(t *testing.T) {
	var subjects []*invalidation.Subject
	var table *invalidation.Table
	table = invalidation.New(limit, func(by *invalidation.Judgements) {
		for _, s := range subjects {
			s.Judge(by, table.Effect(s, &root))
		}
	}, func() { t.Error("the table is full") })
	for i := range 1000 {
		subjects = append(subjects, subject(table, fmt.Sprint("other ", i)))
	}
	var all sync.WaitGroup
	for n := range 4 {
		var tags []string
		for i := range limit / 100 {
			tags = append(tags, fmt.Sprint(n, " ", i))
		}
		all.Go(func() { table.Invalidate(store.Gone, invalidation.Delivered, tags...) })
	}
	all.Wait()
	var list []store.Change
	for i := range limit / 100 {
		list = append(list, store.Change{Tag: fmt.Sprint("theirs ", i), Version: store.Version(i + 1), Effect: store.Gone})
	}
	table.Apply(time.Now(), store.Changes{List: list, Upto: store.Version(len(list))})
	if n := table.Bytes(); n > limit {
		t.Errorf("the tables take %d bytes of %d", n, limit)
	}
	for _, s := range subjects {
		affected(t, table, "another", s, store.None)
	}
}

// A page that is judged carries what came of it, when what it was judged by is
// forgotten; what is invalidated later is held against it as before.
func TestJudgedPagesForget(t *testing.T) {
	var subjects []*invalidation.Subject
	var table *invalidation.Table
	table = invalidation.New(limit, func(by *invalidation.Judgements) {
		for _, s := range subjects {
			s.Judge(by, table.Effect(s, &root))
		}
	}, func() { t.Error("the table is full") })
	var want []store.Effect
	for effect := store.None; effect <= store.Gone; effect++ {
		tag := fmt.Sprint("judged ", effect)
		subjects, want = append(subjects, subject(table, tag, "later")), append(want, effect)
		if effect != store.None {
			table.Invalidate(effect, invalidation.Delivered, tag)
		}
	}
	flood := func() {
		for i := range 3 * limit / 300 {
			table.Invalidate(store.Gone, invalidation.Delivered, fmt.Sprint("flood ", i))
		}
	}
	flood()
	for i, s := range subjects {
		affected(t, table, "judged", s, want[i])
	}
	unjudged := &invalidation.Subject{Since: invalidation.Snapshot{Clock: 1}, Tags: []string{"later"}}
	affected(t, table, "the table remembers what it was to forget", unjudged, store.Gone)
	table.Invalidate(store.Expired, invalidation.Delivered, "later")
	for i, s := range subjects {
		affected(t, table, "later", s, max(want[i], store.Expired))
	}
	flood()
	for i, s := range subjects {
		affected(t, table, "judged once more", s, max(want[i], store.Expired))
	}
}

// An invalidation holds at once, whatever goroutine asks for it, while others follow the
// Store, begin and end runs, and fill the table.
func TestTableConcurrent(t *testing.T) {
	// A run that is held up while the others fill the table counts as invalidated.
	table := invalidation.New(limit, func(*invalidation.Judgements) {}, func() {})
	var all sync.WaitGroup
	for n := range 6 {
		all.Go(func() {
			for i := range 2000 {
				began, hold := table.BeginRun()
				s := &invalidation.Subject{Since: began, Tags: []string{fmt.Sprint("tag ", n, i%5)}}
				table.Invalidate(store.Gone, invalidation.Delivered, s.Tags[0], fmt.Sprint("flood ", n, i))
				if got := table.Effect(s, &root); got != store.Gone {
					t.Errorf("%v after a purge", got)
				}
				table.EndRun(hold)
			}
		})
	}
	all.Go(func() {
		for v := range store.Version(2000) {
			table.Apply(time.Now(), store.Changes{List: change("theirs", v+1, store.Stale), Upto: v + 1})
			table.Reconnected()
		}
	})
	all.Wait()
}
