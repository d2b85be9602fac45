package isr_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isr-go/isr"
)

// A path stands for all its variants, a path with a query for that one, an absolute URL
// for its host.
func TestRevalidateVariants(t *testing.T) {
	visitors := map[string]*http.Request{
		"plain":  httptest.NewRequest("GET", "/p", nil),
		"q=1":    httptest.NewRequest("GET", "/p?q=1", nil),
		"q=2":    httptest.NewRequest("GET", "/p?utm=x&q=2", nil),
		"german": httptest.NewRequest("GET", "/p", nil),
		"other":  httptest.NewRequest("GET", "/p", nil),
		"secure": httptest.NewRequest("GET", "/p", nil),
	}
	visitors["german"].Header.Set("Accept-Language", "de")
	visitors["other"].Host = "EXAMPLE.org"
	visitors["secure"].Header.Set("X-Forwarded-Proto", "https")
	for _, test := range []struct {
		origin, name string
		want         []string
	}{
		{"", "/p", []string{"german", "other", "plain", "q=1", "q=2", "secure"}},
		{"", "/p?", []string{"german", "other", "plain", "q=1", "q=2", "secure"}},
		{"", "/p?q=1&utm=y", []string{"q=1"}},
		{"", "/p?utm=y", []string{"german", "other", "plain", "secure"}}, // as the key is: without a query
		{"", "http://example.com/p", []string{"german", "plain", "q=1", "q=2"}},
		{"", "http://EXAMPLE.ORG/p", []string{"other"}},
		{"", "https://example.com/p", []string{"secure"}},
		{"", "http://example.com/p?q=2", []string{"q=2"}},
		{"http://example.com", "/p", []string{"german", "plain", "q=1", "q=2"}},
		{"http://example.com", "http://example.com/p", []string{"german", "plain", "q=1", "q=2"}},
		{"http://example.com", "/p?q=1", []string{"q=1"}},
		{"", "/none", nil},
	} {
		for _, purge := range []bool{false, true} {
			c := new(countingHandler)
			site := isr.Wrap(c, isr.Options{Origin: test.origin, Default: isr.Route{Query: []string{"q"}, Vary: []string{"Accept-Language"}}})
			visit := func() map[string]string {
				m := make(map[string]string)
				for name, r := range visitors {
					w := httptest.NewRecorder()
					site.ServeHTTP(w, r)
					m[name] = w.Body.String()
				}
				return m
			}
			before := visit()
			runs := c.calls.Load()
			call := site.Revalidate
			if purge {
				call = site.Purge
			}
			if err := call(t.Context(), test.name); err != nil {
				t.Errorf("%s: %v", test.name, err)
			}
			if got := c.calls.Load() - runs; !purge && test.want != nil && got != int64(len(test.want)) {
				t.Errorf("Revalidate %s, origin %q: %d runs, want %d", test.name, test.origin, got, len(test.want))
			}
			var changed []string
			for name, after := range visit() {
				if after != before[name] && !(test.origin != "" && (name == "other" || name == "secure")) {
					changed = append(changed, name)
				}
			}
			slices.Sort(changed)
			if diff := cmp.Diff(test.want, changed); diff != "" {
				t.Errorf("%s, origin %q, purge %v: changed (-want +got):\n%s", test.name, test.origin, purge, diff)
			}
		}
	}
}

// Where routes go by host, a bare path with a query stands for all of the path, because
// each host's route may keep other parameters.
func TestRevalidateHosts(t *testing.T) {
	for _, purge := range []bool{false, true} {
		site := isr.Wrap(new(countingHandler), isr.Options{Routes: map[string]isr.Route{"example.com/search": {Query: []string{"q"}}}})
		get(site, "/search?q=1&utm=2")
		call := site.Revalidate
		if purge {
			call = site.Purge
		}
		if err := call(t.Context(), "/search?q=1&utm=2"); err != nil {
			t.Fatal(err)
		}
		if got := body(site, "/search?q=1&utm=3"); got != "page 2" {
			t.Errorf("purge %v: got %q", purge, got)
		}
	}
}

// A path that is not stored is generated where its host is known.
func TestRevalidateUnknown(t *testing.T) {
	for _, test := range []struct {
		origin, name string
		want         int64
	}{
		{"https://example.com", "/new", 1},
		{"", "https://example.com/new", 1},
		{"", "/new", 0},
		{"https://example.com", "/account/", 0},
	} {
		c := new(countingHandler)
		site := isr.Wrap(c, isr.Options{Origin: test.origin, Routes: map[string]isr.Route{"/account/": {Bypass: isr.Always}}})
		if err := site.Revalidate(t.Context(), test.name); err != nil {
			t.Error(err)
		}
		if got := c.calls.Load(); got != test.want {
			t.Errorf("%s, origin %q: %d runs, want %d", test.name, test.origin, got, test.want)
		}
	}
}

// What else visitors have asked for at a path, its plain page is generated.
func TestRevalidateUnknownPlainPage(t *testing.T) {
	for name, test := range map[string]struct{ asked, named string }{
		"a query":       {"/new?x=1", "/new"},
		"a header":      {"/new", "/new"},
		"another query": {"/new?x=1", "/new?x=2"},
	} {
		c := new(countingHandler)
		site := isr.Wrap(c, isr.Options{Origin: "http://example.com", Default: isr.Route{Vary: []string{"Accept-Language"}}})
		get(site, test.asked, "Accept-Language", "de")
		if err := site.Revalidate(t.Context(), test.named); err != nil {
			t.Error(err)
		}
		if got := get(site, test.named).Header.Get("Cache-Status"); got != "isr; hit" {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// Revalidate returns when its context ends, and the run goes on.
func TestRevalidateReturnsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			time.Sleep(10 * time.Second)
			fmt.Fprint(w, "page ", n)
		}}
		site := isr.Wrap(c, isr.Options{})
		get(site, "/")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := site.Revalidate(ctx, "/"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		time.Sleep(9 * time.Second)
		synctest.Wait()
		if got := get(site, "/"); got.Header.Get("Cache-Status") != "isr; hit" || read(got) != "page 2" {
			t.Errorf("the run did not go on: %v", got.Header)
		}
	})
}

// A caller whose context has ended starts no run.
func TestRevalidateOfACallerWhoHasLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) { time.Sleep(10 * time.Second) }}
		site := isr.Wrap(c, isr.Options{MaxRegenerations: 2})
		var all sync.WaitGroup
		for i := range 50 {
			all.Go(func() { get(site, fmt.Sprint("/?", i)) })
		}
		all.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := site.Revalidate(ctx, "/"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		synctest.Wait()
		if got := c.calls.Load(); got != 52 {
			t.Errorf("%d runs, want 50 and 2", got)
		}
		time.Sleep(10 * time.Second)
	})
}

// However many variants of a page outsiders have asked for, Revalidate generates the
// plain page, the one that is named, and those that visitors ask for, a few at a time;
// none of the others is shown any more.
func TestRevalidateManyVariants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running, most atomic.Int64
		var mu sync.Mutex
		var made []string
		c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			mu.Lock()
			made = append(made, r.URL.RawQuery)
			mu.Unlock()
			most.Store(max(most.Load(), running.Add(1)))
			time.Sleep(time.Second)
			running.Add(-1)
			fmt.Fprintf(w, "page %d", n)
		}}
		site := isr.Wrap(c, isr.Options{MaxRegenerations: 3, Origin: "http://example.com"})
		visit := func(times, from, to int) {
			for i := from; i < to; i++ {
				for range times {
					get(site, fmt.Sprintf("/?n=%d", i))
					time.Sleep(time.Second)
				}
			}
		}
		visit(100, 0, 10) // of yesterday
		time.Sleep(24 * time.Hour)
		get(site, "/")
		visit(2, 10, 50)
		visit(7, 50, 66) // asked for most
		visit(1, 66, 90)
		made = nil
		if err := site.Revalidate(t.Context(), "/", "/?n=5", "/"); err != nil {
			t.Error(err)
		}
		want := []string{"", "n=5"}
		for i := 50; i < 66; i++ {
			want = append(want, fmt.Sprintf("n=%d", i))
		}
		if first := slices.Sorted(slices.Values(made[:3])); first[0] != "" || first[1] != "n=5" && first[2] != "n=5" {
			t.Errorf("%q is generated first, want what is named", made[:3])
		}
		slices.Sort(made)
		slices.Sort(want)
		if diff := cmp.Diff(want, made); diff != "" || most.Load() > 3 {
			t.Errorf("%d at a time; want 3 (-want +got):\n%s", most.Load(), diff)
		}
		made = nil
		visit(1, 0, 90)
		if len(made) != 90-17 {
			t.Errorf("%d others are generated when they are asked for, want %d", len(made), 90-17)
		}
	})
}

// A CMS that names a path without its last slash, or with one too many, renews the
// right page, where the site redirects to it.
func TestRevalidateFollowsTheSlash(t *testing.T) {
	for status, header := range map[int]string{301: "", 308: "", 302: "", 307: "max-age=60", 303: "private"} {
		var log bytes.Buffer
		var v atomic.Int64
		c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			to := ""
			switch r.URL.Path {
			case "/a", "/elsewhere":
				to = "/a/"
			case "/b/":
				to = "http://example.com/b?x=y"
			case "/c":
				to = " /c/ " // which net/http sends without the spaces
			case "/foreign":
				to = "http://example.org/foreign/"
			case "/login":
				to = "/login"
			case "/circle":
				to = "circle/"
			case "/circle/":
				to = "../circle"
			default:
				fmt.Fprintf(w, "v%d", v.Load())
				return
			}
			w.Header().Set("Location", to)
			if header != "" {
				w.Header().Set("Cache-Control", header)
			}
			w.WriteHeader(status)
		}}
		site := isr.Wrap(c, isr.Options{Origin: "http://example.com", Logger: slog.New(slog.NewTextHandler(&log, nil))})
		for i, test := range []struct {
			named, page string
			renewed     bool
		}{
			{"/a", "/a/", true}, {"/b/", "/b", true}, {"http://example.com/a", "/a/", true}, {"/c", "/c/", true},
			{"/elsewhere", "/a/", false}, {"/foreign", "/foreign/", false},
			{"/login", "/a/", false}, {"/circle", "/a/", false},
		} {
			was := body(site, test.page)
			v.Store(int64(i + 1))
			if err := site.Revalidate(t.Context(), test.named); err != nil {
				t.Errorf("%d: %s: %v", status, test.named, err)
			}
			if got := body(site, test.page); (got != was) != test.renewed {
				t.Errorf("%d: after %s, %s is %s and was %s", status, test.named, test.page, got, was)
			}
		}
		if !strings.Contains(log.String(), fmt.Sprintf(`level=WARN msg="isr: a path was revalidated that was not stored and has no page" path=/elsewhere route="" status=%d`, status)) {
			t.Errorf("%d: the log does not say that there is no page:\n%s", status, &log)
		}
	}
}
