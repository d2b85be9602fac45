package policy

import (
	"fmt"
	"net/http"
	"time"

	"github.com/isr-go/isr/internal/header"
)

// A Lifetime says how long a page is fresh, and how long after that it may
// still be shown. The bounds are forever where there is none.
type Lifetime struct {
	TTL, StaleWhileRevalidate, StaleIfError time.Duration

	Until time.Duration // how long after its generation it is expired, whatever else; zero: there is no such time
}

// Fresh returns how long the page is fresh at most.
func (l *Lifetime) Fresh() time.Duration {
	if l.Until != 0 {
		return min(l.TTL, l.Until)
	}
	return l.TTL
}

// Lifetime says how long a response lives, and whether the handler itself gave
// it its time (RFC 9111, section 4.2.1).
func (rt *Route) Lifetime(status int, h http.Header, d header.Directives) (l Lifetime, explicit bool) {
	l = Lifetime{rt.TTL, rt.StaleWhileRevalidate, rt.StaleIfError, 0}
	if IsNotFound(status) {
		// What was published meanwhile must be seen.
		l.TTL, l.StaleWhileRevalidate = rt.NotFoundTTL, 0
	}
	switch {
	case d.SMaxAge >= 0:
		l.TTL, explicit = d.SMaxAge, true
	case d.MaxAge >= 0:
		l.TTL, explicit = d.MaxAge, true
	case h["Expires"] != nil:
		at, _ := header.ParseDate(h.Get("Expires")) // what is no date is in the past
		from, ok := header.ParseDate(h.Get("Date"))
		if !ok {
			from = time.Now()
		}
		l.TTL, explicit = max(0, at.Sub(from)), true
	}
	if d.StaleWhileRevalidate >= 0 {
		l.StaleWhileRevalidate = d.StaleWhileRevalidate
	}
	if d.StaleIfError >= 0 {
		l.StaleIfError = d.StaleIfError
	}
	if d.MustRevalidate {
		l.StaleWhileRevalidate, l.StaleIfError = 0, 0
	}
	return l, explicit
}

// IsNotFound reports whether a status says that there is no page. It is a page,
// too, but not for long.
func IsNotFound(status int) bool {
	return status == http.StatusNotFound || status == http.StatusGone
}

// MaxAge stands for "forever" in headers.
const MaxAge = 365 * 24 * time.Hour

// CacheControlFor returns the Cache-Control for downstream of a page whose handler gives
// none: the route's, or a derived one. By that browsers ask each time and get a
// 304; shared caches, which do not learn of a purge, may keep the page while it is
// fresh here, but not for longer than Options.SharedMaxAge. There is no
// stale-while-revalidate in it: they would keep purged pages by that.
func (rt *Route) CacheControlFor(status int, l Lifetime) string {
	switch {
	case rt.CacheControl != "" && status < 400: // what is not found may be there tomorrow
		if l.Until != 0 {
			return header.Shortened(rt.CacheControl, l.Until)
		}
		return rt.CacheControl
	case rt.Rules.Covers("Authorization"):
		return header.Private // public would let others share it (RFC 9111, section 3.5)
	case rt.SharedMaxAge < 0:
		return "public, max-age=0"
	}
	return fmt.Sprintf("public, max-age=0, s-maxage=%d", max(0, min(l.Fresh(), rt.SharedMaxAge, MaxAge)/time.Second))
}
