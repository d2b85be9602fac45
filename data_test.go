package isr_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/store/memory"
)

// A menu is a value with what JSON has.
type menu struct {
	Version int
	Items   []string
}

// A shop is a handler whose pages share a menu, and what its database holds.
type shop struct {
	menus   *isr.Data[*menu]
	version int
	fetched int
	fetch   func(context.Context) (*menu, error) // instead of the usual one
	takes   time.Duration
}

func (s *shop) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m, err := s.load(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	fmt.Fprintf(w, "%s %d", r.URL.Path, m.Version)
}

func (s *shop) load(ctx context.Context) (*menu, error) {
	return s.menus.Load(ctx, "main", func(ctx context.Context) (*menu, error) {
		s.fetched++
		time.Sleep(s.takes)
		if s.fetch != nil {
			return s.fetch(ctx)
		}
		return &menu{Version: s.version, Items: []string{"a", "b"}}, nil
	})
}

// A thousand pages that share a menu make it once; when it is purged, they all change,
// and it is made once more.
func TestDataIsShared(t *testing.T) {
	for name, invalidate := range map[string]func(*isr.Site) error{
		"purged by its Name":     func(s *isr.Site) error { return s.PurgeTag(t.Context(), "menu") },
		"purged by Name and key": func(s *isr.Site) error { return s.PurgeTag(t.Context(), "menu:main") },
		"purged by its tag":      func(s *isr.Site) error { return s.PurgeTag(t.Context(), "navigation") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &shop{menus: &isr.Data[*menu]{Name: "menu", Tags: []string{"navigation"}}}
				site := isr.Wrap(c, isr.Options{})
				for want := range 2 {
					c.version = want
					if want > 0 {
						if err := invalidate(site); err != nil {
							t.Fatal(err)
						}
					}
					for i := range 1000 {
						target := fmt.Sprint("/", i)
						if got := body(site, target); got != fmt.Sprint(target, " ", want) {
							t.Fatalf("got %q, want version %d", got, want)
						}
					}
					if c.fetched != want+1 {
						t.Errorf("it was fetched %d times for %d versions", c.fetched, want+1)
					}
				}
				if s := site.Stats(); s.DataHits != 1998 || s.DataMisses != 2 || s.Misses != 2000 || s.Hits != 0 {
					t.Errorf("%+v", s)
				}
			})
		})
	}
}

// A stale value is renewed before a page is made of it, and used where that fails; then
// the page is stale from the beginning, and Revalidate says why. It is renewed when the
// value can be had again.
func TestDataPastItsTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		noDatabase := errors.New("no database")
		c := &shop{menus: &isr.Data[*menu]{Name: "menu", TTL: time.Minute}}
		site := isr.Wrap(c, isr.Options{Origin: "https://example.com"})
		get := func(target, want, state string) {
			t.Helper()
			res := get(site, target)
			if got := read(res); got != want || !strings.Contains(res.Header.Get("Cache-Status"), state) {
				t.Errorf("%s: got %q, %q, want %q, %q", target, got, res.Header.Get("Cache-Status"), want, state)
			}
			synctest.Wait()
		}
		get("/a", "/a 0", "stored")
		time.Sleep(2 * time.Minute)
		c.version = 1
		get("/b", "/b 1", "stored")
		time.Sleep(2 * time.Minute)
		c.version, c.fetch = 2, func(context.Context) (*menu, error) { return nil, noDatabase }
		get("/c", "/c 1", "stored")
		if err := site.Revalidate(t.Context(), "/c"); !errors.Is(err, noDatabase) {
			t.Errorf("Revalidate: %v", err)
		}
		get("/c", "/c 1", "stale")
		c.fetch = nil
		time.Sleep(time.Minute)
		get("/c", "/c 1", "stale")
		get("/c", "/c 2", "hit")
		get("/a", "/a 0", "hit") // whose own TTL is none, and that no edit concerns
	})
}

// What a fetch does wrong a page notices as if it did it itself, and nobody else does.
func TestFetchFails(t *testing.T) {
	for name, test := range map[string]struct {
		fetch  func(context.Context) (*menu, error)
		status int
		panics any
		err    string
	}{
		"an error":   {fetch: func(context.Context) (*menu, error) { return nil, errors.New("no rows") }, status: 500, err: `Data "menu", key "main": no rows`},
		"isr.Fail":   {fetch: func(ctx context.Context) (*menu, error) { isr.Fail(ctx, errors.New("no rows")); return new(menu), nil }, status: 500, err: "no rows"},
		"a panic":    {fetch: func(context.Context) (*menu, error) { panic("no rows") }, panics: "no rows", err: "no rows"},
		"a bad tag":  {fetch: func(ctx context.Context) (*menu, error) { isr.Tag(ctx, "/menu"); return new(menu), nil }, status: 500, err: `"/menu"`},
		"it hangs":   {fetch: func(ctx context.Context) (*menu, error) { time.Sleep(time.Hour); return new(menu), nil }, status: 500, err: "Timeout"},
		"its ctx":    {fetch: func(ctx context.Context) (*menu, error) { <-ctx.Done(); return nil, ctx.Err() }, status: 500, err: "Timeout"},
		"of another": {fetch: func(ctx context.Context) (*menu, error) { return new(menu), context.Canceled }, status: 500, err: "canceled"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &shop{menus: &isr.Data[*menu]{Name: "menu", Timeout: time.Second}, fetch: test.fetch}
				var failed []error
				site := isr.Wrap(c, isr.Options{Observe: func(e isr.Event) {
					if e.Kind == isr.Failed && e.Route == "" {
						failed = append(failed, e.Err)
					}
				}})
				var res *http.Response
				if got := recovered(func() { res = get(site, "/") }); got != test.panics {
					t.Errorf("panicked with %v", got)
				}
				if res != nil && (res.StatusCode != test.status || !strings.Contains(read(res), test.err)) {
					t.Errorf("got %d", res.StatusCode)
				}
				time.Sleep(time.Hour)
				synctest.Wait()
				c.fetch = nil
				if got := body(site, "/"); got != "/ 0" {
					t.Errorf("afterwards %q", got)
				}
			})
		})
	}
}

// In a request that passes stale values are used while they are renewed; a page request
// and a visitor's own see the same ones.
func TestDataInPasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &shop{menus: &isr.Data[*menu]{Name: "menu", TTL: time.Minute}}
		site := isr.Wrap(c, isr.Options{Default: isr.Route{Bypass: isr.Always}})
		post := func(want string) {
			t.Helper()
			if got := read(do(site, "POST", "/a")); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
			synctest.Wait()
		}
		post("/a 0")
		c.version = 1
		time.Sleep(2 * time.Minute)
		post("/a 0") // and renewed
		post("/a 1")
		c.version = 2
		if err := site.RevalidateTag(t.Context(), "menu"); err != nil {
			t.Fatal(err)
		}
		post("/a 1")
		post("/a 2")
		c.version = 3
		if err := site.PurgeTag(t.Context(), "menu"); err != nil {
			t.Fatal(err)
		}
		post("/a 3")
		if m, err := c.load(site.Context(t.Context())); err != nil || m.Version != 3 || c.fetched != 4 {
			t.Errorf("%+v, %v, fetched %d times", m, err, c.fetched)
		}
		if m, err := c.load(t.Context()); err != nil || m.Version != 3 || c.fetched != 5 {
			t.Errorf("without a Site: %+v, %v, fetched %d times", m, err, c.fetched)
		}
	})
}

// However many pages and visitors ask for a value at a time, it is fetched once; who asks
// may leave early; and fetch sees nothing of any of them.
func TestFetchIsCollapsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &shop{menus: &isr.Data[*menu]{Name: "menu"}, takes: time.Second}
		c.fetch = func(ctx context.Context) (*menu, error) {
			if ctx.Value(name("user")) != nil || !isr.Generating(ctx) {
				t.Error("fetch is called with a visitor's context")
			}
			return new(menu), nil
		}
		site := isr.Wrap(c, isr.Options{})
		for i := range 20 {
			go get(site, fmt.Sprint("/", i))
			go do(site, "POST", "/")
		}
		ctx, cancel := context.WithTimeout(context.WithValue(site.Context(t.Context()), name("user"), 1), time.Second/2)
		defer cancel()
		if _, err := c.load(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("who leaves gets %v", err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if c.fetched != 1 {
			t.Errorf("fetched %d times", c.fetched)
		}
	})
}

// Values of values: tags go up to the page. A circle is an error, however long it is, and
// also across pages and goroutines.
func TestDataOfData(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		values := &isr.Data[string]{Name: "value", Timeout: time.Hour}
		var site *isr.Site
		needs := map[string]string{"a": "b", "b": "c", "x": "y", "y": "x", "self": "self", "page": "/p"}
		var load func(ctx context.Context, key string) (string, error)
		load = func(ctx context.Context, key string) (string, error) {
			return values.Load(ctx, key, func(ctx context.Context) (string, error) {
				isr.Tag(ctx, "tag-"+key)
				time.Sleep(time.Millisecond)
				switch next := needs[key]; {
				case next == "":
					return key, nil
				case next[0] == '/':
					r, _ := http.NewRequestWithContext(ctx, "GET", "http://example.com"+next, nil)
					w := new(discardWriter)
					site.ServeHTTP(w, r)
					if w.status >= 400 {
						return "", fmt.Errorf("%s: %d", next, w.status)
					}
					return key + next, nil
				default:
					v, err := load(ctx, next)
					return key + v, err
				}
			})
		}
		site = isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			key := strings.TrimPrefix(r.URL.Path, "/")
			if key == "p" {
				key = "page"
			}
			v, err := load(r.Context(), key)
			if err != nil {
				http.Error(w, err.Error(), 500)
				return
			}
			io.WriteString(w, v)
		}), isr.Options{Default: isr.Route{Timeout: time.Hour}})
		if got := body(site, "/a"); got != "abc" {
			t.Errorf("got %q", got)
		}
		if got := pages(site)["/a"].Tags; fmt.Sprint(got) != "[value value:a tag-a value:b tag-b value:c tag-c]" && len(got) != 7 {
			t.Errorf("tags %q", got)
		}
		begin := time.Now()
		for _, path := range []string{"/x", "/y", "/self", "/p"} {
			if res := get(site, path); res.StatusCode != 500 {
				t.Errorf("%s: %d", path, res.StatusCode)
			}
		}
		go get(site, "/x")
		get(site, "/y")
		synctest.Wait()
		if took := time.Since(begin); took > time.Minute {
			t.Errorf("circles were found after %v", took)
		}
	})
}

// A discardWriter keeps the status.
type discardWriter struct {
	status int
	header http.Header
}

func (w *discardWriter) Header() http.Header {
	if w.header == nil {
		w.header = make(http.Header)
	}
	return w.header
}
func (w *discardWriter) WriteHeader(status int)      { w.status = status }
func (w *discardWriter) Write(b []byte) (int, error) { return len(b), nil }

// Values outlive a restart in the Store, and another instance need not fetch them; one
// that does not decode, as of a build with another type, is fetched anew.
func TestDataInTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := memory.New()
		start := func(c http.Handler) *isr.Site {
			site := isr.Wrap(c, isr.Options{Store: st, Version: "1"})
			t.Cleanup(func() { site.Shutdown(context.Background()) })
			return site
		}
		one := &shop{menus: &isr.Data[*menu]{Name: "menu"}, version: 1}
		get(start(one), "/a")
		synctest.Wait()
		two := &shop{menus: &isr.Data[*menu]{Name: "menu"}, version: 2}
		site := start(two)
		if got := body(site, "/b"); got != "/b 1" || two.fetched != 0 {
			t.Errorf("got %q, fetched %d times", got, two.fetched)
		}
		other := &isr.Data[int]{Name: "menu"}
		third := start(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			n, err := other.Load(r.Context(), "main", func(context.Context) (int, error) { return 3, nil })
			fmt.Fprint(w, n, err)
		}))
		if got := body(third, "/c"); got != "3 <nil>" {
			t.Errorf("got %q", got)
		}
	})
}

// What cannot be loaded says which and why.
func TestBadData(t *testing.T) {
	load := func(site *isr.Site, d *isr.Data[any], key string, v any) error {
		_, err := d.Load(site.Context(t.Context()), key, func(context.Context) (any, error) { return v, nil })
		return err
	}
	site := isr.Wrap(http.NotFoundHandler(), isr.Options{})
	if err := load(site, &isr.Data[any]{Name: "one"}, "", 1); err != nil {
		t.Fatal(err)
	}
	for want, err := range map[string]error{
		"without a Name":         load(site, &isr.Data[any]{}, "", 1),
		`does not begin with`:    load(site, &isr.Data[any]{Name: "/menu"}, "", 1),
		`"one": another one has`: load(site, &isr.Data[any]{Name: "one"}, "", 1),
		`"key": a key of 1025`:   load(site, &isr.Data[any]{Name: "key"}, strings.Repeat("x", 1025), 1),
		"has no JSON":            load(site, &isr.Data[any]{Name: "chan"}, "k", make(chan int)),
		"Tags":                   load(site, &isr.Data[any]{Name: "tags", Tags: []string{""}}, "", 1),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// A value that is too large to be kept is given to all who wait, and not kept; what is
// kept counts in MaxBytes.
func TestLargeData(t *testing.T) {
	values := &isr.Data[string]{Name: "value"}
	fetched := 0
	load := func(site *isr.Site, key string, size int) {
		t.Helper()
		v, err := values.Load(site.Context(t.Context()), key, func(context.Context) (string, error) {
			fetched++
			return strings.Repeat("x", size), nil
		})
		if err != nil || len(v) != size {
			t.Errorf("%d bytes, %v", len(v), err)
		}
	}
	site := isr.Wrap(http.NotFoundHandler(), isr.Options{MaxPageBytes: 1000, MaxBytes: 50_000})
	load(site, "large", 2000)
	load(site, "large", 2000)
	if fetched != 2 {
		t.Errorf("fetched %d times", fetched)
	}
	before := site.Stats().Bytes
	load(site, "small", 900)
	if n := site.Stats().Bytes - before; n < 1800 || n > 5000 {
		t.Errorf("900 bytes and their JSON count as %d", n)
	}
	for i := range 100 {
		load(site, fmt.Sprint(i), 900)
	}
	if s := site.Stats(); s.Bytes > 50_000 || s.Evicted == 0 {
		t.Errorf("%+v", s)
	}
}

// A value that is in memory costs no more than one allocation, and nothing is decoded.
func TestLoadAllocs(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	c := &shop{menus: &isr.Data[*menu]{Name: "menu"}}
	ctx := isr.Wrap(c, isr.Options{}).Context(t.Context())
	first, err := c.load(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(1000, func() {
		if m, err := c.load(ctx); err != nil || m != first {
			t.Errorf("%p, %v, want %p", m, err, first)
		}
	}); n > 1 {
		t.Errorf("%v allocations", n)
	}
}
