package isr_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/isr-go/isr"
)

// Each request gets the documented answer, and invalidates what it names.
func TestRevalidateHandler(t *testing.T) {
	const secret = "correct horse battery staple"
	for _, f := range []func(){
		func() { isr.RevalidateHandler(isr.Wrap(new(countingHandler), isr.Options{}), "") },
		func() { isr.RevalidateHandler(nil, secret) },
	} {
		if recovered(f) == nil {
			t.Error("no panic")
		}
	}
	type request struct {
		method, target, contentType, body string
		bearer                            string
	}
	const (
		ok      = `{"revalidated":true}`
		a       = `{"revalidated":true,"pages":{"/a":1}}`
		b       = `{"revalidated":true,"pages":{"/b":1}}`
		ab      = `{"revalidated":true,"pages":{"/a":1,"/b":1}}`
		invalid = `{"message":"Invalid token"}`
		query   = "?secret=correct+horse+battery+staple"
	)
	for name, test := range map[string]struct {
		request request
		status  int
		answer  string
		renewed string // the paths that are shown anew
	}{
		"POST path":                 {request{"POST", "?path=/a", "", "", secret}, 200, a, "/a"},
		"GET path":                  {request{"GET", "?path=/a&path=/b", "", "", secret}, 200, ab, "/a /b"},
		"secret in the query":       {request{"GET", query + "&path=/a", "", "", ""}, 200, a, "/a"},
		"tag":                       {request{"POST", "?tag=ta", "", "", secret}, 200, ok, "/a"},
		"tags and path":             {request{"POST", "?tag=ta&tag=none&path=/b", "", "", secret}, 200, b, "/a /b"},
		"form":                      {request{"POST", "?path=/a", "application/x-www-form-urlencoded; charset=utf-8", "path=/b&tag=none", secret}, 200, ab, "/a /b"},
		"JSON":                      {request{"POST", "", "application/json", `{"paths": ["/a", "/b"], "tags": ["none"], "event": {"id": 1}}`, secret}, 200, ab, "/a /b"},
		"DELETE path":               {request{"DELETE", "?path=/a", "", "", secret}, 200, a, "/a"},
		"DELETE JSON":               {request{"DELETE", "", "application/json", `{"tags": ["tb"]}`, secret}, 200, ok, "/b"},
		"query of the path":         {request{"POST", "?path=/a?x=private-part&path=/a", "", "", secret}, 200, `{"revalidated":true,"pages":{"/a":1,"/a?x=private-part":0}}`, "/a"},
		"whole URL":                 {request{"POST", "?path=https://example.com/a", "", "", secret}, 200, `{"revalidated":true,"pages":{"https://example.com/a":1}}`, "/a"},
		"a body of another type":    {request{"POST", "?path=/a", "text/plain", "whatever", secret}, 200, a, "/a"},
		"JSON of another shape":     {request{"POST", "?path=/a", "application/json", `{"id": 1, "tags": ["tb", ""]}`, secret}, 200, a, "/a"},
		"not stored":                {request{"POST", "?path=/c&tag=ta", "", "", secret}, 200, `{"revalidated":true,"pages":{"/c":0}}`, "/a"},
		"DELETE what is not stored": {request{"DELETE", "?path=/c&path=/a&tag=ta", "", "", secret}, 200, `{"revalidated":true,"pages":{"/a":1,"/c":0}}`, "/a"},
		"no secret":                 {request{"POST", "?path=/a", "", "", ""}, 401, invalid, ""},
		"wrong bearer":              {request{"POST", "?path=/a", "", "", "wrong"}, 401, invalid, ""},
		"secret in the form":        {request{"POST", "?path=/a", "application/x-www-form-urlencoded", "secret=" + secret, ""}, 401, invalid, ""},
		"nothing named":             {request{"POST", "", "", "", secret}, 400, `{"message":"name a path or a tag"}`, ""},
		"a bad path":                {request{"POST", "?path=/a&path=b", "", "", secret}, 400, `{"message":"isr: path \"b\": want a path that begins with \"/\", or a whole URL"}`, ""},
		"a bad tag":                 {request{"POST", "?path=/a&tag=", "", "", secret}, 400, `{"message":"isr: tag \"\": a tag is not empty"}`, ""},
		"a bad tag, purging":        {request{"DELETE", "?path=/a&tag=", "", "", secret}, 400, `{"message":"isr: tag \"\": a tag is not empty"}`, ""},
		"no JSON":                   {request{"POST", "", "application/json", "{", secret}, 400, `{"message":"want JSON such as {\"paths\": [\"/blog/1\"], \"tags\": [\"blog\"]}: unexpected end of JSON input"}`, ""},
		"Strapi's own body": {request{"POST", "?path=/a", "application/json",
			`{"event": "entry.update", "createdAt": "2026-01-10T08:58:26.563Z", "model": "article", "entry": {"id": 1, "slug": "/b", "tags": ["tb"]}}`, secret}, 200, a, "/a"},
		"Prismic's own body": {request{"POST", "?path=/a", "application/json",
			`{"type": "api-update", "masterRef": "X6qn-RIAACMAVge1", "releases": {}, "masks": {}, "tags": {}, "experiments": {}, "documents": ["b"], "domain": "x", "secret": null}`, secret}, 200, a, "/a"},
		"Contentful's own body": {request{"POST", "?path=/a", "application/vnd.contentful.management.v1+json",
			`{"metadata": {"tags": [{"sys": {"id": "tb"}}]}, "sys": {"type": "Entry", "id": "b"}, "fields": {"slug": {"en": "/b"}}}`, secret}, 200, a, "/a"},
		"a sender's own form":         {request{"POST", "?path=/a", "application/x-www-form-urlencoded", "path=uploads/a.png&post_id=3", secret}, 200, a, "/a"},
		"its own tags":                {request{"POST", "?path=/a", "application/json", `{"tags": ["tb", "a, b"]}`, secret}, 200, a, "/a"},
		"its own paths":               {request{"POST", "?tag=ta", "application/json", `{"paths": ["/b", "c"]}`, secret}, 200, ok, "/a"},
		"its own tags that are paths": {request{"DELETE", "?path=/a", "application/json", `{"tags": ["tb", "/news"]}`, secret}, 200, a, "/a"},
		"its own, too large":          {request{"POST", "?path=/a", "application/json", strings.Repeat(" ", 1<<20+1), secret}, 200, a, "/a"},
		"tags that are paths":         {request{"POST", "", "application/json", `{"paths": ["/a"], "tags": ["/b"]}`, secret}, 400, `{"message":"isr: tag \"/b\": a tag does not begin with \"/\": paths are for Revalidate and Purge, and need no tag"}`, ""},
		"too large":                   {request{"POST", "", "application/json", strings.Repeat(" ", 1<<20+1), secret}, 413, `{"message":"Body is larger than 1048576 bytes"}`, ""},
		"PUT":                         {request{"PUT", "?path=/a", "", "", secret}, 405, `{"message":"Method not allowed"}`, ""},
		"HEAD":                        {request{"HEAD", "?path=/a", "", "", secret}, 405, `{"message":"Method not allowed"}`, ""},
		"failing":                     {request{"POST", "?path=/fails&path=/a", "", "", secret}, 500, `{"message":"Error revalidating"}`, "/a"},
		"failing, with reasons":       {request{"GET", query + "&path=/fails", "", "", ""}, 500, `{"message":"Error revalidating"}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				down := false
				c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
					w.Header().Set("Cache-Tag", "t"+r.URL.Path[1:])
					if down && r.URL.Path == "/fails" {
						http.Error(w, "no database", 500)
						return
					}
					fmt.Fprint(w, "page ", n)
				}}
				site := isr.Wrap(c, isr.Options{
					Origin: "https://example.com",
					Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
				})
				h := isr.RevalidateHandler(site, secret)
				paths := []string{"/a", "/b", "/fails"}
				before := make(map[string]string)
				for _, path := range paths {
					before[path] = body(site, path)
				}
				down = true
				r := httptest.NewRequest(test.request.method, "/api/revalidate"+test.request.target, strings.NewReader(test.request.body))
				if test.request.contentType != "" {
					r.Header.Set("Content-Type", test.request.contentType)
				}
				if test.request.bearer != "" {
					r.Header.Set("Authorization", "bearer "+test.request.bearer)
				}
				w := httptest.NewRecorder()
				h.ServeHTTP(w, r)
				res := w.Result()
				if got := strings.TrimSpace(read(res)); res.StatusCode != test.status || got != test.answer {
					t.Errorf("got %d %s\nwant %d %s", res.StatusCode, got, test.status, test.answer)
				}
				if res.Header.Get("Content-Type") != "application/json" || res.Header.Get("Cache-Control") != "no-store" ||
					(res.StatusCode == 405) != (res.Header.Get("Allow") == "DELETE, GET, POST") {
					t.Errorf("header %v", res.Header)
				}
				synctest.Wait()
				logged := log.String()
				var renewed []string
				for _, path := range paths {
					body(site, path) // a stale one is shown once more
					synctest.Wait()
					if body(site, path) != before[path] {
						renewed = append(renewed, path)
					}
				}
				if got := strings.Join(renewed, " "); got != test.renewed {
					t.Errorf("renewed %q, want %q", got, test.renewed)
				}
				if res.StatusCode == 500 && !strings.Contains(logged, "isr: revalidate /fails: the handler answered 500 Internal Server Error") {
					t.Errorf("the log does not say why:\n%s", logged)
				}
				for _, s := range []string{secret, secret[:10], "correct+horse", "private-part"} {
					if strings.Contains(logged+fmt.Sprint(res.Header), s) {
						t.Errorf("the secret is in the log or in the header")
					}
				}
			})
		})
	}
}

// Bad paths and tags are errors that name them, and change nothing.
func TestBadNamesChangeNothing(t *testing.T) {
	c := new(countingHandler)
	site := isr.Wrap(c, isr.Options{Origin: "https://example.com", Default: isr.Route{Tags: []string{"t"}}})
	get(site, "/")
	ctx := t.Context()
	for _, test := range []struct {
		name string
		want string // part of the error
	}{
		{"", `"": want a path`},
		{"blog", `"blog": want a path that begins with "/"`},
		{"./blog", `"./blog": want a path`},
		{"/a#b", `"/a#b": has a fragment`},
		{"/%zz", `"/%zz": invalid URL escape "%zz"`},
		{"/a\nb", `"/a\nb": net/url: invalid control character`},
		{"ftp://example.com/", `"ftp://example.com/": want a path`},
		{"https:///a", `"https:///a": want a path`},
		{"https://example.org/", `"https://example.org/": is not at Options.Origin, https://example.com`},
		{"mailto:me", `"mailto:me": want a path`},
	} {
		for verb, call := range map[string]func(context.Context, ...string) error{"Revalidate": site.Revalidate, "Purge": site.Purge} {
			if err := call(ctx, "/", test.name); err == nil || !strings.Contains(err.Error(), "isr: path "+test.want) {
				t.Errorf("%s %q: error %v, want %s", verb, test.name, err, test.want)
			}
		}
		for path, err := range site.Prerender(ctx, slices.Values([]string{test.name})) {
			if err == nil || path != test.name {
				t.Errorf("Prerender %q: error %v", path, err)
			}
		}
	}
	for _, tag := range []string{"", "a,b", "a\x00", " a", "/", "/blog", strings.Repeat("x", 257)} {
		for verb, call := range map[string]func(context.Context, ...string) error{"RevalidateTag": site.RevalidateTag, "ExpireTag": site.ExpireTag, "PurgeTag": site.PurgeTag} {
			if err := call(ctx, "t", tag); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("isr: tag %q: ", tag)) {
				t.Errorf("%s %q: error %v", verb, tag, err)
			}
		}
	}
	if got := get(site, "/").Header.Get("Cache-Status"); got != "isr; hit" || c.calls.Load() != 1 {
		t.Errorf("the page was changed: %q", got)
	}
}
