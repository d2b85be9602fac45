package main

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// notFound is a path that is not there: its page is what hosts show for all others.
const notFound = "/404.html"

// A writer writes pages to files. Nothing gets out of its dir.
type writer struct {
	site      http.Handler
	dir       *os.Root
	redirects []string
}

// all writes each page that was made, and passes on what came of it.
func (w *writer) all(made iter.Seq2[string, error]) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for name, err := range made {
			if err == nil {
				if err = w.write(name); err != nil {
					err = fmt.Errorf("%s: %w", name, err)
				}
			}
			if !yield(name, err) {
				return
			}
		}
	}
}

// write writes the page at a path or URL.
func (w *writer) write(name string) error {
	u, err := url.Parse(name)
	if err != nil {
		return err
	}
	if u.RawQuery != "" {
		return errors.New("a file has no query")
	}
	req, err := http.NewRequest(http.MethodGet, u.EscapedPath(), nil)
	if err != nil {
		return err
	}
	req.RequestURI = u.EscapedPath()
	res := &response{header: make(http.Header), status: http.StatusOK}
	w.site.ServeHTTP(res, req)
	switch res.status {
	case http.StatusOK:
	case http.StatusMovedPermanently, http.StatusPermanentRedirect:
		w.redirects = append(w.redirects, fmt.Sprintf("%s %s %d\n", u.EscapedPath(), res.header.Get("Location"), res.status))
		return nil
	case http.StatusNotFound:
		if u.Path == notFound {
			break
		}
		fallthrough
	default:
		return fmt.Errorf("the answer is %d", res.status)
	}
	file, err := fileOf(u.Path)
	if err != nil {
		return err
	}
	if err := w.dir.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return w.dir.WriteFile(file, res.body.Bytes(), 0o644)
}

// fileOf returns the file in which a host looks for a path: /birds/ and /birds are
// birds/index.html, and what has an extension is as it is.
func fileOf(p string) (string, error) {
	switch {
	case strings.HasSuffix(p, "/"):
		p += "index.html"
	case path.Ext(p) == "":
		p += "/index.html"
	}
	file := filepath.FromSlash(strings.TrimPrefix(p, "/"))
	if path.Clean(p) != p || !filepath.IsLocal(file) || strings.ContainsAny(p, "\\\x00") {
		return "", errors.New("cannot be the name of a file")
	}
	return file, nil
}

// writeRedirects writes the file in which hosts look for redirects.
func (w *writer) writeRedirects() error {
	slices.Sort(w.redirects)
	return w.dir.WriteFile("_redirects", []byte(strings.Join(w.redirects, "")), 0o644)
}

// A response keeps what is written to it.
type response struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *response) Header() http.Header         { return r.header }
func (r *response) WriteHeader(status int)      { r.status = status }
func (r *response) Write(b []byte) (int, error) { return r.body.Write(b) }
