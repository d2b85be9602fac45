package header

import (
	"net/http"
	"slices"
	"strings"
)

// Canonical returns a copy in which no rule can be got round by spelling.
func Canonical(h http.Header) http.Header {
	out := make(http.Header, len(h))
	for name, values := range h {
		name = http.CanonicalHeaderKey(name)
		out[name] = append(out[name], values...)
	}
	return out
}

// Forwardable returns the headers of a response that go on to visitors: not those
// of its connection, not those that are for one visitor alone, not those that
// are made anew.
func Forwardable(h http.Header, body []byte) http.Header {
	out := make(http.Header, len(h))
	for name, values := range h {
		if !IsHopByHop(name) && len(values) > 0 {
			out[name] = slices.Clone(values)
		}
	}
	for name := range List(h["Connection"]) {
		out.Del(name)
	}
	for _, name := range [...]string{"Content-Length", "Set-Cookie", "Age"} {
		delete(out, name)
	}
	_, typed := h["Content-Type"]
	if !typed && len(body) > 0 && h.Get("Content-Encoding") == "" {
		out.Set("Content-Type", http.DetectContentType(body))
	}
	return out
}

// DropVary drops names, which are canonical, from Vary.
func DropVary(h http.Header, names []string) {
	if len(names) == 0 || h["Vary"] == nil {
		return
	}
	var left []string
	for name := range List(h["Vary"]) {
		if !slices.Contains(names, http.CanonicalHeaderKey(name)) {
			left = append(left, name)
		}
	}
	delete(h, "Vary")
	if len(left) > 0 {
		h["Vary"] = []string{strings.Join(left, ", ")}
	}
}

// AddVary adds names to Vary, each once.
func AddVary(h http.Header, names string) {
	var have []string
	for name := range List(append(slices.Clip(h["Vary"]), names)) {
		if !hasName(have, name) {
			have = append(have, name)
		}
	}
	if len(have) > 0 {
		h["Vary"] = []string{strings.Join(have, ", ")}
	}
}

// mergeVary returns the lines of outer, and those of inner without the names that outer
// has.
func mergeVary(outer, inner []string) []string {
	out := slices.Clip(outer)
	for _, line := range inner {
		var rest []string
		repeats := false
		for name := range List([]string{line}) {
			if hasName(out, name) {
				repeats = true
			} else {
				rest = append(rest, name)
			}
		}
		switch {
		case !repeats:
			out = append(out, line)
		case len(rest) > 0:
			out = append(out, strings.Join(rest, ", "))
		}
	}
	return out
}

// hasName reports whether the lines of a list have a name, in whatever case.
func hasName(lines []string, name string) bool {
	for have := range List(lines) {
		if strings.EqualFold(have, name) {
			return true
		}
	}
	return false
}

// Merge returns the values of a header of the page among those that outer
// middleware has set already: in Vary and Cache-Status others have their say, and
// what they have made one visitor's own must not be shared downstream.
func Merge(h http.Header, name string, values []string) []string {
	switch name {
	case "Cache-Status":
		return append(slices.Clip(h[name]), values...)
	case "Vary":
		return mergeVary(h[name], values)
	case "Cache-Control":
		if !IsPersonal(h) {
			return values
		}
		outer, own := ParseCacheControl(h[name]), ParseCacheControl(values)
		switch {
		case own.IsUnstored():
			return values
		case outer.IsUnshared():
			return h[name]
		case outer.NoStore, own.NoStore: // not for a cache that understands, which may be a shared one
			return []string{"no-store"}
		}
		return []string{Private}
	}
	return values
}

// Copy sets headers among those of outer middleware.
func Copy(to, from http.Header) {
	personal := IsPersonal(to)
	for name, values := range from {
		to[name] = slices.Clone(Merge(to, name, values))
	}
	if personal {
		DeleteTargeted(to)
	}
}
