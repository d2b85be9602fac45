package storetest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/isr-go/isr/store"
)

// newest is the ticket of one whom no record will do.
var newest = store.Ticket{Version: math.MaxUint64, Fence: math.MaxUint64}

// Begin returns a ticket of a store for a key, whatever is stored there.
func Begin(ctx context.Context, s store.Store, key string, ttl time.Duration) (store.Ticket, error) {
	_, _, t, err := s.Look(ctx, key, newest, max(ttl, 1))
	if errors.Is(err, store.ErrNotFound) {
		err = nil
	}
	return t, err
}

// Get returns what is stored under a key.
func Get(ctx context.Context, s store.Store, key string) (*store.Record, store.Effect, error) {
	rec, effect, t, err := s.Look(ctx, key, store.Ticket{}, 0)
	if t != (store.Ticket{}) {
		return nil, store.None, fmt.Errorf("a ticket that nobody wanted: %+v", t)
	}
	return rec, effect, err
}

// long is a TTL that does not end during a test.
const long = time.Hour

// begin returns a ticket from store i.
func (t *test) begin(i int, key string) store.Ticket {
	t.Helper()
	ticket, err := Begin(t.ctx, t.Stores[i], key, long)
	if err != nil {
		t.Fatalf("store %d: Begin(%.50q): %v", i, key, err)
	}
	return ticket
}

// put stores a record in store i.
func (t *test) put(i int, key string, ticket store.Ticket, rec *store.Record) {
	t.Helper()
	if err := t.Stores[i].Put(t.ctx, key, ticket, rec); err != nil {
		t.Fatalf("store %d: Put(%.50q, %+v): %v", i, key, ticket, err)
	}
}

// store begins and puts a record with data and tags, by store i.
func (t *test) store(i int, key, data string, tags ...string) store.Ticket {
	t.Helper()
	ticket := t.begin(i, key)
	t.put(i, key, ticket, &store.Record{Tags: tags, Data: []byte(data)})
	return ticket
}

// end gives a lease back, by store i.
func (t *test) end(i int, key string, ticket store.Ticket) {
	t.Helper()
	if err := t.Stores[i].End(t.ctx, key, ticket); err != nil {
		t.Fatalf("store %d: End(%.50q, %+v): %v", i, key, ticket, err)
	}
}

// invalidate has an effect on tags, by store i.
func (t *test) invalidate(i int, effect store.Effect, tags ...string) store.Version {
	t.Helper()
	v, err := t.Stores[i].Invalidate(t.ctx, effect, tags...)
	if err != nil {
		t.Fatalf("store %d: Invalidate(%v, %.50q): %v", i, effect, tags, err)
	}
	return v
}

// is fails the test if what both handles return under the key is not this data
// with this effect. Gone stands for ErrNotFound.
func (t *test) is(key, data string, effect store.Effect) {
	t.Helper()
	for i := range t.Stores {
		rec, got, err := Get(t.ctx, t.Stores[i], key)
		switch {
		case errors.Is(err, store.ErrNotFound) && effect == store.Gone:
		case err != nil:
			t.Fatalf("store %d: Get(%.50q): %v, want %.50q, %v", i, key, err, data, effect)
		case effect == store.Gone:
			t.Fatalf("store %d: Get(%.50q) is %.50q, %v, want ErrNotFound", i, key, rec.Data, got)
		case string(rec.Data) != data || got != effect:
			t.Fatalf("store %d: Get(%.50q) is %.50q, %v, want %.50q, %v", i, key, rec.Data, got, data, effect)
		}
	}
}

// eventually waits until a condition comes true, and for no TTL longer than
// patience.
func (t *test) eventually(what string, condition func() bool) {
	t.Helper()
	for pause := time.Millisecond; !condition(); pause = min(2*pause, 100*time.Millisecond) {
		if t.Advance != nil {
			t.Advance(t.TTL)
		}
		select {
		case <-time.After(pause):
		case <-t.ctx.Done():
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

// parallel calls f n times at once, and waits for the end of all.
func parallel(n int, f func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { f(i) })
	}
	wg.Wait()
}
