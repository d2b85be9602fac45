package file

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strconv"

	"github.com/isr-go/isr/store"
	"github.com/isr-go/isr/store/internal/filter"
)

// The log is a header, behind it the filters of what was forgotten when it was rewritten, and
// an entry for each invalidation, oldest first.
// All numbers are little-endian. Every checksum starts from the log's random id, so
// that nothing which somebody has had put into a tag passes for an entry, and no
// block of an older file either.

// format begins the log: it is for people, and for other versions of this package.
const (
	formatName = "isr/store/file "
	format     = formatName + "1\n"
)

var (
	errDamaged = errors.New("the log's header is damaged")
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// A header says what the entries behind it do not.
type header struct {
	id     uint64                        // of the history, at random: another one is after a wipe
	born   store.Version                 // of the history: nothing is known of what was before
	top    store.Version                 // the newest when the log was rewritten
	floors [store.Gone + 1]store.Version // by effect, the newest of what was forgotten altogether in rewriting
	past   [store.Gone + 1]store.Version // by effect, the newest of what the filters know
	size   uint64                        // of the log when it was rewritten
	rest   uint64                        // of it, the size of the filters, with their checksum; zero: there are none
}

const headerSize = len(format) + 8*(3+2*int(store.Gone)+2) + crc32.Size

// append appends the header as parseHeader reads it.
func (h *header) append(b []byte) []byte {
	start := len(b)
	b = append(b, format...)
	b = binary.LittleEndian.AppendUint64(b, h.id)
	b = binary.LittleEndian.AppendUint64(b, uint64(h.born))
	b = binary.LittleEndian.AppendUint64(b, uint64(h.top))
	for _, v := range slices.Concat(h.floors[store.Stale:], h.past[store.Stale:]) {
		b = binary.LittleEndian.AppendUint64(b, uint64(v))
	}
	b = binary.LittleEndian.AppendUint64(b, h.size)
	b = binary.LittleEndian.AppendUint64(b, h.rest)
	return binary.LittleEndian.AppendUint32(b, checksum(h.seed(), b[start:]))
}

// parseHeader reads the header at the start of a log. errDamaged says that it is
// none; every other error, that the log is of another version of this package.
func parseHeader(b []byte) (header, error) {
	var h header
	rest, ours := bytes.CutPrefix(b, []byte(formatName))
	if !ours {
		return h, errDamaged
	}
	if number, _, ok := bytes.Cut(rest[:min(len(rest), 20)], []byte("\n")); ok && string(number) != "1" {
		if _, err := strconv.ParseUint(string(number), 10, 64); err == nil {
			return h, fmt.Errorf("the directory is of format %s, and this package writes format 1", number)
		}
	}
	if len(b) < headerSize || !bytes.HasPrefix(b, []byte(format)) {
		return h, errDamaged
	}
	number := func(i int) uint64 { return binary.LittleEndian.Uint64(b[len(format)+8*i:]) }
	h.id, h.born, h.top = number(0), store.Version(number(1)), store.Version(number(2))
	for i := range int(store.Gone) {
		h.floors[1+i], h.past[1+i] = store.Version(number(3+i)), store.Version(number(3+int(store.Gone)+i))
	}
	h.size, h.rest = number(3+2*int(store.Gone)), number(4+2*int(store.Gone))
	if checksum(h.seed(), b[:headerSize-crc32.Size]) != binary.LittleEndian.Uint32(b[headerSize-crc32.Size:]) || h.id == 0 {
		return header{}, errDamaged
	}
	return h, nil
}

// appendFilters appends filters as parseFilters reads them.
func appendFilters(seed uint32, b []byte, f *filter.Filters) []byte {
	start := len(b)
	b, _ = f.AppendBinary(b)
	return binary.LittleEndian.AppendUint32(b, checksum(seed, b[start:]))
}

// parseFilters reads the filters that follow the header. Of what is damaged all that it knew
// counts as forgotten altogether.
func (h *header) parseFilters(b []byte) *filter.Filters {
	f := new(filter.Filters)
	n := len(b) - crc32.Size
	if n < 0 || checksum(h.seed(), b[:n]) != binary.LittleEndian.Uint32(b[n:]) || f.UnmarshalBinary(b[:n]) != nil {
		for effect, v := range h.past {
			h.floors[effect] = max(h.floors[effect], v)
		}
		return nil
	}
	return f
}

// An entry is one invalidation.
type entry struct {
	version store.Version
	effect  store.Effect
	tags    []string
	gap     bool // what was before it in the log could not be read
}

// entryHead is the size of what is before an entry's payload: its length, its
// checksum, and the checksum of these two, by which an entry is found again behind
// damage without trusting a length.
const entryHead = 4 + crc32.Size + crc32.Size

// append appends the entry as parse reads it.
func (e *entry) append(seed uint32, b []byte) []byte {
	start := len(b)
	b = append(b, make([]byte, entryHead)...)
	b = binary.LittleEndian.AppendUint64(b, uint64(e.version))
	b = append(b, byte(e.effect))
	b = binary.AppendUvarint(b, uint64(len(e.tags)))
	for _, tag := range e.tags {
		b = append(binary.AppendUvarint(b, uint64(len(tag))), tag...)
	}
	head, payload := b[start:start+entryHead], b[start+entryHead:]
	binary.LittleEndian.PutUint32(head, uint32(len(payload)))
	binary.LittleEndian.PutUint32(head[4:], checksum(seed, payload))
	binary.LittleEndian.PutUint32(head[8:], checksum(seed, head[:8]))
	return b
}

// parse returns the entries in b, and how much of b they take. What is behind them
// is torn, or still being written. What is damaged before the last entry is passed
// over, and noted as a gap. Versions grow, from after on.
func parse(seed uint32, b []byte, after store.Version) (entries []entry, n int) {
	gap := false
	for at := 0; at < len(b); {
		e, size, ok := parseEntry(seed, b[at:])
		if !ok || e.version <= after {
			gap = true
			at++
			continue
		}
		e.gap, gap = gap, false
		entries = append(entries, e)
		at += size
		n, after = at, e.version
	}
	return entries, n
}

// parseEntry reads the entry at the start of b.
func parseEntry(seed uint32, b []byte) (e entry, size int, ok bool) {
	if len(b) < entryHead || checksum(seed, b[:8]) != binary.LittleEndian.Uint32(b[8:]) {
		return e, 0, false
	}
	n := uint64(binary.LittleEndian.Uint32(b))
	if n > uint64(len(b)-entryHead) || n < 9 {
		return e, 0, false
	}
	p := b[entryHead : entryHead+n]
	if checksum(seed, p) != binary.LittleEndian.Uint32(b[4:]) {
		return e, 0, false
	}
	e.version, e.effect, p = store.Version(binary.LittleEndian.Uint64(p)), store.Effect(p[8]), p[9:]
	number := func() (uint64, bool) {
		n, size := binary.Uvarint(p)
		p = p[max(size, 0):]
		return n, size > 0 && n <= uint64(len(p))
	}
	count, ok := number()
	e.tags = make([]string, 0, count)
	all, end := string(p), len(p) // which the tags are parts of
	for range count {
		if n, ok = number(); !ok {
			break
		}
		at := end - len(p)
		e.tags, p = append(e.tags, all[at:at+int(n)]), p[n:]
	}
	return e, entryHead + int(binary.LittleEndian.Uint32(b)), ok && e.effect > store.None && e.effect <= store.Gone
}

// appendChanges appends changes in the order of their versions: those of one version
// are an entry.
func appendChanges(seed uint32, b []byte, list []store.Change) []byte {
	for len(list) > 0 {
		e := entry{version: list[0].Version, effect: list[0].Effect}
		n := slices.IndexFunc(list, func(c store.Change) bool { return c.Version != e.version })
		if n < 0 {
			n = len(list)
		}
		for _, c := range list[:n] {
			e.tags = append(e.tags, c.Tag)
		}
		b, list = e.append(seed, b), list[n:]
	}
	return b
}

// seed returns what the checksums of the log start from.
func (h *header) seed() uint32 {
	return crc32.Checksum(binary.LittleEndian.AppendUint64(nil, h.id), castagnoli)
}

func checksum(seed uint32, b []byte) uint32 { return crc32.Update(seed, castagnoli, b) }
