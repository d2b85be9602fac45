package edgetest

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// mark: Mark adds fields, and changes nothing that is there, nor the tags.
func mark(t *test) {
	h := http.Header{
		"Cache-Control": {fresh}, "Content-Type": {"text/html"}, "Etag": {`"1"`}, "Vary": {"Accept-Encoding"}, "Age": {"10"},
	}
	before := h.Clone()
	tags := []string{"b", "a", "with space", "a"}
	if !t.Edge.Mark(h, tags) {
		t.Error("four tags do not fit")
	}
	for name, values := range before {
		if !slices.Equal(h[name], values) {
			t.Errorf("%s is %q, and was %q", name, h[name], values)
		}
	}
	if !slices.Equal(tags, []string{"b", "a", "with space", "a"}) {
		t.Errorf("the tags are %q now", tags)
	}
	for name, values := range h {
		if http.CanonicalHeaderKey(name) != name {
			t.Errorf("%s is not canonical", name)
		}
		for _, v := range values {
			if strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r >= 0x7f }) {
				t.Errorf("%s: %q cannot be sent", name, v)
			}
		}
	}
	// What the handler says to the product itself is left as it is.
	for name := range h {
		if before[name] != nil || !strings.HasSuffix(name, "Control") && name != "X-Accel-Expires" {
			continue
		}
		own := http.Header{"Cache-Control": {fresh}, name: {"no-store"}}
		if !t.Edge.Mark(own, tags) || !slices.Equal(own[name], []string{"no-store"}) {
			t.Errorf("%s of the handler is %q now", name, own[name])
		}
	}
	// There is nothing to keep.
	for _, control := range []string{"", "no-store", "private, max-age=60"} {
		h := http.Header{}
		if control != "" {
			h.Set("Cache-Control", control)
		}
		if !t.Edge.Mark(h, nil) {
			t.Errorf("with Cache-Control %q no tags do not fit", control)
		}
		for name := range h {
			if name != "Cache-Control" {
				t.Errorf("with Cache-Control %q the product is told %s: %q", control, name, h[name])
			}
		}
	}
}

// limit: what does not fit changes nothing; what fits can be told.
func limit(t *test) {
	fits := 0
	for n := 1; n <= 1<<14; n *= 2 {
		tags := manyNames(n)
		h := http.Header{"Cache-Control": {fresh}}
		if t.Edge.Mark(h, tags) {
			fits = n
			continue
		}
		if want := (http.Header{"Cache-Control": {fresh}}); !maps.EqualFunc(h, want, slices.Equal) {
			t.Errorf("%d tags do not fit, and the header is %.200q", n, h)
		}
		break
	}
	if fits < 128 {
		t.Fatalf("no more than %d tags fit, of 20 bytes each", fits)
	}
	tags := manyNames(fits)
	t.put("/full", tags...)
	old := t.cached("/full")
	t.tell(dropped, tags[fits-1])
	t.isNew("/full", old)
}

func manyNames(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("tag-number-%09d", i)
	}
	return names
}

// kept: a page is kept for as long as it is fresh, by what the product alone reads.
func kept(t *test) {
	t.put("/kept", "a")
	t.cached("/kept")
	t.putAs("/short", "public, max-age=0, s-maxage=1", "a")
	old := t.get("/short")
	t.eventually("a page with s-maxage=1 is not asked for anew", func() bool { return t.get("/short") > old })
}

// unmarked: a page without a lifetime is not kept.
func unmarked(t *test) {
	t.putAs("/none", "", "a")
	t.putAs("/past", "public, max-age=0", "a")
	for _, path := range []string{"/none", "/past"} {
		if first, again := t.get(path), t.get(path); first == again {
			t.Errorf("%s is kept", path)
		}
	}
}
