package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/isr-go/isr/store"
)

// grace is how long after the end of its context a call may go on: "soon".
const grace = 10 * time.Second

// A method is a call of one of the methods.
type method struct {
	name string
	call func(context.Context, store.Store) error
}

func methods(key, tag string, ticket store.Ticket, after store.Version) []method {
	return []method{
		{"Look", func(ctx context.Context, s store.Store) error {
			_, _, err := Get(ctx, s, key)
			return err
		}},
		{"Look for a ticket", func(ctx context.Context, s store.Store) error {
			_, err := Begin(ctx, s, key, long)
			return err
		}},
		{"Put", func(ctx context.Context, s store.Store) error {
			return s.Put(ctx, key, ticket, &store.Record{Tags: []string{tag}, Data: []byte("data")})
		}},
		{"End", func(ctx context.Context, s store.Store) error {
			return s.End(ctx, key, ticket)
		}},
		{"Invalidate", func(ctx context.Context, s store.Store) error {
			_, err := s.Invalidate(ctx, store.Stale, tag)
			return err
		}},
		{"Changes", func(ctx context.Context, s store.Store) error {
			_, err := s.Changes(ctx, after)
			return err
		}},
	}
}

// A call ends with its context, and says that it was that.
func contexts(t *test) {
	after := t.invalidate(0, store.Stale, "tag")
	ticket := t.store(0, "key", "data", "tag")
	cancelled, cancel := context.WithCancel(t.ctx)
	cancel()
	late, cancel := context.WithDeadline(t.ctx, time.Now().Add(-time.Second))
	defer cancel()
	for i, s := range t.Stores {
		for _, m := range methods("key", "tag", ticket, after) {
			if err := m.call(cancelled, s); !errors.Is(err, context.Canceled) {
				t.Errorf("store %d: %s when cancelled: %v, want %v", i, m.name, err, context.Canceled)
			}
			if err := m.call(late, s); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("store %d: %s past the deadline: %v, want %v", i, m.name, err, context.DeadlineExceeded)
			}
		}
	}

	// Changes does so while it waits, too. Now and then a heartbeat may come first.
	last := t.invalidate(0, store.Stale, "tag")
	for i, s := range t.Stores {
		t.eventually("end of Changes with its context", func() bool {
			ctx, cancel := context.WithTimeout(t.ctx, 20*time.Millisecond)
			defer cancel()
			_, err := s.Changes(ctx, last)
			if err != nil && !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("store %d: Changes with a deadline: %v", i, err)
			}
			return err != nil
		})
		ctx, cancel := context.WithCancel(t.ctx)
		time.AfterFunc(20*time.Millisecond, cancel)
		t.eventually("end of Changes with its context", func() bool {
			_, err := s.Changes(ctx, last)
			if err != nil && !errors.Is(err, context.Canceled) {
				t.Fatalf("store %d: Changes, cancelled: %v", i, err)
			}
			return err != nil
		})
	}
}

// On an engine that hangs each call ends with its context, and with no answer;
// when the engine goes on, so does the store.
func pause(t *test) {
	if t.Pause == nil {
		t.Skip("the engine cannot be made to hang")
	}
	after := t.invalidate(0, store.Stale, "tag")
	t.store(0, "key", "data", "tag")
	ticket := t.begin(0, "key")
	resume := sync.OnceFunc(t.Pause())
	defer resume()
	ctx, cancel := context.WithTimeout(t.ctx, 200*time.Millisecond)
	defer cancel()
	const callers = 200
	calls := methods("key", "tag", ticket, after)
	done := make(chan error, callers)
	for n := range callers {
		m := calls[n%len(calls)]
		go func() {
			err := m.call(ctx, t.Stores[n/len(calls)%2])
			for _, answer := range []error{nil, store.ErrNotFound, store.ErrSuperseded, store.ErrTooLarge} {
				if errors.Is(err, answer) {
					done <- fmt.Errorf("%s on a hung engine: %v", m.name, err)
					return
				}
			}
			done <- nil
		}()
	}
	deadline := time.After(grace)
	for n := range callers {
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-deadline:
			t.Fatalf("%d of %d calls on a hung engine go on %v after their deadline", callers-n, callers, grace)
		}
	}
	resume()
	// What came of those calls nobody knows: this is about other keys and tags.
	for i, s := range t.Stores {
		key := fmt.Sprint("after it ", i)
		t.eventually("answers of the resumed engine", func() bool {
			_, err := s.Invalidate(t.ctx, store.Gone, key)
			return err == nil
		})
		t.eventually("answers of the resumed engine", func() bool {
			_, _, err := Get(t.ctx, s, "never")
			return errors.Is(err, store.ErrNotFound)
		})
	}
	for i := range t.Stores {
		key := fmt.Sprint("after it ", i)
		ticket := t.leads(i, key, true)
		v := t.invalidate(1-i, store.Stale, key)
		t.put(i, key, ticket, &store.Record{Tags: []string{key}, Data: []byte("data")})
		t.is(key, "data", store.Stale)
		got := t.follow(i, v-1, v)
		n := 0
		for _, c := range got { // one of those calls may arrive only now
			if c.Tag == key {
				n++
			}
		}
		if n != 1 {
			t.Errorf("store %d: Changes: %v, want one of %q", i, got, key)
		}
	}
}

// When the engine has lost everything, versions go on, and what is of before then
// counts as old: the cursors, the tickets, and what records there may be.
func wipe(t *test) {
	if t.Wipe == nil {
		t.Skip("the engine cannot be wiped")
	}
	from := t.invalidate(0, store.Stale, "first")
	t.store(0, "kept", "old", "tag")
	late := []store.Ticket{t.begin(0, "late 0"), t.begin(1, "late 1"), t.begin(0, "late 2"), t.begin(1, "late 3")}
	last := t.invalidate(1, store.Gone, "tag")
	for n := range 3 {
		last = t.invalidate(n%2, store.Gone, fmt.Sprint("tag ", n))
	}
	t.store(0, "new", "old")
	t.Wipe()

	// void puts with a ticket of before: whatever comes of it, it is not new.
	void := func(n int) {
		t.Helper()
		key := fmt.Sprint("late ", n)
		t.eventually("answer to a Put", func() bool {
			err := t.Stores[n%2].Put(t.ctx, key, late[n], &store.Record{Tags: []string{"tag"}, Data: []byte("late")})
			return err == nil || errors.Is(err, store.ErrSuperseded)
		})
		t.old(key)
	}
	void(0)
	t.old("kept")
	t.old("new")
	for i := range t.Stores {
		ticket := t.begin(i, fmt.Sprint("key ", i))
		if ticket.Version < last {
			t.Fatalf("store %d: ticket %+v after a wipe, version %d before it", i, ticket, last)
		}
		last = ticket.Version
	}
	void(1)
	for i := range t.Stores {
		t.reset(i, from)
	}
	for i := range t.Stores {
		v := t.invalidate(i, store.Stale, "another")
		if v <= last {
			t.Fatalf("store %d: version %d after a wipe, %d before it", i, v, last)
		}
		last = v
	}
	void(2)
	for i := range t.Stores {
		t.reset(i, from)
		key := fmt.Sprint("new ", i)
		ticket := t.begin(i, key)
		t.put(i, key, ticket, &store.Record{Tags: []string{"tag"}, Data: []byte("new")})
		t.is(key, "new", store.None)
	}
	void(3)
	t.old("kept")
	t.invalidate(0, store.Stale, "tag")
	t.is("new 0", "new", store.Stale)
	t.is("new 1", "new", store.Stale)
}

// old fails the test if a handle gets the record under a key as if it were new.
func (t *test) old(key string) {
	t.Helper()
	for i, s := range t.Stores {
		t.eventually("answer to a Get", func() bool {
			rec, effect, err := Get(t.ctx, s, key)
			if err == nil && effect == store.None {
				t.Fatalf("store %d: Get(%q) after a wipe: %.50q, %v", i, key, rec.Data, effect)
			}
			return err == nil || errors.Is(err, store.ErrNotFound)
		})
	}
}

// reset fails the test if a cursor of a lost history gets no Reset, or cannot go on from
// where that ends.
func (t *test) reset(i int, after store.Version) {
	t.Helper()
	var c store.Changes
	t.eventually("Reset", func() bool {
		var err error
		c, err = t.next(i, after)
		return err == nil && c.Reset
	})
	v := t.invalidate(i, store.Expired, "after the reset")
	want := []store.Change{{Tag: "after the reset", Version: v, Effect: store.Expired}}
	if got := t.follow(i, c.Upto, v); !slices.Equal(got, want) {
		t.Fatalf("store %d: Changes after the Reset: %v, want %v", i, got, want)
	}
}

// What was answered before a restart holds after it.
func durable(t *test) {
	if t.Reopen == nil {
		t.Skip("nothing outlives the process")
	}
	from := t.invalidate(0, store.Stale, "first")
	last := from
	for round := range 2 {
		name := func(what any) string { return fmt.Sprint("round ", round, ", ", what) }
		t.store(0, name("new"), "data", name("nothing"), "all")
		late := t.begin(1, name("late"))
		for i, effect := range allEffects {
			t.store(i%2, name(effect), "data", name(effect))
			last = t.invalidate(1-i%2, effect, name(effect), name("late"))
		}
		t.Stores = t.Reopen()

		t.is(name("new"), "data", store.None)
		for _, effect := range allEffects {
			t.is(name(effect), "data", effect)
		}
		t.put(0, name("late"), late, &store.Record{Tags: []string{name("late")}, Data: []byte("late")})
		t.is(name("late"), "late", store.Gone)
		for i := range t.Stores {
			if got := t.follow(i, from, last); len(got) != 6 {
				t.Errorf("store %d: %d changes before the restart, want 6: %v", i, len(got), got)
			}
		}
		for i := range t.Stores {
			ticket := t.begin(i, name("begun after it"))
			if v := t.invalidate(i, store.Stale, "another"); ticket.Version < last || v <= ticket.Version {
				t.Fatalf("store %d: ticket %+v and version %d after a restart, %d before it", i, ticket, v, last)
			} else {
				last = v
			}
		}
		from = last
		if round > 0 {
			t.is("round 0, new", "data", store.None)
			t.invalidate(0, store.Expired, "all")
			t.is("round 0, new", "data", store.Expired)
			t.is(name("new"), "data", store.Expired)
		}
	}
}
