package isr_test

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/isr-go/isr"
)

// In Develop each visit makes its page anew, by the page request; failures are shown,
// though there is an old page, and so is what the data is now.
func TestDevelop(t *testing.T) {
	c := &shop{menus: &isr.Data[*menu]{Name: "menu"}}
	site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "GET" && (!isr.Generating(r.Context()) || r.Header["Cookie"] != nil) {
			t.Error("the handler gets the visitor's own request")
		}
		c.ServeHTTP(w, r)
	}), isr.Options{Mode: isr.Develop, Default: isr.Route{Placeholder: http.NotFoundHandler()}})
	for i := range 3 {
		c.version = i
		res := get(site, "/a", "Cookie", "session=1")
		if got, want := read(res), fmt.Sprint("/a ", i); got != want || !strings.Contains(res.Header.Get("Cache-Status"), "detail=develop") {
			t.Errorf("got %q, %q, want %q", got, res.Header.Get("Cache-Status"), want)
		}
		if got, want := read(do(site, "POST", "/b")), fmt.Sprint("/b ", i); got != want {
			t.Errorf("a request that passes gets %q, want %q", got, want)
		}
	}
	c.fetch = func(context.Context) (*menu, error) { return nil, fmt.Errorf("no database") }
	if res := get(site, "/a"); res.StatusCode != 500 || !strings.Contains(read(res), "no database") {
		t.Errorf("a failure is not shown: %d", res.StatusCode)
	}
}

// In Develop a fetch that asks the context of a visitor panics: what it returns would be
// for all visitors. Others may ask it, and before and after.
func TestFetchReadsVisitor(t *testing.T) {
	values := &isr.Data[string]{Name: "value"}
	site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user := fmt.Sprint(r.Context().Value(name("user")))
		v, err := values.Load(r.Context(), r.URL.Path, func(ctx context.Context) (string, error) {
			if r.URL.Path == "/bad" {
				user = fmt.Sprint(r.Context().Value(name("user")))
			}
			derived, cancel := context.WithCancel(r.Context())
			defer cancel()
			return fmt.Sprint(ctx.Value(name("user"))), derived.Err()
		})
		fmt.Fprint(w, user, " ", v, err, r.Context().Value(name("user")))
	}), isr.Options{Mode: isr.Develop, Default: isr.Route{Bypass: isr.Always}})
	outer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		site.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), name("user"), "ann")))
	})
	if got := body(outer, "/good"); got != "ann <nil><nil>ann" {
		t.Errorf("got %q", got)
	}
	if v := recovered(func() { get(outer, "/bad") }); !strings.Contains(fmt.Sprint(v), "visitor's context") {
		t.Errorf("panicked with %v", v)
	}
}

// Off is as if there were no Site: every request passes, and nothing that is asked of the
// Site does anything, or fails.
func TestOff(t *testing.T) {
	c := &shop{menus: &isr.Data[*menu]{Name: "menu"}}
	site := isr.Wrap(c, isr.Options{Mode: isr.Off, Origin: "https://example.com", Default: isr.Route{PrerenderedOnly: true}})
	ctx := t.Context()
	for i := range 3 {
		c.version = i
		res := get(site, "/a")
		if got, want := read(res), fmt.Sprint("/a ", i); got != want || res.Header.Get("Cache-Status") != "isr; fwd=bypass; detail=off" {
			t.Errorf("got %q, %q, want %q", got, res.Header.Get("Cache-Status"), want)
		}
		do(site, "POST", "/a")
	}
	calls := c.fetched
	for what, err := range map[string]error{
		"Revalidate": site.Revalidate(ctx, "/a"), "RevalidateTag": site.RevalidateTag(ctx, "menu"),
		"Purge": site.Purge(ctx, "/a"), "PurgeTag": site.PurgeTag(ctx, "menu"),
		"Prerender": maps.Collect(site.Prerender(ctx, slices.Values([]string{"/a"})))["/a"],
		"Shutdown":  site.Shutdown(ctx),
	} {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	if c.fetched != calls || len(pages(site)) != 0 {
		t.Errorf("%d calls; stored: %v", c.fetched-calls, pages(site))
	}
}
