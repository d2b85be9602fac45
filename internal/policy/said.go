package policy

import (
	"net/http"
	"time"

	"github.com/isr-go/isr/internal/header"
)

// Said is what a handler has said of its page by isr.Tag, TTL and Until.
type Said struct {
	Tags   []string
	BadTag error // why one of them is none

	Data []string // the tags of the values that it has loaded

	Stale      error     // why one of them is not a good one, if so
	StaleUntil time.Time // and until when there is no better one

	HasTTL bool
	TTL    time.Duration // the shortest
	Until  time.Time     // the earliest; zero: there is none
}

// Apply returns the lifetime of a response by what its handler has said beside its
// header. It was generated at a time, which is earlier by its Age where the lifetime is
// explicit: one by its header, which is never lengthened.
func (s *Said) Apply(l Lifetime, explicit bool, status int, generated time.Time, age time.Duration) Lifetime {
	switch ttl := max(0, s.TTL); {
	case !s.HasTTL:
	case explicit:
		l.TTL = min(l.TTL, ttl+age)
	case !IsNotFound(status):
		l.TTL = ttl
	case l.TTL < 0: // the route is NoStore
		l.TTL = min(ttl, defaultNotFoundTTL)
	default:
		l.TTL = min(ttl, l.TTL)
	}
	if !s.Until.IsZero() {
		l.Until = max(1, s.Until.Sub(generated))
	}
	return l
}

// RefusesAtEnd says why a response that Refuses lets pass may not be stored after all,
// given what its handler has said: by the time that it returns it may have given it a
// lifetime.
func (rt *Route) RefusesAtEnd(status int, h http.Header, said *Said) Refusal {
	l, explicit := rt.Lifetime(status, h, header.ParseCacheControl(h["Cache-Control"]))
	switch {
	case said.BadTag != nil:
		return Refusal{Why: "has a tag that is none", Remedy: said.BadTag.Error()}
	case !explicit && said.HasTTL:
	case l.TTL < 0 || l.TTL == 0 && rt.TTL < 0:
		return Refusal{Why: "has no lifetime by its Cache-Control, and Route.TTL is NoStore"}
	}
	return Refusal{}
}
