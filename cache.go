package isr

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"log/slog"
	"net/http"
	"reflect"
	"sync/atomic"
	"time"

	"github.com/isr-go/isr/edge"
	"github.com/isr-go/isr/internal/backing"
	"github.com/isr-go/isr/internal/builds"
	"github.com/isr-go/isr/internal/data"
	"github.com/isr-go/isr/internal/flight"
	"github.com/isr-go/isr/internal/front"
	"github.com/isr-go/isr/internal/inside"
	"github.com/isr-go/isr/internal/page"
	"github.com/isr-go/isr/internal/pagekey"
	"github.com/isr-go/isr/internal/policy"
	"github.com/isr-go/isr/internal/warning"
	"github.com/isr-go/isr/store"
)

// State is the freshness of a page.
type State int

const (
	Fresh       State = iota // served from memory
	Stale                    // served at once, and renewed in the background
	Expired                  // visitors wait for a new one; shown only where that fails
	Uncacheable              // not stored: requests go straight to the handler for a while
)

// The states of package page have the same numbers.
var _ = [1]struct{}{}[State(page.Uncacheable)-Uncacheable+State(page.Expired)-Expired+State(page.Stale)-Stale+State(page.Fresh)-Fresh]

// String returns the state in lower case.
func (s State) String() string {
	return name("State", int(s), "fresh", "stale", "expired", "uncacheable")
}

// Page is a snapshot of a stored page, for people and tools. Headers and tags
// are shared with the cache: do not change them.
type Page struct {
	Scheme, Host, Path, Query, Route string        // Path escaped; Route the pattern, empty for the default
	Varied, Header                   http.Header   // what the key covers beside the URL; the headers as stored
	Status                           int           // zero for a hit-for-pass
	State                            State         // at the time of the snapshot
	NotStored                        string        // for a hit-for-pass: why, in words a developer can act on
	Generated                        time.Time     // when its generation ended, less the Age that it had from upstream
	TTL, Duration                    time.Duration // TTL: zero means until revalidated on demand, less than zero that it is never fresh; Duration: of the last generation
	Size                             int64         // memory in bytes, overhead included
	Tags                             []string      // of the route and of the handler; where they are more than 128, the first 64
	ETag                             string        // of the body without encoding
	Hits                             uint64        // since the page was first stored
	Failures                         int           // in a row, since the last success
	Err                              error         // of the last failure; nil where Failures is zero
}

// Pages returns a snapshot of the stored pages and hits-for-pass, for people and
// tools, beginning with those that were asked for more than once.
func (s *Site) Pages() iter.Seq[Page] {
	return func(yield func(Page) bool) {
		now := time.Now()
		for _, p := range s.cache.All() {
			effect := p.Effect(s.table)
			if effect == store.Gone || p.View(effect, now).State == page.Absent {
				continue
			}
			if !yield(snapshot(p, effect, now)) {
				return
			}
		}
	}
}

func snapshot(p *page.Page, effect store.Effect, now time.Time) Page {
	view := p.View(effect, now)
	out := Page{
		Scheme: p.Key.Scheme, Host: p.Key.Host, Path: p.Key.Path, Query: p.Key.Query, Route: p.Route.Pattern,
		Varied: pagekey.ParseHeader(p.Key.Variant), Status: p.Status, State: State(view.State), NotStored: p.WhyUncacheable(view).String(),
		Generated: p.Generated, Duration: p.Took, Size: p.Size.Load(), Tags: pagekey.PlainTags(p.Subject.Tags), Hits: p.Hits.Load(),
	}
	if name, key, ok := p.Key.Value(); ok {
		out.Path, out.Query = name, key
	}
	out.Header, out.ETag = p.Header()
	out.Failures, out.Err = p.Failures()
	if p.IsHitForPass {
		out.TTL = page.HitForPassTTL
	} else if ttl := p.Lifetime.Fresh(); ttl != policy.Forever {
		out.TTL = cmp.Or(ttl, -1)
	}
	return out
}

// Stats are counts since [Wrap], and what is held and under way now.
type Stats struct {
	Hits, Stale, Misses, Passed uint64 // visits, by what came of them; see Kind
	Generated, Failed           uint64 // generations, of data, too
	DataHits, DataMisses        uint64 // calls of Data.Load, by whether they had to wait
	Evicted                     uint64 // pages that were evicted to make room
	StoreErrors, EdgeErrors     uint64 // failures of the Store, and of the Edge
	EdgeOwed                    int    // paths and tags that the Edge is yet to be told
	Pages                       int    // in memory, hits-for-pass and what is purged but not yet freed included
	Generating                  int    // generations under way
	Bytes                       int64  // of Options.MaxBytes
}

// Stats returns a snapshot of the counts. It is cheap.
func (s *Site) Stats() Stats {
	count := func(k Kind) uint64 { return s.counts[k].Load() }
	out := Stats{
		Hits: count(Hit), Stale: count(StaleHit), Misses: count(Miss), Passed: count(Passed),
		Generated: count(Generated), Failed: count(Failed), Evicted: count(Evicted), StoreErrors: count(StoreFailed), EdgeErrors: count(EdgeFailed),
	}
	if s.front != nil {
		out.EdgeOwed = s.front.Owed()
	}
	out.DataHits, out.DataMisses = s.data.Counts()
	out.Pages, out.Bytes = s.cache.Size()
	out.Generating = s.runs.Running()
	return out
}

// Kind says what an [Event] is about.
type Kind int

const (
	Hit         Kind = iota // a visitor got a fresh page from memory
	StaleHit                // a visitor got a page from memory that is being renewed, or could not be
	Miss                    // a visitor waited for a generation, or got its failure, a placeholder, or the 404 of PrerenderedOnly
	Passed                  // a visitor's own request went to the handler
	Generated               // a page was generated, or renewed by a 304
	Failed                  // a generation failed
	Revalidated             // a path or tag was revalidated
	Purged                  // a path or tag was purged
	Evicted                 // a page was evicted to make room
	StoreFailed             // the Store did not do what it should
	DataHit                 // Data.Load found a value in memory
	DataMiss                // Data.Load waited for a value, or for its failure
	EdgeFailed              // the Edge has not taken what it was told
)

// String returns the kind in lower case.
func (k Kind) String() string {
	return name("Kind", int(k), "hit", "stale", "miss", "passed", "generated", "failed", "revalidated", "purged", "evicted",
		"store failed", "data hit", "data miss", "edge failed")
}

// name returns a name by its number.
func name(what string, n int, names ...string) string {
	if n < 0 || n >= len(names) {
		return fmt.Sprintf("%s(%d)", what, n)
	}
	return names[n]
}

// An Event is one outcome, for Options.Observe. Do not label metrics with what
// visitors choose (Host, Path, Query): its values are unbounded.
type Event struct {
	Kind     Kind
	Host     string        // that of Origin, or of the page's key, or of the request that changed the path; empty for a path that was named without one
	Path     string        // escaped, without query, as the page's key has it, if there is one; of Revalidated and Purged the path, which may end in "/*", unless Tag is set
	Query    string        // of the page's key, or that was named; what is not for the cache has none
	Tag      string        // of Revalidated and Purged: the tag, instead of a path
	Route    string        // the pattern, which metrics may be labelled with; empty for the default route, and where none was looked up
	Tags     []string      // of the page, as in Page: do not change them; of Failed those of the page that is kept
	Status   int           // of the page, or of the failure; zero where that is not known
	Duration time.Duration // of a visit, or of a generation; else zero
	Changed  bool          // of Generated: whether status or body differ from those of the page that was replaced, if one was
	Err      error         // why it failed
}

// done reports what the visitor got.
func (v *visit) done(kind Kind, status int, age time.Duration, err error) {
	s := v.site
	s.counts[kind].Add(1)
	if s.observe == nil && (s.log == nil || !s.log.Enabled(v.r.Context(), slog.LevelDebug)) {
		return
	}
	pattern := ""
	if v.route != nil {
		pattern = v.route.Pattern
	}
	e := Event{
		Kind: kind, Host: v.host(), Path: v.key.Path, Query: v.key.Query, Route: pattern,
		Tags: pagekey.PlainTags(v.tags), Status: status, Duration: time.Since(v.start), Err: err,
	}
	if e.Path == "" {
		e.Path = v.r.URL.EscapedPath()
	}
	s.tell(e, age)
}

// host returns the host of the page that the visitor has asked for.
func (v *visit) host() string {
	return cmp.Or(v.site.origin.Host, v.key.Host, pagekey.CleanHost(pagekey.SchemeOf(v.r), v.r.Host))
}

// evicted reports which pages were evicted to make room.
func (s *Site) evicted(pages []*page.Page) {
	for _, p := range pages {
		e := s.event(Evicted, &p.Key, p.Route)
		e.Status, e.Tags = p.Status, pagekey.PlainTags(p.Subject.Tags)
		s.report(e)
	}
}

// event returns an event about a page.
func (s *Site) event(kind Kind, k *pagekey.Key, rt *policy.Route) Event {
	if name, key, ok := k.Value(); ok {
		return Event{Kind: kind, Path: name, Query: key, Route: rt.Pattern}
	}
	return Event{Kind: kind, Host: cmp.Or(k.Host, s.origin.Host), Path: k.Path, Query: k.Query, Route: rt.Pattern}
}

// tracer returns what calls Options.Trace.
func (s *Site) tracer(trace func(ctx, cause context.Context, e Event) (context.Context, func(Event))) flight.Trace {
	if trace == nil {
		return nil
	}
	return func(f *flight.Flight, base, cause context.Context) (context.Context, any) {
		return trace(base, cause, s.event(Generated, &f.Key, f.Route))
	}
}

// report counts an event, and tells it to Observe and the Logger.
func (s *Site) report(e Event, more ...slog.Attr) {
	s.counts[e.Kind].Add(1)
	s.tell(e, 0, more...)
}

// tell passes an event on to Observe and, with more to say, to the Logger.
func (s *Site) tell(e Event, age time.Duration, more ...slog.Attr) {
	if s.observe != nil {
		s.observe(e)
	}
	level := slog.LevelDebug
	switch e.Kind {
	case Generated, Revalidated, Purged:
		level = slog.LevelInfo
	case Failed, StoreFailed, EdgeFailed:
		level = slog.LevelError
	}
	if s.log == nil || !s.log.Enabled(context.Background(), level) {
		return
	}
	o := warning.Outcome{Kind: e.Kind.String(), Path: e.Path, Tag: e.Tag, Route: e.Route, Status: e.Status, Err: e.Err}
	switch e.Kind {
	case Hit, StaleHit:
		o.Times = []slog.Attr{slog.Duration("age", age), slog.Duration("duration", e.Duration)}
	case Miss, Passed, Generated, Failed, DataHit, DataMiss:
		o.Times = []slog.Attr{slog.Duration("duration", e.Duration)}
	}
	s.warn.Outcome(level, o, more...)
}

// open makes a Store the second level.
func (s *Site) open(st store.Store, version string) {
	build, distinct := backing.BuildName(version)
	if !distinct {
		s.warn.SameBuild()
	}
	failed := func(err error) { s.report(Event{Kind: StoreFailed, Err: fmt.Errorf("store: %w", err)}) }
	s.backing = backing.Open(backing.Config{
		Store: st, Build: build, Origin: s.origin, Table: s.table, Failed: failed,
		Restored: func() {
			if s.log != nil {
				s.log.Info("isr: the Store answers again")
			}
		},
		Delivered: func(effect store.Effect, tags []string) { // until now other instances may have given the Edge old pages
			if s.front != nil {
				s.front.Repeat(effect, front.Tags(tags)...)
			}
		},
	})
	s.builds = builds.Start(builds.Config{Backing: s.backing, Cache: s.cache, Build: build, Origin: s.origin, Failed: failed})
}

// Inherit says what the pages of other builds are good for: of the last three that have
// run with this Store, under other Versions. Routes and templates may be others since then.
// What was purged is purged for all of them, and so is what this build answers with 404,
// 410 or something private.
type Inherit int

const (
	InheritNothing Inherit = iota // nothing: each build makes its own pages
	InheritOnError                // to be shown where this build's own page cannot be made, as an expired page is
	InheritStale                  // to be shown at once, and renewed behind, as a stale page is
)

// openEdge has an Edge told what is invalidated, here or in a fleet.
func (s *Site) openEdge(e edge.Edge, maxBytes int64, fleet bool) {
	c := front.Config{
		Edge: e, MaxBytes: max(maxBytes/16, 1<<20), Hearing: front.Settling,
		Flight:   func() time.Duration { return max(s.runs.LongestTimeout(), front.Flight) },
		Failed:   func(err error) { s.report(Event{Kind: EdgeFailed, Err: err}) },
		Restored: s.warn.EdgeRestored,
	}
	if fleet {
		c.Hearing = front.Hearing
	}
	s.front = front.New(c)
}

// Data are values that pages share: a menu, a post, a price list. Make one for each kind
// of value, as a variable of the package. The zero value but for Name keeps each until
// its tags are revalidated.
//
// Values are kept like pages, as JSON, in Options.MaxBytes and in the Store: renewed behind
// those who ask, kept where they cannot be renewed, and each is fetched once at a time.
// T must be what encoding/json can encode and decode.
type Data[T any] struct {
	// Name is part of the values' tags. It is not empty, does not begin with "/", and
	// one Site has one Data of a name.
	Name string

	// As in Route; Timeout is that of one fetch.
	TTL, StaleWhileRevalidate, StaleIfError, Timeout time.Duration

	// Tags are those of all values, beside Name and Name:key, which each value has, too.
	Tags []string

	last atomic.Pointer[data.Source] // of the Site that was used last
}

// Load returns the value with a key, of at most 1 KiB, which fetch makes where there is
// none. What it returns is shared: read it only.
//
// During a generation a page is never newer than the data in it: it gets no value that
// was invalidated, or is past its TTL, unless no other can be had; then the page is stale
// from the beginning. It takes over the value's tags: the value's Name and Name:key, Tags,
// and those that fetch adds by [Tag]. What fetch says by [Until] counts for the page, too.
// Elsewhere, in a request that passes, stale values are used while they are renewed.
//
// The handler of such a page is asked for it without conditions, since its ETag need not
// tell of the data.
//
// Fetch is called as a handler is: in a context of its own that holds nothing of any
// visitor, and for all who wait. Where it fails, panics or takes too long the last good
// value is used, if StaleIfError allows it. Values that differ by visitor have no place
// here. If ctx belongs to no Site, Load calls fetch with it.
//
// Load fails with fetch's error, with that of ctx, where Name is empty or that of another
// Data, where the key is too long, where the value has no JSON, and where a value is loaded
// to make itself. It is safe for concurrent use.
func (d *Data[T]) Load(ctx context.Context, key string, fetch func(context.Context) (T, error)) (v T, err error) {
	s, ok := inside.SiteOf(ctx).(*Site)
	if !ok {
		return fetch(ctx)
	}
	src := d.last.Load()
	if src == nil || src.Loader != s.data {
		spec := data.Spec{
			Name: d.Name, TTL: d.TTL, StaleWhileRevalidate: d.StaleWhileRevalidate, StaleIfError: d.StaleIfError,
			Timeout: d.Timeout, Tags: d.Tags,
		}
		if src, err = s.data.Source(d, spec, reflect.TypeFor[T]()); err != nil {
			return v, err
		}
		d.last.Store(src)
	}
	if v, ok := s.data.Hit(ctx, src, key); ok {
		out, _ := v.(T) // a T that is an interface may be nil
		return out, nil
	}
	return load(ctx, s, src, key, fetch)
}

// load is Load of what is not in memory.
func load[T any](ctx context.Context, s *Site, src *data.Source, key string, fetch func(context.Context) (T, error)) (v T, err error) {
	out, err := s.data.Load(ctx, src, key, func(ctx context.Context) (any, error) { return fetch(ctx) })
	v, _ = out.(T)
	return v, err
}

// Context returns a context in which Data.Load finds the Site, for work outside of its
// requests: a ticker, a test.
func (s *Site) Context(ctx context.Context) context.Context { return inside.WithSite(ctx, s, false) }

// tellData tells what has come of a Load.
func (s *Site) tellData(src *data.Source, key string, v data.Visit) {
	kind := DataMiss
	if v.Hit {
		kind = DataHit
	}
	s.tell(Event{Kind: kind, Path: src.Name, Query: key, Route: src.Route.Pattern, Duration: v.Took, Err: v.Err}, 0)
}
