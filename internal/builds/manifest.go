// Package builds is what the builds of a program know of each other, by one record in the
// Store: which there were, and what they were asked for most. It is small, it is written at
// most once a minute by each instance, and what is lost of it costs time and nothing else.
package builds

import (
	"cmp"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"maps"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/isr-go/isr/internal/pagekey"
)

// Bounds of a manifest: visitors choose what they ask for.
const (
	maxBuilds     = 4 // this one, and those that it may inherit from
	maxPages      = 1000
	maxPageBytes  = 1 << 10 // of one page's URL and headers
	maxTotalBytes = 64 << 10
)

// A Manifest is what the builds of a program know of each other.
type Manifest struct {
	Builds []string // the last one to have begun first
	Pages  []Asked  // those first that are asked for most
	At     time.Time
}

// Asked is a page, and how often it is asked for.
type Asked struct {
	Page  string  // by Visit.encode
	Score float64 // about how often in an hour, by the instance that says most; it halves each hour
}

// Begin notes that a build has begun, unless that is known, and reports whether it was not.
func (m *Manifest) Begin(build string) (changed bool) {
	if slices.Contains(m.Builds, build) {
		return false
	}
	m.Builds = slices.Insert(m.Builds, 0, build)
	m.Builds = m.Builds[:min(len(m.Builds), maxBuilds)]
	return true
}

// Others returns the builds but one, the last one to have begun first.
func (m *Manifest) Others(build string) []string {
	others := slices.DeleteFunc(slices.Clone(m.Builds), func(b string) bool { return b == build })
	return others[:min(len(others), maxBuilds-1)]
}

// minScore is that of what is not asked for any more.
const minScore = 1.0 / 16

// Merge adds what one instance was asked for. It reports whether that says anything new.
// To add the same once more, or not at all, does no harm, so that it does not matter which
// of two instances comes first, nor whether it gets through.
func (m *Manifest) Merge(asked []Asked, now time.Time) (changed bool) {
	decay := 1.0
	if passed := now.Sub(m.At); !m.At.IsZero() && passed > 0 {
		decay = math.Exp2(-passed.Hours())
	}
	scores := make(map[string]float64, len(m.Pages)+len(asked))
	for _, a := range m.Pages {
		scores[a.Page] = max(scores[a.Page], a.Score*decay)
	}
	for _, a := range asked {
		if a.Score > scores[a.Page] {
			scores[a.Page], changed = a.Score, true
		}
	}
	if !changed {
		return false
	}
	m.At, m.Pages = now, m.Pages[:0]
	for p, score := range scores {
		if score >= minScore && len(p) <= maxPageBytes {
			m.Pages = append(m.Pages, Asked{p, score})
		}
	}
	slices.SortFunc(m.Pages, func(a, b Asked) int { return cmp.Or(cmp.Compare(b.Score, a.Score), cmp.Compare(a.Page, b.Page)) })
	total := 0
	for i, a := range m.Pages {
		if total += len(a.Page); i == maxPages || total > maxTotalBytes {
			m.Pages = m.Pages[:i]
			break
		}
	}
	return true
}

// format is the number of the encoding.
const format = 1

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errDamaged says that a record is not what encode has made.
var errDamaged = errors.New("the Store's list of this program's builds and pages is damaged")

// encode returns the manifest as bytes that know under which key they belong.
func (m *Manifest) encode(key string) []byte {
	b := []byte{format, 0, 0, 0, 0}
	b = pagekey.AppendString(b, key)
	b = binary.AppendUvarint(b, uint64(m.At.Unix()))
	b = binary.AppendUvarint(b, uint64(len(m.Builds)))
	for _, build := range m.Builds {
		b = pagekey.AppendString(b, build)
	}
	b = binary.AppendUvarint(b, uint64(len(m.Pages)))
	for _, a := range m.Pages {
		b = pagekey.AppendString(b, a.Page)
		b = binary.AppendUvarint(b, uint64(min(a.Score, 1<<40)/minScore))
	}
	binary.LittleEndian.PutUint32(b[1:], crc32.Checksum(b[5:], castagnoli))
	return b
}

// decode is the inverse of encode.
func decode(b []byte, key string) (*Manifest, error) {
	if len(b) < 5 || b[0] != format || binary.LittleEndian.Uint32(b[1:]) != crc32.Checksum(b[5:], castagnoli) {
		return nil, errDamaged
	}
	d := decoder{b: b[5:]}
	if d.text() != key {
		return nil, errDamaged
	}
	m := &Manifest{At: time.Unix(int64(d.number()), 0)}
	for n := d.number(); n > 0 && !d.bad; n-- {
		m.Builds = append(m.Builds, d.text())
	}
	for n := d.number(); n > 0 && !d.bad; n-- {
		m.Pages = append(m.Pages, Asked{d.text(), float64(d.number()) * minScore})
	}
	if d.bad || len(d.b) > 0 {
		return nil, errDamaged
	}
	return m, nil
}

// A decoder reads numbers and strings. Once bad is set it yields only zeros.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) number() uint64 {
	n, size := binary.Uvarint(d.b)
	if size <= 0 {
		d.b, d.bad = nil, true
		return 0
	}
	d.b = d.b[size:]
	return n
}

func (d *decoder) text() string {
	n := d.number()
	if n > uint64(len(d.b)) {
		d.b, d.bad = nil, true
		return ""
	}
	s := string(d.b[:n])
	d.b = d.b[n:]
	return s
}

// A Visit is what has to be asked for to get a page, in any build: its URL and the headers
// that its route declares.
type Visit struct {
	Scheme, Host, Path, Query string
	Pattern                   string // of a ServeMux around the Site
	Header                    http.Header
}

// encode returns the visit as one string, the same for the same visit.
func (v *Visit) encode() string {
	var b []byte
	for _, s := range [...]string{v.Scheme, v.Host, v.Path, v.Query, v.Pattern} {
		b = pagekey.AppendString(b, s)
	}
	for _, name := range slices.Sorted(maps.Keys(v.Header)) {
		for _, value := range v.Header[name] {
			b = pagekey.AppendString(pagekey.AppendString(b, name), value)
		}
	}
	return string(b)
}

// decodeVisit is the inverse of encode.
func decodeVisit(s string) (v Visit, ok bool) {
	d := decoder{b: []byte(s)}
	v = Visit{Scheme: d.text(), Host: d.text(), Path: d.text(), Query: d.text(), Pattern: d.text(), Header: make(http.Header)}
	for len(d.b) > 0 && !d.bad {
		name := d.text()
		v.Header[name] = append(v.Header[name], d.text())
	}
	path, err := pagekey.CleanPath(v.Path)
	return v, !d.bad && err == nil && path == v.Path && strings.HasPrefix(path, "/")
}
