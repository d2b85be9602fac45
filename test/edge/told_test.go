package edge_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/edge"
	"github.com/isr-go/isr/edge/varnish"
	"github.com/isr-go/isr/internal/servers"
)

// A told is a site with Varnish in front, which is told of edits, and keeps pages for a day.
type told struct {
	*site
	api   *api
	paths []string
	asked atomic.Int64 // how often Varnish has asked the site

	mu    sync.Mutex
	floor map[string]int // what nobody may see less than, since an edit has returned nil
	old   int            // how often that was seen
	reads int
}

// An api is what purges go through, and can be down.
type api struct{ down atomic.Bool }

var errDown = errors.New("connection refused")

func (a *api) RoundTrip(r *http.Request) (*http.Response, error) {
	if a.down.Load() {
		return nil, errDown
	}
	return http.DefaultTransport.RoundTrip(r)
}

// newTold starts a site with so many pages, and Varnish with the VCL of package varnish in
// front of it, which is told of edits or is not.
func newTold(t *testing.T, pages int, tell bool) *told {
	t.Helper()
	servers.Need(t, "varnishd", "varnish")
	if found, _ := filepath.Glob("/usr/lib/*/varnish/vmods/libvmod_xkey.so"); len(found) == 0 {
		servers.Need(t, "/usr/lib/varnish/vmods/libvmod_xkey.so", "varnish-modules")
	}
	d := &told{api: new(api), floor: make(map[string]int)}
	for i := range pages {
		d.paths = append(d.paths, fmt.Sprint("/page/", i))
	}
	d.site = &site{cms: &cms{pages: make(map[string]*entry)}}
	vcl, err := os.ReadFile("../../edge/varnish/xkey.vcl")
	if err != nil {
		t.Fatal(err)
	}
	const origin = `.port = "8080"`
	if !strings.Contains(string(vcl), origin) {
		t.Fatalf("xkey.vcl has no %s", origin)
	}
	var handler atomic.Pointer[isr.Site] // Varnish needs the port of the site, and the site that of Varnish
	port := servers.Origin(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d.asked.Add(1)
		handler.Load().ServeHTTP(w, r)
	}))
	front := servers.Varnish(t, strings.ReplaceAll(string(vcl), origin, `.port = "`+port+`"`))
	d.front = front.URL
	o := isr.Options{
		Origin: "http://example.com", SharedMaxAge: sharedMaxAge,
		Default: isr.Route{TTL: 24 * time.Hour},
	}
	if tell {
		o.Edge = varnish.New(varnish.Options{Servers: []string{front.URL}, Client: &http.Client{Transport: d.api}})
	}
	d.Site = isr.Wrap(http.HandlerFunc(d.show), o)
	handler.Store(d.Site)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := d.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	})
	return d
}

var _ edge.Edge = varnish.New(varnish.Options{Servers: []string{"http://127.0.0.1"}})

// read is a reader's visit: what they get is not older than an edit that was done before.
func (d *told) read(t *testing.T, path string) {
	d.mu.Lock()
	floor := d.floor[path]
	d.mu.Unlock()
	revision, err := d.get(t.Context(), path)
	if err != nil {
		t.Error(err)
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reads++
	if revision < floor {
		d.old++
		t.Logf("%s: revision %d, and an edit to %d was done before it was asked for", path, revision, floor)
	}
}

// warm has Varnish keep all pages. What it gets before they are compressed it keeps for a
// second.
func (d *told) warm(t *testing.T) {
	for range 2 {
		for _, path := range d.paths {
			d.read(t, path)
		}
		time.Sleep(1100 * time.Millisecond)
	}
	for _, path := range d.paths {
		d.read(t, path)
	}
}

// save is an editor's: it edits a page, and has it revalidated or purged.
func (d *told) save(ctx context.Context, path string, purge bool) error {
	var revision int
	d.edit(path, func(e *entry) { e.revision++; revision = e.revision })
	var err error
	if purge {
		err = d.Purge(ctx, path)
	} else {
		err = d.Revalidate(ctx, path)
	}
	if err == nil {
		d.mu.Lock()
		d.floor[path] = max(d.floor[path], revision)
		d.mu.Unlock()
	}
	return err
}

// browse has readers read until stop is called: some pages more than others.
func (d *told) browse(t *testing.T, readers int, pause time.Duration) (stop func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	for i := range readers {
		wg.Go(func() {
			zipf := rand.NewZipf(rand.New(rand.NewPCG(1, uint64(i))), 1.1, 8, uint64(len(d.paths)-1))
			for {
				select {
				case <-done:
					return
				default:
				}
				d.read(t, d.paths[zipf.Uint64()])
				time.Sleep(pause)
			}
		})
	}
	return func() {
		close(done)
		wg.Wait()
	}
}

// Four editors edit pages that Varnish keeps for a day, while many read them: once
// Revalidate or Purge has returned nil, nobody gets what is older.
func TestToldEdits(t *testing.T) {
	const editors = 4
	pages, each := 50, 60
	if *table {
		pages, each = 500, 2500
	}
	d := newTold(t, pages, true)
	stop := d.browse(t, 4, time.Millisecond)
	began := time.Now()
	var wg sync.WaitGroup
	var failed atomic.Int64
	for i := range editors {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(2, uint64(i)))
			for n := range each {
				path := d.paths[random.IntN(len(d.paths))]
				if err := d.save(t.Context(), path, n%2 == 0); err != nil {
					failed.Add(1)
					t.Error(err)
				}
				d.read(t, path)
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	stop()
	for _, path := range d.paths {
		d.read(t, path)
	}
	if d.old > 0 {
		t.Errorf("%d of %d readers got a page that was older than an edit that was done", d.old, d.reads)
	}
	note(t, "edits", fmt.Sprintf("%d edits of %d pages by four editors", editors*each, pages),
		fmt.Sprintf("%d readers, %d old pages, %d errors; %d edits a second", d.reads, d.old, failed.Load(), int(float64(editors*each)/took.Seconds())))
}

// While Varnish cannot be told, an edit is an error to the editor; soon after it can be
// again, without anybody's doing, nobody gets what is older.
func TestToldOutage(t *testing.T) {
	outage := 3 * time.Second
	if *table {
		outage = time.Minute
	}
	const most = 5 * time.Second
	d := newTold(t, 50, true)
	d.warm(t)
	d.api.down.Store(true)
	failed := 0
	for _, path := range d.paths {
		if err := d.save(t.Context(), path, false); err != nil {
			failed++
		}
		d.floor[path] = 0
	}
	if owed := d.Stats().EdgeOwed; failed != len(d.paths) || owed != len(d.paths) {
		t.Errorf("%d of %d edits have failed, %d are owed", failed, len(d.paths), owed)
	}
	time.Sleep(outage)
	shown := 0 // which shows that there was something to tell
	for _, path := range d.paths {
		if revision, _ := d.get(t.Context(), path); revision < 2 {
			shown++
		}
	}
	if shown != len(d.paths) {
		t.Errorf("%d of %d old pages are shown, and Varnish was not told", shown, len(d.paths))
	}
	began := time.Now()
	d.api.down.Store(false)
	for d.Stats().EdgeOwed > 0 && time.Since(began) < 2*most {
		time.Sleep(10 * time.Millisecond)
	}
	paid := time.Since(began)
	old := 0
	for _, path := range d.paths {
		if revision, err := d.get(t.Context(), path); err != nil || revision < 2 {
			old++
		}
	}
	if old > 0 || paid > most {
		t.Errorf("%d old pages, %v after Varnish could be told again", old, paid)
	}
	note(t, "outage", fmt.Sprintf("purges fail for %v, %d edits", outage, len(d.paths)),
		fmt.Sprintf("%d errors to the editors; %d old pages %.1f s after the end", failed, old, paid.Seconds()))
}

// How many readers Varnish answers by itself, with the same load: that is what an Edge is
// for.
func TestToldHits(t *testing.T) {
	duration, pages := 3*time.Second, 100
	if *table {
		duration, pages = time.Minute, 500
	}
	ratio := make(map[bool]float64)
	for _, tell := range []bool{true, false} {
		d := newTold(t, pages, tell)
		d.warm(t)
		d.reads = 0
		d.asked.Store(0)
		stop := d.browse(t, 4, 2*time.Millisecond)
		ctx, cancel := context.WithTimeout(t.Context(), duration)
		for ctx.Err() == nil {
			path := d.paths[rand.IntN(len(d.paths))]
			d.edit(path, func(e *entry) { e.revision++ })
			if err := d.Revalidate(t.Context(), path); err != nil {
				t.Error(err)
			}
			time.Sleep(500 * time.Millisecond)
		}
		cancel()
		stop()
		ratio[tell] = 1 - float64(d.asked.Load())/float64(d.reads)
	}
	if ratio[true] < 0.95 || ratio[true] < ratio[false] {
		t.Errorf("Varnish answers %.3f of the readers with an Edge, and %.3f without; want 0.95 at least", ratio[true], ratio[false])
	}
	note(t, "hits", fmt.Sprintf("two edits a second of %d pages", pages),
		fmt.Sprintf("%.3f with an Edge, %.3f without, by a `SharedMaxAge` of 2 seconds", ratio[true], ratio[false]))
}

// note prints a row, and writes it into the table in README.md.
func note(t *testing.T, name, load, seen string) {
	row := fmt.Sprintf("| %s | %s | %s |", name, load, seen)
	fmt.Println(row)
	if !*table || t.Failed() {
		return
	}
	const file = "README.md"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^\| ` + name + ` \|.*$`)
	if !line.Match(text) {
		t.Fatalf("%s has no row %q", file, name)
	}
	if err := os.WriteFile(file, line.ReplaceAllLiteral(text, []byte(row)), 0o644); err != nil {
		t.Fatal(err)
	}
}
