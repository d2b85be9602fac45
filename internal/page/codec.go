package page

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"maps"
	"net/http"
	"slices"
	"time"
	"unique"

	"github.com/isr-go/isr/internal/header"
	"github.com/isr-go/isr/internal/pagekey"
	"github.com/isr-go/isr/internal/policy"
	"github.com/isr-go/isr/store"
)

// keepStale is how long a Store keeps what is past its TTL where there is no
// bound. What nobody has asked for in that time is not worth keeping.
const keepStale = 30 * 24 * time.Hour

// Record returns the page as the Store keeps it.
func (p *Page) Record(key string) *store.Record {
	rec := &store.Record{Version: p.Order.Version, Fence: p.Order.Fence, Tags: slices.Clone(p.Subject.Tags), Data: p.encode(key)}
	for tag := range p.Key.Tags {
		rec.Tags = append(rec.Tags, tag)
	}
	rec.Tags = append(rec.Tags, pagekey.Everything)
	if l := p.Lifetime; l.Fresh() != policy.Forever {
		shown := min(max(l.StaleWhileRevalidate, l.StaleIfError, time.Second), keepStale)
		if policy.IsNotFound(p.Status) {
			shown = time.Second // visitors can ask for any number of them
		}
		rec.TTL = max(0, l.Fresh()-time.Since(p.Generated)) + shown
	}
	return rec
}

// pageFormat is the number of the encoding that encode makes. The checksum comes
// after it: not every Store notices when it damages what it keeps.
const pageFormat = 8

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encode returns a page as bytes, that know under which key they belong.
func (p *Page) encode(key string) []byte {
	h, etag := p.handlers()
	encoded := p.encodings()
	n := 256 + len(key) + len(p.plain.body)
	for _, e := range encoded {
		n += len(e.rep.body) + 16
	}
	for name, values := range h {
		for _, v := range values {
			n += len(name) + len(v) + 2*binary.MaxVarintLen32
		}
	}
	b := append(make([]byte, 0, n), pageFormat, 0, 0, 0, 0)
	b = pagekey.AppendString(b, key)
	b = pagekey.AppendString(b, p.Matched())
	for _, n := range [...]int64{
		int64(p.Status), p.Generated.UnixNano(), int64(p.Took),
		int64(p.Lifetime.TTL), int64(p.Lifetime.StaleWhileRevalidate), int64(p.Lifetime.StaleIfError),
		int64(p.Lifetime.Until), int64(p.extras().upstream), int64(p.extras().saidTTL), int64(p.saidTags),
	} {
		b = binary.AppendVarint(b, n)
	}
	b = binary.AppendUvarint(b, uint64(len(p.Subject.Tags)))
	for _, tag := range p.Subject.Tags {
		b = pagekey.AppendString(b, tag)
	}
	var flags byte
	if p.ownControl {
		flags |= hasOwnControl
	}
	if p.ownETag {
		flags |= hasOwnETag
	}
	if p.HasData {
		flags |= hasData
	}
	b = append(b, flags)
	b = pagekey.AppendString(b, etag)
	lines := 0
	for _, values := range h {
		lines += len(values)
	}
	b = binary.AppendUvarint(b, uint64(lines))
	for _, name := range slices.Sorted(maps.Keys(h)) {
		for _, v := range h[name] {
			b = pagekey.AppendString(pagekey.AppendString(b, name), v)
		}
	}
	b = append(binary.AppendUvarint(b, uint64(len(p.plain.body))), p.plain.body...)
	b = binary.AppendUvarint(b, uint64(len(encoded)))
	for _, e := range encoded {
		b = pagekey.AppendString(b, e.coding)
		b = append(binary.AppendUvarint(b, uint64(len(e.rep.body))), e.rep.body...)
	}
	putChecksum(b)
	return b
}

// putChecksum completes the header.
func putChecksum(b []byte) {
	binary.LittleEndian.PutUint32(b[1:], crc32.Checksum(b[5:], castagnoli))
}

const (
	hasOwnControl byte = 1 << iota
	hasOwnETag
	hasData
)

// errForeign says that a Store returned what encode did not make for this page.
var errForeign = errors.New("the Store returned what is not this page")

// Decode makes a page of what encode has made for it, and takes over the bytes. It leaves
// out encodings in codings that m does not have.
func Decode(data []byte, key string, m Meta) (*Page, error) {
	if len(data) < 5 || data[0] != pageFormat || binary.LittleEndian.Uint32(data[1:]) != crc32.Checksum(data[5:], castagnoli) {
		return nil, errForeign
	}
	d := decoder{b: data[5:]}
	if string(d.bytes()) != key {
		return nil, errForeign
	}
	p := &Page{
		Key: m.Key.Clone(), Route: m.Route, matched: unique.Make(string(d.bytes())),
		Status: int(d.number()), Generated: time.Unix(0, d.number()), Took: time.Duration(d.number()),
		Lifetime: policy.Lifetime{
			TTL: time.Duration(d.number()), StaleWhileRevalidate: time.Duration(d.number()), StaleIfError: time.Duration(d.number()),
			Until: time.Duration(d.number()),
		},
	}
	upstream, saidTTL, saidTags := time.Duration(d.number()), time.Duration(d.number()), d.number()
	for n := d.count(); n > 0; n-- {
		p.Subject.Tags = append(p.Subject.Tags, string(d.bytes()))
	}
	flags := d.byte()
	etag, h := string(d.bytes()), make(http.Header)
	for n := d.count(); n > 0; n-- {
		name := string(d.bytes())
		h[name] = append(h[name], string(d.bytes()))
	}
	plain := d.bytes()
	type encoding struct {
		coding string
		body   []byte
	}
	var encoded []encoding
	for n := d.count(); n > 0; n-- {
		e := encoding{string(d.bytes()), d.bytes()}
		if slices.Contains(m.Codings, e.coding) {
			encoded = append(encoded, e)
		}
	}
	if d.bad || len(d.b) > 0 || saidTags < 0 || saidTags > int64(len(p.Subject.Tags)) || p.Status < 200 || p.Status > 999 {
		return nil, errForeign
	}
	p.ownControl, p.ownETag, p.HasData, p.saidTags = flags&hasOwnControl != 0, flags&hasOwnETag != 0, flags&hasData != 0, uint32(saidTags)
	if saidTTL >= 0 {
		p.addExtra().saidTTL = saidTTL
	}
	if upstream > 0 {
		p.addExtra().upstream = upstream
	}
	if slices.Equal(p.Subject.Tags, m.Route.Tags) {
		p.Subject.Tags = m.Route.Tags
	}
	if !p.ownControl { // the Cache-Control that goes out is this instance's own
		delete(h, "Cache-Control")
	}
	l, explicit := m.Route.Lifetime(p.Status, h, header.ParseCacheControl(h["Cache-Control"]))
	p.setControl(h, l.TTL, explicit)
	compressible := isCompressible(h, plain)
	p.represent(h, p.setFront(&m, h), etag, slices.Clone(plain))
	for _, e := range encoded {
		if compressible && p.Encoded(e.coding) == nil {
			p.Add(p.NewEncoding(e.coding, slices.Clone(e.body)), m.Codings)
		}
	}
	p.setUnfinished(compressible, m.Codings)
	return p, nil
}

// A decoder reads what the append functions have written. What is not there reads
// as nothing, and is noted.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) skip(n int) {
	if n <= 0 {
		d.b, d.bad = nil, true
		return
	}
	d.b = d.b[n:]
}

func (d *decoder) number() int64 {
	n, size := binary.Varint(d.b)
	d.skip(size)
	return n
}

// count reads how many things follow, of a byte at least each.
func (d *decoder) count() int {
	n, size := binary.Uvarint(d.b)
	d.skip(size)
	if n > uint64(len(d.b)) {
		d.b, d.bad = nil, true
		return 0
	}
	return int(n)
}

func (d *decoder) bytes() []byte {
	n := d.count()
	b := d.b[:n]
	d.b = d.b[n:]
	return b
}

func (d *decoder) byte() (b byte) {
	if len(d.b) > 0 {
		b = d.b[0]
	}
	d.skip(min(1, len(d.b)))
	return b
}
