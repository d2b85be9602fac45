package storetest

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/isr-go/isr/store"
)

// A ticket is given to those whom the record will not do, and to nobody else; and with it
// comes the record, where there is one.
func look(t *test) {
	wants := func(have store.Ticket, ttl time.Duration, data string, effect store.Effect, wanted bool) store.Ticket {
		t.Helper()
		var last store.Ticket
		for i, s := range t.Stores {
			rec, got, ticket, err := s.Look(t.ctx, "key", have, ttl)
			if data == "" && !errors.Is(err, store.ErrNotFound) || data != "" && err != nil {
				t.Fatalf("store %d: Look: %v", i, err)
			}
			if data == "" && (rec != nil || got != store.None) || data != "" && (string(rec.Data) != data || got != effect) {
				t.Fatalf("store %d: Look is %v, %v, want %q, %v", i, rec, got, data, effect)
			}
			if wanted != (ticket != store.Ticket{}) || wanted && ticket.Leader != (i == 0) {
				t.Fatalf("store %d: Look, having %+v: %+v, want a ticket: %v, and one leader", i, have, ticket, wanted)
			}
			if ticket.Leader {
				last = ticket
				defer t.end(i, "key", ticket)
			}
		}
		return last
	}
	wants(store.Ticket{}, 0, "", 0, false)
	wants(store.Ticket{}, long, "", 0, true)
	first := t.store(0, "key", "data", "tag")
	older := first
	older.Fence--
	wants(store.Ticket{}, long, "data", store.None, false)
	wants(older, long, "data", store.None, false)
	wants(first, long, "data", store.None, true)
	wants(first, 0, "data", store.None, false)
	wants(newest, long, "data", store.None, true)
	t.invalidate(0, store.Stale, "tag")
	wants(store.Ticket{}, long, "data", store.Stale, false)
	wants(first, long, "data", store.Stale, true)
	t.invalidate(1, store.Expired, "tag")
	wants(store.Ticket{}, 0, "data", store.Expired, false)
	wants(older, long, "data", store.Expired, true)
	t.invalidate(1, store.Gone, "tag")
	wants(store.Ticket{}, 0, "", 0, false)
	second := wants(older, long, "", 0, true)
	t.put(0, "key", second, &store.Record{Data: []byte("new")})
	wants(first, long, "new", store.None, false)
}

// The record and the lease are of one moment: a leader has seen what the last leader
// has put, so that a page is generated once.
func once(t *test) {
	for n := range 20 {
		key := fmt.Sprint("key", n)
		var generated atomic.Int32
		parallel(16, func(g int) {
			for t.ctx.Err() == nil {
				_, _, ticket, err := t.Stores[g%2].Look(t.ctx, key, store.Ticket{}, long)
				switch {
				case err == nil:
					return
				case !errors.Is(err, store.ErrNotFound):
					t.Errorf("Look: %v", err)
					return
				case ticket.Leader:
					generated.Add(1)
					if err := t.Stores[g%2].Put(t.ctx, key, ticket, &store.Record{Data: []byte("data")}); err != nil {
						t.Errorf("Put: %v", err)
						return
					}
				default:
					<-time.After(time.Millisecond)
				}
			}
		})
		if got := generated.Load(); got != 1 {
			t.Fatalf("%d generations of %q, want 1", got, key)
		}
	}
}

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
				ticket, err := Begin(t.ctx, t.Stores[g%2], key, long)
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
		first, err := Begin(t.ctx, t.Stores[0], key, t.TTL)
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
