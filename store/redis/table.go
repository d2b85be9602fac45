package redis

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/redis/rueidis"

	"github.com/isr-go/isr/store"
)

// What the table of versions is asked.

// exec executes a script on the table, and on other keys. The first number of its reply
// is the newest version.
func (s *Store) exec(ctx context.Context, client rueidis.Client, script *rueidis.Lua, keys []string, args ...string) ([]rueidis.RedisMessage, error) {
	args = append([]string{decimal(s.seen.Load())}, args...)
	list, err := script.Exec(ctx, client, append([]string{s.table}, keys...), args).ToArray()
	if err != nil {
		return nil, err
	}
	var top [1]int64
	if err := numbers(list, top[:]); err != nil {
		return nil, err
	}
	for {
		seen := s.seen.Load()
		if uint64(top[0]) <= seen || s.seen.CompareAndSwap(seen, uint64(top[0])) {
			return list, nil
		}
	}
}

// judge returns the newest version, and the effect on what has a version and tags,
// or lost.
func (s *Store) judge(ctx context.Context, client rueidis.Client, v store.Version, tags []string) (top store.Version, verdict int64, err error) {
	list, err := s.exec(ctx, client, judge, nil, append([]string{decimal(v)}, tags...)...)
	if err != nil {
		return 0, 0, err
	}
	var n [2]int64
	err = numbers(list, n[:])
	return store.Version(n[0]), n[1], err
}

// Invalidate implements [store.Store]. It is as durable as the server is configured
// to be. The server gets 2,000 tags at a time, so that others can ask it meanwhile.
func (s *Store) Invalidate(ctx context.Context, effect store.Effect, tags ...string) (v store.Version, err error) {
	if effect <= store.None || effect > store.Gone {
		return 0, fmt.Errorf("store/redis: cannot invalidate to %v", effect)
	}
	args := []string{strconv.Itoa(s.limit), strconv.Itoa(burst * s.limit), strconv.FormatInt(s.recent.Microseconds(), 10),
		strconv.Itoa(min(s.limit, epochTags)), strconv.Itoa(int(effect)), s.table}
	for {
		n := min(len(tags), maxAtOnce)
		v, err = s.invalidate(ctx, slices.Concat(args, tags[:n]))
		if tags = tags[n:]; err != nil || len(tags) == 0 {
			return v, err
		}
	}
}

func (s *Store) invalidate(ctx context.Context, args []string) (store.Version, error) {
	return call(ctx, s, "invalidate", func(ctx context.Context, client rueidis.Client) (v store.Version, err error) {
		run := func(client rueidis.Client) (store.Version, error) {
			list, err := s.exec(ctx, client, invalidate, nil, args...)
			if err != nil {
				return 0, err
			}
			top, err := list[0].AsInt64()
			return store.Version(top), err
		}
		if s.replicas == 0 {
			return run(client)
		}
		err = client.Dedicated(func(conn rueidis.DedicatedClient) (err error) {
			if v, err = run(oneConnection{client, conn}); err != nil {
				return err
			}
			return s.replicated(ctx, conn)
		})
		return v, err
	})
}

// replicated waits until replicas have what was written. A server says that of the
// writes of the connection which asks; and on another one it might be another server.
func (s *Store) replicated(ctx context.Context, conn rueidis.DedicatedClient) error {
	wait := conn.B().Wait().Numreplicas(int64(s.replicas)).Timeout(time.Second.Milliseconds()).Build()
	n, err := conn.Do(ctx, wait).AsInt64()
	if err == nil && n < int64(s.replicas) {
		err = fmt.Errorf("%d replicas of %d have it", n, s.replicas)
	}
	return err
}

// oneConnection is a client for a script that is to use a certain connection.
type oneConnection struct {
	rueidis.Client
	conn rueidis.DedicatedClient
}

func (c oneConnection) Do(ctx context.Context, cmd rueidis.Completed) rueidis.RedisResult {
	return c.conn.Do(ctx, cmd)
}

// Changes implements [store.Store]. Where the server does not push, what happens
// in its second is seen by the next call, which looks at once.
func (s *Store) Changes(ctx context.Context, after store.Version) (store.Changes, error) {
	s.hints.Enter()
	defer s.hints.Leave()
	timeout := time.NewTimer(s.heartbeat)
	defer timeout.Stop()
	for {
		hint := s.hints.Next() // before looking, so that none is missed
		if s.warm.CompareAndSwap(false, true) {
			// A server that is new takes the script, so that the first visitors need not wait
			// for that.
			go s.Look(context.WithoutCancel(ctx), "", store.Ticket{}, 0)
		}
		c, err := s.changes(ctx, after)
		s.hints.Looked(err)
		s.warm.CompareAndSwap(true, err == nil)
		if err != nil || c.Reset || len(c.List) > 0 {
			return c, err
		}
		select {
		case <-hint:
		case <-timeout.C:
			return c, nil
		case <-ctx.Done():
			return store.Changes{}, fmt.Errorf("store/redis: changes: %w", ctx.Err())
		}
	}
}

// subscribe is what hints need. The connection is one of its own: on a shared one
// the answers to all others would wait, and end, with the subscription.
func (s *Store) subscribe(ctx context.Context, hint func()) {
	client, err := call(ctx, s, "subscribe", func(_ context.Context, client rueidis.Client) (rueidis.Client, error) {
		return client, nil
	})
	if err != nil {
		return
	}
	dedicated, release := client.Dedicate()
	defer release()
	ctx = rueidis.WithOnSubscriptionHook(ctx, func(rueidis.PubSubSubscription) { hint() })
	dedicated.Receive(ctx, dedicated.B().Subscribe().Channel(s.table).Build(), func(rueidis.PubSubMessage) { hint() })
	// Not back to the pool, where nobody would close it.
	dedicated.Close()
}

// changes looks once.
func (s *Store) changes(ctx context.Context, after store.Version) (store.Changes, error) {
	return call(ctx, s, "changes", func(ctx context.Context, client rueidis.Client) (c store.Changes, err error) {
		list, err := s.exec(ctx, client, changes, nil, decimal(after), strconv.Itoa(maxChanges))
		if err != nil {
			return c, err
		}
		var n [3]int64
		if err := numbers(list, n[:]); err != nil || len(list) != 5+int(store.Gone) {
			return c, errReply
		}
		members, err := list[3].AsStrSlice()
		if err != nil {
			return c, err
		}
		c.Upto, c.Reset = store.Version(n[1]), n[2] == 1
		if c.History, err = list[4].ToString(); err != nil {
			return c, err
		}
		for effect := store.Stale; c.Reset && effect <= store.Gone; effect++ {
			floor, err := list[4+int(effect)].AsUint64()
			if err != nil {
				return c, errReply
			}
			c.Floors[effect] = store.Version(floor)
		}
		for i := 0; i+1 < len(members); i += 2 {
			v, err := strconv.ParseFloat(members[i+1], 64)
			if err != nil || members[i] == "" {
				return store.Changes{}, errReply
			}
			if effect := store.Effect(members[i][0] - '0'); effect != store.None {
				c.List = append(c.List, store.Change{Tag: members[i][1:], Version: store.Version(v), Effect: effect})
			}
		}
		return c, nil
	})
}

// decimal returns a version as scripts take it.
func decimal[T ~uint64](n T) string { return strconv.FormatUint(uint64(n), 10) }
