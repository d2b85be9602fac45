//go:build unix

package main

import (
	"context"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestDokuWiki is the small version of it all: DokuWiki on PHP's own server, without nginx
// and without a browser.
func TestDokuWiki(t *testing.T) {
	if _, err := exec.LookPath("php"); err != nil {
		t.Skip("there is no php, so there is no site to be put behind isrproxy: Debian has it in php-cli")
	}
	if _, err := os.Stat("/usr/share/dokuwiki/doku.php"); err != nil {
		t.Skip("there is no DokuWiki to be put behind isrproxy: Debian has it in the package dokuwiki")
	}
	ctx := t.Context()
	isr, err := buildProxy(ctx, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s, err := newStack(t.TempDir(), isr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.stop)
	if _, err := setUpDokuWiki(ctx, s); err != nil {
		t.Fatal(err)
	}
	php, err := s.run(ctx, &process{name: "php", argv: []string{"php", "-S", s.origin, "-t", filepath.Join(s.dir, "www")},
		env: []string{"PHP_CLI_SERVER_WORKERS=4"}, ready: listens("tcp", s.origin)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.runProxy(ctx, s.public, "-preset", "dokuwiki"); err != nil {
		t.Fatal(err)
	}
	client := newClient()
	direct, through := visitor{addr: s.origin, public: s.public, client: client}, visitor{addr: s.public, public: s.public, client: client}
	pages, err := crawl(ctx, direct, dokuwiki, 12)
	if err != nil {
		t.Fatal(err)
	}

	// Logged out, every page is the site's own, and comes from memory.
	c, err := compare(ctx, dokuwiki, direct, through, pages)
	if err != nil || c.Equal != len(pages) || c.Hits != len(pages) {
		t.Errorf("logged out: %+v, %v", c, err)
	}

	// Logged in, too, and it passes.
	cookies := logIn(ctx, t, through)
	direct.cookies, through.cookies = cookies, cookies
	c, err = compare(ctx, dokuwiki, direct, through, pages)
	if err != nil || c.Equal != len(pages) || c.Passed != len(pages) {
		t.Errorf("logged in: %+v, %v", c, err)
	}
	a, err := through.get(ctx, pages[1])
	if err != nil || !strings.Contains(a.body, dokuwiki.inside) {
		t.Errorf("logged in, a page has no %q: %v", dokuwiki.inside, err)
	}

	// Without PHP, the pages are there, and they are nobody's in particular.
	through.cookies = nil
	php.kill()
	for _, path := range pages {
		a, err := through.get(ctx, path)
		if err != nil || a.status != http.StatusOK || strings.Contains(a.body, dokuwiki.inside) {
			t.Errorf("%s without PHP: %v, %v", path, a, err)
		}
	}
	if err := php.start(ctx); err != nil {
		t.Fatal(err)
	}

	// Who saves a page changes it for everybody, at once.
	through.cookies = cookies
	form, err := through.get(ctx, "/doku.php?id=article7&do=edit")
	if err != nil {
		t.Fatal(err)
	}
	if a, err := through.do(ctx, http.MethodPost, "/doku.php", url.Values{"id": {"article7"}, "do[save]": {"1"}, "rev": {"0"},
		"date": {hidden(form.body, "date")}, "changecheck": {hidden(form.body, "changecheck")}, "target": {"section"},
		"sectok": {hidden(form.body, "sectok")}, "wikitext": {"What was edited just now."}, "prefix": {"."}, "suffix": {""}}); err != nil || a.status >= 400 {
		t.Fatalf("saving: %v, %v", a, err)
	}
	through.cookies = nil
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if _, err := through.until(ctx, "/doku.php?id=article7", "What was edited just now."); err != nil {
		t.Error(err)
	}
}

// logIn fills in the form.
func logIn(ctx context.Context, t *testing.T, v visitor) (cookies []*http.Cookie) {
	t.Helper()
	form, err := v.get(ctx, "/doku.php?id=start&do=login")
	if err != nil {
		t.Fatal(err)
	}
	v.cookies = set(nil, form)
	a, err := v.do(ctx, http.MethodPost, "/doku.php?id=start&do=login", url.Values{"u": {strings.ToLower(userName)}, "p": {password}, "sectok": {hidden(form.body, "sectok")}})
	if err != nil {
		t.Fatal(err)
	}
	return set(v.cookies, a)
}

// set is what a browser remembers of Set-Cookie.
func set(cookies []*http.Cookie, a *answer) []*http.Cookie {
	kept := map[string]*http.Cookie{}
	for _, c := range append(cookies, (&http.Response{Header: a.header}).Cookies()...) {
		kept[c.Name] = &http.Cookie{Name: c.Name, Value: c.Value}
		if c.MaxAge < 0 || c.Value == "deleted" {
			delete(kept, c.Name)
		}
	}
	cookies = nil
	for _, c := range kept {
		cookies = append(cookies, c)
	}
	return cookies
}

// hidden is the value of a field of a form.
func hidden(page, name string) string {
	_, after, _ := strings.Cut(page, `name="`+name+`" value="`)
	value, _, _ := strings.Cut(after, `"`)
	return value
}

func TestDiffers(t *testing.T) {
	page := func(body string) *answer {
		return &answer{200, http.Header{"Content-Type": {"text/html"}}, body}
	}
	for _, test := range []struct {
		want, got *answer
		why       string
	}{
		{page("same"), page("same"), ""},
		{page(`<input name="sectok" value="1">`), page(`<input name="sectok" value="2">`), ""},
		{page("a"), &answer{500, http.Header{}, ""}, "status 500, not 200"},
		{page("this is one"), page("this is another"), `at byte 8 "this is another", not "this is one"`},
	} {
		if why := dokuwiki.differs(test.want, test.got); why != test.why {
			t.Errorf("%q and %q: %q, want %q", test.want.body, test.got.body, why, test.why)
		}
	}
}
