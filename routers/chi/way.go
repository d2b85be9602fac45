package isrchi

import (
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/go-chi/chi/v5"
)

// A way is how the router comes to an entry: the patterns that match on it, one for
// each router. It is part of the program, as the router is.
type way struct {
	entry    *entry
	patterns []string
	levels   []*chi.Mux // for each pattern a router that has it alone
	mounted  bool       // whether the last one is that of a mount
}

var contexts = sync.Pool{New: func() any { return chi.NewRouteContext() }}

// routePath returns the path by which chi routes a request.
func routePath(r *http.Request) string {
	if r.URL.RawPath != "" {
		return r.URL.RawPath
	}
	return r.URL.Path
}

// walk matches path against the patterns, and leaves in rctx what the router would.
// Where r is not nil, it gets the path values.
func (to *way) walk(rctx *chi.Context, path string, r *http.Request) bool {
	rctx.Routes = to.entry.pages.root
	for i, level := range to.levels {
		if !level.Match(rctx, http.MethodGet, path) {
			return false
		}
		if r != nil {
			for i, name := range rctx.URLParams.Keys {
				r.SetPathValue(name, rctx.URLParams.Values[i])
			}
		}
		if i < len(to.levels)-1 {
			path = shift(rctx, to.patterns[i])
		}
	}
	return true
}

// shift does to rctx what a mount does before its router is called, and returns the
// path by which that routes.
func shift(rctx *chi.Context, pattern string) string {
	rctx.RoutePath = "/"
	if n := len(rctx.URLParams.Values) - 1; n >= 0 && strings.HasSuffix(pattern, "*") {
		rctx.RoutePath += rctx.URLParams.Values[n]
		rctx.URLParams.Values[n] = ""
	}
	return rctx.RoutePath
}

// restore gives a page request the route context with which its router would have
// come to the entry.
func (to *way) restore(rctx *chi.Context, r *http.Request) bool {
	if !to.walk(rctx, routePath(r), r) {
		return false
	}
	if n := len(to.patterns); n > 0 {
		rctx.RouteMethod = http.MethodGet
		r.Pattern = rctx.RoutePattern()
		if to.mounted {
			shift(rctx, to.patterns[n-1])
		}
	}
	return true
}

// agrees reports whether a page request with the path of r gets the same route
// context as the router has made for r.
func (to *way) agrees(rctx *chi.Context, r *http.Request) bool {
	own := contexts.Get().(*chi.Context)
	defer contexts.Put(own)
	own.Reset()
	path := routePath(r)
	same := func() bool {
		return (rctx.RoutePath == own.RoutePath || own.RoutePath == "" && rctx.RoutePath == path) &&
			slices.Equal(rctx.URLParams.Keys, own.URLParams.Keys) && slices.Equal(rctx.URLParams.Values, own.URLParams.Values)
	}
	if !to.walk(own, path, nil) {
		return false
	}
	if same() {
		return true
	}
	if !to.mounted {
		return false
	}
	shift(own, to.patterns[len(to.patterns)-1])
	return same()
}

// isClean reports whether the page request for an escaped path has the same: no
// octet is escaped that needs not be, and escapes are in upper case (RFC 3986,
// section 6.2.2).
func isClean(escaped string) bool {
	for i := 0; i+2 < len(escaped); i++ {
		if escaped[i] != '%' {
			continue
		}
		if strings.ToUpper(escaped[i:i+3]) != escaped[i:i+3] {
			return false
		}
		c := unhex(escaped[i+1])<<4 | unhex(escaped[i+2])
		if 'a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9' || strings.IndexByte("-._~", c) >= 0 {
			return false
		}
	}
	return true
}

// unhex returns the value of a hexadecimal digit in upper case.
func unhex(c byte) byte {
	if c >= 'A' {
		return c - 'A' + 10
	}
	return c - '0'
}

// learn notes the way by which a visitor has come to e, if their path alone leads
// there. Otherwise it says why not, where the developer should know.
func (e *entry) learn(rctx *chi.Context, r *http.Request) (ok bool, why string) {
	p := e.pages
	if rctx.Routes != p.root {
		return false, otherRouter
	}
	n := len(rctx.RoutePatterns)
	to := &way{entry: e, patterns: slices.Clone(rctx.RoutePatterns)}
	if n > 0 || rctx.RouteMethod != "" {
		// A NotFound handler behind the middleware is found as its router is, but
		// only by paths that have no handler.
		patterns, found := resolve(p.root, routePath(r))
		if !found {
			return false, ""
		}
		if len(patterns) < n || !slices.Equal(patterns[:n], to.patterns) {
			return false, changedPath
		}
	}
	if n > 0 {
		router := p.root
		for _, pattern := range to.patterns {
			router = mountedAt(router, pattern)
		}
		to.mounted = router != nil
		if !to.mounted && rctx.RouteMethod != http.MethodGet {
			return false, "" // the route of another method
		}
	}
	for _, pattern := range to.patterns {
		level := chi.NewRouter()
		level.HandleFunc(pattern, http.NotFound)
		to.levels = append(to.levels, level)
	}
	if !to.agrees(rctx, r) {
		return false, changedPath
	}

	p.mu.Lock()
	defer p.mu.Unlock()
	for _, other := range p.ways {
		n := min(len(other.patterns), len(to.patterns))
		if !slices.Equal(other.patterns[:n], to.patterns[:n]) {
			continue
		}
		if other.entry == e && len(other.patterns) == len(to.patterns) {
			return true, "" // somebody else was faster
		}
		return false, otherEntry
	}
	p.ways[name(to.patterns)] = to
	var ways []*way
	if old := e.ways.Load(); old != nil {
		ways = slices.Clone(*old)
	}
	ways = append(ways, to)
	e.ways.Store(&ways)
	return true, ""
}

// find returns the way to the entry that a request with this path comes to, or nil
// where none is known.
func (p *pages) find(path string) *way {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if to := p.ways[""]; to != nil {
		return to
	}
	patterns, _ := resolve(p.root, path)
	for i := range patterns {
		if to := p.ways[name(patterns[:i+1])]; to != nil {
			return to
		}
	}
	return nil
}

// name returns the name of a way. No pattern is empty.
func name(patterns []string) string { return strings.Join(patterns, "\n") }

// resolve returns the patterns that match on the way to a path, one for each router,
// as far as they do, and whether there is a handler for GET at its end.
func resolve(root chi.Routes, path string) (patterns []string, found bool) {
	for {
		rctx := chi.NewRouteContext()
		found = root.Find(rctx, http.MethodGet, path) != ""
		patterns = append(patterns, rctx.RoutePatterns...)
		if !found {
			return patterns, false
		}
		// Find stops before the router of a mount where nothing of the path is left.
		last := rctx.RoutePatterns[len(rctx.RoutePatterns)-1]
		for _, pattern := range rctx.RoutePatterns {
			root = mountedAt(root, pattern)
		}
		if root == nil || strings.HasSuffix(last, "*") {
			return patterns, true
		}
		path = "/"
	}
}

// mountedAt returns the router that is mounted at a pattern, or nil.
func mountedAt(in chi.Routes, pattern string) chi.Routes {
	if in == nil {
		return nil
	}
	for _, rt := range in.Routes() {
		if rt.SubRoutes == nil {
			continue
		}
		if at, ok := strings.CutSuffix(rt.Pattern, "*"); rt.Pattern == pattern || ok && (at == pattern || at == pattern+"/") {
			return rt.SubRoutes
		}
	}
	return nil
}
