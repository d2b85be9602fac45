package main

import (
	"context"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/internal/isrtest"
)

const fleetSize = 5

// A fleet is the instances, what they share, and what stands before them: a load
// balancer's idea of who is there.
type fleet struct {
	start   time.Time
	cms     *cms
	engine  *engine
	server  server // it need not run
	addr    string // of the server
	client  *http.Client
	logging bool
	rollout // of the instances that are launched

	mu    sync.Mutex // guards all below
	slots [fleetSize]slot
	away  []span // when the server was stopped or dead
}

// A span is a time from a beginning until an end.
type span struct{ from, until time.Duration }

// A rollout is what a new build does with what the last one has left.
type rollout struct {
	inherit isr.Inherit
	warm    bool // whether each instance is warmed before it gets requests
}

// A slot is an instance's place: when it has ended, another takes it.
type slot struct {
	*process
	addr     string
	life     int  // one more with each instance
	alive    bool // until it is killed
	draining bool // gets no more requests
	requests int  // under way
}

// A target is an instance that was picked for a request.
type target struct {
	number, life int
	addr         string
}

// newFleet starts the server, if it is to be there, and the instances.
func newFleet(ctx context.Context, e *engine, ro rollout, withServer, logging bool) (_ *fleet, err error) {
	f := &fleet{start: time.Now(), engine: e, logging: logging, rollout: ro}
	defer func() {
		if err != nil {
			f.stop()
		}
	}()
	// More idle connections than there are requests at a time: all are kept alive.
	f.client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256}, Timeout: 30 * time.Second}
	if err = f.share(ctx, withServer); err != nil {
		return nil, err
	}
	for i := range fleetSize {
		if err = f.launch(i, "v1"); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// share starts what the instances share: a CMS, and a server, if it is to be there.
func (f *fleet) share(ctx context.Context, withServer bool) (err error) {
	if f.cms, err = startCMS(f.start); err != nil {
		return err
	}
	if f.addr, err = isrtest.FreeAddr(); err != nil {
		return err
	}
	f.server = f.engine.server(f.addr)
	if withServer {
		return f.server.run(ctx)
	}
	return nil
}

// stop ends everything.
func (f *fleet) stop() {
	for i := range f.slots {
		if p := f.slots[i].process; p != nil {
			p.kill()
		}
	}
	if f.server != nil {
		f.server.close()
	}
	if f.cms != nil {
		f.cms.server.Close()
	}
	f.client.CloseIdleConnections()
}

// now is the time that everything here is measured in.
func (f *fleet) now() time.Duration { return time.Since(f.start) }

// launch starts an instance in a slot where there is none any more.
func (f *fleet) launch(i int, build string) error {
	p, addr, err := startInstance(config{Number: i, Build: build, Store: f.engine.name, Addr: f.addr, CMS: f.cms.url, Log: f.logging, Inherit: f.inherit, Warm: f.warm})
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	s := &f.slots[i]
	*s = slot{process: p, addr: addr, life: s.life + 1, alive: true, requests: s.requests}
	return nil
}

// kill ends an instance without a word to those who are waiting for it.
func (f *fleet) kill(i int) {
	f.mu.Lock()
	f.slots[i].alive = false
	p := f.slots[i].process
	f.mu.Unlock()
	p.kill()
}

// replace puts an instance of another build into a slot, as deploys do: no new
// requests for the old one, and when those under way have been answered, it is
// asked to end.
func (f *fleet) replace(ctx context.Context, i int, build string) error {
	f.mu.Lock()
	s := &f.slots[i]
	s.draining = true
	p := s.process
	f.mu.Unlock()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for busy := true; busy; {
		select {
		case <-poll.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		f.mu.Lock()
		busy = s.requests > 0
		f.mu.Unlock()
	}
	f.client.CloseIdleConnections() // some of which have never been used, and a server would wait for them
	p.stdin.Close()
	select {
	case <-p.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	return f.launch(i, build)
}

// without does something by which the server is away for a while.
func (f *fleet) without(do func() error) error {
	from := f.now()
	err := do()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.away = append(f.away, span{from, f.now()})
	return err
}

// knowable returns since when all instances can know of a purge: since it was
// acknowledged, or, where that was in the second before the server went away, since that
// is back. They look once a second.
func (f *fleet) knowable(acked time.Duration) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, away := range f.away {
		if acked > away.from-time.Second && acked < away.until {
			return away.until
		}
	}
	return acked
}

// pick returns one of the instances, and take a certain one, if it gets requests.
// Each target that was had is given back by release.
func (f *fleet) pick() target {
	for {
		if t, ok := f.take(rand.IntN(fleetSize)); ok {
			return t
		}
	}
}

func (f *fleet) take(i int) (target, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := &f.slots[i]
	if s.draining {
		return target{}, false
	}
	s.requests++
	return target{i, s.life, s.addr}, true
}

func (f *fleet) release(t target) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.slots[t.number].requests--
}

// killed reports whether an instance was no more when it was picked, or has been
// killed since.
func (f *fleet) killed(t target) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := &f.slots[t.number]
	return s.life != t.life || !s.alive
}
