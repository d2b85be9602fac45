package e2e

import (
	"bytes"
	"context"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

// screenshots is the folder that screenshots are written to. If it is empty, none
// are taken.
var screenshots = os.Getenv("E2E_SCREENSHOTS")

// Every kind of page has a sound layout at several sizes and colours.
func TestLayout(t *testing.T) {
	t.Parallel()
	if screenshots != "" {
		if err := os.MkdirAll(screenshots, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	b := startBlog(t, "-ttl", "1h")
	huge := b.postHuge()
	author, dev := newTab(b), newTab(b)

	// A page in each state that there is to see.
	counts := func(states ...string) {
		t.Helper()
		for _, state := range states {
			if got := dev.text("nav.states li:has(.s-" + state + ")"); strings.HasSuffix(got, " 0") {
				t.Errorf("the inspector has counted %q", got)
			}
		}
	}
	b.get(huge) // which is too large to be kept; that is known for ten seconds
	dev.open(inspectorPath)
	counts("uncacheable")
	b.get("/post/there-is-no-such-post")
	author.open("/admin")
	author.fill("#path", "")
	author.fill("#tag", "post:has-it-changed")
	author.follow(`form[action="/admin/revalidate"] button`)
	turn(author, "failing")
	dev.open(inspectorPath)
	if _, mark := dev.press("Revalidate /about"); mark != "failed" {
		t.Errorf("after Revalidate while the CMS fails: %s", mark)
	}
	if _, mark := dev.press("Revalidate /tag/testing"); mark != "failed" {
		t.Errorf("after Revalidate while the CMS fails: %s", mark)
	}
	counts("failing", "stale", "fresh")
	if screenshots != "" {
		dev.shoot("inspector-outcomes")
	}
	detail := eval[string](dev, `document.querySelector("tr.r-failing .k-path a").href`)

	for _, view := range []struct {
		name, scheme  string
		width, height int64
	}{
		{"light", "light", 1280, 900},
		{"dark", "dark", 1280, 900},
		{"narrow", "light", 390, 844},
		{"narrowest", "dark", 320, 640},
	} {
		dev.resize(view.width, view.height)
		dev.do(command(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: view.scheme}},
		}))
		for _, shown := range []struct{ name, path string }{
			{"index", "/"},
			{"post", post},
			{"search", "/search"},
			{"admin", "/admin"},
			{"edit", "/admin" + post},
			{"inspector", inspectorPath},
			{"inspector-detail", strings.TrimPrefix(detail, b.url)},
			{"inspector-empty", inspectorPath + "?path=nothing"},
		} {
			dev.open(shown.path)
			name := shown.name + "-" + view.name
			if screenshots != "" {
				dev.shoot(name)
			}
			if wide := eval[[]string](dev, sticksOut); len(wide) > 0 {
				t.Errorf("%s: wider than the window: %s", name, strings.Join(wide, ", "))
			}
			if faint := eval[[]string](dev, hardToRead); len(faint) > 0 {
				t.Errorf("%s: hard to read:\n%s", name, strings.Join(faint, "\n"))
			}
			if got := eval[bool](dev, isDark); got != (view.scheme == "dark") {
				t.Errorf("%s: is dark: %t", name, got)
			}
		}
	}
}

// sticksOut lists what makes the page scroll sideways.
const sticksOut = `(() => {
	const width = document.documentElement.clientWidth;
	if (document.documentElement.scrollWidth <= width) return [];
	return [...document.querySelectorAll("body *")].filter((el) => el.getBoundingClientRect().right > width)
		.map((el) => el.tagName + "." + el.className).slice(-5);
})()`

// colours are functions for scripts that judge colours, as WCAG does (1.4.3
// Contrast).
const colours = `
	const canvas = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
	const over = (below, colour) => { // as it looks on a ground
		canvas.fillStyle = "rgb(" + below + ")"; canvas.fillRect(0, 0, 1, 1);
		canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
		return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
	};
	const ground = (el) => over(el.parentElement ? ground(el.parentElement) : matchMedia("(prefers-color-scheme: dark)").matches ? [18, 18, 18] : [255, 255, 255],
		getComputedStyle(el).backgroundColor);
	const light = (rgb) => {
		const [r, g, b] = rgb.map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
		return 0.2126 * r + 0.7152 * g + 0.0722 * b;
	};`

const isDark = `(() => {` + colours + `
	return light(ground(document.body)) < 0.1;
})()`

// hardToRead lists the texts with too little contrast.
const hardToRead = `(() => {` + colours + `
	const faint = new Map();
	const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
	while (walker.nextNode()) {
		const text = walker.currentNode.data.trim(), el = walker.currentNode.parentElement;
		if (!text || !el.checkVisibility({visibilityProperty: true}) || el.matches("script, style, title")) continue;
		const style = getComputedStyle(el), below = ground(el);
		const [a, b] = [light(over(below, style.color)), light(below)].sort((a, b) => b - a);
		const ratio = (a + 0.05) / (b + 0.05), size = parseFloat(style.fontSize);
		const large = size >= 24 || size >= 18.66 && style.fontWeight >= 700;
		if (ratio < (large ? 3 : 4.5)) faint.set(el.tagName + "." + el.className, ratio.toFixed(2) + ": " + el.tagName + "." + el.className + " " + text.slice(0, 40));
	}
	return [...faint.values()];
})()`

// shoot takes a screenshot of the page, down to what is not yet in the window.
func (t *tab) shoot(name string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.ctx, patience)
	defer cancel()
	size := eval[struct{ Width, Height float64 }](t, "({width: innerWidth, height: Math.min(document.documentElement.scrollHeight, 2500)})")
	beyond := true
	shot, err := chromedp.Call(ctx, page.CaptureScreenshot, page.CaptureScreenshotParams{
		Clip:                  &page.Viewport{Width: size.Width, Height: size.Height, Scale: 1},
		CaptureBeyondViewport: &beyond,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(screenshots, name+".png"), shot.Data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// postHuge adds a post that is too large to be kept, and returns its path.
func (b *blog) postHuge() string {
	b.Helper()
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	form.WriteField("title", "All of it")
	form.WriteField("text", "A table without an end. \n\n"+strings.Repeat(`"`, 900<<10)) // each of them is five bytes in HTML
	form.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, b.url+"/admin/post", &body)
	if err != nil {
		b.Fatal(err)
	}
	req.Header.Set("Content-Type", form.FormDataContentType())
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		b.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		b.Fatalf("posting something huge: %s", resp.Status)
	}
	return "/post/all-of-it"
}
