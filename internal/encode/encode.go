// Package encode compresses pages behind the visitors who wait for them: by gzip, and by
// the Site's own encoders, each of which costs only its own encoding where it fails, is
// slow or never returns.
package encode

import (
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"weak"

	"github.com/isr-go/isr/internal/cache"
	"github.com/isr-go/isr/internal/header"
	"github.com/isr-go/isr/internal/page"
)

// An Encoder is an isr.Encoder, which says what the methods mean.
type Encoder interface {
	Coding() string
	Encode(w io.Writer, body []byte) error
}

// A Config is what a Pool needs.
type Config struct {
	Cache   *cache.Cache
	Evicted func([]*page.Page)             // to make room for an encoding
	Failed  func(coding string, err error) // an encoder
}

// A Pool encodes the pages of one Site. It is safe for concurrent use.
type Pool struct {
	c       Config
	codings []string // best first; the last is gzip
	lanes   []*lane
}

const gzipped = "gzip"

// New returns a Pool with some encoders, the best first. It panics where one is invalid.
func New[E Encoder](c Config, encoders []E) *Pool {
	p := &Pool{c: c}
	for i, e := range encoders {
		wrong := func(format string, args ...any) {
			panic(fmt.Sprintf("isr: Options.Encoders[%d]: ", i) + fmt.Sprintf(format, args...))
		}
		if any(e) == nil {
			wrong("nil")
		}
		coding := strings.ToLower(e.Coding())
		switch {
		case !header.IsToken(coding) || coding == "*" || coding == "identity":
			wrong("%q is not the name of a content coding", coding)
		case coding == gzipped || coding == "x-gzip":
			wrong("gzip is there anyway")
		case slices.Contains(p.codings, coding):
			wrong("there are two for %s", coding)
		}
		p.codings = append(p.codings, coding)
		p.lanes = append(p.lanes, &lane{p: p, encoder: e, coding: coding, slots: max(1, runtime.GOMAXPROCS(0)/2)})
	}
	p.codings = append(p.codings, gzipped)
	return p
}

// Codings returns the codings in which there may be encodings, best first.
func (p *Pool) Codings() []string { return p.codings }

// Gzip compresses a page that is not shared yet.
func (p *Pool) Gzip(pg *page.Page) {
	if pg.IsUnfinished() && pg.Encoded(gzipped) == nil {
		if b := zip(pg.Body()); b != nil {
			pg.Add(pg.NewEncoding(gzipped, b), p.codings)
		}
	}
}

// Encode compresses a stored page: by gzip, unless that was done, before it returns, and
// by the encoders behind it. The channel is closed when they are done. A page is known
// unless it is only a visitor who has asked for it, and for the first time.
func (p *Pool) Encode(pg *page.Page, isZipped, isKnown bool) <-chan struct{} {
	done := make(chan struct{})
	if !pg.Begin() {
		close(done)
		return done
	}
	j := &job{page: weak.Make(pg), size: len(pg.Body()) - len(pg.Body())/leastGain, done: done}
	j.left.Store(1)
	defer j.end()
	if !isZipped && pg.Encoded(gzipped) == nil {
		if b := zip(pg.Body()); b != nil {
			p.add(pg, gzipped, b)
		}
	}
	if b := pg.Encoded(gzipped); b != nil {
		j.size = len(b)
	}
	for _, l := range p.lanes {
		if pg.Encoded(l.coding) == nil {
			j.left.Add(1)
			l.add(j, isKnown)
		}
	}
	return done
}

// add adds an encoding to a stored page.
func (p *Pool) add(pg *page.Page, coding string, b []byte) {
	evicted, _ := p.c.Cache.AddEncoding(pg, pg.NewEncoding(coding, b), p.codings)
	if len(evicted) > 0 {
		p.c.Evicted(evicted)
	}
}

// A job is a page that is being encoded.
type job struct {
	page weak.Pointer[page.Page] // what is evicted meanwhile need not be
	size int                     // that an encoding must be smaller than
	left atomic.Int32            // how many have yet to end it
	done chan struct{}
}

// end notes that one encoder is done with the page.
func (j *job) end() {
	if j.left.Add(-1) == 0 {
		if pg := j.page.Value(); pg != nil {
			pg.Finish()
		}
		close(j.done)
	}
}
