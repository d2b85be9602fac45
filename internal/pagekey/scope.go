package pagekey

import (
	"cmp"
	"errors"
	"fmt"
	"net/textproto"
	"net/url"
	"strings"
	"unicode/utf8"
)

// A Scope is what a path names: the pages of that path, or below it, of one host or all,
// with one query or any.
type Scope struct {
	Scheme, Host string // empty: the site's one origin, or whichever
	Path         string // escaped
	Query        string // as the key has it
	AllQueries   bool
	Below        bool // Path ends in "/*", which stands for all that begins with what is before the star
}

// Tag returns the tag of what the scope names.
func (t *Scope) Tag() string {
	if t.Below {
		prefix := strings.TrimSuffix(t.Path, "*")
		return pathTag(appendPrefixTag(nil, t.Scheme, t.Host, cutPrefix(TagPath(prefix))))
	}
	b := appendPathTag(nil, t.Scheme, t.Host, TagPath(t.Path))
	if !t.AllQueries {
		b = append(append(b, '?'), t.Query...)
	}
	return pathTag(b)
}

// URL returns what the scope names as a URL, absolute where it is of one host; without "?"
// it stands for all queries. One that ends in "/*" stands for all that is below.
func (t *Scope) URL() string {
	path := t.Path
	if !t.Below {
		path = strings.ReplaceAll(path, "*", "%2A")
	}
	if t.Host != "" {
		path = t.Scheme + "://" + t.Host + path
	}
	if !t.AllQueries {
		path += "?" + t.Query
	}
	return path
}

// ReadStar has a path that ends in "/*" stand for all that is below it. It fails where a
// star is anywhere else: in a path that is meant as it is, it is written "%2A".
func (t *Scope) ReadStar() error {
	switch i := strings.IndexByte(t.Path, '*'); {
	case i < 0:
		return nil
	case i < len(t.Path)-1 || t.Path[i-1] != '/':
		return errors.New(`has a star that is not its last segment: "/*" at the end stands for all below, and a star in a path is written "%2A"`)
	case !t.AllQueries:
		return errors.New(`has a query after "/*", which stands for all below, with every query`)
	}
	t.Below = true
	return nil
}

// Matches reports whether the scope, which is not Below, names the page with a key at its
// path.
func (t *Scope) Matches(k *Key) bool {
	return (t.Host == "" || k.Host == t.Host && k.Scheme == t.Scheme) && (t.AllQueries || k.Query == t.Query)
}

// ParseScope returns what a name means that an editor gives to a page: a path that
// begins with "/", or a whole URL, which must be at the Origin, where there is one. The
// query comes apart, since its route says which of it the page depends on.
func ParseScope(name string, o Origin) (t Scope, rawQuery string, err error) {
	var u *url.URL
	switch {
	case strings.Contains(name, "#"):
		err = errors.New("has a fragment, which no server ever sees")
	case strings.HasPrefix(name, "/"):
		u, err = url.ParseRequestURI(name)
	default:
		if u, err = url.Parse(name); err == nil && (u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
			err = errors.New(`want a path that begins with "/", or a whole URL`)
		}
	}
	var parse *url.Error
	if errors.As(err, &parse) {
		err = parse.Err // without the name once more
	}
	if err != nil {
		return t, "", err
	}
	t = Scope{Scheme: u.Scheme, Host: CleanHost(u.Scheme, u.Host), Path: "/", AllQueries: u.RawQuery == ""}
	if u.Path != "" {
		if t.Path, err = CleanPath(escapedPath(u)); err != nil {
			return t, "", err
		}
	}
	if o.Host != "" && t.Host != "" {
		if (Origin{Scheme: t.Scheme, Host: t.Host}) != o {
			return t, "", fmt.Errorf("is not at Options.Origin, %s://%s", o.Scheme, o.Host)
		}
		t.Scheme, t.Host = "", ""
	}
	return t, u.RawQuery, nil
}

// escapedPath is u.EscapedPath, which keeps the stars also of a path with characters that
// have to be escaped.
func escapedPath(u *url.URL) string {
	switch {
	case !strings.Contains(u.RawPath, "*"):
		return u.EscapedPath()
	case !strings.ContainsFunc(u.RawPath, needsEscape):
		return u.RawPath
	}
	parts := strings.Split(u.RawPath, "*")
	for i, part := range parts {
		path, _ := url.PathUnescape(part) // parsing the URL has shown that it can be
		parts[i] = (&url.URL{Path: path, RawPath: part}).EscapedPath()
	}
	return strings.Join(parts, "*")
}

// needsEscape reports whether a character of a path may have to be escaped. Stars do not,
// nor escapes.
func needsEscape(r rune) bool {
	return r >= utf8.RuneSelf || !isUnreservedByte(byte(r)) && r != '/' && r != '*' && r != '%'
}

// OtherSlash returns the path to which a redirect of the page with a key leads, where
// that is the same but for the slash at its end.
func (k *Key) OtherSlash(o Origin, location string) (path string, ok bool) {
	location = textproto.TrimString(location) // as net/http sends it
	if location == "" {
		return "", false
	}
	from := URL(k.Path, "")
	from.Scheme, from.Host = cmp.Or(k.Scheme, o.Scheme), cmp.Or(k.Host, o.Host)
	to, err := from.Parse(location)
	if err != nil || to.Scheme != from.Scheme || CleanHost(to.Scheme, to.Host) != from.Host {
		return "", false
	}
	path, err = CleanPath(to.EscapedPath())
	return path, err == nil && path != "" && (path == k.Path+"/" || path+"/" == k.Path)
}
