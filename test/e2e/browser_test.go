package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/audits"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	var err error
	if blogDir, err = os.MkdirTemp("", "isr-e2e-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(blogDir)
	defer func() { stopBrowser() }() // which is another one by then
	return m.Run()
}

// browserNames are the commands that a Chromium goes by.
var browserNames = []string{"chromium", "chromium-browser", "google-chrome"}

var errNoBrowser = fmt.Errorf("there is no browser: none of %s is in $PATH (on Debian and Ubuntu: apt-get install chromium)", strings.Join(browserNames, ", "))

// stopBrowser ends the browser, if one was started.
var stopBrowser = func() {}

// startBrowser starts one browser for all tests, and returns its context.
var startBrowser = sync.OnceValues(func() (context.Context, error) {
	var bin string
	for _, name := range browserNames {
		if path, err := exec.LookPath(name); err == nil {
			bin = path
			break
		}
	}
	if bin == "" {
		return nil, errNoBrowser
	}
	options := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(bin),
		chromedp.Headless,
		chromedp.DisableGPU,
		chromedp.NoFirstRun,
		chromedp.NoDefaultBrowserCheck,
		// Nothing but the blog is to be asked for anything.
		chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-default-apps", true),
		chromedp.Flag("disable-extensions", true),
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-sync", true),
		// The /dev/shm of a container is small.
		chromedp.Flag("disable-dev-shm-usage", true),
		// A page whose window is behind another is to tick on.
		chromedp.Flag("disable-background-timer-throttling", true),
		chromedp.Flag("disable-backgrounding-occluded-windows", true),
		chromedp.Flag("disable-renderer-backgrounding", true),
		// A form that is sent again must not wait for a dialog that no person answers.
		chromedp.Flag("disable-prompt-on-repost", true),
		// The same colours on all machines.
		chromedp.Flag("force-color-profile", "srgb"),
		chromedp.Flag("hide-scrollbars", true),
	}
	if os.Getuid() == 0 {
		options = append(options, chromedp.NoSandbox) // it does not start as root otherwise, which is what one is in a container
	}
	allocator, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, _ := chromedp.NewContext(allocator)
	stopBrowser = func() {
		bounded, done := context.WithTimeout(ctx, patience)
		defer done()
		if err := chromedp.Cancel(bounded); err != nil {
			fmt.Fprintln(os.Stderr, "closing the browser:", err)
		}
		cancel()
	}
	// The first Run starts the browser, and its context is the browser's life:
	// it cannot be the one with the deadline.
	late := time.AfterFunc(patience, cancel)
	err := chromedp.Do(ctx)
	if !late.Stop() && err == nil {
		err = context.DeadlineExceeded
	}
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", bin, err)
	}
	return ctx, nil
})

// needBrowser returns the context of the browser. Where there is none, the test is
// skipped, but not where it is there to be run.
func needBrowser(t *testing.T) context.Context {
	t.Helper()
	browser, err := startBrowser()
	switch {
	case err == errNoBrowser && os.Getenv("CI") == "":
		t.Skip(err)
	case err != nil:
		t.Fatal(err)
	}
	return browser
}

// A tab is one person's browser: a cache of its own, and a history that begins here.
type tab struct {
	*testing.T
	blog *blog
	ctx  context.Context
	record
}

// newTab opens a tab. When the test ends, there must have been no error in it:
// nothing on the console, no exception, no violation of a policy.
func newTab(b *blog) *tab {
	b.Helper()
	t := openTab(b)
	b.Cleanup(func() {
		b.Helper()
		for _, err := range t.errors() {
			b.Errorf("an error in the browser: %s", err)
		}
	})
	return t
}

// openTab opens a tab in which there may be errors.
func openTab(b *blog) *tab {
	b.Helper()
	t := &tab{T: b.T, blog: b}
	ctx, cancel := chromedp.NewContext(needBrowser(b.T), chromedp.WithNewBrowserContext(), chromedp.WithListener(t.handle))
	t.ctx = ctx
	late := time.AfterFunc(patience, cancel) // since this context is the tab's life, it has no deadline
	err := chromedp.Do(ctx)
	late.Stop()
	if err != nil {
		cancel()
		b.Fatalf("opening a tab: %v", err)
	}
	b.Cleanup(func() {
		b.Helper()
		bounded, done := context.WithTimeout(ctx, patience)
		defer done()
		if b.Failed() {
			url, _ := chromedp.Run(bounded, chromedp.Location())
			text, _ := chromedp.Run(bounded, chromedp.Evaluate[string]("document.body.innerText"))
			b.Logf("at the end, a tab showed %s\n%.1000s", url, regexp.MustCompile(`\s*\n\s*`).ReplaceAllString(text, "\n"))
		}
		if err := chromedp.Cancel(bounded); err != nil {
			b.Errorf("closing a tab: %v", err)
		}
	})
	t.do(command(audits.Enable, cdp.Empty{}))
	t.resize(1280, 900)
	return t
}

// command makes an action of a command whose result does not matter.
func command[P, R any](c cdp.Command[P, R], params P) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, c, params)
		return err
	})
}

// do acts, and ends the test where that fails.
func (t *tab) do(actions ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		t.Fatal(err)
	}
}

// eval asks the page something. chromedp's own queries would not do: they look at
// a copy of the page, which it loses when the browser goes back to one that it
// has kept.
func eval[V any](t *tab, format string, args ...any) V {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.ctx, patience)
	defer cancel()
	js := script(format, args...)
	v, err := chromedp.Run(ctx, chromedp.Evaluate[V](js))
	if err != nil {
		t.Fatalf("%s: %v", js, err)
	}
	return v
}

// script puts arguments into a script, as literals.
func script(format string, args ...any) string {
	if len(args) == 0 {
		return format
	}
	literals := make([]any, len(args))
	for i, arg := range args {
		b, err := json.Marshal(arg)
		if err != nil {
			panic(err)
		}
		literals[i] = string(b)
	}
	return fmt.Sprintf(format, literals...)
}

// text returns the text of an element; empty if there is no element.
func (t *tab) text(selector string) string {
	t.Helper()
	return eval[string](t, "document.querySelector(%s)?.innerText ?? ''", selector)
}

// generated returns when the page says that it was made.
func (t *tab) generated() string {
	t.Helper()
	return eval[string](t, "document.querySelector('#generated').dateTime")
}

// wait waits until something is so, however long it takes within reason.
func (t *tab) wait(what string, isSo func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !isSo(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited for %v in vain: %s", patience, what)
		}
	}
}

// until waits until an expression is true on the page, whichever page that is by
// then.
func (t *tab) until(format string, args ...any) {
	t.Helper()
	js := script(format, args...)
	t.wait(js, func() bool {
		ctx, cancel := context.WithTimeout(t.ctx, patience)
		defer cancel()
		ok, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("!!("+js+")"))
		return err == nil && ok // an error may be that of a page which is being left
	})
}

// leads does something that leads to another page, and waits until that is there.
func (t *tab) leads(act func()) {
	t.Helper()
	before, _ := t.steps()
	act()
	t.wait("the next page", func() bool {
		now, arrived := t.steps()
		return now > before && arrived
	})
}

// watch does something, and returns what the browser has exchanged for it.
func (t *tab) watch(act func()) (all exchanges) {
	t.Helper()
	mark := t.mark()
	act()
	t.wait("the end of all exchanges", func() (over bool) {
		all, over = t.since(mark)
		return over
	})
	return all
}

// open goes to an address, as if it had been typed.
func (t *tab) open(path string) {
	t.Helper()
	t.leads(func() { t.do(command(page.Navigate, page.NavigateParams{URL: t.blog.url + path})) })
}

// reload is what F5 does, or with Shift, when it does not look into the browser's
// cache.
func (t *tab) reload(ignoreCache bool) {
	t.Helper()
	t.leads(func() { t.do(command(page.Reload, page.ReloadParams{IgnoreCache: &ignoreCache})) })
}

// travel goes back in the history, or forward, as by the browser's own buttons: a script
// that does so may be gone before it can say that it has.
func (t *tab) travel(steps int) {
	t.Helper()
	t.leads(func() {
		t.do(chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
			history, err := cdp.Call(ctx, target, page.GetNavigationHistory, cdp.Empty{})
			if err != nil {
				return err
			}
			entry := history.Entries[int(history.CurrentIndex)+steps]
			_, err = cdp.Call(ctx, target, page.NavigateToHistoryEntry, page.NavigateToHistoryEntryParams{EntryID: entry.ID})
			return err
		}))
	})
}

// click clicks on something, with the mouse.
func (t *tab) click(selector string) {
	t.Helper()
	at := eval[*struct{ X, Y float64 }](t, `(() => {
		const el = document.querySelector(%s);
		if (!el) return null;
		el.scrollIntoView({block: "center", behavior: "instant"});
		const box = el.getClientRects()[0];
		if (!box) return null;
		const x = box.x + box.width / 2, y = box.y + box.height / 2;
		return el.contains(document.elementFromPoint(x, y)) ? {x, y} : null;
	})()`, selector)
	if at == nil {
		t.Fatalf("there is no %s to be clicked on", selector)
	}
	for _, what := range []input.DispatchMouseEventType{input.DispatchMouseEventTypeMousePressed, input.DispatchMouseEventTypeMouseReleased} {
		t.do(command(input.DispatchMouseEvent, input.DispatchMouseEventParams{
			Type: what, X: at.X, Y: at.Y, Button: input.MouseButtonLeft, ClickCount: 1,
		}))
	}
}

// follow clicks on something that leads to another page.
func (t *tab) follow(selector string) {
	t.Helper()
	t.leads(func() { t.click(selector) })
}

// fill types a text into a field, in place of the one that is there.
func (t *tab) fill(selector, text string) {
	t.Helper()
	t.click(selector)
	eval[chromedp.Void](t, "document.querySelector(%s).select()", selector)
	t.do(command(input.InsertText, input.InsertTextParams{Text: text}))
}

// resize changes the size of the window.
func (t *tab) resize(width, height int64) {
	t.Helper()
	t.do(chromedp.EmulateViewport(width, height))
}
