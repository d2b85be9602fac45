package edge_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/internal/servers"
)

// sharedMaxAge is for how long what is in front may show a page after an edit.
const sharedMaxAge = 2 * time.Second

// A cms has pages, which are edited, not yet there, or out of order.
type cms struct {
	mu    sync.Mutex
	pages map[string]*entry // by path; guarded by mu
}

type entry struct {
	revision int
	missing  bool
	failing  bool
}

func (c *cms) edit(path string, f func(e *entry)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.pages[path]
	if e == nil {
		e = &entry{revision: 1}
		c.pages[path] = e
	}
	f(e)
}

// show is the handler of the site: it shows the revision of a page, and tags it.
func (c *cms) show(w http.ResponseWriter, r *http.Request) {
	var e entry
	c.edit(r.URL.Path, func(p *entry) { e = *p })
	switch {
	case e.failing:
		http.Error(w, "revision 0: the database is down", http.StatusInternalServerError)
		return
	case e.missing:
		w.WriteHeader(http.StatusNotFound)
	default:
		w.Header().Set("Cache-Tag", tagOf(r.URL.Path))
	}
	fmt.Fprintf(w, "revision %d\n%s", e.revision, strings.Repeat("a page that is worth to be compressed\n", 100))
}

func tagOf(path string) string { return "tag:" + strings.TrimPrefix(path, "/") }

// A site is one with a cache in front.
type site struct {
	*isr.Site
	*cms
	front string
}

func newSite(t *testing.T, start func(t *testing.T, origin string) *servers.Server) *site {
	t.Helper()
	s := &site{cms: &cms{pages: make(map[string]*entry)}}
	s.Site = isr.Wrap(http.HandlerFunc(s.show), isr.Options{
		Origin:       "http://example.com",
		SharedMaxAge: sharedMaxAge,
		Routes:       map[string]isr.Route{"/short/": {TTL: time.Second}},
	})
	s.front = start(t, servers.Origin(t, s.Site)).URL
	return s
}

// get returns the revision that a reader sees, and zero for an error.
func (s *site) get(ctx context.Context, path string) (revision int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.front+path, nil)
	if err != nil {
		return 0, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	if _, err = fmt.Fscanf(res.Body, "revision %d", &revision); err != nil {
		return 0, fmt.Errorf("%s: %s: %w", path, res.Status, err)
	}
	return revision, nil
}
