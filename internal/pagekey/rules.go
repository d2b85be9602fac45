package pagekey

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/isr-go/isr/internal/header"
)

// Rules say which parts of a request name its page.
type Rules struct {
	named     bool     // whether query names all parameters that count
	keptQuery []string // sorted
	ignored   []string // sorted

	ignoredPrefixes []string
	ignoredFirst    [256]bool // the bytes that names of ignored begin with

	vary       []string // canonical, sorted, without what the key holds anyway
	cookies    []string // sorted
	normalize  func(http.Header)
	varyHeader string // the Vary header that says the same
	noVary     string // the No-Vary-Search header of pages without a query

	// Segment, if not nil, returns the group of visitors that a request is of.
	Segment func(*http.Request) string
}

// NewRules returns the rules of a route, by its fields of the same names. An error
// names the field.
func NewRules(query, ignore, vary, cookies []string, normalize func(http.Header)) (*Rules, error) {
	ru := &Rules{noVary: noVarySearch(query, ignore), named: query != nil, keptQuery: slices.Sorted(slices.Values(query)), normalize: normalize}
	ru.ignore(ignore)
	covers := make([]string, 0, len(vary)+1)
	for _, name := range vary {
		name = http.CanonicalHeaderKey(name)
		switch {
		case !header.IsToken(name) || name == "*":
			return nil, fmt.Errorf("Vary: %q: not the name of a header", name)
		case header.IsConditional(name), header.IsHopByHop(name):
			return nil, fmt.Errorf("Vary: %s: isr answers this one itself; it never reaches the handler", name)
		case name == SegmentHeader:
			return nil, fmt.Errorf("Vary: %s: it is what Segment returns, and no visitor's", name)
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
	ru.varyHeader = strings.Join(slices.Compact(slices.Sorted(slices.Values(covers))), ", ")
	return ru, nil
}

// Covers reports whether the key holds a request header, as far as it is declared.
func (ru *Rules) Covers(name string) bool {
	switch name {
	case "Host", "X-Forwarded-Proto":
		return true
	case "Cookie":
		return len(ru.cookies) > 0 || slices.Contains(ru.vary, name)
	case SegmentHeader:
		return ru.Segment != nil
	}
	return slices.Contains(ru.vary, name)
}

// CoversCookie reports whether the key holds a cookie.
func (ru *Rules) CoversCookie(name string) bool {
	return slices.Contains(ru.cookies, name) || slices.Contains(ru.vary, "Cookie")
}

// Vary returns the Vary header of the pages.
func (ru *Rules) Vary() string { return ru.varyHeader }

// Key returns the key of the page that r asks for, whose path is path, by CleanPath.
func (ru *Rules) Key(r *http.Request, path string, o Origin, p *Patterns) (k Key) {
	ru.Fill(&k, r, path, o, p)
	return k
}

// Fill is Key, in place: a hit copies no keys. It reports false where the request has no
// page: its key is too long, or its segment is one that no header can have.
func (ru *Rules) Fill(k *Key, r *http.Request, path string, o Origin, p *Patterns) (ok bool) {
	k.Path = path
	if r.URL.RawQuery != "" {
		k.Query = ru.Query(r.URL.RawQuery)
	}
	ok = true
	if ru.varyHeader != "" || ru.Segment != nil {
		k.Variant, ok = ru.VariantOf(r)
	}
	if o.Host == "" {
		k.Scheme = SchemeOf(r)
		k.Host = CleanHost(k.Scheme, r.Host)
	}
	if r.Pattern != "" {
		k.Pattern = p.Of(r.Pattern, path)
	}
	return ok && k.Length() <= MaxBytes
}
