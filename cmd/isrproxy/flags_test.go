package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/internal/isrtest"
)

// What is wrong with a flag is said in a sentence, with what to write.
func TestBadFlags(t *testing.T) {
	const ok = "-origin http://localhost:9000 "
	for _, test := range []struct{ args, want string }{
		{"", `-origin "": is missing; want something like http://localhost:9000`},
		{"-origin localhost:9000", `-origin "localhost:9000": has no http:// or https:// and host; want something like http://localhost:9000`},
		{"-origin ftp://localhost", `-origin "ftp://localhost": has no http:// or https:// and host; want something like http://localhost:9000`},
		{"-origin http://:9000", `-origin "http://:9000": has no http:// or https:// and host; want something like http://localhost:9000`},
		{"-origin http://localhost:port", `-origin "http://localhost:port": invalid port ":port" after host; want something like http://localhost:9000`},
		{"-origin http://me@localhost", `-origin "http://me@localhost": has more than a scheme, a host and a path; want something like http://localhost:9000`},
		{ok + "-public https://example.com/blog", `-public "https://example.com/blog": want no path`},
		{ok + "-sitemap https://example.com/sitemap.xml", `-sitemap "https://example.com/sitemap.xml": want a path, such as /sitemap.xml`},

		{"-orign http://localhost:9000", "there is no -orign: did you mean -origin? isrproxy -help lists all flags"},
		{ok + "-sess x", "there is no -sess: did you mean -session? isrproxy -help lists all flags"},
		{ok + "-cache-everything", "there is no -cache-everything: isrproxy -help lists all flags"},
		{"http://localhost:9000", `"http://localhost:9000" is no flag: all that isrproxy takes begins with a dash, such as -origin http://localhost:9000`},
		{ok + "-preset drupal", `-preset "drupal": there is none of that name; there are dokuwiki, mediawiki, nextjs, wordpress`},

		{ok + "-session *", `invalid value "*" for flag -session: "*" is every cookie there is, also those of a visitor who is nobody in particular: name those that matter, such as 'wordpress_*' or session`},
		{ok + "-session wordpress_*,**", `invalid value "wordpress_*,**" for flag -session: "**" is every cookie`},
		{ok + "-session session=1", `invalid value "session=1" for flag -session: "session=1" is no name of a cookie: want names alone`},
		{ok + "-drop-cookie *", `"*" is every cookie there is`},

		{ok + "-ttl 0", `invalid value "0" for flag -ttl: want a lifetime: a time such as 10s or 1h30m, forever (until it is purged), origin (only what the origin's Cache-Control says) or bypass (never cached)`},
		{ok + "-ttl 10", `want a lifetime: a time such as 10s`},
		{ok + "-ttl -1s", `want a lifetime: a time such as 10s`},
		{ok + "-ttl bypass", `-ttl bypass would cache nothing at all`},
		{ok + "-route /blog/{id}", `invalid value "/blog/{id}" for flag -route: "/blog/{id}" has no lifetime: write '/blog/{id}=10s', or forever, origin or bypass in place of 10s`},
		{ok + "-route /blog/=", `"/blog/=" has no lifetime: write '/blog/=10s'`},
		{ok + "-route =10s", `has no lifetime`},
		{ok + "-route /blog/=often", `"/blog/=often": want a lifetime`},
		{ok + "-max-ttl -1s", `want none that is negative`},
		{ok + "-timeout 0s", `-timeout 0s: want more than zero, such as 30s`},
		{ok + "-memory lots", `want a number of bytes, such as 256MB or 1GB`},
		{ok + "-memory 0", `want a number of bytes, such as 256MB or 1GB`},
		{ok + "-encoders brotli", `"brotli": want br, zstd or gzip, with commas between them`},
		{ok + "-encoders br,zstd,br", `br is there twice`},
		{ok + "-trust 0.0.0.0/0", `"0.0.0.0/0": want networks such as 10.0.0.0/8, or addresses, but not all there are: the origin believes what they say`},
		{ok + "-trust cloudflare", `"cloudflare": want networks such as 10.0.0.0/8`},
		{ok + "-purge everybody", `-purge "everybody": want loopback or secret`},
		{ok + "-inspect :8081", `-inspect ":8081": all who reach it could look at all pages and purge them; want localhost:8081, or a -secret, which is then the password`},
		{ok + "-metrics localhost:8080", `visitors would reach what is not for them`},
		{ok + "-log loud", `invalid value "loud" for flag -log`},
	} {
		_, err := parseFlags(strings.Fields(test.args), nil, io.Discard)
		if !errors.As(err, new(flagError)) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q: got error\n%v, want\n%s", test.args, err, test.want)
		}
	}
}

// What only a site knows to be wrong is no panic either.
func TestBadRoutes(t *testing.T) {
	for _, test := range []struct{ args, want string }{
		{"-route /posts/:id=10s", `-route "/posts/:id": :id is no wildcard of a ServeMux, but would be matched as it stands: write "/posts/{id}"`},
		{"-route blog=10s", `-route "blog": `},
		{"-route /{a}/x=10s -route /x/{b}=10s", `-route "/{a}/x": pattern "/{a}/x" conflicts with pattern "/x/{b}"`},
		{"-vary no:name", `-vary: "no:name"`},
		{"-ignore-vary *", `-ignore-vary: "*"`},
	} {
		_, err := newProxy(newConfig(t, append(strings.Fields(test.args), "-origin", "http://localhost:9000")...))
		if !errors.As(err, new(flagError)) || !strings.HasPrefix(err.Error(), test.want) || strings.Contains(err.Error(), ".go:") {
			t.Errorf("%q: %v, want %s…", test.args, err, test.want)
		}
	}
}

func TestBadStores(t *testing.T) {
	public := newConfig(t, "-origin", "http://localhost:9000").public
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"mysql://localhost":             "-store mysql://…: want a directory such as /var/cache/isrproxy, redis://host:6379 or postgres://host/database",
		"redis://user:secret@host:6/no": "-store redis://…: ",
		"postgres://u:secret@host:no/a": "-store postgres://…: ",
		file:                            "-store \"" + file + "\": ",
	} {
		s, err := openStore(name, public)
		s.Close()
		if err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v, want %s…", name, err, want)
		}
	}
}

// A flag may stand in the environment. The command line goes before it, and it before the preset.
func TestEnvironment(t *testing.T) {
	environ := []string{"PATH=/bin", "ISRPROXY_ORIGIN=http://localhost:9000", "ISRPROXY_TTL=1h", "ISRPROXY_PRESET=dokuwiki",
		"ISRPROXY_SECRET=s", "ISRPROXY_ROUTE=/a/=10s; /b/=bypass", "ISRPROXY_SESSION=mine"}
	c, err := parseFlags([]string{"-secret", "t", "-session", "yours"}, environ, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if c.origin.Host != "localhost:9000" || c.ttl.ttl != time.Hour || c.secret != "t" || !c.phpSession {
		t.Errorf("%+v", c)
	}
	if a, b := c.routes["/a/"], c.routes["/b/"]; a.ttl != 10*time.Second || !b.bypass || !c.routes["/lib/exe/"].bypass {
		t.Errorf("routes %v", c.routes)
	}
	if got := c.session.String(); got != "DW*,yours" {
		t.Errorf("session %s: what is given adds to the preset", got)
	}
	_, err = parseFlags(nil, []string{"ISRPROXY_ORIGN=x"}, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "ISRPROXY_ORIGN in the environment") || !strings.Contains(err.Error(), "-origin?") {
		t.Errorf("a slip in the environment: %v", err)
	}
}

// -help lists every flag, and each has an explanation.
func TestHelp(t *testing.T) {
	var out strings.Builder
	if _, err := parseFlags([]string{"-help"}, nil, &out); err != flag.ErrHelp {
		t.Errorf("%v", err)
	}
	for name := range strings.FieldsSeq("origin addr public ttl route query ignore-query bypass-query vary ignore-vary session drop-cookie max-ttl " +
		"stale must-revalidate php-session timeout memory encoders secret purge trust store sitemap inspect metrics log preset") {
		if !strings.Contains(out.String(), "  -"+name) {
			t.Errorf("no word of -%s", name)
		}
	}
}

// Pages are kept in the encodings that are named, and in gzip.
func TestEncoders(t *testing.T) {
	origin := newOrigin(t)
	for _, test := range []struct{ flag, accept, want string }{
		{"", "br, zstd, gzip", "gzip"},
		{"gzip", "br, zstd, gzip", "gzip"},
		{"br", "br, zstd, gzip", "br"},
		{"zstd,br", "br, zstd, gzip", "zstd"},
		{"zstd,br", "br", "br"},
		{"zstd,br", "gzip", "gzip"},
	} {
		t.Run(test.flag+" for "+test.accept, func(t *testing.T) {
			p, err := newProxy(newConfig(t, "-origin", origin.URL, "-encoders", test.flag))
			if err != nil {
				t.Fatal(err)
			}
			isrtest.Eventually(t, "encoding", func() error {
				got := isrtest.Do(p.handler, "GET", "/", "Accept-Encoding", test.accept).Header().Get("Content-Encoding")
				if got != test.want {
					return fmt.Errorf("got %q, want %q", got, test.want)
				}
				return nil
			})
		})
	}
}

// Every preset makes a site.
func TestPresets(t *testing.T) {
	for name := range presets {
		if _, err := newProxy(newConfig(t, "-origin", "http://localhost:9000", "-preset", name)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBypasses(t *testing.T) {
	c := newConfig(t, "-origin", "http://localhost:9000", "-session", "wordpress_*,sid,*_session", "-bypass-query", "do")
	for _, test := range []struct {
		target, cookie string
		want           bool
	}{
		{"/", "", false},
		{"/", "theme=dark; other=wordpress_1", false},
		{"/", "theme=dark;  wordpress_logged_in=1", true},
		{"/", "sid=1", true},
		{"/", "sid2=1", false},
		{"/", "wiki_session=1", true},
		{"/", "wiki_sessions=1", false},
		{"/?page=do", "", false},
		{"/?page=1&do=edit", "", true},
		{"/?d%6f=edit", "", true},
		{"/?do[]=edit", "", true},
		{"/?%zz", "", false},
	} {
		r := httptest.NewRequest("GET", test.target, nil)
		if test.cookie != "" {
			r.Header.Set("Cookie", test.cookie)
		}
		if got := c.bypasses(r); got != test.want {
			t.Errorf("%s with %q: %v", test.target, test.cookie, got)
		}
	}
}

func TestGlobs(t *testing.T) {
	for _, test := range []struct {
		pattern, name string
		want          bool
	}{
		{"a", "a", true}, {"a", "ab", false}, {"a*", "a", true}, {"a*", "abc", true}, {"*c", "abc", true}, {"*c", "abcd", false},
		{"a*c*e", "abcde", true}, {"a*c*e", "ace", true}, {"a*c*e", "aec", false}, {"a**", "a", true},
	} {
		if got := matches(test.pattern, test.name); got != test.want {
			t.Errorf("%s matches %s: %v", test.pattern, test.name, got)
		}
	}
}

// What the flags say of headers is done to pages alone.
func TestRewrite(t *testing.T) {
	php := http.Header{"Expires": {phpExpires}, "Pragma": {"no-cache"}, "Cache-Control": {"no-store, no-cache, must-revalidate"}}
	for name, test := range map[string]struct {
		args   string
		header http.Header
		stored bool
		sent   string // Cache-Control
	}{
		"a cookie":                {"", http.Header{"Set-Cookie": {"a=1"}}, false, ""},
		"a cookie that means 0":   {"-drop-cookie a", http.Header{"Set-Cookie": {"a=1"}}, true, "public, max-age=0, s-maxage=30"},
		"and another":             {"-drop-cookie a", http.Header{"Set-Cookie": {"a=1", "b=1"}}, false, ""},
		"of PHP's sessions":       {"", php, false, ""},
		"where they mean nothing": {"-php-session", php, true, "public, max-age=0, s-maxage=30"},
		"what PHP did not say":    {"-php-session", http.Header{"Cache-Control": {"no-store, no-cache, must-revalidate"}}, false, ""},
		"a private page":          {"-must-revalidate=false", http.Header{"Cache-Control": {"private, must-revalidate"}}, false, ""},
		"must-revalidate":         {"", http.Header{"Cache-Control": {"s-maxage=60, must-revalidate"}}, true, "s-maxage=60, must-revalidate, max-age=0"},
		"which does not count":    {"-must-revalidate=false", http.Header{"Cache-Control": {"s-maxage=60, Must-Revalidate"}}, true, "s-maxage=60, max-age=0"},
		"with a shorter life":     {"-max-ttl 5s", http.Header{"Cache-Control": {"s-maxage=60"}}, true, "s-maxage=5, max-age=0"},
		"a Vary":                  {"", http.Header{"Vary": {"Cookie"}}, false, ""},
		"that does not count":     {"-ignore-vary Cookie", http.Header{"Vary": {"Cookie"}}, true, "public, max-age=0, s-maxage=30"},
		"that is declared":        {"-vary X-Theme", http.Header{"Vary": {"X-Theme"}}, true, "public, max-age=0, s-maxage=30"},
	} {
		t.Run(name, func(t *testing.T) {
			origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				for name, values := range test.header {
					w.Header()[name] = values
				}
			}))
			t.Cleanup(origin.Close)
			site, server := front(t, origin.URL, strings.Fields(test.args)...)
			a := mustGet(t, server.URL)
			var stored isr.Page
			for p := range site.Pages() {
				stored = p
			}
			if got := stored.NotStored == ""; got != test.stored {
				t.Errorf("stored: %v (%s)", got, stored.NotStored)
			}
			if got := a.header.Get("Cache-Control"); test.stored && got != test.sent {
				t.Errorf("Cache-Control %q, want %q", got, test.sent)
			}
			if !test.stored && a.header.Get("Set-Cookie") != test.header.Get("Set-Cookie") {
				t.Errorf("Set-Cookie %q: it is the visitor's own answer", a.header.Get("Set-Cookie"))
			}
		})
	}
}
