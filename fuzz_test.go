// The fuzz tests are inside the package, because the parsers that they are about
// are: what goes wrong in them shows outside only as a page that is another's.

package isr

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/isr-go/isr/internal/header"
)

// letters changes the case of the ASCII letters in s.
func letters(s string, from, to byte) string {
	b := []byte(s)
	for i, c := range b {
		if from <= c && c < from+26 {
			b[i] = c - from + to
		}
	}
	return string(b)
}

// Cache-Control comes from any handler and any upstream behind a proxy.
func FuzzCacheControl(f *testing.F) {
	for _, lines := range []string{
		"",
		"public, max-age=60",
		"max-age=60, max-age=30",
		"max-age=60\nmax-age=30",
		"S-MaxAge=10,\tStale-While-Revalidate=\"20\" , stale-if-error = 30",
		"no-store", "no-cache, private", `no-cache="Set-Cookie, X", private="X"`,
		"must-revalidate, proxy-revalidate, no-transform",
		"max-age=99999999999", "max-age=99999999999999999999999999", "max-age=2147483648", "max-age=2147483647",
		"max-age=-1", "max-age=1.5", "max-age", "max-age=", `max-age=""`, "max-age=+1", "max-age=1e3", "max-age=٣",
		`max-age="60`, `ext="a\", max-age=1", s-maxage=2`, `ext="\`, `ext="a"b, max-age=3`, "=5", ",,,", " , = ,",
		"ext=a=b, max-age=4", "\"max-age=5\"", "max-age=0060",
	} {
		f.Add(lines, "60")
	}
	f.Add("ext=1", "0")
	f.Add("private", "123456789012345678901234567890")
	f.Fuzz(func(t *testing.T, text, number string) {
		lines := strings.Split(text, "\n")
		d := header.ParseCacheControl(lines)
		for name, v := range map[string]time.Duration{
			"max-age": d.MaxAge, "s-maxage": d.SMaxAge,
			"stale-while-revalidate": d.StaleWhileRevalidate, "stale-if-error": d.StaleIfError,
		} {
			if v != -1 && (v < 0 || v > math.MaxInt32*time.Second || v%time.Second != 0) {
				t.Errorf("%q: %s is %d ns", lines, name, v)
			}
		}
		same := func(what string, lines ...string) {
			if got := header.ParseCacheControl(lines); got != d {
				t.Errorf("%s: %q is\n%+v, but %q is\n%+v", what, text, d, lines, got)
			}
		}
		same("upper case", strings.Split(letters(text, 'a', 'A'), "\n")...)
		same("lower case", strings.Split(letters(text, 'A', 'a'), "\n")...)
		if !strings.Contains(text, `"`) {
			same("one line", strings.ReplaceAll(text, "\n", ","))
			same("a line for each directive", strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == '\n' })...)
		}
		same("what else is new", append(slices.Clone(lines), `extension, another="max-age=7, private"`)...)

		// Of duplicates the first counts, and a quoted number is the same number.
		plain := header.ParseCacheControl(append(slices.Clone(lines), "max-age=17, s-maxage=17"))
		if d.MaxAge >= 0 && plain.MaxAge != d.MaxAge || d.MaxAge < 0 && plain.MaxAge != 17*time.Second || plain.SMaxAge < 0 {
			t.Errorf("%q: max-age %v, and %v with another one after it", lines, d.MaxAge, plain.MaxAge)
		}
		if number != "" && strings.Trim(number, "0123456789") == "" {
			bare := header.ParseCacheControl([]string{"max-age=" + number + ", no-store"})
			if quoted := header.ParseCacheControl([]string{`max-age="` + number + `", no-store`}); quoted != bare || !bare.NoStore {
				t.Errorf("%s is %+v, but quoted %+v", number, bare, quoted)
			}
			want := time.Duration(math.MaxInt32) * time.Second
			if n, err := strconv.ParseInt(number, 10, 32); err == nil {
				want = time.Duration(n) * time.Second
			}
			if bare.MaxAge != want {
				t.Errorf("max-age=%s is %v, want %v", number, bare.MaxAge, want)
			}
		}
	})
}

// encodingWeight is a weight by the letter of RFC 9110, section 12.4.2.
var encodingWeight = regexp.MustCompile(`^[ \t]*[qQ][ \t]*=[ \t]*(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)[ \t]*$`)

// slowlyAcceptsGzip is acceptsGzip, slow and obvious. It is not ok where that
// depends on what is no weight, but a number that one may take for it.
func slowlyAcceptsGzip(lines []string) (accepts, ok bool) {
	weights, doubtful := make(map[string]float64), make(map[string]bool)
	for _, e := range strings.Split(strings.Join(lines, ","), ",") {
		coding, params, _ := strings.Cut(strings.Trim(e, " \t"), ";")
		coding = letters(strings.TrimRight(coding, " \t"), 'A', 'a')
		if coding == "x-gzip" {
			coding = "gzip"
		}
		weight, doubt := 1.0, false
		if params != "" {
			weight = 0
			if m := encodingWeight.FindStringSubmatch(params); m != nil {
				weight, _ = strconv.ParseFloat(m[1], 64)
			} else if _, value, ok := strings.Cut(params, "="); ok {
				q, err := strconv.ParseFloat(strings.Trim(value, " \t"), 64)
				doubt = err == nil && q >= 0 && q <= 1
			}
		}
		weights[coding], doubtful[coding] = weight, doubt
	}
	gzip, named := weights["gzip"]
	if !named {
		gzip = weights["*"]
	}
	return gzip > 0 && gzip >= weights["identity"], !doubtful["gzip"] && !doubtful["*"] && !doubtful["identity"]
}

func FuzzAcceptEncoding(f *testing.F) {
	for _, lines := range []string{
		"", "gzip", "GZip", "x-gzip", "gzip, deflate, br, zstd", "br", "*", "identity", "deflate",
		"gzip;q=0", "gzip;q=0.0", "gzip;q=0.001", "gzip; q=1.000", "gzip ; Q = 0.5", "gzip;q=1.001", "gzip;q=2", "gzip;q=-1",
		"gzip;q=", "gzip;", "gzip;x=1", "gzip;q=0.5;x=1", "gzip;q=NaN", "gzip;q=0x1p-2", "gzip;q=1e-1", "gzip;q=.5", "gzip;q=+1", "gzip;q=0.1234",
		"gzip;q=0.5, identity", "gzip;q=0.5, identity;q=0.5", "gzip;q=0.4,identity;q=0.5", "identity;q=0, gzip;q=0.1",
		"gzip;q=0.57, identity;q=0.569", "gzip;q=0.569, identity;q=0.57", "gzip;q=0.29, identity;q=0.289",
		"*;q=0", "*;q=0, gzip", "gzip;q=0, *", "*;q=0.5, identity;q=0.6", "*, identity;q=0",
		"gzip;q=0, gzip", "gzip, x-gzip;q=0", "gzip\ngzip;q=0", ",, ,gzip", " gzip ", "gzip,,", "gzip\x00", "gzipp", "x-x-gzip", "x-*", "x-identity", "gZip\r", "\vgzip", "gzip;q=1\r",
	} {
		f.Add(lines)
	}
	f.Fuzz(func(t *testing.T, text string) {
		lines := strings.Split(text, "\n")
		got := header.AcceptsGzip(lines)
		if want, ok := slowlyAcceptsGzip(lines); ok && got != want {
			t.Errorf("acceptsGzip(%q) = %v, want %v", lines, got, want)
		}
		with := func(lines ...string) bool { return header.AcceptsGzip(lines) }
		if with(letters(text, 'a', 'A')) != with(letters(text, 'A', 'a')) {
			t.Errorf("%q: the case of letters matters", text)
		}
		if with(strings.ReplaceAll(text, "\n", ",")) != got || with(strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == '\n' })...) != got {
			t.Errorf("%q: it matters how many lines that is", text)
		}
		if with(append(slices.Clone(lines), "br, zstd;q=0.5")...) != got {
			t.Errorf("%q: other codings matter", text)
		}
		if !with(append(slices.Clone(lines), "gzip")...) {
			t.Errorf("%q: gzip at the end is not taken", text)
		}
		if with(append(slices.Clone(lines), "gzip;q=0")...) {
			t.Errorf("%q: gzip;q=0 at the end is not heeded", text)
		}
		if got && !with(append(slices.Clone(lines), "identity;q=0")...) {
			t.Errorf("%q: taken, but not with identity;q=0", text)
		}
	})
}

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
		canonical := canonicalPath(a)
		if again := canonicalPath(canonical); again != canonical {
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
		if other := respell(means, how); canonicalPath(other) != canonical {
			t.Errorf("%q is %q, but %q is %q", a, canonical, other, canonicalPath(other))
		}
		if b, ok := asServed(t, b); ok {
			other, _ := segments(b)
			if same, want := canonicalPath(b) == canonical, slices.Equal(other, means); same != want {
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
	if path, err = cleanPath(u.EscapedPath()); err != nil {
		return "", false
	}
	if again, err := cleanPath(path); err != nil || again != path {
		t.Errorf("%q is %q, and that is %q, %v", target, path, again, err)
	}
	k := key{scheme: "http", host: "example.com", path: path, query: "q=1"}
	r := k.request(context.Background(), origin{}, "")
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
			*rules
			Query, IgnoreQuery []string
		}
		with := func(query, ignore []string) *queryRules {
			rules, err := newRules(query, ignore, nil, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			return &queryRules{rules, query, ignore}
		}
		ignores := func(rt *queryRules, name string) bool {
			return slices.ContainsFunc(rt.IgnoreQuery, func(s string) bool {
				prefix, ok := strings.CutSuffix(s, "*")
				return s == name || ok && strings.HasPrefix(name, prefix)
			})
		}
		if got := with([]string{}, nil).keepQuery(raw); got != "" {
			t.Errorf("of %q, %q is kept although nothing should be", raw, got)
		}
		for _, rt := range []*queryRules{
			with(nil, nil), with(strings.Fields(names), nil), with(nil, []string{"utm_*", "gclid", "fbclid"}),
			with(nil, append(strings.Fields(names), "not-a-name*")),
		} {
			values, _ := url.ParseQuery(raw)
			maps.DeleteFunc(values, func(name string, _ []string) bool {
				return rt.Query != nil && !slices.Contains(rt.Query, name) || ignores(rt, name)
			})
			kept := rt.keepQuery(raw)
			if want := values.Encode(); kept != want {
				t.Errorf("of %q with %q, %q is kept, want %q", raw, rt.Query, kept, want)
			}
			if cut, ok := rt.cutQuery(raw); ok && cut != kept {
				t.Errorf("%q with %q is cut to %q, not %q", raw, rt.Query, cut, kept)
			}
			if again := rt.keepQuery(kept); again != kept {
				t.Errorf("of %q with %q, %q is kept, and of that %q", raw, rt.Query, kept, again)
			}
			if got, err := url.ParseQuery(kept); err != nil || !maps.EqualFunc(got, values, slices.Equal) {
				t.Errorf("of %q with %q, %q is kept: %v, %v; want %v", raw, rt.Query, kept, got, err, values)
			}
			// The order of different names does not matter, nor does what is not kept.
			pairs := strings.Split(raw, "&")
			slices.SortStableFunc(pairs, func(a, b string) int { return strings.Compare(nameOf(b), nameOf(a)) })
			other := strings.Join(pairs, "&")
			if got := rt.keepQuery(other); got != kept {
				t.Errorf("of %q with %q, %q is kept, but of %q %q", raw, rt.Query, kept, other, got)
			}
			const foreign = "not-a-name-that-is-kept"
			if rt.Query != nil && !slices.Contains(rt.Query, foreign) || ignores(rt, foreign) {
				if got := rt.keepQuery(foreign + "=1&" + raw + "&" + foreign + "=2"); got != kept {
					t.Errorf("of %q with %q, %q is kept, but with a foreign parameter %q", raw, rt.Query, kept, got)
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

// A contextKey is one that middleware would use.
type contextKey struct{}

// viewOf returns everything that a handler can find out about a request.
func viewOf(r *http.Request) string {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %q %s %d %d\nhost %q\nfrom %q\n", r.Method, r.RequestURI, r.Proto, r.ProtoMajor, r.ProtoMinor, r.Host, r.RemoteAddr)
	fmt.Fprintf(&b, "url %#v %q\npattern %q %q\n", *r.URL, r.URL, r.Pattern, r.PathValue("id"))
	for _, name := range slices.Sorted(maps.Keys(r.Header)) {
		fmt.Fprintf(&b, "%q: %q\n", name, r.Header[name])
	}
	body, err := io.ReadAll(r.Body)
	fmt.Fprintf(&b, "body %q %v %d %q %v %v %v\n", body, err, r.ContentLength, r.TransferEncoding, r.Close, r.Trailer, r.GetBody == nil)
	fmt.Fprintf(&b, "form %v %v %v\n", r.Form, r.PostForm, r.MultipartForm)
	fmt.Fprintf(&b, "tls %+v\n", r.TLS)
	ctx := r.Context()
	_, deadline := ctx.Deadline()
	fmt.Fprintf(&b, "context %v %v %v %v\n", ctx.Value(contextKey{}), ctx.Value(http.LocalAddrContextKey), ctx.Err(), deadline)
	return b.String()
}

// A narrowCase is what a fuzzed visitor sends. The first part is in the key.
type narrowCase struct {
	path, host, q, page, accept, theme string
	https                              bool

	header, value, cookie, utm, remote string
	head, proxied                      bool
}

// request returns the request as a server would get it, or nil where the visitor
// sends nothing that a server would let through, or nothing for the cache.
func (c narrowCase) request() *http.Request {
	var b strings.Builder
	method := http.MethodGet
	if c.head {
		method = http.MethodHead
	}
	fmt.Fprintf(&b, "%s /%s?utm=%s&page=%s&q=%s&utm2=%s HTTP/1.1\r\nHost: %s\r\n", method, c.path, url.QueryEscape(c.utm),
		url.QueryEscape(c.page), url.QueryEscape(c.q), url.QueryEscape(c.utm), c.host)
	if c.accept != "" {
		fmt.Fprintf(&b, "Accept-Language: %s\r\n", c.accept)
	}
	fmt.Fprintf(&b, "Cookie: session=%s; theme=%s\r\n", c.cookie, c.theme)
	if c.header != "" {
		fmt.Fprintf(&b, "%s: %s\r\n", c.header, c.value)
	}
	b.WriteString("\r\n")
	if strings.ContainsAny(c.path, "?# ") {
		return nil // what comes after it is no longer what it is meant to be
	}
	in := bufio.NewReader(strings.NewReader(b.String()))
	r, err := http.ReadRequest(in)
	if err != nil || in.Buffered() > 0 || !asksForPage(r) || r.Header["Authorization"] != nil {
		return nil
	}
	// What belongs to the key may not come by another way.
	for name, n := range map[string]int{"Accept-Language": 1, "Cookie": 1, "X-Forwarded-Proto": 0} {
		if len(r.Header[name]) > n {
			return nil
		}
	}
	switch {
	case c.https && c.proxied:
		r.Header.Set("X-Forwarded-Proto", "https")
	case c.https:
		r.TLS = &tls.ConnectionState{Version: tls.VersionTLS13, HandshakeComplete: true, ServerName: c.remote}
	}
	r.RemoteAddr = c.remote
	ctx := context.WithValue(context.Background(), contextKey{}, c.cookie)
	return r.WithContext(context.WithValue(ctx, http.LocalAddrContextKey, c.remote))
}

// Two visitors give the handler the same view, byte for byte, if and only if the
// keys of their pages are the same; and they are wherever all that differs is
// not declared.
func FuzzNarrow(f *testing.F) {
	for _, c := range []narrowCase{
		{},
		{path: "blog/1", host: "example.com", q: "shoes", page: "2", accept: "de", theme: "dark"},
		{path: "blog/1", host: "Example.COM", accept: "de, en;q=0.9", theme: `"dark"`, https: true,
			header: "User-Agent", value: "evil", cookie: "secret", utm: "campaign", remote: "203.0.113.7:1", head: true, proxied: true},
		{path: "a%2fb", host: "example.com:8080", header: "X-Forwarded-Host", value: "evil.example"},
		{path: "a", host: "h", header: "X-Original-URL", value: "/admin", remote: "127.0.0.1:1"},
		{path: "a", host: "h", header: "Accept-Encoding", value: "gzip", cookie: "a; theme=light"},
		{path: "a", host: "h", header: "If-None-Match", value: `"x"`, theme: "a,b"},
		{path: "a", host: "h", header: "Range", value: "bytes=0-1", theme: "\x80"},
		{path: "a", host: "h", header: "Connection", value: "close"},
		{path: "a", host: "h", header: "Transfer-Encoding", value: "chunked"},
		{path: "a", host: "h", header: "Trailer", value: "X"},
		{path: "a", host: "h", header: "Te", value: "trailers"},
		{path: "*", host: "h", header: "Content-Length", value: "0"},
		{path: "a?q=2#x", host: "h", q: "&", page: "%"},
	} {
		f.Add(c.path, c.host, c.q, c.page, c.accept, c.theme, c.https, c.header, c.value, c.cookie, c.utm, c.remote, c.head, c.proxied, "other")
	}
	opts := Options{Routes: map[string]Route{"/": {
		Query: []string{"q", "page"}, Vary: []string{"Accept-Language"}, VaryCookies: []string{"theme"},
	}}}
	site := Wrap(http.NotFoundHandler(), opts)
	// look returns the page's key and what the handler is to see of it: by
	// the shortest way, since there is no use in fuzzing the scheduler.
	look := func(r *http.Request) (k key, view string) {
		path, err := cleanPath(r.URL.EscapedPath())
		if err != nil {
			return k, err.Error()
		}
		v := visit{site: site, r: r, route: site.routes["/"]}
		v.key = site.key(r, path, v.route)
		req := v.request()
		ctx, cancel := context.WithTimeout(context.Background(), v.route.Timeout)
		defer cancel()
		return v.key, viewOf(req.build(ctx, site.origin))
	}
	f.Fuzz(func(t *testing.T, path, host, q, page, accept, theme string, https bool, header, value, cookie, utm, remote string, head, proxied bool, other string) {
		c := narrowCase{path, host, q, page, accept, theme, https, header, value, cookie, utm, remote, head, proxied}
		r := c.request()
		if r == nil {
			return
		}
		k, view := look(r)
		if k == (key{}) {
			return // not for the cache
		}
		var seen string
		Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { seen += viewOf(r) }), opts).ServeHTTP(discard{}, r)
		if seen != view {
			t.Errorf("%+v: the handler sees\n%s\nwant\n%s", c, seen, view)
		}
		for _, secret := range []string{cookie, value, utm, remote} {
			// Long enough not to be there by chance.
			if len(secret) > 20 && strings.Contains(view, secret) && !strings.Contains(fmt.Sprint(k), secret) {
				t.Errorf("%+v: the handler sees %q:\n%s", c, secret, view)
			}
		}

		// Not keyed: the same key, the same view.
		bare := narrowCase{path: disguise(r.URL.EscapedPath(), other)[1:], host: letters(host, 'A', 'a'), q: q, page: page, accept: accept, theme: theme, https: https}
		if plain := bare.request(); plain != nil && onlyTheme(r) == onlyTheme(plain) {
			if plainKey, plainView := look(plain); plainKey != k || plainView != view {
				t.Errorf("%+v: what is not declared makes a difference:\n%#v\n%s\nwithout it:\n%#v\n%s", c, k, view, plainKey, plainView)
			}
		}

		// Keyed: the same view only with the same key.
		for _, change := range []func(*narrowCase){
			func(c *narrowCase) { c.path = other },
			func(c *narrowCase) { c.host = other },
			func(c *narrowCase) { c.q = other },
			func(c *narrowCase) { c.page = other },
			func(c *narrowCase) { c.q, c.page = c.page, c.q },
			func(c *narrowCase) { c.accept = other },
			func(c *narrowCase) { c.theme = other },
			func(c *narrowCase) { c.accept, c.theme = c.theme, c.accept },
			func(c *narrowCase) { c.https = !c.https },
		} {
			changed := c
			change(&changed)
			if r := changed.request(); r != nil {
				otherKey, otherView := look(r)
				if otherKey != (key{}) && (otherKey == k) != (otherView == view) {
					t.Errorf("%+v and %+v: one key: %v, one view: %v\n%#v\n%s\n%#v\n%s", c, changed, otherKey == k, otherView == view, k, view, otherKey, otherView)
				}
			}
		}
	})
}

// What is in the key is what the handler gets.
func FuzzHeader(f *testing.F) {
	f.Add("de, en", "dark", "User-Agent", "evil")
	f.Add("", "\x80", "", "a;b")
	f.Fuzz(func(t *testing.T, accept, theme, name, value string) {
		values := []string{accept, theme, value}
		encoded := appendHeader(appendHeader(nil, "Accept-Language", values), "Cookie", values[:1])
		want := http.Header{"Accept-Language": values, "Cookie": values[:1]}
		if got := parseHeader(string(encoded)); !maps.EqualFunc(got, want, slices.Equal) {
			t.Errorf("%q is encoded as %q, and that is %q", want, encoded, got)
		}
		named := appendHeader(appendHeader(nil, "A"+name, []string{value, theme}), "B"+name, nil)
		want = http.Header{"A" + name: {value, theme}}
		if got := parseHeader(string(named)); !maps.EqualFunc(got, want, slices.Equal) {
			t.Errorf("%q is encoded as %q, and that is %q", want, named, got)
		}
	})
}

// onlyTheme returns the cookies that the route declares, since a fuzzed session
// cookie may bring some of its own.
func onlyTheme(r *http.Request) (s string) {
	for _, c := range r.CookiesNamed("theme") {
		s += fmt.Sprintf("%q ", c.Value)
	}
	return s
}

// discard is a ResponseWriter for nobody.
type discard struct{}

func (discard) Header() http.Header         { return http.Header{} }
func (discard) Write(b []byte) (int, error) { return len(b), nil }
func (discard) WriteHeader(int)             {}
