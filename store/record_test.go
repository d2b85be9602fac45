package store_test

import (
	"bytes"
	"encoding"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/isr-go/isr/store"
)

var (
	_ encoding.BinaryAppender    = (*store.Record)(nil)
	_ encoding.BinaryUnmarshaler = (*store.Record)(nil)
)

// equal takes no tags for no tags, nil or empty, and no data for no data.
var equal = cmpopts.EquateEmpty()

var sample = store.Record{
	Version: 1_700_000_000_000_000,
	Fence:   300,
	Tags:    []string{"blog", "", "/blog/{id}\x00"},
	TTL:     90 * time.Second,
	Data:    []byte("<h1>Hello</h1>\n"),
}

func encode(t testing.TB, r *store.Record) []byte {
	t.Helper()
	b, err := r.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// sealed returns a body with the header that makes it a record, if it is one.
func sealed(body []byte) []byte {
	b := append([]byte("isr\x01"), 0, 0, 0, 0)
	binary.LittleEndian.PutUint32(b[4:], crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)))
	return append(b, body...)
}

var records = map[string]store.Record{
	"zero":      {},
	"sample":    sample,
	"largest":   {Version: math.MaxUint64, Fence: math.MaxUint64, TTL: math.MaxInt64},
	"many tags": {Tags: strings.Split(strings.Repeat("tag,", 999), ",")},
	"long tag":  {Tags: []string{strings.Repeat("7 KB", 7<<10/4)}, Data: []byte{0}},
	"data":      {Version: 1, Data: bytes.Repeat([]byte{0, 0xff, '\n'}, 1000)},
}

// What was encoded is decoded as it was, and is a copy.
func TestRecordRoundTrip(t *testing.T) {
	for name, want := range records {
		t.Run(name, func(t *testing.T) {
			b := encode(t, &want)
			got := store.Record{Version: 7, Fence: 7, TTL: 7, Tags: []string{"before"}, Data: []byte("before")}
			if err := got.UnmarshalBinary(b); err != nil {
				t.Fatal(err)
			}
			clear(b)
			if diff := cmp.Diff(want, got, equal); diff != "" {
				t.Errorf("another record (-want +got):\n%s", diff)
			}
		})
	}
}

// AppendBinary leaves what is before it alone.
func TestRecordAppends(t *testing.T) {
	before := []byte("before")
	b, err := sample.AppendBinary(before)
	if err != nil || !bytes.HasPrefix(b, before) {
		t.Fatalf("%q, %v", b, err)
	}
	if !bytes.Equal(b[len(before):], encode(t, &sample)) {
		t.Errorf("it is another record than without it: %x", b)
	}
}

// These bytes are in files and servers: whatever changes them must change the number of
// the format, which is the 01.
func TestRecordGolden(t *testing.T) {
	const golden = "69737201" + // isr, the format
		"03147f87" + // the CRC-32C of all that follows, from its low end
		"8080f9c0c1c48203" + // the version
		"ac02" + // the fence
		"8088aca3cf02" + // the TTL
		"03" + "04626c6f67" + "00" + "0b2f626c6f672f7b69647d00" + // the tags
		"3c68313e48656c6c6f3c2f68313e0a" // the data
	if got := hex.EncodeToString(encode(t, &sample)); got != golden {
		t.Errorf("the format has changed:\n got %s\nwant %s", got, golden)
	}
	b, err := hex.DecodeString(golden)
	if err != nil {
		t.Fatal(err)
	}
	var got store.Record
	if err := got.UnmarshalBinary(b); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sample, got); diff != "" {
		t.Errorf("what was stored is another record now (-want +got):\n%s", diff)
	}
}

// miss fails the test if the bytes are taken for a record.
func miss(t *testing.T, what string, b []byte) {
	t.Helper()
	got := sample
	if err := got.UnmarshalBinary(b); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("%s: %v, want ErrNotFound", what, err)
	}
	if diff := cmp.Diff(sample, got); diff != "" {
		t.Errorf("%s: the record was changed (-want +got):\n%s", what, diff)
	}
}

// Whatever is lost or changed of a record makes it a miss.
func TestRecordDamaged(t *testing.T) {
	b := encode(t, &sample)
	for n := range b {
		miss(t, fmt.Sprintf("the first %d of %d bytes", n, len(b)), b[:n])
		for bit := range 8 {
			flipped := bytes.Clone(b)
			flipped[n] ^= 1 << bit
			miss(t, fmt.Sprintf("bit %d of byte %d", bit, n), flipped)
		}
		zeroed := bytes.Clone(b)
		clear(zeroed[n:])
		if !bytes.Equal(zeroed, b) {
			miss(t, fmt.Sprintf("zeros from byte %d", n), zeroed)
		}
	}
	miss(t, "nil", nil)
	miss(t, "one byte more", append(bytes.Clone(b), 0))
	miss(t, "zeros", make([]byte, 100))
	miss(t, "a page", []byte("<!DOCTYPE html><title>A page</title>"))
	miss(t, "two records", append(bytes.Clone(b), b...))
	other := bytes.Clone(b)
	other[3]++
	miss(t, "the next format", other)
}

// A sum that is right does not make it a record.
func TestRecordMalformed(t *testing.T) {
	number := func(ns ...uint64) (b []byte) {
		for _, n := range ns {
			b = binary.AppendUvarint(b, n)
		}
		return b
	}
	for what, body := range map[string][]byte{
		"nothing":                    nil,
		"numbers are missing":        number(1, 2, 3),
		"a number is cut":            append(number(1, 2, 3), 0x80),
		"a number is too large":      append(number(1, 2, 3), bytes.Repeat([]byte{0xff}, 10)...),
		"a TTL below zero":           number(1, 2, math.MaxUint64, 0),
		"more tags than bytes":       number(1, 2, 3, 2, 0),
		"more tags than memory":      number(1, 2, 3, math.MaxUint64, 0),
		"a tag is longer":            append(number(1, 2, 3, 1, 5), "four"...),
		"a tag is longer than all":   append(number(1, 2, 3, 1, math.MaxUint64), "four"...),
		"the last tag is missing":    append(number(1, 2, 3, 2, 4), "four"...),
		"the length of a tag is cut": append(number(1, 2, 3, 1), 0x80),
	} {
		miss(t, what, sealed(body))
	}
}

// The parser never panics, reads nothing from an unknown format, and what it reads is
// written and read again as the same.
func FuzzRecord(f *testing.F) {
	for _, r := range records {
		b := encode(f, &r)
		f.Add(b)
		f.Add(b[8:])
		f.Add(b[:len(b)/2])
	}
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		// By chance hardly anything has the right sum.
		for _, b := range [][]byte{b, sealed(b)} {
			input := bytes.Clone(b)
			var r, again store.Record
			err := r.UnmarshalBinary(b)
			if !bytes.Equal(b, input) {
				t.Fatal("the input was changed")
			}
			if err != nil {
				if !errors.Is(err, store.ErrNotFound) {
					t.Fatalf("%v, want ErrNotFound", err)
				}
				continue
			}
			if err := again.UnmarshalBinary(encode(t, &r)); err != nil {
				t.Fatalf("%+v was read, but not again: %v", r, err)
			}
			if diff := cmp.Diff(r, again); diff != "" {
				t.Fatalf("it is another record when read again (-want +got):\n%s", diff)
			}
		}
	})
}

func BenchmarkRecord(b *testing.B) {
	r := sample
	r.Data = bytes.Repeat([]byte("10 KB"), 2<<10)
	encoded := encode(b, &r)
	b.Run("decode 10 KB", func(b *testing.B) {
		b.SetBytes(int64(len(encoded)))
		b.ReportAllocs()
		var r store.Record
		for b.Loop() {
			if err := r.UnmarshalBinary(encoded); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("encode 10 KB", func(b *testing.B) {
		b.SetBytes(int64(len(encoded)))
		b.ReportAllocs()
		buf := make([]byte, 0, 2*len(encoded))
		for b.Loop() {
			if _, err := r.AppendBinary(buf[:0]); err != nil {
				b.Fatal(err)
			}
		}
	})
}
