package pagekey

import (
	"errors"
	"net/url"
	"path"
	"strings"
)

// CleanHost returns one spelling for all that name the same host and port (RFC
// 3986, section 6.2): in lower case, without the port that the scheme has anyway,
// and without the dot that ends a complete domain name.
func CleanHost(scheme, host string) string {
	if isCleanHost(host) {
		return host
	}
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

// isCleanHost reports whether a host is plainly what CleanHost would make of it.
func isCleanHost(host string) bool {
	for i := range len(host) {
		if c := host[i]; 'A' <= c && c <= 'Z' || c == ':' || c >= 0x80 {
			return false
		}
	}
	return host == "" || host[len(host)-1] != '.'
}

// Why a path is not for the cache.
var (
	errDots  = errors.New(`has a segment "." or ".."; name the path that is meant`)
	errEmpty = errors.New(`has an empty segment; name the path without "//"`)
)

// CleanPath returns one spelling for all escaped paths that are the same by RFC
// 3986, section 6.2.2: octets that need no escape have none, escapes are in upper
// case. A path with dot segments, or with an empty one other than the last, is an
// error: handlers clean it away, or redirect, and take it for another path, whose
// page it must not survive. An escaped slash is part of a segment; see TagPath.
func CleanPath(escaped string) (path string, err error) {
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
		if segment, rest, more = strings.Cut(rest, "/"); segment == "." || segment == ".." {
			return "", errDots
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

// URL returns the URL with an escaped path.
func URL(path, query string) *url.URL {
	u := &url.URL{RawQuery: query}
	u.Path, _ = url.PathUnescape(path)
	if u.EscapedPath() != path {
		u.RawPath = path
	}
	return u
}

// CanonicalPath returns one spelling for all escaped paths that mean the same
// segments, so that an invalidation finds every one of them: /a:b and /a%3Ab are
// two pages (RFC 3986, section 6.2.2), but one path to Revalidate and Purge.
func CanonicalPath(escaped string) string {
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

// TagPath returns the path that the tags of an escaped path have: its CanonicalPath, in
// which escaped slashes are slashes, and what is not clean then is cleaned. That is what it
// is to handlers that look at URL.Path alone, such as http.FileServer: what names /a/b
// reaches /a%2Fb and /a/x%2F..%2Fb, too, and the other way round.
func TagPath(escaped string) string {
	canonical := CanonicalPath(escaped)
	decoded := strings.ReplaceAll(canonical, "%2F", "/")
	if decoded == canonical || decoded[0] != '/' { // the path of data does not begin with "/"
		return decoded
	}
	clean := path.Clean(decoded)
	if decoded[len(decoded)-1] == '/' && clean != "/" {
		clean += "/"
	}
	return clean
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
