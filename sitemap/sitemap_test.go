package sitemap_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isr-go/isr/sitemap"
)

const home = "https://reeds.example"

// urlset returns a sitemap.
func urlset(urls ...string) string {
	return `<?xml version="1.0" encoding="UTF-8"?><urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9"><url><loc>` +
		strings.Join(urls, "</loc></url>\n<url><loc>") + `</loc><lastmod>2026-03-01</lastmod></url></urlset>`
}

// index returns an index of sitemaps.
func index(urls ...string) string {
	return `<sitemapindex xmlns="http://www.sitemaps.org/schemas/sitemap/0.9"><sitemap><loc>` +
		strings.Join(urls, "</loc></sitemap><sitemap><loc>") + `</loc></sitemap></sitemapindex>`
}

func zip(s string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	io.WriteString(w, s)
	w.Close()
	return b.String()
}

// files is a site of sitemaps, by path.
type files map[string]string

func (f files) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, ok := f[r.URL.RequestURI()]
	if to, moved := strings.CutPrefix(body, "-> "); moved {
		http.Redirect(w, r, to, http.StatusFound)
	} else if !ok {
		http.NotFound(w, r)
	} else {
		io.WriteString(w, body)
	}
}

// read returns what Read passes on, one line each.
func read(ctx context.Context, name string, opts sitemap.Options) (got []string) {
	for url, err := range sitemap.Read(ctx, name, opts) {
		if err != nil {
			url += ": " + err.Error()
		}
		got = append(got, strings.TrimPrefix(url, home))
	}
	return got
}

func TestRead(t *testing.T) {
	for name, test := range map[string]struct {
		files files
		opts  sitemap.Options
		want  []string
	}{
		"a sitemap": {
			files: files{"/sitemap.xml": urlset(home+"/", home+"/heron?a=1&amp;b=2", " \n"+home+"/egret\t")},
			want:  []string{"/", "/heron?a=1&b=2", "/egret"},
		},
		"a byte order mark, comments, and no namespace": {
			files: files{"/sitemap.xml": "\ufeff<?xml version='1.0'?><!-- birds --><urlset><url><loc>" + home + "/<![CDATA[heron]]></loc></url></urlset>"},
			want:  []string{"/heron"},
		},
		"an index, one of its files packed": {
			files: files{
				"/sitemap.xml": index(home+"/1.xml", home+"/2.xml.gz", home+"/1.xml"),
				"/1.xml":       urlset(home+"/a", home+"/b"),
				"/2.xml.gz":    zip(urlset(home + "/c")),
			},
			want: []string{"/a", "/b", "/c"},
		},
		"an index in an index": {
			files: files{"/sitemap.xml": index(home+"/i.xml", home+"/2.xml"), "/i.xml": index(home + "/1.xml"), "/1.xml": urlset(home + "/a"), "/2.xml": urlset(home + "/b")},
			want:  []string{"/a", "/b"},
		},
		"an index of itself": {
			files: files{"/sitemap.xml": index(home+"/sitemap.xml", home+"/1.xml"), "/1.xml": urlset(home + "/a")},
			want:  []string{"/a"},
		},
		"indexes without end": {
			files: files{"/sitemap.xml": index(home + "/1.xml"), "/1.xml": index(home + "/2.xml"), "/2.xml": index(home + "/3.xml"), "/3.xml": index(home + "/4.xml")},
			want:  []string{"/3.xml: sitemap: more than 3 index files one in another"},
		},
		"images and videos": {
			files: files{"/sitemap.xml": `<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9" xmlns:image="http://www.google.com/schemas/sitemap-image/1.1">
				<url><loc>` + home + `/heron</loc><image:loc>` + home + `/no.jpg</image:loc><image:image><image:loc>` + home + `/heron.jpg</image:loc></image:image></url></urlset>`},
			want: []string{"/heron"},
		},
		"one file is missing": {
			files: files{"/sitemap.xml": index(home+"/1.xml", home+"/2.xml"), "/2.xml": urlset(home + "/b")},
			want:  []string{"/1.xml: sitemap: the answer is 404", "/b"},
		},
		"one file breaks off": {
			files: files{"/sitemap.xml": index(home+"/1.xml", home+"/2.xml"), "/1.xml": strings.TrimSuffix(urlset(home+"/a"), "</urlset>"), "/2.xml": urlset(home + "/c")},
			want:  []string{"/a", "/1.xml: sitemap: XML syntax error on line 1: unexpected EOF", "/c"},
		},
		"a packed file breaks off": {
			files: files{"/sitemap.xml": zip(urlset(home + "/a"))[:40]},
			want:  []string{"/sitemap.xml: sitemap: unexpected EOF"},
		},
		"what is at another origin, or no URL": {
			files: files{"/sitemap.xml": urlset(home+"/a", "https://pond.example/b", "http://reeds.example/c", "/d", "mailto:a@reeds.example", "", "https://REEDS.example:443/e", "https://%zz/")},
			want: []string{
				"/a", "https://pond.example/b: sitemap: is not at https://reeds.example", "http://reeds.example/c: sitemap: is not at https://reeds.example",
				"/d: sitemap: want a whole URL, with http:// or https://", "mailto:a@reeds.example: sitemap: want a whole URL, with http:// or https://",
				": sitemap: want a whole URL, with http:// or https://", "https://REEDS.example:443/e", `https://%zz/: sitemap: invalid URL escape "%zz"`,
			},
		},
		"what is at another origin, where that is asked for": {
			files: files{"/sitemap.xml": index("https://pond.example/1.xml"), "/1.xml": urlset("https://lake.example/a")}, opts: sitemap.Options{AnyOrigin: true},
			want: []string{"https://lake.example/a"},
		},
		"a sitemap at another origin": {
			files: files{"/sitemap.xml": index("http://169.254.169.254/latest"), "/latest": urlset(home + "/a")},
			want:  []string{"http://169.254.169.254/latest: sitemap: is not at https://reeds.example"},
		},
		"a redirect": {
			files: files{"/sitemap.xml": "-> /1.xml", "/1.xml": urlset(home + "/a")},
			want:  []string{"/a"},
		},
		"a redirect to another origin": {
			files: files{"/sitemap.xml": "-> http://169.254.169.254/1.xml", "/1.xml": urlset(home + "/a")},
			want:  []string{"/sitemap.xml: sitemap: redirects to http://169.254.169.254/1.xml, which is not at https://reeds.example"},
		},
		"redirects without end": {
			files: files{"/sitemap.xml": "-> /sitemap.xml"},
			want:  []string{"/sitemap.xml: sitemap: more than 10 redirects"},
		},
		"a page instead":    {files: files{"/sitemap.xml": "<html><p>Not found</p></html>"}, want: []string{`/sitemap.xml: sitemap: want a urlset or sitemapindex, got "html"`}},
		"nothing":           {files: files{"/sitemap.xml": ""}, want: []string{"/sitemap.xml: sitemap: is empty"}},
		"no XML":            {files: files{"/sitemap.xml": home + "/a\n"}, want: []string{"/sitemap.xml: sitemap: is empty"}},
		"two roots":         {files: files{"/sitemap.xml": urlset(home+"/a") + "<urlset/>"}, want: []string{"/a", "/sitemap.xml: sitemap: has more than one root"}},
		"an entity":         {files: files{"/sitemap.xml": `<!DOCTYPE urlset [<!ENTITY a "b">]><urlset><url><loc>&a;</loc></url></urlset>`}, want: []string{"/sitemap.xml: sitemap: XML syntax error on line 1: invalid character entity &a;"}},
		"a long URL":        {files: files{"/sitemap.xml": urlset(home + strings.Repeat("/", 2048-len(home)))}, want: []string{strings.Repeat("/", 2048-len(home)) + ": sitemap: a URL has less than 2048 bytes, not 2048"}},
		"too many URLs":     {files: files{"/sitemap.xml": index(home+"/1.xml", home+"/2.xml"), "/1.xml": urlset(home+"/a", home+"/b"), "/2.xml": urlset(home+"/c", home+"/d")}, opts: sitemap.Options{MaxURLs: 3}, want: []string{"/a", "/b", "/c", "/d: sitemap: more than 3 URLs"}},
		"too many files":    {files: files{"/sitemap.xml": index(home+"/1.xml", home+"/2.xml", home+"/3.xml"), "/1.xml": urlset(home + "/a")}, opts: sitemap.Options{MaxFiles: 2}, want: []string{"/2.xml: sitemap: more than 2 files", "/a"}},
		"too many bytes":    {files: files{"/sitemap.xml": zip(urlset(home+"/a") + strings.Repeat(" ", 1000))}, opts: sitemap.Options{MaxBytes: 999}, want: []string{"/a", "/sitemap.xml: sitemap: larger than 999 bytes"}},
		"as many bytes":     {files: files{"/sitemap.xml": urlset(home + "/a")}, opts: sitemap.Options{MaxBytes: int64(len(urlset(home + "/a")))}, want: []string{"/a"}},
		"a token too large": {files: files{"/sitemap.xml": "<urlset><!--" + strings.Repeat(" ", 1<<17) + "--></urlset>"}, want: []string{"/sitemap.xml: sitemap: text or a tag of more than 65536 bytes"}},
		"nested too deep":   {files: files{"/sitemap.xml": "<urlset>" + strings.Repeat("<a>", 100)}, want: []string{"/sitemap.xml: sitemap: more than 32 elements one in another"}},
	} {
		t.Run(name, func(t *testing.T) {
			test.opts.Handler = test.files
			if diff := cmp.Diff(test.want, read(t.Context(), home+"/sitemap.xml", test.opts)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// Read does over the network what it does with a Handler.
func TestReadOverHTTP(t *testing.T) {
	site := make(files)
	server := httptest.NewServer(site)
	defer server.Close()
	site["/sitemap.xml"] = index(server.URL+"/1.xml.gz", server.URL+"/2.xml")
	site["/1.xml.gz"] = zip(urlset(server.URL + "/a"))
	site["/2.xml"] = "-> /1.xml.gz"
	want := []string{server.URL + "/a", server.URL + "/a"}
	if diff := cmp.Diff(want, read(t.Context(), server.URL+"/sitemap.xml", sitemap.Options{Client: server.Client()})); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	server.Close()
	if got := read(t.Context(), server.URL+"/sitemap.xml", sitemap.Options{}); len(got) != 1 || !strings.Contains(got[0], "refused") {
		t.Errorf("got %q", got)
	}
}

// A file has as many URLs as the protocol allows.
func TestFiftyThousand(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "<urlset>")
		for i := range 50_001 {
			fmt.Fprintf(w, "<url><loc>%s/%d</loc></url>", home, i)
		}
		io.WriteString(w, "</urlset>")
	})
	n := 0
	var last error
	for _, err := range sitemap.Read(t.Context(), home+"/sitemap.xml", sitemap.Options{Handler: h}) {
		if last = err; err == nil {
			n++
		}
	}
	if n != 50_000 || last == nil || last.Error() != "sitemap: names more than 50000" {
		t.Errorf("got %d URLs, and %v", n, last)
	}
}

// A file is not held in memory, only what it names.
func TestMemory(t *testing.T) {
	inUse := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	comment := "<!--" + strings.Repeat(" ", 8<<10) + "-->"
	held := int64(0)
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		before := inUse()
		io.WriteString(w, "<urlset>")
		for range 256 {
			io.WriteString(w, comment)
		}
		held = inUse() - before
		io.WriteString(w, "<url><loc>"+home+"/a</loc></url></urlset>")
	})
	if diff := cmp.Diff([]string{"/a"}, read(t.Context(), home+"/sitemap.xml", sitemap.Options{Handler: h})); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if held > 512<<10 {
		t.Errorf("%d bytes are held of a file of 2 MiB", held)
	}
}

// A server that takes its time, or never ends, holds nobody longer than Timeout for each
// file, or than ctx.
func TestTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/sitemap.xml":
				io.WriteString(w, index(home+"/silent.xml", home+"/slow.xml", home+"/1.xml"))
			case "/silent.xml":
				<-r.Context().Done()
			case "/slow.xml":
				io.WriteString(w, "<urlset>")
				for {
					if _, err := fmt.Fprintf(w, "<url><loc>%s/s</loc></url>", home); err != nil {
						return
					}
					time.Sleep(4 * time.Second)
				}
			case "/1.xml":
				io.WriteString(w, urlset(home+"/a"))
			}
		})
		began := time.Now()
		want := []string{"/silent.xml: sitemap: not read within 10s", "/s", "/s", "/s", "/slow.xml: sitemap: not read within 10s", "/a"}
		if diff := cmp.Diff(want, read(t.Context(), home+"/sitemap.xml", sitemap.Options{Handler: h, Timeout: 10 * time.Second})); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
		if took := time.Since(began); took != 20*time.Second {
			t.Errorf("took %s", took)
		}
		time.Sleep(time.Minute) // the handlers end

		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		want = []string{"/silent.xml: sitemap: context deadline exceeded"}
		if diff := cmp.Diff(want, read(ctx, home+"/sitemap.xml", sitemap.Options{Handler: h})); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	})
}

// The consumer may stop, and what it does between two URLs takes none of the Timeout.
func TestTheConsumersTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := sitemap.Read(t.Context(), home+"/sitemap.xml", sitemap.Options{
			Handler: files{"/sitemap.xml": index(home+"/1.xml", home+"/2.xml"), "/1.xml": urlset(home+"/a", home+"/b"), "/2.xml": urlset(home+"/c", home+"/d")},
			Timeout: time.Second,
		})
		n := 0
		for url, err := range all {
			if err != nil {
				t.Errorf("%s: %v", url, err)
			}
			time.Sleep(time.Hour)
			if n++; n == 3 {
				break
			}
		}
		var again []string
		for url := range sitemap.Good(all, func(string, error) { t.Error("an error") }) {
			again = append(again, strings.TrimPrefix(url, home))
		}
		if diff := cmp.Diff([]string{"/a", "/b", "/c", "/d"}, again); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	})
}

func TestHandlerThatPanics(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/late.xml" {
			io.WriteString(w, "<urlset><url><loc>"+home+"/a</loc></url>")
		}
		panic("no reeds")
	})
	for name, want := range map[string][]string{
		"/sitemap.xml": {"/sitemap.xml: sitemap: the answer is 500"},
		"/late.xml":    {"/a", "/late.xml: sitemap: the handler panics: no reeds"},
	} {
		if diff := cmp.Diff(want, read(t.Context(), home+name, sitemap.Options{Handler: h})); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", name, diff)
		}
	}
}

func TestGood(t *testing.T) {
	all := func(yield func(string, error) bool) {
		_ = yield("a", nil) && yield("b", errors.New("no")) && yield("c", nil) && yield("d", nil)
	}
	var got, told []string
	for url := range sitemap.Good(all, func(what string, err error) { told = append(told, what+": "+err.Error()) }) {
		if got = append(got, url); url == "c" {
			break
		}
	}
	if diff := cmp.Diff([][]string{{"a", "c"}, {"b: no"}}, [][]string{got, told}); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	for range sitemap.Good(all, nil) {
	}
}

func TestBadArguments(t *testing.T) {
	if got := read(t.Context(), "/sitemap.xml", sitemap.Options{}); len(got) != 1 {
		t.Errorf("got %q", got)
	}
	for _, opts := range []sitemap.Options{{MaxBytes: -1}, {MaxFiles: -1}, {MaxURLs: -1}, {Timeout: -1}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("no panic: %+v", opts)
				}
			}()
			sitemap.Read(t.Context(), home, opts)
		}()
	}
}

// Whatever a file holds, what is passed on is at the origin, and there is an end.
func FuzzRead(f *testing.F) {
	f.Add([]byte(urlset(home+"/a", "https://pond.example/")))
	f.Add([]byte(index(home + "/sitemap.xml")))
	f.Add([]byte(zip(urlset(home + "/a"))))
	f.Add([]byte("<urlset><url><loc>" + home + "\\@pond.example/</loc></url></urlset>"))
	f.Fuzz(func(t *testing.T, body []byte) {
		h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write(body) })
		n := 0
		for url, err := range sitemap.Read(t.Context(), home+"/sitemap.xml", sitemap.Options{Handler: h, MaxFiles: 5}) {
			if n++; n > 5*len(body)+10 {
				t.Fatal("no end")
			}
			if err != nil {
				continue
			}
			if r, err := http.NewRequest("GET", url, nil); err != nil || !strings.EqualFold(strings.TrimSuffix(r.URL.Host, ":443"), "reeds.example") || r.URL.Scheme != "https" {
				t.Errorf("%q is passed on", url)
			}
		}
	})
}
