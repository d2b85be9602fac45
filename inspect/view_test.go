package inspect_test

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/inspect"
)

func TestTable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newApp(isr.Options{})
		a.inEveryState()
		a.site.RevalidateTag(t.Context(), "post-1")
		h := inspect.Handler(a.site, inspect.Options{})
		got := rows(get(h, "/").Body.String())
		for i := range got {
			got[i] = slices.Delete(got[i], 5, 6) // the size
		}
		want := [][]string{
			{"/blog/1 http://example.com route /blog/{id}", "stale", "5s", "invalidated", "0", "200", "0 µs", "blog post-1", ""},
			{"/cookie http://example.com", "uncacheable", "3s", "7s", "0", "–", "0 µs", "",
				"not stored: it sets a cookie: set it in middleware outside of isr, or set Route.Bypass"},
			{"/expired http://example.com route /expired", "expired", "5s", "4s over", "0", "200", "0 µs", "", ""},
			{"/failing http://example.com route /failing", "failing stale", "5s", "4s over", "1", "200", "0 µs", "",
				"the handler answered 503 Service Unavailable"},
			{"/forever http://example.com route /forever", "fresh", "5s", "no limit", "1", "200", "0 µs", "static", ""},
			{"/private http://example.com", "uncacheable", "3s", "7s", "0", "–", "0 µs", "", "not stored: it is private by its Cache-Control"},
			{"/stale http://example.com route /stale", "stale", "5s", "4s over", "0", "200", "0 µs", "blog old", ""},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestJSONEqualsTable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newApp(isr.Options{})
		a.inEveryState()
		h := inspect.Handler(a.site, inspect.Options{})
		for _, target := range []string{"/", "/?sort=-age", "/?tag=blog", "/?state=stale", "/?limit=2&page=2", "/?path=nothing"} {
			rep := asJSON(t, h, target)
			var want [][]string
			for _, p := range rep.Table.Pages {
				first := p.Path + " " + p.Scheme + "://" + p.Host
				if p.Route != "" {
					first += " route " + p.Route
				}
				state := p.State
				if p.Phase != p.State {
					state += " " + p.Phase
				}
				trouble, status := p.Error, strconv.Itoa(p.Status)
				size := fmt.Sprintf("%.1f KiB", float64(p.Size)/1024)
				if p.Size < 1024 {
					size = fmt.Sprintf("%d B", p.Size)
				}
				if p.NotStored != "" {
					trouble, status = "not stored: it "+p.NotStored, "–"
				}
				left := "no limit"
				if p.LeftSeconds != nil && *p.LeftSeconds < 0 {
					left = fmt.Sprintf("%vs over", -*p.LeftSeconds)
				} else if p.LeftSeconds != nil {
					left = (time.Duration(*p.LeftSeconds) * time.Second).String()
					left = strings.NewReplacer("m", "m ").Replace(left)
				}
				want = append(want, []string{first, state, fmt.Sprintf("%vs", p.AgeSeconds), left, fmt.Sprint(p.Hits),
					size, status, "0 µs", strings.Join(p.Tags, " "), trouble})
			}
			document := get(h, target).Body.String()
			if diff := cmp.Diff(want, rows(document)); diff != "" {
				t.Errorf("%s (-JSON +table):\n%s", target, diff)
			}
			if caption := fmt.Sprintf("of %d page", rep.Table.Matching); rep.Table.LastPage > 1 && !strings.Contains(document, caption) {
				t.Errorf("%s: no caption with %q", target, caption)
			}
			for state, n := range rep.Table.States {
				if facet := fmt.Sprintf("%s %d", state, n); !strings.Contains(text(document), facet) {
					t.Errorf("%s: no %q", target, facet)
				}
			}
		}
	})
}

func TestFilterSortPage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newApp(isr.Options{})
		a.inEveryState()
		a.visit("/blog/2", "/blog/2", "/blog/2", "/K%C3%A4se?q=Gr%C3%B6%C3%9Fe", "/forever")
		h := inspect.Handler(a.site, inspect.Options{})
		tests := []struct {
			query, want string
		}{
			{"", "/K%C3%A4se /blog/1 /blog/2 /cookie /expired /failing /forever /private /stale"},
			{"sort=-path", "/stale /private /forever /failing /expired /cookie /blog/2 /blog/1 /K%C3%A4se"},
			{"sort=state", "/failing /expired /stale /K%C3%A4se /blog/1 /blog/2 /forever /cookie /private"},
			{"sort=-state", "/cookie /private /K%C3%A4se /blog/1 /blog/2 /forever /stale /expired /failing"},
			{"sort=age", "/K%C3%A4se /blog/2 /cookie /private /blog/1 /expired /failing /forever /stale"},
			{"sort=left", "/expired /failing /stale /cookie /private /blog/1 /K%C3%A4se /blog/2 /forever"},
			{"sort=-hits&limit=3", "/blog/2 /forever /failing"},
			{"sort=-hits&limit=3&page=2", "/K%C3%A4se /blog/1 /cookie"},
			{"sort=-hits&limit=3&page=3", "/expired /private /stale"},
			{"sort=-hits&limit=3&page=4", "/expired /private /stale"},
			{"limit=4&page=2147483647", "/stale"},
			{"sort=size&path=blog%2F", "/blog/2 /blog/1"}, // the first counts the header lines that both have
			{"sort=status&state=uncacheable", "/cookie /private"},
			{"sort=took&limit=1", "/K%C3%A4se"},
			{"tag=blog", "/blog/1 /blog/2 /stale"},
			{"tag=blo", ""},
			{"tag=blog&state=stale", "/stale"},
			{"tag=blog&path=STAL", "/stale"},
			{"state=failing", "/failing"},
			{"state=stale&path=failing", ""},
			{"path=k%C3%A4se", "/K%C3%A4se"},
			{"path=K%25C3%25A4", "/K%C3%A4se"},
			{"path=gr%C3%B6%C3%9Fe", "/K%C3%A4se"},
			{"path=example.com/f", "/failing /forever"},
			{"path=+/forever+", "/forever"},
		}
		for _, tt := range tests {
			var got []string
			for _, p := range asJSON(t, h, "/?"+tt.query).Table.Pages {
				got = append(got, p.Path)
			}
			if diff := cmp.Diff(tt.want, strings.Join(got, " ")); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tt.query, diff)
			}
		}
	})
}

func TestLinks(t *testing.T) {
	a := newApp(isr.Options{})
	for i := range 5 {
		a.visit(fmt.Sprintf("/blog/%d", i))
	}
	h := inspect.Handler(a.site, inspect.Options{})
	document := get(h, "/?limit=2&page=2&sort=-hits&tag=blog").Body.String()
	for _, want := range []string{
		`<th scope="col" aria-sort="descending" class="k-hits"><a href="?limit=2&amp;sort=hits&amp;tag=blog">Hits</a>`,
		`<th scope="col" class="k-age"><a href="?limit=2&amp;sort=-age&amp;tag=blog">Age</a>`,
		`<th scope="col" class="k-path"><a href="?limit=2&amp;tag=blog">Page</a>`,
		`<a href="?limit=2&amp;sort=-hits&amp;state=fresh&amp;tag=blog"><span class="state s-fresh">fresh</span> 5</a>`,
		`<a rel="prev" href="?limit=2&amp;sort=-hits&amp;tag=blog">Previous</a>`,
		`<a rel="next" href="?limit=2&amp;page=3&amp;sort=-hits&amp;tag=blog">Next</a>`,
		`<a href="?format=json&amp;limit=2&amp;page=2&amp;sort=-hits&amp;tag=blog">JSON</a>`,
		`<a class="tag" href="?limit=2&amp;sort=-hits&amp;tag=post-`,
		`3 to 4 of 5 pages that match`,
	} {
		if !strings.Contains(document, want) {
			t.Errorf("the page has no %s", want)
		}
	}
	if n := strings.Count(document, ` aria-sort="`); n != 1 {
		t.Errorf("%d columns have aria-sort, want one", n)
	}
}

func TestDetail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newApp(isr.Options{})
		for _, language := range []string{"de", "en"} {
			r := request("GET", "/lang?x=1")
			r.Header.Set("Accept-Language", language)
			a.site.ServeHTTP(httptest.NewRecorder(), r)
		}
		time.Sleep(65 * time.Second)
		h := inspect.Handler(a.site, inspect.Options{Actions: true})
		pages := asJSON(t, h, "/").Table.Pages
		german := pages[slices.IndexFunc(pages, func(p page) bool { return p.Varied.Get("Accept-Language") == "de" })]
		got := asJSON(t, h, "/?id="+german.ID).Page
		left := 3535.0
		want := &page{
			ID: german.ID, URL: "http://example.com/lang?x=1", Scheme: "http", Host: "example.com", Path: "/lang", Query: "x=1",
			Route: "/lang", State: "fresh", Phase: "fresh", AgeSeconds: 65, TTLSeconds: 3600, LeftSeconds: &left,
			Size: german.Size, Tags: []string{}, Status: 200, Covers: 2, ETag: got.ETag,
			CacheControl: "public, max-age=0, s-maxage=60",
			Varied:       http.Header{"Accept-Language": {"de"}},
			Header: http.Header{
				"Accept-Ranges":  {"bytes"},
				"Cache-Control":  {"public, max-age=0, s-maxage=60"},
				"Content-Length": {"14"}, "Content-Type": {"text/plain; charset=utf-8"}, "Etag": {got.ETag},
				"Vary": {"Accept-Language"}, "X-Test": {"a & b"},
			},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("JSON (-want +got):\n%s", diff)
		}
		w := get(h, "/?sort=-age&id="+german.ID)
		read := text(w.Body.String())
		for _, part := range []string{
			"/lang?x=1 fresh Revalidate Purge The buttons concern all 2 stored pages at this URL, whatever their headers.",
			"Generated 2000-01-01 00:00:00 UTC Age 1m 5s Lifetime 1h Time left 58m 55s Took 0 µs Status 200",
			"Cache-Control sent public, max-age=0, s-maxage=60",
			"Scheme http Host example.com Path /lang Query x=1 Accept-Language de Route /lang",
			"X-Test a & b",
			"Other pages at this URL fresh /lang?x=1 http://example.com Accept-Language: en",
		} {
			if !strings.Contains(read, part) {
				t.Errorf("the page does not say %q:\n%s", part, read)
			}
		}
		if back := `<a href="?sort=-age">← All pages</a>`; !strings.Contains(w.Body.String(), back) {
			t.Errorf("no way back: %s", back)
		}
	})
}

// The detail of a page that failed, or is not stored, says why.
func TestDetailOfFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newApp(isr.Options{})
		a.inEveryState()
		a.visit("/failing")
		synctest.Wait()
		a.site.RevalidateTag(t.Context(), "post-1", "static")
		h := inspect.Handler(a.site, inspect.Options{})
		tests := []struct{ path, want string }{
			{"/failing", "failing the stored page is stale Last error: the handler answered 503 Service Unavailable (2 in a row)"},
			{"/private", "uncacheable Why it is not stored: the response is private by its Cache-Control. Requests go straight"},
			{"/cookie", "Why it is not stored: the response sets a cookie: set it in middleware outside of isr, or set Route.Bypass."},
			{"/blog/1", "stale Invalidated before its time was over."},
			{"/forever", "Lifetime until revalidated on demand Time left invalidated"},
			{"/forever", "Cache-Control sent public, max-age=0, must-revalidate"},
		}
		for _, tt := range tests {
			if read := text(get(h, "/?id="+id(t, h, tt.path)).Body.String()); !strings.Contains(read, tt.want) {
				t.Errorf("%s: the page does not say %q:\n%s", tt.path, tt.want, read)
			}
		}
	})
}

// A page that its handler calls stale from the start has no lifetime left.
func TestDetailOfNeverFresh(t *testing.T) {
	site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=0")
	}), isr.Options{})
	site.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/a", nil))
	h := inspect.Handler(site, inspect.Options{})
	if read := text(get(h, "/?id="+id(t, h, "/a")).Body.String()); !strings.Contains(read, "Lifetime none Time left due") || !strings.Contains(read, "Cache-Control sent max-age=0 ") {
		t.Errorf("the page reads:\n%s", read)
	}
}

func TestMissing(t *testing.T) {
	h := inspect.Handler(newApp(isr.Options{}).site, inspect.Options{})
	w := get(h, "/?id=unknown&tag=blog")
	if read := text(w.Body.String()); w.Code != http.StatusNotFound || !strings.Contains(read, "The cache does not hold this page.") {
		t.Errorf("got %d: %s", w.Code, read)
	}
	r := get(h, "/?id=unknown&format=json")
	if rep := decode(t, r); r.Code != http.StatusNotFound || !rep.Missing {
		t.Errorf("JSON: got %d: %s", r.Code, r.Body)
	}
}

func TestAges(t *testing.T) {
	tests := []struct {
		after     time.Duration
		age, left string
	}{
		{0, "0s", "1h 0m"},
		{59*time.Second + 999*time.Millisecond, "59s", "59m 0s"},
		{61 * time.Second, "1m 1s", "58m 59s"},
		{time.Hour, "1h 0m", "0s"},
		{26*time.Hour + 3*time.Minute, "1d 2h", "1d 1h over"},
	}
	for _, tt := range tests {
		synctest.Test(t, func(t *testing.T) {
			a := newApp(isr.Options{})
			a.visit("/blog/1")
			time.Sleep(tt.after)
			row := rows(get(inspect.Handler(a.site, inspect.Options{}), "/").Body.String())[0]
			if row[2] != tt.age || row[3] != tt.left {
				t.Errorf("after %v: age %q, left %q, want %q, %q", tt.after, row[2], row[3], tt.age, tt.left)
			}
		})
	}
}

// evil is what visitors and handlers may send to a person who looks at the page.
const evil = `<script>alert(1)</script>"'><img src=x onerror=alert(1)>`

func TestEscaping(t *testing.T) {
	broken := false
	var rec inspect.Recorder
	site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if broken {
			panic(evil)
		}
		w.Header().Set("Cache-Tag", evil)
		w.Header().Set("X-Evil", evil)
		w.Header().Set("Etag", `"`+strings.ReplaceAll(strings.ReplaceAll(evil, " ", ""), `"`, "")+`"`)
	}), isr.Options{Default: isr.Route{TTL: -1}, Observe: rec.Observe, Routes: map[string]isr.Route{
		"/": {TTL: time.Hour, Vary: []string{"X-Evil"}, Tags: []string{evil}},
	}})
	r := request("GET", "/<script>alert(1)</script>?q="+url.QueryEscape(evil))
	r.Host = strings.ToLower(evil)
	r.Header.Set("X-Evil", evil)
	site.ServeHTTP(httptest.NewRecorder(), r)
	h := inspect.Handler(site, inspect.Options{Actions: true, Recorder: &rec})
	rep := asJSON(t, h, "/")
	if n := len(rep.Table.Pages); n != 1 {
		t.Fatalf("%d pages, want one", n)
	}
	stored := rep.Table.Pages[0]
	if stored.Path != "/%3Cscript%3Ealert%281%29%3C/script%3E" || stored.Host != evil || stored.Tags[0] != evil {
		t.Errorf("got path %q, host %q, tags %q", stored.Path, stored.Host, stored.Tags)
	}
	if got := id(t, h, "<script>"); got != stored.ID {
		t.Errorf("<script> finds %q, want %q", got, stored.ID)
	}
	if w := get(h, "/?format=json&path=alert"); strings.ContainsAny(w.Body.String(), "<>") {
		t.Errorf("JSON contains what could pass for HTML: %s", w.Body)
	}
	broken = true
	failed := post(h, "/", url.Values{"do": {"revalidate"}, "id": {stored.ID}})
	q := url.QueryEscape(evil)
	documents := map[string]*httptest.ResponseRecorder{
		"list": get(h, "/"), "detail": get(h, "/?id="+stored.ID), "filter": get(h, "/?path="+q+"&tag="+q),
		"unknown": get(h, "/?id="+q), "failed": failed,
		"tag":   post(h, "/?tag="+q, url.Values{"do": {"purge"}, "tag": {evil}}),
		"other": post(h, "/", url.Values{"do": {"purge"}, "tag": {evil + "\n"}}),
	}
	for name, w := range documents {
		document := w.Body.String()
		if n := strings.Count(document, "<script"); n != 1 {
			t.Errorf("%s has %d scripts, want its own", name, n)
		}
		for _, part := range []string{"<img", "ZgotmplZ"} {
			if strings.Contains(document, part) {
				t.Errorf("%s contains %s", name, part)
			}
		}
	}
	if got := rows(documents["list"].Body.String()); !strings.Contains(got[0][0], "http://"+evil) {
		t.Errorf("the host is not shown as it is: %q", got[0])
	}
}

// A key may hold secrets of its visitor.
func TestCredentialsAreHidden(t *testing.T) {
	site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}), isr.Options{
		Default: isr.Route{Vary: []string{"Authorization", "Accept-Language"}},
	})
	for _, token := range []string{"s3cret", "t0ken"} {
		r := request("GET", "/")
		r.Header.Set("Authorization", "Bearer "+token)
		r.Header.Set("Accept-Language", "de")
		site.ServeHTTP(httptest.NewRecorder(), r)
	}
	h := inspect.Handler(site, inspect.Options{})
	pages := asJSON(t, h, "/").Table.Pages
	want := http.Header{"Authorization": {"(hidden)"}, "Accept-Language": {"de"}}
	if len(pages) != 2 || pages[0].ID == pages[1].ID {
		t.Fatalf("got %d pages, want two: %v", len(pages), pages)
	}
	for _, target := range []string{"/", "/?format=json", "/?id=" + pages[0].ID, "/?format=json&id=" + pages[0].ID} {
		if document := get(h, target).Body.String(); strings.Contains(document, "s3cret") || strings.Contains(document, "t0ken") {
			t.Errorf("%s tells a token", target)
		}
	}
	if diff := cmp.Diff(want, asJSON(t, h, "/?id="+pages[0].ID).Page.Varied); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for p := range site.Pages() { // whose headers are those of the cache
		if p.Varied.Get("Authorization") == "(hidden)" {
			t.Errorf("the page itself was changed")
		}
	}
}

func TestContentSecurityPolicy(t *testing.T) {
	a := newApp(isr.Options{})
	a.visit("/blog/1")
	h := inspect.Handler(a.site, inspect.Options{Actions: true})
	hash := func(s string) string {
		sum := sha256.Sum256([]byte(s))
		return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
	}
	for _, target := range []string{"/", "/?id=" + id(t, h, "/blog/1"), "/?id=unknown"} {
		w := get(h, target)
		document := w.Body.String()
		only := func(pattern string) string {
			all := regexp.MustCompile(pattern).FindAllStringSubmatch(document, -1)
			if len(all) != 1 {
				t.Fatalf("%s: %d times %s, want once", target, len(all), pattern)
			}
			return all[0][1]
		}
		want := map[string]string{
			"Cache-Control": "no-store",
			"Content-Security-Policy": "default-src 'none'; style-src " + hash(only(`(?s)<style>(.*?)</style>`)) +
				"; script-src " + hash(only(`(?s)<script>(.*?)</script>`)) +
				"; connect-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'" +
				"; require-trusted-types-for 'script'; trusted-types 'none'",
			"Content-Type": "text/html; charset=utf-8", "Cross-Origin-Opener-Policy": "same-origin",
			"Cross-Origin-Resource-Policy": "same-origin", "Referrer-Policy": "same-origin", "Vary": "Accept",
			"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Content-Length": strconv.Itoa(len(document)),
		}
		got := make(map[string]string)
		for name := range w.Header() {
			got[name] = w.Header().Get(name)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: headers (-want +got):\n%s", target, diff)
		}
		if m := regexp.MustCompile(`(?i)\s(style|on[a-z]+)=|@import|url\(`).FindString(document); m != "" {
			t.Errorf("%s contains %q, which the policy forbids", target, m)
		}
	}
}

func TestAccessible(t *testing.T) {
	a := newApp(isr.Options{})
	a.visit("/blog/1", "/blog/2")
	h := inspect.Handler(a.site, inspect.Options{Actions: true})
	document := get(h, "/?limit=1").Body.String()
	for _, want := range []string{
		`<html lang="en">`, `<meta name="viewport"`, `<caption`, `<th scope="row"`, `aria-current="true"`, `<output class="outcome">`,
		`aria-label="Revalidate /blog/1"`, `aria-label="Purge /blog/1"`, `href="#main"`, `id="main"`, `prefers-color-scheme: dark`, `:focus-visible`,
	} {
		if !strings.Contains(document, want) {
			t.Errorf("the page has no %s", want)
		}
	}
	for _, m := range regexp.MustCompile(`<(?:input|select)[^>]*>`).FindAllString(document, -1) {
		if strings.Contains(m, `type="hidden"`) {
			continue
		}
		name := regexp.MustCompile(`id="([^"]*)"`).FindStringSubmatch(m)
		if name == nil || !strings.Contains(document, `<label for="`+name[1]+`">`) {
			t.Errorf("%s has no label", m)
		}
	}
	seen := make(map[string]bool)
	for _, m := range regexp.MustCompile(`\sid="([^"]*)"`).FindAllStringSubmatch(document, -1) {
		if seen[m[1]] {
			t.Errorf("two elements have the id %s", m[1])
		}
		seen[m[1]] = true
	}
}

// fill stores many small pages.
func fill(tb testing.TB, n int) *isr.Site {
	tb.Helper()
	site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}), isr.Options{MaxBytes: 1 << 30, Default: isr.Route{Tags: []string{"all"}}})
	for i := range n {
		site.ServeHTTP(httptest.NewRecorder(), request("GET", fmt.Sprintf("/page/%06d", i)))
	}
	if got := site.Stats().Pages; got != n {
		tb.Fatalf("%d pages are stored, want %d", got, n)
	}
	return site
}

func TestManyPages(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes its time to fill the cache")
	}
	const n = 20_000
	h := inspect.Handler(fill(t, n), inspect.Options{Actions: true})
	tests := []struct {
		query, first, caption string
		rows, bytes           int
	}{
		{"", "/page/000000", "1 to 50 of 20,000 pages", 50, 150 << 10},
		{"?page=2", "/page/000050", "51 to 100 of 20,000 pages", 50, 150 << 10},
		{"?page=400", "/page/019950", "19,951 to 20,000 of 20,000 pages", 50, 150 << 10},
		{"?sort=-path&page=399", "/page/000099", "19,901 to 19,950 of 20,000 pages", 50, 150 << 10},
		{"?page=99999&tag=all&sort=-size", "/page/019950", "19,951 to 20,000 of 20,000 pages that match", 50, 150 << 10},
		{"?path=4242", "/page/004242", "2 pages that match", 2, 100 << 10},
		{"?limit=500", "/page/000000", "1 to 500 of 20,000 pages", 500, 1 << 20},
	}
	for _, tt := range tests {
		document := get(h, "/"+tt.query).Body.String()
		got := rows(document)
		if len(got) != tt.rows || !strings.HasPrefix(got[0][0], tt.first+" ") {
			t.Errorf("%s: %d rows from %s, want %d from %s", tt.query, len(got), got[0][0], tt.rows, tt.first)
		}
		if !strings.Contains(text(document), tt.caption+" ") {
			t.Errorf("%s: no caption %q", tt.query, tt.caption)
		}
		if len(document) > tt.bytes {
			t.Errorf("%s: %d bytes, want at most %d", tt.query, len(document), tt.bytes)
		}
	}
}

func TestLongNames(t *testing.T) {
	long := strings.Repeat("x", 10_000)
	var tags []string
	for i := range 120 {
		tags = append(tags, strings.Repeat("t", 200)+strconv.Itoa(i))
	}
	site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Long", long)
	}), isr.Options{Default: isr.Route{Tags: tags, Vary: []string{"X-Vary"}}})
	for i := range 50 {
		r := request("GET", fmt.Sprintf("/%d/%s?%s", i, long, long))
		r.Header.Set("X-Vary", long)
		site.ServeHTTP(httptest.NewRecorder(), r)
	}
	h := inspect.Handler(site, inspect.Options{Actions: true})
	if n := get(h, "/").Body.Len(); n > 300<<10 {
		t.Errorf("the list has %d bytes", n)
	}
	page := asJSON(t, h, "/?path=%2F7%2F").Table.Pages[0]
	if want := "/7/" + long; page.Path != want || len(page.Tags) != 120 {
		t.Errorf("JSON shortens a path to %d bytes, or to %d tags", len(page.Path), len(page.Tags))
	}
	if n := get(h, "/?id="+page.ID).Body.Len(); n > 300<<10 {
		t.Errorf("the detail has %d bytes", n)
	}
}

func BenchmarkHandler(b *testing.B) {
	h := inspect.Handler(fill(b, 100_000), inspect.Options{})
	for name, target := range map[string]string{
		"first": "/", "sorted": "/?sort=-hits", "filtered": "/?path=99", "middle": "/?page=1000", "detail": "/?id=unknown", "json": "/?format=json",
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				get(h, target)
			}
		})
	}
}

func FuzzDocument(f *testing.F) {
	f.Add("/<script>alert(1)</script>", evil, evil, evil, evil, "path="+url.QueryEscape(evil))
	f.Add("/a%2fb", "a=1;b=2", "[::1]:80", "\xff\u202e", "tag, other", "tag=tag&sort=-age&limit=1&page=7")
	f.Add("/0", "", "0?", "", "", "")
	f.Add("/:evil.example", "", "", "", "", "id=%00&state=fresh")
	f.Fuzz(func(t *testing.T, path, query, host, varied, tags, inspected string) {
		site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Tag", tags)
			w.Header().Set("X-Evil", varied)
		}), isr.Options{Default: isr.Route{Vary: []string{"X-Evil"}}})
		r := request("GET", "/")
		r.URL = &url.URL{Path: "/" + strings.TrimPrefix(path, "/"), RawQuery: query}
		r.Host = host
		r.Header.Set("X-Evil", varied)
		site.ServeHTTP(httptest.NewRecorder(), r)
		h := inspect.Handler(site, inspect.Options{Actions: true})
		pages := asJSON(t, h, "/").Table.Pages
		if len(pages) == 0 && (strings.Contains(path, "//") || strings.Contains("/"+path+"/", "/.")) {
			return // not for the cache
		}
		if len(pages) != 1 {
			t.Fatalf("%d pages, want one", len(pages))
		}
		requests := []string{inspected, "", "id=" + pages[0].ID, "path=" + url.QueryEscape(path) + "&tag=" + url.QueryEscape(tags)}
		for _, rawQuery := range requests {
			r := request("GET", "/")
			r.URL.RawQuery = rawQuery
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			document := w.Body.String()
			if w.Header().Get("Content-Type") != "text/html; charset=utf-8" {
				continue // an error, or JSON: neither is taken for HTML
			}
			for part, want := range map[string]int{"<html": 1, "<script": 1, "</script": 1, "<style": 1, "</style": 1, "<img": 0, "<svg": 0} {
				if n := strings.Count(strings.ToLower(document), part); n != want {
					t.Errorf("?%s: %d times %s, want %d", rawQuery, n, part, want)
				}
			}
		}
		w := post(h, "/?format=json", url.Values{"do": {"purge"}, "id": {pages[0].ID}})
		if out := decode(t, w).Outcome; out.OK && len(asJSON(t, h, "/").Table.Pages) > 0 {
			t.Errorf("%s is said to be purged, and is not", pages[0].URL)
		}
	})
}
