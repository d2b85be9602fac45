package inspect_test

import (
	"encoding/json"
	"fmt"
	"html"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/inspect"
	"github.com/isr-go/isr/internal/isrtest"
)

// An app is a handler to be inspected, with a page for each way in which a page
// can fare.
type app struct {
	site   *isr.Site
	broken atomic.Bool // /failing answers with an error

	mu     sync.Mutex
	served map[string]int // guarded by mu: how often each page was generated
}

func newApp(opts isr.Options) *app {
	a := &app{served: make(map[string]int)}
	opts.Routes = map[string]isr.Route{
		"/forever":   {Tags: []string{"static"}},
		"/blog/{id}": {TTL: time.Hour, Tags: []string{"blog"}},
		"/stale":     {TTL: time.Second, Tags: []string{"blog", "old"}},
		"/expired":   {TTL: time.Second, StaleWhileRevalidate: -1},
		"/failing":   {TTL: time.Second},
		"/lang":      {TTL: time.Hour, Vary: []string{"Accept-Language"}},
	}
	opts.Default.TTL = time.Hour
	a.site = isr.Wrap(http.HandlerFunc(a.serve), opts)
	return a
}

func (a *app) serve(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	a.served[r.Host+r.URL.RequestURI()]++
	a.mu.Unlock()
	switch r.URL.Path {
	case "/failing":
		if a.broken.Load() {
			http.Error(w, "out of order", http.StatusServiceUnavailable)
			return
		}
	case "/private":
		w.Header().Set("Cache-Control", "private")
	case "/cookie":
		http.SetCookie(w, &http.Cookie{Name: "a", Value: "b"})
	case "/missing":
		w.WriteHeader(http.StatusNotFound)
	}
	if id, ok := strings.CutPrefix(r.URL.Path, "/blog/"); ok {
		w.Header().Set("Cache-Tag", "post-"+id)
	}
	w.Header().Set("X-Test", "a & b")
	fmt.Fprint(w, "the page ", r.URL.Path)
}

// visit asks for pages, in order.
func (a *app) visit(targets ...string) {
	for _, target := range targets {
		a.site.ServeHTTP(httptest.NewRecorder(), request("GET", target))
	}
}

// inEveryState brings a page into each state. It is called in a bubble.
func (a *app) inEveryState() {
	a.visit("/forever", "/blog/1", "/stale", "/expired", "/failing")
	a.broken.Store(true)
	time.Sleep(2 * time.Second)
	a.visit("/failing", "/forever", "/private", "/cookie")
	synctest.Wait()
	time.Sleep(3 * time.Second)
}

func request(method, target string) *http.Request {
	return httptest.NewRequest(method, target, nil) // of example.com
}

func get(h http.Handler, target string) *httptest.ResponseRecorder {
	return isrtest.Do(h, "GET", target)
}

// post submits a form, given as pairs.
func post(h http.Handler, target string, fields url.Values, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("POST", target, strings.NewReader(fields.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

var (
	rowPattern  = regexp.MustCompile(`(?s)<tr id="p-([^"]*)".*?</tr>`)
	cellPattern = regexp.MustCompile(`(?s)<(?:th|td)[^>]*>(.*?)</(?:th|td)>`)
	unread      = regexp.MustCompile(`(?s)<head>.*</head>|<script>.*</script>|</?bdi[^>]*>`)
	tagPattern  = regexp.MustCompile(`<[^>]*>`)
)

// text returns what a person reads of some HTML.
func text(fragment string) string {
	fragment = tagPattern.ReplaceAllString(unread.ReplaceAllString(fragment, ""), " ")
	return html.UnescapeString(strings.Join(strings.Fields(fragment), " "))
}

// rows returns the cells of the table, as read.
func rows(document string) (all [][]string) {
	for _, row := range rowPattern.FindAllString(document, -1) {
		var cells []string
		for _, cell := range cellPattern.FindAllStringSubmatch(row, -1) {
			cells = append(cells, text(cell[1]))
		}
		all = append(all, cells)
	}
	return all
}

// A report is the JSON, as a script reads it.
type report struct {
	Summary map[string]float64
	History *struct {
		BucketSeconds float64
		Buckets       []map[string]any
	}
	Table *struct {
		Matching, Page, LastPage int
		States                   map[string]int
		Pages                    []page
	}
	Page    *page
	Edge    []edgePurge
	Missing bool
	Outcome *struct {
		Action, URL, Tag, Message string
		OK                        bool
	}
	Error string
}

type page struct {
	ID, URL, Scheme, Host, Path, Query, Route, State, Phase string
	AgeSeconds, TTLSeconds, DurationSeconds                 float64
	LeftSeconds                                             *float64
	Invalidated                                             bool
	Size                                                    int64
	Hits                                                    uint64
	Tags                                                    []string
	Status, Failures, Covers                                int
	Error, NotStored, ETag, CacheControl                    string
	Varied, Header                                          http.Header
}

func decode(t *testing.T, w *httptest.ResponseRecorder) (rep report) {
	t.Helper()
	if got := w.Header().Get("Content-Type"); got != "application/json" {
		t.Fatalf("Content-Type %q, want application/json: %s", got, w.Body)
	}
	if err := json.Unmarshal(w.Body.Bytes(), &rep); err != nil {
		t.Fatal(err)
	}
	return rep
}

// asJSON returns the same view as JSON.
func asJSON(t *testing.T, h http.Handler, target string) report {
	t.Helper()
	r := request("GET", target)
	r.Header.Set("Accept", "application/json")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return decode(t, w)
}

// id returns the id of the only page whose URL contains a text.
func id(t *testing.T, h http.Handler, path string) string {
	t.Helper()
	pages := asJSON(t, h, "/?path="+url.QueryEscape(path)).Table.Pages
	if len(pages) != 1 {
		t.Fatalf("%d pages contain %q, want one", len(pages), path)
	}
	return pages[0].ID
}

func TestFormat(t *testing.T) {
	h := inspect.Handler(newApp(isr.Options{}).site, inspect.Options{})
	tests := []struct {
		target, accept, want string
	}{
		{"/", "", "text/html; charset=utf-8"},
		{"/", "*/*", "text/html; charset=utf-8"},
		{"/", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "text/html; charset=utf-8"},
		{"/", "application/json", "application/json"},
		{"/", "application/json, text/plain, */*", "application/json"},
		{"/", "text/html, application/json", "text/html; charset=utf-8"},
		{"/", "application/*;q=0.5, text/html;q=0.4", "application/json"},
		{"/", "text/*, application/json;q=0.9", "text/html; charset=utf-8"},
		{"/", "application/json;q=0", "text/html; charset=utf-8"},
		{"/", "application/json;q=high", "text/html; charset=utf-8"},
		{"/", ";;;", "text/html; charset=utf-8"},
		{"/?format=json", "text/html", "application/json"},
		{"/?format=html", "application/json", "text/html; charset=utf-8"},
	}
	for _, tt := range tests {
		r := request("GET", tt.target)
		if tt.accept != "" {
			r.Header.Set("Accept", tt.accept)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if got := w.Header().Get("Content-Type"); got != tt.want || w.Code != http.StatusOK {
			t.Errorf("%s, Accept %q: got %d %q, want 200 %q", tt.target, tt.accept, w.Code, got, tt.want)
		}
		if got := w.Header().Get("Vary"); got != "Accept" {
			t.Errorf("%s: Vary %q, want Accept", tt.target, got)
		}
	}
}

func TestBadRequests(t *testing.T) {
	h := inspect.Handler(newApp(isr.Options{}).site, inspect.Options{})
	tests := []struct{ target, want string }{
		{"/?format=xml", `unknown format: want "html" or "json"`},
		{"/?state=stael", "state: want one of failing, expired, stale, fresh, uncacheable"},
		{"/?sort=name", `sort: want one of path, state, age, left, hits, size, status, took, perhaps with a "-" in front`},
		{"/?page=0", "page: want a number from 1 to 2147483647"},
		{"/?page=x&limit=501", "page: want a number from 1 to 2147483647\nlimit: want a number from 1 to 500"},
		{"/?path=" + strings.Repeat("x", 257), "id, path and tag have at most 256 bytes"},
	}
	for _, tt := range tests {
		w := get(h, tt.target)
		if got := strings.TrimSuffix(w.Body.String(), "\n"); w.Code != http.StatusBadRequest || got != tt.want {
			t.Errorf("%s: got %d %q, want 400 %q", tt.target, w.Code, got, tt.want)
		}
		if got := w.Header().Get("Content-Type"); got != "text/plain; charset=utf-8" {
			t.Errorf("%s: Content-Type %q", tt.target, got)
		}
		if rep := asJSON(t, h, tt.target); rep.Error != tt.want {
			t.Errorf("%s: JSON error %q, want %q", tt.target, rep.Error, tt.want)
		}
	}
}

func TestMethods(t *testing.T) {
	a := newApp(isr.Options{})
	a.visit("/forever")
	readOnly := inspect.Handler(a.site, inspect.Options{})
	acting := inspect.Handler(a.site, inspect.Options{Actions: true})
	purge := "/?do=purge&id=" + id(t, acting, "/forever")
	tests := []struct {
		handler              http.Handler
		method, target       string
		header               []string
		want                 int
		allow                string
		purges, answersEmpty bool
	}{
		{handler: readOnly, method: "GET", target: purge, want: 200},
		{handler: readOnly, method: "HEAD", target: "/", want: 200, answersEmpty: true},
		{handler: readOnly, method: "POST", target: purge, want: 405, allow: "GET, HEAD"},
		{handler: readOnly, method: "DELETE", target: purge, want: 405, allow: "GET, HEAD"},
		{handler: readOnly, method: "OPTIONS", target: "/", want: 405, allow: "GET, HEAD"},
		{handler: acting, method: "GET", target: purge, want: 200},
		{handler: acting, method: "HEAD", target: purge, want: 200, answersEmpty: true},
		{handler: acting, method: "PUT", target: purge, want: 405, allow: "GET, HEAD, POST"},
		{handler: acting, method: "POST", target: "/", header: []string{"Sec-Fetch-Site", "cross-site"}, want: 403},
		{handler: acting, method: "POST", target: "/", header: []string{"Sec-Fetch-Site", "same-site"}, want: 403},
		{handler: acting, method: "POST", target: "/", header: []string{"Origin", "https://attacker.example"}, want: 403},
		{handler: acting, method: "POST", target: "/", header: []string{"Origin", "null"}, want: 403},
		{handler: acting, method: "POST", target: "/", header: []string{"Origin", "https://example.com"}, want: 200, purges: true},
		{handler: acting, method: "POST", target: "/", header: []string{"Sec-Fetch-Site", "same-origin"}, want: 200, purges: true},
		{handler: acting, method: "POST", target: "/", want: 200, purges: true},
	}
	for _, tt := range tests {
		a.visit("/forever")
		fields := url.Values{"do": {"purge"}, "id": {id(t, acting, "/forever")}}
		r := httptest.NewRequest(tt.method, tt.target, strings.NewReader(fields.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		for i := 0; i < len(tt.header); i += 2 {
			r.Header.Set(tt.header[i], tt.header[i+1])
		}
		w := httptest.NewRecorder()
		tt.handler.ServeHTTP(w, r)
		name := fmt.Sprint(tt.method, " ", tt.target, " ", tt.header)
		if w.Code != tt.want || w.Header().Get("Allow") != tt.allow {
			t.Errorf("%s: got %d, Allow %q, want %d, %q", name, w.Code, w.Header().Get("Allow"), tt.want, tt.allow)
		}
		if got := w.Header().Get("Cache-Control"); got != "no-store" {
			t.Errorf("%s: Cache-Control %q", name, got)
		}
		if got := w.Body.Len() == 0; got != tt.answersEmpty {
			t.Errorf("%s: an empty answer: %t, want %t", name, got, tt.answersEmpty)
		}
		if got := asJSON(t, acting, "/").Table.Matching == 0; got != tt.purges {
			t.Errorf("%s: purged: %t, want %t", name, got, tt.purges)
		}
	}
}

func TestButtonsNeedActions(t *testing.T) {
	a := newApp(isr.Options{})
	a.visit("/blog/1")
	for _, actions := range []bool{false, true} {
		h := inspect.Handler(a.site, inspect.Options{Actions: actions})
		for _, target := range []string{"/", "/?tag=blog", "/?id=" + id(t, h, "/blog/1")} {
			document := get(h, target).Body.String()
			for _, part := range []string{`method="post"`, `value="revalidate"`, `value="purge"`} {
				if got := strings.Contains(document, part); got != actions {
					t.Errorf("Actions %t, %s: contains %s: %t", actions, target, part, got)
				}
			}
		}
	}
}

func TestMountedAnywhere(t *testing.T) {
	a := newApp(isr.Options{})
	a.visit("/blog/1", "/blog/2")
	h := inspect.Handler(a.site, inspect.Options{Actions: true})
	mux := http.NewServeMux()
	mux.Handle("/debug/isr", h)
	mux.Handle("/debug/isr/", h)
	mux.Handle("/admin/", http.StripPrefix("/admin/cache", h))
	reference := regexp.MustCompile(`(?:href|src|action|formaction|srcset|poster|data)="([^"]*)"`)
	for _, mount := range []string{"/debug/isr", "/debug/isr/", "/admin/cache", "/admin/cache/"} {
		for _, query := range []string{"", "?limit=1", "?tag=blog", "?id=" + id(t, h, "/blog/1"), "?id=unknown", "?path=nothing"} {
			document := get(mux, mount+query).Body.String()
			if !strings.Contains(document, "isr inspector") {
				t.Fatalf("%s%s: %s", mount, query, document)
			}
			for _, m := range reference.FindAllStringSubmatch(document, -1) {
				if to := html.UnescapeString(m[1]); !strings.HasPrefix(to, "?") && to != "#main" && to != "data:," {
					t.Errorf("%s%s refers to %q", mount, query, to)
				}
			}
		}
	}
}

func TestNilSitePanics(t *testing.T) {
	defer func() {
		if got := fmt.Sprint(recover()); got != "inspect: Handler: nil site" {
			t.Errorf("got %s", got)
		}
	}()
	inspect.Handler(nil, inspect.Options{})
}

func TestSummary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newApp(isr.Options{})
		h := inspect.Handler(a.site, inspect.Options{MaxBytes: 64 << 20})
		if got := text(get(h, "/").Body.String()); !strings.Contains(got, "Hit ratio – 0 hits, 0 stale, 0 misses") ||
			!strings.Contains(got, "Nothing is stored yet.") || !strings.Contains(got, "There are no charts") {
			t.Errorf("before the first visit: %s", got)
		}
		a.inEveryState()
		a.visit("/blog/1", "/blog/1")
		want := map[string]float64{
			"hits": 3, "stale": 1, "misses": 5, "passed": 2, "generated": 5, "failed": 1, "evicted": 0, "storeErrors": 0, "edgeErrors": 0, "edgeOwed": 0, "dataHits": 0, "dataMisses": 0,
			"pages": 7, "generating": 0, "maxBytes": 64 << 20, "hitRatio": 4.0 / 9,
		}
		got := asJSON(t, h, "/").Summary
		bytes := got["bytes"]
		delete(got, "bytes")
		if diff := cmp.Diff(want, got); diff != "" || bytes <= 0 {
			t.Errorf("%v bytes; JSON (-want +got):\n%s", bytes, diff)
		}
		read := text(get(h, "/").Body.String())
		for _, part := range []string{
			"Hit ratio 44.4 % 3 hits, 1 stale, 5 misses; 2 passed", "Pages 7 0 evicted", "of 64.0 MiB",
			"Generating 0 5 done", "Failures 1 of 6 generations", "Store errors 0",
		} {
			if !strings.Contains(read, part) {
				t.Errorf("the page does not say %q: %s", part, read)
			}
		}
	})
}

// A path that ends in "/*" shows what is below it, and has its buttons.
func TestBelow(t *testing.T) {
	a := newApp(isr.Options{})
	a.visit("/", "/blog", "/blog/", "/blog/1", "/Blog/2?q=1", "/blogs/3", "/about")
	h := inspect.Handler(a.site, inspect.Options{Actions: true})
	for path, want := range map[string][]string{
		"/blog/*":                   {"/Blog/2?q=1", "/blog/", "/blog/1"},
		"http://example.com/BLOG/*": {"/Blog/2?q=1", "/blog/", "/blog/1"},
		"http://www.example.com/*":  nil,
		"/*":                        {"/", "/Blog/2?q=1", "/about", "/blog", "/blog/", "/blog/1", "/blogs/3"},
		"blog/*":                    nil, // is part of no URL
	} {
		var got []string
		for _, p := range asJSON(t, h, "/?path="+url.QueryEscape(path)).Table.Pages {
			got = append(got, strings.TrimPrefix(p.URL, "http://example.com"))
		}
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
		document := get(h, "/?path="+url.QueryEscape(path)).Body.String()
		if got, want := strings.Contains(document, "Purge all"), path != "blog/*"; got != want {
			t.Errorf("%s: buttons %v, want %v", path, got, want)
		}
	}
}
