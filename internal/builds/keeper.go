package builds

import (
	"context"
	"errors"
	"math"
	"sync"
	"time"

	"github.com/isr-go/isr/internal/backing"
	"github.com/isr-go/isr/internal/cache"
	"github.com/isr-go/isr/internal/page"
	"github.com/isr-go/isr/internal/pagekey"
	"github.com/isr-go/isr/internal/policy"
	"github.com/isr-go/isr/store"
)

// A Config is what a Keeper needs.
type Config struct {
	Backing *backing.Store
	Cache   *cache.Cache
	Build   string // by backing.BuildName
	Origin  pagekey.Origin
	Failed  func(error) // is told, once, of a manifest that is damaged
}

// A Keeper keeps the manifest of a program for one instance: it notes that this build has
// begun, and what is asked for here. It is safe for concurrent use.
type Keeper struct {
	c      Config
	key    string
	stop   context.CancelFunc
	loaded chan struct{} // closed when the Store was asked for the manifest for the first time
	ended  chan struct{} // closed when run has

	mu      sync.Mutex // guards what follows; held alone
	others  []string
	damaged bool // whether Failed was told
}

const (
	interval     = time.Minute // between two writes
	leaseTime    = 2 * time.Second
	manifestLife = 90 * 24 * time.Hour // how long a Store keeps the manifest of a program that does not run
)

// Start returns a Keeper, which begins to work. Close ends that.
func Start(c Config) *Keeper {
	ctx, stop := context.WithCancel(context.Background())
	k := &Keeper{c: c, key: backing.ManifestKey(c.Origin), stop: stop, loaded: make(chan struct{}), ended: make(chan struct{})}
	go k.run(ctx)
	return k
}

func (k *Keeper) run(ctx context.Context) {
	defer close(k.ended)
	k.load()
	close(k.loaded)
	for retry := time.Second; ; {
		pause := interval
		switch err := k.update(); {
		case errors.Is(err, errBusy), errors.Is(err, store.ErrSuperseded):
			pause = time.Second
		case err != nil:
			pause = retry
			retry = min(2*retry, interval)
		default:
			retry = time.Second
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
	}
}

// Close stops the Keeper, and writes what is asked for a last time. It returns when ctx is
// done, if that comes first.
func (k *Keeper) Close(ctx context.Context) {
	k.stop()
	written := make(chan struct{})
	go func() {
		defer close(written)
		<-k.ended
		for n, failed := 0, 0; n < 10 && failed < 3 && ctx.Err() == nil; n++ { // the other instances may be shut down at the same time
			switch err := k.update(); {
			case err == nil:
				return
			case !errors.Is(err, errBusy):
				failed++
			}
			time.Sleep(50 * time.Millisecond)
		}
	}()
	select {
	case <-written:
	case <-ctx.Done():
	}
}

// maxLoadTime is how long Others waits for the first contact.
const maxLoadTime = 100 * time.Millisecond

// Others returns the last three builds but this one, the last to have begun first, as far
// as is known. It waits for the Store at the beginning, but not for long.
func (k *Keeper) Others() []string {
	select {
	case <-k.loaded:
	default:
		t := time.NewTimer(maxLoadTime)
		defer t.Stop()
		select {
		case <-k.loaded:
		case <-t.C:
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.others
}

// Visits returns what all builds were asked for, most asked for first. It fails where the
// Store does not answer, what it has is damaged, or the Keeper is nil.
func (k *Keeper) Visits() ([]Visit, error) {
	if k == nil {
		return nil, errors.New("there is no Store that knows what was asked for")
	}
	m, err := k.load()
	if err != nil {
		return nil, err
	}
	visits := make([]Visit, 0, len(m.Pages))
	for _, a := range m.Pages {
		if v, ok := decodeVisit(a.Page); ok {
			visits = append(visits, v)
		}
	}
	return visits, nil
}

// load reads the manifest. Where there is none it is empty.
func (k *Keeper) load() (*Manifest, error) {
	found, err := k.c.Backing.Look(k.key, store.Ticket{}, 0)
	if err != nil {
		return nil, err
	}
	return k.read(found.Record)
}

// read reads the manifest from its record, if there is one.
func (k *Keeper) read(rec *store.Record) (*Manifest, error) {
	m, err := new(Manifest), error(nil)
	if rec != nil {
		m, err = decode(rec.Data, k.key)
	}
	k.mu.Lock()
	first := err != nil && !k.damaged
	k.damaged = k.damaged || err != nil
	if err == nil {
		k.others = m.Others(k.c.Build)
	}
	k.mu.Unlock()
	if first {
		k.c.Failed(err)
	}
	return m, err
}

// errBusy says that another instance writes the manifest.
var errBusy = errors.New("another instance writes the manifest")

// newest is the ticket of what no record is newer than: with it a Look always takes the
// lease.
var newest = store.Ticket{Version: math.MaxUint64, Fence: math.MaxUint64}

// update adds to the manifest what this instance knows. One that is damaged is made anew.
func (k *Keeper) update() error {
	found, err := k.c.Backing.Look(k.key, newest, leaseTime)
	if err != nil {
		return err
	}
	if !found.Ticket.Leader {
		return errBusy
	}
	read := func() (*Manifest, error) { return k.read(found.Record) }
	if found.Record == nil { // or an engine does not return what is not newer
		read = k.load
	}
	m, err := read()
	switch {
	case errors.Is(err, errDamaged):
		m = new(Manifest)
	case err != nil:
		k.c.Backing.Release(k.key, found.Ticket)
		return err
	}
	now := time.Now()
	began := m.Begin(k.c.Build)
	if asked := m.Merge(k.asked(now), now); !began && !asked {
		k.c.Backing.Release(k.key, found.Ticket)
		return nil
	}
	err = k.c.Backing.Save(k.key, found.Ticket, &store.Record{TTL: manifestLife, Data: m.encode(k.key)})
	if err == nil {
		k.mu.Lock()
		k.others = m.Others(k.c.Build)
		k.mu.Unlock()
	}
	return err
}

// asked returns what this instance was asked for most.
func (k *Keeper) asked(now time.Time) (asked []Asked) {
	o := k.c.Origin
	for _, p := range k.c.Cache.Hottest(maxPages, now, isWorthKeeping) {
		v := Visit{
			Scheme: p.Key.Scheme, Host: p.Key.Host, Path: p.Key.Path, Query: p.Key.Query,
			Pattern: p.Key.Pattern, Header: pagekey.ParseHeader(p.Key.Variant),
		}
		if o.Host != "" {
			v.Scheme, v.Host = o.Scheme, o.Host
		}
		asked = append(asked, Asked{v.encode(), float64(p.Hits)})
	}
	return asked
}

// isWorthKeeping reports whether a page may be in the manifest: what is secret is not
// written down.
func isWorthKeeping(p *page.Page) bool {
	return !p.IsUnknown() && p.Key.IsPath() && !policy.IsNotFound(p.Status) && p.Key.Length() <= maxPageBytes &&
		(p.Key.Variant == "" || pagekey.ParseHeader(p.Key.Variant)["Authorization"] == nil)
}
