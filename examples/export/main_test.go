package main

import (
	"bytes"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/isr-go/isr"
)

// get asks as a browser does, which follows redirects.
func get(t *testing.T, h http.Handler, path string) *httptest.ResponseRecorder {
	t.Helper()
	for range 5 {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		if w.Code != http.StatusMovedPermanently {
			return w
		}
		from := httptest.NewRequest("GET", path, nil).URL
		to, err := from.Parse(w.Header().Get("Location"))
		if err != nil {
			t.Fatal(err)
		}
		path = to.Path
	}
	t.Fatalf("%s: redirects without end", path)
	return nil
}

// Served by a file server, the files are the site: each page and asset, its type, and
// what is shown for unknown paths.
func TestFilesAreTheSite(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "public")
	var out bytes.Buffer
	if err := run(t.Context(), []string{"-out", dir}, &out); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	if !strings.HasPrefix(out.String(), "exported 11/11, ") {
		t.Errorf("says %q", out.String())
	}
	site := isr.Wrap(newSite(), isr.Options{Origin: origin})
	static := http.FileServer(http.Dir(dir))

	want := map[string]string{ // file: path
		"index.html": "/", "birds/index.html": "/birds/", "birds/grey-heron/index.html": "/birds/grey-heron/",
		"birds/bittern/index.html": "/birds/bittern/", "birds/reed-warbler/index.html": "/birds/reed-warbler/",
		"about/index.html": "/about", "style.css": "/style.css", "sitemap.xml": "/sitemap.xml", "404.html": "/404.html", "_redirects": "",
	}
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		path, ok := want[name]
		if delete(want, name); !ok {
			t.Errorf("%s is too much", name)
		}
		if !ok || path == "" {
			return nil
		}
		live, file := get(t, site, path), get(t, static, path)
		if path == notFound {
			live.Code = http.StatusOK // the host says otherwise
		}
		if live.Code != 200 || file.Code != 200 {
			t.Errorf("%s: the site says %d, the file server %d", path, live.Code, file.Code)
		}
		if l, f := live.Header().Get("Content-Type"), file.Header().Get("Content-Type"); l != f {
			t.Errorf("%s: the type is %q, and of the file %q", path, l, f)
		}
		if diff := cmp.Diff(live.Body.String(), file.Body.String()); diff != "" {
			t.Errorf("%s: (-site +file)\n%s", path, diff)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for name := range want {
		t.Errorf("%s is missing", name)
	}
	if got := get(t, site, "/no/such/page").Body.String(); got != get(t, static, notFound).Body.String() {
		t.Errorf("for an unknown path the site shows %q", got)
	}
	redirects, err := os.ReadFile(filepath.Join(dir, "_redirects"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("/birds/night-heron/ /birds/ 301\n/herons/ /birds/grey-heron/ 301\n", string(redirects)); diff != "" {
		t.Errorf("_redirects (-want +got)\n%s", diff)
	}
	for line := range strings.Lines(string(redirects)) {
		fields := strings.Fields(line)
		w := httptest.NewRecorder()
		site.ServeHTTP(w, httptest.NewRequest("GET", fields[0], nil))
		if w.Code != 301 || w.Header().Get("Location") != fields[1] {
			t.Errorf("%s: the site answers %d %s", fields[0], w.Code, w.Header().Get("Location"))
		}
	}

	if err := run(t.Context(), []string{"-out", dir}, &out); err == nil {
		t.Error("writes to a folder that is not empty")
	}
}

// What cannot be a file is said, and nothing is written outside of the folder.
func TestWriteRefuses(t *testing.T) {
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	w := &writer{dir: root, site: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/fails":
			w.WriteHeader(http.StatusBadGateway)
		case "/gone":
			w.WriteHeader(http.StatusNotFound)
		}
	})}
	for path, want := range map[string]string{
		"/search?q=heron":     "a file has no query",
		"/fails":              "the answer is 502",
		"/gone":               "the answer is 404",
		"/../up":              "cannot be the name of a file",
		"/%2e%2e/up.html":     "cannot be the name of a file",
		"/a%2f..%2f..%2fb.js": "cannot be the name of a file",
		"/a%5cb":              "cannot be the name of a file",
		"/a%00b":              "cannot be the name of a file",
	} {
		if err := w.write(path); err == nil || err.Error() != want {
			t.Errorf("%s: %v", path, err)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("wrote %v, %v", left, err)
	}
}
