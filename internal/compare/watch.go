package compare

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/isr-go/isr/internal/flight"
	"github.com/isr-go/isr/internal/header"
	"github.com/isr-go/isr/internal/page"
	"github.com/isr-go/isr/internal/pagekey"
	"github.com/isr-go/isr/internal/policy"
	"github.com/isr-go/isr/internal/warning"
)

// Bounds of a Watch.
const (
	maxTried = 1000             // parts, of all routes
	maxParts = 32               // of one request
	maxTime  = 10 * time.Second // of one comparison
)

// A Watch compares the pages of a Site with what visitors' own requests would have got.
// It is safe for concurrent use.
type Watch struct {
	runs    *flight.Group
	handler http.Handler
	warn    *warning.Log // is told what makes a difference

	mu    sync.Mutex // guards tried; held alone
	tried map[attempt]bool
}

// New returns a Watch of the handler's pages, or nil where none is wanted.
func New(wanted bool, runs *flight.Group, h http.Handler, warn *warning.Log) *Watch {
	if !wanted {
		return nil
	}
	return &Watch{runs: runs, handler: h, warn: warn, tried: make(map[attempt]bool)}
}

// An attempt is what is compared once.
type attempt struct {
	route *policy.Route
	part  Part
}

// Compare compares a page with what the visitor's own request, as the handler may see it,
// would have got, if they send something that their route does not declare and that
// none of its visitors has sent before. What the handler answers goes nowhere. A nil Watch
// does nothing.
func (w *Watch) Compare(req flight.Request, p *page.Page, own *http.Request) {
	if w == nil || own.Method != http.MethodGet {
		return
	}
	parts := undeclared(req.Route.Rules, own)
	if !w.areNew(req.Route, parts) {
		return
	}
	ctx, cancel := context.WithTimeout(own.Context(), min(req.Route.Timeout, maxTime))
	defer cancel()
	own = own.Clone(ctx)
	maps.DeleteFunc(own.Header, func(name string, _ []string) bool { return header.IsConditional(name) || name == "Accept-Encoding" })
	h, _ := p.Header()
	shown := NewAnswer(p.Status, h, p.Body())
	if got, err := Ask(w.handler, own); err != nil || got.Equal(shown) || ctx.Err() != nil {
		return
	}
	if again, err := w.try(ctx, req, Part{}, own); err != nil || !again.Equal(shown) {
		return // it differs each time
	}
	named := false
	for _, part := range parts {
		if got, err := w.try(ctx, req, part, own); err == nil && ctx.Err() == nil && !got.Equal(shown) {
			w.warn.Differs(req.Route, req.Key.Path, part.String(), part.Remedy())
			named = true
		}
	}
	if !named && ctx.Err() == nil {
		w.warn.Differs(req.Route, req.Key.Path, Part{}.String(), Part{}.Remedy())
	}
}

// try asks the handler with a page request that has one part of the visitor's, too.
func (w *Watch) try(ctx context.Context, req flight.Request, part Part, own *http.Request) (a Answer, err error) {
	w.runs.Try(ctx, req, func(r *http.Request) {
		if part.Header != "" {
			r.Header[part.Header] = slices.Clone(own.Header[part.Header])
		}
		for _, c := range own.CookiesNamed(part.Cookie) {
			r.AddCookie(c)
		}
		a, err = Ask(w.handler, r)
	})
	return a, err
}

// areNew notes the parts, and reports whether any is to be tried for the first time.
func (w *Watch) areNew(rt *policy.Route, parts []Part) (any bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range parts {
		if a := (attempt{rt, p}); !w.tried[a] && len(w.tried) < maxTried {
			w.tried[a] = true
			any = true
		}
	}
	return any
}

// undeclared returns what a visitor sends that their route does not declare.
func undeclared(ru *pagekey.Rules, r *http.Request) (parts []Part) {
	for _, name := range slices.Sorted(maps.Keys(r.Header)) {
		switch {
		case ru.Covers(name), name == "Cookie", header.IsConditional(name), header.IsHopByHop(name):
		case name == "Accept-Encoding", name == "Cache-Control", name == "Pragma", name == "Content-Length", name == pagekey.SegmentHeader:
		default:
			parts = append(parts, Part{Header: name})
		}
	}
	for _, c := range r.Cookies() {
		if p := (Part{Cookie: c.Name}); !ru.CoversCookie(c.Name) && !slices.Contains(parts, p) {
			parts = append(parts, p)
		}
	}
	return parts[:min(len(parts), maxParts)]
}
