package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// What each kind of site sends, as measured on real ones, is kept or not as it should be.
func TestPresetsOnWhatSitesSend(t *testing.T) {
	doku := http.Header{
		"Vary": {"Cookie"}, "Set-Cookie": {"DokuWiki=1; path=/; HttpOnly", "DW33f=deleted; Max-Age=0; path=/"},
		"Expires": {phpExpires}, "Cache-Control": {"no-store, no-cache, must-revalidate"}, "Pragma": {"no-cache"},
	}
	cdn := http.Header{"Vary": {"Accept-Encoding, Cookie"}, "Cache-Control": {"s-maxage=18000, must-revalidate, max-age=0"}}
	next := http.Header{
		"Vary":          {"rsc, next-router-state-tree, next-router-prefetch, next-router-segment-prefetch, Accept-Encoding"},
		"Cache-Control": {"s-maxage=60, stale-while-revalidate=31535940"},
	}
	for _, test := range []struct {
		preset, path, cookie string
		answer               http.Header
		want                 string // of the second visit: "hit", "bypass", or "uncacheable"
	}{
		{"wordpress", "/post-7/", "", nil, "hit"},
		{"wordpress", "/post-7/?utm_source=x", "_ga=1; wp_lang=de", nil, "hit"},
		{"wordpress", "/post-7/", "wordpress_logged_in_abc=1", nil, "bypass"},
		{"wordpress", "/post-7/", "comment_author_abc=1", nil, "bypass"},
		{"wordpress", "/post-7/", "wp-postpass_abc=1", nil, "bypass"},
		{"wordpress", "/?p=7&preview=true", "", nil, "bypass"},
		{"wordpress", "/wp-admin/admin-ajax.php?action=x", "", nil, "bypass"},
		{"wordpress", "/wp-login.php", "", nil, "bypass"},
		{"wordpress", "/wp-json/wp/v2/posts", "", nil, "bypass"},
		{"wordpress", "/wp-includes/style.css", "", nil, "hit"},

		{"mediawiki", "/index.php/Main_Page", "", cdn, "hit"},
		{"mediawiki", "/index.php/Main_Page", "wikiUserName=Editor", cdn, "hit"}, // of who has logged out
		{"mediawiki", "/index.php/Main_Page", "wiki_session=1", cdn, "bypass"},
		{"mediawiki", "/index.php/Main_Page", "wikiUserID=1", cdn, "bypass"},
		{"mediawiki", "/index.php/Main_Page", "", http.Header{"Vary": {"Cookie"}, "Cache-Control": {"private, must-revalidate, max-age=0"}}, "uncacheable"},

		{"dokuwiki", "/doku.php?id=start", "", doku, "hit"},
		{"dokuwiki", "/doku.php?id=start", "DokuWiki=1; DOKU_PREFS=x", doku, "hit"},
		{"dokuwiki", "/doku.php?id=start", "DW33f=1", doku, "bypass"},
		{"dokuwiki", "/doku.php?id=start&do=edit", "", doku, "bypass"},
		{"dokuwiki", "/lib/exe/taskrunner.php?id=start", "", doku, "bypass"},
		{"dokuwiki", "/lib/exe/css.php?t=dokuwiki", "", http.Header{"Vary": {"Cookie"}, "Cache-Control": {"public, max-age=31536000"}}, "hit"},

		{"nextjs", "/posts/7", "", next, "hit"},
		{"nextjs", "/posts/7", "__prerender_bypass=1", next, "bypass"},
		{"nextjs", "/account", "", http.Header{"Vary": next["Vary"], "Cache-Control": {"private, no-cache, no-store, max-age=0, must-revalidate"}}, "uncacheable"},
		{"nextjs", "/api/data", "", nil, "uncacheable"}, // it says nothing of a lifetime
		{"nextjs", "/_next/image?url=x", "", http.Header{"Vary": {"Accept"}, "Cache-Control": {"public, max-age=60"}}, "hit"},
	} {
		t.Run(test.preset+" "+test.path+" "+test.cookie, func(t *testing.T) {
			origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				for name, values := range test.answer {
					w.Header()[name] = values
				}
				io.WriteString(w, "page")
			}))
			t.Cleanup(origin.Close)
			p, err := newProxy(newConfig(t, "-origin", origin.URL, "-preset", test.preset))
			if err != nil {
				t.Fatal(err)
			}
			server := httptest.NewServer(p.handler)
			t.Cleanup(server.Close)
			var a answer
			for range 2 {
				a = mustGet(t, server.URL+test.path, func(r *http.Request) {
					if test.cookie != "" {
						r.Header.Set("Cookie", test.cookie)
					}
				})
			}
			if !strings.Contains(a.cacheStatus, test.want) {
				t.Errorf("Cache-Status %q, want %s", a.cacheStatus, test.want)
			}
			if test.want == "hit" && a.header["Set-Cookie"] != nil {
				t.Errorf("everybody gets %q", a.header["Set-Cookie"])
			}
		})
	}
}

// Documents, and the parts of them that Next.js' router fetches, are pages of their own;
// images are, by the formats that Next.js has.
func TestNextJSVariants(t *testing.T) {
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "s-maxage=60")
		fmt.Fprintf(w, "%s|%s", r.Header.Get("RSC"), r.Header.Get("Accept"))
	}))
	t.Cleanup(origin.Close)
	site, server := front(t, origin.URL, "-preset", "nextjs")
	for _, test := range []struct{ path, name, value, want string }{
		{"/a", "RSC", "1", "1|"},
		{"/a", "X-Other", "1", "|"},
		{"/_next/image?url=x", "Accept", "image/avif,image/webp,image/apng,*/*;q=0.8", "|image/avif"},
		{"/_next/image?url=x", "Accept", "image/avif,image/png,image/webp", "|image/avif"},
		{"/_next/image?url=x", "Accept", "*/*", "|"},
	} {
		if _, body := send(t, "GET", server.URL+test.path, test.name, test.value); body != test.want {
			t.Errorf("%s with %s: %s: %q, want %q", test.path, test.name, test.value, body, test.want)
		}
	}
	if n := site.Stats().Pages; n != 4 {
		t.Errorf("%d pages, want 4", n)
	}
}
