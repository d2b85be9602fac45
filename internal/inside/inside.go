// Package inside is what the code under a handler says of the page that is being made:
// by the context of the page request, from any depth and any goroutine.
package inside

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/isr-go/isr/internal/pagekey"
	"github.com/isr-go/isr/internal/policy"
)

// key is the context key of a Scope.
type key struct{}

// A Scope collects what is said during one generation. It is safe for concurrent use.
type Scope struct {
	Run  any    // the run
	Site any    // the Site that the run belongs to
	late func() // is told, once, that something was said too late

	mu     sync.Mutex // guards what follows; held alone
	said   policy.Said
	used   map[string]struct{} // said.Data
	err    error
	closed bool
	warned bool
}

// New returns the Scope of a run, in which nothing was said. It tells late, at most once,
// that something was said after Close.
func New(run, site any, late func()) *Scope { return &Scope{Run: run, Site: site, late: late} }

// Value returns the Scope under the key by which From looks for it, else nil. It is for
// the Value method of a context.
func (s *Scope) Value(k any) any {
	switch k {
	case key{}:
		return s
	case siteKey{}:
		return s.Site
	}
	return nil
}

// From returns the Scope of the generation that ctx belongs to, or nil where it belongs
// to none. The methods of a nil Scope do nothing.
func From(ctx context.Context) *Scope {
	s, _ := ctx.Value(key{}).(*Scope)
	return s
}

// siteKey is the context key of the Site that a request passes through.
type siteKey struct{}

// WithSite returns a context in which SiteOf finds a Site. If it is watched, it panics
// where code asks for a value that Guarded runs: that is a visitor's.
func WithSite(ctx context.Context, site any, watched bool) context.Context {
	if watched {
		ctx = &watchedContext{Context: ctx}
	}
	return context.WithValue(ctx, siteKey{}, site)
}

// A watchedContext is that of a visitor.
type watchedContext struct {
	context.Context
	guarded atomic.Int32 // how many calls of Guarded are under way
	allowed atomic.Int32 // how many calls of Unguarded are under way
}

type watchKey struct{}

func (c *watchedContext) Value(k any) any {
	switch k.(type) {
	case watchKey:
		return c
	case siteKey, key, *int: // *int: the context package's own
	default:
		if c.guarded.Load() > 0 && c.allowed.Load() == 0 {
			panic(fmt.Sprintf("isr: Data: fetch asks a visitor's context for %v: what it returns is for all visitors; use the context that it gets", k))
		}
	}
	return c.Context.Value(k)
}

// Guarded calls f while no code may ask ctx for what is a visitor's, where it is watched.
func Guarded(ctx context.Context, f func()) {
	if c, ok := ctx.Value(watchKey{}).(*watchedContext); ok {
		c.guarded.Add(1)
		defer c.guarded.Add(-1)
	}
	f()
}

// Unguarded calls f, which may ask ctx for anything, also while Guarded runs for it.
func Unguarded(ctx context.Context, f func()) {
	if c, ok := ctx.Value(watchKey{}).(*watchedContext); ok {
		c.allowed.Add(1)
		defer c.allowed.Add(-1)
	}
	f()
}

// SiteOf returns the Site that ctx belongs to, or nil.
func SiteOf(ctx context.Context) any { return ctx.Value(siteKey{}) }

// say calls f, which notes something, unless that comes too late.
func (s *Scope) say(f func()) {
	if s == nil {
		return
	}
	s.mu.Lock()
	tell := s.closed && !s.warned
	s.warned = s.warned || s.closed
	if !s.closed {
		f()
	}
	s.mu.Unlock()
	if tell {
		s.late()
	}
}

// Tag adds tags to the page. One that is none is why the page is not stored.
func (s *Scope) Tag(tags ...string) {
	s.say(func() {
		for _, tag := range tags {
			if err := pagekey.CheckTag(tag); err != nil {
				s.said.BadTag = fmt.Errorf("tag %q: %w", tag, err)
			} else if !slices.Contains(s.said.Tags, tag) {
				s.said.Tags = append(s.said.Tags, tag)
			}
		}
	})
}

// TTL says how long the page is fresh. The shortest counts.
func (s *Scope) TTL(d time.Duration) {
	s.say(func() {
		if !s.said.HasTTL || d < s.said.TTL {
			s.said.TTL, s.said.HasTTL = d, true
		}
	})
}

// Until says when the page expires. The earliest counts.
func (s *Scope) Until(t time.Time) {
	s.say(func() {
		if s.said.Until.IsZero() || t.Before(s.said.Until) {
			s.said.Until = t
		}
	})
}

// Use says that the page holds a value which has tags, and expires at a time, if that is
// not zero. Where it is no good one, stale says why, and until when there is no better one.
func (s *Scope) Use(tags []string, expires time.Time, stale error, until time.Time) {
	s.say(func() {
		if s.used == nil {
			s.used = make(map[string]struct{})
		}
		for _, tag := range tags {
			if _, ok := s.used[tag]; !ok {
				s.used[tag] = struct{}{}
				s.said.Data = append(s.said.Data, tag)
			}
		}
		if !expires.IsZero() && (s.said.Until.IsZero() || expires.Before(s.said.Until)) {
			s.said.Until = expires
		}
		if stale != nil {
			s.said.Stale = cmp.Or(s.said.Stale, stale)
			s.said.TTL, s.said.HasTTL = 0, true
			if until.After(s.said.StaleUntil) {
				s.said.StaleUntil = until
			}
		}
	})
}

var errUnnamed = errors.New("isr.Fail was called without an error")

// Fail says that the generation has failed. The first error counts.
func (s *Scope) Fail(err error) {
	s.say(func() {
		if err == nil {
			err = errUnnamed
		}
		if s.err == nil {
			s.err = err
		}
	})
}

// Err returns the error of Fail, if it was called in time.
func (s *Scope) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Said returns what was said so far.
func (s *Scope) Said() policy.Said {
	s.mu.Lock()
	defer s.mu.Unlock()
	said := s.said
	said.Tags, said.Data = slices.Clip(said.Tags), slices.Clip(said.Data)
	return said
}

// IsClosed reports whether Close was called.
func (s *Scope) IsClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// Close ends the time in which something can be said.
func (s *Scope) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
}
