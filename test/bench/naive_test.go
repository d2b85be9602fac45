package main

import (
	"bytes"
	"net/http"
	"sync"

	"github.com/isr-go/isr/test/bench/internal/trial"
)

// naivePeer is a cache that keeps whatever it gets, by the path alone, and does
// everything wrong that can be: what the faults have to see.
var naivePeer = trial.Peer{
	Name: "naive",
	New: func(h http.Handler, _ trial.Config) (*trial.Cache, error) {
		n := &naive{handler: h, pages: make(map[string]*recorder)}
		return &trial.Cache{Handler: n, Purge: n.purge}, nil
	},
}

type naive struct {
	handler http.Handler

	mu    sync.Mutex
	pages map[string]*recorder // guarded by mu
}

func (n *naive) purge(path string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.pages, path)
	return nil
}

func (n *naive) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	page := n.pages[r.URL.Path]
	n.mu.Unlock()
	if page == nil {
		page = &recorder{header: make(http.Header), status: http.StatusOK}
		func() {
			defer func() { recover() }()
			n.handler.ServeHTTP(page, r)
		}()
		n.mu.Lock()
		n.pages[r.URL.Path] = page
		n.mu.Unlock()
	}
	for name, values := range page.header {
		w.Header()[name] = values
	}
	w.WriteHeader(page.status)
	w.Write(page.body.Bytes())
}

type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header    { return r.header }
func (r *recorder) WriteHeader(status int) { r.status = status }
func (r *recorder) Write(b []byte) (int, error) {
	r.body.Reset() // it takes the last piece for all
	return r.body.Write(b)
}
