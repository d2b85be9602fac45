package storetest

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/isr-go/isr/store"
)

// leads begins a generation, and fails the test unless it is, or is not, the key's
// leader.
func (t *test) leads(i int, key string, want bool) store.Ticket {
	t.Helper()
	ticket := t.begin(i, key)
	if ticket.Leader != want {
		t.Fatalf("store %d: Begin(%q): Leader is %v, want %v", i, key, ticket.Leader, want)
	}
	return ticket
}

// Of many who begin one alone leads, and the next one does when that one has ended.
func lease(t *test) {
	for _, key := range []string{"key", "another", ""} {
		for range 3 {
			var leaders atomic.Int32
			var leader store.Ticket
			parallel(32, func(g int) {
				ticket, err := t.Stores[g%2].Begin(t.ctx, key, long)
				if err != nil {
					t.Errorf("Begin: %v", err)
				}
				if ticket.Leader && leaders.Add(1) == 1 {
					leader = ticket
				}
			})
			if n := leaders.Load(); n != 1 {
				t.Fatalf("%d leaders of 32, want 1", n)
			}
			t.leads(0, key, false)
			t.leads(1, key, false)
			t.end(0, key, leader)
		}
	}
}

// A lease is given back by its holder alone.
func foreignEnd(t *test) {
	leader := t.leads(0, "key", true)
	another := t.leads(0, "another", true)
	follower := t.leads(1, "key", false)
	claimed := follower
	claimed.Leader = true
	forged := leader
	forged.Token += "x"
	none := leader
	none.Token = ""
	for i := range t.Stores {
		for _, ticket := range []store.Ticket{follower, claimed, forged, none, another, {}} {
			t.end(i, "key", ticket)
			t.leads(i, "key", false)
		}
		t.end(i, "another", leader)
		t.leads(i, "another", false)
		t.end(i, "nobody's", leader)
	}
	t.put(1, "key", follower, &store.Record{})
	t.leads(0, "key", false)
	t.end(1, "key", leader) // by the other handle: what counts is the ticket
	next := t.leads(0, "key", true)
	t.end(0, "key", leader)
	t.leads(0, "key", false)
	t.leads(1, "key", false)
	t.end(0, "key", next)
	t.leads(1, "key", true)
}

// A lease ends by itself, and its holder has then no hand in the next one.
func leaseEnds(t *test) {
	held := t.leads(0, "held", true)
	for n := range 2 {
		key := fmt.Sprint("key", n)
		first, err := t.Stores[0].Begin(t.ctx, key, t.TTL)
		if err != nil || !first.Leader {
			t.Fatalf("Begin: %+v, %v, want Leader", first, err)
		}
		// Who follows does not make it longer.
		var second store.Ticket
		t.eventually("end of the lease", func() bool {
			second = t.begin(1, key)
			return second.Leader
		})
		if second.Compare(first) <= 0 {
			t.Errorf("after ticket %+v, whose lease is over, comes %+v", first, second)
		}
		if n == 0 {
			t.end(0, key, first)
		} else {
			t.put(0, key, first, &store.Record{Data: []byte("late")})
			t.is(key, "late", store.None)
		}
		t.leads(0, key, false)
		t.leads(1, key, false)
		t.put(1, key, second, &store.Record{Data: []byte("second")})
		t.is(key, "second", store.None)
		t.leads(0, key, true)
	}
	t.leads(1, "held", false)
	t.end(0, "held", held)
}

// A Put gives the lease back, whether or not it was in time.
func putEndsLease(t *test) {
	leader := t.leads(0, "key", true)
	t.put(0, "key", leader, &store.Record{Data: []byte("1")})
	leader = t.leads(1, "key", true)
	follower := t.leads(0, "key", false)
	t.put(0, "key", follower, &store.Record{Data: []byte("2")})
	t.leads(0, "key", false)
	if err := t.Stores[1].Put(t.ctx, "key", leader, &store.Record{Data: []byte("3")}); !errors.Is(err, store.ErrSuperseded) {
		t.Fatalf("Put of an older ticket: %v, want ErrSuperseded", err)
	}
	t.is("key", "2", store.None)
	leader = t.leads(0, "key", true)
	t.invalidate(0, store.Gone, "tag")
	t.put(0, "key", leader, &store.Record{Tags: []string{"tag"}})
	t.leads(1, "key", true)
}
