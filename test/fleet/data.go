package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/isr-go/isr"
)

// The data scenario: pages are made of rows, which are values that they share; editors
// change rows and invalidate their tags, at random, on all instances. A page is never
// newer than the data in it.
const (
	rowCount  = 8
	dataPages = 24
	dataSteps = 10_000 // visits and edits, at least
	dataEvery = 40     // one step in so many is an edit
	dataPause = 8 * time.Millisecond
)

var (
	rowValues = isr.Data[int]{Name: "row", TTL: 3 * time.Second}
	sumValues = isr.Data[string]{Name: "sum"}
)

// dataPage returns the handler of pages that are made of two rows or three, one of which
// comes by a value that is made of another value. Everything waits in between, so that
// edits come at each point.
func dataPage(cfg config) http.HandlerFunc {
	row := func(ctx context.Context, k int) (string, error) {
		v, err := rowValues.Load(ctx, strconv.Itoa(k), func(ctx context.Context) (int, error) {
			answer, err := ask(ctx, fmt.Sprintf("%s/row/%d", cfg.CMS, k))
			if err != nil {
				return 0, err
			}
			sleepUpTo(ctx, renderTime/5)
			return strconv.Atoi(answer)
		})
		return fmt.Sprintf("%d=%d ", k, v), err
	}
	return func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.Atoi(r.PathValue("page"))
		if err != nil || n < 0 || n >= dataPages {
			http.NotFound(w, r)
			return
		}
		ctx := r.Context()
		loads := []func() (string, error){
			func() (string, error) { return row(ctx, n%rowCount) },
			func() (string, error) { return row(ctx, (n+1+n/rowCount)%rowCount) },
		}
		if n%2 == 0 {
			k := n / 2 % rowCount
			loads = append(loads, func() (string, error) {
				return sumValues.Load(ctx, strconv.Itoa(k), func(ctx context.Context) (string, error) {
					v, err := row(ctx, k)
					sleepUpTo(ctx, renderTime/5)
					return v, err
				})
			})
		}
		for _, load := range loads {
			seen, err := load()
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadGateway)
				return
			}
			io.WriteString(w, seen)
			sleepUpTo(ctx, renderTime/10)
		}
	}
}

func sleepUpTo(ctx context.Context, most time.Duration) { sleep(ctx, rand.N(most)) }

// answerRow answers with the number of a row, or, at times, not at all.
func (c *cms) answerRow(w http.ResponseWriter, r *http.Request) {
	k, err := strconv.Atoi(r.PathValue("row"))
	if err != nil || k < 0 || k >= rowCount {
		http.NotFound(w, r)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fetches++
	if c.failing && rand.IntN(3) == 0 {
		http.Error(w, "no database", http.StatusInternalServerError)
		return
	}
	fmt.Fprint(w, c.rows[k])
}

// editRow raises the number of a row. It is also when the CMS begins or ends to fail.
func (c *cms) editRow(k int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failing = rand.IntN(4) == 0
	c.rows[k]++
	return c.rows[k]
}

// A dataView is a page that a visitor got.
type dataView struct {
	target
	page    int
	rows    map[int]int
	isFresh bool // it does not say that it is stale
	status  string
	begin   time.Duration
}

// A dataLoad is what visitors and editors of rows do, and what they have seen.
type dataLoad struct {
	*load

	// Guarded by load.mu.
	views    []dataView
	requests int
	slowest  time.Duration
}

// inside answers requests with the handlers of this process, by their hosts: what ten
// thousand requests cost over a network tells nothing about their order.
type inside map[string]http.Handler

func (h inside) RoundTrip(req *http.Request) (*http.Response, error) {
	r := httptest.NewRequestWithContext(req.Context(), req.Method, req.URL.RequestURI(), nil)
	r.Host, r.Header = req.URL.Host, req.Header
	rec := httptest.NewRecorder()
	h[req.URL.Host].ServeHTTP(rec, r)
	return rec.Result(), nil
}

// startInside starts a CMS, a server, and a fleet that needs no processes.
func startInside(ctx context.Context, e *engine, logging bool) (_ *fleet, stop func(), err error) {
	f := &fleet{start: time.Now(), engine: e}
	handlers := make(inside)
	f.client = &http.Client{Transport: handlers}
	var sites []*isr.Site
	stop = func() {
		for _, site := range sites {
			site.Shutdown(context.WithoutCancel(ctx))
		}
		f.stop()
	}
	if err := f.share(ctx, true); err != nil {
		stop()
		return nil, nil, err
	}
	for i := range f.slots {
		site, h, err := newInstance(config{Number: i, Build: "v1", Store: e.name, Addr: f.addr, CMS: f.cms.url, Log: logging})
		if err != nil {
			stop()
			return nil, nil, err
		}
		f.slots[i] = slot{addr: fmt.Sprint("instance-", i), life: 1, alive: true}
		handlers[f.slots[i].addr] = h
		sites = append(sites, site)
	}
	return f, stop, nil
}

// playData has at least dataSteps visits and edits, for at least as long as asked; the
// server is stopped when a third of that is over, and replaced by an empty one after two
// thirds.
func playData(ctx context.Context, sc scenario, e *engine, length time.Duration, logging bool) (*result, error) {
	f, stop, err := startInside(ctx, e, logging)
	if err != nil {
		return nil, err
	}
	defer stop()
	l := &dataLoad{load: &load{fleet: f}}
	editing, stopEditing := context.WithCancel(ctx)
	defer stopEditing()
	var visitors, editors, faults sync.WaitGroup
	var mu sync.Mutex // guards steps
	steps := 0
	stopped, wiped := make(chan struct{}), make(chan struct{})
	step := func() int { // returns 0 at the end
		mu.Lock()
		defer mu.Unlock()
		if steps >= dataSteps && l.now() >= length {
			return 0
		}
		steps++
		switch steps {
		case dataSteps / 3:
			close(stopped)
		case dataSteps * 2 / 3:
			close(wiped)
		}
		return steps
	}
	for range visitorCount {
		visitors.Go(func() {
			for sleep(ctx, time.Duration(rand.ExpFloat64()*float64(dataPause))) {
				switch n := step(); {
				case n == 0:
					return
				case n%dataEvery == 0:
					editors.Go(func() { l.editRow(editing) })
				default:
					l.visitData(ctx, rand.IntN(dataPages), -1)
				}
			}
		})
	}
	faults.Go(func() {
		if !wait(ctx, stopped) {
			return
		}
		if err = pause(ctx, f, time.Second); err == nil && wait(ctx, wiped) {
			err = swap(ctx, f, time.Second/2)
		}
	})
	visitors.Wait()
	faults.Wait()
	timeout := time.AfterFunc(settleTime, stopEditing)
	defer timeout.Stop()
	editors.Wait()
	if err != nil || ctx.Err() != nil {
		return nil, cmp.Or(err, ctx.Err())
	}
	l.cms.mu.Lock()
	l.cms.failing = false
	l.cms.mu.Unlock()
	sleep(ctx, tooOld)
	old := l.oldInTheEnd(ctx)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r := judgeData(sc, l)
	r.old = append(r.old, old...)
	return r, nil
}

// wait reports whether a channel was closed before ctx has ended.
func wait(ctx context.Context, c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	case <-ctx.Done():
		return false
	}
}

// visitData asks an instance for a page of rows, or any of them where the number is
// negative. That there is none is an error, unless it is because the CMS has failed.
func (l *dataLoad) visitData(ctx context.Context, page, number int) (v dataView, ok bool) {
	t, picked := target{}, false
	if number >= 0 {
		t, picked = l.take(number)
	}
	if !picked {
		t = l.pick()
	}
	defer l.release(t)
	v = dataView{target: t, page: page, rows: make(map[int]int), begin: l.now()}
	status, err := l.getData(ctx, &v)
	took := l.now() - v.begin
	if ctx.Err() != nil {
		return v, false // it is over
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.requests++
	l.slowest = max(l.slowest, took)
	if err == nil && status == http.StatusBadGateway {
		return v, false
	}
	if err == nil && (status != http.StatusOK || len(v.rows) == 0) {
		err = fmt.Errorf("status %d", status)
	}
	if err != nil {
		l.errors = append(l.errors, fmt.Errorf("at %v, page %d of rows of instance %d: %w", v.begin.Round(time.Millisecond), page, t.number, err))
		return v, false
	}
	l.views = append(l.views, v)
	return v, true
}

func (l *dataLoad) getData(ctx context.Context, v *dataView) (status int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s/data/%d", v.addr, v.page), nil)
	if err != nil {
		return 0, err
	}
	resp, err := l.client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return resp.StatusCode, err
	}
	v.status = resp.Header.Get("Cache-Status")
	v.isFresh = !strings.Contains(v.status, "stale")
	for part := range strings.FieldsSeq(string(body)) {
		var k, version int
		if _, err := fmt.Sscanf(part, "%d=%d", &k, &version); err != nil {
			return resp.StatusCode, fmt.Errorf("%q: %w", part, err)
		}
		if have, ok := v.rows[k]; !ok || version < have {
			v.rows[k] = version
		}
	}
	return resp.StatusCode, nil
}

// editRow changes a row, and tells any instance of it until one says that all is well.
func (l *dataLoad) editRow(ctx context.Context) {
	p := &purge{page: rand.IntN(rowCount), how: "revalidation"}
	method := http.MethodPost
	if rand.IntN(2) == 0 {
		p.how, method = "purge", http.MethodDelete
	}
	p.revision = l.cms.editRow(p.page)
	p.asked = l.now()
	l.mu.Lock()
	l.purges = append(l.purges, p)
	l.mu.Unlock()
	for pause := 250 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		t := l.pick()
		status, err := l.tell(ctx, method, t, fmt.Sprintf("tag=row:%d", p.page))
		l.release(t)
		l.mu.Lock()
		switch now := l.now(); {
		case err == nil && status == http.StatusOK:
			p.acked, p.by = now, t
		case err == nil && status == http.StatusInternalServerError:
			p.refused = append(p.refused, refusal{t, now})
		case ctx.Err() == nil:
			l.errors = append(l.errors, fmt.Errorf("at %v, %s of row %d by instance %d: status %d, %v", p.asked, p.how, p.page, t.number, status, err))
		}
		l.mu.Unlock()
		if p.acked != 0 || !sleep(ctx, pause) {
			return
		}
	}
}

// oldInTheEnd visits everything when nothing is edited any more, and returns which pages
// are fresh and old, and which stay old when they are asked for again.
func (l *dataLoad) oldInTheEnd(ctx context.Context) (old []string) {
	l.cms.mu.Lock()
	want := l.cms.rows
	l.cms.mu.Unlock()
	var mu sync.Mutex // guards old
	var all sync.WaitGroup
	for i := range fleetSize {
		for page := range dataPages {
			all.Go(func() {
				for deadline := l.now() + 10*time.Second; ; {
					v, ok := l.visitData(ctx, page, i)
					isOld := !ok
					for k, version := range v.rows {
						isOld = isOld || version != want[k]
					}
					if !isOld {
						return
					}
					if v.isFresh || l.now() > deadline {
						mu.Lock()
						old = append(old, fmt.Sprintf("in the end instance %d shows page %d with %v, and not with %v (%s)", i, page, v.rows, want, v.status))
						mu.Unlock()
						return
					}
					if !sleep(ctx, 100*time.Millisecond) {
						return
					}
				}
			})
		}
	}
	all.Wait()
	return old
}

// judgeData makes a result of what was seen. An instance that was told of an edit, and
// has acknowledged it or has said that the Store has not, shows no fresh page with data
// from before it, at once; after a purge it shows no page at all with such data. The
// others do the same some time after the acknowledgement.
func judgeData(sc scenario, l *dataLoad) *result {
	r := &result{scenario: sc, requests: l.requests, errors: l.errors, purges: len(l.purges), slowest: l.slowest}
	l.cms.mu.Lock()
	r.renders = l.cms.fetches
	l.cms.mu.Unlock()
	var edits [rowCount][]*seen
	for _, p := range l.purges {
		r.refusals += len(p.refused)
		edits[p.page] = append(edits[p.page], &seen{purge: p, known: l.knowable(p.acked)})
	}
	for _, v := range l.views {
		for k, version := range v.rows {
			for _, p := range edits[k] {
				if version >= p.revision || !v.isFresh && p.how != "purge" {
					continue
				}
				told := p.refused
				if p.acked != 0 {
					told = append(told[:len(told):len(told)], refusal{p.by, p.acked})
				}
				for _, by := range told {
					if by.number == v.number && by.life == v.life && v.begin > by.at {
						r.old = append(r.old, fmt.Sprintf("instance %d answered a %s of row %d, asked for at %v, at %v, and showed version %d, not %d, on page %d at %v (%s)",
							v.number, p.how, k, p.asked, by.at, version, p.revision, v.page, v.begin, v.status))
					}
				}
				if p.acked != 0 && v.begin-p.known > p.lag {
					p.lag = v.begin - p.known
					p.last = view{target: v.target, page: v.page, revision: version, begin: v.begin}
				}
			}
		}
	}
	for k := range edits {
		for _, p := range edits[k] {
			if p.acked != 0 {
				r.seen = append(r.seen, *p)
			}
		}
	}
	slices.SortFunc(r.seen, func(a, b seen) int { return cmp.Compare(a.lag, b.lag) })
	return r
}
