package pagekey

import (
	"net/http"
	"strings"
)

// SegmentHeader is the header by which a handler sees what Segment has returned.
const SegmentHeader = "Isr-Segment"

// maxSegment is how long a segment may be.
const maxSegment = 256

// VariantOf returns what the key holds of a request beside its URL: the declared headers
// and cookies, and the segment. It reports false where that cannot be in a key.
func (ru *Rules) VariantOf(r *http.Request) (variant string, ok bool) {
	segment, ok := ru.segmentOf(r)
	return ru.VariantIn(segment, r.Header), ok
}

// VariantIn returns what the key holds of the headers of a request that is of a segment.
func (ru *Rules) VariantIn(segment string, sent http.Header) string {
	variant := ru.Variant(sent)
	if segment != "" {
		variant += string(appendHeader(nil, SegmentHeader, []string{segment}))
	}
	return variant
}

// segmentOf returns the segment that a request is of, empty for none. It reports false
// where no header can have it.
func (ru *Rules) segmentOf(r *http.Request) (segment string, ok bool) {
	if ru.Segment == nil {
		return "", true
	}
	segment = ru.Segment(r)
	if len(segment) > maxSegment || strings.TrimSpace(segment) != segment || strings.ContainsFunc(segment, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		return "", false
	}
	return segment, true
}

// ForHandler returns a visitor's own request as a handler may see it: with the segment,
// and no other that the visitor may have sent. Nil rules have none.
func (ru *Rules) ForHandler(r *http.Request) *http.Request {
	segment := ""
	if ru != nil {
		segment, _ = ru.segmentOf(r)
	}
	if segment == "" && r.Header[SegmentHeader] == nil {
		return r
	}
	h := r.Header.Clone()
	delete(h, SegmentHeader)
	if segment != "" {
		h[SegmentHeader] = []string{segment}
	}
	r = r.WithContext(r.Context())
	r.Header = h
	return r
}
