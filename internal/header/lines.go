package header

import (
	"slices"
	"strings"
	"sync/atomic"
	"unique"
	"unsafe"
)

// Lines are the header of many responses. Those of a route differ in a few values mostly:
// these each response keeps for itself.
type Lines struct {
	Fields []Field
	Values []string // of the fields, in their order; empty where each response has its own
	Own    []int32  // indexes of such values, ascending, without that of the ETag
	ETag   int32    // index of the ETag, or -1

	shared bool // whether Fields are those of other Lines, too
}

// A Field is the values of Lines that have one name.
type Field struct {
	Name     string
	From, To int32
}

// fieldsOf returns the fields of lines with some names, of which equal ones stand together.
func fieldsOf(names []string) []Field {
	n := 0
	for i, name := range names {
		if i == 0 || name != names[i-1] {
			n++
		}
	}
	fields := make([]Field, 0, n)
	for i, name := range names {
		if i == 0 || name != names[i-1] {
			fields = append(fields, Field{Name: unique.Make(name).Value(), From: int32(i)})
		}
		fields[len(fields)-1].To = int32(i + 1)
	}
	return fields
}

// Names returns the name of each value.
func (l *Lines) Names(yield func(i int, name string) bool) {
	for _, f := range l.Fields {
		for i := f.From; i < f.To; i++ {
			if !yield(int(i), f.Name) {
				return
			}
		}
	}
}

// Size returns about how much memory l takes that no other Lines have a part in.
func (l *Lines) Size() int64 {
	n := int64(unsafe.Sizeof(*l)) + int64(len(l.Values))*16 + int64(4*cap(l.Own)+7)&^7
	if !l.shared {
		n += int64(len(l.Fields)) * int64(unsafe.Sizeof(Field{}))
	}
	for _, v := range l.Values {
		n += int64(len(v)+7) &^ 7
	}
	return n
}

// named reports whether l is of a response with these names.
func (l *Lines) named(names []string) bool {
	if len(l.Values) != len(names) {
		return false
	}
	for i, name := range l.Names {
		if names[i] != name {
			return false
		}
	}
	return true
}

// isOwn reports whether each response has its own value at an index.
func (l *Lines) isOwn(i int) bool { return int32(i) == l.ETag || slices.Contains(l.Own, int32(i)) }

// covers reports whether a response with the same names has these Lines.
func (l *Lines) covers(values []string) bool {
	for i, v := range values {
		if l.Values[i] != v && !l.isOwn(i) {
			return false
		}
	}
	return true
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
	var alike, before *Lines // of the same names, and the same constant values, too
	slot, end := 0, len(names)-constant
	for i := range s.recent {
		l := s.recent[i].Load()
		if l == nil || !l.named(names) {
			continue
		}
		if l.covers(values) {
			return l, true
		}
		alike = l
		if slices.Equal(l.Values[end:], values[end:]) {
			slot, before = i, l
		}
	}
	l := &Lines{Values: make([]string, len(values)), ETag: int32(slices.Index(names, "Etag")), shared: alike != nil}
	if l.shared {
		l.Fields = alike.Fields
	} else {
		l.Fields = fieldsOf(names)
	}
	if before == nil {
		slot = int(s.next.Add(1) % uint32(len(s.recent)))
	}
	for i, v := range values {
		switch {
		case int32(i) == l.ETag:
		case names[i] == "Content-Length", names[i] == "Last-Modified", before != nil && (before.Values[i] != v || before.isOwn(i)):
			l.Own = append(l.Own, int32(i))
		default:
			l.Values[i] = strings.Clone(v)
		}
	}
	s.recent[slot].Store(l)
	return l, false
}
