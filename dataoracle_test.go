package isr_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/store/memory"
)

// A page is never newer than the data in it. Pages and values are made and invalidated at
// random, with fetches that read before they wait and pages that wait between what they
// load; and a visitor of the instance that has acknowledged an edit never gets a page that
// counts as fresh and holds a row from before; nor does, a little later, one of another. In
// the end, when nothing is edited any more, all that is fresh is as in the database.
func TestDataOracle(t *testing.T) {
	t.Parallel()
	for _, instances := range []int{1, 2, 3} {
		t.Run(fmt.Sprint(instances, " instances"), func(t *testing.T) {
			for range 5 {
				seed := rand.Uint64()
				synctest.Test(t, func(t *testing.T) {
					playDataOracle(t, instances, seed)
					if t.Failed() {
						t.Logf("seed %d", seed)
					}
				})
			}
		})
	}
}

// An ack says from when on which version of a row is to be seen.
type ack struct {
	version int
	at      time.Time
}

func playDataOracle(t *testing.T, instances int, seed uint64) {
	const rows, paths, lag = 6, 12, 1500 * time.Millisecond
	var mu sync.Mutex // guards all that follows
	rng := rand.New(rand.NewPCG(seed, 0))
	roll := func(n int) int {
		mu.Lock()
		defer mu.Unlock()
		return rng.IntN(n)
	}
	sleep := func(most int) { time.Sleep(time.Duration(roll(most+1)) * time.Millisecond) }
	db := make(map[int]int)
	acks := make([]map[int][]ack, instances)
	for i := range acks {
		acks[i] = make(map[int][]ack)
	}
	failing := false

	values := &isr.Data[int]{Name: "row", TTL: 3 * time.Second}
	sums := &isr.Data[string]{Name: "sum"}
	row := func(ctx context.Context, k int) (int, error) {
		return values.Load(ctx, strconv.Itoa(k), func(ctx context.Context) (int, error) {
			mu.Lock()
			n, failing := db[k], failing && rng.IntN(3) == 0
			mu.Unlock()
			sleep(40)
			if failing {
				return 0, errors.New("no database")
			}
			return n, nil
		})
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/"))
		ctx, seen := r.Context(), ""
		sleep(20)
		for _, k := range []int{n % rows, (n + 1 + n/rows) % rows} {
			v, err := row(ctx, k)
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			seen += fmt.Sprintf("%d=%d ", k, v)
			sleep(20)
		}
		if n%2 == 0 { // a value that is made of another
			k := n / 2 % rows
			sum, err := sums.Load(ctx, strconv.Itoa(k), func(ctx context.Context) (string, error) {
				v, err := row(ctx, k)
				sleep(20)
				return fmt.Sprintf("%d=%d ", k, v), err
			})
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			seen += sum
		}
		fmt.Fprint(w, seen)
	})
	opts := isr.Options{Default: isr.Route{TTL: 10 * time.Second}}
	if instances > 1 {
		opts.Version = "1"
	}
	sites, shared := make([]*isr.Site, instances), memory.New()
	for i := range sites {
		if instances > 1 { // the last ones hear of the others' edits late
			opts.Store = &laggard{shared, time.Duration(i) * 300 * time.Millisecond}
		}
		sites[i] = isr.Wrap(handler, opts)
	}

	// wanted returns which versions a visitor of a site is to see who asks now.
	wanted := func(i int, final bool) map[int]int {
		mu.Lock()
		defer mu.Unlock()
		want := make(map[int]int)
		for k := range rows {
			if final {
				want[k] = db[k]
			}
			for site := range acks {
				for _, a := range acks[site][k] {
					if site == i || time.Since(a.at) > lag {
						want[k] = max(want[k], a.version)
					}
				}
			}
		}
		return want
	}
	visit := func(i, n int, final bool) (isFresh bool) {
		want, asked, path := wanted(i, final), time.Now(), fmt.Sprint("/", n)
		res := get(sites[i], path)
		status, seen := res.Header.Get("Cache-Status"), read(res)
		isFresh = res.StatusCode == 200 && !strings.Contains(status, "stale")
		for part := range strings.FieldsSeq(seen) {
			key, value, _ := strings.Cut(part, "=")
			k, _ := strconv.Atoi(key)
			if got, _ := strconv.Atoi(value); isFresh && got < want[k] {
				t.Errorf("instance %d, %s at %v: row %d has version %d, want %d (%s)", i, path, asked.Format("05.000"), k, got, want[k], status)
			}
		}
		return isFresh
	}
	var all sync.WaitGroup
	for range 6 {
		all.Go(func() {
			for range 120 {
				visit(roll(instances), roll(paths), false)
				sleep(60)
			}
		})
	}
	for range 2 {
		all.Go(func() {
			for range 40 {
				i, k := roll(instances), roll(rows)
				mu.Lock()
				db[k]++
				version := db[k]
				mu.Unlock()
				invalidate := sites[i].RevalidateTag
				if roll(2) == 0 {
					invalidate = sites[i].PurgeTag
				}
				if err := invalidate(t.Context(), fmt.Sprint("row:", k)); err != nil {
					t.Error(err)
				}
				mu.Lock()
				acks[i][k] = append(acks[i][k], ack{version, time.Now()})
				failing = rng.IntN(3) == 0
				mu.Unlock()
				sleep(200)
			}
		})
	}
	all.Wait()
	mu.Lock()
	failing = false
	mu.Unlock()
	time.Sleep(20 * time.Second)
	for i := range sites {
		for n := range paths {
			for range 3 {
				if visit(i, n, true) {
					break
				}
				time.Sleep(time.Second)
			}
		}
	}
	for _, site := range sites {
		site.Shutdown(context.Background())
	}
}
