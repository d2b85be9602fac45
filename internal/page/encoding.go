package page

import (
	"net/http"
	"slices"
	"strings"

	"github.com/isr-go/isr/internal/header"
)

// worthCompressing is the size from which a body is compressed.
const worthCompressing = 512

// isCompressible reports whether a response becomes smaller by compression, and may be
// compressed.
func isCompressible(h http.Header, body []byte) bool {
	return len(body) >= worthCompressing && h["Content-Encoding"] == nil && isText(header.MediaType(h)) &&
		!header.ParseCacheControl(h["Cache-Control"]).NoTransform
}

// isText reports whether what has a media type becomes smaller.
func isText(t string) bool {
	switch t {
	case "application/javascript", "application/json", "application/xml", "application/wasm", "application/manifest+json",
		"application/x-javascript", "application/rtf", "application/vnd.ms-fontobject", "font/ttf", "font/otf", "image/bmp", "image/x-icon":
		return true
	}
	return strings.HasPrefix(t, "text/") || strings.HasSuffix(t, "+json") || strings.HasSuffix(t, "+xml")
}

// An Encoding is a page's body in a content coding, with headers of its own.
type Encoding struct {
	coding string
	rep    *representation
}

// NewEncoding makes the encoding of the page's body in a coding. It is shown when it is
// added.
func (p *Page) NewEncoding(coding string, body []byte) Encoding {
	h, etag := p.plain.snapshot()
	deleteMade(h)
	h["Content-Encoding"] = []string{coding}
	etag = strings.TrimSuffix(etag, `"`) + "-" + coding + `"`
	rep := new(representation)
	rep.init(&p.Route.Headers[1], p.Status, h, body, etag, true)
	rep.promise = p.plain.promise
	return Encoding{coding, rep}
}

// Size returns how much memory the encoding takes.
func (e Encoding) Size() int64 { return encodingOverhead + e.rep.bytes() }

// Add adds an encoding in one of the codings, which are sorted by preference. Once the
// page is shared, it is called under cache.Cache.mu.
func (p *Page) Add(e Encoding, codings []string) {
	old := p.encodings()
	i, rank := len(old), slices.Index(codings, e.coding)
	for i > 0 && slices.Index(codings, old[i-1].coding) > rank {
		i--
	}
	all := slices.Insert(slices.Clip(old), i, e)
	p.encoded.Store(&all)
	p.Size.Add(e.Size())
}

// encodings returns the page's encodings, the best first.
func (p *Page) encodings() []Encoding {
	if all := p.encoded.Load(); all != nil {
		return *all
	}
	return nil
}

// codingOf returns the coding of a representation; empty: it has none of isr's.
func (p *Page) codingOf(rep *representation) string {
	for _, e := range p.encodings() {
		if e.rep == rep {
			return e.coding
		}
	}
	return ""
}

// Encoded returns the page's body in a coding, or nil.
func (p *Page) Encoded(coding string) []byte {
	for _, e := range p.encodings() {
		if e.coding == coding {
			return e.rep.body
		}
	}
	return nil
}

// What a page's encoding is, where more of them may come.
const (
	unfinished int32 = 1 + iota
	begun
)

// setUnfinished notes whether a page may have encodings that it does not have yet.
func (p *Page) setUnfinished(compressible bool, codings []string) {
	if compressible && len(p.encodings()) < len(codings) {
		p.encoding.Store(unfinished)
	}
}

// IsUnfinished reports whether there may be encodings that the page does not have yet.
func (p *Page) IsUnfinished() bool { return p.encoding.Load() != 0 }

// Begin reports whether the caller is to make the encodings that the page does not have
// yet: then it calls Finish.
func (p *Page) Begin() bool { return p.encoding.CompareAndSwap(unfinished, begun) }

// Finish notes that no more encodings are added.
func (p *Page) Finish() { p.encoding.Store(0) }

// choose returns the representation that a request asks for, and whether it is the body
// without encoding only because a better one is not ready yet. Ranges are of that body.
func (p *Page) choose(r *http.Request) (rep *representation, meanwhile bool) {
	all := p.encoded.Load()
	if all == nil && !p.IsUnfinished() || r.Header["Range"] != nil {
		return &p.plain, false
	}
	accept := r.Header["Accept-Encoding"]
	if all == nil {
		return &p.plain, header.Accepts(accept, "gzip") > 0
	}
	rep, best := &p.plain, 0
	for _, e := range *all {
		if weight := header.Accepts(accept, e.coding); weight > best {
			rep, best = e.rep, weight
		}
	}
	return rep, false
}

// isAwaited reports whether a strong ETag is that of an encoding which is not ready yet,
// in a coding that the visitor accepts: that they have is what they would get.
func (p *Page) isAwaited(etag string, accept []string) bool {
	if !p.IsUnfinished() {
		return false
	}
	rest, ok := strings.CutPrefix(etag, strings.TrimSuffix(p.plain.etag(), `"`)+"-")
	coding, quoted := strings.CutSuffix(rest, `"`)
	return ok && quoted && p.Encoded(coding) == nil && header.Accepts(accept, coding) > 0
}
