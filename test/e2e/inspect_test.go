package e2e

import (
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
)

// inspectorPath is where the blog shows what is cached.
const inspectorPath = "/debug/isr"

// An entry is a row of the inspector's table, as it reads.
type entry struct{ ID, Path, State, Age, Left, Tags, Error, Outcome string }

// entries returns the pages in the table, without the values that they share.
func (t *tab) entries() map[string]entry {
	t.Helper()
	all := make(map[string]entry)
	for _, e := range eval[[]entry](t, `[...document.querySelectorAll("tbody tr")].map((row) => {
		const say = (selector) => row.querySelector(selector)?.innerText.trim() ?? "";
		return {ID: row.id, Path: say(".k-path bdi"), State: say(".k-state"), Age: say(".k-age"), Left: say(".k-left"),
			Tags: say(".k-tags"), Error: say(".k-error"), Outcome: say("output")};
	})`) {
		if strings.HasPrefix(e.Path, "/") {
			all[e.Path] = e
		}
	}
	return all
}

// paths returns which pages the table shows, in the order of their names.
func (t *tab) paths() []string {
	t.Helper()
	return slices.Sorted(maps.Keys(t.entries()))
}

// button is the selector of what an action on a page or a tag is called.
func button(name string) string { return script("button[aria-label=%s]", name) }

// press clicks on a button that stays where it is, and returns what is then said
// beside it, and by which word of its class list it is marked.
func (t *tab) press(name string) (outcome, mark string) {
	t.Helper()
	all := t.watch(func() {
		t.click(button(name))
		t.until(`document.querySelector(%s).form.querySelector("output:is(.ok, .failed)")`, button(name))
	})
	for _, x := range all {
		if x.kind != network.ResourceTypeXHR || x.method == http.MethodPost && x.status != 200 {
			t.Errorf("%s: %v of the kind %s", name, x, x.kind)
		}
	}
	said := eval[[2]string](t, `(() => {
		const output = document.querySelector(%s).form.querySelector("output");
		return [output.innerText, output.classList.contains("ok") ? "ok" : "failed"];
	})()`, button(name))
	return said[0], said[1]
}

func TestInspectorListsAndFilters(t *testing.T) {
	t.Parallel()
	b := startBlog(t, "-ttl", "1h")
	author, dev := newTab(b), newTab(b)
	all := dev.watch(func() { dev.open(inspectorPath) })
	if len(all) != 1 || all[0].status != 200 {
		t.Errorf("the inspector is more than one document: %v", all)
	}
	policy := all[0].response.Get("Content-Security-Policy")
	if !strings.Contains(policy, "default-src 'none'") || strings.Contains(policy, "unsafe") {
		t.Errorf("Content-Security-Policy %q", policy)
	}

	var prerendered []string
	for _, p := range b.state().Table.Pages {
		if strings.HasPrefix(p.Path, "/") { // the others are values
			prerendered = append(prerendered, p.Path)
		}
	}
	slices.Sort(prerendered)
	if got := dev.paths(); len(got) != 35 || !slices.Equal(got, prerendered) {
		t.Errorf("lists %q, want %q", got, prerendered)
	}
	if got := dev.entries()[post]; got.State != "fresh" || got.Tags != "post:tags-are-names-for-reasons post:templates-that-know-where-they-are post post:compress-once" || !strings.HasPrefix(got.Left, "2h 59m") {
		t.Errorf("of %s it says: %+v", post, got)
	}

	// By path, as a person does it.
	dev.fill("#f-path", "/COMPRESS")
	dev.follow(".filter button")
	if got := dev.paths(); !slices.Equal(got, []string{post}) || dev.text("#count") != "1 page that matches" {
		t.Errorf("filtered by path: %q, %q", got, dev.text("#count"))
	}
	dev.follow(".filter a") // Clear

	// By state, once there is another one.
	author.open("/admin")
	author.fill("#path", "")
	author.fill("#tag", "posts")
	author.follow(`form[action="/admin/revalidate"] button`)
	stale := []string{"/", "/search"}
	for _, path := range prerendered {
		if strings.HasPrefix(path, "/tag/") {
			stale = append(stale, path)
		}
	}
	dev.follow(`nav.states li:has(.s-stale) a`)
	for path, e := range dev.entries() {
		if e.State != "stale" || e.Left != "invalidated" {
			t.Errorf("in the table of what is stale: %s is %s, %s", path, e.State, e.Left)
		}
	}
	if got := dev.paths(); !slices.Equal(got, stale) {
		t.Errorf("filtered by state: %q, want %q", got, stale)
	}
	dev.follow(`nav.states li:has(.s-uncacheable) a`)
	if got := dev.text(".empty"); !strings.HasPrefix(got, "No page matches.") {
		t.Errorf("where nothing matches: %q", got)
	}

	// By tag, which is a link in each row.
	dev.open(inspectorPath)
	dev.follow(script("a.tag[href*=%s]", "tag=post%3Acompress-once"))
	got := slices.DeleteFunc(dev.paths(), func(path string) bool { return !strings.HasPrefix(path, "/post/") })
	if len(got) != 3 || !slices.Contains(got, post) {
		t.Errorf("filtered by tag: %q, want %s and its neighbours", got, post)
	}
	if got := dev.paths(); !slices.Contains(got, "/") || slices.Contains(got, "/about") {
		t.Errorf("filtered by tag: %q, want / among them, which lists the post, and not /about", got)
	}

	// Sorted, by a link that says so.
	dev.open(inspectorPath + "?path=%2F")
	dev.follow("th.k-size a")
	if got := eval[string](dev, `document.querySelector("th.k-size").ariaSort`); got != "descending" {
		t.Errorf("sorted by size: aria-sort %q", got)
	}
	if got := eval[string](dev, `document.querySelector("tbody .k-path bdi").innerText`); got != "/" {
		t.Errorf("sorted by size: the first is %s", got)
	}

	// The page of a page.
	dev.follow("tbody .k-path a")
	if got := dev.text(".detail"); !strings.Contains(got, "Cache-Control sent\npublic, max-age=0") || !strings.Contains(got, "Content-Type\ttext/html; charset=utf-8") {
		t.Errorf("the detail of /:\n%s", got)
	}
}

func TestInspectorTicks(t *testing.T) {
	t.Parallel()
	b := startBlog(t, "-ttl", "1h")
	dev := newTab(b)
	dev.open(inspectorPath)
	steps, _ := dev.steps()
	all := dev.watch(func() {
		for range 2 {
			was := dev.entries()["/"]
			dev.until(`(() => {
				const row = document.getElementById(%s);
				return row.querySelector(".k-age").innerText.trim() != %s && row.querySelector(".k-left").innerText.trim() != %s;
			})()`, was.ID, was.Age, was.Left)
		}
	})
	if now, _ := dev.steps(); now != steps || len(all) != 0 {
		t.Errorf("to tell the time, it has asked for %v, and gone to %d pages", all, now-steps)
	}
	if got := dev.entries()["/"]; !regexp.MustCompile(`^\d+s$`).MatchString(got.Age) || !regexp.MustCompile(`^59m \d+s$`).MatchString(got.Left) {
		t.Errorf("it says: %+v", got)
	}
}

func TestInspectorShowsThatALifetimeIsOver(t *testing.T) {
	t.Parallel()
	b := startBlog(t, "-ttl", "3s")
	dev := newTab(b)
	dev.open(inspectorPath)
	steps, _ := dev.steps()
	dev.until(`document.querySelector("tr.r-stale .k-left")?.innerText.endsWith(" over")`)
	if now, _ := dev.steps(); now != steps {
		t.Errorf("it has gone to %d pages for that", now-steps)
	}
}

func TestInspectorButtons(t *testing.T) {
	t.Parallel()
	b := startBlog(t, "-ttl", "1h")
	reader, author, dev := newTab(b), newTab(b), newTab(b)
	reader.open("/about")
	dev.open(inspectorPath)
	steps, _ := dev.steps()
	stayed := func() {
		t.Helper()
		if now, _ := dev.steps(); now != steps {
			t.Errorf("it has gone to another page")
			steps = now
		}
	}

	// Revalidate renews a page, and says so beside the button.
	was, generated := dev.entries()["/about"], b.page("/about").Generated
	if was.Left != "no limit" {
		t.Errorf("of /about it says: %+v", was)
	}
	outcome, mark := dev.press("Revalidate /about")
	if !regexp.MustCompile(`^Revalidated in [\d.]+ (µs|ms|s)\.$`).MatchString(outcome) || mark != "ok" {
		t.Errorf("after Revalidate: %q, %s", outcome, mark)
	}
	if got := dev.entries(); got["/about"].Outcome != outcome || slices.ContainsFunc(slices.Collect(maps.Values(got)), func(e entry) bool { return e.Path != "/about" && e.Outcome != "" }) {
		t.Errorf("the outcome is not, or not only, in the row of its page")
	}
	if !b.page("/about").Generated.After(generated) {
		t.Errorf("the page was not renewed")
	}
	stayed()
	before := reader.generated()
	if doc := reader.document(reader.watch(func() { reader.reload(false) })); !isHit(doc) || reader.generated() == before {
		t.Errorf("the reader gets %v, of %s; before it was of %s", doc, reader.generated(), before)
	}

	// While the CMS fails, that is said in the same place.
	turn(author, "failing")
	outcome, mark = dev.press("Revalidate /about")
	if !strings.HasPrefix(outcome, "Failed: ") || !strings.Contains(outcome, "503") || mark != "failed" {
		t.Errorf("after Revalidate while the CMS fails: %q, %s", outcome, mark)
	}
	if got := dev.entries()["/about"]; !strings.HasPrefix(got.State, "failing") || !strings.Contains(got.Error, "503") {
		t.Errorf("while the CMS fails, it says: %+v", got)
	}
	turn(author, "ok")
	if outcome, mark = dev.press("Revalidate /about"); mark != "ok" {
		t.Errorf("when the CMS is well again: %q, %s", outcome, mark)
	}
	if got := dev.entries()["/about"]; got.State != "fresh" || got.Error != "" {
		t.Errorf("when the CMS is well again, it says: %+v", got)
	}

	// Purge drops it. Its row stays, so that nothing jumps, until the next look.
	if outcome, mark = dev.press("Purge /about"); outcome != "Purged." || mark != "ok" {
		t.Errorf("after Purge: %q, %s", outcome, mark)
	}
	if got := dev.entries()["/about"]; got.State != "not listed" {
		t.Errorf("after Purge, it says: %+v", got)
	}
	stayed()
	dev.reload(false)
	if slices.Contains(dev.paths(), "/about") || len(dev.paths()) != 34 {
		t.Errorf("after Purge, it lists %q", dev.paths())
	}

	// A tag, too.
	dev.follow(script("a.tag[href*=%s]", "tag=posts"))
	if outcome, mark = dev.press("Revalidate tag posts"); !strings.HasPrefix(outcome, "Its pages are stale now") || mark != "ok" {
		t.Errorf("after Revalidate tag: %q, %s", outcome, mark)
	}
	for path, e := range dev.entries() {
		if e.State != "stale" {
			t.Errorf("after Revalidate tag: %s is %s", path, e.State)
		}
	}
}

func TestInspectorWithoutJavaScript(t *testing.T) {
	t.Parallel()
	b := startBlog(t, "-ttl", "1h")
	dev := newTab(b)
	dev.do(command(emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true}))
	dev.open(inspectorPath)
	generated := b.page("/about").Generated
	doc := dev.document(dev.watch(func() { dev.follow(button("Revalidate /about")) }))
	if doc.method != http.MethodPost || doc.status != 200 {
		t.Errorf("after Revalidate: %v", doc)
	}
	if got := dev.entries()["/about"]; !strings.HasPrefix(got.Outcome, "Revalidated in ") {
		t.Errorf("after Revalidate, it says: %+v", got)
	}
	if !b.page("/about").Generated.After(generated) {
		t.Errorf("the page was not renewed")
	}
}

func TestInspectorEscapesPaths(t *testing.T) {
	t.Parallel()
	b := startBlog(t, "-ttl", "1h")
	const hostile = "/%3Cscript%3Ealert(1)%3C/script%3E%3Cimg%20src=x%20onerror=alert(1)%3E"
	b.get(hostile) // a page that is not found is one, too
	dev := newTab(b)
	all := dev.watch(func() {
		dev.open(inspectorPath)
		dev.fill("#f-path", "<script>alert(1)")
		dev.follow(".filter button")
	})
	if len(all) != 2 {
		t.Errorf("it has asked for %v", all)
	}
	if got := dev.paths(); len(got) != 1 || got[0] != hostile {
		t.Errorf("it lists %q, want %q", got, hostile)
	}
	if n := eval[int](dev, `document.querySelectorAll("main script, main img").length`); n != 0 {
		t.Errorf("%d elements come from a path", n)
	}
	dev.follow("tbody .k-path a")
	if got := dev.text("h2 bdi"); got != hostile {
		t.Errorf("the detail is of %q, want %q", got, hostile)
	}
}

// The outcome must not move the buttons, least of all Purge to where Revalidate was.
func TestButtonsDoNotMove(t *testing.T) {
	t.Parallel()
	b := startBlog(t, "-ttl", "1h")
	dev := newTab(b)
	dev.open(inspectorPath)
	const name = "Revalidate /post/has-it-changed"
	eval[chromedp.Void](dev, "document.querySelector(%s).scrollIntoView({block: 'center'})", button(name))
	where := func() [2]float64 {
		return eval[[2]float64](dev, "(() => { const box = document.querySelector(%s).getBoundingClientRect(); return [box.x, box.y]; })()", button(name))
	}
	was := where()
	dev.press(name)
	if now := where(); now != was {
		t.Errorf("the button has moved from %v to %v", was, now)
	}
}
