package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/isr-go/isr"
)

// An origin is a static site in a server of its own, which notes what it is asked.
type origin struct {
	*httptest.Server
	dir string

	mu   sync.Mutex
	seen []exchange // guarded by mu
}

type exchange struct {
	method, path, ifModifiedSince, host string
	status                              int
}

func newOrigin(t *testing.T) *origin {
	o := &origin{dir: t.TempDir()}
	o.write(t, "index.html", "<!doctype html><title>Home</title>"+strings.Repeat("<p>Welcome.</p>\n", 100))
	files := http.FileServer(http.Dir(o.dir))
	o.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		files.ServeHTTP(&notingWriter{w, o, r}, r)
	}))
	t.Cleanup(o.Close)
	return o
}

func (o *origin) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(o.dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (o *origin) exchanges() []exchange {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.seen)
}

// A notingWriter records an exchange before the client has its response.
type notingWriter struct {
	http.ResponseWriter
	o *origin
	r *http.Request
}

func (w *notingWriter) WriteHeader(status int) {
	w.o.mu.Lock()
	w.o.seen = append(w.o.seen, exchange{w.r.Method, w.r.URL.Path, w.r.Header.Get("If-Modified-Since"), w.r.Host, status})
	w.o.mu.Unlock()
	w.ResponseWriter.WriteHeader(status)
}

// newConfig parses flags, which have to be right.
func newConfig(t *testing.T, args ...string) *config {
	t.Helper()
	c, err := parseFlags(args, nil, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// front puts the proxy in front of an origin, on a server.
func front(t *testing.T, origin string, args ...string) (*isr.Site, *httptest.Server) {
	t.Helper()
	p, err := newProxy(newConfig(t, append([]string{"-origin", origin, "-session", "session"}, args...)...))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(p.handler)
	t.Cleanup(server.Close)
	return p.site, server
}

type answer struct {
	status      int
	header      http.Header
	body        string
	cacheStatus string
}

// get reports an error where an answer breaks off.
func get(url string, edit ...func(*http.Request)) (answer, error) {
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return answer{}, err
	}
	for _, f := range edit {
		f(req)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(body), resp.Header.Get("Cache-Status")}, err
}

func mustGet(t *testing.T, url string, edit ...func(*http.Request)) answer {
	t.Helper()
	a, err := get(url, edit...)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func onlyPage(t *testing.T, site *isr.Site) isr.Page {
	t.Helper()
	pages := slices.Collect(site.Pages())
	if len(pages) != 1 {
		t.Fatalf("%d pages, want one", len(pages))
	}
	return pages[0]
}

func TestSecondVisitIsAHit(t *testing.T) {
	origin := newOrigin(t)
	_, server := front(t, origin.URL, "-ttl", "1h")

	first, second := mustGet(t, server.URL+"/"), mustGet(t, server.URL+"/")
	if first.cacheStatus != "isr; fwd=uri-miss; stored" || !strings.HasPrefix(second.cacheStatus, "isr; hit; ttl=") {
		t.Errorf("Cache-Status %q, then %q", first.cacheStatus, second.cacheStatus)
	}
	if first.status != 200 || !strings.Contains(first.body, "Welcome") || second.body != first.body {
		t.Errorf("status %d, bodies %q and %q", first.status, first.body, second.body)
	}
	host := strings.TrimPrefix(origin.URL, "http://")
	want := []exchange{{"GET", "/", "", host, 200}}
	if got := origin.exchanges(); !slices.Equal(got, want) {
		t.Errorf("the origin saw %v, want %v", got, want)
	}

	again := mustGet(t, server.URL+"/", func(r *http.Request) {
		r.Header.Set("If-Modified-Since", first.header.Get("Last-Modified"))
		r.Host = "another.name.example"
	})
	if again.status != 304 || len(origin.exchanges()) != 1 {
		t.Errorf("status %d after %d exchanges, want 304 from memory", again.status, len(origin.exchanges()))
	}
}

func TestUnchangedPageIsRenewedWithoutABody(t *testing.T) {
	origin := newOrigin(t)
	site, server := front(t, origin.URL, "-ttl", "1ns") // at once stale
	first := mustGet(t, server.URL+"/")
	generated := onlyPage(t, site).Generated
	stale := mustGet(t, server.URL+"/")
	if !strings.HasSuffix(stale.cacheStatus, "detail=stale") {
		t.Errorf("Cache-Status %q, want a stale hit", stale.cacheStatus)
	}
	// It waits for the page that is being renewed behind the second visit.
	if err := site.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	modified := first.header.Get("Last-Modified")
	host := strings.TrimPrefix(origin.URL, "http://")
	want := []exchange{{"GET", "/", "", host, 200}, {"GET", "/", modified, host, 304}}
	if got := origin.exchanges(); modified == "" || !slices.Equal(got, want) {
		t.Errorf("the origin saw %v, want %v", got, want)
	}
	if renewed := onlyPage(t, site); renewed.Failures != 0 || !renewed.Generated.After(generated) {
		t.Errorf("generated at %v with %d failures, want a page that the 304 has renewed since %v", renewed.Generated, renewed.Failures, generated)
	}
	if third := mustGet(t, server.URL+"/"); third.status != 200 || third.body != first.body {
		t.Errorf("status %d, body %q, want the first page", third.status, third.body)
	}
}

func TestChangedPageIsReplaced(t *testing.T) {
	origin := newOrigin(t)
	site, server := front(t, origin.URL, "-ttl", "1ns")
	mustGet(t, server.URL+"/")
	origin.write(t, "index.html", "Moved.")
	later := time.Now().Add(time.Hour)
	if err := os.Chtimes(filepath.Join(origin.dir, "index.html"), later, later); err != nil {
		t.Fatal(err)
	}
	mustGet(t, server.URL+"/")
	if err := site.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a := mustGet(t, server.URL+"/"); a.body != "Moved." {
		t.Errorf("body %q, want the new one", a.body)
	}
}

// An unsteady origin breaks its responses off while it is broken.
type unsteady struct {
	mu     sync.Mutex
	broken bool // guarded by mu
}

func (u *unsteady) set(broken bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.broken = broken
}

func (u *unsteady) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	u.mu.Lock()
	defer u.mu.Unlock()
	io.WriteString(w, "The first half")
	http.NewResponseController(w).Flush() // so that it is sent in chunks, without its length
	if u.broken {
		panic(http.ErrAbortHandler)
	}
	io.WriteString(w, " and the second.")
}

func TestHalfAPageIsNeverKept(t *testing.T) {
	const whole = "The first half and the second."
	state := &unsteady{broken: true}
	origin := httptest.NewServer(state)
	t.Cleanup(origin.Close)
	site, server := front(t, origin.URL, "-ttl", "1h")

	// There is no page yet: the visitor gets an error.
	if a, err := get(server.URL + "/"); err == nil && a.status < 500 {
		t.Errorf("got %d %q, want an error", a.status, a.body)
	}
	if n := len(slices.Collect(site.Pages())); n != 0 {
		t.Errorf("%d pages in the cache, want none", n)
	}

	state.set(false)
	if a := mustGet(t, server.URL+"/"); a.cacheStatus != "isr; fwd=uri-miss; stored" || a.body != whole {
		t.Errorf("got %q %q", a.cacheStatus, a.body)
	}

	// Now there is one, and it stays.
	state.set(true)
	if err := site.Revalidate(t.Context(), "/"); err == nil {
		t.Error("revalidated with half a page")
	}
	if a := mustGet(t, server.URL+"/"); a.status != 200 || a.body != whole {
		t.Errorf("got %d %q, want the last good page", a.status, a.body)
	}
}

func TestWhatGoesThrough(t *testing.T) {
	type request struct{ Method, Cookie, Body, Host, For, Proto string }
	var mu sync.Mutex
	var seen []request
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, request{r.Method, r.Header.Get("Cookie"), string(body), r.Host, r.Header.Get("X-Forwarded-For"), r.Header.Get("X-Forwarded-Proto")})
		fmt.Fprintf(w, "answer %d", len(seen))
	}))
	t.Cleanup(origin.Close)
	_, server := front(t, origin.URL, "-public", "https://www.example.com", "-ttl", "1h", "-trust", "none")
	with := func(cookie string) func(*http.Request) {
		return func(r *http.Request) {
			r.Header.Set("Cookie", cookie)
			r.Header.Set("X-Forwarded-For", "192.0.2.1")
		}
	}

	mustGet(t, server.URL+"/form", with("theme=dark"))
	if a := mustGet(t, server.URL+"/form", with("session=7")); a.cacheStatus != "isr; fwd=bypass" || a.body != "answer 2" {
		t.Errorf("with a session: %q %q", a.cacheStatus, a.body)
	}
	resp, err := http.Post(server.URL+"/form", "text/plain", strings.NewReader("hello"))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if got := resp.Header.Get("Cache-Status"); got != "isr; fwd=method" {
		t.Errorf("POST: Cache-Status %q", got)
	}
	if a := mustGet(t, server.URL+"/form"); a.body != "answer 4" {
		t.Errorf("after the POST: %q, want a page that was made since", a.body)
	}

	want := []request{
		{"GET", "", "", "www.example.com", "0.0.0.0", "https"},
		{"GET", "session=7", "", "www.example.com", "127.0.0.1", "https"},
		{"POST", "", "hello", "www.example.com", "127.0.0.1", "https"},
		{"GET", "", "", "www.example.com", "0.0.0.0", "https"},
	}
	mu.Lock()
	defer mu.Unlock()
	if !slices.Equal(seen, want) {
		t.Errorf("the origin saw\n%v, want\n%v", seen, want)
	}
}

func TestPagesOutliveTheOrigin(t *testing.T) {
	origin := newOrigin(t)
	site, server := front(t, origin.URL, "-ttl", "1ns")
	first := mustGet(t, server.URL+"/")
	origin.Close()
	for range 3 {
		if a := mustGet(t, server.URL+"/"); a.status != 200 || a.body != first.body {
			t.Errorf("got %d %q, want the page", a.status, a.body)
		}
	}
	if a := mustGet(t, server.URL+"/unknown"); a.status != http.StatusBadGateway || a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("unknown page: %d, Cache-Control %q", a.status, a.header.Get("Cache-Control"))
	}
	if err := site.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestRun is the whole program.
func TestRun(t *testing.T) {
	p := start(t, "-origin", newOrigin(t).URL)
	if a := mustGet(t, p.url); !strings.Contains(a.body, "Welcome") {
		t.Errorf("body %q", a.body)
	}
	if err := p.end(); err != nil {
		t.Error(err)
	}
}

// The pages of the origin's sitemap are there before anyone asks, and it says how far it is.
func TestSitemapIsPrerendered(t *testing.T) {
	origin := newOrigin(t)
	origin.write(t, "about.html", "About")
	origin.write(t, "sitemap.xml", "<urlset><url><loc>"+origin.URL+"/</loc></url><url><loc>"+origin.URL+"/about.html</loc></url>"+
		"<url><loc>"+origin.URL+"/missing</loc></url><url><loc>https://elsewhere.example/</loc></url></urlset>")
	p := start(t, "-origin", origin.URL, "-sitemap", "/sitemap.xml")
	p.until("warmed 3, ")
	if want := `"https://elsewhere.example/": sitemap: is not at ` + origin.URL; !slices.Contains(p.said, want) {
		t.Errorf("says %q, without %s", p.said, want)
	}
	if a := mustGet(t, p.url+"/about.html"); !strings.HasPrefix(a.cacheStatus, "isr; hit") {
		t.Errorf("a page of the sitemap: %s", a.cacheStatus)
	}
	if err := p.end(); err != nil {
		t.Error(err)
	}
}
