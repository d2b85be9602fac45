package isr

import (
	"cmp"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/isr-go/isr/internal/flight"
	"github.com/isr-go/isr/internal/header"
	"github.com/isr-go/isr/internal/inside"
	"github.com/isr-go/isr/internal/page"
	"github.com/isr-go/isr/internal/pagekey"
	"github.com/isr-go/isr/internal/policy"
	"github.com/isr-go/isr/internal/remade"
	"github.com/isr-go/isr/internal/respwriter"
	"github.com/isr-go/isr/internal/routing"
)

// NoStore is the [Route] TTL for "only what the handler marks cacheable": a
// page is stored only where the handler's own Cache-Control (or Expires) gives
// it a lifetime. Any negative TTL means the same.
const NoStore time.Duration = -1

// Always is a [Route] Bypass for routes whose requests are never for the cache.
func Always(*http.Request) bool { return true }

// A Mode says whether a Site keeps pages.
type Mode int

const (
	On      Mode = iota // pages are kept
	Develop             // each visit makes its page anew, by the page request, and so its data; failures are shown; there is no Store; the Logger warns where a visitor's own request would get another page
	Off                 // every request passes, and so does Data.Load; Revalidate, Purge, Prerender and the like do nothing, without error
)

// An Encoder compresses pages, in a content coding such as br or zstd, for
// Options.Encoders. Packages encoders/brotli and encoders/zstd have one each.
//
// No visitor waits for it: until it is done they get gzip, or where that is not ready
// either, the body without encoding. Pages with the same body as the one before keep its
// encodings. Where it fails, panics, or takes longer than 30 seconds, the page goes without
// its encoding, and the Logger says so, once.
type Encoder interface {
	// Coding is what Content-Encoding and Accept-Encoding call it. Wrap calls it, once.
	Coding() string

	// Encode writes the body in that coding to w. When it has written as much as gzip has,
	// w returns an error, and it need not go on. It is called concurrently, for as many
	// pages at a time as half of GOMAXPROCS, must not change the body, and must keep neither
	// w nor the body.
	Encode(w io.Writer, body []byte) error
}

// Route says how the pages of one pattern live. The zero value keeps a page
// until it is revalidated on demand.
type Route struct {
	// TTL is how long a page is fresh. Zero means until it is revalidated on
	// demand; NoStore (or less than zero) means that only what the handler marks
	// cacheable is stored. The handler's own Cache-Control (s-maxage, max-age)
	// overrides it for its page.
	TTL time.Duration

	// StaleWhileRevalidate is how long after its TTL a page is still served at
	// once, while a new one is generated in the background (RFC 5861, section 3). Zero
	// means without bound; less than zero means that stale pages are not served.
	StaleWhileRevalidate time.Duration

	// StaleIfError is how long after its TTL a page is still served where a new
	// one could not be generated (RFC 5861, section 4). Zero means without
	// bound; less than zero means never.
	StaleIfError time.Duration

	// NotFoundTTL is how long a 404 or 410 is fresh. After it visitors wait for a
	// new one, unless the handler itself says stale-while-revalidate, so that what was
	// published meanwhile is seen. Zero means the TTL, at most 10 seconds; less
	// than zero means that they are not stored. Stored or not, they replace the page.
	NotFoundTTL time.Duration

	// Query names the query parameters that the page depends on; the handler
	// sees no others. Nil means all but those of IgnoreQuery, empty means none.
	Query []string

	// IgnoreQuery names query parameters that the page does not depend on, even
	// where Query names them; the handler does not see them. "utm_*" stands for all
	// that begin with utm_. Nil means TrackingParameters where Query is nil, else
	// none; empty means none. Pages say what Query and this name, as far as it fits in
	// 256 bytes, by No-Vary-Search, so that browsers need not ask for what they have.
	IgnoreQuery []string

	// Vary names the request headers that the page depends on, beside its URL;
	// the handler sees no others. Authorization must be named here before a
	// request that carries it is one for the cache. Each combination of values
	// is a page of its own: see Normalize.
	Vary []string

	// VaryCookies names the cookies that the page depends on; the handler sees
	// no others.
	VaryCookies []string

	// Normalize, if not nil, narrows the declared headers (the cookies of
	// VaryCookies among them, as Cookie) before the page's key is built from
	// them: "de-AT,de;q=0.9" to "de". What it adds that is not declared is
	// dropped. It is called concurrently, for every request of a route that
	// declares any, with those that the request has.
	Normalize func(http.Header)

	// Tags are names for RevalidateTag and PurgeTag. The handler adds more with
	// a Cache-Tag response header. A tag has at most 256 bytes, and does not begin
	// with "/". Of a page with more than 128 the first 64 count as they are; the
	// others share 64 buckets, so that it is also invalidated with tags that it does
	// not have.
	Tags []string

	// Bypass, if not nil, reports whether a visitor's request is not for the
	// cache; such a request reaches the handler untouched. A CDN in front does
	// not know of it. It is called concurrently: for GET and HEAD, and with a page
	// request, as the handler would see it, by Revalidate and Prerender, and where
	// there is a Store, before a request with an unsafe method (any but GET, HEAD,
	// OPTIONS and TRACE). Requests with a body, Upgrade or an
	// Authorization that is not declared pass anyway; where Bypass is true of them,
	// too, the answer goes out as the handler made it, else marked private.
	Bypass func(*http.Request) bool

	// CacheControl is sent downstream, with successes and redirects, instead of the
	// Cache-Control that is derived from TTL and Options.SharedMaxAge. A 404 or 410
	// goes out with the derived one. A Cache-Control that the handler sends goes
	// before both.
	CacheControl string

	// Placeholder, if not nil, answers people at once, with no-store, while a
	// page that is not stored is generated in the background. Well-known
	// crawlers wait for the page, and so does everyone after a failure.
	Placeholder http.Handler

	// PrerenderedOnly makes every path that neither Prerender nor Revalidate was asked for
	// a 404 that does not reach the handler, whatever a GET or HEAD has with it. Other
	// methods pass, and so does what Bypass is true of. What a Store has of the route is
	// known, too; but a path whose page was purged since is known only where this Site was
	// asked for it. So prerender at each start: what is stored costs only a look-up.
	PrerenderedOnly bool

	// NotFound answers for the unknown paths of PrerenderedOnly, with no-store. Nil means
	// http.NotFound.
	NotFound http.Handler

	// IgnoreVary names headers in a response's Vary that do not count, though the route
	// does not declare them: for a handler that cannot be changed. Visitors are not told
	// that the page varies on them. The handler does not see them either.
	IgnoreVary []string

	// MaxTTL is the longest TTL that the handler may ask for by its Cache-Control or
	// Expires. What it promises goes out shortened. Zero means that there is no bound.
	MaxTTL time.Duration

	// Rewrite, if not nil, changes the handler's header before it is judged: it may drop
	// a Set-Cookie that means nothing. It is called for each generation, concurrently.
	Rewrite func(status int, h http.Header)

	// Failure, if not nil, reports whether an answer of the handler is a failure,
	// beside those that always are: 5xx, 429, 408 and 425. A failure never replaces a
	// page. It is called with the headers as they were sent, for each generation,
	// concurrently, and must not change them.
	Failure func(status int, h http.Header) bool

	// Patience is how long a visitor waits for a new page where there is an old one
	// that errors would show. After it they get the old one, and the generation goes
	// on. Zero means that they wait for its end.
	Patience time.Duration

	// Timeout is the deadline of one generation: the handler's context ends
	// there, those who wait get a 504, and what comes later is dropped. It is also the
	// longest that a visitor waits, time in the queue included. A handler that ignores
	// its context goes on running; nothing in Go can stop it. A response that is too
	// large to be stored, and is streamed on, may take longer, as long as it never
	// stalls for this time. Zero means 30 seconds.
	Timeout time.Duration

	// Segment, if not nil, returns the group of visitors that a request is of, such as a
	// role or the side of an experiment, each of which has pages of its own; empty for none.
	// The handler sees it as the header Isr-Segment, also where a request passes; one
	// that a visitor sends never gets there. Caches in front and browsers are told that the
	// pages are private, whatever else is said. Revalidate and Purge concern all segments of
	// a path; Prerender and Revalidate call Segment with a page request.
	//
	// Each group costs as much memory and as many generations as the site without it: return
	// one of a few strings, and none that visitors can choose. A request with one of more than
	// 256 bytes, or one that no header can have, passes without it. A panic is that of the
	// visitor's request. It is called concurrently, for each request of the route, and again
	// where that passes.
	Segment func(*http.Request) string
}

// TrackingParameters are the query parameters with which campaigns, newsletters and
// networks track where a visitor comes from, in the spelling of [Route].IgnoreQuery.
// They are ignored where a route has neither Query nor IgnoreQuery. To ignore more,
// use append(slices.Clone(isr.TrackingParameters), "ref"). Wrap reads it; do not
// change it.
var TrackingParameters = []string{
	"utm_*", "mtm_*", // Google Analytics and many others, Matomo
	"gclid", "gclsrc", "dclid", "gbraid", "wbraid", "gad_source", "gad_campaignid", "srsltid", "_ga", "_gl", // Google
	"fbclid", "igsh", "igshid", // Meta
	"msclkid", "ttclid", "twclid", "li_fat_id", "epik", "rdt_cid", "ScCid", // Microsoft, TikTok, X, LinkedIn, Pinterest, Reddit, Snap
	"yclid", "ysclid", // Yandex
	"mc_cid", "mc_eid", "_hsenc", "_hsmi", "_kx", "mkt_tok", // Mailchimp, HubSpot, Klaviyo, Marketo
}

// With returns h with its [Route] beside it, for a [net/http.ServeMux]:
//
//	mux.Handle("GET /blog/{id}", isr.With(post, isr.Route{TTL: time.Minute}))
//
// It is found where the handler that [Wrap] is given is a ServeMux, also in one that such
// a ServeMux has as a handler itself, but not behind middleware, http.StripPrefix
// included; of two, one inside the other, the inner one counts. Together with
// Options.Routes the patterns decide as if all were in one ServeMux: the more specific one
// wins, and where neither is, that of Routes. Like those it needs GET, or no method. The
// Route is looked up once for a path and host, and not at a hit.
//
// Outside of a [Site] the handler simply serves. With panics if h is nil, or where rt is
// invalid for every request.
func With(h http.Handler, rt Route) http.Handler {
	if h == nil {
		panic("isr: With: nil handler")
	}
	with, err := routing.NewHandler(h, rt.spec())
	if err != nil {
		panic(fmt.Sprintf("isr: With: Route.%v", err))
	}
	return with
}

// spec returns the Route with what is ignored by default.
func (rt Route) spec() policy.Spec {
	if rt.Query == nil && rt.IgnoreQuery == nil {
		rt.IgnoreQuery = TrackingParameters
	}
	return policy.Spec(rt)
}

// newRoutes returns the routes of a Site around h. It panics where one is invalid.
func newRoutes(h http.Handler, o pagekey.Origin, opts *Options) *routing.Table {
	specs := make(map[string]policy.Spec, len(opts.Routes))
	for pattern, rt := range opts.Routes {
		specs[pattern] = rt.spec()
	}
	return routing.Of(h, o, cmp.Or(opts.SharedMaxAge, defaultSharedMaxAge), opts.Default.spec(), specs)
}

// remakes watches for Sites that are made anew for each request.
var remakes remade.Watch[Site]

// warnIfRemade warns, once, of a middleware that makes a Site for each request. Wrap calls
// it.
func (s *Site) warnIfRemade(h http.Handler) {
	if s.log != nil && remakes.Note(s, h, (*Site).visits) {
		s.warn.Remade()
	}
}

// visits returns how often the Site was asked for.
func (s *Site) visits() (n uint64) {
	for _, kind := range [...]Kind{Hit, StaleHit, Miss, Passed} {
		n += s.counts[kind].Load()
	}
	return n
}

// pass hands the visitor's own request to the wrapped handler.
func (v *visit) pass(status string) { v.forward(respwriter.PassConfig{CacheStatus: status}) }

// passPrivate is pass for a request that passes the cache though its route does not ask
// for that: what the handler says of its page, such as public, does not hold for this
// answer.
func (v *visit) passPrivate(status string) {
	v.forward(respwriter.PassConfig{CacheStatus: status, Private: true})
}

// passKnown is passPrivate for a request that no page answers, of a path that may have one.
func (v *visit) passKnown(path string, unclean error) {
	if s := v.site; v.route.PrerenderedOnly &&
		(unclean != nil || !v.route.Rules.Fill(&v.key, v.r, path, s.origin, &s.patterns) || !s.runs.Knows(v.r.Context(), v.request())) {
		v.notFound()
		return
	}
	v.passPrivate(header.Bypass)
}

// passUnkeyed is passPrivate for a path or key that no page has.
func (v *visit) passUnkeyed(status string) {
	if v.route.PrerenderedOnly {
		v.notFound()
		return
	}
	v.passPrivate(status)
}

// forward hands the visitor's own request to the wrapped handler.
func (v *visit) forward(c respwriter.PassConfig) {
	r, segmented := v.site.routes.ForHandler(v.r, v.route)
	c.Private = c.Private || segmented
	p := respwriter.NewPass(v.w, c)
	panicked, outer := true, v.r
	if v.site.mode != Off {
		r = r.WithContext(inside.WithSite(r.Context(), v.site, v.site.mode == Develop))
	}
	defer func() {
		outer.Pattern = r.Pattern // for the traces and logs of outer middleware
		p.Finish(panicked)
		status := 0
		if c.OnSuccess != nil {
			status = p.Status()
		}
		v.done(Passed, status, 0, nil)
	}()
	v.site.handler.ServeHTTP(p.Writer(), r)
	panicked = false
}

// compare compares the page, in Develop, with what the visitor's own request would get.
func (v *visit) compare(p *page.Page) {
	if s := v.site; s.watch != nil && p != nil {
		http.NewResponseController(v.w).Flush() // they need not wait for it
		own, _ := s.routes.ForHandler(v.r, v.route)
		s.watch.Compare(v.request(), p, own.WithContext(inside.WithSite(own.Context(), s, true)))
	}
}

// passUncacheable is pass for a page that may not be stored. Where the last good one is
// kept for errors, it is shown if the handler fails.
func (v *visit) passUncacheable() {
	p, effect := v.site.cache.Get(&v.key, nil)
	if p.IsUnknown() || !p.View(effect, v.start).OnError {
		v.pass(header.Uncacheable)
		return
	}
	outer := v.w
	w := respwriter.NewStandby(outer, v.route.IsFailure)
	v.w = w.Writer()
	func() {
		defer func() {
			if e := recover(); e != nil && !w.Fail(fmt.Errorf("the handler panicked: %v", e)) {
				panic(e)
			}
		}()
		v.pass(header.Uncacheable)
	}()
	v.w = outer
	status, err := w.Finish()
	if err != nil && !v.standIn(header.CacheStatus{Fwd: "stale", FwdStatus: status, Detail: "stale-if-error"}, err) { // purged meanwhile
		v.fail(max(status, http.StatusInternalServerError), nil, header.Uncacheable)
	}
}

// notFound answers for a path that was never prerendered.
func (v *visit) notFound() {
	v.standInBy(v.route.NotFound, "isr; detail=not-prerendered")
}

// placeholder answers while the page is being generated.
func (v *visit) placeholder() {
	v.standInBy(v.route.Placeholder, "isr; fwd=uri-miss; detail=placeholder")
}

// standInBy has a handler of the route's answer in place of the page. No cache may keep
// what it says.
func (v *visit) standInBy(h http.Handler, status string) {
	r, _ := v.site.routes.ForHandler(v.r, v.route)
	p := respwriter.NewPass(v.w, respwriter.PassConfig{CacheStatus: status, NoStore: true})
	panicked, outer := true, v.r
	defer func() {
		outer.Pattern = r.Pattern
		p.Finish(panicked)
		v.done(Miss, p.Status(), 0, nil)
	}()
	h.ServeHTTP(p.Writer(), r)
	panicked = false
}

// fail answers with the handler's own error, or where there is none with a bare
// status. No cache may keep either.
func (v *visit) fail(status int, answer *flight.Answer, cacheStatus string) {
	h := v.w.Header()
	if answer != nil {
		header.Copy(h, answer.Header)
	}
	header.SetNoStore(h)
	if cacheStatus != "" {
		h.Add("Cache-Status", cacheStatus)
	}
	if answer == nil {
		http.Error(v.w, http.StatusText(status), status)
		return
	}
	v.w.WriteHeader(status)
	if v.r.Method != http.MethodHead {
		v.w.Write(answer.Body)
	}
}
