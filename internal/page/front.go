package page

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/isr-go/isr/internal/header"
	"github.com/isr-go/isr/internal/pagekey"
	"github.com/isr-go/isr/internal/policy"
)

// A field is one of the handler's header that does not go out as it is.
type field struct {
	name   string
	values []string // nil: the handler has sent none
}

// setFront makes a page's header ready for the caches in front: tags are for those alone
// that can be told. It notes what it changes, so that it can be done anew, and returns for
// how many seconds such a cache may hold the page, or a negative number where that is not
// said in a field of its own.
func (p *Page) setFront(m *Meta, h http.Header) (promise int64) {
	promise = -1
	if h["No-Vary-Search"] == nil {
		if said := m.Route.Rules.NoVarySearch(p.Key.Query); said != "" {
			h["No-Vary-Search"] = []string{said}
		}
	}
	if tags := h["Cache-Tag"]; tags != nil {
		if p.cacheTag() == nil {
			p.setOwn("Cache-Tag", tags)
		}
		delete(h, "Cache-Tag")
	}
	d := header.ParseCacheControl(h["Cache-Control"])
	// A shared cache cannot tell the segments apart, and one that is told by a field of its
	// own would not heed a Cache-Control that lets it store a part.
	partly := (d.Private || d.NoStore) && !d.IsUnshared() || d.NoCacheFields
	if m.Route.Rules.Segment != nil || m.Mark != nil && partly {
		before := h.Clone()
		header.MakePrivate(h)
		p.note(before, h)
		return promise
	}
	if m.Mark == nil || d.Private || d.NoStore || d.NoCache {
		return promise
	}
	fresh := int64(max(0, min(p.Lifetime.Fresh(), policy.MaxAge)) / time.Second)
	if said := p.ownControl || m.Route.CacheControl != "" && p.Status < 400; said && d.SMaxAge >= 0 {
		fresh = min(fresh, int64(d.SMaxAge/time.Second))
	}
	marked := h.Clone()
	marked["Cache-Control"] = []string{fmt.Sprintf("public, max-age=0, s-maxage=%d", fresh)}
	marked["Age"] = []string{fmt.Sprint(int64(max(0, time.Since(p.Generated)) / time.Second))}
	tags := slices.Clone(p.Subject.Tags)
	for tag := range p.Key.Tags {
		tags = append(tags, tag)
	}
	if !m.Mark(marked, append(tags, pagekey.Everything)) {
		p.Unshared = true
		before := h.Clone()
		header.MakePrivate(h)
		p.note(before, h)
		return promise
	}
	for name, values := range marked {
		switch {
		case name == "Cache-Control", name == "Age", slices.Equal(values, h[name]):
			delete(marked, name)
		case h[name] == nil && name != "X-Accel-Expires" && header.IsTargeted(name):
			promise = fresh // that one is a moment, whatever the Age
		}
	}
	for name, values := range marked {
		p.setOwn(name, h[name])
		h[name] = values
	}
	return promise
}

// setControl has a page's header say for how long others may keep it: as the handler says,
// or by the route, but for no longer than the page lasts here, if it is known for how long.
// promised is what the header or the route gives it, explicit whether it is the header. What
// is changed of the handler's is noted: a renewal may have other bounds.
func (p *Page) setControl(h http.Header, promised time.Duration, explicit bool) {
	fresh, most := p.Lifetime.Fresh(), p.Route.MaxTTL
	isShorter := explicit && fresh < promised || p.Lifetime.Until != 0
	if isShorter || fresh < promised || p.extras().saidTTL >= 0 {
		most = 0
	} else if most == 0 {
		most = policy.Forever
	}
	before := h
	if most != policy.Forever {
		before = h.Clone()
		header.LimitTargeted(h, most)
	}
	if isShorter {
		if p.ownControl {
			h["Cache-Control"] = []string{header.Shortened(strings.Join(h["Cache-Control"], ", "), fresh)}
		}
		delete(h, "Expires")
	}
	p.note(before, h)
	switch d := header.ParseCacheControl(h["Cache-Control"]); {
	case !p.ownControl:
		h["Cache-Control"] = []string{p.Route.CacheControlFor(p.Status, p.Lifetime)}
	case d.SMaxAge >= 0 && d.MaxAge < 0 && h["Expires"] == nil:
		// Browsers would guess how long they may keep it.
		h["Cache-Control"] = append(slices.Clip(h["Cache-Control"]), "max-age=0")
	}
}

// cacheTag returns the handler's Cache-Tag as the page's tags tell it: those that are not the
// route's and were not said from inside of the generation. It returns nil where they do not.
func (p *Page) cacheTag() []string {
	all, ofRoute := p.Subject.Tags, p.Route.Tags
	end := len(all) - int(p.saidTags)
	if end <= len(ofRoute) || !slices.Equal(all[:len(ofRoute)], ofRoute) || slices.ContainsFunc(all, pagekey.IsBucket) {
		return nil
	}
	said := strings.Join(all[len(ofRoute):end], ", ")
	if strings.Contains(said, `"`) { // in quotes a comma may be part of a tag
		return nil
	}
	return []string{said}
}

// setOwn notes what the handler has sent in a field.
func (p *Page) setOwn(name string, values []string) {
	values = slices.Clone(values) // which may be a small part of the handler's memory
	for i := range values {
		values[i] = strings.Clone(values[i])
	}
	r := p.addExtra()
	r.own = append(r.own, field{name, values})
}

// setUnstored changes the header of the page into that of an error which only the visitor's
// own conditions have caused: a cache that passes these on would store it for everybody,
// under the page's URL (RFC 9111, section 3).
func (p *Page) setUnstored(h http.Header) {
	for _, f := range p.extras().own { // what an Edge has marked
		delete(h, f.name)
	}
	header.SetNoStore(h)
}

// note notes what the handler's header had that is another now.
func (p *Page) note(before, now http.Header) {
	for name, values := range before {
		if !slices.Equal(values, now[name]) {
			p.setOwn(name, values)
		}
	}
}

// handlers returns the header as the handler has sent it, as far as it goes on, and the
// ETag.
func (p *Page) handlers() (h http.Header, etag string) {
	h, etag = p.plain.snapshot()
	if said := p.Route.Rules.NoVarySearch(p.Key.Query); said != "" && h.Get("No-Vary-Search") == said {
		delete(h, "No-Vary-Search") // it is made anew
	}
	if tags := p.cacheTag(); tags != nil {
		h["Cache-Tag"] = tags
	}
	for _, f := range slices.Backward(p.extras().own) { // what was changed last is undone first
		if f.values == nil {
			delete(h, f.name)
		} else {
			h[f.name] = slices.Clone(f.values)
		}
	}
	return h, etag
}

// extraSize returns how much memory it takes, but for the value.
func (p *Page) extraSize() (n int64) {
	if p.extra == nil {
		return 0
	}
	n = extraOverhead
	for _, f := range p.extra.own {
		n += 40
		for _, v := range f.values {
			n += 16 + pagekey.StringSize(v)
		}
	}
	return n
}
