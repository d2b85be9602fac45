package cache

import (
	"hash/maphash"
	"iter"

	"github.com/isr-go/isr/internal/page"
	"github.com/isr-go/isr/internal/pagekey"
)

// A place is where a page stands in the lists and indexes. They name it by its number.
type place struct {
	page               *page.Page
	next, prev         uint32 // in its list, the page that was asked for last first
	nextOfKey          uint32 // of those whose keys have the same hash; zero: none
	nextAt, previousAt uint32 // of those whose canonical paths have the same hash; zero: none
	protected          bool   // which of the two lists it is in
}

// The places that hold no page: the beginnings of the lists, which are circles.
const (
	probation uint32 = iota
	protected
	firstPage
)

// places are a number of pages in two lists and two indexes. Growing never copies them:
// the lock is not held for longer because there are many.
type places struct {
	seed          maphash.Seed
	byKey, byPath map[uint32]uint32 // by hash; what has the same hash is linked
	chunks        []*[chunkSize]place
	used          uint32 // how many of the chunks' places were ever used
	free          uint32 // the first of those that are no longer used, linked by next; zero: none
	n             int    // of pages
}

const chunkSize = 256

func (l *places) init() {
	l.seed = maphash.MakeSeed()
	l.byKey, l.byPath = make(map[uint32]uint32), make(map[uint32]uint32)
	l.chunks = append(l.chunks, new([chunkSize]place))
	l.used = firstPage
	for list := range firstPage {
		*l.at(list) = place{next: list, prev: list}
	}
}

// at returns a place by its number. That of number 0 has no page.
func (l *places) at(i uint32) *place { return &l.chunks[i/chunkSize][i%chunkSize] }

func (l *places) hashOfKey(k *pagekey.Key) uint32 { return uint32(maphash.Comparable(l.seed, *k)) }

func (l *places) hashOfPath(path string) uint32 { return uint32(maphash.String(l.seed, path)) }

// find returns the page with a key, or nil.
func (l *places) find(k *pagekey.Key, hash uint32) *page.Page {
	for i := l.byKey[hash]; i != 0; {
		at := l.at(i)
		if at.page.Key == *k {
			return at.page
		}
		i = at.nextOfKey
	}
	return nil
}

// holds reports whether a page has a place.
func (l *places) holds(p *page.Page) bool { return p.Place != 0 && l.at(p.Place).page == p }

// allAt ranges over the pages at a canonical path, those that were stored last first, but
// for spellings that are not canonical: the first page tells the others' route.
func (l *places) allAt(path string) iter.Seq[*page.Page] {
	return func(yield func(*page.Page) bool) {
		for i := l.byPath[l.hashOfPath(path)]; i != 0; i = l.at(i).nextAt {
			if p := l.at(i).page; pagekey.CanonicalPath(p.Key.Path) == path && !yield(p) {
				return
			}
		}
	}
}

// some copies the pages of the chunk n, and reports whether there is one.
func (l *places) some(n int, pages *[chunkSize]*page.Page) bool {
	if n >= len(l.chunks) {
		return false
	}
	for i := range l.chunks[n] {
		pages[i] = l.chunks[n][i].page
	}
	return true
}

// add gives a page a place, at the front of the probation list.
func (l *places) add(p *page.Page, byKey, byPath uint32) {
	i := l.free
	if i != 0 {
		l.free = l.at(i).next
	} else {
		if i = l.used; i%chunkSize == 0 {
			l.chunks = append(l.chunks, new([chunkSize]place))
		}
		l.used++
	}
	p.Place = i
	*l.at(i) = place{page: p, next: i, prev: i, nextOfKey: l.byKey[byKey]}
	l.n++
	l.byKey[byKey] = i
	l.moveToFront(i, probation)
	first := l.byPath[byPath]
	switch at := l.at(i); {
	case first == 0:
		l.byPath[byPath] = i
	case pagekey.CanonicalPath(p.Key.Path) != p.Key.Path:
		at.previousAt, at.nextAt = first, l.at(first).nextAt
		if at.nextAt != 0 {
			l.at(at.nextAt).previousAt = i
		}
		l.at(first).nextAt = i
	default:
		at.nextAt, l.at(first).previousAt = first, i
		l.byPath[byPath] = i
	}
}

// remove takes the place of a page away.
func (l *places) remove(p *page.Page) {
	i := p.Place
	at := l.at(i)
	l.at(at.prev).next, l.at(at.next).prev = at.next, at.prev

	byKey := l.hashOfKey(&p.Key)
	if first := l.byKey[byKey]; first != i {
		for l.at(first).nextOfKey != i {
			first = l.at(first).nextOfKey
		}
		l.at(first).nextOfKey = at.nextOfKey
	} else if at.nextOfKey != 0 {
		l.byKey[byKey] = at.nextOfKey
	} else {
		delete(l.byKey, byKey)
	}

	if at.nextAt != 0 {
		l.at(at.nextAt).previousAt = at.previousAt
	}
	if at.previousAt != 0 {
		l.at(at.previousAt).nextAt = at.nextAt
	} else if byPath := l.hashOfPath(pagekey.CanonicalPath(p.Key.Path)); at.nextAt != 0 {
		l.byPath[byPath] = at.nextAt
	} else {
		delete(l.byPath, byPath)
	}

	p.Place = 0
	*at = place{next: l.free}
	l.free = i
	l.n--
}

// moveToFront moves a place to the front of a list.
func (l *places) moveToFront(i, list uint32) {
	at := l.at(i)
	l.at(at.prev).next, l.at(at.next).prev = at.next, at.prev
	first := l.at(list)
	at.prev, at.next = list, first.next
	l.at(first.next).prev, first.next = i, i
}
