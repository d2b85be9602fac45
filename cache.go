package isr

import (
	"cmp"
	"fmt"
	"iter"
	"net/http"
	"time"

	"github.com/isr-go/isr/internal/page"
	"github.com/isr-go/isr/internal/pagekey"
	"github.com/isr-go/isr/internal/policy"
	"github.com/isr-go/isr/store"
)

// key returns the key of the page that r asks for, whose path is path, by pagekey.CleanPath.
func (s *Site) key(r *http.Request, path string, rt *policy.Route) pagekey.Key {
	k := rt.Rules.Key(r, path, s.origin)
	if r.Pattern != "" {
		k.Pattern = s.patterns.Of(r.Pattern, path)
	}
	return k
}

// TrackingParameters are the query parameters by which campaigns, newsletters and
// networks tell who has sent a visitor, in the spelling of [Route].IgnoreQuery: what
// a page is ignored by where its route has neither Query nor IgnoreQuery. To ignore
// more, use append(slices.Clone(isr.TrackingParameters), "ref"). It is read by Wrap;
// do not change it.
var TrackingParameters = []string{
	"utm_*", "mtm_*", // Google Analytics and many others, Matomo
	"gclid", "gclsrc", "dclid", "gbraid", "wbraid", "gad_source", "gad_campaignid", "srsltid", "_ga", "_gl", // Google
	"fbclid", "igsh", "igshid", // Meta
	"msclkid", "ttclid", "twclid", "li_fat_id", "epik", "rdt_cid", "ScCid", // Microsoft, TikTok, X, LinkedIn, Pinterest, Reddit, Snap
	"yclid", "ysclid", // Yandex
	"mc_cid", "mc_eid", "_hsenc", "_hsmi", "_kx", "mkt_tok", // Mailchimp, HubSpot, Klaviyo, Marketo
}

// State says where in its life a page is.
type State int

const (
	Fresh       State = iota // served from memory
	Stale                    // served at once, and renewed behind it
	Expired                  // visitors wait for a new one; shown only where that fails
	Uncacheable              // not stored: requests go straight to the handler for a while

)

// A State is a page's, by the same numbers.
var _ = [1]struct{}{}[State(page.Uncacheable)-Uncacheable+State(page.Expired)-Expired+State(page.Stale)-Stale+State(page.Fresh)-Fresh]

// String returns the state in lower case.
func (s State) String() string {
	switch s {
	case Fresh:
		return "fresh"
	case Stale:
		return "stale"
	case Expired:
		return "expired"
	case Uncacheable:
		return "uncacheable"
	}
	return fmt.Sprintf("State(%d)", int(s))
}

// Page is a snapshot of a stored page, for people and tools. Headers and tags
// are shared with the cache: read them only.
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

func snapshot(p *page.Page, effect store.Effect, now time.Time) Page {
	view := p.View(effect, now)
	out := Page{
		Scheme: p.Key.Scheme, Host: p.Key.Host, Path: p.Key.Path, Query: p.Key.Query, Route: p.Route.Pattern,
		Varied: pagekey.ParseHeader(p.Key.Variant), Status: p.Status, State: State(view.State), NotStored: p.WhyUncacheable(view).String(),
		Generated: p.Generated, Duration: p.Took, Size: p.Size, Tags: pagekey.PlainTags(p.Subject.Tags), Hits: p.Hits.Load(),
	}
	out.Header, out.ETag = p.Header()
	out.Failures, out.Err = p.Failures()
	if p.NotStored != (policy.Refusal{}) {
		out.TTL = page.HitForPassTTL
	} else if p.Lifetime.TTL != policy.Forever {
		out.TTL = cmp.Or(p.Lifetime.TTL, -1)
	}
	return out
}

// admit makes a path known to its PrerenderedOnly route.
func (s *Site) admit(t *target) {
	if t.route.PrerenderedOnly || s.hosts && t.Host == "" {
		s.cache.Admit(t.Path)
	}
}

// Pages returns a snapshot of the stored pages and hits-for-pass, for people and
// tools, beginning with those that are asked for again and again.
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

// warnOverflow says that a table was full of what could not be forgotten.
func (s *Site) warnOverflow() {
	if s.log != nil {
		s.log.Warn("isr: more was invalidated during one generation than can be remembered: pages that take so long count as invalidated",
			"remedy", "make the slowest pages faster, set a shorter Route.Timeout, or a larger MaxBytes")
	}
}
