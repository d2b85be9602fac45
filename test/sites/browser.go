//go:build unix

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"time"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

// patience is how long anything in the browser may take.
const patience = time.Minute

// A browser is a real one, of somebody who has no cookies yet.
type browser struct {
	ctx    context.Context
	base   string // of the site
	cancel func()
}

// newBrowser starts Chromium.
func newBrowser(ctx context.Context, base string) (*browser, error) {
	var bin string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			bin = path
			break
		}
	}
	if bin == "" {
		return nil, fmt.Errorf("there is no chromium in $PATH")
	}
	options := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(bin), chromedp.Headless, chromedp.DisableGPU, chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck,
		chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true), chromedp.Flag("disable-dev-shm-usage", true), chromedp.Flag("disable-extensions", true),
		chromedp.Flag("hide-scrollbars", true), chromedp.Flag("force-color-profile", "srgb"),
	}
	if os.Getuid() == 0 {
		options = append(options, chromedp.NoSandbox)
	}
	allocator, end := chromedp.NewExecAllocator(ctx, options...)
	tab, _ := chromedp.NewContext(allocator)
	b := &browser{ctx: tab, base: base, cancel: func() {
		bounded, done := context.WithTimeout(tab, patience)
		defer done()
		chromedp.Cancel(bounded)
		end()
	}}
	late := time.AfterFunc(patience, end)
	err := chromedp.Do(tab, chromedp.EmulateViewport(1280, 900))
	late.Stop()
	if err != nil {
		b.cancel()
		return nil, fmt.Errorf("starting %s: %w", bin, err)
	}
	return b, nil
}

// open goes to a path, and waits until what is there is loaded.
func (b *browser) open(path string) error {
	if _, err := b.eval(`document.documentElement.dataset.left = "1"`); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if _, err := chromedp.Call(ctx, page.Navigate, page.NavigateParams{URL: b.base + path}); err != nil {
		return err
	}
	return b.arrive()
}

// leave does something that leads to another page, and waits for that.
func (b *browser) leave(format string, args ...any) error {
	if _, err := b.eval(`document.documentElement.dataset.left = "1"`); err != nil {
		return err
	}
	if _, err := b.eval(format, args...); err != nil {
		return err
	}
	return b.arrive()
}

func (b *browser) arrive() error {
	return b.until(`!document.documentElement.dataset.left && document.readyState == "complete"`)
}

// until waits until an expression is true.
func (b *browser) until(format string, args ...any) error {
	var last string
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		v, err := b.eval("String(!!("+format+"))", args...)
		if err == nil && v == "true" { // an error may be that of a page that is being left
			return nil
		}
		last = fmt.Sprint(v, " ", err)
	}
	text, _ := b.eval(`location.href + "\n" + document.body.innerText.slice(0, 500)`)
	return fmt.Errorf("waited in vain: %s (%s), at %s", script(format, args...), last, text)
}

// eval evaluates an expression whose arguments become literals. What is a promise is awaited.
func (b *browser) eval(format string, args ...any) (string, error) {
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[string]("(() => { try { const v = "+script(format, args...)+"; return String(v) } catch (e) { return 'error: ' + e } })()"))
	if err != nil {
		return "", err
	}
	if len(v) > 6 && v[:6] == "error:" {
		return "", fmt.Errorf("%s: %s", script(format, args...), v)
	}
	return v, nil
}

// script puts arguments into a script, as literals.
func script(format string, args ...any) string {
	if len(args) == 0 {
		return format
	}
	literals := make([]any, len(args))
	for i, arg := range args {
		b, _ := json.Marshal(arg)
		literals[i] = string(b)
	}
	return fmt.Sprintf(format, literals...)
}

// fill fills in a field.
func (b *browser) fill(selector, text string) error {
	_, err := b.eval(`(e => { e.focus(); e.value = %s; e.dispatchEvent(new Event("input", {bubbles: true})); e.dispatchEvent(new Event("change", {bubbles: true})) })(document.querySelector(%s))`, text, selector)
	return err
}

// click clicks on what leads to another page.
func (b *browser) click(selector string) error {
	return b.leave(`document.querySelector(%s).click()`, selector)
}

// press clicks on what leads nowhere.
func (b *browser) press(selector string) error {
	_, err := b.eval(`document.querySelector(%s).click()`, selector)
	return err
}

// cookies returns those that the browser would send to the site.
func (b *browser) cookies() ([]*http.Cookie, error) {
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	got, err := chromedp.Call(ctx, network.GetCookies, network.GetCookiesParams{URLs: []string{b.base + "/", b.base + "/wp-admin/"}})
	if err != nil {
		return nil, err
	}
	var cookies []*http.Cookie
	for _, c := range got.Cookies {
		cookies = append(cookies, &http.Cookie{Name: c.Name, Value: c.Value})
	}
	return cookies, nil
}

// shoot writes a screenshot of the window.
func (b *browser) shoot(file string) error {
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	shot, err := chromedp.Call(ctx, page.CaptureScreenshot, page.CaptureScreenshotParams{})
	if err != nil {
		return err
	}
	return os.WriteFile(file, shot.Data, 0o644)
}
