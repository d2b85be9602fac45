package isr_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/edge"
	"github.com/isr-go/isr/store"
	"github.com/isr-go/isr/store/memory"
)

// A cdn is a cache in front of a handler, which is an Edge of its Sites.
type cdn struct {
	origin http.Handler

	mu      sync.Mutex
	pages   map[string]*cdnPage
	refuse  bool          // to take tags
	down    bool          // for Tell
	latency time.Duration // of the origin's answer
	told    []string
	marks   int
}

type cdnPage struct {
	body  string
	tags  []string
	until time.Time
	soft  bool
}

func newCDN() *cdn { return &cdn{pages: make(map[string]*cdnPage)} }

func (c *cdn) String() string { return "cdn" }

func (c *cdn) Mark(h http.Header, tags []string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.marks++
	if c.refuse {
		return false
	}
	if h["Cdn-Cache-Control"] == nil {
		_, seconds, _ := strings.Cut(h.Get("Cache-Control"), "s-maxage=")
		h["Cdn-Cache-Control"] = []string{"max-age=" + seconds}
	}
	return edge.WriteTokens(h, "Cdn-Tags", ",", 8000, tags)
}

func (c *cdn) Tell(ctx context.Context, effect store.Effect, tags []string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.told = append(c.told, fmt.Sprint(effect, " ", len(tags)))
	if c.down {
		return errors.New("cdn: 503")
	}
	for url, p := range c.pages {
		for _, tag := range tags {
			if !slices.Contains(p.tags, edge.Token(tag)) {
				continue
			}
			if effect == store.Stale {
				p.soft = true
			} else {
				delete(c.pages, url)
			}
		}
	}
	return nil
}

func (c *cdn) set(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

// get answers a visitor. A page that is stale is shown once more.
func (c *cdn) get(url string) string {
	c.mu.Lock()
	latency := c.latency
	p := c.pages[url]
	c.mu.Unlock()
	if p != nil && time.Now().Before(p.until) && !p.soft {
		return p.body
	}
	w := httptest.NewRecorder()
	c.origin.ServeHTTP(w, httptest.NewRequest("GET", url, nil))
	time.Sleep(latency)
	h := w.Header()
	control := h.Get("Cdn-Cache-Control")
	if control == "" {
		_, seconds, _ := strings.Cut(h.Get("Cache-Control"), "s-maxage=")
		control = "max-age=" + seconds
	}
	var ttl, age int
	fmt.Sscanf(control, "max-age=%d", &ttl)
	fmt.Sscan(h.Get("Age"), &age)
	c.mu.Lock()
	defer c.mu.Unlock()
	if ttl > age && !strings.Contains(h.Get("Cache-Control"), "private") {
		c.pages[url] = &cdnPage{body: w.Body.String(), tags: strings.Split(h.Get("Cdn-Tags"), ","), until: time.Now().Add(time.Duration(ttl-age) * time.Second)}
	}
	return w.Body.String()
}

// A desk has an application, a Site and a cdn in front of it.
type desk struct {
	*cdn
	site *isr.Site

	mu       sync.Mutex
	version  map[string]int // of what is at a path
	requests int
	wrong    bool // whether generations fail
}

// newDesk is to be closed before its bubble ends.
func newDesk(opts isr.Options) *desk {
	d := &desk{cdn: newCDN(), version: make(map[string]int)}
	opts.Edge, opts.Origin = d.cdn, "https://example.com"
	d.site = isr.Wrap(d, opts)
	d.origin = d.site
	return d
}

func (d *desk) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.requests++
	if d.wrong {
		http.Error(w, "broken", http.StatusInternalServerError)
		return
	}
	if r.Method == http.MethodPost {
		d.version[r.URL.Path]++
		w.WriteHeader(http.StatusSeeOther)
		return
	}
	w.Header().Set("Cache-Tag", "its"+strings.ReplaceAll(r.URL.Path, "/", "-"))
	fmt.Fprintf(w, "%s %d", r.URL.Path, d.version[r.URL.Path])
}

func (d *desk) edit(path string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.version[path]++
}

func (d *desk) close(t *testing.T) {
	t.Helper()
	if err := d.site.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

// With an Edge that is told, an edit is one for the reader: whatever names the page, once
// it has returned nil nobody gets what is older, though it may be kept for ever.
func TestEdgeIsTold(t *testing.T) {
	const path = "/blog/1"
	for name, edit := range map[string]func(*isr.Site, context.Context) error{
		"Revalidate":           func(s *isr.Site, ctx context.Context) error { return s.Revalidate(ctx, path) },
		"Revalidate of a URL":  func(s *isr.Site, ctx context.Context) error { return s.Revalidate(ctx, "https://example.com"+path) },
		"Expire":               func(s *isr.Site, ctx context.Context) error { return s.Expire(ctx, path) },
		"Purge":                func(s *isr.Site, ctx context.Context) error { return s.Purge(ctx, path) },
		"Purge with a query":   func(s *isr.Site, ctx context.Context) error { return s.Purge(ctx, path+"?a=b") },
		"Purge of a prefix":    func(s *isr.Site, ctx context.Context) error { return s.Purge(ctx, "/blog/*") },
		"Expire of everything": func(s *isr.Site, ctx context.Context) error { return s.Expire(ctx, "/*") },
		"the route's tag":      func(s *isr.Site, ctx context.Context) error { return s.ExpireTag(ctx, "blog") },
		"the handler's tag":    func(s *isr.Site, ctx context.Context) error { return s.PurgeTag(ctx, "its-blog-1") },
	} {
		for _, fleet := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				o := isr.Options{Routes: map[string]isr.Route{"/blog/{id}": {Tags: []string{"blog"}}}}
				if fleet {
					o.Store = memory.New()
				}
				d := newDesk(o)
				defer d.close(t)
				url := path
				if strings.Contains(name, "query") {
					url += "?a=b"
				}
				d.get(url)
				d.get("/other")
				if fleet {
					time.Sleep(time.Hour)
				} else {
					time.Sleep(200 * 24 * time.Hour)
				}
				seen := d.requests
				if got := d.get(url); got != path+" 0" || d.requests != seen {
					t.Fatalf("%s: before the edit %q, %d requests", name, got, d.requests-seen)
				}
				d.edit(path)
				begin := time.Now()
				if err := edit(d.site, t.Context()); err != nil {
					t.Error(err)
				}
				if took := time.Since(begin); took < 100*time.Millisecond || (took > time.Second) != fleet || took > 2*time.Second {
					t.Errorf("%s: it takes %v", name, took)
				}
				for range 3 {
					if got := d.get(url); got != path+" 1" {
						t.Errorf("%s: after the edit %q", name, got)
					}
					time.Sleep(time.Second)
				}
			})
		}
	}
}

// RevalidateTag is the soft purge: the Site shows the page once more, and renews it.
func TestEdgeSoftPurge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(isr.Options{})
		defer d.close(t)
		d.get("/a")
		d.edit("/a")
		if err := d.site.RevalidateTag(t.Context(), "its-a"); err != nil {
			t.Error(err)
		}
		first := d.get("/a")
		synctest.Wait()
		if second := d.get("/a"); first != "/a 0" || second != "/a 1" {
			t.Errorf("%q, then %q", first, second)
		}
	})
}

// What the Edge has asked for when it is told, and gets after that, is told once more.
func TestEdgeIsToldOnceMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(isr.Options{})
		defer d.close(t)
		d.set(func() { d.latency = 5 * time.Second })
		go d.get("/a")
		time.Sleep(time.Second)
		d.edit("/a")
		if err := d.site.Purge(t.Context(), "/a"); err != nil {
			t.Error(err)
		}
		d.set(func() { d.latency = 0 })
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if got := d.get("/a"); got != "/a 1" {
			t.Errorf("30 seconds after the purge: %q", got)
		}
	})
}

// An Edge that does not answer is an error to who has edited, and a debt; it is told also
// where the page could not be generated.
func TestEdgeFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var events []isr.Event
		var mu sync.Mutex
		d := newDesk(isr.Options{Observe: func(e isr.Event) {
			if e.Kind == isr.EdgeFailed {
				mu.Lock()
				defer mu.Unlock()
				events = append(events, e)
			}
		}})
		defer d.close(t)
		d.get("/a")
		d.set(func() { d.down = true })
		d.edit("/a")
		err := d.site.Revalidate(t.Context(), "/a")
		if err == nil || !strings.Contains(err.Error(), "cdn: 503") {
			t.Errorf("%v", err)
		}
		if got := d.get("/a"); got != "/a 0" {
			t.Errorf("%q, and the cdn has not been told", got)
		}
		time.Sleep(time.Minute)
		if st := d.site.Stats(); len(events) == 0 || len(events) > 2 || int(st.EdgeErrors) != len(events) || st.EdgeOwed != 1 || events[0].Err == nil {
			t.Errorf("events %v, stats %+v", events, st)
		}
		d.set(func() { d.down = false })
		time.Sleep(5 * time.Second)
		if got := d.get("/a"); got != "/a 1" || d.site.Stats().EdgeOwed != 0 {
			t.Errorf("5 seconds after the cdn is back: %q", got)
		}

		d.edit("/a")
		d.set(func() { d.told = nil })
		d.mu.Lock()
		d.wrong = true
		d.mu.Unlock()
		if err := d.site.Revalidate(t.Context(), "/a"); err == nil || len(d.told) != 1 {
			t.Errorf("a generation that fails: %v, told %v", err, d.told)
		}
	})
}

// What a visitor's POST changes the Edge is told before they have their answer.
func TestEdgeIsToldOfPosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, known := range []bool{true, false} {
			d := newDesk(isr.Options{MaxBytes: 64 << 10})
			d.get("/a")
			if !known {
				d.site.Purge(t.Context(), "/a") // and the Edge stores it again
				d.pages["/a"] = &cdnPage{body: "/a 0", tags: []string{edge.Token("\x00/a")}, until: time.Now().Add(time.Hour)}
			}
			d.site.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", "/a", nil))
			if got := d.get("/a"); got != "/a 1" {
				t.Errorf("stored here: %v: after the POST %q", known, got)
			}
			d.set(func() { d.down = true })
			begin := time.Now()
			for range 10 {
				d.site.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", "/a", nil))
			}
			if took := time.Since(begin); took > time.Second {
				t.Errorf("ten POSTs wait %v for an Edge that is down", took)
			}
			d.set(func() { d.down = false })
			d.close(t)
		}
	})
}

// When a page becomes private, it goes there, too.
func TestEdgeIsToldOfPrivatePages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		private := false
		c := newCDN()
		site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if private {
				w.Header().Set("Cache-Control", "private")
			} else {
				w.Header().Set("Cache-Control", "s-maxage=3600")
			}
			fmt.Fprint(w, private)
		}), isr.Options{Edge: c})
		c.origin = site
		c.get("/a")
		private = true
		site.Revalidate(t.Context(), "/a")
		synctest.Wait()
		c.mu.Lock()
		c.pages["/a"] = &cdnPage{body: "false", until: time.Now().Add(time.Hour), tags: []string{edge.Token("\x00http://example.com/a?")}}
		c.mu.Unlock()
		time.Sleep(time.Minute)
		if got := c.get("/a"); got != "true" {
			t.Errorf("it is still shown: %q", got)
		}
		site.Shutdown(t.Context())
	})
}

// What goes out with an Edge: the tags and its lifetime for the Edge, SharedMaxAge for all
// others, and private where it does not take the tags. With a Store it is the same in each
// instance, and after a 304.
func TestEdgeMarks(t *testing.T) {
	t.Parallel()
	type answer struct{ control, targeted, age string }
	for name, c := range map[string]struct {
		route  isr.Route
		header http.Header // of the handler
		refuse bool
		age    time.Duration // when it is asked for
		want   answer
	}{
		"for ever":                                      {age: time.Hour, want: answer{"public, max-age=0, s-maxage=60", "max-age=31536000", "0"}},
		"a TTL":                                         {route: isr.Route{TTL: time.Hour}, age: 50 * time.Minute, want: answer{"public, max-age=0, s-maxage=60", "max-age=3600", "3000"}},
		"the handler's":                                 {header: http.Header{"Cache-Control": {"max-age=5, s-maxage=7200"}}, age: time.Hour, want: answer{"max-age=5, s-maxage=7200", "max-age=7200", "3600"}},
		"the handler's, shortened":                      {route: isr.Route{MaxTTL: time.Hour}, header: http.Header{"Cache-Control": {"s-maxage=7200"}}, want: answer{"s-maxage=3600, max-age=0", "max-age=3600", "0"}},
		"the handler's targeted field":                  {header: http.Header{"Cdn-Cache-Control": {"max-age=7"}}, want: answer{"public, max-age=0, s-maxage=60", "max-age=7", "0"}},
		"the route's CacheControl":                      {route: isr.Route{CacheControl: "public, max-age=300"}, want: answer{"public, max-age=300", "max-age=31536000", "0"}},
		"the route says s-maxage":                       {route: isr.Route{CacheControl: "s-maxage=300"}, age: time.Hour, want: answer{"s-maxage=300", "max-age=300", "0"}},
		"the route says private fields":                 {route: isr.Route{CacheControl: `max-age=9, private="X"`}, want: answer{"private, max-age=9", "", "0"}},
		"the route says no-cache fields":                {route: isr.Route{CacheControl: `max-age=9, no-cache="X"`}, want: answer{"private, max-age=9, no-cache", "", "0"}},
		"the route says no-store where it is not known": {route: isr.Route{CacheControl: "max-age=9, must-understand, no-store"}, want: answer{"private, max-age=9, must-understand, no-store", "", "0"}},
		"the route says private":                        {route: isr.Route{CacheControl: "private"}, want: answer{"private", "", "0"}},
		"tags that do not fit":                          {refuse: true, want: answer{"private, max-age=0", "", "0"}},
		"tags that do not fit, its own":                 {header: http.Header{"Cache-Control": {"max-age=9, s-maxage=7200"}, "Cdn-Cache-Control": {"max-age=7"}}, refuse: true, want: answer{"private, max-age=9", "", "0"}},
	} {
		for _, how := range []string{"generated", "by the Store", "renewed"} {
			synctest.Test(t, func(t *testing.T) {
				edgeOf, shared := newCDN(), memory.New()
				edgeOf.refuse = c.refuse
				app := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					for name, values := range c.header {
						w.Header()[name] = slices.Clone(values)
					}
					w.Header().Set("Cache-Tag", "a")
					w.Header().Set("Etag", `"1"`)
					if r.Header.Get("If-None-Match") == `"1"` {
						w.WriteHeader(http.StatusNotModified)
						return
					}
					fmt.Fprint(w, "a page")
				})
				o := isr.Options{Edge: edgeOf, Store: shared, Default: c.route, Origin: "https://example.com"}
				site := isr.Wrap(app, o)
				visit := func() http.Header {
					w := httptest.NewRecorder()
					site.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
					return w.Header()
				}
				visit()
				synctest.Wait()
				switch how {
				case "by the Store":
					site.Shutdown(t.Context())
					site = isr.Wrap(app, o)
					visit()
				case "renewed":
					site.RevalidateTag(t.Context(), "a")
					visit()
					synctest.Wait()
				}
				time.Sleep(c.age)
				h := visit()
				got := answer{h.Get("Cache-Control"), h.Get("Cdn-Cache-Control"), h.Get("Age")}
				if d := cmp.Diff(fmt.Sprint(c.want), fmt.Sprint(got)); d != "" {
					t.Errorf("%s, %s (-want +got):\n%s", name, how, d)
				}
				want := strings.Join([]string{"a", edge.Token("\x00*/"), edge.Token("\x00/"), edge.Token("\x00/?"), edge.Token("\x00")}, ",")
				if c.want.targeted == "" {
					want = ""
				}
				if got := h.Get("Cdn-Tags"); got != want || h["Cache-Tag"] != nil {
					t.Errorf("%s, %s: tags %q, want %q; Cache-Tag %q", name, how, got, want, h["Cache-Tag"])
				}
				for condition, value := range map[string]string{"If-Match": `"2"`, "Range": "bytes=1000-"} { // an error is not the page
					if h := get(site, "/", condition, value).Header; h.Get("Cache-Control") != "no-store" || h["Cdn-Cache-Control"] != nil || h["Cdn-Tags"] != nil {
						t.Errorf("%s, %s: %s fails with %v", name, how, condition, h)
					}
				}
				marks := edgeOf.marks
				visit()
				if edgeOf.marks != marks {
					t.Errorf("%s: a hit is marked", name)
				}
				site.Shutdown(t.Context())
			})
		}
	}
}

// Without an Edge no tag of a page goes out.
func TestNoTagGoesOut(t *testing.T) {
	site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Tag", "a")
		fmt.Fprint(w, "a page")
		if r.URL.Path == "/large" {
			fmt.Fprint(w, strings.Repeat("x", 1<<20))
		}
	}), isr.Options{Default: isr.Route{Tags: []string{"b"}}, MaxPageBytes: 1 << 10})
	for _, path := range []string{"/", "/", "/large"} {
		w := httptest.NewRecorder()
		site.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		if w.Header()["Cache-Tag"] != nil {
			t.Errorf("%q", w.Header())
		}
	}
}

// An Edge is for Mode On alone.
func TestEdgeModes(t *testing.T) {
	for _, mode := range []isr.Mode{isr.Develop, isr.Off} {
		c := newCDN()
		site := isr.Wrap(http.NotFoundHandler(), isr.Options{Edge: c, Mode: mode})
		site.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
		if err := site.Purge(t.Context(), "/"); err != nil || c.marks+len(c.told) > 0 {
			t.Errorf("mode %d: %v, %d marks, told %q", mode, err, c.marks, c.told)
		}
	}
}

// Where the Store has not taken an invalidation, other instances give the Edge old pages. It
// is told once more when they have heard.
func TestEdgeIsToldWhenTheFleetHasHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := memory.New()
		st := &faultyStore{Store: shared}
		d := newDesk(isr.Options{Store: st})
		defer d.close(t)
		other := isr.Wrap(d, isr.Options{Store: shared, Edge: d.cdn, Origin: "https://example.com"})
		defer other.Shutdown(t.Context())
		d.origin = other
		d.get("/a")
		d.edit("/a")
		st.set(down)
		if err := d.site.Purge(t.Context(), "/a"); err == nil {
			t.Error("the Store is down, and there is no error")
		}
		for range 2 {
			if got := d.get("/a"); got != "/a 0" {
				t.Errorf("%q, and the other instance has not heard", got)
			}
			time.Sleep(time.Minute)
		}
		st.set(nil)
		time.Sleep(10 * time.Second)
		if got := d.get("/a"); got != "/a 1" {
			t.Errorf("after the Store is back: %q", got)
		}
	})
}
