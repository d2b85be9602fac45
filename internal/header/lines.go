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
	Own    []int    // where that is, in ascending order, but for
	ETag   int      // less than zero: there is none
	Fields []Field
}

// A Field is the Lines with a name.
type Field struct {
	Name     string
	From, To int
}

// fieldsOf returns the Fields of lines with some names.
func fieldsOf(names []string) (fields []Field) {
	for i, name := range names {
		if i == 0 || name != names[i-1] {
			fields = append(fields, Field{Name: name, From: i})
		}
		fields[len(fields)-1].To = i + 1
	}
	return fields
}

// equal reports whether a response with names and values has these Lines, and whether it
// has these names.
func (l *Lines) equal(names, values []string) (same, sameNames bool) {
	if !slices.Equal(l.Names, names) {
		return false, false
	}
	for i, v := range values {
		if l.Values[i] != v && i != l.ETag && !slices.Contains(l.Own, i) {
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
		Names: slices.Clone(names), Values: make([]string, len(values)), ETag: slices.Index(names, "Etag"), Fields: fieldsOf(names),
	}
	if before != nil {
		l.Names, l.Fields = before.Names, before.Fields
	} else {
		slot = int(s.next.Add(1) % uint32(len(s.recent)))
	}
	for i, v := range values {
		switch {
		case i == l.ETag:
		case names[i] == "Content-Length", names[i] == "Last-Modified", before != nil && (before.Values[i] != v || slices.Contains(before.Own, i)):
			l.Own = append(l.Own, i)
		default:
			l.Values[i] = strings.Clone(v)
		}
	}
	s.recent[slot].Store(l)
	return l, false
}
