// Package filter is what remains of invalidations that a table has no room for: enough to
// say of nearly every tag that it is not among them. So what a table forgets costs a few
// pages more, and not all that are older.
//
// What is forgotten goes into a Bloom filter, with the newest version that the filter
// holds, by effect. Only what is older than that, and has a tag that the filter knows,
// counts as invalidated. When a filter has its number of tags, the next epoch begins with
// another one. There are [Epochs] at most: of the oldest its newest versions remain, and
// what is older than those counts as invalidated, whatever its tags.
//
// A tag that was not forgotten is taken for one that was with a probability of 0.02 % for
// each epoch that is full. So a page of 12 tags that is older than 300,000 forgotten ones,
// in five epochs, is made anew with one of 1 %, and with all epochs full with one of 4 %.
package filter

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"
)

const (
	// Epochs is how many filters there are, at most.
	Epochs = 16

	// Of each tag so many bits are set, of so many that there are for it.
	hashes     = 4
	bitsPerTag = 32

	effects = 3 // they count from 1
)

// Newest are the newest versions, by effect.
type Newest [effects + 1]uint64

// Raise makes each of them at least as new as another.
func (n *Newest) Raise(other Newest) {
	for effect, v := range other {
		n[effect] = max(n[effect], v)
	}
}

// Filters hold what was forgotten. They are not safe for concurrent use while Add is called.
type Filters struct {
	each   int // how many tags an epoch has; one with several effects counts for each
	epochs []epoch
}

type epoch struct {
	newest Newest
	tags   int
	bits   []byte
}

// New returns empty Filters, of a number of tags each.
func New(each int) *Filters { return &Filters{each: max(each, 1)} }

// Clone returns a copy.
func (f *Filters) Clone() *Filters {
	c := &Filters{f.each, slices.Clone(f.epochs)}
	for i := range c.epochs {
		c.epochs[i].bits = slices.Clone(c.epochs[i].bits)
	}
	return c
}

// Add adds the invalidation of a tag. Where the oldest epoch has to go for that, it returns
// the newest versions in it: what is older counts as invalidated.
func (f *Filters) Add(tag string, effect int, version uint64) (floors Newest) {
	n := len(f.epochs)
	if n == 0 || f.epochs[n-1].tags >= f.each {
		if n == Epochs {
			floors = f.epochs[0].newest
			f.epochs = slices.Delete(f.epochs, 0, 1)
		}
		f.epochs = append(f.epochs, epoch{bits: make([]byte, f.size())})
		n = len(f.epochs)
	}
	e := &f.epochs[n-1]
	e.tags++
	e.newest[effect] = max(e.newest[effect], version)
	h := hash(tag)
	for i := range hashes {
		at := h.position(effect, i, len(e.bits))
		e.bits[at/8] |= 1 << (at % 8)
	}
	return floors
}

// size returns how many bytes a filter has.
func (f *Filters) size() int { return f.each * bitsPerTag / 8 }

// TagsIn returns of how many tags each the Filters are that take a number of bytes.
func TagsIn(bytes int64) int { return int(bytes / (Epochs * bitsPerTag / 8)) }

// Drop drops the epochs in which nothing is newer than a version, and returns the newest
// versions in them: what is older counts as invalidated.
func (f *Filters) Drop(upto uint64) (floors Newest) {
	f.epochs = slices.DeleteFunc(f.epochs, func(e epoch) bool {
		if slices.Max(e.newest[:]) > upto {
			return false
		}
		floors.Raise(e.newest)
		return true
	})
	return floors
}

// Newest returns the newest versions in all filters.
func (f *Filters) Newest() (newest Newest) {
	for i := range f.epochs {
		newest.Raise(f.epochs[i].newest)
	}
	return newest
}

// Bytes returns about how much memory they take.
func (f *Filters) Bytes() int64 { return int64(len(f.epochs)) * int64(f.size()) }

// Effect returns the strongest effect, of those above one, that what was forgotten may have
// on what has a version and tags. It is never a weaker one than it has.
func (f *Filters) Effect(after uint64, tags []string, above int) int {
	var sums []sum // of the tags, when they are needed
	for effect := effects; effect > above; effect-- {
		for i := range f.epochs {
			e := &f.epochs[i]
			if e.newest[effect] <= after {
				continue
			}
			for n := len(sums); n < len(tags); n++ {
				sums = append(sums, hash(tags[n]))
			}
			if slices.ContainsFunc(sums, func(h sum) bool { return e.has(&h, effect) }) {
				return effect
			}
		}
	}
	return above
}

// has reports whether the tag of a hash may have been forgotten with an effect.
func (e *epoch) has(h *sum, effect int) bool {
	for i := range hashes {
		if at := h.position(effect, i, len(e.bits)); e.bits[at/8]&(1<<(at%8)) == 0 {
			return false
		}
	}
	return true
}

// A sum is a hash of a tag. Each effect has a part of it.
type sum [sha256.Size]byte

func hash(tag string) sum { return sha256.Sum256([]byte(tag)) }

// position returns the bit that is the i-th of a tag with an effect, in a number of bytes.
func (h *sum) position(effect, i, size int) uint64 {
	part := h[8*(effect-1):]
	first, step := binary.LittleEndian.Uint32(part), binary.LittleEndian.Uint32(part[4:])|1
	return (uint64(first) + uint64(i)*uint64(step)) % (8 * uint64(size))
}

// AppendBinary appends the filters as UnmarshalBinary reads them. The error is always nil.
func (f *Filters) AppendBinary(b []byte) ([]byte, error) {
	b = slices.Grow(b, 8+len(f.epochs)*(8*(effects+1)+f.size()))
	b = binary.LittleEndian.AppendUint64(b, uint64(f.each))
	for i := range f.epochs {
		e := &f.epochs[i]
		b = binary.LittleEndian.AppendUint64(b, uint64(e.tags))
		for _, v := range e.newest[1:] {
			b = binary.LittleEndian.AppendUint64(b, v)
		}
		b = append(b, e.bits...)
	}
	return b, nil
}

// UnmarshalBinary reads what AppendBinary wrote, which the caller knows to be whole.
func (f *Filters) UnmarshalBinary(b []byte) error {
	number := func() uint64 {
		n := binary.LittleEndian.Uint64(b)
		b = b[8:]
		return n
	}
	if len(b) < 8 {
		return errors.New("filters that are too short")
	}
	each := number()
	if each == 0 || each > 1<<30 {
		return errors.New("filters of a size that they cannot have")
	}
	g := Filters{each: int(each)}
	if n := 8*(effects+1) + g.size(); len(b)%n != 0 || len(b)/n > Epochs {
		return errors.New("filters of another length")
	}
	for len(b) > 0 {
		e := epoch{tags: int(min(number(), each))}
		for effect := range effects {
			e.newest[effect+1] = number()
		}
		e.bits, b = bytes.Clone(b[:g.size()]), b[g.size():]
		g.epochs = append(g.epochs, e)
	}
	*f = g
	return nil
}
