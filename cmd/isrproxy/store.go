package main

import (
	"context"
	"net/url"
	"path/filepath"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/rueidis"

	"github.com/isr-go/isr/store"
	"github.com/isr-go/isr/store/file"
	"github.com/isr-go/isr/store/postgres"
	"github.com/isr-go/isr/store/redis"
)

// A closingStore is a store with what it keeps open. The zero value has no store.
type closingStore struct {
	store.Store
	close func()
}

func (s closingStore) Close() {
	if s.close != nil {
		s.close()
	}
}

// openStore opens the store that a flag names, for one public site: several that share an
// engine share no page, and no purge but in PostgreSQL.
func openStore(name string, public *url.URL) (closingStore, error) {
	site := strings.NewReplacer(":", "_", "/", "_", "[", "", "]", "").Replace(public.Host)
	scheme, _, isURL := strings.Cut(name, "://")
	switch {
	case name == "":
		return closingStore{}, nil
	case !isURL:
		pages, err := file.Open(filepath.Join(name, site), file.Options{})
		if err != nil {
			return closingStore{}, wrong("-store %q: %v", name, err)
		}
		return closingStore{Store: pages}, nil
	case scheme == "redis" || scheme == "rediss" || scheme == "unix":
		return openRedis(name, site)
	case scheme == "postgres" || scheme == "postgresql":
		return openPostgres(name, scheme)
	}
	return closingStore{}, wrong("-store %s://…: want a directory such as /var/cache/isrproxy, redis://host:6379 or postgres://host/database", scheme)
}

// openRedis makes a store on Redis. That need not be there yet.
func openRedis(name, site string) (closingStore, error) {
	option, err := rueidis.ParseURL(name)
	if err != nil {
		return closingStore{}, wrong("-store redis://…: %v; want something like redis://user:password@host:6379/0", err)
	}
	var mu sync.Mutex
	var clients []rueidis.Client // guarded by mu
	connect := func() (rueidis.Client, error) {
		c, err := rueidis.NewClient(option)
		if err == nil {
			mu.Lock()
			defer mu.Unlock()
			clients = append(clients, c)
		}
		return c, err
	}
	return closingStore{redis.Lazy(connect, redis.Options{Prefix: "isrproxy:" + site + ":"}), func() {
		mu.Lock()
		defer mu.Unlock()
		for _, c := range clients {
			c.Close()
		}
	}}, nil
}

// openPostgres makes a store on PostgreSQL. That need not be there yet.
func openPostgres(name, scheme string) (closingStore, error) {
	config, err := pgxpool.ParseConfig(name)
	if err != nil { // which hides the password
		return closingStore{}, wrong("-store %s://…: %v; want something like %[1]s://user:password@host:5432/database", scheme, err)
	}
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		return closingStore{}, wrong("-store %s://…: %v", scheme, err)
	}
	return closingStore{postgres.New(pool, postgres.Options{}), pool.Close}, nil
}
