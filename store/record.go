package store

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"
	"time"
)

// The encoding of a record: the magic with the number of the format, the CRC-32C
// of all that follows, and the fields, lengths before bytes.
const (
	magic      = "isr\x01"
	headerSize = len(magic) + crc32.Size
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// AppendBinary appends the record as UnmarshalBinary reads it, for engines that
// keep bytes. The error is always nil. It implements
// [encoding.BinaryAppender].
func (r *Record) AppendBinary(b []byte) ([]byte, error) {
	start := len(b)
	b = slices.Grow(b, r.encodedSize())
	b = append(append(b, magic...), 0, 0, 0, 0)
	for _, n := range [...]uint64{uint64(r.Version), r.Fence, uint64(r.TTL), uint64(len(r.Tags))} {
		b = binary.AppendUvarint(b, n)
	}
	for _, tag := range r.Tags {
		b = append(binary.AppendUvarint(b, uint64(len(tag))), tag...)
	}
	b = append(b, r.Data...)
	sum := crc32.Checksum(b[start+headerSize:], castagnoli)
	binary.LittleEndian.PutUint32(b[start+len(magic):], sum)
	return b, nil
}

// encodedSize returns how many bytes the record takes, at most.
func (r *Record) encodedSize() int {
	n := headerSize + 4*binary.MaxVarintLen64 + len(r.Data)
	for _, tag := range r.Tags {
		n += binary.MaxVarintLen64 + len(tag)
	}
	return n
}

// UnmarshalBinary reads what AppendBinary wrote, and keeps none of its bytes.
// What is damaged, cut off or of another format is an ErrNotFound, and leaves r as
// it was. It implements [encoding.BinaryUnmarshaler].
func (r *Record) UnmarshalBinary(b []byte) error {
	if len(b) < headerSize || string(b[:len(magic)]) != magic {
		return fmt.Errorf("%w: not of this format", ErrNotFound)
	}
	sum := binary.LittleEndian.Uint32(b[len(magic):])
	b = b[headerSize:]
	if crc32.Checksum(b, castagnoli) != sum {
		return fmt.Errorf("%w: damaged", ErrNotFound)
	}
	short := false
	number := func() uint64 {
		n, size := binary.Uvarint(b)
		if size <= 0 {
			short = true
			return 0
		}
		b = b[size:]
		return n
	}
	out := Record{Version: Version(number()), Fence: number(), TTL: time.Duration(number())}
	count := number()
	if short || count > uint64(len(b)) || out.TTL < 0 {
		return fmt.Errorf("%w: malformed", ErrNotFound)
	}
	if count > 0 {
		out.Tags = make([]string, count)
	}
	for i := range out.Tags {
		n := number()
		if short || n > uint64(len(b)) {
			return fmt.Errorf("%w: malformed", ErrNotFound)
		}
		out.Tags[i], b = string(b[:n]), b[n:]
	}
	out.Data = append([]byte{}, b...)
	*r = out
	return nil
}
