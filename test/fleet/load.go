package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"
)

// How much there is to do: what two cores can do beside other things.
const (
	visitorCount = 30
	crowd        = 200                    // where there is little to generate
	visitorPause = 100 * time.Millisecond // on average
	editPause    = 100 * time.Millisecond
	settleTime   = 4 * time.Second // how long is watched after the last purge, at most
)

// A view is one answer that a visitor got.
type view struct {
	target
	page, revision int
	build, served  string        // of who has rendered, and of who has answered
	waited         bool          // for a run of the handler
	begin, took    time.Duration // begin: of the attempt that was answered; took: all of them
}

// A purge is one that an editor has asked for, once or several times.
type purge struct {
	page, revision int
	how            string
	asked          time.Duration
	acked          time.Duration // when it was answered with 200; zero: never
	by             target        // who has
	refused        []refusal
}

// A refusal is an answer of 500: to be asked again.
type refusal struct {
	target
	at time.Duration
}

// A load is what visitors and editors do, and what they have seen.
type load struct {
	*fleet
	visitors int           // at a time
	calm     bool          // nobody edits
	begun    time.Duration // when each instance had each page

	mu      sync.Mutex // guards all below
	views   []view
	purges  []*purge
	retried int     // requests to an instance that was killed, made again
	errors  []error // what visitors must not see
}

// run is all of it, while the fault does its worst.
func (l *load) run(ctx context.Context, length time.Duration, fault func(context.Context, *fleet) error) error {
	var warming sync.WaitGroup // so that each page's life begins in the same way
	for page := range pageCount {
		warming.Go(func() {
			for i := range fleetSize {
				l.visit(ctx, page, i)
				l.visit(ctx, page, i) // a hit, which is what the next build is warmed by
			}
		})
	}
	warming.Wait()
	l.begun = l.now()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	editing, stopEditing := context.WithTimeout(ctx, length)
	defer stopEditing()

	var visitors, editors, faults sync.WaitGroup
	for range l.visitors {
		visitors.Go(func() {
			for sleep(ctx, time.Duration(rand.ExpFloat64()*float64(visitorPause))) {
				l.visit(ctx, rand.IntN(pageCount), -1)
			}
		})
	}
	var err error
	if fault != nil {
		faults.Go(func() { err = fault(editing, l.fleet) })
	}
	watching, stopWatching := context.WithCancel(ctx)
	defer stopWatching()
	for sleep(editing, editPause) {
		if !l.calm {
			editors.Go(func() { l.edit(editing, watching) })
		}
	}
	faults.Wait()
	timeout := time.AfterFunc(settleTime, stopWatching)
	defer timeout.Stop()
	editors.Wait()
	cancel()
	visitors.Wait()
	return err
}

// sleep reports whether ctx has not ended meanwhile.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// visit asks an instance for a page, or any of them where the number is negative,
// and others after it while those that were asked are killed: as a load balancer
// would. It reports which revision it got.
func (l *load) visit(ctx context.Context, page, number int) (revision int, ok bool) {
	first := l.now()
	for ctx.Err() == nil {
		t, picked := target{}, false
		if number >= 0 {
			t, picked = l.take(number)
		}
		if !picked {
			t = l.pick()
		}
		v, err := l.get(ctx, page, t)
		killed := err != nil && l.killed(t)
		l.release(t)
		if ctx.Err() != nil {
			break // it is over
		}
		l.mu.Lock()
		switch {
		case killed:
			l.retried++
		case err != nil:
			l.errors = append(l.errors, fmt.Errorf("at %v, page %d of instance %d: %w", first.Round(time.Millisecond), page, t.number, err))
		default:
			v.took = l.now() - first
			l.views = append(l.views, v)
		}
		l.mu.Unlock()
		if !killed {
			return v.revision, err == nil
		}
		number = -1
		if !sleep(ctx, time.Millisecond) {
			break
		}
	}
	return 0, false
}

// get makes one request, and checks that the answer is the page.
func (l *load) get(ctx context.Context, page int, t target) (v view, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s/page/%d", t.addr, page), nil)
	if err != nil {
		return v, err
	}
	v = view{target: t, page: page, begin: l.now()}
	resp, err := l.client.Do(req)
	if err != nil {
		return v, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return v, err
	}
	if resp.StatusCode != http.StatusOK {
		return v, fmt.Errorf("status %s: %.100s", resp.Status, body)
	}
	v.served = resp.Header.Get(buildHeader)
	v.waited = !strings.HasPrefix(resp.Header.Get("Cache-Status"), "isr; hit")
	shown := 0
	shown, v.revision, v.build, err = read(body)
	if err == nil && shown != page {
		err = fmt.Errorf("page %d", shown)
	}
	return v, err
}

// edit changes a page, tells any instance of it, again and again until one says
// that all is well, and then looks at all of them until none shows the old page.
func (l *load) edit(editing, watching context.Context) {
	p := &purge{page: rand.IntN(pageCount)}
	p.revision = l.cms.edit(p.page)
	method, query := http.MethodDelete, fmt.Sprintf("path=/page/%d", p.page)
	switch p.how = "purge"; rand.IntN(3) {
	case 0:
		p.how, query = "purge of a tag", fmt.Sprintf("tag=page-%d", p.page)
	case 1:
		p.how, method = "revalidate", http.MethodPost
	}
	p.asked = l.now()
	l.mu.Lock()
	l.purges = append(l.purges, p)
	l.mu.Unlock()

	for pause := 250 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		t := l.pick()
		status, err := l.tell(watching, method, t, query)
		killed := err != nil && l.killed(t)
		l.release(t)
		l.mu.Lock()
		switch now := l.now(); {
		case err == nil && status == http.StatusOK:
			p.acked, p.by = now, t
		case err == nil && status == http.StatusInternalServerError:
			p.refused = append(p.refused, refusal{t, now})
		case killed:
			l.retried++
		case watching.Err() == nil:
			l.errors = append(l.errors, fmt.Errorf("at %v, %s of page %d by instance %d: status %d, %v", p.asked, p.how, p.page, t.number, status, err))
		}
		l.mu.Unlock()
		if p.acked != 0 {
			break
		}
		if !sleep(editing, pause) {
			return
		}
	}
	var all sync.WaitGroup
	for i := range fleetSize {
		all.Go(func() { l.watch(watching, p, i) })
	}
	all.Wait()
}

// tell calls an instance's webhook.
func (l *load) tell(ctx context.Context, method string, t target, query string) (status int, err error) {
	req, err := http.NewRequestWithContext(ctx, method, fmt.Sprintf("http://%s/api/revalidate?%s", t.addr, query), nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+secret)
	resp, err := l.client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

// watch asks an instance for a page that was purged until it shows the new one,
// each time after a third of the time that has passed since.
func (l *load) watch(ctx context.Context, p *purge, number int) {
	for {
		if revision, ok := l.visit(ctx, p.page, number); ok && revision >= p.revision || ctx.Err() != nil {
			return
		}
		if !sleep(ctx, time.Millisecond+(l.now()-p.acked)/3) {
			return
		}
	}
}
