package inspect

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/isr-go/isr"
)

// failing is the state of a page whose last attempt at renewal has failed,
// whatever its age.
const failing = "failing"

// states are those that a page can be in, the worst first.
var states = []string{failing, isr.Expired.String(), isr.Stale.String(), isr.Fresh.String(), isr.Uncacheable.String()}

// kinds are what the table can show.
var kinds = []string{"pages", "data", "all"}

// A query says what to show. It is all that the page's links carry.
type query struct {
	ID    string // of the page whose detail is shown
	Path  string // part of the URL as shown, in any case and with or without escapes; or what Below says
	Tag   string
	State string
	Kind  string // pages, data or all
	Sort  string // the name of a column; a "-" in front turns the order round
	Page  int    // of the table, from 1
	Limit int    // rows
}

// Limits that keep the document small, whatever the cache holds and whatever is
// asked for: most of the links repeat the query.
const (
	defaultLimit = 50
	maxLimit     = 500
	maxText      = 256 // of what is searched for
)

func parseQuery(values url.Values) (query, error) {
	q := query{
		ID: values.Get("id"), Path: strings.TrimSpace(values.Get("path")), Tag: strings.TrimSpace(values.Get("tag")),
		State: values.Get("state"), Kind: cmp.Or(values.Get("kind"), kinds[0]), Sort: cmp.Or(values.Get("sort"), "path"), Page: 1, Limit: defaultLimit,
	}
	var errs []error
	number := func(name string, into *int, limit int) {
		text := values.Get(name)
		if text == "" {
			return
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > limit {
			errs = append(errs, fmt.Errorf("%s: want a number from 1 to %d", name, limit))
		} else {
			*into = n
		}
	}
	number("page", &q.Page, math.MaxInt32)
	number("limit", &q.Limit, maxLimit)
	if q.State != "" && !slices.Contains(states, q.State) {
		errs = append(errs, fmt.Errorf("state: want one of %s", strings.Join(states, ", ")))
	}
	if !slices.Contains(kinds, q.Kind) {
		errs = append(errs, fmt.Errorf("kind: want one of %s", strings.Join(kinds, ", ")))
	}
	if q.column() == nil {
		names := make([]string, len(columns))
		for i := range columns {
			names[i] = columns[i].Name
		}
		errs = append(errs, fmt.Errorf(`sort: want one of %s, perhaps with a "-" in front`, strings.Join(names, ", ")))
	}
	if len(q.ID) > maxText || len(q.Path) > maxText || len(q.Tag) > maxText {
		errs = append(errs, fmt.Errorf("id, path and tag have at most %d bytes", maxText))
	}
	return q, errors.Join(errs...)
}

// Link returns the query as a relative reference, so that the page works
// wherever it is mounted.
func (q query) Link() string { return "?" + q.values().Encode() }

// JSON returns the link to the same as JSON.
func (q query) JSON() string {
	values := q.values()
	values.Set("format", "json")
	return "?" + values.Encode()
}

func (q query) values() url.Values {
	values := make(url.Values)
	set := func(name, value, normal string) {
		if value != normal {
			values.Set(name, value)
		}
	}
	set("id", q.ID, "")
	set("path", q.Path, "")
	set("tag", q.Tag, "")
	set("state", q.State, "")
	set("kind", q.Kind, kinds[0])
	set("sort", q.Sort, "path")
	set("page", strconv.Itoa(q.Page), "1")
	set("limit", strconv.Itoa(q.Limit), strconv.Itoa(defaultLimit))
	return values
}

// Filtered reports whether the query leaves pages out.
func (q query) Filtered() bool { return q.Path != "" || q.Tag != "" || q.State != "" }

// Below returns what the query's path names, if that is all below a path: it ends in "/*".
func (q query) Below() string {
	if strings.HasSuffix(q.Path, "/*") && (q.Path[0] == '/' || strings.Contains(q.Path, "://")) {
		return q.Path
	}
	return ""
}

// To returns the query for a page of the table.
func (q query) To(page int) query { q.Page = page; return q }

// All returns the query for the table, without the detail of one page.
func (q query) All() query { q.ID = ""; return q }

// Of returns the query for the detail of a page.
func (q query) Of(id string) query { q.ID = id; return q }

// In returns the query for the pages in a state.
func (q query) In(state string) query { q.State, q.Page = state, 1; return q }

// Tagged returns the query for all pages with a tag.
func (q query) Tagged(tag string) query {
	return query{Tag: tag, Kind: q.Kind, Sort: q.Sort, Page: 1, Limit: q.Limit}
}

// Showing returns the query for all of a kind.
func (q query) Showing(kind string) query { q.Kind, q.Page = kind, 1; return q }

// By returns the query for the other order, if the table is sorted by a column,
// else for the order in which the column is most telling.
func (q query) By(c *column) query {
	q.Page = 1
	switch {
	case q.Sort == c.Name, q.Sort != "-"+c.Name && c.big:
		q.Sort = "-" + c.Name
	default:
		q.Sort = c.Name
	}
	return q
}

// Order returns the aria-sort of a column: empty if the table is not sorted by it.
func (q query) Order(c *column) string {
	switch q.Sort {
	case c.Name:
		return "ascending"
	case "-" + c.Name:
		return "descending"
	}
	return ""
}

// A column is one by which the table can be sorted.
type column struct {
	Name, Title string
	big         bool // whether large values are the telling ones
	compare     func(a, b *entry) int
}

var columns = []column{
	{"path", "Page", false, byPath},
	{"state", "State", false, func(a, b *entry) int {
		return cmp.Compare(slices.Index(states, a.state), slices.Index(states, b.state))
	}},
	{"age", "Age", true, func(a, b *entry) int { return cmp.Compare(a.age, b.age) }},
	{"left", "Time left", false, func(a, b *entry) int { return cmp.Compare(a.left, b.left) }},
	{"hits", "Hits", true, func(a, b *entry) int { return cmp.Compare(a.Hits, b.Hits) }},
	{"size", "Size", true, func(a, b *entry) int { return cmp.Compare(a.Size, b.Size) }},
	{"status", "Status", true, func(a, b *entry) int { return cmp.Compare(a.Status, b.Status) }},
	{"took", "Took", true, func(a, b *entry) int { return cmp.Compare(a.Duration, b.Duration) }},
}

func byPath(a, b *entry) int {
	if c := strings.Compare(a.path, b.path); c != 0 {
		return c
	}
	return cmp.Or(strings.Compare(a.query, b.query), strings.Compare(a.Host, b.Host), strings.Compare(a.Scheme, b.Scheme))
}

func (q query) column() *column {
	name := strings.TrimPrefix(q.Sort, "-")
	for i := range columns {
		if columns[i].Name == name {
			return &columns[i]
		}
	}
	return nil
}

// order returns the comparison by which the table is sorted. Among equals the
// URL decides, and at last the key, so that the pages of the table follow on from
// each other.
func (q query) order() func(a, b *entry) int {
	c, sign := q.column(), 1
	if strings.HasPrefix(q.Sort, "-") {
		sign = -1
	}
	return func(a, b *entry) int {
		if n := c.compare(a, b); n != 0 {
			return sign * n
		}
		if n := byPath(a, b); n != 0 {
			return n
		}
		return strings.Compare(identify(&a.Page), identify(&b.Page))
	}
}

// matches reports whether a page is one that the query is after, whatever its
// state.
func (q query) matches(p *isr.Page) bool {
	if q.Kind != "all" && isData(p) != (q.Kind == "data") || q.Tag != "" && !slices.Contains(hideTags(p.Tags), q.Tag) {
		return false
	}
	if q.Path == "" {
		return true
	}
	address, wanted := strings.ToLower(hideAddress(p)), strings.ToLower(q.Path)
	if below := q.Below(); below != "" {
		if below[0] == '/' {
			address = strings.ToLower(hidePath(p))
		}
		return !isData(p) && strings.HasPrefix(address, strings.TrimSuffix(wanted, "*"))
	}
	if strings.Contains(address, wanted) {
		return true
	}
	plain, err := url.PathUnescape(address)
	return err == nil && strings.Contains(plain, wanted)
}

// An entry is a page on its way into the table.
type entry struct {
	isr.Page
	path      string // as shown
	query     string // as shown
	state     string
	age, left time.Duration // left is negative when the page's time is over
}

func newEntry(p isr.Page, now time.Time) entry {
	e := entry{Page: p, path: hidePath(&p), query: hideQuery(&p), state: p.State.String(), age: max(0, now.Sub(p.Generated)), left: math.MaxInt64}
	if p.TTL > 0 {
		e.left = p.TTL - e.age
	}
	if p.Failures > 0 {
		e.state = failing
	}
	return e
}

// entries yields the pages of a site as of one moment, which is not before the
// one that the site judges them by.
func entries(site *isr.Site) iter.Seq[entry] {
	return func(yield func(entry) bool) {
		var now time.Time
		for p := range site.Pages() {
			if now.IsZero() {
				now = time.Now()
			}
			if !yield(newEntry(p, now)) {
				return
			}
		}
	}
}

// lookup returns the page with an id.
func lookup(site *isr.Site, id string) (e entry, ok bool) {
	for e = range entries(site) {
		if identify(&e.Page) == id {
			return e, true
		}
	}
	return entry{}, false
}

// A selection keeps the first so many entries of all that are added, in order.
// It holds twice as many at most.
type selection struct {
	keep    int
	compare func(a, b *entry) int
	entries []*entry
	last    *entry // of those that were kept when it was last sorted
}

func (s *selection) add(e *entry) {
	if s.last != nil && s.compare(e, s.last) >= 0 {
		return
	}
	kept := *e // the caller uses e again for the next
	if s.entries = append(s.entries, &kept); len(s.entries) >= 2*s.keep {
		s.sort()
	}
}

func (s *selection) sort() {
	slices.SortFunc(s.entries, s.compare)
	if len(s.entries) >= s.keep {
		clear(s.entries[s.keep:])
		s.entries = s.entries[:s.keep]
		s.last = s.entries[s.keep-1]
	}
}
