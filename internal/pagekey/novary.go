package pagekey

import (
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"
)

// NoVarySearch returns the No-Vary-Search header of the page with a query, by Query: what
// of the query it does not depend on, and that the order of names does not count. It is
// empty where the route says nothing of that; and where a cache would take two queries for
// one that are two here: it decodes what is no UTF-8, no escape, or has a semicolon, in a
// way of its own.
//
// https://datatracker.ietf.org/doc/draft-ietf-httpbis-no-vary-search/
func (ru *Rules) NoVarySearch(query string) string {
	if ru.noVary == "" || query == "" {
		return ru.noVary
	}
	plain, err := url.QueryUnescape(query)
	if err != nil || !utf8.ValidString(plain) || strings.ContainsAny(plain, "%;\ufffd\ufeff") {
		return ""
	}
	return ru.noVary
}

// maxNoVary is how long the header may be, which each page holds: isr.TrackingParameters,
// which most pages ignore, are too many.
const maxNoVary = 256

// noVarySearch returns what a route's Query and IgnoreQuery say, as far as that can be
// said of names: a prefix such as utm_* cannot.
func noVarySearch(query, ignore []string) string {
	ignored := make([]string, 0, len(ignore))
	for _, name := range slices.Compact(slices.Sorted(slices.Values(ignore))) {
		if !strings.HasSuffix(name, "*") {
			ignored = append(ignored, name)
		} else if query != nil {
			query = slices.DeleteFunc(slices.Clone(query), func(q string) bool { return strings.HasPrefix(q, name[:len(name)-1]) })
		}
	}
	list := func(before string, names []string) string {
		quoted := make([]string, len(names))
		for i, name := range names {
			if !utf8.ValidString(name) {
				return ""
			}
			quoted[i] = `"` + url.QueryEscape(name) + `"`
		}
		if out := before + "(" + strings.Join(quoted, " ") + ")"; len(out) <= maxNoVary {
			return out
		}
		return ""
	}
	switch {
	case query == nil && len(ignored) == 0:
		return ""
	case query == nil:
		return list("key-order, params=", ignored)
	}
	kept := slices.DeleteFunc(slices.Compact(slices.Sorted(slices.Values(query))), func(q string) bool { return slices.Contains(ignored, q) })
	if len(kept) == 0 {
		return "key-order, params"
	}
	return list("key-order, params, except=", kept)
}
