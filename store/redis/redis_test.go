package redis_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/rueidis"

	"github.com/isr-go/isr/internal/isrtest"
	"github.com/isr-go/isr/store"
	"github.com/isr-go/isr/store/redis"
	"github.com/isr-go/isr/store/storetest"
)

func TestNewPanics(t *testing.T) {
	client := func() (rueidis.Client, error) { return nil, errors.New("none") }
	for text, f := range map[string]func(){
		"store/redis: New: nil client":                  func() { redis.New(nil, redis.Options{}) },
		"store/redis: Lazy: nil func":                   func() { redis.Lazy(nil, redis.Options{}) },
		`store/redis: Lazy: braces in the Prefix "a{b"`: func() { redis.Lazy(client, redis.Options{Prefix: "a{b"}) },
		`store/redis: Lazy: braces in the Prefix "a}b"`: func() { redis.Lazy(client, redis.Options{Prefix: "a}b"}) },
		`store/redis: Lazy: braces in the Prefix "{}"`:  func() { redis.Lazy(client, redis.Options{Prefix: "{}"}) },
		"store/redis: Lazy: -1 Replicas":                func() { redis.Lazy(client, redis.Options{Replicas: -1}) },
	} {
		func() {
			defer func() {
				if got := recover(); got != text {
					t.Errorf("panic %q, want %q", got, text)
				}
			}()
			f()
		}()
	}
}

// Programs with different prefixes know nothing of each other, even where one prefix
// begins like the other.
func TestPrefix(t *testing.T) {
	server := newServer(t)
	var stores []*redis.Store
	for _, prefix := range []string{"", "a", "ab", "a:\x00*"} {
		stores = append(stores, redis.New(server.client(), redis.Options{Prefix: prefix}))
	}
	var last []store.Version
	for i, s := range stores {
		ticket, err := storetest.Begin(t.Context(), s, "key", time.Hour)
		if err != nil || !ticket.Leader {
			t.Fatalf("store %d: %+v, %v: not the leader", i, ticket, err)
		}
		if err := s.Put(t.Context(), "key", ticket, &store.Record{Tags: []string{"tag"}, Data: fmt.Append(nil, i)}); err != nil {
			t.Fatal(err)
		}
		last = append(last, ticket.Version)
	}
	v, err := stores[1].Invalidate(t.Context(), store.Stale, "tag")
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range stores {
		want, changes := store.None, store.Changes{Upto: last[i]}
		if i == 1 {
			want = store.Stale
			changes = store.Changes{Upto: v, List: []store.Change{{Tag: "tag", Version: v, Effect: store.Stale}}}
		}
		rec, got, err := storetest.Get(t.Context(), s, "key")
		if err != nil || string(rec.Data) != fmt.Sprint(i) || got != want {
			t.Errorf("store %d: %v, %v, %v, want %v", i, rec, got, err, want)
		}
		c, err := s.Changes(t.Context(), last[i])
		if c.History == "" {
			t.Errorf("store %d: the history has no name", i)
		}
		c.History = "" // which the server chooses
		if diff := cmp.Diff(changes, c); err != nil || diff != "" {
			t.Errorf("store %d: %v, (-want +got):\n%s", i, err, diff)
		}
	}
}

// Of trimmed invalidations a filter remains for each epoch; of those that are too old, the
// newest version by effect. The newest invalidation is never trimmed, and each call trims a
// bounded number.
func TestTrim(t *testing.T) {
	server := newServer(t)
	admin := server.client()
	s := redis.New(admin, redis.Options{})
	s.SetLimit(100)
	put := func(key string, tags ...string) { mustPut(t, s, key, tags...) }
	members := func(want int64) {
		t.Helper()
		n, _ := do(t, admin, "ZCOUNT", s.Table(), "1000000000", "+inf").AsInt64()
		for _, own := range []string{"0top", "0born", "0floor1", "0floor2", "0floor3", "0past1", "0past2", "0past3"} {
			if _, err := do(t, admin, "ZSCORE", s.Table(), own).AsFloat64(); err == nil {
				n--
			}
		}
		if n != want {
			t.Errorf("the table has %d tags, want %d", n, want)
		}
	}

	put("before all", "nothing")
	put("was gone", "gone")
	from := mustInvalidate(t, s, store.Gone, "gone")
	put("was expired", "gone", "expired")
	mustInvalidate(t, s, store.Expired, "expired")
	put("after expired", "gone", "expired")
	for n := range 60 {
		mustInvalidate(t, s, store.Stale, fmt.Sprint("tag ", n, " a"), fmt.Sprint("tag ", n, " b"))
		if n == 50 {
			put("late", "tag 55 b")
		}
	}
	put("last", "tag 59 b")
	// Of 122 the gone, the expired and 20 stale ones are trimmed.
	is(t, s, "before all", store.None)
	is(t, s, "was gone", store.Gone)
	is(t, s, "was expired", store.Expired)
	is(t, s, "after expired", store.None)
	is(t, s, "late", store.Stale)
	is(t, s, "last", store.None)
	members(100)
	c, err := s.Changes(t.Context(), from)
	if err != nil || !c.Reset || len(c.List) != 100 || c.Floors[store.Gone] != from || c.Floors[store.Stale] <= c.Floors[store.Expired] {
		t.Errorf("Changes of a forgotten past: Reset %v, %d changes, %v, %v", c.Reset, len(c.List), c.Floors, err)
	}
	c, err = s.Changes(t.Context(), c.List[50].Version)
	if err != nil || c.Reset || len(c.List) == 0 {
		t.Errorf("Changes of what is remembered: Reset %v, %d changes, %v", c.Reset, len(c.List), err)
	}

	put("page", "x")
	var many []string
	for n := range 9000 {
		many = append(many, fmt.Sprint("many ", n))
	}
	put("imported", many[8999])
	v := mustInvalidate(t, s, store.Gone, many...)
	put("new", "x")
	is(t, s, "page", store.None)
	is(t, s, "imported", store.Gone)
	is(t, s, "new", store.None)
	members(1000) // the last of the parts
	c, err = s.Changes(t.Context(), v-1)
	if err != nil || len(c.List) != 1000 || c.Upto != v {
		t.Errorf("%d changes up to %d, %v, want 1000 up to %d", len(c.List), c.Upto, err, v)
	}
	// The next one makes room again.
	mustInvalidate(t, s, store.Gone, "y")
	members(100)
	is(t, s, "new", store.None)
	is(t, s, "page", store.None)
	is(t, s, "imported", store.Gone)

	// What is older than the filters counts, whatever its tags.
	for n := range 20 * 100 {
		mustInvalidate(t, s, store.Expired, fmt.Sprint("later ", n))
	}
	is(t, s, "before all", store.Gone)
	is(t, s, "page", store.Gone)
	put("new", "x")
	is(t, s, "new", store.None)
	if n, _ := do(t, admin, "ZCOUNT", s.Table(), "-inf", "(1000000000").AsInt64(); n < 100 || n > 16*513+10 {
		t.Errorf("the filters have %d members", n)
	}
}

// A filter that was lost without the table counts as if it knew each tag, for what is older
// than all that was forgotten.
func TestDamagedFilters(t *testing.T) {
	admin := newServer(t).client()
	s := redis.New(admin, redis.Options{})
	s.SetLimit(10)
	fill := func(round string) {
		for n := range 15 {
			mustInvalidate(t, s, store.Expired, fmt.Sprint(round, n))
		}
	}
	mustPut(t, s, "before", "x")
	fill("first")
	mustPut(t, s, "between", "x")
	is(t, s, "before", store.None)
	do(t, admin, "ZREMRANGEBYSCORE", s.Table(), "-inf", "(0")
	is(t, s, "before", store.Gone)
	is(t, s, "between", store.None)
	fill("second")
	fill("third") // which begins the next epoch, if the second has not
	is(t, s, "before", store.Expired)
	mustPut(t, s, "after", "x")
	mustPut(t, s, "tagged", "last2")
	fill("last")
	fill("more")
	is(t, s, "tagged", store.Expired)
	is(t, s, "after", store.None)
}

// A page may have more tags than a script passes on at once, and each of them counts.
func TestManyTags(t *testing.T) {
	s := redis.New(newServer(t).client(), redis.Options{})
	tags := make([]string, 2500)
	for i := range tags {
		tags[i] = fmt.Sprint("tag ", i)
	}
	for i, effect := range []store.Effect{store.Stale, store.Expired, store.Gone} {
		mustPut(t, s, "key", tags...)
		is(t, s, "key", store.None)
		mustInvalidate(t, s, effect, tags[[]int{0, 1200, len(tags) - 1}[i]])
		is(t, s, "key", effect)
	}
}

// A long list comes in parts, and no version in two.
func TestPages(t *testing.T) {
	s := redis.New(newServer(t).client(), redis.Options{})
	from := mustInvalidate(t, s, store.Stale, "first")
	want := make(map[store.Version]int)
	for batch := range 7 {
		var tags []string
		for n := range 1500 {
			tags = append(tags, fmt.Sprint(batch, " ", n))
		}
		want[mustInvalidate(t, s, store.Expired, tags...)] = 1500
	}
	got, calls := make(map[store.Version]int), 0
	for after := from; len(got) < len(want); calls++ {
		c, err := s.Changes(t.Context(), after)
		if err != nil || c.Reset || c.Upto <= after {
			t.Fatalf("after %d: upto %d, Reset %v, %v", after, c.Upto, c.Reset, err)
		}
		for _, change := range c.List {
			got[change.Version]++
		}
		after = c.Upto
	}
	if diff := cmp.Diff(want, got); diff != "" || calls < 2 {
		t.Errorf("in %d calls, (-want +got):\n%s", calls, diff)
	}
}

// Fences grow, whatever is trimmed, and whatever the clock of the server says.
func TestFencesGrow(t *testing.T) {
	admin := newServer(t).client()
	s := redis.New(admin, redis.Options{})
	last := uint64(0)
	next := func(what string) store.Ticket {
		t.Helper()
		ticket, err := storetest.Begin(t.Context(), s, "key", time.Hour)
		if err != nil || ticket.Fence <= last {
			t.Fatalf("%s: %+v, %v: not after fence %d", what, ticket, err, last)
		}
		last = ticket.Fence
		return ticket
	}
	next("first")
	for range 100 {
		next("another")
	}
	ticket := next("of the record")
	ticket.Fence += uint64(time.Hour.Microseconds()) // the clock goes back after this
	last = ticket.Fence
	if err := s.Put(t.Context(), "key", ticket, &store.Record{Data: []byte("data")}); err != nil {
		t.Fatal(err)
	}
	do(t, admin, "DEL", s.FenceKey("key"))
	next("after the record")
	do(t, admin, "DEL", s.RecordKey("key"))
	ticket = next("after the last")
	if err := s.Put(t.Context(), "key", ticket, &store.Record{Data: []byte("data")}); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{s.FenceKey("key"), s.RecordKey("key")} {
		if ttl, _ := do(t, admin, "PTTL", key).AsInt64(); ttl <= 0 {
			t.Errorf("%s has no expiry: no server could evict it by that", key)
		}
	}
	if ttl, _ := do(t, admin, "PTTL", s.Table()).AsInt64(); ttl != -1 {
		t.Errorf("the table has an expiry: %d ms", ttl)
	}
}

// A hint is enough: Changes does not need its second to see a purge.
func TestPush(t *testing.T) {
	for name, open := range map[string]func(*testing.T) func() rueidis.Client{
		"server": func(t *testing.T) func() rueidis.Client { return newServer(t).client },
		"cluster": func(t *testing.T) func() rueidis.Client {
			nodes := newCluster(t)
			return func() rueidis.Client {
				return newClient(t, rueidis.ClientOption{InitAddress: []string{nodes[1].addr}})
			}
		},
		"RESP2": func(t *testing.T) func() rueidis.Client {
			server := newServer(t)
			return func() rueidis.Client {
				return newClient(t, rueidis.ClientOption{InitAddress: []string{server.addr}, AlwaysRESP2: true, DisableCache: true})
			}
		},
		"README's rights": func(t *testing.T) func() rueidis.Client {
			server := newServer(t)
			do(t, server.client(), rights(t)...)
			return func() rueidis.Client {
				return newClient(t, rueidis.ClientOption{InitAddress: []string{server.addr}, Username: "isr", Password: "pw"})
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			client := open(t)
			reader, writer := redis.New(client(), redis.Options{}), redis.New(client(), redis.Options{})
			reader.SetHeartbeat(time.Hour)
			after := mustInvalidate(t, writer, store.Stale, "tag")
			for range 20 {
				const readers = 3
				got := make(chan store.Changes, readers)
				for range readers {
					go func() {
						c, err := reader.Changes(t.Context(), after)
						if err != nil {
							t.Error(err)
						}
						got <- c
					}()
				}
				v := mustInvalidate(t, writer, store.Gone, "tag")
				for range readers {
					select {
					case c := <-got:
						if len(c.List) != 1 || c.Upto != v {
							t.Fatalf("%+v, want one, up to %d", c, v)
						}
					case <-time.After(30 * time.Second):
						t.Fatal("no hint")
					}
				}
				after = v
			}
		})
	}
}

// rights returns those of the README, for a user isr with the password pw.
func rights(tb testing.TB) []string {
	tb.Helper()
	readme, err := os.ReadFile("README.md")
	if err != nil {
		tb.Fatal(err)
	}
	_, line, found := strings.Cut(string(readme), "\n      ACL SETUSER isr on >secret ")
	line, _, _ = strings.Cut(line, "\n")
	if !found {
		tb.Fatal("the README has no ACL SETUSER")
	}
	line = strings.ReplaceAll(line, "blog:", "isr:") // the Prefix of the tests
	return append([]string{"ACL", "SETUSER", "isr", "on", ">pw"}, strings.Fields(line)...)
}

// The subscription ends soon after its last user has left.
func TestUnsubscribe(t *testing.T) {
	server := newServer(t)
	admin := server.client()
	s := redis.New(server.client(), redis.Options{})
	subscribers := func(want int64) {
		t.Helper()
		isrtest.Eventually(t, "subscribers", func() error {
			list, err := do(t, admin, "PUBSUB", "NUMSUB", s.Table()).AsIntMap()
			if list[s.Table()] != want {
				return fmt.Errorf("%v, %v, want %d", list, err, want)
			}
			return nil
		})
	}
	after := mustInvalidate(t, s, store.Stale, "tag")
	for range 2 {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		for range 3 {
			go func() {
				defer func() { done <- struct{}{} }()
				for ctx.Err() == nil {
					s.Changes(ctx, after)
				}
			}()
		}
		subscribers(1)
		cancel()
		for range 3 {
			<-done
		}
		subscribers(0)
		if s.Subscribed() {
			t.Fatal("there is a subscription still")
		}
	}
}

func mustPut(tb testing.TB, s store.Store, key string, tags ...string) store.Ticket {
	tb.Helper()
	ticket, err := storetest.Begin(tb.Context(), s, key, time.Hour)
	if err == nil {
		err = s.Put(tb.Context(), key, ticket, &store.Record{Tags: tags, Data: []byte(key)})
	}
	if err != nil {
		tb.Fatal(err)
	}
	return ticket
}

func mustInvalidate(tb testing.TB, s store.Store, effect store.Effect, tags ...string) store.Version {
	tb.Helper()
	v, err := s.Invalidate(tb.Context(), effect, tags...)
	if err != nil {
		tb.Fatal(err)
	}
	return v
}

// is fails the test unless the effect on a record is the one wanted.
func is(tb testing.TB, s store.Store, key string, want store.Effect) {
	tb.Helper()
	_, got, err := storetest.Get(tb.Context(), s, key)
	if errors.Is(err, store.ErrNotFound) {
		got, err = store.Gone, nil
	}
	if err != nil || got != want {
		tb.Errorf("%s: %v, %v, want %v", key, got, err, want)
	}
}
