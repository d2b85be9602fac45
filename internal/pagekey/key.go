// Package pagekey turns a visitor's request into the key of a page, and the key into
// the page request that the handler sees. What is not in the key the handler cannot
// see: that is how a page never holds what belongs to one visitor.
package pagekey

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"unique"

	"github.com/isr-go/isr/internal/header"
)

// A Key names a page. The page request is built from it and from nothing else
// that a visitor sends.
type Key struct {
	Scheme, Host string // empty where Options.Origin makes them constant; host by CleanHost
	Path         string // escaped; by CleanPath
	Pattern      string // of a ServeMux around the Site, where the handler sees it; by Patterns.Of
	Query        string // the kept parameters in canonical order
	Variant      string // the declared headers and cookies; see appendHeader
}

// MaxBytes is the length of the longest key. Beyond it a request passes: no page
// of a site has such a URL, and runs hold their keys when the visitor has left.
const MaxBytes = 32 << 10

// Length returns how many bytes the key's strings have, for the bound MaxBytes.
func (k *Key) Length() int {
	return len(k.Host) + len(k.Path) + len(k.Pattern) + len(k.Query) + len(k.Variant)
}

// IsPath reports whether the key is that of a page at a path, and not that of data.
func (k *Key) IsPath() bool { return strings.HasPrefix(k.Path, "/") }

// Target returns path and query.
func (k *Key) Target() string {
	if k.Query == "" {
		return k.Path
	}
	return k.Path + "?" + k.Query
}

// SchemeOf returns the scheme that a visitor has used.
func SchemeOf(r *http.Request) string {
	if r.TLS != nil {
		return "https"
	}
	if proto := r.Header["X-Forwarded-Proto"]; proto != nil && isHTTPS(proto) {
		return "https"
	}
	return "http"
}

// An Origin is the scheme and host of every page, or empty where they are the
// request's.
type Origin struct{ Scheme, Host string }

// ParseOrigin reads an origin.
func ParseOrigin(s string) (Origin, error) {
	if s == "" {
		return Origin{}, nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" ||
		u.User != nil || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" {
		return Origin{}, fmt.Errorf("%q: want a scheme and a host, such as \"https://example.com\"", s)
	}
	return Origin{u.Scheme, CleanHost(u.Scheme, u.Host)}, nil
}

// isHTTPS reports whether the first of the proxies in front was asked over TLS.
func isHTTPS(forwardedProto []string) bool {
	for proto := range header.List(forwardedProto) {
		return strings.EqualFold(proto, "https")
	}
	return false
}

// Clone returns a key that shares no memory with a request. Pages share their host
// and pattern, of which there are few: to compare them then takes no look at them. The
// rest is one string: what keeps a part of it beyond the key clones that.
func (k *Key) Clone() Key {
	all := strings.Join([]string{k.Path, k.Query, k.Variant}, "")
	path, query := len(k.Path), len(k.Path)+len(k.Query)
	return Key{k.Scheme, unique.Make(k.Host).Value(), all[:path], unique.Make(k.Pattern).Value(), all[path:query], all[query:]}
}

// Size returns how much memory the key takes.
func (k *Key) Size() int64 {
	return StringSize(k.Host) + int64(len(k.Path)+len(k.Query)+len(k.Variant)+15)&^15
}

// StringSize returns about how much memory a string of its own takes.
func StringSize(s string) int64 { return int64(len(s)+15) &^ 15 }
