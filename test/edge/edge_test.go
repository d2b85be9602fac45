package edge_test

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

var table = flag.Bool("table", false, "measure for longer, without bars, and write the table in README.md")

var errNotFailed = errors.New("the outage has not failed")

// pauses are after how long the first reader comes.
var pauses = []time.Duration{3 * time.Second}

const (
	poll  = 100 * time.Millisecond
	after = 1500 * time.Millisecond // for so long the new page has to stay

	// Beside sharedMaxAge: nginx counts in whole seconds, by which it holds a page up to a
	// second longer, and the next poll comes after that.
	bar = time.Second + 5*poll
)

// A result is what readers saw of one edit behind one front.
type result struct {
	polled time.Duration // after the edit somebody who reloads all the time began to ask, and got the old page; last
	paused []bool        // whether the first who came after a pause got it
	second []bool        // and who came right after them
}

// No page is seen for longer than SharedMaxAge after an edit, behind any cache in front
// that is configured as docs/cdn.md says.
func TestEdits(t *testing.T) {
	if *table {
		pauses = []time.Duration{3 * time.Second, 6 * time.Second, 11 * time.Second, 30 * time.Second}
	}
	results := make([][]result, len(fronts))
	var wg sync.WaitGroup
	for i, f := range fronts {
		if f.asIs && !*table {
			continue
		}
		s := newSite(t, f.start)
		results[i] = make([]result, len(edits))
		for j, e := range edits {
			wg.Go(func() { results[i][j] = measure(t, s, fmt.Sprintf("%s/%d", e.folder, j), e) })
		}
	}
	wg.Wait()
	if *table && !t.Failed() {
		write(t, results)
	}
	for i, f := range fronts {
		if f.asIs || *table {
			continue
		}
		for j, e := range edits {
			t.Run(f.name+"/"+e.name, func(t *testing.T) {
				r := results[i][j]
				t.Logf("%+v", r)
				if most := sharedMaxAge + bar + e.slack; r.polled >= most {
					t.Errorf("the old page was seen for %v, and at most %v is promised", r.polled.Round(time.Millisecond), most)
				}
				for k, pause := range pauses {
					if r.paused[k] && !e.once || r.second[k] {
						t.Errorf("after a pause of %v: the first reader got the old page: %v, the second one: %v", pause, r.paused[k], r.second[k])
					}
				}
			})
		}
	}
}

// measure edits pages: one that a reader reloads all the time, and one for each pause.
func measure(t *testing.T, s *site, path string, e edit) (r result) {
	ctx := t.Context()
	limit := sharedMaxAge + e.slack + 10*time.Second
	if *table {
		limit = time.Minute
	}
	r.paused, r.second = make([]bool, len(pauses)), make([]bool, len(pauses))
	var wg sync.WaitGroup
	wg.Go(func() {
		path := path + "/polled"
		warm(t, s, path, e)
		stop := make(chan struct{})
		var sawOld time.Time
		var reader sync.WaitGroup
		var mu sync.Mutex
		old := old(s, path)
		reader.Go(func() {
			for {
				began := time.Now()
				revision, err := s.get(ctx, path)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if old(revision) {
					sawOld = began
				}
				mu.Unlock()
				select {
				case <-stop:
					return
				case <-time.After(poll):
				}
			}
		})
		if err := e.make(ctx, s, path); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		edited := time.Now()
		for {
			time.Sleep(poll)
			mu.Lock()
			last := sawOld
			mu.Unlock()
			since := edited
			if last.After(since) {
				since = last
			}
			if time.Since(since) > after+sharedMaxAge || time.Since(edited) > limit {
				r.polled = max(last.Sub(edited), 0)
				break
			}
		}
		close(stop)
		reader.Wait()
	})
	for i, pause := range pauses {
		wg.Go(func() {
			path := fmt.Sprintf("%s/%v", path, pause)
			warm(t, s, path, e)
			old := old(s, path)
			if err := e.make(ctx, s, path); err != nil {
				t.Errorf("%s: %v", path, err)
			}
			if e.slack > 0 && pause < sharedMaxAge+bar+e.slack {
				pause = sharedMaxAge + bar + e.slack
			}
			time.Sleep(pause)
			for _, saw := range []*bool{&r.paused[i], &r.second[i]} {
				revision, err := s.get(ctx, path)
				if err != nil {
					t.Error(err)
				}
				*saw = old(revision)
				time.Sleep(cmp.Or(e.again, time.Second)) // the renewal behind the first is short
			}
		})
	}
	wg.Wait()
	return r
}

// warm lets what is in front have the page.
func warm(t *testing.T, s *site, path string, e edit) {
	if e.before != nil {
		e.before(s, path)
	}
	for range 3 {
		if _, err := s.get(t.Context(), path); err != nil {
			t.Error(err)
		}
	}
}

// old returns what tells the page as it is now from later ones.
func old(s *site, path string) func(revision int) bool {
	var now entry
	s.edit(path, func(e *entry) { now = *e })
	if now.failing {
		return func(revision int) bool { return revision == 0 }
	}
	return func(revision int) bool { return revision <= now.revision }
}

// write writes the table into README.md.
func write(t *testing.T, results [][]result) {
	var b strings.Builder
	b.WriteString("|  |")
	for _, f := range fronts {
		b.WriteString(" " + f.name + " |")
	}
	b.WriteString("\n| --- |" + strings.Repeat(" --- |", len(fronts)) + "\n")
	for j, e := range edits {
		b.WriteString("| " + e.name + " |")
		for i := range fronts {
			r := results[i][j]
			fmt.Fprintf(&b, " %.1f s", r.polled.Seconds())
			last := -1
			for k := range pauses {
				if r.paused[k] {
					last = k
				}
			}
			switch {
			case last < 0:
				b.WriteString("; no")
			default:
				fmt.Fprintf(&b, "; after %v", pauses[last])
			}
			for k := range pauses {
				if r.second[k] {
					fmt.Fprintf(&b, " (after %v also the second)", pauses[k])
				}
			}
			b.WriteString(" |")
		}
		b.WriteString("\n")
	}
	const file = "README.md"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile(`(?s)(<!-- by the command -->\n).*?(<!-- end -->)`)
	if !block.Match(text) {
		t.Fatal("README.md has no place for the table")
	}
	text = block.ReplaceAll(text, []byte("${1}\n"+b.String()+"\n${2}"))
	if err := os.WriteFile(file, text, 0o644); err != nil {
		t.Fatal(err)
	}
	fmt.Println(b.String())
}
