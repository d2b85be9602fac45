package inspect_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/inspect"
)

// states returns the pages and the states that they are in.
func states(t *testing.T, h http.Handler) map[string]string {
	t.Helper()
	all := make(map[string]string)
	for _, p := range asJSON(t, h, "/").Table.Pages {
		all[p.URL] = p.State
	}
	return all
}

func TestActions(t *testing.T) {
	tests := []struct {
		name       string
		action     string
		path, tag  string // of the button
		below      string
		message    string
		fails      int            // the status in JSON, if not 200
		changed    map[string]any // of the states: nil means gone
		regenerate string         // what is generated anew
	}{
		{
			name: "revalidate a page", action: "revalidate", path: "/stale",
			message: "Revalidated in 0 µs.", changed: map[string]any{"http://example.com/stale": "fresh"},
			regenerate: "example.com/stale",
		},
		{
			name: "purge a page", action: "purge", path: "/forever",
			message: "Purged.", changed: map[string]any{"http://example.com/forever": nil},
		},
		{
			name: "revalidate with a query", action: "revalidate", path: "/page?a=1",
			message: "Revalidated in 0 µs.", regenerate: "example.com/page?a=1",
		},
		{
			name: "purge with a query", action: "purge", path: "/page?a=2",
			message: "Purged.", changed: map[string]any{"http://example.com/page?a=2": nil},
		},
		{
			name: "purge an escaped path", action: "purge", path: "/a%2Fb",
			message: "Purged.", changed: map[string]any{"http://example.com/a%2Fb": nil},
		},
		{
			name: "all at a path", action: "purge", path: "example.com/blog/1 ",
			message: "Purged all 2 pages at this URL.",
			changed: map[string]any{"http://example.com/blog/1": nil, "http://example.com/blog/1?x=y": nil},
		},
		{
			name: "another host", action: "revalidate", path: "www.example.com/blog/1",
			message: "Revalidated in 0 µs.", regenerate: "www.example.com/blog/1",
		},
		{
			name: "a failure", action: "revalidate", path: "/failing", fails: http.StatusInternalServerError,
			message:    "Failed: revalidate /failing: the handler answered 503 Service Unavailable",
			regenerate: "example.com/failing",
		},
		{
			name: "what is not stored", action: "revalidate", path: "/private",
			message:    "Generated again, but not stored: it is private by its Cache-Control.",
			regenerate: "example.com/private",
		},
		{
			name: "revalidate a tag", action: "revalidate", tag: "blog",
			message: "Its pages are stale now, and are renewed as they are asked for.",
			changed: map[string]any{
				"http://example.com/blog/1": "stale", "http://example.com/blog/1?x=y": "stale", "http://www.example.com/blog/1": "stale",
			},
		},
		{
			name: "purge a tag", action: "purge", tag: "blog",
			message: "Its pages are purged.",
			changed: map[string]any{
				"http://example.com/blog/1": nil, "http://example.com/blog/1?x=y": nil, "http://www.example.com/blog/1": nil,
				"http://example.com/stale": nil,
			},
		},
		{
			name: "revalidate below a path", action: "revalidate", below: "/blog/*",
			message: "The pages below are stale now, and are renewed as they are asked for.",
			changed: map[string]any{
				"http://example.com/blog/1": "stale", "http://example.com/blog/1?x=y": "stale", "http://www.example.com/blog/1": "stale",
			},
		},
		{
			name: "purge below a path of one host", action: "purge", below: "http://www.example.com/*",
			message: "The pages below are purged.", changed: map[string]any{"http://www.example.com/blog/1": nil},
		},
		{
			name: "a star in the middle", action: "purge", below: "/blog/*/*", fails: http.StatusInternalServerError,
			message: `Failed: path "/blog/*/*": has a star that is not its last segment`,
		},
		{
			name: "a tag that is none", action: "purge", tag: "a,b", fails: http.StatusInternalServerError,
			message: `Failed: tag "a,b": a tag has no comma and no control character`,
		},
	}
	for _, tt := range tests {
		for _, format := range []string{"html", "json"} {
			synctest.Test(t, func(t *testing.T) {
				a := newApp(isr.Options{})
				a.inEveryState()
				a.visit("/page?a=1", "/page?a=2", "/a%2Fb", "/blog/1?x=y")
				r := request("GET", "/blog/1")
				r.Host = "www.example.com"
				a.site.ServeHTTP(httptest.NewRecorder(), r)
				h := inspect.Handler(a.site, inspect.Options{Actions: true})
				before := states(t, h)
				clear(a.served)

				fields := url.Values{"do": {tt.action}}
				if tt.tag != "" {
					fields.Set("tag", tt.tag)
				}
				for _, p := range asJSON(t, h, "/").Table.Pages {
					if tt.path != "" && strings.HasSuffix(p.URL, strings.TrimSpace(tt.path)) && !fields.Has("id") {
						fields.Set("id", p.ID)
					}
				}
				if tt.below != "" {
					fields.Set("below", tt.below)
				}
				w := post(h, "/?tag="+url.QueryEscape(tt.tag)+"&path="+url.QueryEscape(tt.below)+"&format="+format, fields)
				if format == "json" {
					got := decode(t, w).Outcome
					if got == nil || !strings.HasPrefix(got.Message, tt.message) || got.OK != (tt.fails == 0) {
						t.Errorf("%s: got outcome %+v, want %q", tt.name, got, tt.message)
					}
					if want := max(tt.fails, http.StatusOK); w.Code != want {
						t.Errorf("%s: got %d, want %d", tt.name, w.Code, want)
					}
				} else {
					class := "outcome ok"
					if tt.fails != 0 {
						class = "outcome failed"
					}
					output := fmt.Sprintf(`<output class="%s">`, class)
					if document := w.Body.String(); w.Code != http.StatusOK || strings.Count(document, output) != 1 ||
						!strings.Contains(text(document), tt.message) {
						t.Errorf("%s: got %d without %q:\n%s", tt.name, w.Code, tt.message, text(document))
					}
				}
				after := states(t, h)
				for u, state := range tt.changed {
					if state == nil {
						delete(before, u)
					} else {
						before[u] = state.(string)
					}
				}
				if tt.action == "revalidate" && strings.Contains(tt.message, "Failed") {
					before["http://example.com/failing"] = "failing"
				}
				if diff := cmp.Diff(before, after); diff != "" {
					t.Errorf("%s (-want +got):\n%s", tt.name, diff)
				}
				want := make(map[string]int)
				if tt.regenerate != "" {
					want[tt.regenerate] = 1
				}
				if diff := cmp.Diff(want, a.served); diff != "" {
					t.Errorf("%s: generated (-want +got):\n%s", tt.name, diff)
				}
			})
		}
	}
}

func TestActionWithOrigin(t *testing.T) {
	a := newApp(isr.Options{Origin: "https://example.com"})
	a.visit("/x%2Fevil.example?q=1", "/forever")
	h := inspect.Handler(a.site, inspect.Options{Actions: true})
	if diff := cmp.Diff(map[string]string{"/x%2Fevil.example?q=1": "fresh", "/forever": "fresh"}, states(t, h)); diff != "" {
		t.Fatalf("(-want +got):\n%s", diff)
	}
	for _, path := range []string{"/x%2Fevil.example?q=1", "/forever"} {
		rep := decode(t, post(h, "/?format=json", url.Values{"do": {"purge"}, "id": {id(t, h, path)}}))
		if rep.Outcome.Message != "Purged." || rep.Outcome.URL != path {
			t.Errorf("%s: got %+v", path, rep.Outcome)
		}
	}
	if got := states(t, h); len(got) > 0 {
		t.Errorf("left over: %v", got)
	}
}

// A malformed host would make the URL of another page.
func TestActionOnMalformedHost(t *testing.T) {
	a := newApp(isr.Options{})
	for _, host := range []string{"example.com?", "user@example.com", "a b", "[::1"} {
		r := request("GET", "/forever")
		r.Host = host
		a.site.ServeHTTP(httptest.NewRecorder(), r)
	}
	a.visit("/forever")
	h := inspect.Handler(a.site, inspect.Options{Actions: true})
	for _, p := range asJSON(t, h, "/").Table.Pages {
		out := decode(t, post(h, "/?format=json", url.Values{"do": {"purge"}, "id": {p.ID}})).Outcome
		if want := p.Host == "example.com"; out.OK != want {
			t.Errorf("host %q: got %+v", p.Host, out)
		}
	}
	if got := len(states(t, h)); got != 4 {
		t.Errorf("%d pages are left, want 4", got)
	}
}

// The outcome is where the button was, with and without what it was about.
func TestOutcomeBesideButton(t *testing.T) {
	a := newApp(isr.Options{})
	a.visit("/blog/1", "/blog/2", "/blog/3")
	h := inspect.Handler(a.site, inspect.Options{Actions: true})
	cells := func(w *httptest.ResponseRecorder) (last []string) {
		for _, row := range rows(w.Body.String()) {
			last = append(last, row[len(row)-1])
		}
		return last
	}
	blog2 := id(t, h, "/blog/2")
	got := cells(post(h, "/?path=blog", url.Values{"do": {"revalidate"}, "id": {blog2}, "at": {"1"}}))
	if !strings.HasPrefix(got[1], "Revalidate Purge Revalidated in ") || got[0] != "Revalidate Purge" || got[2] != "Revalidate Purge" {
		t.Errorf("revalidated: got %q", got)
	}
	detail := text(post(h, "/?id="+blog2, url.Values{"do": {"revalidate"}, "id": {blog2}}).Body.String())
	if !strings.Contains(detail, "Revalidate Purge Revalidated in ") {
		t.Errorf("detail: got %s", detail)
	}
	byTag := text(post(h, "/?id="+blog2, url.Values{"do": {"revalidate"}, "tag": {"post-2"}}).Body.String())
	if !strings.Contains(byTag, "post-2 Revalidate tag Purge tag Its pages are stale now") {
		t.Errorf("tag in detail: got %s", byTag)
	}
	document := post(h, "/?path=blog", url.Values{"do": {"purge"}, "id": {blog2}, "at": {"1"}})
	want := [][]string{{"/blog/1"}, {"http://example.com/blog/2", "Purged."}, {"/blog/3"}}
	purged := rows(document.Body.String())
	for i := range purged {
		if i != 1 {
			purged[i] = strings.Fields(purged[i][0])[:1]
		}
	}
	if diff := cmp.Diff(want, purged); diff != "" {
		t.Errorf("purged (-want +got):\n%s", diff)
	}

	blog1 := id(t, h, "/blog/1")
	gone := text(post(h, "/?id="+blog1, url.Values{"do": {"purge"}, "id": {blog1}}).Body.String())
	if !strings.Contains(gone, "http://example.com/blog/1 Purged.") || !strings.Contains(gone, "does not hold this page any more") {
		t.Errorf("purged in detail: got %s", gone)
	}
	again := post(h, "/?id="+blog1+"&format=json", url.Values{"do": {"revalidate"}, "id": {blog1}})
	if got := decode(t, again).Outcome.Message; again.Code != http.StatusNotFound || got != "Failed: the page is not stored any more" {
		t.Errorf("revalidated what is gone: got %d %q", again.Code, got)
	}
	last := text(post(h, "/?tag=blog", url.Values{"do": {"purge"}, "tag": {"blog"}}).Body.String())
	if !strings.Contains(last, "blog Revalidate tag Purge tag Its pages are purged.") || !strings.Contains(last, "No page matches.") {
		t.Errorf("purged by tag: got %s", last)
	}
	elsewhere := text(post(h, "/", url.Values{"do": {"purge"}, "tag": {"blog"}}).Body.String())
	if !strings.Contains(elsewhere, "Tag blog Its pages are purged.") {
		t.Errorf("purged by a tag that is not shown: got %s", elsewhere)
	}
}

func TestBadForms(t *testing.T) {
	a := newApp(isr.Options{})
	a.visit("/blog/1")
	h := inspect.Handler(a.site, inspect.Options{Actions: true})
	blog1 := id(t, h, "/blog/1")
	tests := []struct {
		fields  url.Values
		status  int
		message string
	}{
		{url.Values{}, 400, "Failed: unknown action: want do=revalidate or do=purge"},
		{url.Values{"do": {"drop"}, "id": {blog1}}, 400, "Failed: unknown action: want do=revalidate or do=purge"},
		{url.Values{"do": {"purge"}}, 400, `Failed: want the id of a page, or a tag, or below: a path that ends in "/*"`},
		{url.Values{"do": {"purge"}, "id": {blog1}, "tag": {"blog"}}, 400, `Failed: want the id of a page, or a tag, or below: a path that ends in "/*"`},
		{url.Values{"do": {"purge"}, "id": {blog1}, "below": {"/*"}}, 400, `Failed: want the id of a page, or a tag, or below: a path that ends in "/*"`},
		{url.Values{"do": {"purge"}, "below": {"/blog/1"}}, 400, `Failed: want a path that ends in "/*", or a whole URL that does`},
		{url.Values{"do": {"purge"}, "id": {"/blog/1"}, "at": {"-7"}}, 404, "Failed: the page is not stored any more"},
		{url.Values{"do": {"purge"}, "id": {blog1}, "x": {strings.Repeat("x", 1<<20)}}, 413, "http: request body too large"},
	}
	for _, tt := range tests {
		w := post(h, "/?do=purge&format=json&tag=blog", tt.fields)
		rep := decode(t, w)
		got := rep.Error
		if rep.Outcome != nil {
			got = rep.Outcome.Message
		}
		if w.Code != tt.status || got != tt.message {
			t.Errorf("%.60v: got %d %q, want %d %q", tt.fields, w.Code, got, tt.status, tt.message)
		}
		post(h, "/", tt.fields) // which does not panic
	}
	if got := len(states(t, h)); got != 1 {
		t.Errorf("%d pages are left, want the one", got)
	}
}

// A form without JavaScript is all that the buttons need.
func TestFormsWork(t *testing.T) {
	a := newApp(isr.Options{})
	a.visit("/blog/1", "/blog/2")
	h := inspect.Handler(a.site, inspect.Options{Actions: true})
	document := get(h, "/?tag=blog").Body.String()
	for _, want := range []string{
		`<form method="post" action="?tag=blog#p-` + id(t, h, "/blog/2") + `" data-act>`,
		`<input type="hidden" name="id" value="` + id(t, h, "/blog/2") + `"><input type="hidden" name="at" value="1">`,
		`<button name="do" value="revalidate"`, `<button name="do" value="purge"`,
		`<form method="post" action="?tag=blog" data-act>`, `<input type="hidden" name="tag" value="blog">`,
	} {
		if !strings.Contains(document, want) {
			t.Errorf("the page has no %s", want)
		}
	}
}

func TestConcurrent(t *testing.T) {
	var rec inspect.Recorder
	a := newApp(isr.Options{Observe: rec.Observe})
	h := inspect.Handler(a.site, inspect.Options{Actions: true, Recorder: &rec})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	done := make(chan bool)
	work := []func(i int){
		func(i int) { a.visit(fmt.Sprintf("/blog/%d", i%50)) },
		func(i int) { get(h, "/?sort=-age") },
		func(i int) { get(h, "/?format=json") },
		func(i int) { post(h, "/", url.Values{"do": {"purge"}, "tag": {fmt.Sprintf("post-%d", i%50)}}) },
		func(i int) {
			if pages := asJSON(t, h, "/").Table.Pages; len(pages) > 0 {
				p := pages[i%len(pages)]
				get(h, "/?id="+p.ID)
				post(h, "/", url.Values{"do": {"revalidate"}, "id": {p.ID}})
			}
		},
	}
	for _, f := range slices.Concat(work, work) {
		go func() {
			for i := 0; ctx.Err() == nil; i++ {
				f(i)
			}
			done <- true
		}()
	}
	for range 2 * len(work) {
		<-done
	}
}

// How many pages an action is said to concern is how many go with a purge.
func TestCoversWhatIsPurged(t *testing.T) {
	for _, origin := range []string{"", "https://example.com"} {
		site := func() *isr.Site {
			site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}), isr.Options{
				Origin: origin, Default: isr.Route{Vary: []string{"Accept-Language"}},
			})
			for _, target := range []string{"/abc", "/%61bc", "/abc?x=1", "/a%2Fb", "/a/b", "/a%2fb"} {
				for _, language := range []string{"de", "en"} {
					for _, host := range []string{"example.com", "www.example.com"} {
						r := request("GET", target)
						r.Host = host
						r.Header.Set("Accept-Language", language)
						site.ServeHTTP(httptest.NewRecorder(), r)
					}
				}
			}
			return site
		}
		for _, p := range asJSON(t, inspect.Handler(site(), inspect.Options{}), "/").Table.Pages {
			h := inspect.Handler(site(), inspect.Options{Actions: true})
			all := asJSON(t, h, "/").Table.Matching
			covers := asJSON(t, h, "/?id="+p.ID).Page.Covers
			post(h, "/", url.Values{"do": {"purge"}, "id": {p.ID}})
			if gone := all - asJSON(t, h, "/").Table.Matching; covers != gone || covers == 0 {
				t.Errorf("origin %q: a purge of %s is said to concern %d pages, and %d are gone", origin, p.URL, covers, gone)
			}
		}
	}
}
