// Package policy says whether a response may be stored, and for how long (RFC 9111,
// sections 3 and 4.2; RFC 5861).
package policy

import (
	"net/http"
	"time"

	"github.com/isr-go/isr/internal/header"
	"github.com/isr-go/isr/internal/pagekey"
)

// Forever is the lifetime of what is kept until it is revalidated on demand,
// and the bound of what has none.
const Forever time.Duration = 1<<63 - 1

// A Route is what an isr.Route says, ready for use.
type Route struct {
	Pattern string // empty for Options.Default
	Rules   *pagekey.Rules

	// Forever where there is no bound, below zero for never.
	TTL, StaleWhileRevalidate, StaleIfError, NotFoundTTL time.Duration

	Timeout, Patience time.Duration
	SharedMaxAge      time.Duration // Options.SharedMaxAge
	Tags              []string
	CacheControl      string                               // empty: derived
	Failure           func(status int, h http.Header) bool // may be nil
	Bypass            func(*http.Request) bool             // may be nil
	Placeholder       http.Handler                         // may be nil
	PrerenderedOnly   bool
	NotFound          http.Handler
	IgnoreVary        []string                        // canonical
	MaxTTL            time.Duration                   // zero: no bound
	Rewrite           func(status int, h http.Header) // may be nil

	Headers [2]header.Share // of its last pages, plain and compressed
}

// Bypasses reports whether r goes past the cache because of what the route says.
func (rt *Route) Bypasses(r *http.Request) bool { return rt.IsAuthorized(r) || rt.AsksToPass(r) }

// IsAuthorized reports whether r carries an Authorization that is not in the key.
func (rt *Route) IsAuthorized(r *http.Request) bool {
	return r.Header["Authorization"] != nil && !rt.Rules.Covers("Authorization")
}

// AsksToPass reports whether the route's own Bypass wants r past the cache.
func (rt *Route) AsksToPass(r *http.Request) bool { return rt.Bypass != nil && rt.Bypass(r) }
