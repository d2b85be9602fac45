package header

import (
	"slices"
	"strings"
	"sync/atomic"
)

// Lines are the header of many responses. Those of a route differ in a few values mostly:
// these each response keeps for itself.
type Lines struct {
	Names  []string // equal ones stand together
	Values []string // empty where each response has its own
	Own    []int    // where that is, in ascending order, beside the next two

	ContentLength, ETag int // where these are; less than zero: nowhere
}

// equal reports whether a response with names and values has these Lines, and whether it
// has these names.
func (l *Lines) equal(names, values []string) (same, sameNames bool) {
	if !slices.Equal(l.Names, names) {
		return false, false
	}
	for i, v := range values {
		if l.Values[i] != v && i != l.ContentLength && i != l.ETag && !slices.Contains(l.Own, i) {
			return false, true
		}
	}
	return true, true
}

// Share is a few Lines, of the responses that a route has had last. It is safe for
// concurrent use.
type Share struct {
	recent [8]atomic.Pointer[Lines]
	next   atomic.Uint32
}

// Of returns the Lines of a response, and reports whether others have them, too. Those
// that differ in one of the last few values, as many as constant says, have not the same. The
// first response that differs in another value has Lines of its own, and those after it
// keep that value for themselves.
func (s *Share) Of(names, values []string, constant int) (_ *Lines, shared bool) {
	slot, before := 0, (*Lines)(nil)
	for i := range s.recent {
		l := s.recent[i].Load()
		if l == nil {
			continue
		}
		same, sameNames := l.equal(names, values)
		if same {
			return l, true
		}
		if end := len(names) - constant; sameNames && slices.Equal(l.Values[end:], values[end:]) {
			slot, before = i, l
		}
	}
	l := &Lines{
		Names: slices.Clone(names), Values: make([]string, len(values)),
		ContentLength: slices.Index(names, "Content-Length"), ETag: slices.Index(names, "Etag"),
	}
	if before != nil {
		l.Names = before.Names
	} else {
		slot = int(s.next.Add(1) % uint32(len(s.recent)))
	}
	for i, v := range values {
		switch {
		case i == l.ContentLength, i == l.ETag:
		case names[i] == "Last-Modified", before != nil && (before.Values[i] != v || slices.Contains(before.Own, i)):
			l.Own = append(l.Own, i)
		default:
			l.Values[i] = strings.Clone(v)
		}
	}
	s.recent[slot].Store(l)
	return l, false
}
