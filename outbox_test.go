package isr_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/store/memory"
)

// What the Store has not taken it is told again until it does, and of no less than
// it was asked for.
func TestDebtsArePaid(t *testing.T) {
	purge := func(site *isr.Site) { site.PurgeTag(context.Background(), "tag") }
	revalidate := func(site *isr.Site) { site.RevalidateTag(context.Background(), "tag") }
	post := func(site *isr.Site) { do(site, "POST", "/") }
	for name, test := range map[string]struct {
		fail, succeed []func(*isr.Site)
		want          int // the status of what is purged and cannot be had anew
	}{
		"a purge":                          {[]func(*isr.Site){purge}, nil, 500},
		"a POST":                           {[]func(*isr.Site){post}, nil, 200},
		"less than before":                 {[]func(*isr.Site){purge, revalidate}, nil, 500},
		"less than before, with success":   {[]func(*isr.Site){purge}, []func(*isr.Site){revalidate}, 500},
		"more than before":                 {[]func(*isr.Site){revalidate, purge}, nil, 500},
		"a purge of the path, then a POST": {[]func(*isr.Site){func(site *isr.Site) { site.Purge(context.Background(), "/") }}, []func(*isr.Site){post}, 500},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				st := &moody{Store: memory.New()}
				in := fleet(t, st, isr.Options{Default: isr.Route{TTL: time.Hour, Tags: []string{"tag"}}})
				var broken atomic.Bool
				c := cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
					if r.Method == http.MethodGet && broken.Load() {
						w.WriteHeader(http.StatusInternalServerError)
					}
				}}
				one, two := in.start(&c), in.start(&c)
				get(one, "/")
				get(two, "/")
				st.feels(only(down, "invalidate"))
				for _, f := range test.fail {
					f(one)
				}
				st.feels(nil)
				for _, f := range test.succeed {
					f(one)
				}
				time.Sleep(time.Minute)
				broken.Store(true)
				res := get(two, "/")
				if got := res.Header.Get("Cache-Status"); res.StatusCode != test.want || strings.HasPrefix(got, "isr; hit; ttl=3") {
					t.Errorf("elsewhere: %d, %q; want %d", res.StatusCode, got, test.want)
				}
				before := st.count("invalidate")
				time.Sleep(time.Hour)
				if n := st.count("invalidate") - before; n != 0 {
					t.Errorf("then the Store was told %d times", n)
				}
			})
		})
	}
}

// What the Store is yet to hear of it hears when it is trusted again, however often
// it was tried in vain before.
func TestDebtsAreNotPutOff(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st := &moody{Store: memory.New()}
		in := fleet(t, st, isr.Options{})
		var c cms
		one, two := in.start(&c), in.start(&c)
		body(one, "/")
		body(two, "/")
		st.feels(but(down, "changes"))
		for i := range 75 { // in which it is trusted later each time, at last not for half a minute
			get(one, fmt.Sprintf("/%d", i))
			time.Sleep(time.Second)
		}
		one.Purge(t.Context(), "/")
		time.Sleep(10 * time.Second)
		st.feels(nil)
		for i := range 1000 {
			before := st.count("get")
			get(one, fmt.Sprintf("/again/%d", i))
			if st.count("get") > before {
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(10 * time.Second) // it may have been tried a few times in vain when that was trusted
		if got := body(two, "/"); got == "page 1" {
			t.Error("the Store is back, but the purge has not reached the other instance")
		}
	})
}

// A Store that takes no purges is not asked to all the time.
func TestDebtsAreNotUrged(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st := &moody{Store: memory.New()}
		site := fleet(t, st, isr.Options{}).start(&cms{})
		st.feels(only(down, "invalidate"))
		site.PurgeTag(t.Context(), "tag")
		time.Sleep(time.Hour)
		if n := st.count("invalidate"); n < 50 || n > 70 {
			t.Errorf("asked %d times in an hour", n)
		}
	})
}

// However many tags are owed at once, the Store hears of them, of no less than it was
// asked for, and of nothing else.
func TestMoreIsOwedAtOnce(t *testing.T) {
	var many []string
	for i := range 50_000 {
		many = append(many, fmt.Sprint(i))
	}
	for name, invalidate := range map[string]func(context.Context, *isr.Site){
		"with it": func(ctx context.Context, site *isr.Site) { site.PurgeTag(ctx, append(many, "tag")...) },
		"after it": func(ctx context.Context, site *isr.Site) {
			site.PurgeTag(ctx, "tag")
			site.RevalidateTag(ctx, many...)
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				st := &moody{Store: memory.New()}
				in := fleet(t, st, isr.Options{Routes: map[string]isr.Route{"/{$}": {Tags: []string{"tag"}}}})
				var c cms
				one, two := in.start(&c), in.start(&c)
				body(two, "/")
				get(two, "/other")
				synctest.Wait()
				st.feels(only(down, "invalidate"))
				invalidate(t.Context(), one)
				if got := body(one, "/"); got != "page 3" {
					t.Errorf("where it was purged: %q", got)
				}
				st.feels(nil)
				time.Sleep(time.Minute)
				if got := body(two, "/"); got == "page 1" {
					t.Errorf("elsewhere: %q", got)
				}
				before := c.calls.Load()
				if got := body(in.start(&c), "/other"); c.calls.Load() != before {
					t.Errorf("what was not named, after a restart: %q", got)
				}
			})
		})
	}
}

// What is more than can be remembered for a store that is away is told to whoever asks,
// and becomes nothing that nobody has asked for. Visitors leave room to editors.
func TestMoreIsOwedThanCanBeRemembered(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st := &moody{Store: memory.New()}
		in := fleet(t, st, isr.Options{MaxBytes: 8 << 20})
		var c cms
		one, other := in.start(&c), in.start(&c)
		body(other, "/first")
		body(other, "/never-named")
		st.feels(but(down, "get", "begin", "put", "changes"))
		one.Purge(t.Context(), "/first")
		forgotten := 0
		for i := range 150 {
			var paths []string
			for j := range 100 {
				paths = append(paths, fmt.Sprintf("/%d/%d", i, j))
			}
			switch err := one.Purge(t.Context(), paths...); {
			case err == nil:
				t.Fatal("no error, and no Store")
			case strings.Contains(err.Error(), "will not be told"):
				forgotten++
			case forgotten > 0:
				t.Errorf("%d: remembered, but not what was before it", i)
			}
		}
		if forgotten == 0 || forgotten > 75 {
			t.Errorf("of 150 purges %d were forgotten", forgotten)
		}
		st.feels(nil)
		time.Sleep(2 * time.Minute)
		if got := body(other, "/first"); got == "page 1" {
			t.Error("a purge is lost")
		}
		if got := body(other, "/never-named"); got != "page 2" {
			t.Errorf("what nobody has purged: %q", got)
		}
		if got, want := body(one, "/first"), body(other, "/first"); got != want {
			t.Errorf("%q here, %q there", got, want)
		}
	})
}

// As long as the Store is to hear of a purge, what it has is no better than that,
// whatever it is told in between.
func TestOwedButNotForgotten(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st := &moody{Store: memory.New()}
		in := fleet(t, st, isr.Options{Default: isr.Route{Tags: []string{"tag"}}})
		var c cms
		body(in.start(&c), "/")
		one := in.start(&c)
		st.feels(only(down, "invalidate"))
		one.PurgeTag(t.Context(), "tag")
		others := []string{"tag"}
		for i := range 20 {
			others = append(others, fmt.Sprint("other ", i))
		}
		one.RevalidateTag(t.Context(), others...) // a third failure, and the Store would count as down
		st.feels(nil)
		if err := one.PurgeTag(t.Context(), "something else"); err != nil {
			t.Fatal(err)
		}
		if got := body(one, "/"); got != "page 2" {
			t.Errorf("got %q", got)
		}
	})
}

// What is purged once more while the Store hears of the first time is told once more.
func TestOwedAnew(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st := &moody{Store: memory.New(), echo: only(slow(time.Second), "invalidate")}
		in := fleet(t, st, isr.Options{})
		var c cms
		one, two := in.start(&c), in.start(&c)
		body(two, "/")
		st.feels(only(down, "invalidate"))
		one.Purge(t.Context(), "/")
		st.feels(nil)
		for told := st.count("invalidate"); st.count("invalidate") == told; {
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(500 * time.Millisecond)
		if got := body(two, "/"); got != "page 2" {
			t.Errorf("after the first purge: %q", got)
		}
		st.feels(only(down, "invalidate"))
		one.Purge(t.Context(), "/")
		st.feels(nil)
		time.Sleep(time.Minute)
		if got := body(two, "/"); got != "page 3" {
			t.Errorf("after the second: %q", got)
		}
	})
}

// Whoever gives up on a purge does not keep the store from hearing of it.
func TestPurgeIsGivenUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st := &moody{Store: memory.New()}
		in := fleet(t, st, isr.Options{})
		var c cms
		one, other := in.start(&c), in.start(&c)
		body(one, "/")
		body(other, "/")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := one.Purge(ctx, "/"); !errors.Is(err, context.Canceled) {
			t.Errorf("Purge: %v", err)
		}
		if n := one.Stats().StoreErrors; n != 0 {
			t.Errorf("%d StoreErrors, which it is none of", n)
		}
		time.Sleep(5 * time.Second)
		if got := body(other, "/"); got != "page 2" {
			t.Errorf("elsewhere: %q", got)
		}
	})
}

// Visitors' POSTs wait in a line of their own, which an editor's purge is not in.
func TestPostsDoNotHinderPurges(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st := &moody{Store: memory.New()}
		disk := make(chan struct{}, 1) // one call at a time
		st.echo = only(func(ctx context.Context, op string) error {
			disk <- struct{}{}
			defer func() { <-disk }()
			time.Sleep(20 * time.Millisecond)
			return ctx.Err()
		}, "invalidate")
		in := fleet(t, st, isr.Options{})
		var c cms
		site, other := in.start(&c), in.start(&c)
		for i := range 500 {
			get(other, fmt.Sprintf("/%d", i))
		}
		synctest.Wait()
		var all sync.WaitGroup
		for i := range 500 {
			all.Go(func() { do(site, "POST", fmt.Sprintf("/%d", i)) })
		}
		synctest.Wait()
		begin := time.Now()
		if err := site.Purge(t.Context(), "/purged"); err != nil || time.Since(begin) > time.Second {
			t.Errorf("Purge: %v after %v", err, time.Since(begin))
		}
		all.Wait()
		time.Sleep(10 * time.Second)
		for i := range 500 {
			if got := get(other, fmt.Sprintf("/%d", i)).Header.Get("Cache-Status"); got == "isr; hit" {
				t.Fatalf("the change of /%d has not reached the other instance", i)
			}
		}
	})
}

// Strangers who post to paths that nobody knows keep the Store busy for a while, but
// drive nothing out of it, and the successful changes of others go on.
func TestStrangersPosts(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st := &moody{Store: memory.New()}
		in := fleet(t, st, isr.Options{})
		c := cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			if r.Method == http.MethodPost {
				http.Redirect(w, r, "/login", http.StatusSeeOther)
			}
		}}
		one, two := in.start(&c), in.start(&c)
		get(one, "/")
		get(two, "/")
		flood := func(n int) int64 {
			before := st.count("invalidate")
			for i := range n {
				do(one, "POST", fmt.Sprintf("/no/such/path/%d", i))
			}
			return st.count("invalidate") - before
		}
		if n := flood(3000); n != 1000 {
			t.Errorf("the Store was told %d times", n)
		}
		time.Sleep(10 * time.Second)
		if n := flood(300); n != 100 {
			t.Errorf("ten seconds later it was told %d times", n)
		}
		time.Sleep(time.Hour)
		if n := flood(3000); n != 1000 {
			t.Errorf("an hour later it was told %d times", n)
		}
		for _, site := range []*isr.Site{one, two} {
			if got := get(site, "/").Header.Get("Cache-Status"); got != "isr; hit" {
				t.Errorf("a page that nobody has changed: %q", got)
			}
		}
		before := st.count("invalidate")
		do(one, "POST", "/")
		if n := st.count("invalidate") - before; n != 1 {
			t.Errorf("of a change to what is known the Store was told %d times", n)
		}
	})
}
