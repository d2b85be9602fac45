package inspect

import (
	"cmp"
	"html/template"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/isr-go/isr"
)

// A view is what the document shows, and in the fields that have a name there,
// what the JSON says.
type view struct {
	Query   query        `json:"-"`
	Actions bool         `json:"-"`
	Style   template.CSS `json:"-"`
	Script  template.JS  `json:"-"`
	Taken   time.Time    `json:"taken"`
	Outcome *outcome     `json:"outcome,omitempty"`
	Summary summary      `json:"summary"`
	History *history     `json:"history,omitempty"`
	Table   *table       `json:"table,omitempty"`
	Page    *detail      `json:"page,omitempty"`
	Edge    []purge      `json:"edge,omitempty"`    // what it is owed, and then what it was told, the last first
	Missing bool         `json:"missing,omitempty"` // whether the one page asked for is not stored
	States  []facet      `json:"-"`
	Notice  *outcome     `json:"-"` // if it is the outcome of no button that is to be seen
}

// A summary is how the site does as a whole.
type summary struct {
	HitRatio    *float64 `json:"hitRatio"` // of the visits to pages; null before the first
	Hits        uint64   `json:"hits"`
	Stale       uint64   `json:"stale"`
	Misses      uint64   `json:"misses"`
	Passed      uint64   `json:"passed"`
	Generated   uint64   `json:"generated"`
	Failed      uint64   `json:"failed"`
	DataHits    uint64   `json:"dataHits"`
	DataMisses  uint64   `json:"dataMisses"`
	Evicted     uint64   `json:"evicted"`
	StoreErrors uint64   `json:"storeErrors"`
	EdgeErrors  uint64   `json:"edgeErrors"`
	EdgeOwed    int      `json:"edgeOwed"`
	Pages       int      `json:"pages"`
	Generating  int      `json:"generating"`
	Bytes       int64    `json:"bytes"`
	MaxBytes    int64    `json:"maxBytes,omitempty"`
}

func newSummary(s isr.Stats, maxBytes int64) summary {
	out := summary{
		Hits: s.Hits, Stale: s.Stale, Misses: s.Misses, Passed: s.Passed, Generated: s.Generated, Failed: s.Failed,
		DataHits: s.DataHits, DataMisses: s.DataMisses, Evicted: s.Evicted, StoreErrors: s.StoreErrors, EdgeErrors: s.EdgeErrors, EdgeOwed: s.EdgeOwed,
		Pages: s.Pages, Generating: s.Generating, Bytes: s.Bytes, MaxBytes: maxBytes,
	}
	if served := s.Hits + s.Stale; served+s.Misses > 0 {
		ratio := float64(served) / float64(served+s.Misses)
		out.HitRatio = &ratio
	}
	return out
}

// Ratio returns the hit ratio in words. It never says 100 % where there was a
// miss.
func (s *summary) Ratio() string {
	if s.HitRatio == nil {
		return "–"
	}
	return formatRatio(*s.HitRatio)
}

// Loads returns how often data was asked for, DataRatio how much of that was in memory.
func (s *summary) Loads() uint64     { return s.DataHits + s.DataMisses }
func (s *summary) DataRatio() string { return formatRatio(float64(s.DataHits) / float64(s.Loads())) }

func formatRatio(r float64) string {
	return strconv.FormatFloat(math.Floor(r*1000)/10, 'f', -1, 64) + " %"
}

// Runs returns how many generations have ended.
func (s *summary) Runs() uint64 { return s.Generated + s.Failed }

// Used returns how much of the memory is used, in whole percents.
func (s *summary) Used() int {
	if s.MaxBytes <= 0 {
		return 0
	}
	return int(min(100, s.Bytes*100/s.MaxBytes))
}

// A facet is how many of the pages are in a state, whichever is chosen.
type facet struct {
	State string
	Count int
}

// A table is a part of the pages that a query is after.
type table struct {
	Matching int            `json:"matching"`
	States   map[string]int `json:"states"` // as if no state had been asked for
	Page     int            `json:"page"`
	Last     int            `json:"lastPage"`
	First    int            `json:"-"` // the number of the first row
	Rows     []row          `json:"pages"`
}

// Total returns how many pages match in any state.
func (t *table) Total() (n int) {
	for _, count := range t.States {
		n += count
	}
	return n
}

// look fills the view from the site. It reports false if the one page that was
// asked for is not stored.
func (v *view) look(h *handler) bool {
	v.Taken = time.Now().UTC()
	v.Summary = newSummary(h.site.Stats(), h.opts.MaxBytes)
	if h.opts.Recorder != nil {
		v.History = h.opts.Recorder.history(v.Taken)
	}
	if v.Query.ID == "" {
		v.Table = v.list(h.site)
		v.Edge = purges(h.site)
		return true
	}
	v.Page = v.find(h.site)
	v.Missing = v.Page == nil
	return !v.Missing
}

// list returns the rows that the query is after.
func (v *view) list(site *isr.Site) *table {
	q := &v.Query
	// There is no telling how many pages match before all were seen. But no more
	// than all of them do.
	pages := max(1, (v.Summary.Pages+q.Limit-1)/q.Limit)
	q.Page = min(q.Page, pages)
	first := selection{keep: q.Page * q.Limit, compare: q.order()}
	t := &table{States: make(map[string]int, len(states))}
	var e entry // one for all of them, since it is passed on by reference
	for e = range entries(site) {
		if !q.matches(&e.Page) {
			continue
		}
		t.States[e.state]++
		if q.State == "" || q.State == e.state {
			t.Matching++
			first.add(&e)
		}
	}
	first.sort()
	t.Last = max(1, (t.Matching+q.Limit-1)/q.Limit)
	q.Page = min(q.Page, t.Last)
	t.Page, t.First = q.Page, (q.Page-1)*q.Limit+1
	shown := first.entries[min(t.First-1, len(first.entries)):min(t.First-1+q.Limit, len(first.entries))]
	t.Rows = make([]row, len(shown))
	for i, e := range shown {
		t.Rows[i] = newRow(e)
		t.Rows[i].At = i
	}
	for _, state := range states {
		v.States = append(v.States, facet{state, t.States[state]})
	}
	return t
}

// place puts the outcome of an action beside its button: into the row of its
// page or, if that is gone, into one that takes its place and says so.
func (v *view) place() {
	out := v.Outcome
	switch t := v.Table; {
	case out == nil:
	case out.ID != "" && t != nil:
		if i := slices.IndexFunc(t.Rows, func(r row) bool { return r.ID == out.ID }); i >= 0 {
			t.Rows[i].Outcome = out
			return
		}
		gone := row{ID: out.ID, URL: cmp.Or(out.URL, "A page"), Outcome: out, Gone: true}
		t.Rows = slices.Insert(t.Rows, min(out.at, len(t.Rows)), gone)
	case out.ID != "" && v.Page != nil && v.Page.ID == out.ID:
		v.Page.Outcome = out
	case out.Below != "" && t != nil && v.Query.Below() == out.Below:
		// BelowForm shows it.
	case out.Tag != "" && (t != nil && v.Query.Tag == out.Tag || v.Page != nil && slices.Contains(v.Page.Tags, out.Tag)):
		// TagForm shows it.
	default:
		v.Notice = out
	}
}

// find returns the one page that the query names.
func (v *view) find(site *isr.Site) *detail {
	e, ok := lookup(site, v.Query.ID)
	if !ok {
		return nil
	}
	d := &detail{row: newRow(&e), ETag: e.ETag, Header: hideHeader(e.Header), CacheControl: strings.Join(e.Header["Cache-Control"], ", ")}
	if own := strings.ToLower(d.CacheControl); d.Invalidated { // what isr sends with it instead, for as long as it is shown
		switch {
		case strings.Contains(own, "no-store"):
		case strings.Contains(own, "private"):
			d.CacheControl = "private, max-age=0, must-revalidate"
		default:
			d.CacheControl = "public, max-age=0, must-revalidate"
		}
	}
	tag := dataTag(&e.Page)
	for other := range entries(site) {
		switch {
		case identify(&other.Page) == d.ID:
		case d.Data() && slices.Contains(other.Tags, tag):
			d.Readers++
			if len(d.ReadBy) < maxOthers {
				d.ReadBy = append(d.ReadBy, newRow(&other))
			}
		case isData(&other.Page) && len(d.Reads) < maxOthers && slices.Contains(e.Tags, dataTag(&other.Page)):
			d.Reads = append(d.Reads, newRow(&other))
		}
		if !covers(&e.Page, &other.Page) {
			continue
		}
		d.Covers++
		if r := newRow(&other); r.ID != d.ID && len(d.Others) < maxOthers {
			d.Others = append(d.Others, r)
		}
	}
	return d
}

// Kinds returns what the table can show.
func (v *view) Kinds() []string { return kinds }

// Noun returns the name of so many of what the table shows.
func (v *view) Noun(n int) string {
	noun := map[string]string{"pages": "page", "data": "value", "all": "page or value"}[v.Query.Kind]
	if n != 1 {
		noun = map[string]string{"pages": "pages", "data": "values", "all": "pages and values"}[v.Query.Kind]
	}
	return noun
}

// IsHidden reports whether a tag is not shown as it is, so that it names nothing.
func (v *view) IsHidden(tag string) bool { return strings.Contains(tag, hidden) }

// Columns returns those by which the table can be sorted.
func (v *view) Columns() []column { return columns }

// Limits returns the numbers of rows that the page offers.
func (v *view) Limits() []int {
	limits := []int{defaultLimit, 100, 200, maxLimit}
	if !slices.Contains(limits, v.Query.Limit) {
		limits = append(limits, v.Query.Limit)
		slices.Sort(limits)
	}
	return limits
}

// Previous and Next return the numbers of the neighbours in the table's pages,
// To that of the last row.
func (v *view) Previous() int { return v.Query.Page - 1 }
func (v *view) Next() int     { return v.Query.Page + 1 }
func (v *view) To() int       { return min(v.Table.Matching, v.Query.Page*v.Query.Limit) }

// A listing is a list of links to details.
type listing struct {
	Query query
	Rows  []row
}

// Rows returns a list of links to details.
func (v *view) Rows(rows []row) listing { return listing{v.Query, rows} }

// A form is what the buttons of a page, of a tag, or of all below a path need.
type form struct {
	Query   query
	Row     *row
	Tag     string
	Below   string
	Outcome *outcome
}

// Form returns the form of a page.
func (v *view) Form(r *row) form { return form{Query: v.Query, Row: r} }

// TagForm returns the form of a tag.
func (v *view) TagForm(tag string) form {
	f := form{Query: v.Query, Tag: tag}
	if v.Outcome != nil && v.Outcome.Tag == tag {
		f.Outcome = v.Outcome
	}
	return f
}

// BelowForm returns the form of what is below the path that the query names.
func (v *view) BelowForm() form {
	f := form{Query: v.Query, Below: v.Query.Below()}
	if v.Outcome != nil && v.Outcome.Below == f.Below {
		f.Outcome = v.Outcome
	}
	return f
}
