// Package header reads and writes the fields of RFC 9110, 9111 and 9211 as a cache
// needs them.
package header

import (
	"iter"
	"net/http"
	"strings"
)

// List yields the members of a comma-separated header (RFC 9110, section
// 5.6.1), which has no quoted strings.
func List(lines []string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, line := range lines {
			for line != "" {
				var e string
				e, line, _ = strings.Cut(line, ",")
				if e = trimSpace(e); e != "" && !yield(e) {
					return
				}
			}
		}
	}
}

// trimSpace trims what RFC 9110 calls optional whitespace: spaces and tabs, and
// nothing else.
func trimSpace(s string) string {
	for s != "" && (s[0] == ' ' || s[0] == '\t') {
		s = s[1:]
	}
	for s != "" && (s[len(s)-1] == ' ' || s[len(s)-1] == '\t') {
		s = s[:len(s)-1]
	}
	return s
}

// IsToken reports whether s is a token (RFC 9110, section 5.6.2).
func IsToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune("\"(),/:;<=>?@[\\]{}", r)
	})
}

// MediaType returns the media type of a body in lower case, without its parameters
// (RFC 9110, section 8.3.1).
func MediaType(h http.Header) string {
	t, _, _ := strings.Cut(h.Get("Content-Type"), ";")
	return strings.ToLower(trimSpace(t))
}

// IsHopByHop reports whether a header is about one connection (RFC 9110,
// section 7.6.1).
func IsHopByHop(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization",
		"Te", "Trailer", "Transfer-Encoding", "Upgrade":
		return true
	}
	return strings.HasPrefix(name, http.TrailerPrefix)
}

// IsETag reports whether s is an entity tag (RFC 9110, section 8.8.3).
func IsETag(s string) bool {
	s = strings.TrimPrefix(s, "W/")
	return len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' &&
		!strings.ContainsFunc(s[1:len(s)-1], func(r rune) bool { return r == '"' || r <= ' ' || r == 0x7f })
}

// IsUnsafe reports whether a successful request with this method expires the
// page at its path: every method that is not known to be safe does (RFC 9111,
// section 4.4).
func IsUnsafe(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return false
	}
	return true
}

// BodyAllowed reports whether a response with a status has a body (RFC 9110, section
// 6.4.1).
func BodyAllowed(status int) bool {
	return status >= 200 && status != http.StatusNoContent && status != http.StatusNotModified
}
