package page

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
	"unique"

	"github.com/isr-go/isr/internal/header"
	"github.com/isr-go/isr/internal/invalidation"
	"github.com/isr-go/isr/internal/pagekey"
	"github.com/isr-go/isr/internal/policy"
)

// Header returns the headers as they were generated, and the ETag; none for a
// hit-for-pass.
func (p *Page) Header() (h http.Header, etag string) {
	if p.IsHitForPass {
		return nil, ""
	}
	return p.plain.snapshot()
}

// IsSame reports whether a page has the status and the body of another.
func (p *Page) IsSame(old *Page) bool {
	return !old.IsUnknown() && old.Status == p.Status && bytes.Equal(old.plain.body, p.plain.body)
}

// Validators are those that the handler itself has set, and what a page is asked for anew by.
type Validators struct{ etag, lastModified string }

// Validators returns those of the page.
func (p *Page) Validators() (v Validators) {
	if p.IsHitForPass {
		return v
	}
	if p.ownETag {
		v.etag = p.plain.etag()
	}
	if said := p.plain.value("Last-Modified"); said != "" {
		if _, ok := header.ParseDate(said); ok {
			v.lastModified = said
		}
	}
	return v
}

// Ask makes a request conditional, and reports whether it is.
func (v Validators) Ask(h http.Header) bool {
	if v.etag != "" {
		h.Set("If-None-Match", v.etag)
	}
	if v.lastModified != "" {
		h.Set("If-Modified-Since", v.lastModified)
	}
	return v != Validators{}
}

// Match reports whether a 304 with the given headers is about the page that has
// these validators (RFC 9111, section 4.3.4). One without an ETag is.
func (v Validators) Match(update http.Header) bool {
	etag := update.Get("Etag")
	if !header.IsETag(etag) {
		return true
	}
	if weak, ok := strings.CutPrefix(etag, "W/"); ok {
		return weak == strings.TrimPrefix(v.etag, "W/")
	}
	return etag == v.etag
}

// New makes a page of a response. Where the body is that of old, which may be nil, it has
// the encodings of that.
func New(m Meta, status int, sent http.Header, body []byte, old *Page) *Page {
	h := header.Forwardable(sent, body)
	var plain []byte
	var encoded []Encoding
	if !old.IsUnknown() && bytes.Equal(old.plain.body, body) {
		plain, encoded = old.plain.body, old.encodings()
	} else {
		plain = append([]byte(nil), body...)
	}
	return makePage(m, status, h, header.ParseAge(sent["Age"]), plain, encoded, isCompressible(h, plain))
}

// NewValue makes a page of a value, which takes size bytes in memory, and its JSON.
func NewValue(m Meta, v any, size int64, body []byte) *Page {
	p := makePage(m, http.StatusOK, http.Header{"Content-Type": {"application/json"}}, 0, body, nil, false)
	p.SetValue(v, size)
	return p
}

// SetValue gives the page of a value that value, which takes size bytes. It is called
// before the page is shared.
func (p *Page) SetValue(v any, size int64) {
	if !p.IsHitForPass {
		before := p.extraSize()
		p.addExtra().value = v
		p.Size.Add(size + p.extraSize() - before)
	}
}

// Body returns the bytes of the page, without encoding.
func (p *Page) Body() []byte { return p.plain.body }

// Merge returns the headers of a stored page, as a 304 has updated them (RFC
// 9111, section 3.2).
func (p *Page) Merge(update http.Header) http.Header {
	h, _ := p.handlers()
	if !p.ownControl {
		delete(h, "Cache-Control")
	}
	if !p.ownETag {
		delete(h, "Etag")
	}
	for name, values := range update {
		switch name {
		case "Content-Length", "Content-Encoding", "Content-Type", "Content-Range":
		default:
			h[name] = values
		}
	}
	return h
}

// Freshen makes a page of a stored one and the headers that a 304 has updated (RFC
// 9111, section 4.3.4).
//
// What was said of the stored page from inside of its generation holds for this one, too:
// a handler that finds nothing new may not come to say it again. A shorter or an earlier
// one counts, but not a time that has come.
func Freshen(m Meta, old *Page, merged http.Header) *Page {
	hasData := old.HasData || len(m.Said.Data) > 0
	said := old.Subject.Tags[len(old.Subject.Tags)-int(old.saidTags):]
	m.Said.Data = append(slices.Clip(said), m.Said.Data...)
	if ttl := old.extras().saidTTL; ttl >= 0 && !m.Said.HasTTL {
		m.Said.TTL, m.Said.HasTTL = ttl, true
	}
	if u := old.Lifetime.Until; u != 0 {
		if until := old.Generated.Add(u); until.After(time.Now()) && (m.Said.Until.IsZero() || until.Before(m.Said.Until)) {
			m.Said.Until = until
		}
	}
	h := header.Forwardable(merged, nil)
	p := makePage(m, old.Status, h, header.ParseAge(merged["Age"]), old.plain.body, old.encodings(), isCompressible(h, old.plain.body))
	p.HasData = hasData
	return p
}

// HitForPass makes the note that the response may not be stored: for a while,
// requests for it go straight to the handler. That of a value has its tags and its time,
// since those who have waited for it hold it.
func HitForPass(m Meta, why policy.Refusal) *Page {
	p := &Page{
		Key: m.Key, Route: m.Route, Subject: invalidation.Subject{Since: m.Since}, Seq: m.Seq, Order: OrderOf(m.Order),
		Generated: time.Now(), IsHitForPass: true,
	}
	p.addExtra().notStored = unique.Make(why) // by many pages
	p.Size.Store(pageOverhead + m.Key.Size() + p.extraSize())
	if len(m.Said.Data) > 0 {
		p.Subject.Tags = m.Route.TagsOf(nil, &m.Said)
		p.Lifetime = m.Said.Apply(p.Lifetime, false, http.StatusOK, p.Generated, 0)
		p.Size.Add(p.tagsSize())
	}
	return p
}

// What is taken beside strings and bodies, as TestMemory finds it on the heap: by
// a page with its place in the lists and indexes of package cache, by its extra, and by an
// encoding of it.
const (
	pageOverhead     = 551
	extraOverhead    = 64
	encodingOverhead = 144
)

// makePage makes a page of h, which it takes over, the Age that came with it, and a body,
// which has these encodings already, if it is compressible.
func makePage(m Meta, status int, h http.Header, age time.Duration, plain []byte, encoded []Encoding, compressible bool) *Page {
	d := header.ParseCacheControl(h["Cache-Control"])
	p := &Page{
		Key: m.Key, Route: m.Route, matched: unique.Make(m.Matched),
		Subject: invalidation.Subject{Since: m.Since, Tags: m.Route.TagsOf(h, &m.Said)}, Seq: m.Seq, Order: OrderOf(m.Order),
		Status: status, Generated: time.Now(), ownControl: h["Cache-Control"] != nil, HasData: len(m.Said.Data) > 0,
	}
	if len(m.Said.Tags)+len(m.Said.Data) > 0 {
		n := len(p.Subject.Tags)
		p.saidTags = uint32(n - len(m.Route.TagsOf(h, new(policy.Said))))
		if n > 0 && pagekey.IsBucket(p.Subject.Tags[n-1]) {
			p.saidTags = uint32(n) // in a bucket one cannot be told from another
		}
	}
	if m.Said.HasTTL && m.Said.Stale == nil {
		p.addExtra().saidTTL = max(0, m.Said.TTL)
	}
	if !m.Said.StaleUntil.IsZero() {
		p.LeftToLeaderUntil.Store(m.Said.StaleUntil.UnixNano())
	}
	var explicit bool
	if p.Lifetime, explicit = m.Route.Lifetime(status, h, d); explicit {
		// An upstream cache had it for a while. Its time counts where the lifetime
		// is the upstream's, too (RFC 9111, section 4.2.3).
		if age > 0 {
			p.addExtra().upstream = age
			p.Generated = p.Generated.Add(-age)
		}
	}
	promised := p.Lifetime.TTL
	if most := m.Route.MaxTTL; explicit && most > 0 {
		p.Lifetime.TTL = min(p.Lifetime.TTL, most)
	}
	p.Lifetime = m.Said.Apply(p.Lifetime, explicit, status, p.Generated, p.extras().upstream)
	etag := h.Get("Etag")
	if header.IsETag(etag) {
		p.ownETag = true
	} else {
		sum := sha256.Sum256(plain)
		etag = `"` + base64.RawURLEncoding.EncodeToString(sum[:16]) + `"`
	}
	p.setControl(h, promised, explicit)
	header.DropVary(h, m.Route.IgnoreVary)
	header.AddVary(h, m.Route.Rules.Vary())
	if !compressible {
		encoded = nil
	} else {
		header.AddVary(h, "Accept-Encoding") // also while there is no encoding yet
	}
	p.represent(h, p.setFront(&m, h), etag, plain)
	for _, e := range encoded {
		p.Add(p.NewEncoding(e.coding, e.rep.body), m.Codings)
	}
	p.setUnfinished(compressible, m.Codings)
	if p.Size.Load() > m.MaxBytes {
		return HitForPass(m, policy.Refusal{Why: fmt.Sprintf("takes more than MaxBytes (%d)", m.MaxBytes), Remedy: "raise it, or set Route.Bypass"})
	}
	return p
}

// represent gives the page its headers, which it takes over, with the promise of setFront,
// and its body, and its size with them.
func (p *Page) represent(h http.Header, promise int64, etag string, plain []byte) {
	deleteMade(h)
	p.plain.init(&p.Route.Headers[0], p.Status, h, plain, etag, false)
	if promise >= 0 {
		p.plain.promise = promise
	}
	p.Size.Store(pageOverhead + p.Key.Size() + p.plain.bytes() + p.tagsSize() + p.extraSize())
}

// deleteMade deletes the headers that each representation has of its own.
func deleteMade(h http.Header) {
	for _, name := range [...]string{"Accept-Ranges", "Content-Length", "Etag"} {
		delete(h, name)
	}
}

// tagsSize returns how much memory the tags take that are not the route's.
func (p *Page) tagsSize() (n int64) {
	ofRoute := p.Route.Tags
	if slices.Equal(p.Subject.Tags, ofRoute) {
		return 0
	}
	n = int64(16 * cap(p.Subject.Tags))
	for i, tag := range p.Subject.Tags {
		if !pagekey.IsBucket(tag) && (i >= len(ofRoute) || tag != ofRoute[i]) {
			n += pagekey.StringSize(tag)
		}
	}
	return n
}
