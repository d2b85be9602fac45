// Package data shares values between pages: a menu, a post, a price list. A value is a
// page that no visitor can reach: it has the same runs, invalidations, lifetimes and
// error retention, and its body is JSON.
//
// A page is never newer than the data in it. What is loaded during a generation is fresh,
// and was made or confirmed at the version of the Store that the generation began with,
// or later; the page takes over its tags. Where only an invalidated or an expired value
// can be had, the page is stale from the beginning.
package data

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/isr-go/isr/internal/cache"
	"github.com/isr-go/isr/internal/flight"
	"github.com/isr-go/isr/internal/inside"
	"github.com/isr-go/isr/internal/invalidation"
	"github.com/isr-go/isr/internal/page"
	"github.com/isr-go/isr/internal/pagekey"
	"github.com/isr-go/isr/internal/policy"
)

// MaxKeyBytes is the length of the longest key of a value.
const MaxKeyBytes = 1 << 10

// maxNames is how many sources a Site has: who has more makes them for each request.
const maxNames = 10_000

// A Spec has the fields of isr.Data, which says what they mean.
type Spec struct {
	Name                                             string
	TTL, StaleWhileRevalidate, StaleIfError, Timeout time.Duration
	Tags                                             []string
}

// A Loader holds the values of one Site. It is safe for concurrent use.
type Loader struct {
	runs  *flight.Group
	cache *cache.Cache
	table *invalidation.Table
	anew  bool
	tell  func(*Source, string, Visit)

	sources sync.Map       // from an owner to its *Source
	mu      sync.Mutex     // guards names; held alone
	names   map[string]any // whose each is

	hits, misses atomic.Uint64
}

// A Visit is what has come of one Load.
type Visit struct {
	Hit  bool
	Took time.Duration
	Err  error
}

// New returns a Loader without sources. It makes values anew for each page and each
// request that passes, if so asked, and tells what comes of each Load, where tell is not
// nil.
func New(runs *flight.Group, c *cache.Cache, table *invalidation.Table, anew bool, tell func(*Source, string, Visit)) *Loader {
	return &Loader{runs: runs, cache: c, table: table, anew: anew, tell: tell, names: make(map[string]any)}
}

// Counts returns how many values were found in memory, and how many were waited for.
func (l *Loader) Counts() (hits, misses uint64) { return l.hits.Load(), l.misses.Load() }

// A Source is the values of one name.
type Source struct {
	Loader *Loader
	Route  *policy.Route
	Name   string
	typ    reflect.Type
	tag    string // of all values
}

// Source returns the source of an owner: a pointer. Its values have a type. It fails
// where another owner has the name.
func (l *Loader) Source(owner any, s Spec, t reflect.Type) (*Source, error) {
	if src, ok := l.sources.Load(owner); ok {
		return src.(*Source), nil
	}
	if s.Name == "" {
		return nil, errors.New("isr: Data without a Name")
	}
	if s.Name[0] == '/' || strings.Contains(s.Name, pagekey.ValueSeparator) {
		return nil, fmt.Errorf(`isr: Data %q: a Name does not begin with "/", and has no zero byte`, s.Name)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.names) == maxNames {
		return nil, fmt.Errorf("isr: Data %q: there are %d others: make each once, as a variable of the package", s.Name, maxNames)
	}
	if have, ok := l.names[s.Name]; ok && have != owner {
		return nil, fmt.Errorf("isr: Data %q: another one has this Name: make it once, as a variable of the package, and not for each request", s.Name)
	}
	rt, err := policy.New(pagekey.ValueScheme+":"+s.Name, policy.Spec{
		TTL: s.TTL, StaleWhileRevalidate: s.StaleWhileRevalidate, StaleIfError: s.StaleIfError, Timeout: s.Timeout, Tags: s.Tags,
	}, -1)
	if err != nil {
		return nil, fmt.Errorf("isr: Data %q: %w", s.Name, err)
	}
	src := &Source{Loader: l, Route: rt, Name: s.Name, typ: t, tag: pagekey.AsTag(s.Name)}
	l.names[s.Name] = owner
	l.sources.Store(owner, src)
	return src, nil
}

// tagOf returns the tag of one value.
func (src *Source) tagOf(key string) string { return pagekey.ValueTag(src.Name, key) }

// Hit returns a value that is in memory and may be used without further ado.
func (l *Loader) Hit(ctx context.Context, src *Source, key string) (any, bool) {
	if l.tell != nil || l.anew {
		return nil, false // see Load
	}
	k, scope := pagekey.Value(src.Name, key), inside.From(ctx)
	p, effect := l.cache.Get(&k, l.cache.Path(k.Path))
	if outer := runOf(scope); outer != nil && p != nil {
		if !outer.MayUse(l.runs, p) {
			return nil, false
		}
		effect = p.Effect(l.table) // after it was known that all is known
	}
	if !p.IsFresh(effect) {
		return nil, false
	}
	return l.hit(scope, p), true
}

// runOf returns the run that a scope belongs to, or nil, also where that is over.
func runOf(scope *inside.Scope) *flight.Flight {
	if scope == nil || scope.IsClosed() {
		return nil
	}
	return scope.Run.(*flight.Flight)
}

func (l *Loader) hit(scope *inside.Scope, p *page.Page) any {
	if p.Hits.Add(1)%64 == 1 { // to ask for the time takes as long as all the rest
		l.cache.Touch(p, time.Now())
	}
	l.hits.Add(1)
	depend(scope, p, nil)
	return p.Value()
}

// depend notes in the scope of a generation, if there is one, that it has used a value,
// and why that is not a good one, if so.
func depend(scope *inside.Scope, p *page.Page, stale error) {
	if scope != nil {
		scope.Use(p.Subject.Tags, p.Expires(), stale, p.PausedUntil())
	}
}

// Load returns a value, which fetch makes where there is none that may be used.
func (l *Loader) Load(ctx context.Context, src *Source, key string, fetch func(context.Context) (any, error)) (any, error) {
	if len(key) > MaxKeyBytes {
		return nil, fmt.Errorf("isr: Data %q: a key of %d bytes, and at most %d are allowed", src.Name, len(key), MaxKeyBytes)
	}
	begin := time.Now()
	if l.anew {
		made := fetch
		fetch = func(inner context.Context) (v any, err error) {
			inside.Guarded(ctx, func() { v, err = made(inner) })
			return v, err
		}
	}
	v, hit, err := l.load(ctx, src, key, fetch)
	if err != nil { // a page that is made without the value depends on it all the same
		inside.From(ctx).Use(append([]string{src.tag, src.tagOf(key)}, src.Route.Tags...), time.Time{}, nil, time.Time{})
	}
	if !hit {
		l.misses.Add(1)
	}
	if l.tell != nil {
		l.tell(src, key, Visit{hit, time.Since(begin), err})
	}
	return v, err
}

func (l *Loader) load(ctx context.Context, src *Source, key string, fetch func(context.Context) (any, error)) (v any, hit bool, err error) {
	scope, asked := inside.From(ctx), l.table.Clock()
	outer := runOf(scope)
	req := flight.Request{Key: pagekey.Value(src.Name, key), Route: src.Route, Fetch: src.fetch(key, fetch), Cause: ctx}
	deadline := time.Now().Add(src.Route.Timeout + time.Second) // a fetch has its own, but may be queued, or another needed
	for ctx.Err() == nil {
		now := time.Now()
		p, effect := l.cache.Get(&req.Key, nil)
		mayUse := outer == nil && !l.anew
		if outer != nil && p != nil {
			mayUse = outer.MayUse(l.runs, p)
			effect = p.Effect(l.table) // after it was known that all is known
		}
		view := p.View(effect, now)
		switch isFailing := view.OnError && p.IsFailing(l.table); {
		case view.State == page.Fresh && mayUse:
			return l.hit(scope, p), true, nil
		case outer == nil && !l.anew && (view.State == page.Stale || view.State == page.Expired && isFailing):
			l.runs.Join(req, p, nil)
			return l.hit(scope, p), true, nil
		case outer != nil && isFailing && p.IsPaused(l.table, now) && outer.MayUseOnError(l.runs, p):
			_, err := p.Failures()
			depend(inside.From(ctx), p, err)
			return p.Value(), false, nil
		}
		w := &flight.Waiter{Fresh: outer != nil || l.anew, Inside: outer != nil, Outer: outer}
		f, how := l.runs.Join(req, p, w)
		switch {
		case how == flight.Circle:
			return nil, false, fmt.Errorf("isr: Data %q, key %q: it is loaded to make itself", src.Name, key)
		case how == flight.Closed:
			ctx, cancel := context.WithTimeout(context.Background(), src.Route.Timeout)
			defer cancel()
			v, err := fetch(ctx)
			return v, false, err
		case how == flight.Full:
			return l.fallback(ctx, src, key, req, errBusy)
		case f == nil:
			continue
		}
		out, err := wait(ctx, f, w, deadline)
		switch {
		case err != nil:
			return l.fallback(ctx, src, key, req, err)
		case out.Kind == flight.Failed:
			v, hit, err := l.fallback(ctx, src, key, req, out.Err)
			if err != nil {
				scope.Use(f.Depends(), time.Time{}, nil, time.Time{})
				out.Repanic()
			}
			return v, hit, err
		case out.Kind == flight.Busy:
			return l.fallback(ctx, src, key, req, errBusy)
		case out.Page == nil: // Again, Nothing
			continue
		}
		made := out.Page
		mayUse = out.Kind != flight.Found || outer == nil || outer.MayUse(l.runs, made)
		effect = made.Effect(l.table) // after it was known that all is known
		if !mayUse || out.Kind == flight.Found && made.View(effect, time.Now()).State != page.Fresh && outer != nil ||
			made.Subject.Since.Clock < asked && effect != 0 && out.Kind != flight.Found {
			continue // what it turned out to depend on was invalidated meanwhile
		}
		depend(scope, made, out.Stale)
		if made.IsHitForPass {
			return f.Value(), false, nil
		}
		return made.Value(), false, nil
	}
	return nil, false, ctx.Err()
}

// errBusy is why there is no value, where no run was begun.
var errBusy = errors.New("too many wait for what is not stored: Options.MaxGenerations")

var errTimeout = errors.New("fetch did not finish within Timeout")

// wait waits for a run until the deadline.
func wait(ctx context.Context, f *flight.Flight, w *flight.Waiter, deadline time.Time) (*flight.Outcome, error) {
	defer w.Leave()
	left := time.Until(deadline)
	if left <= 0 { // first: runs that end at once may be no good, again and again
		return nil, errTimeout
	}
	timeout := time.NewTimer(left)
	defer timeout.Stop()
	select {
	case <-f.Done():
		return f.Outcome(), nil
	case <-timeout.C:
		return nil, errTimeout
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// fallback returns the last good value, if it may be used where a new one cannot be had,
// else the error. Where that is for lack of time or room, it is renewed in the background.
func (l *Loader) fallback(ctx context.Context, src *Source, key string, req flight.Request, err error) (any, bool, error) {
	p, _ := l.cache.Get(&req.Key, nil)
	scope := inside.From(ctx)
	usable := ctx.Err() == nil && !l.anew && !p.IsUnknown() && runOf(scope).MayUseOnError(l.runs, p) // before its effect is asked for
	var view page.View
	if usable {
		view = p.View(p.Effect(l.table), time.Now())
	}
	if !usable || !view.IsShowable() {
		return nil, false, fmt.Errorf("isr: Data %q, key %q: %w", src.Name, key, err)
	}
	if view.State != page.Fresh && (err == errBusy || err == errTimeout) {
		l.runs.Join(req, p, nil)
	}
	depend(scope, p, err)
	return p.Value(), false, nil
}

// fetch makes of a func what a run calls. A value goes through JSON, also where it is
// not taken from a Store: it is the same everywhere, and nobody else has it.
func (src *Source) fetch(key string, f func(context.Context) (any, error)) *flight.Fetch {
	decode := func(body []byte) (_ any, size int64, err error) {
		defer func() { // UnmarshalJSON of T; what the Store holds is decoded on no handler's goroutine
			if v := recover(); v != nil {
				err = fmt.Errorf("decoding it panicked: %v", v)
			}
		}()
		v := reflect.New(src.typ)
		if err := json.Unmarshal(body, v.Interface()); err != nil {
			return nil, 0, err
		}
		return v.Elem().Interface(), max(sizeOf(v.Elem()), int64(len(body))), nil
	}
	return &flight.Fetch{
		Decode: decode,
		Do: func(ctx context.Context) (v any, body []byte, size int64, err error) {
			inside.From(ctx).Use([]string{src.tag, src.tagOf(key)}, time.Time{}, nil, time.Time{})
			if v, err = f(ctx); err != nil {
				return nil, nil, 0, err
			}
			if body, err = json.Marshal(v); err != nil {
				return nil, nil, 0, fmt.Errorf("isr: Data %q, key %q: the value has no JSON: %w", src.Name, key, err)
			}
			if v, size, err = decode(body); err != nil {
				return nil, nil, 0, fmt.Errorf("isr: Data %q, key %q: the value does not come back from its JSON: %w", src.Name, key, err)
			}
			return v, body, size, nil
		},
	}
}
