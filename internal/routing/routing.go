// Package routing finds the route of a page by the patterns of [net/http.ServeMux], and
// what a path given to Revalidate, Purge or Prerender names. The best match alone
// decides.
package routing

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/isr-go/isr/internal/pagekey"
	"github.com/isr-go/isr/internal/policy"
)

// A Table holds the routes of a Site. Once all were added it is safe for concurrent
// use.
type Table struct {
	origin pagekey.Origin
	other  *policy.Route
	mux    *http.ServeMux // from the patterns to entries; only matched with, never served
	filled bool           // whether it has any
	hosts  atomic.Bool    // whether a pattern that was found names a host

	handler      http.Handler // where routes beside handlers are looked for, or nil
	sharedMaxAge time.Duration
	besides      sync.Map // from a besideKey to its *policy.Route
	narrower     sync.Map // from two patterns to whether the first is narrower; as many as the program has
}

// An entry stands for a route in a Table's ServeMux.
type entry struct {
	http.Handler // nil
	route        *policy.Route
}

// New returns a Table in which every page has the route other.
func New(o pagekey.Origin, other *policy.Route) *Table {
	return &Table{origin: o, other: other, mux: http.NewServeMux()}
}

// Add adds the route of a pattern. It fails where the pattern is invalid, has a method
// without pages, is written as for another router, or conflicts with another.
func (t *Table) Add(rt *policy.Route) (err error) {
	pattern := rt.Pattern
	if method, _, ok := strings.Cut(pattern, " "); ok && method != http.MethodGet {
		return fmt.Errorf("method %s: only GET has pages (and HEAD with it); leave the method out", method)
	}
	if right, reason := respell(pattern); right != pattern {
		return fmt.Errorf("%s: write %q", reason, right)
	}
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("%v", v)
		}
	}()
	t.mux.Handle(pattern, entry{route: rt})
	t.filled = true
	if namesHost(pattern) {
		t.hosts.Store(true)
	}
	return nil
}

// Of returns the routes of a Site around h, by Options.Default and Options.Routes. It
// panics where one is invalid.
func Of(h http.Handler, o pagekey.Origin, sharedMaxAge time.Duration, other policy.Spec, routes map[string]policy.Spec) *Table {
	route := func(where, pattern string, s policy.Spec) *policy.Route {
		rt, err := policy.New(pattern, s, sharedMaxAge)
		if err != nil {
			panic(fmt.Sprintf("isr: %s.%v", where, err))
		}
		return rt
	}
	t := New(o, route("Options.Default", "", other))
	for _, pattern := range slices.Sorted(maps.Keys(routes)) {
		where := fmt.Sprintf("Options.Routes[%q]", pattern)
		if err := t.Add(route(where, pattern, routes[pattern])); err != nil {
			panic(fmt.Sprintf("isr: %s: %v", where, err))
		}
	}
	t.LookInto(h, sharedMaxAge)
	return t
}

// HasHosts reports whether one of the patterns names a host: then a path alone does
// not say which route a page has. Of those of a ServeMux it knows when it has found one.
func (t *Table) HasHosts() bool { return t.hosts.Load() }

// ByHost reports whether a path may have another route at another host.
func (t *Table) ByHost() bool {
	return t.origin.Host == "" && (t.handler != nil || t.hosts.Load())
}

// Of returns the route of the page that r asks for, whose path is path, by
// pagekey.CleanPath. Where path is empty, since that of r is not clean, it is the route of
// the path that a ServeMux would redirect to.
func (t *Table) Of(r *http.Request, path string) *policy.Route {
	u := r.URL
	if path != "" && path != u.EscapedPath() {
		u = pagekey.URL(path, "")
	}
	return t.lookup(pagekey.CleanHost(pagekey.SchemeOf(r), r.Host), u)
}

// lookup returns the route of the pages at a URL, by the host that their keys have: that
// of the narrowest pattern, whether the route was added or stands beside a handler.
func (t *Table) lookup(host string, u *url.URL) *policy.Route {
	r := &http.Request{Method: http.MethodGet, Host: cmp.Or(t.origin.Host, host), URL: u}
	rt := t.other
	if t.filled {
		h, _ := match(t.mux, r)
		if e, ok := h.(entry); ok {
			rt = e.route
		}
	}
	if t.handler == nil {
		return rt
	}
	if h, pattern := t.beside(r); h != nil && (rt == t.other || t.isNarrower(pattern, rt.Pattern, r)) {
		return t.routeAt(h, pattern)
	}
	return rt
}

// A Target is what a path given to Revalidate, Purge or Prerender means.
type Target struct {
	pagekey.Scope
	Route *policy.Route
}

// Target returns what a path, or a whole URL, means. One that ends in "/*" means all that
// is below.
func (t *Table) Target(name string) (target Target, err error) {
	return t.parse(name, (*pagekey.Scope).ReadStar)
}

// Page returns what a path, or a whole URL, means that names one page.
func (t *Table) Page(name string) (target Target, err error) {
	return t.parse(name, func(s *pagekey.Scope) error {
		if strings.HasSuffix(s.Path, "/*") {
			return errors.New(`names all pages below a path, and not one that could be generated; a star in a path is written "%2A"`)
		}
		return nil
	})
}

func (t *Table) parse(name string, check func(*pagekey.Scope) error) (target Target, err error) {
	scope, query, err := pagekey.ParseScope(name, t.origin)
	if err == nil {
		err = check(&scope)
	}
	if err != nil {
		return target, fmt.Errorf("isr: path %q: %w", name, err)
	}
	if t.hosts.Load() && scope.Host == "" && t.origin.Host == "" {
		scope.AllQueries = true // the hosts' routes may keep different ones
	}
	target = t.At(scope)
	target.Query = target.Route.Rules.Query(query)
	return target, nil
}

// Targets returns what paths mean, or an error for each that is invalid.
func (t *Table) Targets(names []string) ([]Target, error) {
	targets := make([]Target, 0, len(names))
	var errs []error
	for _, name := range names {
		target, err := t.Target(name)
		targets, errs = append(targets, target), append(errs, err)
	}
	return targets, errors.Join(errs...)
}

// At returns the target of a scope.
func (t *Table) At(s pagekey.Scope) Target {
	return Target{s, t.lookup(s.Host, pagekey.URL(s.Path, ""))}
}

// Split returns the targets that name paths, and those that name what is below one.
func Split(targets []Target) (paths, below []Target) {
	for _, t := range targets {
		if t.Below {
			below = append(below, t)
		} else {
			paths = append(paths, t)
		}
	}
	return paths, below
}

// Tags returns the tags of targets.
func Tags(targets []Target) []string {
	tags := make([]string, len(targets))
	for i := range targets {
		tags[i] = targets[i].Tag()
	}
	return tags
}

// IsPlain reports whether a key is that of the page that a visitor without any headers
// gets at the target.
func (t *Target) IsPlain(k *pagekey.Key) bool {
	return k.Query == t.Query && k.Variant == t.variant(pagekey.Origin{}, *k, nil)
}

// Key returns the key of the page that a visitor who sends the headers gets at the
// target, where its host is known.
func (t *Target) Key(o pagekey.Origin, sent http.Header) (k pagekey.Key, ok bool) {
	k = pagekey.Key{Scheme: t.Scheme, Host: t.Host, Path: t.Path, Query: t.Query}
	k.Variant = t.variant(o, k, sent)
	return k, o.Host != "" || t.Host != ""
}

// variant returns what the key of a visitor who sends the headers holds of these. They are
// of the segment of a page request with those headers.
func (t *Target) variant(o pagekey.Origin, k pagekey.Key, sent http.Header) string {
	if t.Route.Rules.Segment == nil {
		return t.Route.Rules.Variant(sent)
	}
	k.Variant = ""
	r := k.Request(context.Background(), o)
	maps.Copy(r.Header, sent)
	variant, _ := t.Route.Rules.VariantOf(r)
	return variant
}

// ForHandler returns a visitor's own request as a handler may see it, where its route is
// rt, if that was looked up: with the segment that it is of. It reports whether the route
// has any: then what the handler answers is for those of one.
func (t *Table) ForHandler(r *http.Request, rt *policy.Route) (own *http.Request, segmented bool) {
	if rt == nil && pagekey.HasPath(r) {
		rt = t.Of(r, "")
	}
	if rt == nil {
		return (*pagekey.Rules)(nil).ForHandler(r), false
	}
	return rt.Rules.ForHandler(r), rt.Rules.Segment != nil
}
