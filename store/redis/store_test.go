package redis_test

import (
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/rueidis"

	"github.com/isr-go/isr/store"
	"github.com/isr-go/isr/store/redis"
	"github.com/isr-go/isr/store/storetest"
)

const maxBytes = 1 << 20

// limit is how many invalidations the tables of the suite hold.
const limit = 500

// limited returns two Stores that do not remember more.
func limited(a, b rueidis.Client, opts redis.Options) [2]store.Store {
	s, o := redis.New(a, opts), redis.New(b, opts)
	s.SetLimit(limit)
	o.SetLimit(limit)
	return [2]store.Store{s, o}
}

// A single server, that keeps what it has acknowledged.
func TestServer(t *testing.T) {
	needServer(t)
	t.Parallel()
	storetest.Run(t, func(t *testing.T) storetest.Config {
		server := newServer(t, "--appendonly", "yes", "--appendfsync", "always")
		open := func() [2]store.Store { return limited(server.client(), server.client(), redis.Options{}) }
		stores := open()
		admin := server.client()
		return storetest.Config{
			Stores:   stores,
			MaxBytes: maxBytes,
			Limit:    limit,
			Wipe:     func() { do(t, admin, "FLUSHALL") },
			Pause:    server.pause,
			Reopen: func() [2]store.Store {
				server.kill()
				if !server.run() {
					t.Fatal("redis-server does not start again")
				}
				return open()
			},
			Corrupt: func(key string) {
				name := stores[0].(*redis.Store).RecordKey(key)
				do(t, admin, "SETRANGE", name, "60", "\xff\x00\xff")
			},
		}
	})
}

// Three servers that share the keys.
func TestCluster(t *testing.T) {
	needServer(t)
	t.Parallel()
	nodes := newCluster(t)
	storetest.Run(t, func(t *testing.T) storetest.Config {
		open := func() rueidis.Client {
			return newClient(t, rueidis.ClientOption{InitAddress: []string{nodes[0].addr, nodes[1].addr, nodes[2].addr}})
		}
		admin := open()
		opts := redis.Options{Prefix: t.Name() + ":"}
		stores := limited(open(), open(), opts)
		return storetest.Config{
			Stores:   stores,
			MaxBytes: maxBytes,
			Limit:    limit,
			Wipe: func() {
				for _, node := range admin.Nodes() {
					do(t, node, "FLUSHALL")
				}
			},
			Pause: func() (resume func()) {
				var all []func()
				for _, n := range nodes {
					all = append(all, n.pause())
				}
				return func() {
					for _, resume := range all {
						resume()
					}
				}
			},
			Reopen: func() [2]store.Store {
				return limited(open(), open(), opts)
			},
			Corrupt: func(key string) {
				name := stores[0].(*redis.Store).RecordKey(key)
				cmd := admin.B().Setrange().Key(name).Offset(60).Value("\xff\x00\xff").Build()
				if err := admin.Do(t.Context(), cmd).Error(); err != nil {
					t.Fatal(err)
				}
			},
		}
	})
}

// The embedded server is no proof, but it is on every machine.
func TestEmbedded(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) storetest.Config {
		server := miniredis.RunT(t)
		open := func() *redis.Store {
			client := newClient(t, rueidis.ClientOption{InitAddress: []string{server.Addr()}, DisableCache: true})
			return redis.New(client, redis.Options{})
		}
		stores := [2]store.Store{open(), open()}
		return storetest.Config{
			Stores:   stores,
			MaxBytes: maxBytes,
			Advance:  func(d time.Duration) { server.FastForward(d) },
			Wipe:     server.FlushAll,
			Corrupt: func(key string) {
				server.Set(stores[0].(*redis.Store).RecordKey(key), "damaged")
			},
		}
	})
}

// An import of many articles spares nearly all pages that it does not concern: with a full
// table, and the purges no longer recent.
func TestImport(t *testing.T) {
	s := redis.New(newServer(t).client(), redis.Options{})
	s.SetRecent(0)
	storetest.Import(t, s, 300_000)
}
