// Package isrtest tests a site that uses isr: that its pages are functions of their URLs
// ([Check]), and what visitors get while pages age, are renewed and fail ([Site]).
//
//	func TestPages(t *testing.T) {
//		isrtest.Check(t, newRouter(), options(), "/", "/posts/1", "/search?q=go")
//	}
//
// See docs/testing.md.
package isrtest

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/internal/compare"
)

// Check fails where a visitor's own request to the handler gets something else than the
// page that isr would make for them: because of a cookie, a language, HX-Request, a user
// agent or another header, or the client's address. It names the field of the Route that
// is missing. URLs are paths, with a query or without, or whole URLs.
//
// Each URL is asked for some fifty times, by GET, and nothing is kept. What differs at each
// run, such as the time, is left out of the comparison. Requests that the route's Bypass
// lets pass are as they should be.
//
// Cookies are tried that the handler sets, and some with usual names. For others, and other
// headers, see [Visitors].
func Check(t testing.TB, h http.Handler, opts isr.Options, urls ...string) {
	t.Helper()
	Visitors{}.Check(t, h, opts, urls...)
}

// Visitors are what the visitors of a site send beside what any may send. The zero value
// is what Check has.
type Visitors struct {
	Cookies []*http.Cookie // each is tried by itself
	Headers []http.Header  // each is tried by itself, with all that it has
}

// Check is as the function [Check].
func (v Visitors) Check(t testing.TB, h http.Handler, opts isr.Options, urls ...string) {
	t.Helper()
	if h == nil || len(urls) == 0 {
		t.Fatal("isrtest: Check: no handler, or no URLs")
	}
	findings, notes := v.findings(h, opts, urls)
	for _, note := range notes {
		t.Log(note)
	}
	for _, finding := range findings {
		t.Error(finding)
	}
}

// usual are what visitors send: one value that most sites know, and another.
var usual = map[string][2]string{
	"Accept":                 {"text/html", "application/json"},
	"Accept-Language":        {"en", "de-AT,de;q=0.9"},
	"Hx-Request":             {"true", "true"},
	"Origin":                 {"https://example.com", "https://other.example"},
	"Referer":                {"https://example.com/", "https://other.example/"},
	"Sec-Ch-Ua-Mobile":       {"?0", "?1"},
	"Sec-Fetch-Site":         {"same-origin", "cross-site"},
	"Turbo-Frame":            {"main", "main"},
	"User-Agent":             {"Mozilla/5.0 (X11; Linux x86_64) Firefox/143.0", "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Mobile Safari/604.1"},
	"X-Forwarded-For":        {"192.0.2.1", "198.51.100.1"},
	"X-Forwarded-Host":       {"other.example", "other.example"},
	"X-Requested-With":       {"XMLHttpRequest", "XMLHttpRequest"},
	"Save-Data":              {"on", "on"},
	"Cf-Ipcountry":           {"AT", "US"},
	"X-Real-Ip":              {"192.0.2.1", "198.51.100.1"},
	"X-Original-Url":         {"/admin", "/admin"},
	"X-Http-Method-Override": {"POST", "POST"},
}

// usualCookies have names that sites use.
var usualCookies = []string{"session", "session_id", "sessionid", "sid", "user", "token", "auth", "theme", "lang", "locale", "cart", "consent"}

// A trial is what one visitor sends.
type trial struct {
	what, remedy string
	edit         func(r *http.Request)
}

// trials returns what the visitors send, with cookies that the handler sets.
func (v Visitors) trials(set []*http.Cookie) (list []trial) {
	add := func(p compare.Part, edit func(r *http.Request)) {
		list = append(list, trial{p.String(), p.Remedy(), edit})
	}
	for _, name := range slices.Sorted(maps.Keys(usual)) {
		for _, value := range usual[name] {
			add(compare.Part{Header: name}, func(r *http.Request) { r.Header.Set(name, value) })
		}
	}
	for _, h := range v.Headers {
		names := slices.Sorted(maps.Keys(h))
		remedy := compare.Part{Header: http.CanonicalHeaderKey(strings.Join(names, ", "))}.Remedy()
		list = append(list, trial{strings.Join(names, ", "), remedy, func(r *http.Request) {
			for name, values := range h {
				r.Header[http.CanonicalHeaderKey(name)] = slices.Clone(values)
			}
		}})
	}
	cookies := append(slices.Clone(v.Cookies), set...)
	for _, name := range usualCookies {
		cookies = append(cookies, &http.Cookie{Name: name, Value: "1"}, &http.Cookie{Name: name, Value: "dark"})
	}
	for _, c := range cookies {
		add(compare.Part{Cookie: c.Name}, func(r *http.Request) { r.AddCookie(c) })
	}
	return list
}

// findings returns what is wrong, and what could not be compared, in words.
func (v Visitors) findings(h http.Handler, opts isr.Options, urls []string) (findings, notes []string) {
	opts.Mode, opts.Store, opts.Edge, opts.Logger, opts.Observe, opts.Trace, opts.Encoders = isr.Develop, nil, nil, nil, nil, nil, nil
	off := opts
	off.Mode = isr.Off // so that the handler learns of the segment
	for _, target := range urls {
		c := &check{site: isr.Wrap(h, opts), handler: isr.Wrap(h, off)}
		if err := c.parse(target, opts.Origin); err != nil {
			findings = append(findings, fmt.Sprintf("%s: %v", target, err))
			continue
		}
		for _, what := range c.run(v) {
			findings = append(findings, target+": "+what)
		}
		if c.mask.all {
			notes = append(notes, target+": differs so much at each run that it cannot be compared")
		}
	}
	return findings, notes
}

// A check is one of one URL.
type check struct {
	site    *isr.Site
	handler http.Handler // that gets visitors' own requests
	url     *url.URL
	mask    mask
}

// parse reads the URL.
func (c *check) parse(target, origin string) (err error) {
	if c.url, err = url.Parse(target); err != nil {
		return err
	}
	if !strings.HasPrefix(c.url.Path, "/") {
		return errors.New(`no path that begins with "/", and no whole URL with one`)
	}
	if o, err := url.Parse(origin); err == nil && c.url.Host == "" && o.Host != "" {
		c.url.Scheme, c.url.Host = o.Scheme, o.Host
	}
	c.url.Scheme, c.url.Host = cmp.Or(c.url.Scheme, "http"), cmp.Or(c.url.Host, "example.com")
	return nil
}

// request returns what a visitor sends, as a server has it.
func (c *check) request(edit func(*http.Request)) *http.Request {
	r := httptest.NewRequest(http.MethodGet, c.url.RequestURI(), nil)
	r.Host, r.RemoteAddr = c.url.Host, "192.0.2.1:1234"
	if c.url.Scheme == "https" {
		r.Header.Set("X-Forwarded-Proto", "https")
	}
	if edit != nil {
		edit(r)
	}
	return r
}

// run returns what is wrong with the URL.
func (c *check) run(v Visitors) (findings []string) {
	first, err := compare.Ask(c.site, c.request(nil))
	switch {
	case err != nil:
		return []string{fmt.Sprintf("cannot be made by a page request, which has nothing of a visitor: %v: set Route.Bypass, where the page is for one visitor", err)}
	case first.Status >= 500:
		return []string{fmt.Sprintf("cannot be made: status %d: %.200s", first.Status, first.Body)}
	}
	for range 4 {
		c.again(&c.mask, c.site, nil, first)
	}
	for p := range c.site.Pages() {
		if why, remedy, ok := strings.Cut(p.NotStored, ": "); ok {
			return []string{"is not stored, because it " + why + ": " + remedy}
		}
	}
	if c.differs(nil) { // though nothing was sent
		return []string{"differs by the client's address, or what else a page request does not have: " + compare.Part{}.Remedy()}
	}
	named := make(map[string]bool)
	for _, t := range v.trials(c.cookiesSet()) {
		if !named[t.what] && c.differs(t.edit) {
			named[t.what] = true
			findings = append(findings, "differs by "+t.what+": "+t.remedy)
		}
	}
	return findings
}

// cookiesSet returns the cookies that the handler sets when it is asked directly.
func (c *check) cookiesSet() []*http.Cookie {
	w := recorder{httptest.NewRecorder()}
	defer func() { recover() }() // run has asked it before
	c.handler.ServeHTTP(w, c.request(nil))
	return w.Result().Cookies()
}

// again asks for what should be the same, and notes in the mask what is not.
func (c *check) again(m *mask, h http.Handler, edit func(*http.Request), as compare.Answer) {
	if a, err := compare.Ask(h, c.request(edit)); err == nil {
		m.note(as, a)
	}
}

// differs reports whether a visitor gets something else from the handler than from isr,
// each of three times, but for what differs at each run.
func (c *check) differs(edit func(*http.Request)) bool {
	m := c.mask.clone()
	for range 3 {
		page, err := compare.Ask(c.site, c.request(edit))
		if err != nil {
			return false
		}
		own, err := compare.Ask(c.handler, c.request(edit))
		if err != nil {
			return false
		}
		c.again(m, c.site, edit, page)
		c.again(m, c.handler, edit, own)
		if m.equal(page, own) {
			return false
		}
	}
	return true
}
