package isr_test

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/store"
	"github.com/isr-go/isr/store/memory"
)

// A build is a handler of one version, whose database may be down.
type build struct {
	name  string
	down  atomic.Bool
	calls atomic.Int64
	also  func(w http.ResponseWriter, r *http.Request) (done bool) // nil: nothing
}

func (b *build) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.calls.Add(1)
	time.Sleep(100 * time.Millisecond)
	if b.down.Load() {
		http.Error(w, "no database", http.StatusInternalServerError)
		return
	}
	if b.also != nil && b.also(w, r) {
		return
	}
	fmt.Fprint(w, b.name, " ", r.URL.RequestURI())
}

// deploy starts an instance of a build.
func (in *instances) deploy(b *build, inherit isr.Inherit) *isr.Site {
	in.t.Helper()
	in.opts.Version, in.opts.Inherit = b.name, inherit
	return in.start(b)
}

// visited returns what a visitor gets, and how long they have waited.
func visited(site http.Handler, target string, header ...string) string {
	begin := time.Now()
	res := get(site, target, header...)
	return fmt.Sprint(res.StatusCode, " ", read(res), " ", time.Since(begin))
}

// What a visitor of a new build gets of what the old one has left, by Inherit.
func TestInherit(t *testing.T) {
	for _, test := range []struct {
		inherit isr.Inherit
		down    bool   // the database
		want    string // what the first visitor gets
		then    string // and one a second later
	}{
		{isr.InheritNothing, false, "200 new /1 100ms", "200 new /1 0s"},
		{isr.InheritNothing, true, "500 no database\n 100ms", "500 no database\n 100ms"},
		{isr.InheritOnError, false, "200 new /1 100ms", "200 new /1 0s"},
		{isr.InheritOnError, true, "200 old /1 100ms", "200 old /1 0s"},
		{isr.InheritStale, false, "200 old /1 0s", "200 new /1 0s"},
		{isr.InheritStale, true, "200 old /1 0s", "200 old /1 0s"},
	} {
		t.Run(fmt.Sprint(test.inherit, " down ", test.down), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				in := fleet(t, memory.New(), isr.Options{Default: isr.Route{TTL: time.Minute}})
				get(in.deploy(&build{name: "old"}, isr.InheritNothing), "/1")
				synctest.Wait()
				b := &build{name: "new"}
				b.down.Store(test.down)
				site := in.deploy(b, test.inherit)
				if got := visited(site, "/1"); got != test.want {
					t.Errorf("%s, want %s", got, test.want)
				}
				time.Sleep(time.Second)
				if got := visited(site, "/1"); got != test.then {
					t.Errorf("a second later %s, want %s", got, test.then)
				}
				b.down.Store(false)
				time.Sleep(time.Minute)
				get(site, "/1")
				time.Sleep(time.Second)
				if got, want := visited(site, "/1"), "200 new /1 0s"; got != want {
					t.Errorf("when all is well again %s, want %s", got, want)
				}
			})
		})
	}
}

// A visitor of a route with Patience gets the page of another build while this one's takes
// too long.
func TestInheritWithPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{Default: isr.Route{Patience: 10 * time.Millisecond}})
		get(in.deploy(&build{name: "old"}, isr.InheritNothing), "/")
		synctest.Wait()
		if got, want := visited(in.deploy(&build{name: "new"}, isr.InheritOnError), "/"), "200 old / 10ms"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
		time.Sleep(time.Second)
	})
}

// A page is inherited from the last three builds, the newest that has it, and not from
// those before.
func TestInheritFromTheLastThree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{})
		for i, name := range []string{"1", "2", "3", "4"} {
			site := in.deploy(&build{name: name}, isr.InheritNothing)
			get(site, "/"+name)
			if i < 3 {
				get(site, "/all")
			}
		}
		synctest.Wait()
		site := in.deploy(&build{name: "5"}, isr.InheritStale)
		for path, want := range map[string]string{
			"/1": "200 5 /1 100ms", "/2": "200 2 /2 0s", "/3": "200 3 /3 0s", "/4": "200 4 /4 0s", "/all": "200 3 /all 0s",
		} {
			if got := visited(site, path); got != want {
				t.Errorf("%s: %s, want %s", path, got, want)
			}
		}
		time.Sleep(time.Second)
	})
}

// What was invalidated is invalidated for all builds: what one has purged no other shows,
// and what is only stale it shows no longer than a page of its own.
func TestInheritWhatWasInvalidated(t *testing.T) {
	for name, test := range map[string]struct {
		invalidate func(context.Context, *isr.Site) error
		want       string // with InheritStale
		onError    string // while the database is down
	}{
		"purged":          {func(ctx context.Context, s *isr.Site) error { return s.Purge(ctx, "http://example.com/") }, "200 new / 100ms", "500 no database\n 100ms"},
		"everything gone": {func(ctx context.Context, s *isr.Site) error { return s.Purge(ctx, "/*") }, "200 new / 100ms", "500 no database\n 100ms"},
		"tag purged":      {func(ctx context.Context, s *isr.Site) error { return s.PurgeTag(ctx, "blog") }, "200 new / 100ms", "500 no database\n 100ms"},
		"tag expired":     {func(ctx context.Context, s *isr.Site) error { return s.ExpireTag(ctx, "blog") }, "200 new / 100ms", "200 old / 100ms"},
		"tag revalidated": {func(ctx context.Context, s *isr.Site) error { return s.RevalidateTag(ctx, "blog") }, "200 old / 0s", "200 old / 0s"},
	} {
		for _, down := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " down ", down), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					in := fleet(t, memory.New(), isr.Options{Default: isr.Route{Tags: []string{"blog"}}})
					old := in.deploy(&build{name: "old"}, isr.InheritNothing)
					get(old, "/")
					synctest.Wait()
					b := &build{name: "new"}
					b.down.Store(down)
					site := in.deploy(b, isr.InheritStale)
					if err := test.invalidate(t.Context(), old); err != nil {
						t.Fatal(err)
					}
					want := test.want
					if down {
						want = test.onError
					}
					if got := visited(site, "/"); got != want {
						t.Errorf("%s, want %s", got, want)
					}
					time.Sleep(time.Second)
				})
			})
		}
	}
}

// What this build knows to be gone, or not to be public, no other build's page stands for:
// not in the next one either, and not where the old one comes back.
func TestInheritNothingThatIsGone(t *testing.T) {
	for name, answer := range map[string]func(w http.ResponseWriter){
		"404": func(w http.ResponseWriter) { w.WriteHeader(http.StatusNotFound) },
		"410": func(w http.ResponseWriter) { w.WriteHeader(http.StatusGone) },
		"404, no-store": func(w http.ResponseWriter) {
			w.Header().Set("Cache-Control", "no-store")
			w.WriteHeader(http.StatusNotFound)
		},
		"private": func(w http.ResponseWriter) { w.Header().Set("Cache-Control", "private") },
		"login":   func(w http.ResponseWriter) { w.Header().Set("Location", "/login"); w.WriteHeader(http.StatusFound) },
	} {
		for _, inherit := range []isr.Inherit{isr.InheritNothing, isr.InheritOnError, isr.InheritStale} {
			t.Run(fmt.Sprint(name, " ", inherit), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					in := fleet(t, memory.New(), isr.Options{Default: isr.Route{TTL: time.Hour}})
					get(in.deploy(&build{name: "one"}, isr.InheritNothing), "/")
					two := &build{name: "two", also: func(w http.ResponseWriter, r *http.Request) bool { answer(w); return true }}
					site := in.deploy(two, inherit)
					for range 3 {
						get(site, "/")
						time.Sleep(time.Second)
					}
					calls := two.calls.Load()
					if get(site, "/"); (name == "404" || name == "410") && two.calls.Load() != calls {
						t.Error("the 404 is not kept")
					}
					for _, version := range []string{"three", "one"} {
						b := &build{name: version}
						b.down.Store(true)
						if got := get(in.deploy(b, isr.InheritStale), "/").StatusCode; got != http.StatusInternalServerError {
							t.Errorf("%s shows what is gone: %d", version, got)
						}
					}
				})
			})
		}
	}
}

// A 404 that both builds know takes nothing away from either, however often it is made.
func TestInheritOfWhatIsNowhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &faultyStore{Store: memory.New()}
		in := fleet(t, st, isr.Options{Default: isr.Route{NotFoundTTL: time.Second}})
		missing := func(w http.ResponseWriter, r *http.Request) bool { http.NotFound(w, r); return true }
		one, two := in.deploy(&build{name: "one", also: missing}, isr.InheritStale), in.deploy(&build{name: "two", also: missing}, isr.InheritStale)
		for range 10 {
			get(one, "/")
			get(two, "/")
			time.Sleep(2 * time.Second)
		}
		if n := st.count("invalidate"); n != 0 {
			t.Errorf("%d invalidations", n)
		}
	})
}

// The handler of a new build is not asked whether the page of the old one is still good:
// its data may be the same where its template is another.
func TestInheritIsUnconditional(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{Default: isr.Route{TTL: time.Minute}})
		tagged := func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("ETag", `"of the data"`)
			if r.Header.Get("If-None-Match") != "" {
				w.WriteHeader(http.StatusNotModified)
				return true
			}
			return false
		}
		get(in.deploy(&build{name: "old", also: tagged}, isr.InheritNothing), "/")
		synctest.Wait()
		site := in.deploy(&build{name: "new", also: tagged}, isr.InheritStale)
		get(site, "/")
		time.Sleep(time.Second)
		if got, want := visited(site, "/"), "200 new / 0s"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	})
}

// Paths that a PrerenderedOnly route of another build has are known, and no others.
func TestInheritPrerenderedOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{Origin: "http://example.com", Default: isr.Route{PrerenderedOnly: true}})
		for range in.deploy(&build{name: "old"}, isr.InheritNothing).Prerender(t.Context(), slices.Values([]string{"/known"})) {
		}
		synctest.Wait()
		site := in.deploy(&build{name: "new"}, isr.InheritOnError)
		for path, want := range map[string]int{"/known": 200, "/unknown": 404} {
			if got := get(site, path).StatusCode; got != want {
				t.Errorf("%s: %d, want %d", path, got, want)
			}
		}
	})
}

// A manifest that is damaged is a miss, which is said once; nobody waits, and the next
// write mends it.
func TestDamagedManifest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &damagingStore{Store: memory.New()}
		in := fleet(t, st, isr.Options{})
		get(in.deploy(&build{name: "old"}, isr.InheritNothing), "/")
		synctest.Wait()
		st.damage.Store(true)
		site := in.deploy(&build{name: "new"}, isr.InheritStale)
		if got, want := visited(site, "/"), "200 new / 100ms"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
		for path, err := range site.Warm(t.Context()) {
			if path != "" || err == nil {
				t.Errorf("%q, %v", path, err)
			}
		}
		time.Sleep(10 * time.Minute)
		if n := site.Stats().StoreErrors; n != 1 {
			t.Errorf("said %d times", n)
		}
		st.damage.Store(false)
		for range 10 {
			get(site, "/")
			time.Sleep(time.Minute)
		}
		if diff := cmp.Diff(map[string]string{"/": ""}, warmed(t, site)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// A damagingStore damages manifests when they are read.
type damagingStore struct {
	store.Store
	damage atomic.Bool
}

func (s *damagingStore) Look(ctx context.Context, key string, have store.Ticket, ttl time.Duration) (*store.Record, store.Effect, store.Ticket, error) {
	rec, effect, t, err := s.Store.Look(ctx, key, have, ttl)
	if rec != nil && isManifest(rec) && s.damage.Load() {
		rec.Data = slices.Clone(rec.Data)
		rec.Data[len(rec.Data)/2] ^= 1
	}
	return rec, effect, t, err
}

// While the Store is down no visitor of a new build waits for it longer than for a page,
// and what it has of other builds is used when it is back.
func TestInheritOfAStoreThatIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &faultyStore{Store: memory.New()}
		in := fleet(t, st, isr.Options{})
		old := in.deploy(&build{name: "old"}, isr.InheritNothing)
		get(old, "/1")
		get(old, "/2")
		synctest.Wait()
		st.set(down)
		site := in.deploy(&build{name: "new"}, isr.InheritStale)
		if got, want := visited(site, "/1"), "200 new /1 100ms"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
		for path, err := range site.Warm(t.Context()) {
			if path != "" || err == nil {
				t.Errorf("%q, %v", path, err)
			}
		}
		st.set(nil)
		time.Sleep(2 * time.Minute)
		if got, want := visited(site, "/2"), "200 old /2 0s"; got != want {
			t.Errorf("when it is back %s, want %s", got, want)
		}
		time.Sleep(time.Second)
	})
}

// warmed warms a site, and returns what it yields.
func warmed(t *testing.T, site *isr.Site) map[string]string {
	t.Helper()
	got := make(map[string]string)
	for path, err := range site.Warm(t.Context()) {
		got[path] = ""
		if err != nil {
			got[path] = err.Error()
		}
	}
	return got
}

// Warm generates what the last build was asked for, most asked for first, in each variant:
// then no visitor waits, and the second instance makes nothing. So it is when the old build
// comes back.
func TestWarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{
			Origin: "https://example.com", MaxRegenerations: 1,
			Routes: map[string]isr.Route{
				"/{$}":     {TTL: time.Hour, Vary: []string{"Accept-Language"}, VaryCookies: []string{"theme"}},
				"/secret/": {TTL: time.Hour, Vary: []string{"Authorization"}},
				"/known/":  {TTL: time.Hour, PrerenderedOnly: true},
			},
			Default: isr.Route{TTL: time.Hour},
		})
		one := in.deploy(&build{name: "one", also: func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path == "/nowhere" {
				http.NotFound(w, r)
			}
			return r.URL.Path == "/nowhere"
		}}, isr.InheritNothing)
		for range one.Prerender(t.Context(), slices.Values([]string{"/known/1"})) {
		}
		visits := []struct {
			n      int
			target string
			header []string
		}{
			{9, "/", []string{"Accept-Language", "de", "Cookie", "theme=dark; id=1"}},
			{7, "/post?id=7", nil},
			{5, "/", nil},
			{4, "/known/1", nil},
			{3, "/gone", nil},
			{2, "/now-bypassed", nil},
			{20, "/nowhere", nil},
			{20, "/secret/", []string{"Authorization", "Bearer x"}},
			{1, "/once", nil}, // which is no hit
		}
		for _, v := range visits {
			for range v.n {
				get(one, v.target, v.header...)
			}
		}
		time.Sleep(2 * time.Minute) // and then the power fails: there is no Shutdown

		in.opts.Routes = maps.Clone(in.opts.Routes)
		in.opts.Routes["/now-bypassed"] = isr.Route{Bypass: isr.Always}
		two := &build{name: "two", also: func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path == "/gone" {
				http.NotFound(w, r)
			}
			return r.URL.Path == "/gone"
		}}
		site := in.deploy(two, isr.InheritNothing)
		var order []string
		for path, err := range site.Warm(t.Context()) {
			order = append(order, path)
			if err != nil {
				t.Error(err)
			}
		}
		want := []string{"/", "/post?id=7", "/", "/known/1", "/gone"}
		if diff := cmp.Diff(want, order); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		calls := two.calls.Load()
		second := in.deploy(two, isr.InheritNothing)
		warmed(t, second)
		for _, site := range []*isr.Site{site, second} {
			for _, v := range visits[:5] {
				if res := get(site, v.target, v.header...); !strings.HasPrefix(res.Header.Get("Cache-Status"), "isr; hit; ttl=") {
					t.Errorf("%s %v: %s", v.target, v.header, res.Header.Get("Cache-Status"))
				}
			}
		}
		if n := two.calls.Load() - calls; n > 1 { // of the 404, whose path was purged with the other build's page
			t.Errorf("%d runs of what was made", n)
		}
		back := &build{name: "one"}
		again := in.deploy(back, isr.InheritNothing)
		warmed(t, again)
		if n := back.calls.Load(); n > 1 { // of what the other build has found gone
			t.Errorf("a rollback makes %d pages anew", n)
		}
		if got, want := visited(again, "/post?id=7"), "200 one /post?id=7 0s"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	})
}

// Warm makes the pages of each host, and of what a ServeMux around the Site has matched.
func TestWarmOfHostsAndPatterns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{})
		h := func(version string) (*isr.Site, http.Handler) {
			in.opts.Version = version
			site := in.start(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				fmt.Fprint(w, version, " ", r.Host, " ", r.TLS != nil, " ", r.PathValue("id"))
			}))
			mux := http.NewServeMux()
			mux.Handle("/blog/{id}", site)
			mux.Handle("/", site)
			return site, mux
		}
		site, mux := h("1")
		visits := []string{"http://a.example/", "http://b.example/", "http://a.example/blog/7", "https://a.example/"}
		for _, url := range visits {
			get(mux, url)
			get(mux, url)
		}
		site.Shutdown(t.Context())
		site, mux = h("2")
		if got := warmed(t, site); len(got) != 2 {
			t.Errorf("%q", got)
		}
		for _, url := range visits {
			res := get(mux, url)
			if got := read(res); !strings.HasPrefix(got, "2 ") || res.Header.Get("Cache-Status") != "isr; hit" {
				t.Errorf("%s: %q, %s", url, got, res.Header.Get("Cache-Status"))
			}
		}
		if got := body(mux, "http://a.example/blog/7"); got != "2 a.example false 7" {
			t.Errorf("%q", got)
		}
	})
}

// Each instance writes what it is asked for at most once a minute, and not at all where
// nobody asks for anything.
func TestManifestIsWrittenOnceAMinute(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := &faultyStore{Store: memory.New()}
		in := fleet(t, st, isr.Options{Version: "one"})
		h := &build{name: "one"}
		sites := []*isr.Site{in.start(h), in.start(h), in.start(h)}
		if n := st.count("put manifest"); n != 1 {
			t.Errorf("%d writes at the beginning, want 1 of the build's name", n)
		}
		for range 30 {
			for i, site := range sites {
				for range i + 2 {
					get(site, fmt.Sprint("/", i))
				}
			}
			time.Sleep(time.Minute)
		}
		if n := st.count("put manifest"); n < 30 || n > 1+3*30 {
			t.Errorf("%d writes of 3 instances in 30 minutes", n)
		}
		time.Sleep(time.Hour)
		before := st.count("put manifest")
		time.Sleep(time.Hour)
		if n := st.count("put manifest") - before; n != 0 {
			t.Errorf("%d writes where nobody asks for anything", n)
		}
	})
}

// Without a Store, Inherit means nothing, and Warm says so.
func TestWarmWithoutAStore(t *testing.T) {
	site := isr.Wrap(&build{name: "one"}, isr.Options{Inherit: isr.InheritStale})
	get(site, "/")
	want := map[string]string{"": "isr: warm: there is no Store that knows what was asked for"}
	if diff := cmp.Diff(want, warmed(t, site)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, mode := range []isr.Mode{isr.Off, isr.Develop} {
		if got := warmed(t, isr.Wrap(&build{}, isr.Options{Mode: mode})); len(got) > 0 {
			t.Errorf("mode %d: %q", mode, got)
		}
	}
}

// Every page of the Store that is shown stale is renewed behind its visitor: the run that
// has found it may have ended before they are shown it.
func TestStaleOfTheStoreIsRenewed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{})
		old := in.deploy(&build{name: "old"}, isr.InheritNothing)
		for i := range 1000 {
			get(old, fmt.Sprint("/", i))
		}
		synctest.Wait()
		site := in.deploy(&build{name: "new"}, isr.InheritStale)
		for i := range 1000 {
			get(site, fmt.Sprint("/", i))
			time.Sleep(time.Second)
			if got, want := visited(site, fmt.Sprint("/", i)), fmt.Sprintf("200 new /%d 0s", i); got != want {
				t.Errorf("%s, want %s", got, want)
			}
		}
	})
}

// A page that is stale from the beginning is made once, with a Store too: who waits for it
// gets what was made for them, and nothing is renewed behind that.
func TestStaleFromTheBeginning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{})
		var made atomic.Int64
		site := in.start(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			made.Add(1)
			w.Header().Set("Cache-Control", "max-age=0, stale-while-revalidate=60")
		}))
		const n = 300
		for i := range n {
			if got, want := get(site, fmt.Sprint("/", i)).Header.Get("Cache-Status"), "isr; fwd=uri-miss; stored; detail=stale"; got != want {
				t.Fatalf("Cache-Status %q, want %q", got, want)
			}
			synctest.Wait()
		}
		if got := made.Load(); got != n {
			t.Errorf("%d pages are made %d times", n, got)
		}
	})
}
