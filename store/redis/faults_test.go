package redis_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/rueidis"

	"github.com/isr-go/isr/internal/isrtest"
	"github.com/isr-go/isr/store"
	"github.com/isr-go/isr/store/redis"
	"github.com/isr-go/isr/store/storetest"
)

// calls are all methods, by name.
func calls(ctx context.Context, s store.Store) map[string]error {
	errs := make(map[string]error)
	_, _, errs["Look"] = storetest.Get(ctx, s, "key")
	_, errs["Look for a ticket"] = storetest.Begin(ctx, s, "key", time.Hour)
	errs["Put"] = s.Put(ctx, "key", store.Ticket{Version: 1, Fence: 1, Token: "x"}, &store.Record{Data: []byte("data")})
	errs["End"] = s.End(ctx, "key", store.Ticket{Leader: true, Token: "x"})
	_, errs["Invalidate"] = s.Invalidate(ctx, store.Gone, "tag")
	_, errs["Changes"] = s.Changes(ctx, 1)
	return errs
}

// unavailable fails the test unless all of the methods do, but for some.
func unavailable(t *testing.T, s store.Store, except ...string) {
	t.Helper()
	for name, err := range calls(t.Context(), s) {
		if !errors.Is(err, store.ErrUnavailable) && !slices.Contains(except, name) {
			t.Errorf("%s: %v, want %v", name, err, store.ErrUnavailable)
		}
	}
}

// A server that is down when the program starts is found when it is there, and again
// after it was away.
func TestDown(t *testing.T) {
	needServer(t)
	for name, open := range map[string]func(rueidis.ClientOption) *redis.Store{
		"Lazy": func(option rueidis.ClientOption) *redis.Store {
			return redis.Lazy(func() (rueidis.Client, error) { return rueidis.NewClient(option) }, redis.Options{})
		},
		"New": func(option rueidis.ClientOption) *redis.Store {
			option.ForceSingleClient = true
			client, _ := rueidis.NewClient(option)
			return redis.New(client, redis.Options{})
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := &server{addr: freeAddr(t), dir: t.TempDir(), tb: t}
			s := open(rueidis.ClientOption{InitAddress: []string{server.addr}})
			unavailable(t, s)
			for range 2 {
				if !server.run() {
					t.Skip("somebody else has the port")
				}
				// Each of the client's connections may have to find out for itself.
				isrtest.Eventually(t, "server", func() error {
					for name, err := range calls(t.Context(), s) {
						if errors.Is(err, store.ErrUnavailable) {
							return fmt.Errorf("%s: %w", name, err)
						}
					}
					return nil
				})
				server.kill()
				unavailable(t, s)
			}
		})
	}
}

// No error holds a password, wherever it comes from.
func TestSecrets(t *testing.T) {
	const secret, wrong = "hunter2-right", "hunter2-wrong%zz"
	server := newServer(t, "--requirepass", secret)
	option := rueidis.ClientOption{InitAddress: []string{server.addr}, Username: "default", Password: wrong, ForceSingleClient: true}
	client, err := rueidis.NewClient(option)
	if err == nil {
		t.Fatal("the wrong password is the right one")
	}
	_, malformed := url.Parse("redis://user:" + wrong + "@" + server.addr)
	if malformed == nil || !strings.Contains(malformed.Error(), "hunter2") {
		t.Fatalf("%v: no secret to withhold", malformed)
	}
	for name, s := range map[string]*redis.Store{
		"refused":   redis.New(client, redis.Options{}),
		"not made":  redis.Lazy(func() (rueidis.Client, error) { return rueidis.NewClient(option) }, redis.Options{}),
		"not a URL": redis.Lazy(func() (rueidis.Client, error) { return nil, malformed }, redis.Options{}),
		"unknown AUTH": redis.Lazy(func() (rueidis.Client, error) {
			return nil, errors.New("ERR unknown command 'HELLO', with args beginning with: '3' 'AUTH' 'default' '" + wrong + "'")
		}, redis.Options{}),
		"wrapped": redis.Lazy(func() (rueidis.Client, error) { return nil, fmt.Errorf("dial redis://x:%s@host", wrong) }, redis.Options{}),
	} {
		unavailable(t, s)
		for method, err := range calls(t.Context(), s) {
			for ; err != nil; err = errors.Unwrap(err) {
				if strings.Contains(err.Error(), "hunter2") {
					t.Errorf("%s: %s: %v", name, method, err)
				}
			}
		}
	}
}

// An instance that gets no push sees each purge all the same.
func TestNoPush(t *testing.T) {
	follow := func(t *testing.T, reader, writer *redis.Store) {
		t.Helper()
		after := mustInvalidate(t, writer, store.Stale, "tag")
		for n := range 2 {
			got := make(chan store.Changes, 1)
			go func() {
				var all store.Changes
				for after := after; len(all.List) == 0; after = all.Upto {
					var err error
					if all, err = reader.Changes(t.Context(), after); err != nil || all.Reset {
						t.Errorf("%+v, %v", all, err)
						break
					}
				}
				got <- all
			}()
			v := mustInvalidate(t, writer, store.Gone, fmt.Sprint("purged ", n))
			select {
			case c := <-got:
				if len(c.List) != 1 || c.List[0].Version != v {
					t.Fatalf("%+v, want the purge %d", c, v)
				}
			case <-time.After(30 * time.Second):
				t.Fatal("the purge was never seen")
			}
			after = v
		}
	}
	t.Run("cut", func(t *testing.T) {
		server := newServer(t)
		admin := server.client()
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			for ctx.Err() == nil {
				admin.Do(ctx, admin.B().Arbitrary("CLIENT", "KILL", "TYPE", "pubsub").Build())
			}
		})
		defer wg.Wait()
		defer stop()
		follow(t, redis.New(server.client(), redis.Options{}), redis.New(server.client(), redis.Options{}))
	})
	t.Run("forbidden", func(t *testing.T) {
		server := newServer(t)
		do(t, server.client(), append(rights(t), "resetchannels")...)
		client := newClient(t, rueidis.ClientOption{InitAddress: []string{server.addr}, Username: "isr", Password: "pw"})
		s := redis.New(client, redis.Options{})
		mustPut(t, s, "key", "tag")
		is(t, s, "key", store.None)
		follow(t, s, s)
		is(t, s, "key", store.Stale)
	})
}

// A table that is gone, with the records still there, is the end of their time.
func TestTableLost(t *testing.T) {
	server := newServer(t)
	admin := server.client()
	s, other := redis.New(admin, redis.Options{}), redis.New(admin, redis.Options{})
	mustPut(t, s, "key", "tag")
	late, err := storetest.Begin(t.Context(), s, "late", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	last := mustInvalidate(t, other, store.Gone, "tag")
	if c, err := s.Changes(t.Context(), last); err != nil || c.Reset {
		t.Fatal(c, err)
	}
	do(t, admin, "DEL", s.Table())
	is(t, s, "key", store.Gone)
	if err := s.Put(t.Context(), "late", late, &store.Record{}); !errors.Is(err, store.ErrSuperseded) {
		t.Errorf("Put of a ticket of before: %v, want %v", err, store.ErrSuperseded)
	}
	if ticket, err := storetest.Begin(t.Context(), other, "late", time.Hour); err != nil || !ticket.Leader || ticket.Version <= last {
		t.Errorf("%+v, %v: after %d, want a leader", ticket, err, last)
	}
	for _, s := range []*redis.Store{s, other} {
		if c, err := s.Changes(t.Context(), last); err != nil || !c.Reset || c.Upto <= last {
			t.Errorf("Changes: %+v, %v, want Reset", c, err)
		}
	}
}

// A server that comes back with less than it had acknowledged, like a replica that was
// behind, is noticed by instances that have seen more.
func TestTableOld(t *testing.T) {
	server := newServer(t)
	admin := server.client()
	s := redis.New(admin, redis.Options{})
	mustPut(t, s, "key", "tag")
	behind, err := do(t, admin, "DUMP", s.Table()).ToString()
	if err != nil {
		t.Fatal(err)
	}
	last := mustInvalidate(t, s, store.Gone, "tag")
	do(t, admin, "RESTORE", s.Table(), "0", behind, "REPLACE")
	is(t, s, "key", store.Gone)
	if c, err := s.Changes(t.Context(), last); err != nil || !c.Reset || c.Upto <= last {
		t.Errorf("Changes: %+v, %v, want Reset", c, err)
	}
	mustPut(t, s, "key", "tag")
	is(t, s, "key", store.None)
}

// A clock that went back makes versions go on from the last.
func TestClock(t *testing.T) {
	server := newServer(t)
	admin := server.client()
	s := redis.New(admin, redis.Options{})
	mustInvalidate(t, s, store.Stale, "tag")
	ahead := time.Now().Add(time.Hour).UnixMicro() // where the clock was once
	do(t, admin, "ZADD", s.Table(), fmt.Sprint(ahead), "0top")
	mustPut(t, s, "key", "tag")
	if v := mustInvalidate(t, s, store.Stale, "tag"); v != store.Version(ahead)+1 {
		t.Errorf("version %d after %d", v, ahead)
	}
	is(t, s, "key", store.Stale)
	do(t, admin, "FLUSHALL")
	if ticket := mustPut(t, s, "key", "tag"); ticket.Version <= store.Version(ahead)+1 {
		t.Errorf("%+v: went back behind %d with the clock and a wipe", ticket, ahead)
	}
	is(t, s, "key", store.None)

	// A process that was not there sees at least that this is another history.
	do(t, admin, "ZADD", s.Table(), fmt.Sprint(2*ahead), "0top")
	ticket := mustPut(t, s, "key", "tag")
	do(t, admin, "DEL", s.Table())
	s = redis.New(admin, redis.Options{})
	is(t, s, "key", store.Gone)
	if err := s.Put(t.Context(), "another", ticket, &store.Record{}); !errors.Is(err, store.ErrSuperseded) {
		t.Errorf("Put of a ticket that is yet to come: %v, want %v", err, store.ErrSuperseded)
	}
}

// Another's values under our names are replaced, or found out; nothing is taken for
// ours.
func TestWrongType(t *testing.T) {
	server := newServer(t)
	admin := server.client()
	s := redis.New(admin, redis.Options{})
	do(t, admin, "LPUSH", s.RecordKey("list"), "x")
	do(t, admin, "SET", s.RecordKey("short"), "x")
	do(t, admin, "SET", s.RecordKey("letters"), strings.Repeat("x", 1000))
	do(t, admin, "LPUSH", s.FenceKey("list"), "x")
	do(t, admin, "SET", s.FenceKey("short"), "x")
	for _, key := range []string{"list", "short", "letters"} {
		is(t, s, key, store.Gone)
		mustPut(t, s, key)
		is(t, s, key, store.None)
	}
	mustPut(t, s, "key")
	do(t, admin, "SET", s.Table(), "x")
	unavailable(t, s, "End") // which has nothing to do with it
	if v, _ := do(t, admin, "GET", s.Table()).ToString(); v != "x" {
		t.Errorf("another's value is %q now", v)
	}
}

// A server without memory answers what it can: it has no room for a page, which is no
// failure, and gives tickets, so that what is generated meanwhile is as good as ever. It
// does take invalidations, which need next to nothing.
func TestFull(t *testing.T) {
	for name, open := range map[string]func(t *testing.T) (full func(), s *redis.Store){
		"server": func(t *testing.T) (full func(), s *redis.Store) {
			admin := newServer(t).client()
			return func() { do(t, admin, "CONFIG", "SET", "maxmemory", "1") }, redis.New(admin, redis.Options{})
		},
		"cluster": func(t *testing.T) (full func(), s *redis.Store) {
			client := newClient(t, rueidis.ClientOption{InitAddress: []string{newCluster(t)[0].addr}})
			return func() {
				for _, node := range client.Nodes() {
					do(t, node, "CONFIG", "SET", "maxmemory", "1")
				}
			}, redis.New(client, redis.Options{})
		},
	} {
		t.Run(name, func(t *testing.T) {
			full, s := open(t)
			ticket := mustPut(t, s, "key", "tag")
			leader, err := storetest.Begin(t.Context(), s, "key", time.Hour)
			if err != nil || !leader.Leader {
				t.Fatalf("%+v, %v: not the leader", leader, err)
			}
			full()
			is(t, s, "key", store.None)
			for _, key := range []string{"another", "a third"} {
				if ticket, err := storetest.Begin(t.Context(), s, key, time.Hour); err != nil || !ticket.Leader || ticket.Version == 0 {
					t.Errorf("a ticket: %+v, %v", ticket, err)
				}
			}
			for _, ticket := range []store.Ticket{ticket, leader} {
				err := s.Put(t.Context(), "key", ticket, &store.Record{Data: make([]byte, 1<<20)})
				if !errors.Is(err, store.ErrTooLarge) {
					t.Errorf("Put of %+v: %v, want %v", ticket, err, store.ErrTooLarge)
				}
			}
			if next, err := storetest.Begin(t.Context(), s, "key", time.Hour); err != nil || !next.Leader {
				t.Errorf("%+v, %v: the leader's lease outlives its Put", next, err)
			}
			is(t, s, "key", store.None)
			for _, effect := range []store.Effect{store.Stale, store.Gone} {
				mustInvalidate(t, s, effect, "tag")
				is(t, s, "key", effect)
			}
		})
	}
}

// With the policy that the README recommends, a full server evicts records and never
// the table.
func TestEviction(t *testing.T) {
	server := newServer(t, "--maxmemory", "8mb", "--maxmemory-policy", "volatile-lru")
	s := redis.New(server.client(), redis.Options{})
	born := mustInvalidate(t, s, store.Gone, "tag")
	data := make([]byte, 100<<10)
	there := 0
	const n = 200
	for i := range n {
		key := fmt.Sprint("key ", i)
		ticket, err := storetest.Begin(t.Context(), s, key, time.Hour)
		if err == nil {
			err = s.Put(t.Context(), key, ticket, &store.Record{Tags: []string{key}, Data: data})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range n {
		if _, _, err := storetest.Get(t.Context(), s, fmt.Sprint("key ", i)); err == nil {
			there++
		} else if !errors.Is(err, store.ErrNotFound) {
			t.Fatal(err)
		}
	}
	if there == 0 || there == n {
		t.Errorf("%d records of %d are there: nothing was evicted, or everything", there, n)
	}
	if c, err := s.Changes(t.Context(), born-1); err != nil || len(c.List) != 1 {
		t.Errorf("%+v, %v: the table was evicted", c, err)
	}
}

// A replica may be behind, and so answers nothing.
func TestReplica(t *testing.T) {
	primary := newServer(t, "--repl-diskless-sync-delay", "0")
	host, port, _ := net.SplitHostPort(primary.addr)
	replica := newServer(t, "--replicaof", host, port)
	s := redis.New(primary.client(), redis.Options{})
	mustPut(t, s, "key", "tag")
	reader := replica.client()
	isrtest.Eventually(t, "replication", func() error {
		if n, err := do(t, reader, "EXISTS", s.RecordKey("key")).AsInt64(); n != 1 {
			return fmt.Errorf("%d, %v", n, err)
		}
		return nil
	})
	unavailable(t, redis.New(reader, redis.Options{}), "End") // which has nothing to end
}

// Nothing is asked that a client may send to a replica.
func TestNoReplicaReads(t *testing.T) {
	server := newServer(t)
	var asked, readOnly atomic.Int64
	s := redis.New(newClient(t, rueidis.ClientOption{
		InitAddress: []string{server.addr},
		Standalone:  rueidis.StandaloneOption{ReplicaAddress: []string{server.addr}},
		SendToReplicas: func(cmd rueidis.Completed) bool {
			asked.Add(1)
			if cmd.IsReadOnly() {
				readOnly.Add(1)
			}
			return false
		},
	}), redis.Options{})
	mustPut(t, s, "key", "tag")
	for name, err := range calls(t.Context(), s) {
		if err != nil && !errors.Is(err, store.ErrSuperseded) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if asked.Load() == 0 || readOnly.Load() > 0 {
		t.Errorf("%d of %d commands may go to replicas", readOnly.Load(), asked.Load())
	}
}

// What Replicas have acknowledged is there when they are promoted.
func TestReplicas(t *testing.T) {
	primary := newServer(t, "--repl-diskless-sync-delay", "0")
	host, port, _ := net.SplitHostPort(primary.addr)
	replica := newServer(t, "--replicaof", host, port)
	s := redis.New(primary.client(), redis.Options{Replicas: 1})
	isrtest.Eventually(t, "replication", func() error {
		_, err := s.Invalidate(t.Context(), store.Stale, "tag")
		return err
	})
	mustPut(t, s, "key", "tag")
	resume := sync.OnceFunc(replica.pause())
	defer resume()
	if _, err := s.Invalidate(t.Context(), store.Gone, "another"); !errors.Is(err, store.ErrUnavailable) {
		t.Fatalf("Invalidate without replicas: %v, want %v", err, store.ErrUnavailable)
	}
	is(t, s, "key", store.None)
	resume()
	v := mustInvalidate(t, s, store.Gone, "tag")
	primary.kill()
	promoted := replica.client()
	do(t, promoted, "REPLICAOF", "NO", "ONE")
	s = redis.New(promoted, redis.Options{})
	is(t, s, "key", store.Gone)
	if c, err := s.Changes(t.Context(), v-1); err != nil || c.Reset || len(c.List) != 1 {
		t.Errorf("Changes after the failover: %+v, %v, want the purge", c, err)
	}
}

// A server that has taken over before it is asked for its replicas does not vouch for
// an invalidation that the one before it took along.
func TestReplicasFailover(t *testing.T) {
	primary := newServer(t, "--repl-diskless-sync-delay", "0")
	host, port, _ := net.SplitHostPort(primary.addr)
	newServer(t, "--replicaof", host, port)
	admin := primary.client()
	client := &failingOver{Client: primary.client()}
	s := redis.New(client, redis.Options{Replicas: 1})
	isrtest.Eventually(t, "replication", func() error {
		_, err := s.Invalidate(t.Context(), store.Stale, "another")
		return err
	})
	mustPut(t, s, "key", "tag")
	behind, err := do(t, admin, "DUMP", s.Table()).ToString()
	if err != nil {
		t.Fatal(err)
	}
	client.failover = func() { do(t, admin, "RESTORE", s.Table(), "0", behind, "REPLACE") }
	mustInvalidate(t, s, store.Gone, "tag")
	is(t, redis.New(admin, redis.Options{}), "key", store.Gone)
}

// failingOver is a client whose server is replaced before it gets a connection of
// its own.
type failingOver struct {
	rueidis.Client
	failover func()
}

func (c *failingOver) Dedicated(f func(rueidis.DedicatedClient) error) error {
	if c.failover != nil {
		c.failover()
	}
	return c.Client.Dedicated(f)
}

// Scripts that the server has lost are sent again.
func TestScriptFlush(t *testing.T) {
	server := newServer(t)
	admin := server.client()
	s := redis.New(admin, redis.Options{})
	for range 2 {
		mustPut(t, s, "key", "tag")
		is(t, s, "key", store.None)
		mustInvalidate(t, s, store.Stale, "tag")
		is(t, s, "key", store.Stale)
		do(t, admin, "SCRIPT", "FLUSH")
	}
}

// A caller who gives up waiting ends no other caller's wait.
func TestDeadlineOfOthers(t *testing.T) {
	server := newServer(t)
	s := redis.New(server.client(), redis.Options{})
	mustPut(t, s, "key", "tag")
	resume := sync.OnceFunc(server.pause())
	defer resume()
	const patient = 20
	done := make(chan error, patient)
	for range patient {
		go func() {
			_, _, err := storetest.Get(t.Context(), s, "key")
			done <- err
		}()
	}
	for range 20 {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		if _, _, err := storetest.Get(ctx, s, "key"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Get on a hung server: %v", err)
		}
		cancel()
	}
	resume()
	for range patient {
		if err := <-done; err != nil {
			t.Errorf("Get: %v", err)
		}
	}
}

// A lease whose caller has given up is given back.
func TestAbandonedLease(t *testing.T) {
	server := newServer(t)
	s := redis.New(server.client(), redis.Options{})
	mustInvalidate(t, s, store.Stale, "tag")
	resume := sync.OnceFunc(server.pause())
	defer resume()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	if _, err := storetest.Begin(ctx, s, "key", time.Hour); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Begin on a hung server: %v", err)
	}
	resume()
	isrtest.Eventually(t, "lease", func() error {
		ticket, err := storetest.Begin(t.Context(), s, "key", time.Hour)
		if err == nil && !ticket.Leader {
			err = errors.New("is somebody's")
		}
		return err
	})
}

// What is too large gives its lease back.
func TestTooLargeEndsLease(t *testing.T) {
	s := redis.New(newServer(t).client(), redis.Options{})
	for range 2 {
		ticket, err := storetest.Begin(t.Context(), s, "key", time.Hour)
		if err != nil || !ticket.Leader {
			t.Fatalf("%+v, %v: not the leader", ticket, err)
		}
		if err := s.Put(t.Context(), "key", ticket, &store.Record{Data: make([]byte, 1<<20+1)}); !errors.Is(err, store.ErrTooLarge) {
			t.Fatalf("Put: %v, want %v", err, store.ErrTooLarge)
		}
	}
}

// A cluster without slots is down.
func TestClusterDown(t *testing.T) {
	_, bus, _ := net.SplitHostPort(freeAddr(t))
	server := newServer(t, "--cluster-enabled", "yes", "--cluster-port", bus)
	client := newClient(t, rueidis.ClientOption{InitAddress: []string{server.addr}, ForceSingleClient: true})
	unavailable(t, redis.New(client, redis.Options{}))
	unavailable(t, redis.Lazy(func() (rueidis.Client, error) {
		return rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{server.addr}})
	}, redis.Options{}))
}

// The table and a record are where they are after they have moved, too.
func TestResharding(t *testing.T) {
	nodes := newCluster(t)
	client := newClient(t, rueidis.ClientOption{InitAddress: []string{nodes[0].addr}})
	s := redis.New(client, redis.Options{})
	mustPut(t, s, "key", "tag")
	var ids []string
	var singles []rueidis.Client
	for _, n := range nodes {
		single := newClient(t, rueidis.ClientOption{InitAddress: []string{n.addr}, ForceSingleClient: true})
		id, _ := do(t, single, "CLUSTER", "MYID").ToString()
		ids, singles = append(ids, id), append(singles, single)
	}
	for _, key := range []string{s.Table(), s.RecordKey("key")} {
		n, _ := do(t, singles[0], "CLUSTER", "KEYSLOT", key).AsInt64()
		slot, from := fmt.Sprint(n), int(n*3/16384)
		to := (from + 1) % 3
		do(t, singles[to], "CLUSTER", "SETSLOT", slot, "IMPORTING", ids[from])
		do(t, singles[from], "CLUSTER", "SETSLOT", slot, "MIGRATING", ids[to])
		keys, _ := do(t, singles[from], "CLUSTER", "GETKEYSINSLOT", slot, "100").AsStrSlice()
		host, port, _ := net.SplitHostPort(nodes[to].addr)
		for _, key := range keys {
			do(t, singles[from], "MIGRATE", host, port, key, "0", "30000")
		}
		is(t, s, "key", store.None)
		for _, i := range []int{to, from, 3 - to - from} {
			do(t, singles[i], "CLUSTER", "SETSLOT", slot, "NODE", ids[to])
		}
		is(t, s, "key", store.None)
	}
	mustInvalidate(t, s, store.Stale, "tag")
	is(t, s, "key", store.Stale)
	mustPut(t, s, "key", "tag")
	is(t, s, "key", store.None)
}

// A connect that panics fails like one that returns an error: callers who wait for it
// get the error, and later calls try again.
func TestConnectPanics(t *testing.T) {
	server := miniredis.RunT(t)
	client := newClient(t, rueidis.ClientOption{InitAddress: []string{server.Addr()}, DisableCache: true})
	for name, fail := range map[string]func(){
		"panic":  func() { panic("dial redis://x:hunter2@host") },
		"Goexit": runtime.Goexit,
	} {
		t.Run(name, func(t *testing.T) {
			var up atomic.Bool
			s := redis.Lazy(func() (rueidis.Client, error) {
				if !up.Load() {
					fail()
				}
				return client, nil
			}, redis.Options{})
			for range 2 {
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				for method, err := range calls(ctx, s) {
					if !errors.Is(err, store.ErrUnavailable) || strings.Contains(err.Error(), "hunter2") {
						t.Errorf("%s: %v, want %v", method, err, store.ErrUnavailable)
					}
				}
				cancel()
			}
			up.Store(true)
			mustPut(t, s, "key")
		})
	}
}

// Where connect hangs, abandoned calls are bounded.
func TestConnectHangs(t *testing.T) {
	release := make(chan struct{})
	s := redis.Lazy(func() (rueidis.Client, error) {
		<-release
		return nil, errors.New("released")
	}, redis.Options{})
	before := runtime.NumGoroutine()
	for range 2 * redis.MaxCalls {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Microsecond)
		if _, _, err := storetest.Get(ctx, s, "key"); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("Get: %v, want %v", err, context.DeadlineExceeded)
		}
		cancel()
	}
	if n := runtime.NumGoroutine() - before; n > redis.MaxCalls+redis.MaxCalls/2 {
		t.Errorf("%d goroutines are left behind, more than %d", n, redis.MaxCalls)
	}
	close(release)
	isrtest.Eventually(t, "call", func() error {
		_, _, err := storetest.Get(t.Context(), s, "key")
		if !errors.Is(err, store.ErrUnavailable) {
			t.Fatalf("Get: %v, want %v", err, store.ErrUnavailable)
		}
		if n := runtime.NumGoroutine() - before; n > redis.MaxCalls/2 {
			return fmt.Errorf("%d goroutines are left", n)
		}
		return nil
	})
}

// However many calls for pages are under way, invalidations are taken, and followed.
func TestPagesHoldUpNoPurges(t *testing.T) {
	s := redis.New(newServer(t).client(), redis.Options{})
	s.FillPages()
	v := mustInvalidate(t, s, store.Gone, "tag")
	if c, err := s.Changes(t.Context(), v-1); err != nil || len(c.List) != 1 {
		t.Errorf("Changes: %+v, %v", c, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, _, err := storetest.Get(ctx, s, "key"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Look: %v, want %v", err, context.DeadlineExceeded)
	}
}
