package main

import (
	"context"
	"time"

	cachestore "github.com/goware/cachestore2"
	"github.com/goware/cachestore2/noopcache"
	lru "github.com/hashicorp/golang-lru/v2"
)

// An lruBackend is a backend for stampede that does what goware/cachestore-mem
// does: an LRU of values, each with the time when it expires. What stampede's
// handler never calls is left to noopcache.
type lruBackend struct {
	cachestore.Backend
	pages *lru.Cache[string, expiring]
}

type expiring struct {
	value any
	until time.Time
}

func newLRUBackend(entries int) cachestore.Backend {
	pages, err := lru.New[string, expiring](entries)
	if err != nil {
		panic(err) // entries is ours
	}
	return &lruBackend{noopcache.NewBackend(), pages}
}

func (b *lruBackend) Name() string { return "lru" }

func (b *lruBackend) Set(ctx context.Context, key string, value any) error {
	return b.SetEx(ctx, key, value, time.Minute)
}

func (b *lruBackend) SetEx(_ context.Context, key string, value any, ttl time.Duration) error {
	b.pages.Add(key, expiring{value, time.Now().Add(ttl)})
	return nil
}

func (b *lruBackend) Get(_ context.Context, key string) (any, bool, error) {
	e, ok := b.pages.Get(key)
	if !ok || time.Now().After(e.until) {
		return nil, false, nil
	}
	return e.value, true, nil
}
