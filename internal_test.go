package isr

// What no visitor can bring about at will, because there is no code of his between
// the one look into the cache and the other.

import (
	"net/http"
	"net/http/httptest"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Who has found nothing in the cache, and finds no run either, looks again before
// he starts one: the run may have ended in between.
func TestJoinLooksAgain(t *testing.T) {
	site := Wrap(http.NotFoundHandler(), Options{})
	site.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	req := pageRequest{key: key{scheme: "http", host: "example.com", path: "/"}, route: site.other}
	if f, _ := site.join(req, nil, &waiter{}); f != nil {
		t.Error("a second run was started")
	}
	p, _ := site.cache.get(&req.key, nil)
	if p == nil {
		t.Fatal("no page")
	}
	if f, _ := site.join(req, p, &waiter{}); f == nil {
		t.Error("no run was started for whoever wants another page")
	} else {
		<-f.done
	}
}

// Builds that differ have names that do.
func TestRevision(t *testing.T) {
	setting := func(key, value string) debug.BuildSetting { return debug.BuildSetting{Key: key, Value: value} }
	rev, at := setting("vcs.revision", "abc"), setting("vcs.time", "2026-01-02T03:04:05Z")
	for want, settings := range map[string][]debug.BuildSetting{
		"":                         nil,
		"abc":                      {rev, at, setting("vcs.modified", "false")},
		"abc+2026-01-02T03:04:05Z": {rev, at, setting("vcs.modified", "true")},
	} {
		if got := revision(settings); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// samplePage returns a page as a handler made it.
func samplePage(site *Site) *page {
	site.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/a?b=c", nil))
	p := site.cache.all()[0]
	p.pattern = "/{outer}"
	return p
}

func sampleSite() *Site {
	return Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Cache-Tag", "one, two")
		w.Write([]byte(strings.Repeat("<p>some words</p>\n", 600)))
	}), Options{Default: Route{TTL: time.Hour, Tags: []string{"all"}}})
}

// Whatever a store makes of a page's bytes, it is that page or none.
func FuzzDecode(f *testing.F) {
	site := sampleSite()
	p := samplePage(site)
	req := pageRequest{key: p.key, route: site.other}
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
		got, err := decode(data, "key", &req)
		if err != nil {
			return
		}
		again, err := decode(got.encode("key"), "key", &req)
		if err != nil {
			t.Fatalf("what was decoded cannot be decoded again: %v", err)
		}
		if diff := cmp.Diff(got.snapshot(0, time.Time{}), again.snapshot(0, time.Time{})); diff != "" {
			t.Errorf("(-first +again):\n%s", diff)
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	p := samplePage(sampleSite())
	b.ReportAllocs()
	for b.Loop() {
		p.encode("key")
	}
}

func BenchmarkDecode(b *testing.B) {
	site := sampleSite()
	p := samplePage(site)
	data, req := p.encode("key"), pageRequest{key: p.key, route: site.other}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := decode(data, "key", &req); err != nil {
			b.Fatal(err)
		}
	}
}
