package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/isr-go/isr/test/bench/internal/trial"
)

// The floors: what net/http makes of a page that is there, and what pages take that are
// kept and no more than that.
var floors = []trial.Peer{
	{
		Name: "bare handler", Floor: true, Setup: "three headers and a prepared body",
		New: func(http.Handler, trial.Config) (*trial.Cache, error) {
			body := bytes.Repeat([]byte("<p>A page. "), trial.PageBytes/11+1)[:trial.PageBytes]
			length := strconv.Itoa(len(body))
			return &trial.Cache{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				h := w.Header()
				h.Set("Content-Type", "text/html; charset=utf-8")
				h.Set("Content-Length", length)
				h.Set("Cache-Control", "public, max-age=60")
				w.Write(body)
			})}, nil
		},
	},
	{
		Name: "http.ServeContent", Floor: true, Setup: "of a prepared body, with an ETag",
		New: func(http.Handler, trial.Config) (*trial.Cache, error) {
			body := bytes.Repeat([]byte("<p>A page. "), trial.PageBytes/11+1)[:trial.PageBytes]
			return &trial.Cache{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				h := w.Header()
				h.Set("Content-Type", "text/html; charset=utf-8")
				h.Set("Cache-Control", "public, max-age=60")
				h.Set("ETag", `"1"`)
				http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
			})}, nil
		},
	},
	{
		Name: "plain map", Floor: true, Keeps: true,
		Setup: "a `map` from the path to bytes, type and ETag, behind a `sync.RWMutex`: no expiry, no bound",
		New: func(h http.Handler, _ trial.Config) (*trial.Cache, error) {
			return keeper(h, &mapPages{pages: make(map[string]bare)}), nil
		},
	},
	{
		Name: "otter", Module: "github.com/maypok86/otter/v2", Floor: true, Keeps: true, Bounded: true,
		Doc:   "https://github.com/maypok86/otter/blob/v2.4.0/README.md",
		Setup: "the same bytes in otter, with `MaximumWeight`, a `Weigher` and `ExpiryWriting`",
		New: func(h http.Handler, c trial.Config) (*trial.Cache, error) {
			pages, err := otter.New(&otter.Options[string, bare]{
				MaximumWeight:    uint64(c.Bytes),
				Weigher:          func(_ string, p bare) uint32 { return uint32(len(p.body)) },
				ExpiryCalculator: otter.ExpiryWriting[string, bare](c.TTL),
			})
			if err != nil {
				return nil, err
			}
			return keeper(h, otterPages{pages}), nil
		},
	},
}

// A bare page is the least that a page cache can keep.
type bare struct {
	body       []byte
	kind, etag string
}

type barePages interface {
	get(path string) (bare, bool)
	set(path string, p bare)
}

// keeper is a handler that keeps what another one writes, by its path, and nothing that
// makes a cache of that.
func keeper(next http.Handler, pages barePages) *trial.Cache {
	return &trial.Cache{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, ok := pages.get(r.URL.Path)
		if !ok {
			rec := httptest.NewRecorder()
			next.ServeHTTP(rec, r)
			p = bare{bytes.Clone(rec.Body.Bytes()), rec.Header().Get("Content-Type"), strings.Clone(rec.Header().Get("Etag"))}
			pages.set(strings.Clone(r.URL.Path), p)
		}
		h := w.Header()
		h.Set("Content-Type", p.kind)
		h.Set("Content-Length", strconv.Itoa(len(p.body)))
		h.Set("Etag", p.etag)
		w.Write(p.body)
	})}
}

type mapPages struct {
	mu    sync.RWMutex
	pages map[string]bare // guarded by mu
}

func (m *mapPages) get(path string) (bare, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	p, ok := m.pages[path]
	return p, ok
}

func (m *mapPages) set(path string, p bare) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pages[path] = p
}

type otterPages struct{ *otter.Cache[string, bare] }

func (o otterPages) get(path string) (bare, bool) { return o.GetIfPresent(path) }
func (o otterPages) set(path string, p bare)      { o.Set(path, p) }
