// Package warning tells the developer, by the Logger, what they should change: each thing
// once for each route, with a remedy.
package warning

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/isr-go/isr/internal/policy"
)

// maxReasons is how many are given for one route, of those that are not the package's own:
// the handler may be a proxy, whose origin may give any number, and visitors choose what
// they send.
const maxReasons = 100

// A Log gives warnings. It is safe for concurrent use, and silent where its Logger is nil.
type Log struct {
	to       *slog.Logger
	overflow atomic.Bool // whether Overflow was called

	mu      sync.Mutex // guards what follows; held alone
	given   map[subject]bool
	reasons map[*policy.Route]int // how many of them are not the package's own
}

// A subject is what is warned of once.
type subject struct {
	route *policy.Route
	what  string
}

// New returns a Log that writes to a Logger, which may be nil.
func New(to *slog.Logger) *Log {
	return &Log{to: to, given: make(map[subject]bool), reasons: make(map[*policy.Route]int)}
}

// An Outcome is what the Logger gets of an event.
type Outcome struct {
	Kind, Path, Tag, Route string // Path or Tag, never both
	Status                 int    // zero: unknown
	Times                  []slog.Attr
	Err                    error
}

// Outcome logs an outcome, with more to say. The Logger is not nil.
func (l *Log) Outcome(level slog.Level, o Outcome, more ...slog.Attr) {
	what := slog.String("path", o.Path)
	if o.Tag != "" {
		what = slog.String("tag", o.Tag)
	}
	attrs := []slog.Attr{slog.String("outcome", o.Kind), what, slog.String("route", o.Route)}
	if o.Status != 0 {
		attrs = append(attrs, slog.Int("status", o.Status))
	}
	attrs = append(attrs, o.Times...)
	if o.Err != nil {
		attrs = append(attrs, slog.String("error", o.Err.Error()))
	}
	l.to.LogAttrs(context.Background(), level, "isr", append(attrs, more...)...)
}

// isFirst reports whether a warning is yet to be given.
func (l *Log) isFirst(s subject) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.given[s] {
		return false
	}
	l.given[s] = true
	return true
}

// isFirstReason is isFirst of what strangers may have any number of.
func (l *Log) isFirstReason(rt *policy.Route, what string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := subject{rt, what}
	if l.given[s] || l.reasons[rt] == maxReasons {
		return false
	}
	l.given[s] = true
	l.reasons[rt]++
	return true
}

// NotStored says why a page is not stored: as a warning, with the remedy, unless the route
// or the handler asked for it.
func (l *Log) NotStored(rt *policy.Route, why policy.Refusal, path string) {
	if l.to == nil {
		return
	}
	level := slog.LevelDebug
	if why.Remedy != "" && l.isFirstReason(rt, why.Why) {
		level = slog.LevelWarn
	}
	l.to.Log(context.Background(), level, "isr: the page is not stored, because it "+why.Why,
		"path", path, "route", rt.Pattern, "remedy", why.Remedy)
}

// TooLargeForStore says that a page is kept here alone.
func (l *Log) TooLargeForStore(rt *policy.Route, path string) {
	l.NotStored(rt, policy.Refusal{
		Why: "is too large for the Store", Remedy: "each instance generates it by itself; make it smaller, or set a smaller MaxPageBytes",
	}, path)
}

// Late says that something was said of a page whose handler had returned.
func (l *Log) Late(rt *policy.Route) {
	if l.to != nil && l.isFirst(subject{rt, "late"}) {
		l.to.Warn("isr: Tag, TTL, Until or Fail was called when the handler had returned: it has no effect", "route", rt.Pattern,
			"remedy", "have the handler wait for the goroutines that do so")
	}
}

// Leaks says that a page would have been made in a visitor's context.
func (l *Log) Leaks(rt *policy.Route) {
	if l.to != nil && l.isFirst(subject{rt, "leaks"}) {
		l.to.Warn("isr: Trace has returned a context that is made on that of the cause: it is not used, since a page is no visitor's", "route", rt.Pattern,
			"remedy", "make it on the first one, and take from the cause only what tells nothing of the visitor, such as a link to their span")
	}
}

// Unshared says that no cache in front keeps a page, since it could not be told of it.
func (l *Log) Unshared(rt *policy.Route, path string) {
	if l.to != nil && l.isFirst(subject{rt, "unshared"}) {
		l.to.Warn("isr: no cache in front keeps the page, because the Edge does not take its tags, or all of its Vary",
			"path", path, "route", rt.Pattern, "remedy", "give the page fewer tags, or see what the Edge's package says of Vary")
	}
}

// EncoderFailed says that pages go without an encoding.
func (l *Log) EncoderFailed(coding string, err error) {
	if l.to != nil && l.isFirst(subject{what: "encoder " + coding}) {
		l.to.Warn("isr: an encoder failed: pages go without its encoding", "coding", coding, "error", err,
			"remedy", "see to Options.Encoders; gzip is not concerned")
	}
}

// Differs says that a visitor's own request would have got another page, because of a part
// of it that the page request does not have.
func (l *Log) Differs(rt *policy.Route, path, part, remedy string) {
	if l.to != nil && l.isFirstReason(rt, "differs by "+part) {
		l.to.Warn("isr: a visitor's own request would get another page, which differs by "+part,
			"path", path, "route", rt.Pattern, "remedy", remedy)
	}
}

// EdgeRestored says that an Edge that has failed takes again what it is told.
func (l *Log) EdgeRestored() {
	if l.to != nil {
		l.to.Info("isr: the Edge takes again what it is told")
	}
}

// Overflow says, once, that the table of invalidations was full of what it had to keep.
func (l *Log) Overflow() {
	if l.to != nil && !l.overflow.Swap(true) {
		l.to.Warn("isr: more was invalidated during one generation, or before the Store told of it, than can be remembered one by one: a few pages more count as invalidated",
			"remedy", "make the slowest pages faster, set a shorter Route.Timeout, or a larger MaxBytes")
	}
}

// SameBuild says that the pages of this build have no name of their own in the Store.
func (l *Log) SameBuild() {
	if l.to != nil {
		l.to.Warn("isr: the Store cannot distinguish the pages of this build from those of other builds",
			"remedy", "set Options.Version, or build where the Go command finds the VCS")
	}
}

// Remade says that a middleware makes a Site for each request.
func (l *Log) Remade() {
	if l.to != nil {
		l.to.Warn("isr: a Site is made anew for each request: nothing is ever cached",
			"remedy", "call Wrap once, around the router, and not in a middleware that is called for each request (gorilla's Use, echo's WrapMiddleware)")
	}
}
