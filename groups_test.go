package isr_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/store"
	"github.com/isr-go/isr/store/memory"
)

// A listener is an Edge that hears what it is told.
type listener struct{ told atomic.Pointer[[]string] }

func (*listener) Mark(http.Header, []string) bool { return true }

func (l *listener) Tell(_ context.Context, effect store.Effect, tags []string) error {
	tags = append(slices.Clone(tags), fmt.Sprint(effect))
	l.told.Store(&tags)
	return nil
}

// A successful unsafe request whose answer names groups (RFC 9875) expires the pages with
// these tags, here, in the Store and in the Edge, before the visitor has the answer. Ten
// times a minute: beyond that they turn stale, so that nobody can have all visitors wait.
func TestGroupInvalidation(t *testing.T) {
	for _, test := range []struct {
		name, method string
		status       int
		location     string
		want         bool
	}{
		{"POST", "POST", 200, "", true},
		{"POST that redirects", "POST", 303, "/other", true},
		{"an unknown method", "MEND", 204, "", true},
		{"a failure", "POST", 500, "", false},
		{"an error of the visitor's", "DELETE", 403, "", false},
		{"a router's redirect to the clean path", "POST", 307, "/edit/", false},
		{"GET", "GET", 200, "", false},
	} {
		for _, shared := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				l, pages := new(listener), 0
				o := isr.Options{Edge: l, Routes: map[string]isr.Route{"/edit": {Bypass: isr.Always}, "/list": {Tags: []string{"list"}}}}
				if shared {
					o.Store = memory.New()
				}
				app := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/edit" {
						w.Header().Set("Cache-Group-Invalidation", `"list", "more"`)
						if test.location != "" {
							w.Header().Set("Location", test.location)
						}
						w.WriteHeader(test.status)
						return
					}
					pages++
					fmt.Fprint(w, pages)
				})
				site, other := isr.Wrap(app, o), isr.Wrap(app, isr.Options{Store: o.Store, Routes: o.Routes})
				visit := func(s *isr.Site, method, path string) string {
					w := httptest.NewRecorder()
					s.ServeHTTP(w, httptest.NewRequest(method, path, nil))
					return w.Body.String()
				}
				for range 10 {
					before := visit(site, "GET", "/list")
					visit(site, test.method, "/edit")
					if test.want {
						if told := l.told.Load(); told == nil || !slices.Contains(*told, "list") || !slices.Contains(*told, "more") || !slices.Contains(*told, "expired") {
							t.Errorf("%s: the Edge was told %q", test.name, told)
						}
					}
					if after := visit(site, "GET", "/list"); (after != before) != test.want {
						t.Errorf("%s: page %s, then %s", test.name, before, after)
					}
				}
				if test.want {
					before := visit(site, "GET", "/list")
					visit(site, test.method, "/edit")
					if after := visit(site, "GET", "/list"); after != before {
						t.Errorf("%s: the eleventh time in a minute visitors wait", test.name)
					}
				}
				site.Shutdown(t.Context())
				other.Shutdown(t.Context())
			})
		}
	}
}

// Pages of a route that names parameters say which, so that caches in front and browsers
// need not ask for what they have.
func TestNoVarySearch(t *testing.T) {
	site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/own" {
			w.Header().Set("No-Vary-Search", "key-order")
		}
		fmt.Fprint(w, r.URL)
	}), isr.Options{Routes: map[string]isr.Route{
		"/search": {Query: []string{"q"}}, "/own": {Query: []string{"q"}}, "/ref": {IgnoreQuery: []string{"ref"}},
	}})
	for target, want := range map[string]string{
		"/search?q=1&utm=2": `key-order, params, except=("q")`, "/search?q=%25": "", "/own": "key-order", "/ref": `key-order, params=("ref")`, "/": "",
	} {
		for range 2 {
			w := httptest.NewRecorder()
			site.ServeHTTP(w, httptest.NewRequest("GET", target, nil))
			if got := strings.Join(w.Header()["No-Vary-Search"], "|"); got != want {
				t.Errorf("%s: %q, want %q", target, got, want)
			}
		}
	}
}
