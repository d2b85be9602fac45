package isr_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/store/memory"
)

// No data read before an acknowledged invalidation is served to a visitor who asks
// after it: visitors, editors and the clock all at once, against an oracle.
func TestNoOldDataAfterAnInvalidation(t *testing.T) {
	t.Parallel()
	const (
		docs    = 8
		minutes = 20
	)
	for seed := range uint64(6) {
		synctest.Test(t, func(t *testing.T) {
			random := func(i uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, i)) }
			var data, acknowledged [docs]atomic.Int64 // versions
			var stop atomic.Bool
			var served atomic.Int64
			handlerRandom, mu := random(1000), sync.Mutex{}
			think := func() {
				mu.Lock()
				d := time.Duration(handlerRandom.IntN(3000)) * time.Millisecond
				mu.Unlock()
				time.Sleep(d)
			}
			site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				doc, _ := strconv.Atoi(r.URL.Path[1:])
				if r.Method == http.MethodPost {
					data[doc].Add(1)
					return
				}
				think()
				version := data[doc].Load()
				think()
				mu.Lock()
				fate := handlerRandom.IntN(10)
				mu.Unlock()
				switch {
				case fate == 0:
					w.WriteHeader(500)
				case fate == 1:
					panic("no database")
				case fate == 2 && doc == 0:
					w.Header().Set("Cache-Control", "private")
				}
				w.Header().Set("Cache-Tag", fmt.Sprint("doc-", doc))
				fmt.Fprint(w, version)
			}), isr.Options{
				Origin: "http://example.com", MaxRegenerations: 2,
				MaxBytes: 10_000, // so that some are evicted
				Default:  isr.Route{TTL: 5 * time.Second, StaleWhileRevalidate: 5 * time.Second, StaleIfError: -1, Timeout: 5 * time.Second},
			})
			var all sync.WaitGroup
			for i := range uint64(6) { // visitors
				rnd := random(i)
				all.Go(func() {
					for !stop.Load() {
						doc := rnd.IntN(docs)
						floor := acknowledged[doc].Load()
						var res *http.Response
						if recovered(func() { res = get(site, fmt.Sprint("/", doc)) }) == nil && res.StatusCode == 200 {
							b := read(res)
							if got, err := strconv.ParseInt(b, 10, 64); err != nil || got < floor {
								t.Errorf("seed %d: /%d shows %q, version %d was acknowledged before; %q", seed, doc, b, floor, res.Header.Get("Cache-Status"))
								return
							}
							served.Add(1)
						}
						time.Sleep(time.Duration(rnd.IntN(500)) * time.Millisecond)
					}
				})
			}
			for i := range uint64(3) { // editors
				rnd := random(100 + i)
				all.Go(func() {
					for !stop.Load() {
						doc := rnd.IntN(docs)
						path := fmt.Sprint("/", doc)
						var version int64
						switch rnd.IntN(4) {
						case 0:
							version = data[doc].Add(1)
							if site.Revalidate(context.Background(), path) != nil {
								version = 0 // not acknowledged
							}
						case 1:
							version = data[doc].Add(1)
							site.Purge(context.Background(), path)
						case 2:
							version = data[doc].Add(1)
							site.PurgeTag(context.Background(), fmt.Sprint("doc-", doc))
						case 3:
							version = data[doc].Load() + 1 // at least
							do(site, "POST", path)
						}
						for a := acknowledged[doc].Load(); version > a && !acknowledged[doc].CompareAndSwap(a, version); a = acknowledged[doc].Load() {
						}
						time.Sleep(time.Duration(rnd.IntN(4000)) * time.Millisecond)
					}
				})
			}
			time.Sleep(minutes * time.Minute)
			stop.Store(true)
			all.Wait()
			if err := site.Shutdown(context.Background()); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Minute)
			if served.Load() < 1000 || site.Stats().Hits < 100 || site.Stats().Failed < 100 {
				t.Errorf("seed %d: %d pages served, %+v: the test has tried too little", seed, served.Load(), site.Stats())
			}
		})
	}
}

// Visitors, editors and renewals in parallel, for the race detector.
func TestRaces(t *testing.T) {
	t.Parallel()
	var n atomic.Int64
	site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Tag", "all")
		switch n.Add(1) % 7 {
		case 0:
			w.WriteHeader(500)
		case 1:
			w.Header().Set("Cache-Control", "private")
		}
		io.WriteString(w, strings.Repeat("all work and no play ", 30))
	}), isr.Options{
		Origin: "http://example.com", MaxBytes: 20_000, MaxRegenerations: 2, Observe: func(isr.Event) {},
		Default: isr.Route{TTL: time.Microsecond, Vary: []string{"Accept"}},
	})
	var all sync.WaitGroup
	for i := range uint64(4 * runtime.GOMAXPROCS(0)) {
		rnd := rand.New(rand.NewPCG(i, i))
		all.Go(func() {
			for range 300 {
				path := fmt.Sprint("/", rnd.IntN(10))
				switch rnd.IntN(12) {
				case 0:
					site.Revalidate(t.Context(), path)
				case 1:
					site.RevalidateTag(t.Context(), "all")
				case 2:
					site.Purge(t.Context(), path)
				case 3:
					do(site, "POST", path)
				case 4:
					for range site.Pages() {
					}
					site.Stats()
				case 5:
					for range site.Prerender(t.Context(), slices.Values([]string{path, "/x"})) {
					}
				default:
					get(site, path, "Accept", fmt.Sprint(rnd.IntN(2)), "Accept-Encoding", "gzip")
				}
			}
		})
	}
	all.Wait()
	if err := site.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if got := site.Stats().Bytes; got > 20_000 {
		t.Errorf("%d bytes", got)
	}
}

// No instance shows its own visitors data from before a purge, nor data from before any
// purge that the Store has acknowledged, whatever the Store loses, delays or leaves
// out: visitors and editors all at once, against an oracle.
func TestNoOldDataInAFleet(t *testing.T) {
	t.Parallel()
	const (
		docs      = 4
		instances = 3
	)
	for seed := range uint64(6) {
		synctest.Test(t, func(t *testing.T) {
			var mu sync.Mutex
			random := func(i uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, i)) }
			chance := random(0) // of the Store and the handler; mu guards it
			upto := func(ms int) (time.Duration, float64) {
				mu.Lock()
				defer mu.Unlock()
				return time.Duration(chance.IntN(ms)) * time.Millisecond, chance.Float64()
			}
			var calm atomic.Bool
			fails := []float64{0, 0.05, 0.3}[seed%3]
			unreliable := func(context.Context, string) error {
				if calm.Load() {
					return nil
				}
				pause, luck := upto(20)
				if luck > 0.95 {
					pause *= 8
				}
				time.Sleep(pause)
				if luck < fails {
					return errors.New("a fault of the network")
				}
				return nil
			}
			st := &faultyStore{Store: memory.New(), after: unreliable}
			st.set(unreliable)
			in := fleet(t, st, isr.Options{Default: isr.Route{
				TTL: []time.Duration{0, 3 * time.Second}[seed%2], Tags: []string{"all"},
			}})
			var data, acknowledged [docs]atomic.Int64 // versions
			var floor [instances][docs]atomic.Int64   // the oldest version that the visitors of an instance may see
			h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				doc, _ := strconv.Atoi(r.URL.Path[1:])
				before, _ := upto(50)
				time.Sleep(before)
				version := data[doc].Load()
				after, luck := upto(60)
				if luck < 1./3 {
					after *= 50
				}
				time.Sleep(after)
				w.Header().Set("Cache-Tag", fmt.Sprint("doc-", doc))
				fmt.Fprint(w, version)
			})
			shown := func(site *isr.Site, doc int) int64 {
				version, err := strconv.ParseInt(body(site, fmt.Sprint("/", doc)), 10, 64)
				if err != nil {
					t.Errorf("seed %d: %v", seed, err)
				}
				return version
			}
			var sites []*isr.Site
			for range instances {
				sites = append(sites, in.start(h))
			}
			var all sync.WaitGroup
			var stop atomic.Bool
			for i := range 6 * instances { // visitors
				rnd := random(uint64(100 + i))
				all.Go(func() {
					for at := i % instances; !stop.Load(); {
						doc := rnd.IntN(docs)
						least := floor[at][doc].Load()
						if got := shown(sites[at], doc); got < least {
							t.Errorf("seed %d: instance %d shows version %d of /%d, %d was purged before", seed, at, got, doc, least)
						}
						time.Sleep(time.Duration(rnd.IntN(300)) * time.Millisecond)
					}
				})
			}
			for i := range uint64(2) { // editors
				rnd := random(200 + i)
				all.Go(func() {
					for range 40 {
						time.Sleep(time.Duration(rnd.IntN(2000)) * time.Millisecond)
						at, doc := rnd.IntN(instances), rnd.IntN(docs)
						version := data[doc].Add(1)
						var err error
						switch site := sites[at]; rnd.IntN(4) {
						case 0:
							err = site.Purge(context.Background(), fmt.Sprint("/", doc))
						case 1:
							err = site.PurgeTag(context.Background(), fmt.Sprint("doc-", doc))
						case 2:
							err = site.Revalidate(context.Background(), fmt.Sprint("/", doc))
						case 3:
							err = site.PurgeTag(context.Background(), "all")
						}
						storeMax(&floor[at][doc], version) // whatever the error
						if err == nil {
							storeMax(&acknowledged[doc], version)
						}
					}
				})
			}
			time.Sleep(90 * time.Second)
			stop.Store(true)
			all.Wait()
			calm.Store(true)
			time.Sleep(3 * time.Minute) // until all purges are delivered
			for at, site := range append(sites, in.start(h)) {
				for doc := range docs {
					switch got, want := shown(site, doc), data[doc].Load(); {
					case got < acknowledged[doc].Load():
						t.Errorf("seed %d: at the end instance %d shows version %d of /%d, but %d was acknowledged", seed, at, got, doc, acknowledged[doc].Load())
					case got < want:
						t.Errorf("seed %d: at the end instance %d shows version %d of /%d, want %d", seed, at, got, doc, want)
					}
				}
			}
		})
	}
}

// storeMax stores n unless there is a larger number already.
func storeMax(a *atomic.Int64, n int64) {
	for old := a.Load(); n > old && !a.CompareAndSwap(old, n); old = a.Load() {
	}
}
