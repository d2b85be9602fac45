package pagekey

import (
	"net/url"
	"slices"
	"strings"
)

// ignore notes the parameters that the page does not depend on, although Route.Query
// may name them.
func (ru *Rules) ignore(names []string) {
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
func (ru *Rules) keeps(name string) bool {
	if ru.named {
		if _, named := slices.BinarySearch(ru.keptQuery, name); !named {
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

// Query returns the parameters of a raw query that the page depends on, in
// canonical order: by name, the values of a name as they came.
func (ru *Rules) Query(raw string) string {
	if raw == "" || ru.named && len(ru.keptQuery) == 0 {
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

// cutQuery is Query where that only has to leave something out. It allocates
// nothing where what is kept stands together.
func (ru *Rules) cutQuery(raw string) (kept string, ok bool) {
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
