// Package changed returns which pages a visitor's successful request has changed, where
// its method is unsafe (RFC 9111, section 4.4): those at its own path, and those that the
// answer's Location and Content-Location name.
package changed

import (
	"cmp"
	"net/http"
	"net/textproto"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/isr-go/isr/internal/pagekey"
)

// A Path is one at which pages may have changed.
type Path struct {
	URL        *url.URL
	Clean      string // as pagekey.CleanPath has it
	Canonical  string // by pagekey.CanonicalPath
	ByLocation bool   // whether it is only the answer's Location that names it
}

// Own returns the path of a request. It reports false where the target is not a path, or
// one that has no pages.
func Own(r *http.Request) (p Path, ok bool) {
	if r.URL.Opaque != "" || !strings.HasPrefix(r.URL.Path, "/") {
		return p, false
	}
	clean, err := pagekey.CleanPath(r.URL.EscapedPath())
	return Path{URL: r.URL, Clean: clean, Canonical: pagekey.CanonicalPath(clean)}, err == nil
}

// Named adds to paths what an answer to r names, as far as it is at the same origin.
func Named(paths []Path, r *http.Request, h http.Header, o pagekey.Origin) []Path {
	for _, name := range [...]string{"Location", "Content-Location"} {
		u := resolve(r, h.Get(name))
		if u == nil || !isHostOf(r, u) && (o.Host == "" || pagekey.CleanHost(o.Scheme, u.Host) != o.Host) {
			continue
		}
		clean, err := pagekey.CleanPath(u.EscapedPath())
		if err != nil {
			continue
		}
		canonical := pagekey.CanonicalPath(clean)
		if i := slices.IndexFunc(paths, func(p Path) bool { return p.Canonical == canonical }); i >= 0 {
			paths[i].ByLocation = paths[i].ByLocation && name == "Location"
			continue
		}
		paths = append(paths, Path{URL: u, Clean: clean, Canonical: canonical, ByLocation: name == "Location"})
	}
	return paths
}

// resolve returns the URL to which a reference in an answer to r resolves, or nil where
// that has no path. An empty one at a host is "/" (RFC 9110, section 4.2.3).
func resolve(r *http.Request, ref string) *url.URL {
	ref = textproto.TrimString(ref) // as net/http sends it
	if ref == "" {
		return nil
	}
	u, err := url.Parse(ref)
	if err != nil {
		return nil
	}
	u = r.URL.ResolveReference(u)
	if u.Path == "" && u.Host != "" {
		u.Path = "/"
	}
	if u.Opaque != "" || !strings.HasPrefix(u.Path, "/") || u.Scheme != "" && u.Scheme != "http" && u.Scheme != "https" {
		return nil
	}
	return u
}

// isHostOf reports whether what was resolved for r is on the host that r names.
func isHostOf(r *http.Request, u *url.URL) bool {
	return u.Host == "" || pagekey.CleanHost(cmp.Or(u.Scheme, pagekey.SchemeOf(r)), u.Host) == pagekey.CleanHost(pagekey.SchemeOf(r), r.Host)
}

// OnlyCleansPath reports whether an answer redirects to another spelling of the
// request's own path, with or without its last slash, or to it on another host or by
// https. A router or middleware answers so: nothing was changed.
func OnlyCleansPath(r *http.Request, status int, h http.Header) bool {
	switch status {
	case http.StatusMovedPermanently, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
	default:
		return false
	}
	u := resolve(r, h.Get("Location"))
	if u == nil {
		return false
	}
	from, to := r.URL.EscapedPath(), u.EscapedPath()
	if path.Clean(pagekey.CanonicalPath(from)) != path.Clean(pagekey.CanonicalPath(to)) {
		return false
	}
	return from != to || !isHostOf(r, u) || u.Scheme == "https" && pagekey.SchemeOf(r) != "https"
}
