package isr

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"iter"
	"maps"
	"math"
	"net/http"
	"net/url"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unique"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/isr-go/isr/internal/guard"
	"github.com/isr-go/isr/internal/header"
	"github.com/isr-go/isr/store"
)

// passTTL is how long requests for a page that may not be stored go straight to
// the handler before the page is tried again.
const passTTL = 10 * time.Second

// A key names a page. The page request is built from it and from nothing else
// that a visitor sends.
type key struct {
	scheme, host string // empty where Options.Origin makes them constant; host by cleanHost
	path         string // escaped; by cleanPath
	pattern      string // of a ServeMux around the Site, where it says more than the path; by outerPattern
	query        string // the kept parameters in canonical order
	varied       string // the declared headers and cookies; see appendHeader
}

// maxKeyBytes is the length of the longest key. Beyond it a request passes: no page
// of a site has such a URL, and runs hold their keys when the visitor has left.
const maxKeyBytes = 32 << 10

func (k *key) length() int {
	return len(k.host) + len(k.path) + len(k.pattern) + len(k.query) + len(k.varied)
}

// key returns the key of the page that r asks for, whose path is path, by cleanPath.
func (s *Site) key(r *http.Request, path string, rt *route) key {
	k := rt.rules.key(r, path, s.origin)
	if r.Pattern != "" {
		k.pattern = s.patterns.of(r.Pattern, path)
	}
	return k
}

// rules say which parts of a request name its page.
type rules struct {
	named   bool     // whether query names all parameters that count
	query   []string // sorted
	ignored []string // sorted

	ignoredPrefixes []string
	ignoredFirst    [256]bool // the bytes that names of ignored begin with

	vary      []string // canonical, sorted, without what the key holds anyway
	cookies   []string // sorted
	normalize func(http.Header)
	varyOn    string // the Vary header that says the same
}

// newRules returns the rules of a route, by its fields of the same names. An error
// names the field.
func newRules(query, ignore, vary, cookies []string, normalize func(http.Header)) (*rules, error) {
	ru := &rules{named: query != nil, query: slices.Sorted(slices.Values(query)), normalize: normalize}
	ru.ignore(ignore)
	covers := make([]string, 0, len(vary)+1)
	for _, name := range vary {
		name = http.CanonicalHeaderKey(name)
		switch {
		case !header.IsToken(name) || name == "*":
			return nil, fmt.Errorf("Vary: %q: not the name of a header", name)
		case header.IsConditional(name), header.IsHopByHop(name):
			return nil, fmt.Errorf("Vary: %s: isr answers this one itself; it never reaches the handler", name)
		case name == "Host" || name == "X-Forwarded-Proto":
			continue // in the key as it is
		}
		covers = append(covers, name)
	}
	for _, name := range cookies {
		if !header.IsToken(name) {
			return nil, fmt.Errorf("VaryCookies: %q: not the name of a cookie", name)
		}
	}
	ru.vary = slices.Compact(slices.Sorted(slices.Values(covers)))
	ru.cookies = slices.Compact(slices.Sorted(slices.Values(cookies)))
	if slices.Contains(ru.vary, "Cookie") {
		ru.cookies = nil // the whole header is in the key
	} else if len(ru.cookies) > 0 {
		covers = append(covers, "Cookie")
	}
	ru.varyOn = strings.Join(slices.Compact(slices.Sorted(slices.Values(covers))), ", ")
	return ru, nil
}

// covers reports whether the key holds a request header, as far as it is declared.
func (ru *rules) covers(name string) bool {
	switch name {
	case "Host", "X-Forwarded-Proto":
		return true
	case "Cookie":
		return len(ru.cookies) > 0 || slices.Contains(ru.vary, name)
	}
	return slices.Contains(ru.vary, name)
}

// names returns the Vary header of the pages.
func (ru *rules) names() string { return ru.varyOn }

// key returns the key of the page that r asks for, whose path is path, by cleanPath,
// but for the pattern of a ServeMux around the Site.
func (ru *rules) key(r *http.Request, path string, o origin) key {
	k := key{path: path, query: ru.keepQuery(r.URL.RawQuery), varied: ru.narrow(r.Header)}
	if o.host == "" {
		k.scheme = scheme(r)
		k.host = cleanHost(k.scheme, r.Host)
	}
	return k
}

// scheme returns the scheme that a visitor has used.
func scheme(r *http.Request) string {
	if r.TLS != nil || isHTTPS(r.Header["X-Forwarded-Proto"]) {
		return "https"
	}
	return "http"
}

// cleanHost returns one spelling for all that name the same host and port (RFC
// 3986, section 6.2): in lower case, without the port that the scheme has anyway,
// and without the dot that ends a complete domain name.
func cleanHost(scheme, host string) string {
	host = strings.ToLower(host)
	name, port := host, ""
	if i := strings.LastIndexByte(host, ':'); i >= 0 && (strings.IndexByte(host, ':') == i || host[i-1] == ']') {
		name, port = host[:i], host[i+1:]
	}
	if port == "" || scheme == "http" && port == "80" || scheme == "https" && port == "443" {
		return strings.TrimRight(name, ".")
	}
	if bare := strings.TrimRight(name, "."); bare != name {
		return bare + ":" + port
	}
	return host
}

// An origin is the scheme and host of every page, or empty where they are the
// request's.
type origin struct{ scheme, host string }

// parseOrigin reads an origin.
func parseOrigin(s string) (origin, error) {
	if s == "" {
		return origin{}, nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" ||
		u.User != nil || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" {
		return origin{}, fmt.Errorf("%q: want a scheme and a host, such as \"https://example.com\"", s)
	}
	return origin{u.Scheme, cleanHost(u.Scheme, u.Host)}, nil
}

// Why a path is not for the cache.
var (
	errDots  = errors.New(`has a segment "." or ".."; name the path that is meant`)
	errEmpty = errors.New(`has an empty segment; name the path without "//"`)
)

// cleanPath returns one spelling for all escaped paths that are the same by RFC
// 3986, section 6.2.2: octets that need no escape have none, escapes are in upper
// case. A path with dot segments, or with an empty one other than the last, is an
// error: handlers clean it away, or redirect, and take it for another path, whose
// page it must not survive. Behind an escaped slash a dot segment is one, too, for
// the handlers that look at URL.Path.
func cleanPath(escaped string) (path string, err error) {
	plain := true
	for i, c := range []byte(escaped) {
		if c == '%' || (c == '/' || c == '.') && i > 0 && escaped[i-1] == '/' {
			plain = false
			break
		}
	}
	if plain {
		return escaped, nil
	}
	path = cleanEscapes(escaped)
	if strings.Contains(path, "//") {
		return "", errEmpty
	}
	for rest, more := path, true; more; {
		var segment string
		for segment, rest, more = strings.Cut(rest, "/"); segment != ""; {
			var part string
			if part, segment, _ = strings.Cut(segment, "%2F"); part == "." || part == ".." {
				return "", errDots
			}
		}
	}
	return path, nil
}

// cleanEscapes decodes what needs no escape, and makes the other escapes upper case.
func cleanEscapes(escaped string) string {
	clean := true
	for i := 0; clean && i+2 < len(escaped); i++ {
		if escaped[i] == '%' {
			c := unhex(escaped[i+1])<<4 | unhex(escaped[i+2])
			clean = !isUnreservedByte(c) && escaped[i+1] < 'a' && escaped[i+2] < 'a'
		}
	}
	if clean {
		return escaped
	}
	b := make([]byte, 0, len(escaped))
	for i := 0; i < len(escaped); i++ {
		if escaped[i] != '%' || i+2 >= len(escaped) {
			b = append(b, escaped[i])
			continue
		}
		if c := unhex(escaped[i+1])<<4 | unhex(escaped[i+2]); isUnreservedByte(c) {
			b = append(b, c)
		} else {
			b = append(b, '%', upperHex(escaped[i+1]), upperHex(escaped[i+2]))
		}
		i += 2
	}
	return string(b)
}

// unhex returns the value of a hexadecimal digit. URL.EscapedPath has no others
// after a percent sign.
func unhex(c byte) byte {
	if c >= 'A' {
		return c&^0x20 - 'A' + 10
	}
	return c - '0'
}

func upperHex(c byte) byte {
	if c >= 'a' {
		c -= 'a' - 'A'
	}
	return c
}

// urlOf returns the URL with an escaped path.
func urlOf(path, query string) *url.URL {
	u := &url.URL{RawQuery: query}
	u.Path, _ = url.PathUnescape(path)
	if u.EscapedPath() != path {
		u.RawPath = path
	}
	return u
}

// isHTTPS reports whether the first of the proxies in front was asked over TLS.
func isHTTPS(forwardedProto []string) bool {
	for proto := range header.List(forwardedProto) {
		return strings.EqualFold(proto, "https")
	}
	return false
}

// An outerMatch is a pattern of a ServeMux around the Site.
type outerMatch struct {
	pattern string         // as all methods that have pages know it
	mux     *http.ServeMux // of this pattern alone, without method and host; nil where it is none
}

// patterns remember those of a ServeMux around the Site.
type patterns struct {
	unseen bool         // whether the handler is a ServeMux, which sets its own
	oneHost bool        // whether the key has no host
	known  sync.Map     // from a pattern to its outerMatch
	n      atomic.Int32 // how many
}

// init says which handler is to see the patterns, and whether the Site has one origin.
func (p *patterns) init(h http.Handler, o origin) {
	_, p.unseen = h.(*http.ServeMux)
	p.oneHost = o.host != ""
}

// maxOuter is how many patterns are remembered: more than that are none, but made of
// what a visitor sends.
const maxOuter = 1 << 10

// of returns what a key holds of the pattern by which a ServeMux around
// the Site has found it. Which pattern that is may depend on the visitor's Host, so
// it is part of the key as far as it says more than the path (and the host, where
// that is in the key): where it has path values or a host. But it is not where the
// handler cannot see it: where it does not match the page's path, or where that
// handler is a ServeMux, which sets its own.
func (p *patterns) of(pattern, path string) string {
	if p.unseen {
		return ""
	}
	wildcard := strings.IndexByte(pattern, '{')
	hasWildcard := wildcard >= 0 && pattern[wildcard:] != "{$}"
	hasHost := p.oneHost && !strings.HasPrefix(pattern[strings.IndexByte(pattern, ' ')+1:], "/")
	if !hasWildcard && !hasHost {
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
	if _, matched := m.mux.Handler(&http.Request{Method: http.MethodGet, URL: urlOf(path, "")}); matched == "" {
		return ""
	}
	return m.pattern
}

// outerMux returns a ServeMux of the pattern alone, without its method and host, or
// nil if it is a pattern of another kind of router.
func outerMux(pattern string) (mux *http.ServeMux) {
	defer func() {
		if recover() != nil { // what ServeMux says to a pattern that is none
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

// clone returns a key that shares no memory with a request. Pages share their host
// and pattern, of which there are few: to compare them then takes no look at them.
func (k *key) clone() key {
	return key{
		k.scheme, unique.Make(k.host).Value(), strings.Clone(k.path), unique.Make(k.pattern).Value(),
		strings.Clone(k.query), strings.Clone(k.varied),
	}
}

// bytes returns how much memory the key takes, and its path in the index if that
// is another.
func (k *key) bytes() int64 {
	n := allocated(k.host) + allocated(k.path) + allocated(k.query) + allocated(k.varied)
	if canonical := canonicalPath(k.path); canonical != k.path {
		n += allocated(canonical)
	}
	return n
}

// tags calls yield with the tags that a page has by its key: each way in which
// Revalidate and Purge can name it.
func (k *key) tags(yield func(string) bool) {
	var buf [256]byte
	path := canonicalPath(k.path)
	for _, base := range [2]key{{}, {scheme: k.scheme, host: k.host}} {
		b := appendPathTag(buf[:0], base.scheme, base.host, path)
		if !yield(pathTag(b)) || !yield(pathTag(append(append(b, '?'), k.query...))) || k.host == "" {
			return
		}
	}
}

// exactTag returns the narrowest of the key's tags.
func (k *key) exactTag() (exact string) {
	for tag := range k.tags {
		exact = tag
	}
	return exact
}

// appendPathTag appends the tag of all pages at a path. No tag that checkTag
// accepts looks like it.
func appendPathTag(b []byte, scheme, host, path string) []byte {
	b = append(b, 0)
	if host != "" {
		b = append(append(append(b, scheme...), "://"...), host...)
	}
	return append(b, path...)
}

// pathTag returns what appendPathTag has made as a tag of a size that a Store
// takes.
func pathTag(b []byte) string {
	if len(b) <= maxTagBytes {
		return string(b)
	}
	sum := sha256.Sum256(b)
	return "\x00#" + base64.RawURLEncoding.EncodeToString(sum[:])
}

// everything is the tag that every page has.
const everything = "\x00"

// canonicalPath returns one spelling for all escaped paths that mean the same
// segments, so that an invalidation finds every one of them: /a:b and /a%3Ab are
// two pages (RFC 3986, section 6.2.2), but one path to Revalidate and Purge.
func canonicalPath(escaped string) string {
	if strings.IndexByte(escaped, '%') < 0 {
		return escaped
	}
	b := make([]byte, 0, len(escaped))
	for i := 0; i < len(escaped); i++ {
		if escaped[i] == '%' && i+2 < len(escaped) {
			switch c, err := url.PathUnescape(escaped[i : i+3]); {
			case err != nil:
			case c == "/" || c == "%" || c == "?":
				b = append(b, strings.ToUpper(escaped[i:i+3])...)
				i += 2
				continue
			default:
				b = append(b, c...)
				i += 2
				continue
			}
		}
		b = append(b, escaped[i])
	}
	return string(b)
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

// ignore notes the parameters that the page does not depend on, although Route.Query
// may name them.
func (ru *rules) ignore(names []string) {
	for _, name := range names {
		if prefix, ok := strings.CutSuffix(name, "*"); ok {
			ru.ignoredPrefixes = append(ru.ignoredPrefixes, prefix)
		} else {
			ru.ignored = append(ru.ignored, name)
		}
		if begin := strings.TrimSuffix(name, "*"); begin != "" {
			ru.ignoredFirst[begin[0]] = true
		} else {
			for i := range ru.ignoredFirst {
				ru.ignoredFirst[i] = true
			}
		}
	}
	slices.Sort(ru.ignored)
}

// keeps reports whether the page depends on a query parameter.
func (ru *rules) keeps(name string) bool {
	if ru.named {
		if _, named := slices.BinarySearch(ru.query, name); !named {
			return false
		}
	}
	if name != "" && !ru.ignoredFirst[name[0]] {
		return true
	}
	for _, prefix := range ru.ignoredPrefixes {
		if strings.HasPrefix(name, prefix) {
			return false
		}
	}
	_, ignored := slices.BinarySearch(ru.ignored, name)
	return !ignored
}

// keepQuery returns the parameters of a raw query that the page depends on, in
// canonical order: by name, the values of a name as they came.
func (ru *rules) keepQuery(raw string) string {
	if raw == "" || ru.named && len(ru.query) == 0 {
		return ""
	}
	if kept, ok := ru.cutQuery(raw); ok {
		return kept
	}
	values, _ := url.ParseQuery(raw) // what it cannot parse, a handler does not see either
	for name := range values {
		if !ru.keeps(name) {
			delete(values, name)
		}
	}
	return values.Encode()
}

// cutQuery is keepQuery where that only has to leave something out. It allocates
// nothing where what is kept stands together.
func (ru *rules) cutQuery(raw string) (kept string, ok bool) {
	var parts [8]string // of raw, as long as can be
	n, last := 0, ""
	begin, end := 0, 0 // of the last part
	for at := 0; at < len(raw); {
		pair := raw[at:]
		if i := strings.IndexByte(pair, '&'); i >= 0 {
			pair = pair[:i]
		}
		from, to := at, at+len(pair)
		at = to + 1
		name, value, named := strings.Cut(pair, "=")
		switch {
		case pair == "":
			continue
		case !isUnreserved(name):
			return "", false
		case !ru.keeps(name):
			continue
		case !named || name < last || !isUnreserved(value):
			return "", false
		}
		last = name
		switch {
		case end > 0 && from == end+1:
			end = to
			continue
		case end == 0:
		case n == len(parts)-1:
			return "", false
		default:
			parts[n] = raw[begin:end]
			n++
		}
		begin, end = from, to
	}
	if n == 0 {
		return raw[begin:end], true
	}
	parts[n] = raw[begin:end]
	return strings.Join(parts[:n+1], "&"), true
}

// isUnreserved reports whether url.QueryEscape leaves s as it is.
func isUnreserved(s string) bool {
	for i := range len(s) {
		if !isUnreservedByte(s[i]) {
			return false
		}
	}
	return true
}

// isUnreservedByte reports whether c is unreserved (RFC 3986, section 2.3).
func isUnreservedByte(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_', c == '.', c == '~':
		return true
	}
	return false
}

// narrow returns what the key holds of the headers and cookies of a request: those
// that the route declares, as its Normalize leaves them.
func (ru *rules) narrow(sent http.Header) string {
	if ru.varyOn == "" {
		return ""
	}
	h := make(http.Header)
	for _, name := range ru.vary {
		if values := sent[name]; len(values) > 0 {
			h[name] = slices.Clone(values)
		}
	}
	if len(ru.cookies) > 0 {
		ru.keepCookies(h, sent["Cookie"])
	}
	if ru.normalize != nil {
		ru.normalize(h)
		if len(ru.cookies) > 0 {
			ru.keepCookies(h, h["Cookie"])
		}
	}
	var b []byte
	for _, name := range ru.vary {
		b = appendHeader(b, name, h[name])
	}
	if len(ru.cookies) > 0 {
		b = appendHeader(b, "Cookie", h["Cookie"])
	}
	return string(b)
}

// keepCookies sets the Cookie header in h to the declared cookies of some lines.
func (ru *rules) keepCookies(h http.Header, lines []string) {
	all, kept := http.Request{Header: http.Header{"Cookie": lines}}, http.Request{Header: make(http.Header)}
	for _, name := range ru.cookies {
		for _, c := range all.CookiesNamed(name) {
			kept.AddCookie(c)
		}
	}
	delete(h, "Cookie")
	if values := kept.Header["Cookie"]; values != nil {
		h["Cookie"] = values
	}
}

// appendHeader appends a header so that parseHeader finds it again and no two
// headers look the same.
func appendHeader(b []byte, name string, values []string) []byte {
	if len(values) == 0 {
		return b
	}
	b = appendString(b, name)
	b = binary.AppendUvarint(b, uint64(len(values)))
	for _, v := range values {
		b = appendString(b, v)
	}
	return b
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// parseHeader is the inverse of appendHeader.
func parseHeader(s string) http.Header {
	h := make(http.Header)
	number := func() int {
		n, size := binary.Uvarint([]byte(s[:min(len(s), binary.MaxVarintLen64)]))
		s = s[size:]
		return int(n)
	}
	text := func() (t string) {
		n := number()
		t, s = s[:n], s[n:]
		return t
	}
	for s != "" {
		name := text()
		for range number() {
			h[name] = append(h[name], text())
		}
	}
	return h
}

// State says where in its life a page is.
type State int

const (
	Fresh       State = iota // served from memory
	Stale                    // served at once, and renewed behind it
	Expired                  // visitors wait for a new one; shown only where that fails
	Uncacheable              // not stored: requests go straight to the handler for a while

	absent State = -1
)

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
	Status                           int           // zero for a pass mark
	State                            State         // at the time of the snapshot
	NotStored                        string        // for a pass mark: why, in words a developer can act on
	Generated                        time.Time     // when its generation ended, less the Age that it had from upstream
	TTL, Duration                    time.Duration // TTL: zero means until revalidated on demand, less than zero that it is never fresh; Duration: of the last generation
	Size                             int64         // memory in bytes, overhead included
	Tags                             []string      // of the route and of the handler; where they are more than 128, the first 64
	ETag                             string        // of the body without encoding
	Hits                             uint64        // since the page was first stored
	Failures                         int           // in a row, since the last success
	Err                              error         // of the last failure; nil where Failures is zero
}

// A page is a stored response, or a pass mark: the note that there is none.
type page struct {
	// What was generated. Plain data that never changes; see encode.
	key         key
	pattern     string // of a ServeMux around the Site
	matched     string // the pattern that the handler has matched, as http.Request has it
	ticket      ticket
	order       store.Ticket // the Store's; zero where it was not to be had
	status      int
	pass        refusal // for a pass mark: why the response may not be stored
	private     bool    // for a pass mark: whether that is because it is not for everybody
	generated   time.Time
	took        time.Duration
	upstream    time.Duration // the Age that it came with, by which generated is earlier
	lifetime    lifetime
	tags        []string
	validators  validators
	modified    time.Time       // by validators.lastModified
	ownControl  bool            // whether the Cache-Control is the handler's
	plain, gzip *representation // gzip is nil where it would not be smaller
	size        int64

	route *route
	told  store.Effect // what the Store said of it, where it comes from there

	// Guarded by cache.mu.
	next, prev *page // on the same shelf
	index      int   // in cache.pages
	often      bool  // in which of the two lists it is
	recent     hourly

	hits    atomic.Uint64
	touched atomic.Int64              // the second of the last move to the front of the list
	judged  atomic.Pointer[judgement] // what came of the last compaction
	verdict atomic.Uint64             // clock<<2 | effect: the last look at the invalidations
	revoked atomic.Int64              // Unix time in ns of the invalidation that it was first seen to be stale by, not before its generation began
	away    atomic.Int64              // Unix time in ns until which it is left to another instance
	trouble atomic.Pointer[trouble]   // the failures since
	aside   atomic.Pointer[page]      // a pass mark that holds while this page only stands by for errors

	room representation // for plain: what lies together is found together
}

// A ticket orders the generations by when they began: among each other by the
// fence, against the invalidations of this Site by the clock, and against those
// that the Store has put in order by the version.
type ticket struct {
	clock   uint64
	version store.Version
	fence   uint64
	blind   uint64 // where the Store was not to be had: how often it had come back by then, plus one
}

// newerThan reports whether a page from the Store is newer than one that is
// stored here. What was generated without the Store has no place in its order.
func (p *page) newerThan(old *page) bool {
	if old.ticket.blind != 0 {
		return p.generated.After(old.generated)
	}
	return p.order.Compare(old.order) > 0
}

// began returns when the generation began. What was invalidated before that does
// not concern the page, so that it is also when a page counts as stale from whose
// invalidation has no known time.
func (p *page) began() time.Time { return p.generated.Add(p.upstream - p.took) }

// trouble is what came of the attempts to renew a page.
type trouble struct {
	failures int
	err      error
	ticket   ticket    // of the last of them
	until    time.Time // when it is time for another attempt in the background
}

// pause returns how long a page is left alone after some failures in a row: the
// first may have been a hiccup.
func pause(failures int, retryAfter time.Duration) time.Duration {
	if failures < 2 {
		return 0
	}
	d := maxPause
	if n := failures - 2; n < 5 {
		d = min(d, minPause<<n)
	}
	return max(d, min(retryAfter, maxRetryAfter))
}

// Bounds of the pause between two attempts to renew a page.
const (
	minPause      = time.Second
	maxPause      = 30 * time.Second
	maxRetryAfter = 5 * time.Minute
)

// A lifetime says how long a page is fresh, and how long after that it may
// still be shown. The bounds are forever where there is none.
type lifetime struct {
	ttl, staleWhileRevalidate, staleIfError time.Duration
}

// A view is what a page is worth at one moment.
type view struct {
	state   State
	age     time.Duration
	left    time.Duration // until it turns stale; below zero since it has
	onError bool          // whether it may be shown where a new one could not be had
	revoked bool          // whether it was invalidated, so that nobody downstream may hold it
}

// view judges the page at a moment, given what the invalidations did to it.
func (p *page) view(effect store.Effect, now time.Time) view {
	if p == nil {
		return view{state: absent}
	}
	v := view{age: max(0, now.Sub(p.generated)), revoked: effect != store.None}
	if p.pass != (refusal{}) {
		v.state = Uncacheable
		if v.revoked || v.age >= passTTL || p.trouble.Load() != nil {
			v.state = absent
		}
		return v
	}
	v.left = forever
	if p.lifetime.ttl != forever {
		v.left = p.lifetime.ttl - v.age
	}
	if v.revoked {
		v.left = min(v.left, -max(0, now.Sub(time.Unix(0, p.revoked.Load()))))
	}
	v.onError = effect != store.Gone && v.left > -p.lifetime.staleIfError
	aside := p.aside.Load()
	switch {
	case aside != nil && now.Sub(aside.generated) < passTTL:
		v.state = Uncacheable
	case aside != nil:
		v.state = Expired
	case v.left > 0 && !v.revoked:
		v.state = Fresh
	case effect <= store.Stale && v.left > -p.lifetime.staleWhileRevalidate:
		v.state = Stale
	default:
		v.state = Expired
	}
	return v
}

// shows reports whether the page may be shown where a new one could not be had.
func (v view) shows() bool {
	return v.state == Fresh || v.state == Stale || v.onError
}

// setAside lets old stand by for errors, while requests go straight to the handler,
// because what came of a run that was to renew it may not be stored. It reports false
// where there is nothing that could stand by.
func (c *cache) setAside(old, mark *page) bool {
	if old.unknown() || old.ticket.fence > mark.ticket.fence || c.effect(old) == store.Gone {
		return false
	}
	old.aside.Store(mark)
	return true
}

// fail notes a failed attempt to renew the page, and how long the handler asks to
// be left alone.
func (p *page) fail(err error, began ticket, retryAfter time.Duration) {
	for {
		old := p.trouble.Load()
		t := &trouble{failures: 1, err: err, ticket: began}
		if old != nil {
			t.failures += old.failures
			if old.ticket.fence > began.fence {
				t.ticket = old.ticket
			}
		}
		t.until = time.Now().Add(pause(t.failures, retryAfter))
		if p.trouble.CompareAndSwap(old, t) {
			return
		}
	}
}

func (p *page) snapshot(effect store.Effect, now time.Time) Page {
	view := p.view(effect, now)
	out := Page{
		Scheme: p.key.scheme, Host: p.key.host, Path: p.key.path, Query: p.key.query, Route: p.route.pattern,
		Varied: parseHeader(p.key.varied), Status: p.status, State: view.state, NotStored: p.pass.String(),
		Generated: p.generated, Duration: p.took, Size: p.size, Tags: plainTags(p.tags), Hits: p.hits.Load(),
	}
	if p.plain != nil {
		out.Header, out.ETag = p.plain.snapshot()
	}
	if mark := p.aside.Load(); mark != nil && view.state == Uncacheable {
		out.NotStored = mark.pass.String()
	}
	if p.pass != (refusal{}) {
		out.TTL = passTTL
	} else if p.lifetime.ttl != forever {
		out.TTL = cmp.Or(p.lifetime.ttl, -1)
	}
	if t := p.trouble.Load(); t != nil {
		out.Failures, out.Err = t.failures, t.err
	}
	return out
}

// A shelf holds the pages that are stored at one path, whatever their host,
// query and headers, and remembers the path's route.
type shelf struct {
	route *route               // of the canonical spelling; others may have another
	front atomic.Pointer[page] // written under cache.mu; most paths have but this one
}

// A cache keeps pages in memory.
//
// What is asked for once and never again cannot push out what is asked for
// again and again: a page begins in the list once, from whose end memory is
// taken first, and moves on to the list often when it is asked for a second
// time. The latter holds at most four fifths of the memory; what drops off its
// end gets another life in the former (a segmented LRU).
type cache struct {
	fence
	maxBytes int64

	mu          sync.RWMutex
	once, often *simplelru.LRU[key, *page] // guarded by mu, as all below
	shelves     map[string]*shelf          // by canonical path
	known       map[string]struct{}        // canonical paths that PrerenderedOnly routes admit
	pages       []*page                    // in no order; see compact
	bytes       int64
	oftenBytes  int64
}

func newCache(maxBytes int64) *cache {
	c := &cache{maxBytes: maxBytes, shelves: make(map[string]*shelf), known: make(map[string]struct{})}
	c.fence.init(max(maxBytes/8, minTableBytes))
	c.fence.judgeAll = c.judgeAll
	// The lists never evict by themselves: memory is counted in bytes.
	c.once, _ = simplelru.NewLRU[key, *page](1<<31-1, nil)
	c.often, _ = simplelru.NewLRU[key, *page](1<<31-1, nil)
	return c
}

// shelf returns what is stored at a path, or nil if its spelling is not the
// canonical one. A path that has a shelf is as cleanPath would make it.
func (c *cache) shelf(path string) *shelf {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.shelves[path]
}

// get returns the page with a key, which is on shelf sh if that is not nil, and
// what the invalidations since its generation did to it. What is gone is nil.
func (c *cache) get(k *key, sh *shelf) (*page, store.Effect) {
	var p *page
	if sh != nil {
		p = sh.front.Load()
	}
	if p == nil || p.key != *k {
		if p = c.peek(k); p == nil {
			return nil, store.None
		}
	}
	effect := c.effect(p)
	if effect == store.Gone {
		c.remove(p)
		return nil, store.None
	}
	return p, effect
}

// peek returns the page with a key, however old.
func (c *cache) peek(k *key) *page {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.find(k)
}

// find is peek under c.mu.
func (c *cache) find(k *key) *page {
	if p, ok := c.often.Peek(*k); ok {
		return p
	}
	p, _ := c.once.Peek(*k)
	return p
}

// touch notes that the page was asked for, at most once a second.
func (c *cache) touch(p *page, now time.Time) {
	second := now.Unix()
	if p.touched.Load() == second || p.touched.Swap(second) == second {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	p.recent.note(p.hits.Load()-1, second)
	if _, ok := c.often.Get(p.key); ok {
		return
	}
	if p, ok := c.once.Peek(p.key); ok && p.pass == (refusal{}) {
		c.once.Remove(p.key)
		c.promote(p)
	}
}

// hourly counts how often a page was asked for within about the last hour: what
// touch, once a second, finds of its hits.
type hourly struct {
	begin  int64  // of an hour, as a Unix time
	hits   uint64 // before that hour
	before uint64 // in the hour before that hour
}

const hour = int64(time.Hour / time.Second)

// note takes account of the hits at some moment.
func (h *hourly) note(hits uint64, now int64) {
	switch passed := now - h.begin; {
	case passed < hour:
		return
	case passed < 2*hour:
		h.before = hits - h.hits
	default:
		h.before = 0
	}
	h.begin, h.hits = now, hits
}

// count returns about how many of the hits are of the hour before a moment.
func (h *hourly) count(hits uint64, now int64) uint64 {
	switch passed := max(0, now-h.begin); {
	case passed < hour:
		return hits - h.hits + h.before*uint64(hour-passed)/uint64(hour)
	case passed < 2*hour:
		return (hits - h.hits) * uint64(2*hour-passed) / uint64(hour)
	}
	return 0
}

// recentHits returns how often pages were asked for within about the last hour.
func (c *cache) recentHits(pages []*page, now time.Time) map[*page]uint64 {
	counts := make(map[*page]uint64, len(pages))
	c.mu.RLock()
	defer c.mu.RUnlock()
	for _, p := range pages {
		counts[p] = p.recent.count(p.hits.Load(), now.Unix())
	}
	return counts
}

// promote adds a page to the list often. It is called under c.mu.
func (c *cache) promote(p *page) {
	p.often = true
	c.often.Add(p.key, p)
	c.oftenBytes += p.size
	for c.oftenBytes > c.maxBytes/5*4 && c.often.Len() > 1 {
		_, old, _ := c.often.RemoveOldest()
		c.oftenBytes -= old.size
		old.often = false
		c.once.Add(old.key, old)
	}
}

// put stores a page, in place of an older one with its key, and returns what had
// to go for it. It reports false where the page is superseded, purged while it
// was generated, or too large. A page that was asked for by name counts as one
// that is asked for again and again.
func (c *cache) put(p *page, byName bool) (evicted []*page, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.find(&p.key)
	if old != nil && old.ticket.fence > p.ticket.fence || c.effect(p) == store.Gone {
		return nil, false
	}
	if old != nil {
		byName = byName || old.often
		p.hits.Store(old.hits.Load())
		p.touched.Store(old.touched.Load())
		p.recent = old.recent
		c.drop(old)
	}
	if p.size > c.maxBytes {
		return nil, false
	}
	path := canonicalPath(p.key.path)
	sh := c.shelves[path]
	if sh == nil {
		sh = &shelf{route: p.route}
		if p.key.path != path {
			sh.route = nil
		}
		c.shelves[path] = sh
	}
	if front := sh.front.Load(); front != nil {
		p.next, front.prev = front, p
	}
	sh.front.Store(p)
	p.index = len(c.pages)
	c.pages = append(c.pages, p)
	c.bytes += p.size
	if byName && p.pass == (refusal{}) {
		c.promote(p)
	} else {
		c.once.Add(p.key, p)
	}
	for c.bytes > c.maxBytes {
		_, victim, ok := c.once.GetOldest()
		if !ok || victim == p {
			if _, victim, ok = c.often.GetOldest(); !ok || victim == p {
				break
			}
		}
		c.drop(victim)
		evicted = append(evicted, victim)
	}
	return evicted, true
}

// remove forgets a page, unless another has taken its place.
func (c *cache) remove(p *page) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.find(&p.key) == p {
		c.drop(p)
	}
}

// drop is remove under c.mu.
func (c *cache) drop(p *page) {
	if p.often {
		c.often.Remove(p.key)
		c.oftenBytes -= p.size
	} else {
		c.once.Remove(p.key)
	}
	c.bytes -= p.size
	end := len(c.pages) - 1
	last := c.pages[end]
	c.pages[p.index], last.index = last, p.index
	c.pages[end] = nil
	c.pages = c.pages[:end]
	path := canonicalPath(p.key.path)
	if p.next != nil {
		p.next.prev = p.prev
	}
	if p.prev != nil {
		p.prev.next = p.next
	} else if p.next != nil {
		c.shelves[path].front.Store(p.next)
	} else {
		c.shelves[path].front.Store(nil)
		delete(c.shelves, path)
	}
	p.next, p.prev = nil, nil
}

// judgeAll judges every page and drops what is gone. It holds no lock for more than
// some pages at a time. It goes downwards: where a page is dropped, one from the end
// takes its place, which was judged before, or has come since.
func (c *cache) judgeAll(by *judgements) {
	var some [256]*page
	for end := -1; ; {
		c.mu.RLock()
		if end < 0 || end > len(c.pages) {
			end = len(c.pages)
		}
		n := copy(some[:], c.pages[max(0, end-len(some)):end])
		c.mu.RUnlock()
		if n == 0 {
			return
		}
		for _, p := range some[:n] {
			if c.judge(p, by) == store.Gone {
				c.remove(p)
			}
		}
		if end -= n; end == 0 {
			return
		}
		runtime.Gosched()
	}
}

// holds reports whether a page is stored at a canonical path. Pass marks do not
// count.
func (c *cache) holds(path string) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if sh := c.shelves[path]; sh != nil {
		for p := sh.front.Load(); p != nil; p = p.next {
			if p.pass == (refusal{}) {
				return true
			}
		}
	}
	return false
}

// at returns the pages that are stored at a canonical path and match.
func (c *cache) at(path string, match func(*page) bool) (pages []*page) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if sh := c.shelves[path]; sh != nil {
		for p := sh.front.Load(); p != nil; p = p.next {
			if match(p) {
				pages = append(pages, p)
			}
		}
	}
	return pages
}

// all returns every page, those that were asked for last first.
func (c *cache) all() []*page {
	c.mu.RLock()
	defer c.mu.RUnlock()
	pages := append(c.once.Values(), c.often.Values()...)
	slices.Reverse(pages)
	return pages
}

func (c *cache) size() (pages int, bytes int64) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.once.Len() + c.often.Len(), c.bytes
}

// admit makes a path known to its PrerenderedOnly route.
func (s *Site) admit(t *target) {
	if t.route.PrerenderedOnly || s.hosts && t.host == "" {
		s.cache.admit(t.path)
	}
}

func (c *cache) admit(path string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.known[canonicalPath(path)] = struct{}{}
}

func (c *cache) admits(path string) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	_, ok := c.known[canonicalPath(path)]
	return ok
}

// Pages returns a snapshot of the stored pages and pass marks, for people and
// tools, beginning with those that are asked for again and again.
func (s *Site) Pages() iter.Seq[Page] {
	return func(yield func(Page) bool) {
		now := time.Now()
		for _, p := range s.cache.all() {
			effect := s.cache.effect(p)
			if effect == store.Gone || p.view(effect, now).state == absent {
				continue
			}
			if !yield(p.snapshot(effect, now)) {
				return
			}
		}
	}
}

// A table of invalidations takes an eighth of MaxBytes, and so do the debts: to judge
// all pages, when it is full, then costs each invalidation about the same, whatever
// MaxBytes is.
const minTableBytes = 1 << 20

// A fence keeps results that are older than an invalidation from passing for
// fresh. Each invalidation leaves a version on its tags; a page carries the ones
// of the moment when its generation began, and is compared with its tags when it
// is read. So an invalidation costs the same however many pages it concerns, and
// reaches those that are still on their way.
//
// What it remembers is bounded. When three quarters of that are used, all pages are
// judged, and carry from then on what came of it; then whatever is older than the
// oldest run under way is forgotten. No page notices.
//
// There are two orders of versions: the Site's own, of what was invalidated here,
// which holds whatever becomes of the Store; and that of the Store, if there is one.
type fence struct {
	ours, theirs *store.Versions
	clock        atomic.Uint64 // the newest of ours; moved with theirs, too, and when the table already holds it
	seen         atomic.Uint64 // the newest of theirs that was heard of: what begins now begins after it
	blinded      atomic.Bool   // whether anything was generated blind since the last contact
	returns      atomic.Uint64 // how often the Store has come back

	limit      int64         // of each table, in bytes
	trigger    atomic.Int64  // from how many bytes on a compaction is worth it
	followed   atomic.Uint64 // theirs are complete up to here
	returnedAt atomic.Int64  // Unix time in ns at which the Store has come back last
	judgeAll   func(*judgements)
	overflown  func()     // is called where a table is full of what cannot be forgotten
	compacting sync.Mutex // held by the one compaction; taken before mu

	mu           sync.Mutex
	running      map[hold]int    // the runs under way, by when they began; guarded by mu, as all below
	pending      map[string]owed // what the Store is yet to hear of, by tag
	pendingBytes int64
	reset        store.Version // of the last Reset
}

// A hold keeps what was invalidated after it from being forgotten.
type hold struct {
	clock   uint64
	version store.Version
}

// A judgement says what became of a page by what was invalidated up to a point.
type judgement struct {
	hold
	effect store.Effect
}

// judgements are one judgement for each effect, which the pages share.
type judgements [store.Gone + 1]*judgement

// owed is an invalidation that the Store is yet to hear of.
type owed struct {
	effect store.Effect // the strongest
	last   uint64       // the clock when it was asked for
	due    bool         // whether nobody is telling the Store
}

// A debt says whether the Store is to hear of an invalidation.
type debt int

const (
	paid   debt = iota // it has heard, or there is none
	paying             // somebody is telling it
	due                // somebody has to
)

func (f *fence) init(limit int64) {
	f.ours, f.theirs = store.NewVersions(math.MaxInt), store.NewVersions(math.MaxInt)
	f.limit = limit
	f.trigger.Store(limit / 4 * 3)
	f.running, f.pending = make(map[hold]int), make(map[string]owed)
	f.clock.Store(1) // a page that nobody has judged yet has 0
}

// now returns the ticket of what begins now, without a fence.
func (f *fence) now() ticket {
	return ticket{clock: f.clock.Load(), version: store.Version(f.seen.Load())}
}

// beginRun returns the ticket of a run that begins now, without a fence. What is
// invalidated from now on is remembered until endRun.
func (f *fence) beginRun() (ticket, hold) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.now()
	h := hold{t.clock, t.version}
	f.running[h]++
	return t, h
}

// endRun says that what has come of a run is stored, or never will be.
func (f *fence) endRun(h hold) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.running[h]--; f.running[h] == 0 {
		delete(f.running, h)
	}
}

// makeRoom sees to it that the tables stay within their bound. It is called without
// locks. Where they are full it waits for the compaction; mostly that is long over by
// then.
func (f *fence) makeRoom() {
	switch n := f.tableBytes(); {
	case n <= f.trigger.Load():
	case n <= f.limit:
		if f.compacting.TryLock() {
			go func() {
				defer f.compacting.Unlock()
				f.compact()
			}()
		}
	default:
		f.compacting.Lock()
		defer f.compacting.Unlock()
		if f.tableBytes() > f.limit {
			f.compact()
		}
	}
}

func (f *fence) tableBytes() int64 { return max(f.ours.Bytes(), f.theirs.Bytes()) }

// compact judges all pages, and forgets what no run under way can be concerned by.
// What is put meanwhile is from a run that was under way, or has begun since. It is
// called under f.compacting.
func (f *fence) compact() {
	f.mu.Lock()
	upto := hold{version: store.Version(f.followed.Load())} // before the clock, which was moved first
	upto.clock = f.clock.Load()
	oldest := upto
	for h := range f.running {
		oldest.clock, oldest.version = min(oldest.clock, h.clock), min(oldest.version, h.version)
	}
	f.mu.Unlock()
	var by judgements
	for effect := range by {
		by[effect] = &judgement{upto, store.Effect(effect)}
	}
	f.judgeAll(&by)
	const some = 256
	for f.ours.Compact(store.Version(oldest.clock), some) {
		runtime.Gosched()
	}
	for f.theirs.Compact(oldest.version, some) {
		runtime.Gosched()
	}
	// Runs that are slower than the tables are large: what they make counts as
	// invalidated. The pages are judged.
	for _, table := range []*store.Versions{f.ours, f.theirs} {
		if table.Bytes() <= f.limit {
			continue
		}
		for table.Bytes() > f.limit/8*7 && table.Compact(math.MaxUint64, some) {
		}
		f.overflown()
	}
	f.trigger.Store(max(f.limit/4*3, min(f.limit, f.tableBytes()+f.limit/8)))
}

// warnOverflow says that a table was full of what could not be forgotten.
func (s *Site) warnOverflow() {
	if s.log != nil {
		s.log.Warn("isr: more was invalidated during one generation than can be remembered: pages that take so long count as invalidated",
			"remedy", "make the slowest pages faster, set a shorter Route.Timeout, or a larger MaxBytes")
	}
}

// judge stamps what the invalidations did to a page into it.
func (f *fence) judge(p *page, by *judgements) store.Effect {
	effect := f.effect(p)
	if mark := p.aside.Load(); mark != nil && !f.invalidatedSince(p, mark) { // else it will count as such
		mark.judged.Store(by[store.None])
	}
	if t := p.trouble.Load(); t != nil && !f.invalidated(&t.ticket, &p.key, p.tags) { // likewise
		judged := *t
		judged.ticket.clock = max(t.ticket.clock, by[effect].clock)
		judged.ticket.version = max(t.ticket.version, by[effect].version)
		p.trouble.CompareAndSwap(t, &judged) // who has come first has a newer ticket
	}
	p.judged.Store(by[effect])
	return effect
}

// from returns the ticket from which on a page is still to be judged.
func (p *page) from(j *judgement) ticket {
	t := p.ticket
	if j != nil {
		t.clock, t.version = max(t.clock, j.clock), max(t.version, j.version)
	}
	return t
}

// see notes a version that the Store has given out.
func (f *fence) see(v store.Version) {
	for {
		old := f.seen.Load()
		if uint64(v) <= old || f.seen.CompareAndSwap(old, uint64(v)) {
			return
		}
	}
}

// invalidate has an effect on all that is older, in the Site's own order. What is
// owed is remembered until settle is told that the Store knows of it: it reports
// false where there is too much of that already.
func (f *fence) invalidate(effect store.Effect, d debt, tags ...string) (remembered bool) {
	f.makeRoom()
	defer f.makeRoom()
	f.mu.Lock()
	defer f.mu.Unlock()
	clock, now := f.clock.Load()+1, time.Now()
	for _, tag := range tags {
		f.ours.Apply(now, store.Change{Tag: tag, Version: store.Version(clock), Effect: effect})
	}
	remembered = d == paid || f.owe(effect, clock, d == due, tags)
	f.clock.Store(clock)
	return remembered
}

// owedOverhead is what a debt takes beside its tag.
const owedOverhead = 100

// owe adds to what is owed to the Store. It reports false where that is too much to
// be remembered. The debts of visitors leave a half to others. It is called under
// f.mu.
func (f *fence) owe(effect store.Effect, clock uint64, due bool, tags []string) (all bool) {
	all = true
	limit := f.limit
	if !due {
		limit /= 2
	}
	for _, tag := range tags {
		o, ok := f.pending[tag]
		if !ok {
			n := owedOverhead + int64(len(tag))
			if f.pendingBytes+n > limit {
				all = false
				continue
			}
			f.pendingBytes += n
		}
		f.pending[tag] = owed{max(o.effect, effect), clock, o.due || due}
	}
	return all
}

// forgive forgets a debt. It is called under f.mu.
func (f *fence) forgive(tag string) {
	delete(f.pending, tag)
	f.pendingBytes -= owedOverhead + int64(len(tag))
}

// debts returns some of what is owed to the Store, by effect, and the clock.
func (f *fence) debts() (m map[store.Effect][]string, clock uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m = make(map[store.Effect][]string)
	for tag, o := range f.pending {
		if o.due {
			m[o.effect] = append(m[o.effect], tag)
			if len(m[o.effect]) == maxInvalidated {
				break
			}
		}
	}
	return m, f.clock.Load()
}

// owedTo returns the strongest effect that the Store is yet to hear of on a page
// that comes from there. What it has heard meanwhile is among theirs, and newer than
// the ticket of whoever has asked it before.
func (f *fence) owedTo(k *key, tags []string) (strongest store.Effect) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.pending) == 0 {
		return store.None
	}
	look := func(tag string) { strongest = max(strongest, f.pending[tag].effect) }
	for _, tag := range tags {
		look(tag)
	}
	for tag := range k.tags {
		look(tag)
	}
	look(everything)
	return strongest
}

// settle notes what the Store knows of, and the version that it gave it. It was
// asked at a clock: what is owed since then is still so.
func (f *fence) settle(effect store.Effect, v store.Version, asked uint64, tags ...string) {
	f.apply(time.Now(), store.Changes{List: changesOf(effect, v, tags), Upto: v}) // before it is forgiven; see owedTo
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, tag := range tags {
		if o, ok := f.pending[tag]; ok && o.effect <= effect && o.last <= asked {
			f.forgive(tag)
		}
	}
}

// fallDue says that somebody who was telling the Store could not.
func (f *fence) fallDue(tags []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, tag := range tags {
		if o, ok := f.pending[tag]; ok {
			o.due = true
			f.pending[tag] = o
		}
	}
}

func changesOf(effect store.Effect, v store.Version, tags []string) []store.Change {
	list := make([]store.Change, len(tags))
	for i, tag := range tags {
		list[i] = store.Change{Tag: tag, Version: v, Effect: effect}
	}
	return list
}

// apply takes over what was invalidated in the Store.
func (f *fence) apply(at time.Time, c store.Changes) {
	f.see(c.Upto)
	if len(c.List) == 0 && !c.Reset {
		return
	}
	f.makeRoom()
	if c.Reset {
		f.theirs.Forget(at, c.Upto)
	}
	f.theirs.Apply(at, c.List...)
	f.tick()
}

// follow takes over all that was invalidated in the Store up to a version.
func (f *fence) follow(at time.Time, c store.Changes) {
	if c.Reset && uint64(c.Upto) <= f.followed.Load() {
		// Its order says nothing of what was judged further than that.
		f.mu.Lock()
		if c.Upto != f.reset {
			f.reset = c.Upto
			f.ours.Forget(at, store.Version(f.clock.Load()+1))
			f.clock.Add(1)
		}
		f.mu.Unlock()
	}
	f.apply(at, c)
	if uint64(c.Upto) > f.followed.Load() { // there is but one who follows
		f.followed.Store(uint64(c.Upto))
	}
}

// returned notes that the Store is back: what was generated without it counts as
// stale.
func (f *fence) returned() {
	f.returnedAt.Store(time.Now().UnixNano())
	f.returns.Add(1)
	f.tick()
}

// tick moves the clock, so that every page is judged anew.
func (f *fence) tick() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.clock.Add(1)
}

// effect returns the strongest effect on a page since its generation began.
func (f *fence) effect(p *page) store.Effect {
	for {
		clock := f.clock.Load()
		if v := p.verdict.Load(); v>>2 == clock {
			return store.Effect(v & 3)
		}
		judged := p.judged.Load()
		from := p.from(judged)
		strongest, at := f.since(&from, &p.key, p.tags)
		if judged != nil && judged.effect > strongest {
			strongest = judged.effect // p.revoked has its time
		}
		if p.told > strongest {
			strongest, at = p.told, time.Time{}
		}
		if mark := p.aside.Load(); mark != nil && f.invalidatedSince(p, mark) {
			p.aside.CompareAndSwap(mark, nil) // what was said of the page was said before
		}
		if p.judged.Load() != judged {
			continue // a compaction may have forgotten what there was to see
		}
		if strongest != store.None {
			if began := p.began(); at.Before(began) {
				at = began
			}
			p.revoked.CompareAndSwap(0, max(1, at.UnixNano()))
		}
		p.verdict.Store(clock<<2 | uint64(strongest)) // of the clock before the look: a later one looks again
		return strongest
	}
}

// invalidatedSince reports whether the page was invalidated after the generation began
// of which there is but a mark.
func (f *fence) invalidatedSince(p, mark *page) bool {
	for {
		judged := mark.judged.Load()
		from := mark.from(judged)
		was := f.invalidated(&from, &p.key, p.tags)
		if mark.judged.Load() == judged {
			return was
		}
	}
}

// failing reports whether the last attempt to renew the page has failed. An
// invalidation since then gives hope.
func (f *fence) failing(p *page) bool {
	for {
		t := p.trouble.Load()
		if t == nil {
			return false
		}
		if was := f.invalidated(&t.ticket, &p.key, p.tags); p.trouble.Load() == t {
			return !was
		}
	}
}

// invalidated reports whether a page, as far as one knows its tags, was
// invalidated after a generation began.
func (f *fence) invalidated(since *ticket, k *key, tags []string) bool {
	if since.clock == f.clock.Load() {
		return false
	}
	strongest, _ := f.since(since, k, tags)
	return strongest != store.None
}

// since returns the strongest effect on what has one of the tags after a
// generation began, and when that was.
func (f *fence) since(began *ticket, k *key, tags []string) (strongest store.Effect, at time.Time) {
	var buf [16]string // on the stack
	all := append(append(buf[:0], tags...), everything)
	for tag := range k.tags {
		all = append(all, tag)
	}
	strongest, at = f.ours.Effect(store.Version(began.clock), all)
	if e, when := f.theirs.Effect(began.version, all); e > strongest {
		strongest, at = e, when
	}
	if began.blind != 0 && began.blind <= f.returns.Load() && strongest == store.None {
		return store.Stale, time.Unix(0, f.returnedAt.Load())
	}
	return strongest, at
}

// Limits of tags.
const (
	maxTags     = 128 // of a page's own
	maxTagBytes = 256
	tagBuckets  = 64
)

// bucketTags are what a page has instead of the tags that are too many. No tag that
// checkTag accepts looks like them, nor does that of a path. They are in Stores:
// never change them, nor bucketTag.
var bucketTags = func() (tags [tagBuckets]string) {
	for i := range tags {
		tags[i] = fmt.Sprintf("\x00~%02d", i)
	}
	return tags
}()

// bucketTag returns the bucket that a tag is folded into. Each invalidation of the
// tag is one of its bucket, too.
func bucketTag(tag string) string {
	if isBucketTag(tag) {
		return tag
	}
	sum := sha256.Sum256([]byte(tag))
	return bucketTags[sum[0]%tagBuckets]
}

func isBucketTag(tag string) bool { return strings.HasPrefix(tag, "\x00~") }

// withBuckets returns tags and their buckets.
func withBuckets(tags []string) []string {
	all := slices.Clone(tags)
	for _, tag := range tags {
		if bucket := bucketTag(tag); !slices.Contains(all[len(tags):], bucket) {
			all = append(all, bucket)
		}
	}
	return all
}

// foldTags returns at most maxTags tags: the first as they are, and buckets for the
// rest where they are more.
func foldTags(tags []string) []string {
	if len(tags) <= maxTags {
		return tags
	}
	out := make([]string, 0, maxTags)
	var used [tagBuckets]bool
	for _, tag := range tags {
		if len(out) < maxTags-tagBuckets && !isBucketTag(tag) {
			out = append(out, tag)
		} else {
			used[slices.Index(bucketTags[:], bucketTag(tag))] = true
		}
	}
	for i, bucket := range bucketTags {
		if used[i] {
			out = append(out, bucket)
		}
	}
	return out
}

// plainTags returns those of a page's tags that are not buckets.
func plainTags(tags []string) []string {
	if len(tags) == 0 || !isBucketTag(tags[len(tags)-1]) {
		return tags
	}
	return slices.Clip(tags[:slices.IndexFunc(tags, isBucketTag)])
}

// checkTag says what is wrong with a tag.
func checkTag(tag string) error {
	switch {
	case tag == "":
		return errors.New("a tag is not empty")
	case len(tag) > maxTagBytes:
		return fmt.Errorf("a tag has at most %d bytes, not %d", maxTagBytes, len(tag))
	case strings.ContainsFunc(tag, func(r rune) bool { return r < ' ' || r == ',' || r == 0x7f }):
		return errors.New("a tag has no comma and no control character")
	case strings.TrimSpace(tag) != tag:
		return errors.New("a tag neither begins nor ends with a space")
	case tag[0] == '/':
		return errors.New(`a tag does not begin with "/": paths are for Revalidate and Purge, and need no tag`)
	}
	return nil
}

// A second is the second level of the cache: the Store behind its guard.
type second struct {
	*guard.Guard
	prefix string // of keys: the names of program and build
	end    context.CancelFunc
	ended  chan struct{} // closed when nothing is followed any more
	met    chan struct{} // closed when the first contact was made, or has failed
	meets  sync.Once

	strangers bucket
	tellers   chan struct{} // slots of tellStore
}

// stop ends the following.
func (s *second) stop() {
	s.end()
	<-s.ended
}

// meet waits for the first contact, but not for long: what is known of the Store's
// history then need not count as stale when that is heard.
func (s *second) meet() {
	select {
	case <-s.met:
		return
	default:
	}
	t := time.NewTimer(maxMeetTime)
	defer t.Stop()
	select {
	case <-s.met:
	case <-t.C:
	}
}

const maxMeetTime = 100 * time.Millisecond

// open makes a Store the second level.
func (s *Site) open(st store.Store, version string) {
	var program string
	if info, ok := debug.ReadBuildInfo(); ok {
		program = info.Path
		if version == "" {
			version = revision(info.Settings)
		}
	}
	if version == "" && s.log != nil {
		s.log.Warn("isr: nothing tells the pages of this build from those of others in the Store",
			"remedy", "set Options.Version, or build where the Go command finds the VCS")
	}
	ctx, end := context.WithCancel(context.Background())
	second := &second{prefix: prefix(program, version), end: end, ended: make(chan struct{}), met: make(chan struct{}), tellers: make(chan struct{}, maxTellers)}
	second.Guard = guard.New(st, func(err error) {
		second.meets.Do(func() { close(second.met) })
		s.report(Event{Kind: StoreFailed, Err: fmt.Errorf("store: %w", err)})
	})
	s.second = second
	go s.follow(ctx)
}

// prefix returns what the keys of a program's build in the Store begin with. All
// programs of a repository have one revision.
func prefix(program, version string) string {
	return string(appendString(appendString(nil, program), version))
}

// revision returns the VCS revision of a build, or nothing where that does not tell
// it from others.
func revision(settings []debug.BuildSetting) string {
	m := make(map[string]string)
	for _, s := range settings {
		m[s.Key] = s.Value
	}
	if m["vcs.modified"] == "true" {
		return m["vcs.revision"] + "+" + m["vcs.time"]
	}
	return m["vcs.revision"]
}

// maxReplayTime is how long what is followed may be history from before the start.
const maxReplayTime = 2 * time.Second

// follow takes over what is invalidated in the Store, until ctx is done.
func (s *Site) follow(ctx context.Context) {
	defer close(s.second.ended)
	begin, replayed, pause := time.Now(), false, time.Second
	contact := begin // the last
	var next time.Time
	s.second.Follow(ctx,
		func(c store.Changes) {
			now := time.Now()
			at := now
			switch {
			case !replayed || c.Reset:
				at = time.Time{} // what is from before the Site was there, or its order: unknown
			case now.Sub(contact) > maxReplayTime:
				at = contact // the Store was away, and it can have been right after that
			}
			contact = now
			s.cache.follow(at, c)
			s.second.meets.Do(func() { close(s.second.met) })
			replayed = replayed || len(c.List) == 0 || time.Since(begin) > maxReplayTime
		},
		func() {
			if s.log != nil {
				s.log.Info("isr: the Store answers again")
			}
		},
		func() {
			if !s.second.Down() && s.cache.blinded.Swap(false) { // else it answers, but is not trusted yet
				s.cache.returned()
			}
			if now := time.Now(); now.After(next) {
				if s.payDebts(ctx) {
					pause = time.Second
				} else {
					next, pause = now.Add(pause), min(2*pause, time.Minute)
				}
			}
		})
}

// payDebts tells the Store what it has not yet heard of, and reports whether it
// has now.
func (s *Site) payDebts(ctx context.Context) bool {
	for {
		debts, asked := s.cache.debts()
		if len(debts) == 0 {
			return true
		}
		for effect, tags := range debts {
			v, err := s.second.Invalidate(ctx, effect, tags...)
			if err != nil {
				return false
			}
			s.cache.settle(effect, v, asked, tags...)
		}
	}
}

// maxInvalidated is of how many tags the Store is told at a time where it has missed
// some.
const maxInvalidated = 1000

// storeKey returns the key of a page in the Store. Host and scheme are always part of
// it, and so is where they are from: others may use the same Store, and a Host that a
// visitor has sent is no Options.Origin.
func (s *Site) storeKey(k *key) string {
	b := []byte(s.second.prefix)
	if s.origin.host != "" {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	b = appendString(b, cmp.Or(k.scheme, s.origin.scheme))
	b = appendString(b, cmp.Or(k.host, s.origin.host))
	b = appendString(b, k.path)
	b = appendString(b, k.pattern)
	b = appendString(b, k.query)
	sum := sha256.Sum256(append(b, k.varied...))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// keepStale is how long a Store keeps what is past its TTL where there is no
// bound. What nobody has asked for in that time is not worth keeping.
const keepStale = 30 * 24 * time.Hour

// record returns the page as the Store keeps it.
func (p *page) record(key string) *store.Record {
	rec := &store.Record{Version: p.order.Version, Fence: p.order.Fence, Tags: slices.Clone(p.tags), Data: p.encode(key)}
	for tag := range p.key.tags {
		rec.Tags = append(rec.Tags, tag)
	}
	rec.Tags = append(rec.Tags, everything)
	if l := p.lifetime; l.ttl != forever {
		shown := min(max(l.staleWhileRevalidate, l.staleIfError, time.Second), keepStale)
		if p.status == http.StatusNotFound || p.status == http.StatusGone {
			shown = time.Second // strangers can think of any number of them
		}
		rec.TTL = max(0, l.ttl-time.Since(p.generated)) + shown
	}
	return rec
}

// pageFormat is the number of the encoding that encode makes. The checksum comes
// after it: not every Store notices when it damages what it keeps.
const pageFormat = 3

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encode returns a page as bytes, that know under which key they belong.
func (p *page) encode(key string) []byte {
	h, etag := p.plain.snapshot()
	n := 256 + len(key) + len(p.plain.body)
	if p.gzip != nil {
		n += len(p.gzip.body)
	}
	for name, values := range h {
		for _, v := range values {
			n += len(name) + len(v) + 2*binary.MaxVarintLen32
		}
	}
	b := append(make([]byte, 0, n), pageFormat, 0, 0, 0, 0)
	b = appendString(b, key)
	b = appendString(b, p.pattern)
	b = appendString(b, p.matched)
	for _, n := range [...]int64{
		int64(p.status), p.generated.UnixNano(), int64(p.took), int64(p.upstream),
		int64(p.lifetime.ttl), int64(p.lifetime.staleWhileRevalidate), int64(p.lifetime.staleIfError),
	} {
		b = binary.AppendVarint(b, n)
	}
	b = binary.AppendUvarint(b, uint64(len(p.tags)))
	for _, tag := range p.tags {
		b = appendString(b, tag)
	}
	var flags byte
	if p.ownControl {
		flags |= hasOwnControl
	}
	if p.validators.etag != "" {
		flags |= hasOwnETag
	}
	if p.gzip != nil {
		flags |= hasGzip
	}
	b = append(b, flags)
	b = appendString(b, etag)
	lines := 0
	for _, values := range h {
		lines += len(values)
	}
	b = binary.AppendUvarint(b, uint64(lines))
	for _, name := range slices.Sorted(maps.Keys(h)) {
		for _, v := range h[name] {
			b = appendString(appendString(b, name), v)
		}
	}
	b = append(binary.AppendUvarint(b, uint64(len(p.plain.body))), p.plain.body...)
	if p.gzip != nil {
		b = append(binary.AppendUvarint(b, uint64(len(p.gzip.body))), p.gzip.body...)
	}
	putChecksum(b)
	return b
}

// putChecksum completes the header.
func putChecksum(b []byte) {
	binary.LittleEndian.PutUint32(b[1:], crc32.Checksum(b[5:], castagnoli))
}

const (
	hasOwnControl byte = 1 << iota
	hasOwnETag
	hasGzip
)

// errForeign says that a Store returned what encode did not make for this page.
var errForeign = errors.New("the Store returned what is not this page")

// decode makes a page of what encode has made for it, and takes over the bytes.
func decode(data []byte, key string, req *pageRequest) (*page, error) {
	if len(data) < 5 || data[0] != pageFormat || binary.LittleEndian.Uint32(data[1:]) != crc32.Checksum(data[5:], castagnoli) {
		return nil, errForeign
	}
	d := decoder{b: data[5:]}
	if string(d.bytes()) != key {
		return nil, errForeign
	}
	p := &page{
		key: req.key.clone(), route: req.route, pattern: string(d.bytes()), matched: unique.Make(string(d.bytes())).Value(),
		status: int(d.number()), generated: time.Unix(0, d.number()), took: time.Duration(d.number()), upstream: time.Duration(d.number()),
		lifetime: lifetime{time.Duration(d.number()), time.Duration(d.number()), time.Duration(d.number())},
	}
	for n := d.count(); n > 0; n-- {
		p.tags = append(p.tags, string(d.bytes()))
	}
	flags := d.byte()
	etag, h := string(d.bytes()), make(http.Header)
	for n := d.count(); n > 0; n-- {
		name := string(d.bytes())
		h[name] = append(h[name], string(d.bytes()))
	}
	plain, compressed := d.bytes(), []byte(nil)
	if flags&hasGzip != 0 {
		compressed = d.bytes()
	}
	if d.bad || len(d.b) > 0 || p.status < 200 || p.status > 999 {
		return nil, errForeign
	}
	p.ownControl = flags&hasOwnControl != 0
	if flags&hasOwnETag != 0 {
		p.validators.etag = etag
	}
	if slices.Equal(p.tags, req.route.Tags) {
		p.tags = req.route.Tags
	}
	if !p.ownControl { // what goes out is what this instance is told to say
		h["Cache-Control"] = []string{req.route.control(p.status, p.lifetime)}
	}
	p.represent(h, etag, slices.Clone(plain), slices.Clone(compressed))
	return p, nil
}

// A decoder reads what the append functions have written. What is not there reads
// as nothing, and is noted.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) skip(n int) {
	if n <= 0 {
		d.b, d.bad = nil, true
		return
	}
	d.b = d.b[n:]
}

func (d *decoder) number() int64 {
	n, size := binary.Varint(d.b)
	d.skip(size)
	return n
}

// count reads how many things follow, of a byte at least each.
func (d *decoder) count() int {
	n, size := binary.Uvarint(d.b)
	d.skip(size)
	if n > uint64(len(d.b)) {
		d.b, d.bad = nil, true
		return 0
	}
	return int(n)
}

func (d *decoder) bytes() []byte {
	n := d.count()
	b := d.b[:n]
	d.b = d.b[n:]
	return b
}

func (d *decoder) byte() (b byte) {
	if len(d.b) > 0 {
		b = d.b[0]
	}
	d.skip(min(1, len(d.b)))
	return b
}
