package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/internal/isrtest"
)

// A visitor goes to a blog that runs inside of a synctest bubble, over HTTP.
type visitor struct {
	*testing.T
	blog   *blog
	client *http.Client
}

const ttl = 10 * time.Second

// visit runs a test with a blog whose pages are prerendered. The network is one that
// a bubble can see through.
func visit(t *testing.T, test func(v *visitor)) {
	synctest.Test(t, func(t *testing.T) {
		network := isrtest.NewNetwork()
		transport := &http.Transport{DialContext: network.DialContext}
		client := &http.Client{
			Transport:     transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
		blog, err := newBlog(config{
			origin:  "http://blog.example",
			webhook: "http://blog.example/api/revalidate",
			secret:  "open sesame",
			ttl:     ttl,
			log:     slog.New(slog.DiscardHandler),
			client:  client,
		})
		if err != nil {
			t.Fatal(err)
		}
		blog.prerender(t.Context(), io.Discard)
		server := &http.Server{Handler: blog.handler}
		go server.Serve(network)
		defer func() {
			transport.CloseIdleConnections()
			if err := errors.Join(server.Shutdown(t.Context()), blog.site.Shutdown(t.Context())); err != nil {
				t.Error(err)
			}
		}()
		test(&visitor{t, blog, client})
	})
}

// A page is what a visitor gets.
type page struct {
	status      int
	header      http.Header
	body        string
	cacheStatus string
	generated   string
}

var generated = regexp.MustCompile(`id="generated" datetime="([^"]+)"`)

func (v *visitor) do(req *http.Request) page {
	v.Helper()
	resp, body := isrtest.Fetch(v.T, v.client, req)
	p := page{status: resp.StatusCode, header: resp.Header, body: body, cacheStatus: resp.Header.Get("Cache-Status")}
	if m := generated.FindStringSubmatch(p.body); m != nil {
		p.generated = m[1]
	}
	return p
}

func (v *visitor) get(path string) page {
	v.Helper()
	req, err := http.NewRequest(http.MethodGet, "http://blog.example"+path, nil)
	if err != nil {
		v.Fatal(err)
	}
	return v.do(req)
}

// send sends a form of the admin, and wants to be led back.
func (v *visitor) send(path string, fields ...string) {
	v.Helper()
	form := url.Values{}
	for i := 0; i < len(fields); i += 2 {
		form.Set(fields[i], fields[i+1])
	}
	req, err := http.NewRequest(http.MethodPost, "http://blog.example"+path, strings.NewReader(form.Encode()))
	if err != nil {
		v.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	if p := v.do(req); p.status != http.StatusSeeOther {
		v.Fatalf("POST %s: status %d\n%s", path, p.status, p.body)
	}
}

func (v *visitor) want(p page, status int, cacheStatus string) {
	v.Helper()
	if p.status != status || p.cacheStatus != cacheStatus {
		v.Errorf("got %d with Cache-Status %q, want %d with %q", p.status, p.cacheStatus, status, cacheStatus)
	}
}

func (v *visitor) contains(p page, text string, want bool) {
	v.Helper()
	if strings.Contains(p.body, text) != want {
		v.Errorf("contains %q: %v, want %v\n%s", text, !want, want, p.body)
	}
}

func TestEveryPageIsPrerendered(t *testing.T) {
	visit(t, func(v *visitor) {
		posts := v.blog.cms.all()
		if len(posts) != 25 {
			t.Errorf("%d posts, want 25", len(posts))
		}
		paths := []string{"/", "/about", "/search", "/style.css"}
		for _, p := range posts {
			paths = append(paths, p.Path())
		}
		for _, tag := range tagsOf(posts) {
			paths = append(paths, "/tag/"+tag)
		}
		for _, path := range paths {
			p := v.get(path)
			if p.status != http.StatusOK || !strings.HasPrefix(p.cacheStatus, "isr; hit") {
				t.Errorf("%s: %d %s", path, p.status, p.cacheStatus)
			}
			if path != "/style.css" && (p.generated == "" || !strings.Contains(p.body, `href="/admin"`)) {
				t.Errorf("%s: does not say when it was generated, or has no link to the admin", path)
			}
		}
	})
}

func TestEveryLinkLeadsSomewhere(t *testing.T) {
	href := regexp.MustCompile(`(?:href|action)="(/[^"]*)"`)
	visit(t, func(v *visitor) {
		seen := map[string]bool{"/": true}
		for todo := []string{"/"}; len(todo) > 0; todo = todo[1:] {
			p := v.get(todo[0])
			if p.status != http.StatusOK && p.status != http.StatusMethodNotAllowed {
				t.Errorf("%s: %d", todo[0], p.status)
			}
			for _, m := range href.FindAllStringSubmatch(p.body, -1) {
				if !seen[m[1]] {
					seen[m[1]] = true
					todo = append(todo, m[1])
				}
			}
		}
		if len(seen) < 60 { // the pages and their forms
			t.Errorf("only %d links", len(seen))
		}
	})
}

func TestStalePagesAreServedAndRenewed(t *testing.T) {
	visit(t, func(v *visitor) {
		first := v.get("/")
		v.want(first, 200, "isr; hit; ttl=10")
		time.Sleep(ttl + 2*time.Second)

		v.send("/admin/mode", "mode", "slow")
		stale := v.get("/?utm_source=letter")
		v.want(stale, 200, "isr; hit; ttl=-2; detail=stale")
		if stale.generated != first.generated {
			t.Errorf("generated at %s, want the first one's %s", stale.generated, first.generated)
		}
		time.Sleep(slowness)
		synctest.Wait()

		renewed := v.get("/")
		v.want(renewed, 200, "isr; hit; ttl=10")
		if renewed.generated == first.generated {
			t.Error("was not generated anew")
		}
	})
}

func TestEditShowsOnTheNextReload(t *testing.T) {
	visit(t, func(v *visitor) {
		v.send("/admin/post/has-it-changed", "title", "It <has>", "tags", "HTTP, Good News", "text", "One `a < b`.\r\n\r\nTwo.")

		p := v.get("/post/has-it-changed")
		v.want(p, 200, "isr; hit; ttl=30")
		v.contains(p, "<h1>It &lt;has&gt;</h1>", true)
		v.contains(p, "<p>One <code>a &lt; b</code>.</p>\n<p>Two.</p>", true)
		v.contains(v.get("/"), "It &lt;has&gt;", true)
		v.contains(v.get("/tag/good-news"), "It &lt;has&gt;", true)
		v.contains(v.get("/admin"), `POST {&#34;paths&#34;:[&#34;/post/has-it-changed&#34;,&#34;/&#34;],&#34;tags&#34;:[&#34;post:has-it-changed&#34;]}</code> <span class="reply">200`, true)

		// Its neighbours show its title. They are renewed behind their first visitor.
		neighbour := v.get("/post/two-clocks-for-one-page")
		v.want(neighbour, 200, "isr; hit; ttl=0; detail=stale")
		synctest.Wait()
		v.contains(v.get("/post/two-clocks-for-one-page"), "Newer: It &lt;has&gt;", true)

		// So do the pages of its tags, by that one tag, and the search.
		for _, path := range []string{"/tag/http", "/search?q=two"} {
			v.get(path)
			synctest.Wait()
			v.contains(v.get(path), "It &lt;has&gt;", true)
		}

		v.want(v.get("/post/compress-once"), 200, "isr; hit; ttl=30") // has nothing to do with it
	})
}

// A new post shows in the list, and at its own path, at once.
func TestNewPostShowsAtOnce(t *testing.T) {
	visit(t, func(v *visitor) {
		v.want(v.get("/post/something-new"), 404, "isr; fwd=uri-miss; stored")
		v.send("/admin/post", "title", "Something new", "tags", "caching", "text", "Under the sun.")

		v.contains(v.get("/"), `<a href="/post/something-new">Something new</a>`, true)
		p := v.get("/post/something-new")
		v.want(p, 200, "isr; hit; ttl=30")
		v.contains(p, `<article id="post-26">`, true)

		v.get("/tag/caching")
		synctest.Wait()
		v.contains(v.get("/tag/caching"), "Something new", true)

		v.contains(v.get("/about"), "25 posts", true) // it was not invalidated
		v.send("/admin/revalidate", "path", "/about")
		v.contains(v.get("/about"), "26 posts", true)
		v.send("/admin/revalidate", "path", "", "tag", "posts, post:something-new")
		v.contains(v.get("/admin"), `POST {&#34;tags&#34;:[&#34;posts&#34;,&#34;post:something-new&#34;]}</code> <span class="reply">200`, true)
	})
}

func TestDeletedPostIsGone(t *testing.T) {
	visit(t, func(v *visitor) {
		v.send("/admin/post/compress-once/delete")
		v.want(v.get("/post/compress-once"), 404, "isr; fwd=uri-miss; stored")
		v.contains(v.get("/"), "Compress once", false)
	})
}

func TestDeletedPostIsGoneEvenIfTheCMSFails(t *testing.T) {
	visit(t, func(v *visitor) {
		v.send("/admin/mode", "mode", "failing")
		v.send("/admin/post/compress-once/delete")
		v.want(v.get("/post/compress-once"), 503, "isr; fwd=uri-miss; fwd-status=503")
	})
}

// Pages stay up while the CMS fails or hangs.
func TestPagesStayUpWhileTheCMSFails(t *testing.T) {
	for mode, wait := range map[string]time.Duration{"failing": 0, "hanging": 2 * patience} {
		t.Run(mode, func(t *testing.T) {
			visit(t, func(v *visitor) {
				first := v.get("/post/compress-once")
				v.send("/admin/mode", "mode", mode)
				for range 3 {
					time.Sleep(time.Hour)
					start := time.Now()
					p := v.get("/post/compress-once")
					if p.status != 200 || p.generated != first.generated {
						t.Errorf("got %d, generated at %s, want the page of %s", p.status, p.generated, first.generated)
					}
					if took := time.Since(start); took != 0 {
						t.Errorf("had to wait for %v", took)
					}
				}
				synctest.Wait()

				// An edit cannot be shown yet, and the webhook says so, when the run
				// under way and its own have come to their ends.
				start := time.Now()
				v.send("/admin/post/compress-once", "title", "Compress twice", "text", "No.")
				if took := time.Since(start); took > wait {
					t.Errorf("the webhook took %v, want at most %v", took, wait)
				}
				v.contains(v.get("/admin"), `500 {&#34;message&#34;:&#34;Error revalidating&#34;}`, true)
				v.contains(v.get("/post/compress-once"), "Compress once", true)
				time.Sleep(patience)
				synctest.Wait() // the last attempt has failed, too

				v.send("/admin/mode", "mode", "ok")
				time.Sleep(30 * time.Second) // the longest pause between two attempts
				v.get("/post/compress-once")
				synctest.Wait()
				v.contains(v.get("/post/compress-once"), "Compress twice", true)
			})
		})
	}
}

func TestSearchShowsAPlaceholderFirst(t *testing.T) {
	visit(t, func(v *visitor) {
		v.send("/admin/mode", "mode", "slow")
		p := v.get("/search?q=midnight")
		v.want(p, 200, "isr; fwd=uri-miss; detail=placeholder")
		v.contains(p, "comes as soon as it is there", true)
		if p.header.Get("Refresh") != "1" || p.header.Get("Cache-Control") != "no-store" {
			t.Errorf("Refresh %q, Cache-Control %q", p.header.Get("Refresh"), p.header.Get("Cache-Control"))
		}
		time.Sleep(slowness)
		synctest.Wait()

		p = v.get("/search?q=midnight&from=letter")
		v.want(p, 200, "isr; hit; ttl=10")
		v.contains(p, "1 found for “midnight”", true)
	})
}

func TestAdminRefuses(t *testing.T) {
	visit(t, func(v *visitor) {
		for _, test := range []struct {
			name, path, form, site string
			status                 int
		}{
			{"a form on another site", "/admin/mode", "mode=failing", "cross-site", 403},
			{"an unknown mode", "/admin/mode", "mode=loud", "same-origin", 400},
			{"a post without a title", "/admin/post", "title=+&text=x", "same-origin", 422},
			{"an edit without a text", "/admin/post/compress-once", "title=x", "same-origin", 422},
			{"an edit of no post", "/admin/post/nothing", "title=x&text=x", "same-origin", 404},
			{"to delete no post", "/admin/post/nothing/delete", "", "same-origin", 404},
		} {
			req, err := http.NewRequest(http.MethodPost, "http://blog.example"+test.path, strings.NewReader(test.form))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			req.Header.Set("Sec-Fetch-Site", test.site)
			if p := v.do(req); p.status != test.status {
				t.Errorf("%s: status %d, want %d", test.name, p.status, test.status)
			}
		}
		if n, m := len(v.blog.cms.all()), v.blog.cms.currentMode(); n != 25 || m != ok {
			t.Errorf("%d posts and mode %s: something was changed", n, m)
		}
	})
}

// A name is the same with and without the dot that ends it, in -origin and in Host.
func TestAnswersForANameWithADot(t *testing.T) {
	for _, origin := range []string{"https://blog.example", "https://blog.example."} {
		h := onlyFor(origin, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		for host, want := range map[string]int{
			"blog.example": 200, "blog.example.": 200, "blog.example.:8080": 200, "localhost.": 200, "attacker.example.": 403, ".": 403,
		} {
			r, w := httptest.NewRequest(http.MethodGet, "/", nil), httptest.NewRecorder()
			r.Host = host
			if h.ServeHTTP(w, r); w.Code != want {
				t.Errorf("-origin %s, Host %s: status %d, want %d", origin, host, w.Code, want)
			}
		}
	}
}

// A page of another site whose name resolves to this machine has the same origin as the
// blog, as far as the browser can see (DNS rebinding).
func TestAnswersForItsOwnHostsAlone(t *testing.T) {
	visit(t, func(v *visitor) {
		for host, want := range map[string]int{
			"blog.example": 200, "BLOG.example:8080": 200, "localhost:8080": 200, "127.0.0.1": 200, "[::1]:8080": 200,
			"attacker.example": 403, "attacker.example:8080": 403, "localhost.attacker.example": 403, "127.0.0.1.attacker.example": 403,
		} {
			for _, path := range []string{"/", "/admin", "/debug/isr", "/debug/isr?format=json", "/api/revalidate"} {
				req, err := http.NewRequest(http.MethodGet, "http://blog.example"+path, nil)
				if err != nil {
					t.Fatal(err)
				}
				req.Host = host
				want := want
				if want == 200 && path == "/api/revalidate" {
					want = 401
				}
				if p := v.do(req); p.status != want {
					t.Errorf("GET %s of %s: status %d, want %d", path, host, p.status, want)
				}
			}
		}
		for _, path := range []string{"/admin/mode", "/debug/isr"} {
			req, err := http.NewRequest(http.MethodPost, "http://blog.example"+path, strings.NewReader("mode=failing&do=purge&tag=posts"))
			if err != nil {
				t.Fatal(err)
			}
			req.Host = "attacker.example"
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			req.Header.Set("Origin", "http://attacker.example")
			req.Header.Set("Sec-Fetch-Site", "same-origin")
			if p := v.do(req); p.status != http.StatusForbidden {
				t.Errorf("POST %s: status %d, want 403", path, p.status)
			}
		}
		if m := v.blog.cms.currentMode(); m != ok {
			t.Errorf("a request from elsewhere has made the CMS %s", m)
		}
		v.want(v.get("/"), 200, "isr; hit; ttl=10")
	})
}

func TestSlugsAreUnique(t *testing.T) {
	c := &cms{}
	for _, want := range []string{"a-b", "a-b-2", "3"} {
		title := "A, b!"
		if want == "3" {
			title = "…"
		}
		if p := c.add(title, "text", nil); p.Slug != want {
			t.Errorf("slug %q, want %q", p.Slug, want)
		}
	}
}

// TestRun is the whole program, on a real network.
func TestRun(t *testing.T) {
	t.Setenv("REVALIDATE_SECRET", "")
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	out, stdout := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, []string{"-addr", "localhost:0"}, stdout, io.Discard)
		stdout.Close()
	}()
	site, secret, prerendered := "", "", ""
	for lines := bufio.NewScanner(out); secret == "" && lines.Scan(); {
		line := lines.Text()
		if rest, ok := strings.CutPrefix(line, "prerendered "); ok {
			prerendered, _, _ = strings.Cut(rest, ",")
		}
		if rest, ok := strings.CutPrefix(line, "the blog:"); ok {
			site = strings.TrimSpace(rest)
		}
		if _, rest, ok := strings.Cut(line, "Bearer "); ok {
			secret, _, _ = strings.Cut(rest, `"`)
		}
	}
	go io.Copy(io.Discard, out)
	if site == "" || secret == "" {
		t.Fatalf("site %q, secret %q: %v", site, secret, <-ended)
	}
	if prerendered != "35/35" {
		t.Errorf("%s pages prerendered, want all 35", prerendered)
	}

	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	do := func(method, url, form string) (status int, body string) {
		req, err := http.NewRequest(method, url, strings.NewReader(form))
		if err != nil {
			t.Fatal(err)
		}
		if method == http.MethodPost {
			req.Header.Set("Authorization", "Bearer "+secret)
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
	if status, body := do(http.MethodPost, site+"/admin/post/compress-once", "title=Compress+twice&text=No."); status != 200 {
		t.Errorf("edit: %d\n%s", status, body)
	}
	elsewhere := strings.Replace(site, "localhost", "127.0.0.1", 1)
	if status, body := do(http.MethodGet, elsewhere+"/post/compress-once", ""); status != 200 || !strings.Contains(body, "Compress twice") {
		t.Errorf("the edit does not show: %d\n%s", status, body)
	}
	if status, body := do(http.MethodPost, site+"/api/revalidate?path=/about", ""); status != 200 {
		t.Errorf("revalidate: %d %s", status, body)
	}

	interrupt()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestRunRefuses(t *testing.T) {
	for _, args := range [][]string{
		{"-addr", "localhost:0", "-origin", "blog.example"},
		{"-addr", "localhost:0", "-origin", "https://blog.example/path"},
		{"-addr", "nonsense"},
	} {
		if err := run(t.Context(), args, io.Discard, io.Discard); err == nil {
			t.Errorf("%q: no error", args)
		} else {
			t.Log(err)
		}
	}
}

func TestModeOfTheEnvironment(t *testing.T) {
	for name, want := range map[string]isr.Mode{"": isr.On, "on": isr.On, "develop": isr.Develop, "off": isr.Off} {
		if got, err := modeOf(name); got != want || err != nil {
			t.Errorf("%q: %v, %v", name, got, err)
		}
	}
	t.Setenv("ISR_MODE", "debug")
	if err := run(t.Context(), nil, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), "want on, develop or off") {
		t.Errorf("of another name: %v", err)
	}
}
