package page

import (
	"bytes"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/isr-go/isr/internal/pagekey"
	"github.com/isr-go/isr/internal/policy"
)

// samplePage returns a page, and what was known of it before its response was.
func samplePage() (*Page, Meta) {
	rules, _ := pagekey.NewRules(nil, nil, nil, nil, nil)
	m := Meta{
		Key: pagekey.Key{Scheme: "http", Host: "example.com", Path: "/a", Query: "b=c"}, MaxBytes: 1 << 20,
		Route:   &policy.Route{Rules: rules, TTL: time.Hour, StaleWhileRevalidate: policy.Forever, StaleIfError: policy.Forever, Tags: []string{"all"}},
		Codings: []string{"br", "zstd", "gzip"},
	}
	h := http.Header{"Content-Type": {"text/html; charset=utf-8"}, "Cache-Tag": {"one, two"}}
	p := New(m, http.StatusOK, h, []byte(strings.Repeat("<p>some words</p>\n", 600)), nil)
	p.Add(p.NewEncoding("gzip", []byte("as gzip")), m.Codings)
	p.Add(p.NewEncoding("br", []byte("as brotli")), m.Codings)
	return p, m
}

// A part of a page is refused, and so is one that no handler can have made, even where
// the checksum is right.
func TestDecodeRefuses(t *testing.T) {
	p, req := samplePage()
	data := p.encode("key")
	if _, err := Decode(data, "key", req); err != nil {
		t.Fatal(err)
	}
	for n := range data {
		part := append([]byte(nil), data[:n]...)
		if n > 5 {
			putChecksum(part)
		}
		if _, err := Decode(part, "key", req); err == nil {
			t.Errorf("the first %d bytes of %d were taken for the page", n, len(data))
		}
	}
	for _, status := range []int{-1, 0, 199, 1000} {
		was := p.Status
		p.Status = status
		odd := p.encode("key")
		p.Status = was
		if _, err := Decode(odd, "key", req); err == nil {
			t.Errorf("status %d", status)
		}
	}
}

// Whatever a store makes of a page's bytes, it is that page or none.
func FuzzDecode(f *testing.F) {
	p, req := samplePage()
	data := p.encode("key")
	for i := range min(200, len(data)) {
		broken := append([]byte(nil), data...)
		broken[i] ^= 0x10
		f.Add(broken[:len(data)-i/2], true)
	}
	f.Add(data, false)
	f.Fuzz(func(t *testing.T, data []byte, sum bool) {
		if sum && len(data) > 5 { // or the checksum alone would refuse everything
			putChecksum(data)
		}
		got, err := Decode(data, "key", req)
		if err != nil {
			return
		}
		again, err := Decode(got.encode("key"), "key", req)
		if err != nil {
			t.Fatalf("what was decoded cannot be decoded again: %v", err)
		}
		if !bytes.Equal(got.encode("key"), again.encode("key")) {
			t.Error("what was decoded and encoded twice differs")
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	p, _ := samplePage()
	b.ReportAllocs()
	for b.Loop() {
		p.encode("key")
	}
}

func BenchmarkDecode(b *testing.B) {
	p, req := samplePage()
	data := p.encode("key")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(data, "key", req); err != nil {
			b.Fatal(err)
		}
	}
}
