// Package edgetest is the contract of [edge.Edge] as a suite of tests, for those who
// write an adapter:
//
//	func TestEdge(t *testing.T) {
//		edgetest.Run(t, func(t *testing.T, origin http.Handler) edgetest.Config {
//			front := startProduct(t, httptest.NewServer(origin).URL) // ends by t.Cleanup
//			return edgetest.Config{Edge: adapter.New(front.AdminURL), URL: front.URL}
//		})
//	}
//
// The suite is the origin: it makes pages, marks them, asks for them through the
// product, and tells. It asserts nothing about speed.
package edgetest

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/isr-go/isr/edge"
	"github.com/isr-go/isr/store"
)

// patience is how long a test waits for what must happen.
const patience = time.Minute

// A Config is an adapter, and the product that it is for, with an empty cache. Edge and
// URL are needed; what cannot be done is left zero, and the tests of it are skipped.
type Config struct {
	Edge edge.Edge

	// URL is where visitors ask the product: "http://127.0.0.1:6081".
	URL string

	// Settle is how long after Tell has returned nil an old page may still be seen. Zero:
	// not any more.
	Settle time.Duration

	// Coarse says that a tag drops pages, too, that do not have it.
	Coarse bool

	// Pause makes the product hang, as SIGSTOP does, until resume, which is called once.
	// Nil: it cannot.
	Pause func() (resume func())

	// Refused is the same with a wrong secret, zone or service; Secret is what its
	// errors must not contain, and Names is in all of them: what was wrong. Nil: there
	// is nothing to refuse.
	Refused       edge.Edge
	Secret, Names string
}

// Run tests an adapter, one of its properties after the other. It calls config once,
// with the origin of the pages; config ends what it has started by t.Cleanup.
func Run(t *testing.T, config func(t *testing.T, origin http.Handler) Config) {
	o := &origin{}
	c := config(t, o)
	o.edge = c.Edge
	for _, p := range properties {
		t.Run(p.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			o.begin(t)
			p.run(&test{T: t, Config: c, origin: o, ctx: ctx})
		})
	}
}

var properties = []struct {
	name string
	run  func(*test)
}{
	{"Mark", mark},
	{"Limit", limit},
	{"Kept", kept},
	{"Unmarked", unmarked},
	{"Effects", effects},
	{"AnyBytes", anyBytes},
	{"ManyTags", manyTags},
	{"Variants", variants},
	{"Again", again},
	{"Nothing", nothing},
	{"URLs", urls},
	{"Context", contexts},
	{"Pause", pause},
	{"Refused", refused},
	{"Concurrent", concurrent},
}

// A test is one property's.
type test struct {
	*testing.T
	Config
	origin *origin
	ctx    context.Context
}

// An origin has the pages of a test.
type origin struct {
	edge edge.Edge

	mu    sync.Mutex // guards what follows; an outermost lock
	t     *testing.T // the test that runs
	made  int        // how many pages it has made
	pages map[string]page
}

// A page is what the origin has at a path.
type page struct {
	tags    []string
	control string // its Cache-Control as it is generated
}

const fresh = "public, max-age=0, s-maxage=3600"

// begin forgets the pages of other tests.
func (o *origin) begin(t *testing.T) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.t, o.pages = t, make(map[string]page)
}

// ServeHTTP makes the page at a path, and marks it as a Site does. Its body is a number:
// each is larger than those before.
func (o *origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	defer o.mu.Unlock()
	p, ok := o.pages[r.URL.Path]
	if !ok {
		http.NotFound(w, r)
		return
	}
	o.made++
	h := w.Header()
	if p.control != "" {
		h.Set("Cache-Control", p.control)
	}
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Vary", "Accept-Encoding")
	if !o.edge.Mark(h, p.tags) {
		o.t.Errorf("%s: its tags do not fit", r.URL.Path)
	}
	h.Set("Cache-Control", "public, max-age=0") // to all but the product
	fmt.Fprint(w, o.made)
}

// put makes a page.
func (t *test) put(path string, tags ...string) { t.putAs(path, fresh, tags...) }

func (t *test) putAs(path, control string, tags ...string) {
	t.origin.mu.Lock()
	defer t.origin.mu.Unlock()
	t.origin.pages[path] = page{tags, control}
}

// get asks the product for a page, and returns which one it is.
func (t *test) get(path string, header ...string) int {
	t.Helper()
	made, err := t.ask(path, header...)
	if err != nil {
		t.Fatalf("GET %s: %v", path, err)
	}
	return made
}

func (t *test) ask(path string, header ...string) (int, error) {
	req, err := http.NewRequestWithContext(t.ctx, http.MethodGet, t.URL+path, nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Accept-Encoding", "identity")
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("%s, %q, %v", res.Status, body, err)
	}
	return strconv.Atoi(strings.TrimSpace(string(body)))
}

// cached asks for a page until the product has it, and returns which one it is.
func (t *test) cached(path string, header ...string) int {
	t.Helper()
	first := t.get(path, header...)
	if again := t.get(path, header...); again != first {
		t.Fatalf("GET %s: the product does not keep the page: %d, then %d", path, first, again)
	}
	return first
}

// tell tells the tags, and waits until that must be seen.
func (t *test) tell(effect store.Effect, tags ...string) {
	t.Helper()
	if err := t.Edge.Tell(t.ctx, effect, tags); err != nil {
		t.Fatalf("Tell(%v, %d tags, %.100q): %v", effect, len(tags), tags[:min(len(tags), 3)], err)
	}
	time.Sleep(t.Settle)
}

// isNew asks for a page, and fails the test if it is an old one.
func (t *test) isNew(path string, old int, header ...string) {
	t.Helper()
	if got := t.get(path, header...); got <= old {
		t.Errorf("GET %s: page %d is shown, and %d was told", path, got, old)
	}
}

// isSame asks for a page, and fails the test if it is another one.
func (t *test) isSame(path string, old int) {
	t.Helper()
	if got := t.get(path); got != old {
		t.Errorf("GET %s: page %d, want %d: nobody has told of it", path, got, old)
	}
}

// isKept fails the test if the product has dropped a page that it was not told about.
func (t *test) isKept(path string, old int) {
	t.Helper()
	if !t.Coarse {
		t.isSame(path, old)
	}
}
