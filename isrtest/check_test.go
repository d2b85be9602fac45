package isrtest

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isr-go/isr"
)

// Each mistake is found, with the field that is missing, and what is declared is none.
func TestCheck(t *testing.T) {
	language := func(r *http.Request) string { return r.Header.Get("Accept-Language") }
	for what, test := range map[string]struct {
		page func(r *http.Request) string
		opts isr.Options
		want string // one finding; empty: none
	}{
		"language":          {language, isr.Options{}, "/: differs by Accept-Language: add it to Route.Vary, with Normalize"},
		"declared language": {language, isr.Options{Default: isr.Route{Vary: []string{"Accept-Language"}}}, ""},
		"HTMX":              {func(r *http.Request) string { return r.Header.Get("HX-Request") }, isr.Options{}, "/: differs by Hx-Request: add it to Route.Vary"},
		"user agent":        {func(r *http.Request) string { return fmt.Sprint(strings.Contains(r.UserAgent(), "Mobile")) }, isr.Options{}, "/: differs by User-Agent: add it to Route.Vary"},
		"cookie": {func(r *http.Request) string { return fmt.Sprint(r.CookiesNamed("session")) }, isr.Options{},
			"/: differs by the cookie session: where the page is for one visitor, set Route.Bypass"},
		"bypassed cookie": {func(r *http.Request) string { return fmt.Sprint(r.CookiesNamed("session")) },
			isr.Options{Default: isr.Route{Bypass: func(r *http.Request) bool { return r.CookiesNamed("session") != nil }}}, ""},
		"address":   {func(r *http.Request) string { return r.RemoteAddr }, isr.Options{}, "/: differs by the client's address, or what"},
		"time":      {func(r *http.Request) string { return time.Now().Format(time.RFC3339Nano) + language(r) }, isr.Options{}, "/: differs by Accept-Language"},
		"nonce":     {func(r *http.Request) string { return "<script nonce='" + rand.Text() + "'>" }, isr.Options{}, ""},
		"panic":     {func(r *http.Request) string { return r.Header["Cookie"][0] }, isr.Options{}, "/: cannot be made by a page request"},
		"nothing":   {func(r *http.Request) string { return r.URL.Path }, isr.Options{}, ""},
		"an origin": {func(r *http.Request) string { return r.Host + r.Header.Get("X-Forwarded-Proto") }, isr.Options{Origin: "https://example.org"}, ""},
		"a segment": {func(r *http.Request) string { return r.Header.Get("Isr-Segment") }, isr.Options{Default: isr.Route{Segment: language}}, ""},
	} {
		t.Run(what, func(t *testing.T) {
			h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				fmt.Fprint(w, "<p>the page\n", test.page(r), "\n<p>and its end")
			})
			got, _ := Visitors{}.findings(h, test.opts, []string{"/"})
			if test.want == "" && len(got) > 0 || test.want != "" && (len(got) != 1 || !strings.Contains(got[0], test.want)) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// A handler that asks for CloseNotify, as gin's Stream does, is checked as any other, and
// so are the cookies that it sets.
func TestCheckOfStreams(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.(interface{ CloseNotify() <-chan bool }).CloseNotify()
		if r.URL.Path == "/shop" {
			http.SetCookie(w, &http.Cookie{Name: "basket", Value: "3"})
		}
		fmt.Fprint(w, r.Header.Get("Accept-Language"), r.CookiesNamed("basket"))
	})
	rewrite := func(_ int, h http.Header) { h.Del("Set-Cookie") }
	got, _ := Visitors{}.findings(h, isr.Options{Default: isr.Route{Rewrite: rewrite}}, []string{"/", "/shop"})
	want := []string{"/: differs by Accept-Language", "/shop: differs by Accept-Language", "/shop: differs by the cookie basket"}
	if !slices.EqualFunc(got, want, strings.HasPrefix) {
		t.Errorf("got %q, want %q", got, want)
	}
	synctest.Test(t, func(t *testing.T) {
		site := New(t, h, isr.Options{Default: isr.Route{Bypass: isr.Always}})
		if got := site.Get("/", "Accept-Language", "de"); got.Body != "de[]" {
			t.Errorf("a request that passes gets %+v", got)
		}
	})
}

// A page that is not stored is a finding, where its route or handler did not ask for that.
func TestCheckFindsWhatIsNotStored(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/login":
			http.SetCookie(w, &http.Cookie{Name: "csrf", Value: rand.Text()})
		case "/now":
			w.Header().Set("Cache-Control", "no-store")
		}
		fmt.Fprint(w, "page")
	})
	got, _ := Visitors{}.findings(h, isr.Options{}, []string{"/login", "/now", "/", "nowhere"})
	if len(got) != 2 || !strings.HasPrefix(got[0], "/login: is not stored, because it sets a cookie: ") || !strings.HasPrefix(got[1], "nowhere: no path") {
		t.Errorf("%q", got)
	}
}

// What other visitors send is tried, too.
func TestVisitors(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Header.Get("X-Shop"), r.CookiesNamed("basket"))
	})
	v := Visitors{Cookies: []*http.Cookie{{Name: "basket", Value: "3"}}, Headers: []http.Header{{"X-Shop": {"at"}}}}
	got, _ := v.findings(h, isr.Options{}, []string{"/"})
	if len(got) != 2 || !strings.Contains(got[0], "differs by X-Shop: add it to Route.Vary") || !strings.Contains(got[1], "the cookie basket") {
		t.Errorf("%q", got)
	}
}
