package isr_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/isr-go/isr"
)

// There is one event and one log line for each outcome.
func TestObserve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		fails := false
		c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			time.Sleep(time.Second)
			if fails {
				panic("no database")
			}
			w.WriteHeader(http.StatusOK)
		}}
		site := isr.Wrap(c, isr.Options{
			Routes: map[string]isr.Route{
				"/blog/{id}": {TTL: 10 * time.Second, Tags: []string{"blog"}},
				"/account/":  {Bypass: isr.Always},
			},
			Observe: j.observe,
			Logger:  j.logger(slog.LevelDebug),
		})
		for _, test := range []struct {
			do     func()
			events []string
			log    []string
		}{
			{
				func() { get(site, "/blog/1?x=secret") },
				[]string{"generated /blog/1 /blog/{id} 200 1s <nil>", "miss /blog/1 /blog/{id} 200 1s <nil>"},
				[]string{
					"level=INFO msg=isr outcome=generated path=/blog/1 route=/blog/{id} status=200 duration=1s",
					"level=DEBUG msg=isr outcome=miss path=/blog/1 route=/blog/{id} status=200 duration=1s",
				},
			},
			{
				func() { time.Sleep(2 * time.Second); get(site, "/blog/1?x=secret") },
				[]string{"hit /blog/1 /blog/{id} 200 0s <nil>"},
				[]string{"level=DEBUG msg=isr outcome=hit path=/blog/1 route=/blog/{id} status=200 age=2s duration=0s"},
			},
			{
				func() {
					fails = true
					time.Sleep(9 * time.Second)
					get(site, "/blog/1?x=secret")
					time.Sleep(time.Second)
				},
				[]string{"stale /blog/1 /blog/{id} 200 0s <nil>", "failed /blog/1 /blog/{id} 500 1s the handler panicked: no database"},
				[]string{
					"level=DEBUG msg=isr outcome=stale path=/blog/1 route=/blog/{id} status=200 age=11s duration=0s",
					`level=ERROR msg=isr outcome=failed path=/blog/1 route=/blog/{id} status=500 duration=1s error="the handler panicked: no database"`,
				},
			},
			{
				func() { recovered(func() { get(site, "/") }) },
				[]string{"failed /  500 1s the handler panicked: no database", "miss /  500 1s the handler panicked: no database"},
				[]string{
					`level=ERROR msg=isr outcome=failed path=/ route="" status=500 duration=1s error="the handler panicked: no database"`,
					`level=DEBUG msg=isr outcome=miss path=/ route="" status=500 duration=1s error="the handler panicked: no database"`,
				},
			},
			{
				func() { fails = false; get(site, "/account/") },
				[]string{"passed /account/ /account/ 0 1s <nil>"},
				[]string{"level=DEBUG msg=isr outcome=passed path=/account/ route=/account/ duration=1s"},
			},
			{
				func() { do(site, "POST", "/blog/1") },
				[]string{"revalidated /blog/1  0 0s <nil>", "passed /blog/1  200 1s <nil>"},
				[]string{
					`level=INFO msg=isr outcome=revalidated path=/blog/1 route=""`,
					`level=DEBUG msg=isr outcome=passed path=/blog/1 route="" status=200 duration=1s`,
				},
			},
			{
				func() { site.RevalidateTag(context.Background(), "blog"); site.Purge(context.Background(), "/blog/1") },
				[]string{"revalidated blog  0 0s <nil>", "purged /blog/1 /blog/{id} 0 0s <nil>"},
				[]string{
					`level=INFO msg=isr outcome=revalidated tag=blog route=""`,
					`level=INFO msg=isr outcome=purged path=/blog/1 route=/blog/{id}`,
				},
			},
		} {
			test.do()
			synctest.Wait()
			events, log := j.taken()
			if diff := cmp.Diff(test.events, events); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(test.log, strings.Split(strings.TrimSuffix(log, "\n"), "\n")); diff != "" {
				t.Errorf("log (-want +got):\n%s", diff)
			}
		}
		want := isr.Stats{Hits: 1, Stale: 1, Misses: 2, Passed: 2, Generated: 1, Failed: 2}
		if diff := cmp.Diff(want, site.Stats()); diff != "" {
			t.Errorf("stats (-want +got):\n%s", diff)
		}
	})
}

// At Info the log has no hits.
func TestLogLevels(t *testing.T) {
	var j journal
	site := isr.Wrap(new(countingHandler), isr.Options{Logger: j.logger(slog.LevelInfo)})
	get(site, "/")
	get(site, "/")
	if _, log := j.taken(); log != "level=INFO msg=isr outcome=generated path=/ route=\"\" status=200 duration="+after(log, "duration=") {
		t.Errorf("log at Info:\n%s", log)
	}
}

func after(s, sep string) string {
	_, rest, _ := strings.Cut(s, sep)
	return rest
}

// A page that is not stored is logged as a warning with the remedy, once, where the
// developer can remedy it; a reason that the developer has set is no warning.
func TestWarnsWithTheRemedy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			if strings.HasPrefix(r.URL.Path, "/varies") {
				w.Header().Set("Vary", "Accept-Language")
			} else {
				w.Header().Set("Cache-Control", "private")
			}
		}}
		site := isr.Wrap(c, isr.Options{Logger: j.logger(slog.LevelWarn)})
		for range 3 {
			get(site, "/varies")
			get(site, "/varies/2")
			get(site, "/private")
			time.Sleep(time.Minute)
		}
		_, log := j.taken()
		want := `level=WARN msg="isr: the page is not stored, because it varies on Accept-Language" path=/varies route="" remedy="add it to Route.Vary"` + "\n"
		if diff := cmp.Diff(want, log); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// Events name their page, and what has become of it.
func TestEventFields(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var events []isr.Event
		text, fails := "one", false
		c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			if fails {
				w.WriteHeader(500)
				return
			}
			w.Header().Set("Cache-Tag", "a")
			if r.Method == http.MethodPost {
				w.Header().Set("Location", "/c")
				w.Header().Set("Cache-Group-Invalidation", `"group"`)
				w.WriteHeader(201)
			}
			fmt.Fprint(w, text)
		}}
		opts := isr.Options{
			Default: isr.Route{Tags: []string{"t"}},
			Observe: func(e isr.Event) {
				mu.Lock()
				defer mu.Unlock()
				e.Err = nil
				events = append(events, e)
			},
		}
		check := func(site *isr.Site, what string, f func(), want ...isr.Event) {
			t.Helper()
			f()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if diff := cmp.Diff(want, events); diff != "" {
				t.Errorf("%s (-want +got):\n%s", what, diff)
			}
			events = nil
		}
		for host, origin := range map[string]string{"example.com": "https://example.com", "example.org": ""} {
			fails, text = false, "one"
			opts.Origin = origin
			site := isr.Wrap(c, opts)
			scheme := "https"
			if origin == "" {
				scheme = "http"
			}
			visit := func() { get(site, "http://example.org/%61?utm_source=x&q=1") }
			about := func(e isr.Event) isr.Event {
				e.Host, e.Path, e.Query = host, "/a", "q=1"
				return e
			}
			tags := []string{"t", "a"}
			made := about(isr.Event{Kind: isr.Generated, Status: 200, Tags: tags, Changed: true})
			same := about(isr.Event{Kind: isr.Generated, Status: 200, Tags: tags})
			named := about(isr.Event{Kind: isr.Revalidated})
			revalidate := func() { site.Revalidate(t.Context(), scheme+"://"+host+"/a?q=1&fbclid=y") }
			check(site, "the first visit", visit, made, about(isr.Event{Kind: isr.Miss, Status: 200, Tags: tags}))
			check(site, "a hit", visit, about(isr.Event{Kind: isr.Hit, Status: 200, Tags: tags}))
			check(site, "renewed as it was", revalidate, named, same)
			text = "two"
			check(site, "renewed", revalidate, named, made)
			fails = true
			check(site, "failed", revalidate, named, about(isr.Event{Kind: isr.Failed, Status: 500, Tags: tags}))
			check(site, "a tag", func() { site.PurgeTag(t.Context(), "none") }, isr.Event{Kind: isr.Purged, Tag: "none"})
			check(site, "a path", func() { site.Purge(t.Context(), "/a") }, isr.Event{Kind: isr.Purged, Host: strings.TrimPrefix(origin, "https://"), Path: "/a"})
			check(site, "passed", func() { do(site, "PUT", "http://example.org/b?token=secret") }, isr.Event{Kind: isr.Passed, Host: host, Path: "/b", Status: 500})
			fails = false
			check(site, "visits", func() { visit(); get(site, "http://example.org/c") }, made, about(isr.Event{Kind: isr.Miss, Status: 200, Tags: tags}),
				isr.Event{Kind: isr.Generated, Host: host, Path: "/c", Status: 200, Tags: tags, Changed: true},
				isr.Event{Kind: isr.Miss, Host: host, Path: "/c", Status: 200, Tags: tags})
			check(site, "changed", func() { do(site, "POST", "http://Example.org:80/%61?q=1") },
				isr.Event{Kind: isr.Revalidated, Host: host, Path: "/a"},
				isr.Event{Kind: isr.Revalidated, Host: host, Path: "/c"},
				isr.Event{Kind: isr.Revalidated, Tag: "group"},
				isr.Event{Kind: isr.Passed, Host: host, Path: "/%61", Status: 201}) // as it was sent
		}
	})
}

// An Observe that panics does not block the page for later visitors.
func TestObservePanics(t *testing.T) {
	var once sync.Once
	site := isr.Wrap(new(countingHandler), isr.Options{Observe: func(e isr.Event) {
		if e.Kind == isr.Generated {
			once.Do(func() { panic("mistake") })
		}
	}})
	get(site, "/")
	if got := site.Stats().Generating; got != 0 {
		t.Errorf("%d generations under way", got)
	}
	if got := get(site, "/").Header.Get("Cache-Status"); got != "isr; hit" {
		t.Errorf("Cache-Status %q", got)
	}
}

// Pages lists what is stored, with all that is known of it.
func TestPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		fails := false
		c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			time.Sleep(time.Second)
			h := w.Header()
			h.Set("Content-Type", "text/plain")
			h.Set("Etag", `"v1"`)
			h.Set("Cache-Tag", "a, b,blog, a")
			if r.URL.Path == "/private" {
				h.Set("Cache-Control", "private")
			}
			if fails {
				w.WriteHeader(503)
			}
			io.WriteString(w, "page")
		}}
		site := isr.Wrap(c, isr.Options{Routes: map[string]isr.Route{
			"/blog/{id}": {TTL: 10 * time.Second, Tags: []string{"blog"}, Vary: []string{"Accept-Language"}, StaleWhileRevalidate: -1},
		}})
		get(site, "/blog/1?b=2&a=1", "Accept-Language", "de")
		get(site, "/blog/1?b=2&a=1", "Accept-Language", "de")
		get(site, "/private")
		fails = true
		time.Sleep(9 * time.Second)
		get(site, "/blog/1?b=2&a=1", "Accept-Language", "de")

		got := slices.Collect(site.Pages())
		want := []isr.Page{
			{
				Scheme: "http", Host: "example.com", Path: "/blog/1", Query: "a=1&b=2", Route: "/blog/{id}",
				Varied: http.Header{"Accept-Language": {"de"}},
				Header: http.Header{
					"Content-Type": {"text/plain"}, "Content-Length": {"4"}, "Etag": {`"v1"`}, "Vary": {"Accept-Language"},
					"Accept-Ranges": {"bytes"}, "Cache-Control": {"public, max-age=0, s-maxage=10"},
				},
				Status: 200, State: isr.Expired, Generated: begin.Add(time.Second), TTL: 10 * time.Second, Duration: time.Second,
				Tags: []string{"blog", "a", "b"}, ETag: `"v1"`, Hits: 1, Failures: 1,
			},
		}
		if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(isr.Page{}, "Size", "Err"), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if p := got[0]; p.Size < 500 || fmt.Sprint(p.Err) != "the handler answered 503 Service Unavailable" {
			t.Errorf("size %d, err %v", p.Size, p.Err)
		}
		if p := pages(site)["/blog/1?a=1&b=2"]; p.Size >= site.Stats().Bytes || site.Stats().Pages != 2 {
			t.Errorf("a page of %d bytes; %+v", p.Size, site.Stats())
		}
		for range site.Pages() {
			break // may be left early
		}
	})
}

// Pages lists a hit-for-pass with the reason why the page is not stored.
func TestPagesListHitForPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.SetCookie(w, &http.Cookie{Name: "session", Value: "1"})
		}), isr.Options{})
		get(site, "/")
		p := pages(site)["/"]
		if p.State != isr.Uncacheable || p.NotStored != "sets a cookie: set it in middleware outside of isr, or set Route.Bypass" || p.TTL != 10*time.Second || p.Status != 0 {
			t.Errorf("%+v", p)
		}
		time.Sleep(10 * time.Second)
		if n := len(pages(site)); n != 0 {
			t.Errorf("%d pages after its time", n)
		}
	})
}

// State and Kind print as lower-case words.
func TestStateString(t *testing.T) {
	for state, want := range map[isr.State]string{
		isr.Fresh: "fresh", isr.Stale: "stale", isr.Expired: "expired", isr.Uncacheable: "uncacheable", 42: "State(42)",
	} {
		if got := state.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	for kind, want := range map[isr.Kind]string{isr.Hit: "hit", isr.StaleHit: "stale", isr.StoreFailed: "store failed", 42: "Kind(42)"} {
		if got := kind.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
