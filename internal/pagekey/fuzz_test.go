package pagekey

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// segments returns what a path means.
func segments(escaped string) (s []string, ok bool) {
	for segment := range strings.SplitSeq(escaped, "/") {
		u, err := url.PathUnescape(segment)
		if err != nil {
			return nil, false
		}
		s = append(s, u)
	}
	return s, true
}

// respell writes the segments anew: the bits of how say which bytes are escaped,
// and in which case, beside those that must be.
func respell(segments []string, how string) string {
	var b strings.Builder
	n := 0
	for i, s := range segments {
		if i > 0 {
			b.WriteByte('/')
		}
		for _, c := range []byte(s) {
			bits := byte(0)
			if how != "" {
				bits = how[n%len(how)]
				n++
			}
			literal := 'a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9' || strings.IndexByte("-._~!$&'()*+,;=:@", c) >= 0
			switch {
			case literal && bits&1 == 0:
				b.WriteByte(c)
			case bits&2 == 0:
				fmt.Fprintf(&b, "%%%02X", c)
			default:
				fmt.Fprintf(&b, "%%%02x", c)
			}
		}
	}
	return b.String()
}

// disguise spells an escaped path anew, without a change of what it is: the bits of
// how say which octets are escaped that need not be, and in which case.
func disguise(path, how string) string {
	var b strings.Builder
	for i, n := 0, 0; i < len(path); i++ {
		bits := byte(0)
		if how != "" {
			bits = how[n%len(how)]
			n++
		}
		switch c := path[i]; {
		case c == '%' && bits&2 == 0:
			b.WriteString(strings.ToUpper(path[i : i+3]))
			i += 2
		case c == '%':
			b.WriteString(strings.ToLower(path[i : i+3]))
			i += 2
		case !isUnreservedByte(c) || bits&1 == 0:
			b.WriteByte(c)
		case bits&2 == 0:
			fmt.Fprintf(&b, "%%%02X", c)
		default:
			fmt.Fprintf(&b, "%%%02x", c)
		}
	}
	return b.String()
}

// Every spelling of a path that means the same is found by the same name, no
// other one is; those that RFC 3986 calls equivalent are one page, which the handler
// sees in one way, and a page request says what its key says.
func FuzzPath(f *testing.F) {
	for _, seed := range [][3]string{
		{"/", "/", ""},
		{"/a/b", "/a%2fb", "\x01"},
		{"/a%2Fb", "/a%2fb", "\x02\x03"},
		{"/%61", "/a", "\x01\x03"},
		{"/%25", "/%2525", "\x01"},
		{"/%2541", "/%41", ""},
		{"/%3f", "/%3F", "\x03"},
		{"/a%3Fb=c", "/a", ""},
		{"/%C3%A9", "/\u00e9", "\x03"},
		{"/%ff", "/%FF", ""},
		{"/%00", "//", ""},
		{"/a b", "/a%20b", ""},
		{"/a+b", "/a%20b", ""},
		{"/a//b/../c/.", "/a/b", "\x00\x01"},
		{"/a%2f%2e%2e%2fb", "/a%2f/b", "\x03"},
		{"/%2e%2E/a", "/...", "\x01"},
		{"//host/path", "/host/path", ""},
		{"/*", "*", ""},
		{"/a;b,c=d", "/a%3bb%2cc%3dd", ""},
		{"/%", "/%4", "\x01"},
		{"/[]", "/%5B%5D", ""},
		{"/\"<>^`{|}", "/%22%3C%3E%5E%60%7B%7C%7D", "\x02"},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	f.Fuzz(func(t *testing.T, a, b, how string) {
		a, ok := asServed(t, a)
		if !ok {
			return
		}
		means, ok := segments(a)
		if !ok {
			t.Fatalf("EscapedPath %q cannot be unescaped", a)
		}
		canonical := CanonicalPath(a)
		if again := CanonicalPath(canonical); again != canonical {
			t.Errorf("%q is %q, and that is %q", a, canonical, again)
		}
		if strings.Contains(canonical, "?") || !strings.HasPrefix(canonical, "/") {
			t.Errorf("%q is %q: its tag can be that of a page with a query, or of a host", a, canonical)
		}
		if other, ok := asServed(t, disguise(a, how)); !ok || other != a {
			t.Errorf("%q is a page, but %q is %q, %v", a, disguise(a, how), other, ok)
		}
		for _, s := range means {
			if s == "." || s == ".." {
				t.Errorf("%q has a dot segment, and is for the cache", a)
			}
		}
		if slices.Contains(means[1:len(means)-1], "") {
			t.Errorf("%q has an empty segment, and is for the cache", a)
		}
		if other := respell(means, how); CanonicalPath(other) != canonical {
			t.Errorf("%q is %q, but %q is %q", a, canonical, other, CanonicalPath(other))
		}
		if b, ok := asServed(t, b); ok {
			other, _ := segments(b)
			if same, want := CanonicalPath(b) == canonical, slices.Equal(other, means); same != want {
				t.Errorf("%q and %q: one name: %v, one meaning: %v", a, b, same, want)
			}
		}
	})
}

// asServed returns the path that the page at a target has, if it has one, and
// checks the page request that is built of it.
func asServed(t *testing.T, target string) (path string, ok bool) {
	u, err := url.ParseRequestURI(target)
	if err != nil || !strings.HasPrefix(u.Path, "/") || u.Host != "" {
		return "", false
	}
	if path, err = CleanPath(u.EscapedPath()); err != nil {
		return "", false
	}
	if again, err := CleanPath(path); err != nil || again != path {
		t.Errorf("%q is %q, and that is %q, %v", target, path, again, err)
	}
	k := Key{Scheme: "http", Host: "example.com", Path: path, Query: "q=1"}
	r := k.Request(context.Background(), Origin{})
	if r.URL.EscapedPath() != path || r.URL.Path != u.Path || r.RequestURI != path+"?q=1" {
		t.Errorf("%q: the page request has path %q, escaped %q, and RequestURI %q; want %q, %q", target, r.URL.Path, r.URL.EscapedPath(), r.RequestURI, u.Path, path)
	}
	again, err := url.ParseRequestURI(r.RequestURI)
	if err != nil || again.Path != u.Path || again.EscapedPath() != path || again.RawQuery != "q=1" {
		t.Errorf("%q: the page request's RequestURI %q says something else: %v, %v", target, r.RequestURI, again, err)
	}
	return path, true
}

func FuzzQuery(f *testing.F) {
	for _, seed := range [][2]string{
		{"", "q"},
		{"q=1", ""},
		{"q=1&page=2", "q page"},
		{"page=2&q=1", "q page"},
		{"q=1&utm=x", "q"},
		{"q=2&q=1", "q"},
		{"a=1&b=2&a=3", "a b"},
		{"q", "q"},
		{"q=", "q"},
		{"=1", "q"},
		{"&&q=1&", "q"},
		{"q=a+b&q=a%20b", "q"},
		{"q=%C3%A9&q=\u00e9", "q"},
		{"%71=1", "q"},
		{"q=%", "q"},
		{"q=%zz&q=1", "q"},
		{"q=1;page=2&page=3", "q page"},
		{"q=a=b", "q"},
		{"Q=1&q=2", "q Q"},
		{"q=~a-b_c.d", "q"},
		{"a=1&a=1", "a a"},
		{"a=1&utm_source=x+y&b=2&utm_&c=3", "a b c"},
		{"a=1&b=2&c=3&d=4&e=5&f=6&g=7&h=8&i=9&j=10&k=11", "b d f h j"},
		{"fbclid=x%zz&a=1&&gclid", "a*"},
		{"%66bclid=x&a=1", "a"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, raw, names string) {
		type queryRules struct {
			*Rules
			named, ignored []string
		}
		with := func(query, ignore []string) *queryRules {
			rules, err := NewRules(query, ignore, nil, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			return &queryRules{rules, query, ignore}
		}
		ignores := func(rt *queryRules, name string) bool {
			return slices.ContainsFunc(rt.ignored, func(s string) bool {
				prefix, ok := strings.CutSuffix(s, "*")
				return s == name || ok && strings.HasPrefix(name, prefix)
			})
		}
		if got := with([]string{}, nil).Query(raw); got != "" {
			t.Errorf("of %q, %q is kept although nothing should be", raw, got)
		}
		for _, rt := range []*queryRules{
			with(nil, nil), with(strings.Fields(names), nil), with(nil, []string{"utm_*", "gclid", "fbclid"}),
			with(nil, append(strings.Fields(names), "not-a-name*")),
		} {
			values, _ := url.ParseQuery(raw)
			maps.DeleteFunc(values, func(name string, _ []string) bool {
				return rt.named != nil && !slices.Contains(rt.named, name) || ignores(rt, name)
			})
			kept := rt.Query(raw)
			if want := values.Encode(); kept != want {
				t.Errorf("of %q with %q, %q is kept, want %q", raw, rt.named, kept, want)
			}
			if cut, ok := rt.cutQuery(raw); ok && cut != kept {
				t.Errorf("%q with %q is cut to %q, not %q", raw, rt.named, cut, kept)
			}
			if again := rt.Query(kept); again != kept {
				t.Errorf("of %q with %q, %q is kept, and of that %q", raw, rt.named, kept, again)
			}
			if got, err := url.ParseQuery(kept); err != nil || !maps.EqualFunc(got, values, slices.Equal) {
				t.Errorf("of %q with %q, %q is kept: %v, %v; want %v", raw, rt.named, kept, got, err, values)
			}
			// The order of different names does not matter, nor does what is not kept.
			pairs := strings.Split(raw, "&")
			slices.SortStableFunc(pairs, func(a, b string) int { return strings.Compare(nameOf(b), nameOf(a)) })
			other := strings.Join(pairs, "&")
			if got := rt.Query(other); got != kept {
				t.Errorf("of %q with %q, %q is kept, but of %q %q", raw, rt.named, kept, other, got)
			}
			const foreign = "not-a-name-that-is-kept"
			if rt.named != nil && !slices.Contains(rt.named, foreign) || ignores(rt, foreign) {
				if got := rt.Query(foreign + "=1&" + raw + "&" + foreign + "=2"); got != kept {
					t.Errorf("of %q with %q, %q is kept, but with a foreign parameter %q", raw, rt.named, kept, got)
				}
			}
		}
	})
}

func nameOf(pair string) string {
	name, _, _ := strings.Cut(pair, "=")
	name, _ = url.QueryUnescape(name)
	return name
}

// What is in the key is what the handler gets.
func FuzzHeader(f *testing.F) {
	f.Add("de, en", "dark", "User-Agent", "evil")
	f.Add("", "\x80", "", "a;b")
	f.Fuzz(func(t *testing.T, accept, theme, name, value string) {
		values := []string{accept, theme, value}
		encoded := appendHeader(appendHeader(nil, "Accept-Language", values), "Cookie", values[:1])
		want := http.Header{"Accept-Language": values, "Cookie": values[:1]}
		if got := ParseHeader(string(encoded)); !maps.EqualFunc(got, want, slices.Equal) {
			t.Errorf("%q is encoded as %q, and that is %q", want, encoded, got)
		}
		named := appendHeader(appendHeader(nil, "A"+name, []string{value, theme}), "B"+name, nil)
		want = http.Header{"A" + name: {value, theme}}
		if got := ParseHeader(string(named)); !maps.EqualFunc(got, want, slices.Equal) {
			t.Errorf("%q is encoded as %q, and that is %q", want, named, got)
		}
	})
}
