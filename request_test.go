package isr_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/isr-go/isr"
)

// seen is all that a handler can know of a request.
type seen struct {
	Method, URL, Path, RawPath, Query, RequestURI string
	Host, Proto, RemoteAddr, Pattern, PathValue   string
	Header                                        http.Header
	TLS                                           bool
	Body                                          string
	ContentLength                                 int64
	ServerTold                                    bool
}

type contextKey struct{}

func look(t *testing.T, r *http.Request) seen {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Error(err)
	}
	if r.Body != http.NoBody {
		t.Error("the body is not http.NoBody")
	}
	if v := r.Context().Value(contextKey{}); v != nil {
		t.Errorf("the context holds the visitor's %v", v)
	}
	if v := r.Context().Value(http.LocalAddrContextKey); v != nil {
		t.Errorf("the context holds the connection's %v", v)
	}
	if r.Form != nil || r.PostForm != nil || r.MultipartForm != nil || r.Trailer != nil || r.Close || r.TransferEncoding != nil {
		t.Errorf("more than a page request: %+v", r)
	}
	return seen{
		r.Method, r.URL.String(), r.URL.Path, r.URL.RawPath, r.URL.RawQuery, r.RequestURI,
		r.Host, r.Proto, r.RemoteAddr, r.Pattern, r.PathValue("id"),
		r.Header.Clone(), r.TLS != nil, string(b), r.ContentLength,
		r.Context().Value(http.ServerContextKey) != nil,
	}
}

// What the handler sees is made of the page's key, field by field.
func TestPageRequest(t *testing.T) {
	type visitor struct {
		target, host string
		tls          bool
		header       http.Header
	}
	route := isr.Route{
		Query:       []string{"q", "page"},
		Vary:        []string{"accept-language", "HX-Request"},
		VaryCookies: []string{"theme", "currency"},
	}
	// from returns the page request of example.com, with changes.
	from := func(uri string, change func(*seen)) seen {
		s := seen{
			Method: "GET", URL: uri, Path: uri, RequestURI: uri, Host: "example.com", Proto: "HTTP/1.1", RemoteAddr: "0.0.0.0:0",
			Header: http.Header{"X-Forwarded-Proto": {"http"}}, ServerTold: true,
		}
		if change != nil {
			change(&s)
		}
		return s
	}
	for name, test := range map[string]struct {
		opts    isr.Options
		visitor visitor
		want    seen
	}{
		"nothing else": {
			isr.Options{Default: route},
			visitor{"/a", "", false, http.Header{
				"User-Agent": {"curl"}, "Cookie": {"session=1"}, "Accept": {"text/html"}, "X-Forwarded-For": {"1.2.3.4"},
				"Accept-Encoding": {"gzip"}, "If-None-Match": {`"x"`}, "Range": {"bytes=0-1"}, "X-Forwarded-Host": {"evil.example"},
				"Referer": {"http://evil.example"}, "X-Original-Url": {"/admin"}, "Forwarded": {"host=evil.example"},
			}},
			from("/a", nil),
		},
		"the host in lower case (RFC 3986, section 6.2.2.1)": {
			isr.Options{}, visitor{target: "/", host: "EXAMPLE.com:8080"},
			from("/", func(s *seen) { s.Host = "example.com:8080" }),
		},
		"TLS": {
			isr.Options{}, visitor{target: "/", tls: true},
			from("/", func(s *seen) { s.TLS = true; s.Header.Set("X-Forwarded-Proto", "https") }),
		},
		"X-Forwarded-Proto": {
			isr.Options{}, visitor{target: "/", header: http.Header{"X-Forwarded-Proto": {"https"}}},
			from("/", func(s *seen) { s.TLS = true; s.Header.Set("X-Forwarded-Proto", "https") }),
		},
		"X-Forwarded-Proto of two proxies": {
			isr.Options{}, visitor{target: "/", header: http.Header{"X-Forwarded-Proto": {"HTTPS, http"}}},
			from("/", func(s *seen) { s.TLS = true; s.Header.Set("X-Forwarded-Proto", "https") }),
		},
		"X-Forwarded-Proto with nonsense": {
			isr.Options{}, visitor{target: "/", header: http.Header{"X-Forwarded-Proto": {"<script>"}}},
			from("/", nil),
		},
		"one origin": {
			isr.Options{Origin: "https://Example.com/"}, visitor{target: "/", host: "evil.example"},
			from("/", func(s *seen) { s.TLS = true; s.Header.Set("X-Forwarded-Proto", "https") }),
		},
		"the path without needless escapes (RFC 3986, section 6.2.2.2)": {
			isr.Options{}, visitor{target: "/a%2fb/c:%3a/d%c3%a9/%7e%41/?"},
			from("/a%2Fb/c:%3A/d%C3%A9/~A/", func(s *seen) { s.Path, s.RawPath = "/a/b/c::/dé/~A/", s.Path }),
		},
		"the host without the scheme's port (RFC 3986, section 6.2.3)": {
			isr.Options{}, visitor{target: "/", host: "EXAMPLE.com.:80"},
			from("/", nil),
		},
		"another scheme's port": {
			isr.Options{}, visitor{target: "/", host: "[::1]:443"},
			from("/", func(s *seen) { s.Host = "[::1]:443" }),
		},
		"all of the query, in order": {
			isr.Options{}, visitor{target: "/?b=2&a=%7e&b=1&c&=x&%zz=1&d;e"},
			from("/", func(s *seen) {
				s.Query = "=x&a=~&b=2&b=1&c="
				s.URL, s.RequestURI = "/?"+s.Query, "/?"+s.Query
			}),
		},
		"the query's declared part": {
			isr.Options{Default: route}, visitor{target: "/?utm_source=x&page=2&q=%C3%A9+x&Q=1"},
			from("/", func(s *seen) {
				s.Query = "page=2&q=%C3%A9+x"
				s.URL, s.RequestURI = "/?"+s.Query, "/?"+s.Query
			}),
		},
		"the query without tracking parameters": {
			isr.Options{}, visitor{target: "/?fbclid=%zz&page=2&utm_source=a+b&q=x&&gclid"},
			from("/", func(s *seen) {
				s.Query = "page=2&q=x"
				s.URL, s.RequestURI = "/?"+s.Query, "/?"+s.Query
			}),
		},
		"the query with tracking parameters": {
			isr.Options{Default: isr.Route{IgnoreQuery: []string{}}}, visitor{target: "/?page=2&utm_source=x"},
			from("/", func(s *seen) {
				s.Query = "page=2&utm_source=x"
				s.URL, s.RequestURI = "/?"+s.Query, "/?"+s.Query
			}),
		},
		"the query without what is ignored": {
			isr.Options{Default: isr.Route{Query: []string{"q", "page", "session", "x*"}, IgnoreQuery: []string{"session*", "page", "x*"}}},
			visitor{target: "/?page=2&q=1&session=3&sessions=4&utm_source=5&x*=6"},
			from("/", func(s *seen) {
				s.Query = "q=1"
				s.URL, s.RequestURI = "/?"+s.Query, "/?"+s.Query
			}),
		},
		"no query": {
			isr.Options{Default: isr.Route{Query: []string{}}}, visitor{target: "/?a=1"},
			from("/", nil),
		},
		"declared headers and cookies": {
			isr.Options{Default: route},
			visitor{"/", "", false, http.Header{
				"Accept-Language": {"de", "en"}, "Hx-Request": {"true"}, "Accept": {"text/html"},
				"Cookie": {`a=1; theme="dark mode"; session=1`, "currency=EUR; theme=light"},
			}},
			from("/", func(s *seen) {
				s.Header["Accept-Language"] = []string{"de", "en"}
				s.Header["Hx-Request"] = []string{"true"}
				s.Header["Cookie"] = []string{`currency=EUR; theme="dark mode"; theme=light`}
			}),
		},
		"normalized": {
			isr.Options{Default: isr.Route{Vary: route.Vary, VaryCookies: route.VaryCookies, Normalize: func(h http.Header) {
				for name := range h {
					if !slices.Contains([]string{"Accept-Language", "Hx-Request", "Cookie"}, name) {
						t.Errorf("Normalize sees %s", name)
					}
				}
				h["Accept-Language"][0] = h.Get("Accept-Language")[:2]
				h.Del("Hx-Request")
				h.Set("Cookie", "theme=dark")
				h.Set("X-Secret", "not declared")
			}}},
			visitor{"/", "", false, http.Header{"Accept-Language": {"de-AT,de;q=0.9"}, "Hx-Request": {"true"}, "Cookie": {"theme=dark; a=b"}}},
			from("/", func(s *seen) {
				s.Header["Accept-Language"] = []string{"de"}
				s.Header["Cookie"] = []string{"theme=dark"}
			}),
		},
		"Authorization, declared": {
			isr.Options{Default: isr.Route{Vary: []string{"Authorization"}}},
			visitor{target: "/", header: http.Header{"Authorization": {"Bearer x"}}},
			from("/", func(s *seen) { s.Header["Authorization"] = []string{"Bearer x"} }),
		},
	} {
		for _, method := range []string{"GET", "HEAD"} {
			t.Run(method+" "+name, func(t *testing.T) {
				var got []seen
				c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) { got = append(got, look(t, r)) }}
				site := isr.Wrap(c, test.opts)
				r := httptest.NewRequest(method, test.visitor.target, nil)
				if test.visitor.host != "" {
					r.Host = test.visitor.host
				}
				if test.visitor.tls {
					r.TLS = &tls.ConnectionState{ServerName: "secret"}
				}
				for name, values := range test.visitor.header {
					r.Header[name] = values
				}
				ctx := context.WithValue(r.Context(), contextKey{}, "session")
				r = r.WithContext(context.WithValue(ctx, http.LocalAddrContextKey, "addr"))
				before := r.Header.Clone()
				site.ServeHTTP(httptest.NewRecorder(), r)
				site.ServeHTTP(httptest.NewRecorder(), r)
				if diff := cmp.Diff([]seen{test.want}, got, cmpopts.EquateEmpty()); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				if diff := cmp.Diff(before, r.Header); diff != "" {
					t.Errorf("the visitor's headers were changed (-want +got):\n%s", diff)
				}
			})
		}
	}
}

// Two visitors who differ in what is in the key get different pages.
func TestKey(t *testing.T) {
	route := isr.Route{Query: []string{"q"}, Vary: []string{"Accept", "Accept-Language"}, VaryCookies: []string{"theme"}}
	visitors := []*http.Request{
		httptest.NewRequest("GET", "/a/b", nil),
		httptest.NewRequest("GET", "/a%2fb", nil),
		httptest.NewRequest("GET", "/a:b", nil),
		httptest.NewRequest("GET", "/a%3Ab", nil),
		httptest.NewRequest("GET", "/a/b/", nil),
		httptest.NewRequest("GET", "/A/b", nil),
		httptest.NewRequest("GET", "/a/b?q=1", nil),
		httptest.NewRequest("GET", "/a/b?q=", nil),
		httptest.NewRequest("GET", "/a/b?q=1&q=2", nil),
		httptest.NewRequest("GET", "/a/b?q=2&q=1", nil),
		httptest.NewRequest("GET", "/a/b?q=1%26q%3D2", nil),
		httptest.NewRequest("GET", "/a/b%3Fq=1", nil),
	}
	add := func(change func(r *http.Request)) {
		r := httptest.NewRequest("GET", "/a/b", nil)
		change(r)
		visitors = append(visitors, r)
	}
	add(func(r *http.Request) { r.Host = "example.org" })
	add(func(r *http.Request) { r.TLS = new(tls.ConnectionState) })
	for _, h := range []http.Header{
		{"Accept": {"x"}},
		{"Accept": {"x", "y"}},
		{"Accept": {"x, y"}},
		{"Accept": {""}},
		{"Accept-Language": {"x"}},
		{"Accept": {"x"}, "Accept-Language": {"y"}},
		{"Accept": {"x\x06Accept"}},
		{"Cookie": {"theme=x"}},
		{"Cookie": {"theme=x; theme=y"}},
		{"Cookie": {"theme="}},
	} {
		add(func(r *http.Request) { r.Header = h })
	}
	c := new(countingHandler)
	site := isr.Wrap(c, isr.Options{Default: route})
	for range 2 {
		for i, r := range visitors {
			w := httptest.NewRecorder()
			site.ServeHTTP(w, r)
			if got, want := w.Body.String(), fmt.Sprintf("page %d", i+1); got != want {
				t.Errorf("%s %v: got %q, want %q", r.RequestURI, r.Header, got, want)
			}
		}
	}
}

// Another spelling of a URL (RFC 3986, section 6.2) names the same page: for visitors,
// for the handler, and for a purge.
func TestSpellingsAreOnePage(t *testing.T) {
	for _, spellings := range [][]string{
		{"/caf%C3%A9/~a-b_c.d", "/caf%c3%a9/~a-b_c.d", "/%63af%C3%a9/%7ea%2Db%5fc%2e%64"},
		{"/a%2Fb", "/a%2fb", "/%61%2F%62"},
		{"/...", "/%2e..", "/%2E%2e%2E"},
		{"http://example.com/", "http://EXAMPLE.com:80/", "http://example.com./", "http://example.com.:80/", "http://example.com:/"},
		{"https://example.com:80/", "https://Example.com.:80/"},
		{"http://[::1]/", "http://[::1]:80/"},
		{"http://example.com/a%2Fb", "HTTP://Example.com/a%2fb"},
	} {
		var seen []string
		c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			seen = append(seen, r.Host+r.RequestURI+" "+r.URL.EscapedPath())
			fmt.Fprintf(w, "page %d", n)
		}}
		site := isr.Wrap(c, isr.Options{})
		for i, named := range spellings {
			if err := site.Purge(t.Context(), named); err != nil {
				t.Fatal(err)
			}
			for _, asked := range spellings {
				if got, want := body(site, asked), fmt.Sprintf("page %d", i+1); got != want {
					t.Errorf("%s after Purge of %s: got %q, want %q", asked, named, got, want)
				}
			}
		}
		if slices.Sort(seen); len(slices.Compact(seen)) != 1 {
			t.Errorf("%q: the handler sees %q", spellings, seen)
		}
	}
}

// A handler may take an escaped slash for one, as http.FileServer does. A page under
// such a path outlives no purge, expiry or edit of the path that the handler then has,
// whichever of the two is named.
func TestEscapedSlashesOutliveNoPurge(t *testing.T) {
	long := strings.Repeat("/long", 100)
	for _, spellings := range [][]string{
		{"/a/b.txt", "/a%2Fb.txt", "/a%2fb%2Etxt"},
		{"/a.txt", "/%2Fa.txt", "/x%2F..%2Fa.txt", "/..%2f..%2fa.txt", "/x/..%2Fa.txt", "/.%2Fa.txt"},
		{"/a/", "/a/%2F", "/x%2F%2E%2e%2fa/"},
		{"/a/b/c/", "/a%2Fb/c/", "/a%2Fb%2Fc%2F", "/a/b/c%2F"},
		{"/a/b?q=1", "/a%2Fb?q=1"},
		{"/1/2/3/4/5/6/7/8/9/10/11", "/1%2F2/3/4/5/6/7/8/9%2F10/11"},
		{long, "/" + strings.ReplaceAll(long[1:], "/", "%2F")},
	} {
		named, _, _ := strings.Cut(spellings[0], "?")
		names := append(slices.Clone(spellings), named, "http://example.com"+named, "/*", named[:strings.LastIndexByte(named, '/')+1]+"*")
		var text atomic.Value
		mux := http.NewServeMux()
		mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, path.Clean(r.URL.Path), " ", text.Load()) })
		mux.HandleFunc("POST /", func(w http.ResponseWriter, r *http.Request) {})
		site := isr.Wrap(mux, isr.Options{})
		n := 0
		check := func(how string, call func() error) {
			t.Helper()
			text.Store(fmt.Sprint("text ", n))
			for _, s := range spellings {
				get(site, s)
			}
			n++
			text.Store(fmt.Sprint("text ", n))
			if err := call(); err != nil {
				t.Fatalf("%s: %v", how, err)
			}
			for _, s := range spellings {
				if got, want := body(site, s), fmt.Sprint(path.Clean(named), " text ", n); got != want {
					t.Errorf("%s: %s is %q, want %q", how, s, got, want)
				}
			}
		}
		for _, name := range names {
			check("Purge of "+name, func() error { return site.Purge(t.Context(), name) })
			check("Expire of "+name, func() error { return site.Expire(t.Context(), name) })
		}
		for _, name := range spellings {
			check("POST to "+name, func() error { do(site, "POST", name); return nil })
		}
	}
}

// A POST to a path with escaped slashes expires the page at the path that the handler has.
// Such spellings in a Location expire a page no more often than its own path does.
func TestEscapedSlashesOfEdits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			if r.Method == "POST" {
				w.Header().Set("Location", r.URL.Query().Get("to"))
			}
			fmt.Fprint(w, n)
		}}
		site := isr.Wrap(c, isr.Options{})
		first := body(site, "/a/b/c")
		if do(site, "POST", "/a%2Fb/c"); body(site, "/a/b/c") == first {
			t.Error("a POST to /a%2Fb/c does not expire /a/b/c")
		}
		expired := 0
		for range 10 {
			for _, to := range []string{"/a/b/c", "/a%252Fb/c", "/a/b%252Fc", "/a%252Fb%252Fc"} {
				get(site, "/a/b/c")
				do(site, "POST", "/login?to="+to)
				if strings.HasPrefix(get(site, "/a/b/c").Header.Get("Cache-Status"), "isr; fwd") {
					expired++
				}
				synctest.Wait()
			}
		}
		if expired != 10 {
			t.Errorf("a Location expires the page %d times in a minute, want 10", expired)
		}
	})
}

// A path that handlers redirect to a clean one has no page of its own, which could
// outlive the page at the clean path.
func TestUncleanPathsPass(t *testing.T) {
	for _, path := range []string{
		"//", "//a", "/a//b", "/a//", "/./a", "/a/.", "/a/..", "/x/../a", "/%2e/a", "/x/%2E./a",
	} {
		c := new(countingHandler)
		site := isr.Wrap(c, isr.Options{Origin: "http://example.com", Routes: map[string]isr.Route{
			"/{path...}": {},
		}})
		get(site, "/a")
		for i := range 2 {
			res := get(site, path)
			if got, want := read(res), fmt.Sprintf("page %d", 2+i); got != want || res.Header.Get("Cache-Status") != "isr; fwd=bypass; detail=path" {
				t.Errorf("%s: got %q, %q; want %q that passed", path, got, res.Header, want)
			}
		}
		do(site, "POST", path)
		if got := body(site, "/a"); got != "page 1" {
			t.Errorf("a POST of %s expires /a", path)
		}
		for name, err := range map[string]error{
			"Revalidate": site.Revalidate(t.Context(), path), "Purge": site.Purge(t.Context(), "http://example.com"+path),
		} {
			if err == nil || !strings.Contains(err.Error(), "segment") {
				t.Errorf("%s of %s: %v", name, path, err)
			}
		}
		if n := site.Stats().Pages; n != 1 {
			t.Errorf("%s: %d pages, want that of /a alone", path, n)
		}

		known := isr.Wrap(c, isr.Options{Default: isr.Route{PrerenderedOnly: true}})
		if got := get(known, path).StatusCode; got != http.StatusNotFound || c.calls.Load() != 4 {
			t.Errorf("%s of a route that is prerendered only: %d, and the handler was called", path, got)
		}
	}
}

// A handler that changes its request changes no other visitor's.
func TestRequestsAreNotShared(t *testing.T) {
	c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
		if got := r.Header["Accept"]; !slices.Equal(got, []string{"x", "y"}) {
			t.Errorf("Accept %q", got)
		}
		r.Header["Accept"][0] = "z"
		r.URL.Path = "/changed"
	}}
	site := isr.Wrap(c, isr.Options{Default: isr.Route{Vary: []string{"Accept"}}})
	get(site, "/", "Accept", "x", "Accept", "y")
	for range 2 {
		if err := site.Revalidate(t.Context(), "/"); err != nil {
			t.Fatal(err)
		}
	}
	for p := range site.Pages() {
		if diff := cmp.Diff(http.Header{"Accept": {"x", "y"}}, p.Varied); diff != "" || p.Path != "/" {
			t.Errorf("path %q, varied (-want +got):\n%s", p.Path, diff)
		}
	}
}
