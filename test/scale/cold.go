package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/rueidis"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/store"
	"github.com/isr-go/isr/store/file"
	"github.com/isr-go/isr/store/postgres"
	"github.com/isr-go/isr/store/redis"
)

// visitors are how many ask at a time where pages come from a Store: more than there are
// processors, and not so many that calls wait for those.
const visitors = 8

// pause is how long a visitor waits before asking for another page, where the first ones do
// not come from the Store.
const pause = 10 * time.Millisecond

// coldStart fills a Store once, and measures one restart.
func (r *results) coldStart(ctx context.Context, name string, stdout io.Writer) {
	place, ok := r.places[name]
	if !ok {
		var stop func()
		var err error
		if place, stop, err = startStore(ctx, name); err != nil {
			r.skip("%s: %v", name, err)
			r.places[name] = ""
			return
		}
		r.places[name] = place
		r.stops = append(r.stops, stop)
		r.ask(ctx, order{Do: "fill", Pages: r.stored, Percent: 100, Store: name, Place: place}, row{name, r.stored}, stdout)
	}
	if place == "" {
		return
	}
	r.ask(ctx, order{Do: "cold", Pages: r.stored, Percent: 100, Store: name, Place: place}, row{name, r.stored}, stdout)
}

// stop ends what the Stores are on.
func (r *results) stop() {
	for _, f := range r.stops {
		f()
	}
}

// openStore opens a Store at its place.
func openStore(name, place string) (store.Store, func(), error) {
	switch name {
	case "store/file":
		s, err := file.Open(place, file.Options{MaxBytes: -1})
		return s, func() {}, err
	case "store/redis":
		client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{place}})
		if err != nil {
			return nil, nil, err
		}
		return redis.New(client, redis.Options{}), client.Close, nil
	case "store/postgres":
		pool, err := pgxpool.New(context.Background(), place)
		if err != nil {
			return nil, nil, err
		}
		return postgres.New(pool, postgres.Options{}), pool.Close, nil
	}
	return nil, nil, fmt.Errorf("no Store %q", name)
}

func storeNames() []string { return []string{"store/file", "store/redis", "store/postgres"} }

// openSite opens a site on its Store.
func openSite(o order, h *origin) (*isr.Site, func(), error) {
	s, end, err := openStore(o.Store, o.Place)
	if err != nil {
		return nil, nil, err
	}
	return isr.Wrap(h, isr.Options{
		Default: isr.Route{TTL: ttl}, MaxBytes: room(o.Pages), Store: s, Version: "scale",
	}), end, nil
}

// fillStore generates all pages, and waits until the Store has them.
func fillStore(o order) (*answer, error) {
	h, a := new(origin), newAnswer()
	site, end, err := openSite(o, h)
	if err != nil {
		return nil, err
	}
	defer end()
	t := &trial{order: o, cache: &cache{Handler: site}, origin: h, paths: makePaths(o.Pages)}
	began := time.Now()
	t.each(func(*visitor, time.Duration) {})
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	if err := site.Shutdown(ctx); err != nil {
		return nil, err
	}
	a.Values["stored rate"] = float64(o.Pages) / time.Since(began).Seconds()
	return a, nil
}

// each asks for each page once, in an order of chance, and tells how long it took.
func (t *trial) each(tell func(v *visitor, took time.Duration)) {
	pages := rand.New(rand.NewPCG(3, 4)).Perm(t.Pages)
	var next atomic.Int64
	var all sync.WaitGroup
	for range visitors {
		all.Go(func() {
			v := newVisitor(t)
			for {
				i := int(next.Add(1)) - 1
				if i >= len(pages) {
					return
				}
				began := time.Now()
				v.get(strings.Clone(t.paths.at(uint32(pages[i]))))
				tell(v, time.Since(began))
			}
		})
	}
	all.Wait()
}

// measureCold is the first minute of a process whose pages are in the Store.
func measureCold(o order) (*answer, error) {
	h, a := new(origin), newAnswer()
	site, end, err := openSite(o, h)
	if err != nil {
		return nil, err
	}
	defer end()
	t := &trial{order: o, cache: &cache{Handler: site}, origin: h, paths: makePaths(o.Pages)}
	v := newVisitor(t)
	a.None["cold first"] = "no page came from the Store"
	for i := range t.Pages {
		before := h.generated.Load()
		v.get(strings.Clone(t.paths.at(uint32(i))))
		if h.generated.Load() == before {
			a.Values["cold first"] = ms(time.Since(o.Began))
			break
		}
		time.Sleep(pause)
	}

	var mu sync.Mutex
	waits, asked := new(histogram), 0 // guarded by mu
	began := time.Now()
	t.each(func(_ *visitor, took time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		waits.add(took)
		switch asked++; asked {
		case t.Pages / 10:
			a.Values["cold tenth"] = ms(time.Since(began))
		case t.Pages / 2:
			a.Values["cold half"] = ms(time.Since(began))
		case t.Pages:
			a.Values["cold all"] = ms(time.Since(began))
		}
	})
	a.Values["cold p50"], a.Values["cold p99"] = ms(waits.quantile(0.5)), ms(waits.quantile(0.99))
	a.Values["cold anew"] = float64(h.generated.Load())
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return a, site.Shutdown(ctx)
}
