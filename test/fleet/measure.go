package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"time"
)

// A result is what came of a scenario.
type result struct {
	scenario
	store             string // name of the engine
	requests, retried int
	errors            []error // of visitors
	renders, needed   int
	purges            int           // that were asked for
	refusals          int           // answers of 500 to them
	seen              []seen        // of those that were acknowledged, the shortest first
	kept              []string      // old pages of an instance that has answered 500, and said with it that it purges its own
	mixed             int           // pages of one build, served by another
	waits             int           // visitors who have waited for a page, once each instance of the first build had all
	old               []string      // of the data scenario: what an instance showed after it had acknowledged an edit, or in the end
	slowest           time.Duration // request
	slowestAt         time.Duration // when it began
}

// seen is how long after all could know of a purge somebody asked and got the old page.
type seen struct {
	*purge
	known time.Duration // when all instances could know of it
	lag   time.Duration // zero: nobody
	last  view
}

// judge makes a result of what was seen.
func judge(sc scenario, l *load) *result {
	r := &result{scenario: sc, requests: len(l.views) + len(l.errors), retried: l.retried, errors: l.errors, purges: len(l.purges)}
	var purges [pageCount][]*seen
	for _, p := range l.purges {
		r.refusals += len(p.refused)
		purges[p.page] = append(purges[p.page], &seen{purge: p, known: l.knowable(p.acked)})
	}
	for _, v := range l.views {
		if v.took > r.slowest {
			r.slowest, r.slowestAt = v.took, v.begin
		}
		if v.build != v.served {
			r.mixed++
		}
		if v.waited && v.begin >= l.begun {
			r.waits++
		}
		for _, p := range purges[v.page] {
			if v.revision >= p.revision {
				continue
			}
			if p.acked != 0 && v.begin-p.known > p.lag {
				p.lag, p.last = v.begin-p.known, v
			}
			for _, no := range p.refused {
				if no.number == v.number && no.life == v.life && v.begin > no.at {
					r.kept = append(r.kept, fmt.Sprintf("instance %d answered a %s of page %d with 500 at %v, and showed revision %d, not %d, at %v",
						v.number, p.how, p.page, no.at, v.revision, p.revision, v.begin))
				}
			}
		}
	}
	end := l.now()
	for page := range purges {
		l.cms.mu.Lock()
		renders := l.cms.renders[page]
		l.cms.mu.Unlock()
		r.renders += len(renders)
		if len(renders) > 0 {
			r.needed += needed(renders[0], end, purges[page])
		}
		for _, p := range purges[page] {
			if p.acked != 0 {
				r.seen = append(r.seen, *p)
			}
		}
	}
	slices.SortFunc(r.seen, func(a, b seen) int { return cmp.Compare(a.lag, b.lag) })
	return r
}

// needed returns how often a page has to be rendered from its first time to the
// end: then, after each purge, and each time when its TTL, and the rendering that
// comes before that, is over.
func needed(first, end time.Duration, purges []*seen) int {
	n := 1
	last := first
	for _, p := range purges { // which are in the order in which they were asked for
		n += 1 + int((p.asked-last)/(pageTTL+renderTime))
		last = p.asked
	}
	return n + int((end-last)/(pageTTL+renderTime))
}

func (r *result) rendersPerNeed() float64 { return float64(r.renders) / float64(max(1, r.needed)) }

// lag returns the quantile q of how long old pages were seen.
func (r *result) lag(q float64) time.Duration {
	if len(r.seen) == 0 {
		return 0
	}
	return r.seen[min(len(r.seen)-1, int(q*float64(len(r.seen))))].lag
}

// tooOld is how long after the acknowledgement nobody may see the old page, whatever
// is broken, and however slow the machine is: an instance looks each second, and has
// two more.
const tooOld = 3 * time.Second

// wrong returns what must not be, however slow the machine is.
func (r *result) wrong() (bad []string) {
	if len(r.errors) > 0 {
		bad = append(bad, fmt.Sprintf("%d errors of visitors, the first: %v", len(r.errors), r.errors[0]))
	}
	if r.mixed > 0 && !r.mixes {
		bad = append(bad, fmt.Sprintf("%d pages were rendered by one build, and served by another", r.mixed))
	}
	if len(r.kept) > 0 {
		bad = append(bad, fmt.Sprintf("%d old pages of those who have purged their own, the first: %s", len(r.kept), r.kept[0]))
	}
	if len(r.old) > 0 {
		bad = append(bad, fmt.Sprintf("%d pages with old data, the first: %s", len(r.old), r.old[0]))
	}
	if l := r.lag(1); l > tooOld {
		bad = append(bad, fmt.Sprintf("an old page was seen %v after a purge, more than %v", l.Round(time.Millisecond), tooOld))
	}
	if (len(r.seen) == 0) != (r.neverAcked || r.calm) {
		bad = append(bad, fmt.Sprintf("%d of %d purges were acknowledged", len(r.seen), r.purges))
	}
	return bad
}

// slow returns what must not be on a machine that has time.
func (r *result) slow() (bad []string) {
	if r.maxRenders != 0 && r.rendersPerNeed() > r.maxRenders { // a Store that is asked for longer than visitors wait costs one
		bad = append(bad, fmt.Sprintf("%.2f renders for each that was needed, more than %.2f", r.rendersPerNeed(), r.maxRenders))
	}
	if r.neverWaits && r.waits > 0 {
		bad = append(bad, fmt.Sprintf("%d visitors have waited for a page", r.waits))
	}
	if l := r.lag(0.99); r.maxLag != 0 && l > r.maxLag {
		bad = append(bad, fmt.Sprintf("old pages were seen %v after a purge at the 99th percentile, more than %v", l.Round(time.Millisecond), r.maxLag))
	}
	if l := r.lag(1); r.maxWorst != 0 && l > r.maxWorst {
		bad = append(bad, fmt.Sprintf("an old page was seen %v after a purge, more than %v", l.Round(time.Millisecond), r.maxWorst))
	}
	if d := r.slowest - renderTime; r.maxWait != 0 && d > r.maxWait {
		bad = append(bad, fmt.Sprintf("a request took %v more than rendering, more than %v", d.Round(time.Millisecond), r.maxWait))
	}
	return bad
}

// explain writes about the slowest purges, and all errors.
func (r *result) explain(w io.Writer) {
	fmt.Fprintf(w, "\tthe slowest request took %v from %v on\n", r.slowest, r.slowestAt)
	for _, s := range r.seen[max(0, len(r.seen)-5):] {
		if s.lag > 0 {
			fmt.Fprintf(w, "\t%s of page %d to revision %d: asked at %v, acknowledged by instance %d at %v; instance %d showed revision %d to who asked at %v, %v later\n",
				s.how, s.page, s.revision, s.asked, s.by.number, s.acked, s.last.number, s.last.revision, s.last.begin, s.lag)
		}
	}
	for _, err := range r.errors[:min(10, len(r.errors))] {
		fmt.Fprintf(w, "\t%v\n", err)
	}
	for _, k := range slices.Concat(r.kept[:min(10, len(r.kept))], r.old[:min(10, len(r.old))]) {
		fmt.Fprintf(w, "\t%s\n", k)
	}
}
