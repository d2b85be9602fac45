package page

import (
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/isr-go/isr/internal/header"
	"github.com/isr-go/isr/internal/pagekey"
	"github.com/isr-go/isr/internal/policy"
)

// A representation is one encoding of a page, with its headers ready to send.
type representation struct {
	body     []byte
	etag     string
	names    []string // of values; equal ones stand together
	values   []string // the last three: Cache-Control, Age, Cache-Status
	entity   int      // how many of the first describe the body, and are not for a 304
	untyped  bool     // whether the handler wants no Content-Type, not even a guess
	promise  int64    // the seconds for which caches downstream may hold it, by its Cache-Control; negative: it does not say
	rendered atomic.Pointer[rendered]
}

// rendered are the values of a representation for one second.
type rendered struct {
	age, left   int64
	state       State
	invalidated bool
	values      []string
	inline      [12]string // for values
}

// newRepresentation makes rep the representation of a body. The pages of a route
// mostly have the same headers: their names are those of the last, if they are. It
// has ranges, unless it is one that isr has encoded: a range is one of the plain
// bytes.
func newRepresentation(rep *representation, last *atomic.Pointer[[]string], status int, h http.Header, body []byte, etag string, encoded bool) *representation {
	rep.body, rep.etag = body, etag
	add := func(name string, values ...string) {
		for _, v := range values {
			rep.names = append(rep.names, name)
			rep.values = append(rep.values, strings.Clone(v))
		}
	}
	n := len(h) + 6
	rep.names, rep.values = make([]string, 0, n), make([]string, 0, n)
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
	rep.entity = len(rep.names)
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
	add("Cache-Status", strings.Join(append(slices.Clip(h["Cache-Status"]), "isr"), ", "))
	names := rep.names
	if shared := last.Load(); shared != nil && slices.Equal(*shared, names) {
		rep.names = *shared
	} else {
		last.Store(&names)
	}
	return rep
}

// bytes returns how much memory rep takes.
func (rep *representation) bytes() int64 {
	n := int64(representationOverhead + cap(rep.body) + lineOverhead*cap(rep.values))
	for _, v := range rep.values {
		n += pagekey.StringSize(v)
	}
	return n
}

// snapshot returns the headers as they were generated.
func (rep *representation) snapshot() (h http.Header, etag string) {
	h = make(http.Header, len(rep.names))
	for i, name := range rep.names[:len(rep.names)-2] {
		h[name] = append(h[name], rep.values[i])
	}
	if status := strings.TrimSuffix(strings.TrimSuffix(rep.values[len(rep.values)-1], "isr"), ", "); status != "" {
		h["Cache-Status"] = []string{status} // the handler's
	}
	return h, rep.etag
}

// headersAt returns the values of the headers at one moment. They are formatted once a
// second, whatever the number of visitors.
func (rep *representation) headersAt(v View) *rendered {
	age, left := int64(v.Age/time.Second), int64(v.Left/time.Second)
	if v.Left != policy.Forever && !v.Invalidated {
		left = int64((v.Left+v.Age)/time.Second) - age // in step with Age
	}
	if s := rep.rendered.Load(); s != nil && s.age == age && s.left == left && s.state == v.State && s.invalidated == v.Invalidated {
		return s
	}
	s := &rendered{age: age, left: left, state: v.State, invalidated: v.Invalidated}
	s.values = append(s.inline[:0], rep.values...)
	tail := s.values[len(s.values)-3:]
	promise := rep.promise
	if v.Invalidated {
		tail[0] = header.Revoked(tail[0])
		promise = min(promise, 0)
	}
	tail[1] = strconv.FormatInt(usedUp(age, promise, v.Left == policy.Forever, left), 10)
	tail[2] += "; hit"
	if v.Left != policy.Forever {
		tail[2] += "; ttl=" + strconv.FormatInt(left, 10)
	}
	if v.State != Fresh {
		tail[2] += "; detail=stale"
	}
	rep.rendered.Store(s)
	return s
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

// writeHeader sets the headers from the given one on. It gives values away:
// callers may modify the slices.
func (rep *representation) writeHeader(h http.Header, values []string, from int, invalidated bool) {
	fresh := len(h) == 0
	if rep.untyped {
		h["Content-Type"] = nil // which net/http takes for a no
	}
	override := invalidated
	for i := from; i < len(values); {
		j := i + 1
		for j < len(values) && rep.names[j] == rep.names[i] {
			j++
		}
		name, vs := rep.names[i], values[i:j:j]
		if !fresh {
			override = override || name == "Cache-Control" && header.IsPersonal(h)
			vs = header.Merge(h, name, vs)
		}
		h[name] = vs
		i = j
	}
	if override {
		header.DeleteTargeted(h)
	}
}
