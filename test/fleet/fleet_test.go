package main

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestMain lets the test's own binary be the instances, too.
func TestMain(m *testing.M) {
	if instanceMain() {
		return
	}
	code := m.Run()
	removeTemplate()
	os.Exit(code)
}

// onPostgres are the scenarios of the short version in which it matters most what the store
// is.
var onPostgres = []string{"healthy", "hung", "killed", "absent"}

// TestFleet is the short version of the program. Scenarios with narrow bars of time are
// played alone, the others as many at a time as there are processors. What misses a bar that
// a slow machine can miss is played a second time, alone; what is wrong is wrong at once.
func TestFleet(t *testing.T) {
	type run struct {
		scenario
		store  *engine
		result *result
	}
	var runs []*run
	for _, sc := range scenarios {
		sc.visitors = 0 // CI does other things meanwhile
		for _, e := range engines {
			if sc.isFor(e) && (e != postgresEngine || slices.Contains(onPostgres, sc.name)) {
				runs = append(runs, &run{scenario: sc, store: e})
			}
		}
	}
	// once returns which bars a slow machine can have missed.
	once := func(t *testing.T, r *run) (slow []string, report string) {
		if err := r.store.need(); err != nil && os.Getenv("CI") != "true" {
			t.Skip(err)
		}
		var err error
		if r.result, err = play(t.Context(), r.scenario, r.store, 3*time.Second, false); err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		r.result.explain(&b)
		for _, wrong := range r.result.wrong() {
			t.Errorf("%s\n%s", wrong, &b)
		}
		return r.result.slow(), b.String()
	}
	var mu sync.Mutex // guards again
	var again []*run
	t.Run("first", func(t *testing.T) {
		for _, r := range runs {
			t.Run(r.name+" "+r.store.name, func(t *testing.T) {
				if r.maxLag == 0 && r.maxWait == 0 && !r.neverWaits {
					t.Parallel()
				}
				if slow, report := once(t, r); len(slow) > 0 {
					t.Logf("once more, since %s\n%s", strings.Join(slow, ", and "), report)
					mu.Lock()
					again = append(again, r)
					mu.Unlock()
				}
			})
		}
	})
	t.Run("again", func(t *testing.T) {
		for _, r := range again {
			t.Run(r.name+" "+r.store.name, func(t *testing.T) {
				slow, report := once(t, r)
				for _, slow := range slow {
					t.Errorf("%s\n%s", slow, report)
				}
			})
		}
	})
	var results []*result
	for _, r := range runs {
		if r.result != nil {
			results = append(results, r.result)
		}
	}
	t.Logf("\n%s", tables(results))
}

// The checks can fail.
func TestChecksCanFail(t *testing.T) {
	ms := time.Millisecond
	l := &load{fleet: &fleet{start: time.Now().Add(-5 * time.Second), cms: &cms{}}}
	l.cms.renders[7] = make([]time.Duration, 7) // of 5
	l.purges = []*purge{
		{page: 7, revision: 1, asked: 100 * ms, acked: 110 * ms},
		{page: 7, revision: 2, asked: 200 * ms, refused: []refusal{{target{number: 3, life: 1}, 210 * ms}}},
	}
	l.views = []view{
		{page: 7, revision: 0, begin: 105 * ms},                                              // before the acknowledgement
		{page: 8, revision: 0, begin: 150 * ms},                                              // another page
		{page: 7, revision: 0, begin: 180 * ms, took: time.Second},                           // old, for 70 ms
		{page: 7, revision: 0, begin: 130 * ms},                                              // old, but not for longer
		{page: 7, revision: 1, begin: 220 * ms, target: target{number: 2, life: 1}},          // has not followed to it
		{page: 7, revision: 1, begin: 220 * ms, target: target{number: 3, life: 2}},          // has restarted since
		{page: 7, revision: 1, begin: 205 * ms, target: target{number: 3, life: 1}},          // has not refused yet
		{page: 7, revision: 2, begin: 230 * ms, target: target{number: 3, life: 1}},          // new
		{page: 7, revision: 1, begin: 240 * ms, target: target{number: 3, life: 1}},          // old
		{page: 7, revision: 2, begin: 250 * ms, build: "v1", served: "v2", target: target{}}, // of another build
	}
	l.views[7].waited = true
	l.errors = []error{errors.New("status 500")}
	r := judge(scenario{neverWaits: true, maxRenders: 1.2, maxLag: 50 * ms, maxWorst: 60 * ms, maxWait: 500 * ms}, l)
	if got, want := r.lag(0.5), 70*ms; got != want || len(r.seen) != 1 {
		t.Errorf("an old page for %v after one of %d purges, want %v after one", got, len(r.seen), want)
	}
	var said strings.Builder
	for _, s := range append(r.wrong(), r.slow()...) {
		fmt.Fprintln(&said, s)
	}
	want := `1 errors of visitors, the first: status 500
1 pages were rendered by one build, and served by another
1 old pages of those who have purged their own, the first: instance 3 answered a  of page 7 with 500 at 210ms, and showed revision 1, not 2, at 240ms
1.40 renders for each that was needed, more than 1.20
1 visitors have waited for a page
old pages were seen 70ms after a purge at the 99th percentile, more than 50ms
an old page was seen 70ms after a purge, more than 60ms
a request took 950ms more than rendering, more than 500ms
`
	if said.String() != want {
		t.Errorf("got\n%s\nwant\n%s", &said, want)
	}

	late := []view{{page: 7, begin: l.purges[0].acked + tooOld + ms}}
	r = judge(scenario{}, &load{fleet: l.fleet, purges: l.purges[:1], views: late})
	if wrong := r.wrong(); len(wrong) != 1 || wrong[0] != "an old page was seen 3.001s after a purge, more than 3s" {
		t.Errorf("an old page was seen for 3.001s, and what is wrong is %q", wrong)
	}

	// Others can know only later of what was acknowledged just before the server went away.
	l.away = []span{{120 * ms, 2 * time.Second}}
	r = judge(scenario{}, &load{fleet: l.fleet, purges: l.purges[:1], views: late})
	if got, want := r.lag(1), tooOld+ms+110*ms-2*time.Second; got != want {
		t.Errorf("an old page was seen for %v, want %v", got, want)
	}

	r = judge(scenario{}, &load{fleet: l.fleet, purges: l.purges[1:]})
	if wrong := r.wrong(); len(wrong) != 1 || wrong[0] != "0 of 1 purges were acknowledged" {
		t.Errorf("no purge was acknowledged, and what is wrong is %q", wrong)
	}
}

// A response that is no page is an error.
func TestPagesAreChecked(t *testing.T) {
	whole := render("7", "12", "v1")
	page, revision, build, err := read(whole)
	if page != 7 || revision != 12 || build != "v1" || err != nil {
		t.Errorf("got page %d, revision %d of %q, %v", page, revision, build, err)
	}
	torn := append(whole[:len(whole)/2:len(whole)/2], whole[len(whole)/2+1:]...)
	for _, bad := range [][]byte{nil, []byte("Bad gateway\n"), whole[:len(whole)-1], torn} {
		if _, _, _, err := read(bad); err == nil {
			t.Errorf("%d bytes that are no page are taken for one", len(bad))
		}
	}
}

func TestPicture(t *testing.T) {
	r := &result{scenario: scenarios[0], seen: []seen{{lag: 0}, {lag: time.Millisecond}, {lag: time.Hour}}}
	svg := string(picture([]*result{r, {scenario: scenarios[5]}}))
	if strings.Contains(svg, "%!") {
		t.Error("a number that was not formatted")
	}
	d := xml.NewDecoder(strings.NewReader(svg))
	dots := 0
	for {
		token, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "circle" {
			dots++
		}
	}
	if dots != 3 {
		t.Errorf("%d dots for 3 purges", dots)
	}
}

func TestRunRefuses(t *testing.T) {
	err := run(context.Background(), []string{"-scenario", "healthy,sunny"}, io.Discard)
	if err == nil || !strings.Contains(err.Error(), `no scenario "sunny"; there are: healthy, cut, `) {
		t.Errorf("got %v", err)
	}
}

// A folder that cannot be written to is reported before the scenarios, and one that is
// missing is made.
func TestOutIsCheckedFirst(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "a", "b")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := run(ctx, []string{"-out", missing}, io.Discard); err == nil {
		t.Error("ran although it was interrupted")
	}
	if left, err := os.ReadDir(missing); err != nil || len(left) > 0 {
		t.Errorf("there are %v, %v, want an empty folder", left, err)
	}

	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	err := run(ctx, []string{"-out", filepath.Join(file, "folder")}, &said)
	if err == nil || !strings.HasPrefix(err.Error(), "there is no place for the picture: ") || said.Len() > 0 {
		t.Errorf("said %q, and then %v", &said, err)
	}
}

// The checks of the data scenario can fail.
func TestDataChecksCanFail(t *testing.T) {
	ms := time.Millisecond
	l := &dataLoad{load: &load{fleet: &fleet{cms: &cms{}}}}
	l.purges = []*purge{
		{page: 3, revision: 1, how: "purge", acked: 110 * ms, by: target{number: 1, life: 1}},
		{page: 3, revision: 2, how: "revalidation", refused: []refusal{{target{number: 2, life: 1}, 200 * ms}}},
	}
	see := func(number, version int, isFresh bool, begin time.Duration) {
		l.views = append(l.views, dataView{target: target{number: number, life: 1}, rows: map[int]int{3: version, 4: 0}, isFresh: isFresh, begin: begin})
	}
	see(1, 0, true, 105*ms)  // before the acknowledgement
	see(0, 0, true, 150*ms)  // another instance, 40 ms after it
	see(1, 0, false, 120*ms) // stale, and purged
	see(1, 0, true, 130*ms)  // fresh
	see(1, 1, true, 210*ms)  // what another was told of, which has refused
	see(2, 1, false, 210*ms) // stale, and not purged
	see(2, 1, true, 220*ms)  // fresh
	see(2, 2, true, 230*ms)  // new
	r := judgeData(scenario{}, l)
	if got, want := r.lag(1), 40*ms; got != want || len(r.seen) != 1 {
		t.Errorf("old data for %v after one of %d edits, want %v after one", got, len(r.seen), want)
	}
	var at []time.Duration
	for i := range l.views {
		if slices.ContainsFunc(r.old, func(s string) bool { return strings.Contains(s, fmt.Sprintf(" at %v (", l.views[i].begin)) }) {
			at = append(at, l.views[i].begin)
		}
	}
	if want := []time.Duration{120 * ms, 130 * ms, 220 * ms}; len(r.old) != 3 || !slices.Equal(at, want) {
		t.Errorf("old pages at %v, want %v\n%s", at, want, strings.Join(r.old, "\n"))
	}
	if wrong := r.wrong(); len(wrong) != 1 || !strings.HasPrefix(wrong[0], "3 pages with old data, the first: ") {
		t.Errorf("what is wrong is %q", wrong)
	}
}
