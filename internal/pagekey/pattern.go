package pagekey

import (
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
)

// An outerMatch is a pattern of a ServeMux around the Site.
type outerMatch struct {
	pattern string         // as all methods that have pages know it
	mux     *http.ServeMux // of this pattern alone, without method and host; nil where it is invalid
}

// Patterns remember those of a ServeMux around the Site.
type Patterns struct {
	unseen bool         // whether the handler is a ServeMux, which sets its own
	known  sync.Map     // from a pattern to its outerMatch
	n      atomic.Int32 // how many
}

// Init says which handler is to see the patterns.
func (p *Patterns) Init(h http.Handler) { _, p.unseen = h.(*http.ServeMux) }

// maxOuter is how many patterns are remembered: more than that are not patterns, but made
// of what visitors send.
const maxOuter = 1 << 10

// Of returns the pattern by which a ServeMux around the Site has found it, where the
// handler is to see that: it is then part of the key, since which pattern it is may depend
// on the visitor's method, on their Host, however they spell it, and on a prefix that was
// stripped. The handler sees the patterns that have path values. Any other says nothing
// that the path does not, and is not seen, so that a page that was made without a visitor,
// and so without a pattern, is the one that visitors get. Nor is a pattern that does not
// match the page's path, or one around a ServeMux, which sets its own.
func (p *Patterns) Of(pattern, path string) string {
	if p.unseen {
		return ""
	}
	if wildcard := strings.IndexByte(pattern, '{'); wildcard < 0 || pattern[wildcard:] == "{$}" {
		return ""
	}
	known, ok := p.known.Load(pattern)
	if !ok {
		m := outerMatch{pattern: getPattern(pattern), mux: outerMux(pattern)}
		if p.n.Add(1) > maxOuter {
			p.n.Add(-1)
			known = m
		} else {
			known, _ = p.known.LoadOrStore(strings.Clone(pattern), m)
		}
	}
	m := known.(outerMatch)
	if m.mux == nil {
		return ""
	}
	if _, matched := m.mux.Handler(&http.Request{Method: http.MethodGet, URL: URL(path, "")}); matched == "" {
		return ""
	}
	return m.pattern
}

// outerMux returns a ServeMux of the pattern alone, without its method and host, or
// nil if it is a pattern of another kind of router.
func outerMux(pattern string) (mux *http.ServeMux) {
	defer func() {
		if recover() != nil { // by which a ServeMux refuses an invalid pattern
			mux = nil
		}
	}()
	mux = http.NewServeMux()
	mux.HandleFunc(pattern[max(0, strings.IndexByte(pattern, '/')):], func(http.ResponseWriter, *http.Request) {})
	return mux
}

// getPattern returns the pattern for GET that goes with one for HEAD.
func getPattern(pattern string) string {
	if rest, ok := strings.CutPrefix(pattern, http.MethodHead+" "); ok {
		return http.MethodGet + " " + rest
	}
	return pattern
}

// setOuterPattern gives r the pattern of a ServeMux around the Site, as the key has it, and
// the path values that follow from it and the page's own path. The method and host with
// which a visitor has come do not count. A pattern of another kind of router is ignored.
func setOuterPattern(pattern string, r *http.Request) {
	mux := outerMux(pattern)
	if mux == nil {
		return
	}
	mux.ServeHTTP(discard{}, r) // which sets both
	if r.Pattern != "" {
		r.Pattern = pattern
	}
}

// discard is a ResponseWriter that discards the response.
type discard struct{}

func (discard) Header() http.Header { return make(http.Header) }

func (discard) WriteHeader(int) {}

func (discard) Write(b []byte) (int, error) { return len(b), nil }
