package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

// post is a post of the blog, and postTitle what it is called at first.
const (
	post      = "/post/compress-once"
	postTitle = "Compress once"
)

// isHit reports whether a page came from the site's memory.
func isHit(x exchange) bool {
	return strings.HasPrefix(x.response.Get("Cache-Status"), "isr; hit")
}

// document returns the one exchange that was for a page as a whole.
func (t *tab) document(all exchanges) exchange {
	t.Helper()
	docs := all.documents()
	if len(docs) != 1 {
		t.Fatalf("got %d exchanges for a page, want one: %v", len(docs), docs)
	}
	return docs[0]
}

func TestSecondVisitIsAnsweredWith304(t *testing.T) {
	t.Parallel()
	b := startBlog(t, "-ttl", "1h")
	reader := newTab(b)

	first := reader.document(reader.watch(func() { reader.open("/") }))
	etag := first.response.Get("Etag")
	if first.status != 200 || !isHit(first) || etag == "" || first.request["If-None-Match"] != nil {
		t.Errorf("the first visit: %v, Etag %q", first, etag)
	}
	generated, generations := reader.generated(), b.state().Summary.Generated
	reader.follow(`nav a[href="/about"]`)

	for _, visit := range []struct {
		name  string
		again func()
	}{
		{"a link back", func() { reader.follow("header .name a") }},
		{"the same address", func() { reader.open("/") }},
		{"a reload", func() { reader.reload(false) }},
	} {
		name, second := visit.name, reader.watch(visit.again)
		doc := reader.document(second)
		if doc.status != 304 || !isHit(doc) || doc.request.Get("If-None-Match") != etag {
			t.Errorf("%s: %v", name, doc)
		}
		if doc.bytes > first.bytes/2 {
			t.Errorf("%s: %d bytes came, after %d the first time", name, doc.bytes, first.bytes)
		}
		for _, x := range second {
			if !x.local && x.status != 304 {
				t.Errorf("%s: %v", name, x)
			}
		}
		if got := reader.text("h1"); got != "Fresh Enough" || reader.generated() != generated {
			t.Errorf("%s: shows %q of %s, want the page of %s", name, got, reader.generated(), generated)
		}
	}
	if n := b.state().Summary.Generated - generations; n != 0 {
		t.Errorf("%d pages were generated", n)
	}
}

func TestHardReloadDoesNotRegenerate(t *testing.T) {
	t.Parallel()
	b := startBlog(t, "-ttl", "1h")
	reader := newTab(b)
	reader.open(post)
	generated, before := reader.generated(), b.state().Summary
	for range 3 {
		all := reader.watch(func() { reader.reload(true) })
		doc := reader.document(all)
		if doc.request.Get("Cache-Control") != "no-cache" || doc.request["If-None-Match"] != nil {
			t.Fatalf("the browser has sent %v, which is no hard reload", doc.request)
		}
		if doc.status != 200 || !isHit(doc) {
			t.Errorf("got %v", doc)
		}
		if reader.generated() != generated {
			t.Errorf("the page is of %s now, it was of %s", reader.generated(), generated)
		}
	}
	if after := b.state().Summary; after != before {
		t.Errorf("the site has done something: %+v, before that %+v", after, before)
	}
}

func TestBackAndForwardShowTheRightPage(t *testing.T) {
	t.Parallel()
	b := startBlog(t, "-ttl", "1h")
	reader := newTab(b)
	before := b.state().Summary

	type seen struct{ url, title, generated string }
	now := func() seen {
		return seen{eval[string](reader, "location.pathname"), reader.text("h1"), reader.generated()}
	}
	reader.open("/")
	history := []seen{now()}
	reader.follow("article h2 a")
	history = append(history, now())
	// A browser keeps the last few pages as they are. The others come from its
	// HTTP cache, or from us.
	for range 9 {
		reader.follow("a[rel=prev]")
		history = append(history, now())
	}
	at := len(history) - 1
	for _, steps := range []int{-1, -1, 1, -9, 1, 9, -10, 10} {
		all := reader.watch(func() { reader.travel(steps) })
		at += steps
		reader.until("document.readyState == 'complete' && location.pathname == %s", history[at].url)
		if got := now(); got != history[at] {
			t.Errorf("%+d: shows %v, want %v", steps, got, history[at])
		}
		for _, doc := range all.documents() {
			if !doc.local && (!isHit(doc) || doc.status != 200 && doc.status != 304) {
				t.Errorf("%+d: %v", steps, doc)
			}
		}
	}
	if after := b.state().Summary; after != before {
		t.Errorf("the site has done something: %+v, before that %+v", after, before)
	}
}

// write has an author give a post a title and a text, in the admin.
func write(author *tab, title, text string) {
	author.Helper()
	author.open("/admin")
	author.follow(script("a[href=%s]", "/admin"+post))
	author.fill("#title", title)
	author.fill("#text", text)
	author.follow("form:has(#title) button")
	if reply := author.text(".calls .reply"); !strings.HasPrefix(reply, "200 ") {
		author.Fatalf("the site has told the CMS: %q", reply)
	}
}

func TestEditShowsAtOnce(t *testing.T) {
	t.Parallel()
	b := startBlog(t, "-ttl", "1h")
	reader, author := newTab(b), newTab(b)
	had := reader.document(reader.watch(func() { reader.open(post) }))
	if got := reader.text("h1"); got != postTitle {
		t.Fatalf("shows %q, want %q", got, postTitle)
	}
	for i := range 3 {
		title, text := fmt.Sprintf("Compress %d times", i+2), fmt.Sprintf("Edit number %d.\n\nWith `code` & <b>.", i+1)
		write(author, title, text)

		doc := reader.document(reader.watch(func() { reader.reload(false) }))
		if doc.status != 200 || !isHit(doc) {
			t.Errorf("after edit %d: %v, want a new page that was there already", i+1, doc)
		}
		if doc.request.Get("If-None-Match") != had.response.Get("Etag") || doc.response.Get("Etag") == had.response.Get("Etag") {
			t.Errorf("after edit %d: Etag %q, and the browser had %q", i+1, doc.response.Get("Etag"), had.response.Get("Etag"))
		}
		had = doc
		if got, want := reader.text("h1"), title; got != want {
			t.Errorf("after edit %d: shows %q, want %q", i+1, got, want)
		}
		if got, want := reader.text("article"), fmt.Sprintf("Edit number %d.\n\nWith code & <b>.", i+1); !strings.Contains(got, want) {
			t.Errorf("after edit %d: shows\n%s\nwant\n%s", i+1, got, want)
		}
	}
	// The index shows it, too, at the first visit.
	index := reader.document(reader.watch(func() { reader.open("/") }))
	if got := reader.text(script("article:has(a[href=%s])", post)); !isHit(index) || !strings.Contains(got, "Edit number 3.") {
		t.Errorf("the index: %v\n%s", index, got)
	}
}

// turn has the author switch the CMS to another mode.
func turn(author *tab, mode string) {
	author.Helper()
	author.open("/admin")
	author.click(script("input[name=mode][value=%s]", mode))
	author.follow(`form[action="/admin/mode"] button`)
	if got, want := author.text("#cms"), "The CMS is "+mode; got != want {
		author.Fatalf("shows %q, want %q", got, want)
	}
}

func TestPagesStayUpWhileTheCMSFails(t *testing.T) {
	t.Parallel()
	b := startBlog(t, "-ttl", "1s")
	reader, author := newTab(b), newTab(b)
	reader.open("/")
	misses := b.state().Summary.Misses
	turn(author, "failing")

	// A run that was on its way may still have brought a page. From the first
	// failure on there is none.
	visit := func() exchange {
		t.Helper()
		doc := reader.document(reader.watch(func() { reader.reload(false) }))
		if doc.status != 200 && doc.status != 304 || !isHit(doc) {
			t.Fatalf("got %v", doc)
		}
		if got := reader.text("h1"); got != "Fresh Enough" {
			t.Fatalf("shows %q", got)
		}
		return doc
	}
	reader.wait("a failure", func() bool {
		visit()
		return b.page("/").State == "failing"
	})
	visit()
	generated := reader.generated()
	reader.wait("a page three seconds past its second", func() bool {
		doc := visit()
		if reader.generated() != generated {
			t.Fatalf("the page is of %s now, it was of %s", reader.generated(), generated)
		}
		_, rest, _ := strings.Cut(doc.response.Get("Cache-Status"), "ttl=")
		ttl, _, stale := strings.Cut(rest, "; detail=stale")
		left, err := strconv.Atoi(ttl)
		return stale && err == nil && left <= -3
	})
	if p := b.page("/"); p.State != "failing" || p.Failures < 2 || !strings.Contains(p.Error, "503") {
		t.Errorf("the site says of its page: %+v", p)
	}

	turn(author, "ok")
	reader.wait("a new page", func() bool {
		visit()
		return reader.generated() != generated
	})
	if p := b.page("/"); p.State == "failing" || p.Failures != 0 || p.Error != "" {
		t.Errorf("after that, the site says of its page: %+v", p)
	}
	if n := b.state().Summary.Misses - misses; n != 0 {
		t.Errorf("%d visitors had to wait", n)
	}
}

func TestPlaceholderThenPage(t *testing.T) {
	t.Parallel()
	b := startBlog(t, "-ttl", "1h")
	reader, author := newTab(b), newTab(b)
	// What was shown is written down by the pages themselves: by the time that one
	// asks for it, the next may be there.
	reader.do(command(page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: `
		addEventListener("DOMContentLoaded", () => {
			const shown = ["#placeholder", "#found", "h1"].map((s) => document.querySelector(s)).find(Boolean);
			if (shown) sessionStorage.shown = (sessionStorage.shown ?? "") + shown.textContent + "\n";
		})`}))
	turn(author, "slow")
	generations := b.state().Summary.Generated

	reader.open("/search")
	reader.fill("#q", "midnight")
	all := reader.watch(func() {
		reader.follow("form[role=search] button")
		reader.until("document.querySelector('#found')")
	})
	docs := all.documents()
	for i, doc := range docs {
		control, status := doc.response.Get("Cache-Control"), doc.response.Get("Cache-Status")
		right := control == "no-store" && status == "isr; fwd=uri-miss; detail=placeholder"
		if i == len(docs)-1 {
			right = control != "no-store" && isHit(doc)
		}
		if !right || doc.status != 200 || !strings.HasSuffix(doc.url, "/search?q=midnight") {
			t.Errorf("answer %d of %d: %v, Cache-Control %q", i+1, len(docs), doc, control)
		}
	}
	shown := strings.Split(strings.TrimSpace(eval[string](reader, "sessionStorage.shown")), "\n")
	const wait, found = "Nobody has looked for “midnight” before. The result comes as soon as it is there; you need not reload.", "1 found for “midnight”."
	if n := len(shown); n < 3 || shown[0] != "Search" || shown[1] != wait || shown[n-2] != wait || shown[n-1] != found {
		t.Errorf("what was shown:\n%s", strings.Join(shown, "\n"))
	}
	if n := b.state().Summary.Generated - generations; n != 1 {
		t.Errorf("%d pages were generated, want one", n)
	}

	// The placeholder is no place to come back to.
	reader.travel(-1)
	reader.until("location.search == '' && document.querySelector('h1')?.textContent == 'Search' && !document.querySelector('#found')")
	reader.travel(1)
	reader.until("document.querySelector('#found')?.textContent == %s", found)
	if shown := eval[string](reader, "sessionStorage.shown"); strings.Count(shown, wait) != len(docs)-1 {
		t.Errorf("after back and forward, what was shown:\n%s", shown)
	}
}

// A tab reports the errors of a page: without this, the other tests would pass on a
// broken one.
func TestTabReportsErrors(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Security-Policy", "style-src 'none'")
		fmt.Fprint(w, `<!doctype html><title>x</title><link rel="icon" href="data:,"><p style="color: red">x</p><img src="/missing" alt="">
			<script>console.error("an error"); setTimeout(() => { throw new Error("an exception") })</script>`)
	}))
	defer server.Close()
	bad := openTab(&blog{T: t, url: server.URL})
	defer chromedp.Cancel(bad.ctx) // the server waits for its connections
	bad.open("/")
	for _, want := range []string{`console.error: "an error"`, "exception: Uncaught Error: an exception", "Content Security Policy", "ContentSecurityPolicyIssue", "404 (Not Found)"} {
		bad.wait(want, func() bool {
			return slices.ContainsFunc(bad.errors(), func(s string) bool { return strings.Contains(s, want) })
		})
	}
	for _, err := range bad.errors() {
		t.Log(err)
	}
}
