package routing

import (
	"net/http"
	"path"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/isr-go/isr/internal/pagekey"
	"github.com/isr-go/isr/internal/policy"
)

// A Handler is a handler with its route beside it: what isr.With returns.
type Handler struct {
	http.Handler
	spec policy.Spec
}

// NewHandler returns h with a route beside it, or says which field of that no request
// could put right.
func NewHandler(h http.Handler, s policy.Spec) (*Handler, error) {
	s.Query, s.IgnoreQuery, s.Vary = slices.Clone(s.Query), slices.Clone(s.IgnoreQuery), slices.Clone(s.Vary)
	s.VaryCookies, s.Tags = slices.Clone(s.VaryCookies), slices.Clone(s.Tags)
	_, err := policy.New("", s, 0)
	return &Handler{h, s}, err
}

// A besideKey is what a route beside a handler is made for: the handler may stand in
// several places.
type besideKey struct {
	handler *Handler
	pattern string
}

// LookInto has the Table look for routes beside the handlers of h, if that is a ServeMux
// (or a Handler itself), and give them a SharedMaxAge.
func (t *Table) LookInto(h http.Handler, sharedMaxAge time.Duration) {
	switch h.(type) {
	case *http.ServeMux, *Handler:
		t.handler, t.sharedMaxAge = h, sharedMaxAge
	}
}

// maxNested is how many ServeMuxes and Handlers are looked into, one in the other: one
// may stand in itself.
const maxNested = 32

// beside returns the handler with a route that a page request would reach, and the
// narrowest of the patterns that lead there. The innermost such handler decides.
func (t *Table) beside(r *http.Request) (found *Handler, at string) {
	h, pattern, hosts := t.handler, "", false
	for range maxNested {
		switch x := h.(type) {
		case *Handler:
			found, at = x, pattern
			if at == "" {
				at = "/"
			}
			if hosts {
				t.hosts.Store(true)
			}
			h = x.Handler
		case *http.ServeMux:
			next, p := match(x, r)
			if p == "" {
				return found, at
			}
			if pattern == "" || !t.isNarrower(pattern, p, r) {
				pattern = p
			}
			hosts = hosts || namesHost(p)
			h = next
		default:
			return found, at
		}
	}
	return found, at
}

// Matches returns the pattern by which the Site's handler finds a page request, as far as
// that is a ServeMux, and those inside of it are.
func (t *Table) Matches(r *http.Request) (pattern string) {
	h := t.handler
	for range maxNested {
		switch x := h.(type) {
		case *Handler:
			h = x.Handler
		case *http.ServeMux:
			h, pattern = x.Handler(r)
		default:
			return pattern
		}
	}
	return pattern
}

// routeAt returns the route of a Handler at a pattern.
func (t *Table) routeAt(h *Handler, pattern string) *policy.Route {
	key := besideKey{h, pattern}
	if rt, ok := t.besides.Load(key); ok {
		return rt.(*policy.Route)
	}
	made, err := policy.New(pattern, h.spec, t.sharedMaxAge)
	if err != nil {
		panic(err) // NewHandler has made the same
	}
	rt, _ := t.besides.LoadOrStore(key, made)
	return rt.(*policy.Route)
}

// isNarrower reports whether a ServeMux would prefer the pattern a to b, both of which
// match r. Where it would refuse to have both, it does not.
func (t *Table) isNarrower(a, b string, r *http.Request) (narrower bool) {
	if known, ok := t.narrower.Load([2]string{a, b}); ok {
		return known.(bool)
	}
	defer func() {
		if recover() != nil { // by which a ServeMux refuses a conflict
			narrower = false
		}
		t.narrower.Store([2]string{a, b}, narrower)
	}()
	mux, first := http.NewServeMux(), new(Handler)
	mux.Handle(b, new(Handler))
	mux.Handle(a, first)
	h, _ := match(mux, r)
	return h == first
}

// redirect is the type of the handlers by which a ServeMux redirects to another spelling
// of the path.
var redirect = reflect.TypeOf(http.RedirectHandler("/", http.StatusMovedPermanently))

// match returns what a ServeMux has for a request, and by which pattern. Where it would
// redirect to the clean path, or to the one with a slash at the end, that is what it has
// there: a redirect has the route of where it leads.
func match(mux *http.ServeMux, r *http.Request) (http.Handler, string) {
	h, pattern := mux.Handler(r)
	if pattern == "" || reflect.TypeOf(h) != redirect {
		return h, pattern
	}
	escaped := r.URL.EscapedPath()
	clean := path.Clean("/" + escaped)
	if clean != "/" && strings.HasSuffix(escaped, "/") {
		clean += "/"
	}
	tries := []string{clean}
	if strings.HasSuffix(pattern, "/") || strings.HasSuffix(pattern, "/{$}") {
		tries = append(tries, clean+"/")
	}
	for _, path := range tries {
		if h, p := mux.Handler(&http.Request{Method: r.Method, Host: r.Host, URL: pagekey.URL(path, "")}); p != "" && reflect.TypeOf(h) != redirect {
			return h, p
		}
	}
	return h, pattern
}

// namesHost reports whether a pattern names a host.
func namesHost(pattern string) bool {
	if _, rest, ok := strings.Cut(pattern, " "); ok {
		pattern = strings.TrimLeft(rest, " \t")
	}
	return !strings.HasPrefix(pattern, "/")
}
