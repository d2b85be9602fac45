package main

import (
	"bytes"
	"context"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/ristretto/v2"
	"github.com/maypok86/otter/v2"

	"github.com/isr-go/isr"
)

const (
	pageBytes   = 2048
	maxOverhead = 1280 // what a page may take beside its bytes: an upper bound, for room
	ttl         = time.Hour
)

// sections are how many a site has. Pages take turns in them: a page of section 7 is
// below /7/, and has the tag t7.
const sections = 10

var tags = [sections]string{"t0", "t1", "t2", "t3", "t4", "t5", "t6", "t7", "t8", "t9"}

// paths are those of a site's pages, in one string: no pointers for the collector, and to
// take one allocates nothing.
type paths string

const pathBytes = len("/7/0000007")

func makePaths(n int) paths {
	var b strings.Builder
	b.Grow(n * pathBytes)
	for i := range n {
		fmt.Fprintf(&b, "/%d/%07d", i%sections, i)
	}
	return paths(b.String())
}

func (p paths) at(i uint32) string { return string(p[int(i)*pathBytes : (int(i)+1)*pathBytes]) }

// An origin is the handler behind all containers. Its pages do not compress. It counts
// what it generates.
type origin struct{ generated atomic.Int64 }

func (o *origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.generated.Add(1)
	_, last, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	i, err := strconv.ParseUint(last, 10, 32)
	if err != nil {
		http.NotFound(w, r)
		return
	}
	body := make([]byte, 0, pageBytes)
	chance := rand.NewPCG(i, 0)
	for len(body) < pageBytes {
		v := chance.Uint64()
		body = append(body, byte(v), byte(v>>8), byte(v>>16), byte(v>>24), byte(v>>32), byte(v>>40), byte(v>>48), byte(v>>56))
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Tag", tags[i%sections])
	w.Write(body)
}

// A cache is a container at work. What it cannot do is nil.
type cache struct {
	http.Handler
	purge       func(path string) error
	purgeTag    func(tag string) error
	purgePrefix func(prefix string) error // which ends in a slash
	purgeAll    func() error
	settle      func() // waits for what it does behind its visitors' backs
}

// An engine is a container for n pages.
type engine struct {
	name, setup string
	make        func(h http.Handler, n int) (*cache, error)
}

var engines = []engine{
	{"isr", "`Options{Default: Route{TTL}, MaxBytes}`", newISR},
	{"map", "`map[string]page`, `sync.RWMutex`", small(newPlain)},
	{"otter", "`MaximumWeight` with a `Weigher`, `ExpiryWriting`", small(newOtter)},
	{"ristretto", "`NumCounters` ten times the pages, `MaxCost`, `BufferItems: 64`, `SetWithTTL`", small(newRistretto)},
}

func engineNames() (names []string) {
	for _, e := range engines {
		names = append(names, e.name)
	}
	return names
}

func newISR(h http.Handler, n int) (*cache, error) {
	ctx := context.Background()
	site := isr.Wrap(h, isr.Options{Default: isr.Route{TTL: ttl}, MaxBytes: room(n)})
	return &cache{
		Handler:     site,
		purge:       func(path string) error { return site.Purge(ctx, path) },
		purgeTag:    func(tag string) error { return site.PurgeTag(ctx, tag) },
		purgePrefix: func(prefix string) error { return site.Purge(ctx, prefix+"*") },
		purgeAll:    func() error { return site.Purge(ctx, "/*") },
		settle:      func() {},
	}, nil
}

// room returns how many bytes n pages may take, whatever the container.
func room(n int) int64 { return int64(n)*(pageBytes+maxOverhead) + 64<<20 }

// A smallPage is what a page cache of an afternoon keeps.
type smallPage struct {
	body            []byte
	kind, etag, tag string
}

// size is what the page takes, about.
func (p *smallPage) size() int64 { return int64(len(p.body)) + 256 }

// A container keeps pages by path.
type container interface {
	get(path string) (smallPage, bool)
	set(path string, p smallPage)
	remove(path string)
	// removeWhere removes all for which gone is true; nil where it cannot be walked.
	removeWhere() func(gone func(path string, p *smallPage) bool)
	clear()
	settle()
}

// small makes a page cache of an afternoon out of a container.
func small(newContainer func(n int) (container, error)) func(http.Handler, int) (*cache, error) {
	return func(h http.Handler, n int) (*cache, error) {
		pages, err := newContainer(n)
		if err != nil {
			return nil, err
		}
		c := &cache{
			Handler:  &smallCache{pages, h},
			purge:    func(path string) error { pages.remove(path); return nil },
			purgeAll: func() error { pages.clear(); return nil },
			settle:   pages.settle,
		}
		if where := pages.removeWhere(); where != nil {
			c.purgeTag = func(tag string) error {
				where(func(_ string, p *smallPage) bool { return p.tag == tag })
				return nil
			}
			c.purgePrefix = func(prefix string) error {
				where(func(path string, _ *smallPage) bool { return strings.HasPrefix(path, prefix) })
				return nil
			}
		}
		return c, nil
	}
}

// A smallCache is a page cache as one writes it in an afternoon: it has neither one run for
// all who wait, nor anything stale, conditional, compressed or private.
type smallCache struct {
	pages container
	next  http.Handler
}

func (c *smallCache) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p, ok := c.pages.get(r.URL.Path)
	if !ok {
		p = c.generate(r)
		c.pages.set(r.URL.Path, p)
	}
	h := w.Header()
	h.Set("Content-Type", p.kind)
	h.Set("Content-Length", strconv.Itoa(len(p.body)))
	h.Set("Etag", p.etag)
	h.Set("Cache-Control", "public, max-age=0, s-maxage=60")
	w.Write(p.body)
}

func (c *smallCache) generate(r *http.Request) smallPage {
	w := &recorder{header: make(http.Header)}
	c.next.ServeHTTP(w, r)
	sum := fnv.New64a()
	sum.Write(w.body.Bytes())
	return smallPage{
		body: bytes.Clone(w.body.Bytes()), kind: w.header.Get("Content-Type"),
		etag: fmt.Sprintf(`"%x"`, sum.Sum64()), tag: w.header.Get("Cache-Tag"),
	}
}

// A recorder is a ResponseWriter that keeps what is written.
type recorder struct {
	header http.Header
	body   bytes.Buffer
}

func (w *recorder) Header() http.Header         { return w.header }
func (w *recorder) WriteHeader(int)             {}
func (w *recorder) Write(b []byte) (int, error) { return w.body.Write(b) }

// A plain container is a map. It has no bound.
type plain struct {
	mu    sync.RWMutex
	pages map[string]expiring // guarded by mu
}

type expiring struct {
	smallPage
	until time.Time
}

func newPlain(int) (container, error) { return &plain{pages: make(map[string]expiring)}, nil }

func (c *plain) get(path string) (smallPage, bool) {
	c.mu.RLock()
	p, ok := c.pages[path]
	c.mu.RUnlock()
	return p.smallPage, ok && time.Now().Before(p.until)
}

func (c *plain) set(path string, p smallPage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pages[path] = expiring{p, time.Now().Add(ttl)}
}

func (c *plain) remove(path string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pages, path)
}

func (c *plain) removeWhere() func(func(string, *smallPage) bool) {
	return func(gone func(string, *smallPage) bool) {
		c.mu.Lock()
		defer c.mu.Unlock()
		for path, p := range c.pages {
			if gone(path, &p.smallPage) {
				delete(c.pages, path)
			}
		}
	}
}

func (c *plain) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pages = make(map[string]expiring)
}

func (c *plain) settle() {}

type otterContainer struct {
	*otter.Cache[string, smallPage]
}

func newOtter(n int) (container, error) {
	c, err := otter.New(&otter.Options[string, smallPage]{
		MaximumWeight:    uint64(room(n)),
		Weigher:          func(_ string, p smallPage) uint32 { return uint32(p.size()) },
		ExpiryCalculator: otter.ExpiryWriting[string, smallPage](ttl),
	})
	return otterContainer{c}, err
}

func (c otterContainer) get(path string) (smallPage, bool) { return c.GetIfPresent(path) }
func (c otterContainer) set(path string, p smallPage)      { c.Set(path, p) }
func (c otterContainer) remove(path string)                { c.Invalidate(path) }
func (c otterContainer) clear()                            { c.InvalidateAll() }
func (c otterContainer) settle()                           { c.CleanUp() }

func (c otterContainer) removeWhere() func(func(string, *smallPage) bool) {
	return func(gone func(string, *smallPage) bool) {
		for path, p := range c.All() {
			if gone(path, &p) {
				c.Invalidate(path)
			}
		}
	}
}

type ristrettoContainer struct {
	*ristretto.Cache[string, smallPage]
}

func newRistretto(n int) (container, error) {
	c, err := ristretto.NewCache(&ristretto.Config[string, smallPage]{
		NumCounters: 10 * int64(n), MaxCost: room(n), BufferItems: 64,
	})
	return ristrettoContainer{c}, err
}

func (c ristrettoContainer) get(path string) (smallPage, bool) { return c.Get(path) }
func (c ristrettoContainer) set(path string, p smallPage)      { c.SetWithTTL(path, p, p.size(), ttl) }
func (c ristrettoContainer) remove(path string)                { c.Del(path) }
func (c ristrettoContainer) clear()                            { c.Clear() }
func (c ristrettoContainer) settle()                           { c.Wait() }

// It keeps no keys, only their hashes.
func (c ristrettoContainer) removeWhere() func(func(string, *smallPage) bool) { return nil }
