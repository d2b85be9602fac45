// Package isrchi brings isr into a chi router, as a middleware for Use and With.
//
// Wrapping the whole router with [isr.Wrap] needs no such package, and is the better
// choice where all of the site's pages are for everyone. This package is for routers
// in which some middlewares (sessions, authentication, rate limits) have to stay
// outside of the pages, or in which some routes alone have pages:
//
//	r := chi.NewRouter()
//	site, cached := isrchi.New(r, isr.Options{Default: isr.Route{TTL: time.Minute}})
//	r.Use(middleware.Logger)                             // runs for each visit
//	r.With(cached).Get("/posts/{id}", showPost)          // runs for each page
//
// chi keeps URL parameters in the request's context, and a page request has a fresh
// one. So an isr.Site made inside of a chi router stores pages whose parameters are
// empty. This middleware matches the path of the page request against the router,
// and gives the handler the route context that follows from it: parameters, route
// pattern, path values. Nothing of a visitor's context is used.
//
// # Rules for the neighbours
//
// Middlewares before this one run for each visit, those behind it for each page.
//
// What leads a request to a handler has to follow from its path. Where a middleware
// outside has changed the path by which chi routes (StripSlashes, URLFormat,
// PathRewrite below the outermost router), where the way goes through a router that
// chi does not know as one (a handler around a sub-router), and for a path with
// escapes that none needs (/%61), the visitor's own request goes to the handler,
// uncached. The Logger is told of it, once for each place.
//
// Routers must not be chosen by a header or host outside of the middleware
// (RouteHeaders, hostrouter): the handlers of two such routers would share pages. Wrap
// each of these routers with [isr.Wrap].
//
// HEAD is answered from the page where the middleware is in Use, whether or not the
// router has a route for it.
package isrchi

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/go-chi/chi/v5"

	"github.com/isr-go/isr"
)

// New returns a [isr.Site] for the pages of a router, and the middleware that answers
// with them: for Use, for With, and in as many places as you like. All of them share
// the Site, which is what Revalidate, Prerender, isr.RevalidateHandler and Shutdown
// are called with; it is not itself to be served.
//
// root is the outermost router, the one that the server calls. It may be empty yet,
// but must not change once it serves.
//
// Where Prerender or Revalidate asks for a page before a visitor has come by its
// route, a page request goes through the whole router once, to find the way; what
// the middlewares outside answer to it is dropped. The page fails where that request
// does not arrive.
//
// New panics where root is nil, and where isr.Wrap does.
func New(root chi.Routes, opts isr.Options) (*isr.Site, func(http.Handler) http.Handler) {
	if root == nil {
		panic("isrchi: New: nil router")
	}
	p := &pages{root: root, log: opts.Logger, ways: make(map[string]*way)}
	p.site = isr.Wrap(http.HandlerFunc(p.serve), opts)
	return p.site, func(next http.Handler) http.Handler { return &entry{pages: p, next: next} }
}

// pages are what New returns.
type pages struct {
	root chi.Routes
	site *isr.Site
	log  *slog.Logger

	mu   sync.RWMutex
	ways map[string]*way // that are known, by their patterns; by mu
}

// An entry is one place of the router in which the middleware stands.
type entry struct {
	pages  *pages
	next   http.Handler
	ways   atomic.Pointer[[]*way] // those that lead here; written by pages.mu
	warned atomic.Bool
}

// key is that of contexts: what is done with a request that has come to the pages.
type key struct{ *pages }

type (
	// A visit is a visitor's request on its way through the Site.
	visit struct {
		next   http.Handler
		r      *http.Request // as it has come
		passes bool
	}
	// A generation is a page request.
	generation struct{}
	// A search is a page request that goes through the router to find the way.
	search struct{}
)

func (e *entry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p := e.pages
	switch r.Context().Value(key{p}).(type) {
	case nil:
	case search:
		if rctx := chi.RouteContext(r.Context()); rctx != nil {
			e.learn(rctx, r)
		}
		return
	default: // an entry behind another one
		e.next.ServeHTTP(w, r)
		return
	}
	rctx := chi.RouteContext(r.Context())
	v := &visit{next: e.next, r: r}
	r2 := r.WithContext(context.WithValue(r.Context(), key{p}, v))
	n := 0
	if rctx != nil {
		if n = len(rctx.RoutePatterns); n > 0 {
			r2.Pattern = "" // chi's own, which follows from the path: Prerender has none
		}
	}
	if (r.Method == http.MethodGet || r.Method == http.MethodHead) && r.ContentLength == 0 && !e.leads(rctx, r) {
		v.passes = true
		r2.ContentLength = -1 // what may have a body passes
	}
	before := r2.Pattern
	p.site.ServeHTTP(w, r2)
	if r2.Pattern != before {
		r.Pattern = r2.Pattern
		if rctx != nil && len(rctx.RoutePatterns) == n {
			rctx.RoutePatterns = append(rctx.RoutePatterns[:0], r2.Pattern) // for logs and metrics outside
		}
	}
}

// serve is the handler of the Site.
func (p *pages) serve(w http.ResponseWriter, r *http.Request) {
	if v, ok := r.Context().Value(key{p}).(*visit); ok && v.r.URL == r.URL {
		if v.passes {
			r.ContentLength = v.r.ContentLength
		}
		if r.Pattern == "" {
			r.Pattern = v.r.Pattern
		}
		v.next.ServeHTTP(w, r)
		return
	}
	to := p.find(routePath(r))
	if to == nil {
		p.search(r)
		to = p.find(routePath(r))
	}
	if to == nil {
		http.Error(w, "isrchi: the router does not come by the middleware on its way to "+r.URL.Path, http.StatusInternalServerError)
		return
	}
	rctx := chi.NewRouteContext()
	ctx := context.WithValue(r.Context(), key{p}, generation{})
	page := r.WithContext(context.WithValue(ctx, chi.RouteCtxKey, rctx))
	if !to.restore(rctx, page) {
		http.Error(w, "isrchi: the router's patterns do not match "+r.URL.Path, http.StatusInternalServerError)
		return
	}
	to.entry.next.ServeHTTP(w, page)
	r.Pattern = page.Pattern
}

// search sends a page request through the router, so that the entry on its way
// learns of it.
func (p *pages) search(r *http.Request) {
	h, ok := p.root.(http.Handler)
	if !ok {
		return
	}
	defer func() {
		if e := recover(); e != nil && p.log != nil {
			p.log.Error("isr: a middleware panicked while the way to a page was looked for", "path", r.URL.Path, "error", e)
		}
	}()
	ctx := context.WithValue(r.Context(), key{p}, search{})
	ctx = context.WithValue(ctx, chi.RouteCtxKey, (*chi.Context)(nil)) // so that the router makes its own
	h.ServeHTTP(nowhere{make(http.Header)}, r.Clone(ctx))
}

// nowhere is a ResponseWriter for what nobody wants.
type nowhere struct{ header http.Header }

func (w nowhere) Header() http.Header { return w.header }

func (nowhere) WriteHeader(int) {}

func (nowhere) Write(b []byte) (int, error) { return len(b), nil }

// Why the requests of visitors pass.
const (
	notByChi    = "they have not come through a chi router"
	otherRouter = "isrchi.New was given another router than the outermost one"
	changedPath = "the router's way to them does not follow from their path: a middleware outside has changed it, or there is a handler around a sub-router"
	otherEntry  = "the same patterns lead to several places with the middleware: routers are chosen by something else than the path"
)

// leads reports whether a page request with r's path would come to e with the route
// context that the router has made for this visitor.
func (e *entry) leads(rctx *chi.Context, r *http.Request) bool {
	if rctx == nil {
		e.warn(notByChi, r)
		return false
	}
	if !isClean(r.URL.RawPath) {
		return false // the page has another path, which may lead elsewhere
	}
	if ways := e.ways.Load(); ways != nil {
		for _, to := range *ways {
			if slices.Equal(to.patterns, rctx.RoutePatterns) {
				if to.agrees(rctx, r) {
					return true
				}
				e.warn(changedPath, r)
				return false
			}
		}
	}
	ok, why := e.learn(rctx, r)
	if why != "" {
		e.warn(why, r)
	}
	return ok
}

// warn tells the developer once why visitors' requests pass.
func (e *entry) warn(why string, r *http.Request) {
	if e.pages.log != nil && !e.warned.Swap(true) {
		e.pages.log.Warn("isr: requests pass, because "+why, "path", r.URL.Path)
	}
}
