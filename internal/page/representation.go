package page

import (
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/isr-go/isr/internal/header"
	"github.com/isr-go/isr/internal/pagekey"
	"github.com/isr-go/isr/internal/policy"
)

// A representation is one encoding of a page, with its headers ready to send.
type representation struct {
	body    []byte
	lines   *header.Lines // the last three: Cache-Control, Age, Cache-Status
	own     string        // the ETag, and then the values that lines has not, each after its length
	promise int64         // the seconds for which caches downstream may hold it, by its Cache-Control; negative: it does not say
	entity  int32         // how many of the first lines describe the body, and are not for a 304
	untyped bool          // whether the handler wants no Content-Type, not even a guess
	alone   bool          // whether lines was made for it
}

// isHit is the Cache-Status of a hit that never turns stale.
const isHit = "isr; hit"

// init makes rep the representation of a body. It has ranges, unless it is one that isr has
// encoded: a range is one of the plain bytes.
func (rep *representation) init(share *header.Share, status int, h http.Header, body []byte, etag string, encoded bool) {
	rep.body = body
	n := len(h) + 6
	names, values := make([]string, 0, n), make([]string, 0, n)
	add := func(name string, lines ...string) {
		for _, v := range lines {
			names, values = append(names, name), append(values, v)
		}
	}
	entity := []string{"Content-Encoding", "Content-Language", "Content-Type", "Last-Modified"}
	if header.BodyAllowed(status) {
		add("Content-Length", strconv.Itoa(len(body)))
	}
	for _, name := range entity {
		add(name, h[name]...)
	}
	if status == http.StatusOK && !encoded {
		add("Accept-Ranges", "bytes")
	}
	rep.entity = int32(len(names))
	rep.untyped = h["Content-Type"] == nil && len(body) > 0
	for _, name := range slices.Sorted(maps.Keys(h)) {
		if name != "Cache-Control" && name != "Cache-Status" && name != "Etag" && name != "Vary" && !slices.Contains(entity, name) {
			add(name, h[name]...)
		}
	}
	if header.BodyAllowed(status) {
		add("Etag", etag)
	}
	add("Vary", h["Vary"]...)
	add("Cache-Control", strings.Join(h["Cache-Control"], ", "))
	rep.promise = promiseOf(header.ParseCacheControl(h["Cache-Control"]))
	add("Age", "0")
	add("Cache-Status", strings.Join(append(slices.Clip(h["Cache-Status"]), isHit), ", "))
	lines, shared := share.Of(names, values, 3)
	rep.lines, rep.alone = lines, !shared
	own := pagekey.AppendString(nil, etag)
	for _, i := range lines.Own {
		own = pagekey.AppendString(own, values[i])
	}
	rep.own = string(own)
}

// bytes returns how much memory the strings and the body of rep take.
func (rep *representation) bytes() int64 {
	n := int64(cap(rep.body)) + pagekey.StringSize(rep.own)
	if rep.alone {
		n += rep.lines.Size()
	}
	return n
}

// etag returns the ETag of the representation.
func (rep *representation) etag() string {
	etag, _ := cut(rep.own)
	return etag
}

// value returns what stands in the first line with a name.
func (rep *representation) value(name string) string {
	for _, f := range rep.lines.Fields {
		if f.Name == name {
			return rep.values()[f.From]
		}
	}
	return ""
}

// values returns the values of the headers, as they were generated. They are the
// caller's.
func (rep *representation) values() []string {
	l := rep.lines
	shared := l.Values
	values := make([]string, len(shared))
	copy(values, shared)
	etag, rest := cut(rep.own)
	if i := l.ETag; i >= 0 {
		values[i] = etag
	}
	for _, i := range l.Own {
		values[i], rest = cut(rest)
	}
	return values
}

// cut returns the first of the values in own, and what is behind it.
func cut(own string) (value, rest string) {
	if n := 1 + int(own[0]); n <= 0x80 {
		return own[1:n], own[n:]
	}
	return cutLong(own)
}

// cutLong is cut where the length takes several bytes; see binary.Uvarint.
func cutLong(s string) (value, rest string) {
	n := 0
	for shift := 0; ; shift += 7 {
		c := s[0]
		s = s[1:]
		if n |= int(c&0x7f) << shift; c < 0x80 {
			return s[:n], s[n:]
		}
	}
}

// snapshot returns the headers as they were generated.
func (rep *representation) snapshot() (h http.Header, etag string) {
	values := rep.values()
	h = make(http.Header, len(rep.lines.Fields))
	for i, name := range rep.lines.Names {
		if i < len(values)-2 {
			h[name] = append(h[name], values[i])
		}
	}
	if status := strings.TrimSuffix(strings.TrimSuffix(values[len(values)-1], isHit), ", "); status != "" {
		h["Cache-Status"] = []string{status} // the handler's
	}
	return h, rep.etag()
}

// valuesAt returns the values of the headers at one moment. They are the caller's.
func (rep *representation) valuesAt(v View) []string {
	age, left := int64(v.Age/time.Second), int64(v.Left/time.Second)
	if v.Left != policy.Forever && !v.Invalidated {
		left = int64((v.Left+v.Age)/time.Second) - age // in step with Age
	}
	values := rep.values()
	tail := values[len(values)-3:]
	promise := rep.promise
	if v.Invalidated {
		tail[0] = header.Revoked(tail[0])
		promise = min(promise, 0)
	}
	if used := usedUp(age, promise, v.Left == policy.Forever, left); used != 0 {
		tail[1] = ages.of(used, formatAge)
	}
	status := isHit
	switch {
	case v.Left == policy.Forever && v.State == Fresh:
		return values
	case v.Left == policy.Forever:
		status += "; detail=stale"
	case v.State == Fresh:
		status = fresh.of(left, formatFresh)
	default:
		status = stale.of(left, formatStale)
	}
	if tail[2] != isHit {
		status = strings.TrimSuffix(tail[2], isHit) + status // the handler's first
	}
	tail[2] = status
	return values
}

// promiseOf returns for how many seconds shared caches may hold what says d, or a
// negative number where it does not say.
func promiseOf(d header.Directives) int64 {
	switch {
	case d.SMaxAge >= 0:
		return int64(d.SMaxAge / time.Second)
	case d.MaxAge >= 0:
		return int64(d.MaxAge / time.Second)
	}
	return -1
}

// usedUp returns the Age of a page: how many seconds of what its Cache-Control
// promises are used up, so that what is left of them ends when the page does here.
// A page that is kept for ever counts as validated now. A promise that is
// shorter than the page's life begins anew with each answer.
func usedUp(age, promise int64, forever bool, left int64) int64 {
	switch {
	case forever:
		return 0
	case promise < 0:
		return age
	}
	return max(0, min(age, promise-left))
}

// writeHeader sets the headers, or at a 304 those alone that do not describe the body. It
// gives values away: callers may modify the slices.
func (rep *representation) writeHeader(h http.Header, values []string, notModified, invalidated bool) {
	from := int32(0)
	if notModified {
		from = rep.entity
	}
	fresh, override := len(h) == 0, invalidated
	if rep.untyped {
		h["Content-Type"] = nil // which net/http takes for a no
	}
	for _, f := range rep.lines.Fields {
		if f.From < from {
			continue
		}
		vs := values[f.From:f.To:f.To]
		if !fresh {
			override = override || f.Name == "Cache-Control" && header.IsPersonal(h)
			vs = header.Merge(h, f.Name, vs)
		}
		h[f.Name] = vs
	}
	if override {
		header.DeleteTargeted(h)
	}
}
