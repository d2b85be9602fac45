package inspect

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"maps"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/internal/pagekey"
)

// A row is a page or a value in the table, without what is secret.
type row struct {
	ID              string    `json:"id"`
	Kind            string    `json:"kind"` // page; or data, whose path is its Name, and whose query is its key
	URL             string    `json:"url"`
	Scheme          string    `json:"scheme,omitempty"`
	Host            string    `json:"host,omitempty"`
	Path            string    `json:"path"`
	Query           string    `json:"query,omitempty"`
	Route           string    `json:"route,omitempty"`
	State           string    `json:"state"`
	Phase           string    `json:"phase"` // the state without regard to failures
	Generated       time.Time `json:"generated"`
	AgeSeconds      float64   `json:"ageSeconds"`
	TTLSeconds      float64   `json:"ttlSeconds,omitempty"`  // absent: until revalidated on demand; negative: never fresh
	LeftSeconds     *float64  `json:"leftSeconds,omitempty"` // negative when over
	Invalidated     bool      `json:"invalidated,omitempty"` // before its time was over
	Size            int64     `json:"size"`
	Hits            uint64    `json:"hits"`
	Tags            []string  `json:"tags"`
	Status          int       `json:"status,omitempty"`
	DurationSeconds float64   `json:"durationSeconds"`
	Failures        int       `json:"failures,omitempty"`
	Error           string    `json:"error,omitempty"`
	NotStored       string    `json:"notStored,omitempty"`

	Varied  http.Header `json:"varied,omitempty"`
	At      int         `json:"-"` // in the table
	Outcome *outcome    `json:"-"` // of an action on this page
	Gone    bool        `json:"-"` // whether only the outcome is left of it
}

// A detail is one page with all that is known of it.
type detail struct {
	row
	ETag         string      `json:"etag,omitempty"`
	CacheControl string      `json:"cacheControl,omitempty"`
	Header       http.Header `json:"header,omitempty"`
	Covers       int         `json:"covers"`            // how many stored pages an action on it concerns
	Others       []row       `json:"-"`                 // some of those
	Readers      int         `json:"readers,omitempty"` // of a value: how many stored pages and values have its tag
	ReadBy       []row       `json:"readBy,omitempty"`  // some of those
	Reads        []row       `json:"reads,omitempty"`   // some of the stored values whose tag it has
}

// isData reports whether what is stored is a value of an isr.Data.
func isData(p *isr.Page) bool { return p.Scheme == pagekey.ValueScheme }

// dataTag returns the tag of a value and its readers.
func dataTag(p *isr.Page) string { return pagekey.ValueTag(p.Path, p.Query) }

// maxOthers is how many of the pages that share a URL a detail lists.
const maxOthers = 20

// address returns the name of a page for Revalidate and Purge.
func address(p *isr.Page) string {
	s := p.Path
	if p.Host != "" {
		s = p.Scheme + "://" + p.Host + p.Path
	}
	if p.Query != "" {
		s += "?" + p.Query
	}
	return s
}

// covers reports whether the address of p names the stored page other, too: it
// does not tell apart what the headers vary, nor spellings of the path, and without
// a query covers all.
func covers(p, other *isr.Page) bool {
	return !isData(p) && !isData(other) && other.NotStored == "" && (p.Path == other.Path || pagekey.TagPath(p.Path) == pagekey.TagPath(other.Path)) && (p.Query == "" || p.Query == other.Query) &&
		(p.Host == "" || p.Host == other.Host && p.Scheme == other.Scheme)
}

// identify returns a short name for a page's key, which may be of any length.
func identify(p *isr.Page) string {
	b := make([]byte, 0, 256)
	add := func(s string) { b = append(binary.AppendUvarint(b, uint64(len(s))), s...) }
	for _, s := range [...]string{p.Scheme, p.Host, p.Path, p.Query} {
		add(s)
	}
	if len(p.Varied) > 0 {
		for _, name := range slices.Sorted(maps.Keys(p.Varied)) {
			add(name)
			b = binary.AppendUvarint(b, uint64(len(p.Varied[name])))
			for _, value := range p.Varied[name] {
				add(value)
			}
		}
	}
	sum := sha256.Sum256(b)
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}

func newRow(e *entry) row {
	r := row{
		ID: identify(&e.Page), Kind: "page", URL: hideAddress(&e.Page), Scheme: e.Scheme, Host: e.Host, Path: e.path, Query: e.query,
		Route: e.Route, State: e.state, Phase: e.State.String(), Generated: e.Generated.UTC(), AgeSeconds: seconds(e.age),
		TTLSeconds: seconds(e.TTL), Size: e.Size, Hits: e.Hits, Tags: hideTags(e.Tags), Status: e.Status,
		DurationSeconds: seconds(e.Duration), Failures: e.Failures, NotStored: e.NotStored, Varied: hideHeader(e.Varied),
	}
	if isData(&e.Page) {
		r.Kind = "data"
	}
	if e.TTL < 0 {
		r.TTLSeconds = -1
	}
	if r.Tags == nil {
		r.Tags = []string{} // [] in JSON
	}
	if e.left != math.MaxInt64 {
		left := seconds(e.left)
		r.LeftSeconds = &left
	}
	if e.State == isr.Stale || e.State == isr.Expired {
		r.Invalidated = e.TTL == 0 || e.TTL > 0 && e.left > 0 // else it is its time that is over
	}
	if e.Err != nil {
		r.Error = hideError(&e.Page)
	}
	return r
}

// Age returns the page's age in words.
func (r *row) Age() string { return formatSpan(r.AgeSeconds) }

// Took returns the duration of the last generation in words.
func (r *row) Took() string {
	return formatSeconds(r.DurationSeconds)
}

// Left returns the time that the page has left, in words.
func (r *row) Left() string {
	switch {
	case r.Invalidated:
		return "invalidated"
	case r.TTLSeconds < 0:
		return "due" // its handler has it stale from the start
	case r.LeftSeconds != nil && *r.LeftSeconds < 0:
		return formatSpan(-*r.LeftSeconds) + " over"
	case r.LeftSeconds != nil:
		return formatSpan(*r.LeftSeconds)
	}
	return "no limit"
}

// Ticks reports whether the time that the page has left runs.
func (r *row) Ticks() bool { return r.LeftSeconds != nil && !r.Invalidated }

// Lifetime returns how long the page is fresh, in words.
func (r *row) Lifetime() string {
	switch {
	case r.TTLSeconds < 0:
		return "none"
	case r.TTLSeconds >= 1:
		return strings.TrimSuffix(strings.TrimSuffix(formatSpan(r.TTLSeconds), " 0s"), " 0m")
	case r.TTLSeconds > 0:
		return formatSeconds(r.TTLSeconds)
	}
	return "until revalidated on demand"
}

// Trouble reports whether there is something in the way of the page.
func (r *row) Trouble() bool { return r.Failures > 0 || r.NotStored != "" }

// Row returns what the table shows of the page.
func (d *detail) Row() *row { return &d.row }

// Data reports whether it is a value.
func (r *row) Data() bool { return r.Kind == "data" }

// Target returns the path and query of the page, or the name and key of the value.
func (r *row) Target() string {
	if r.Data() {
		return r.URL
	}
	if r.Query != "" {
		return r.Path + "?" + r.Query
	}
	return r.Path
}

// Site returns the scheme and host of the page, if they are in its key.
func (r *row) Site() string {
	if r.Host == "" {
		return ""
	}
	return r.Scheme + "://" + r.Host
}
