package edge_test

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/isr-go/isr/edge"
	"github.com/isr-go/isr/store"
)

func ExampleToken() {
	for _, tag := range []string{"blog", "post:17", "de/blog", "with space", "caf\u00e9"} {
		fmt.Println(edge.Token(tag))
	}
	// Output:
	// blog
	// post:17
	// de/blog
	// ~xc4pews7y4i4v2q4
	// ~quhx3rbzcd7ysd4i
}

// A site whose cache is told by a script: with the tags in the field that it looks at.
func ExampleTags() {
	h := http.Header{}
	fits := edge.Tags("Surrogate-Key").Mark(h, []string{"blog", "post:17"})
	fmt.Println(fits, h)
	// Output: true map[Surrogate-Key:[blog post:17]]
}

// A token is one that every product takes, and no two tags have the same.
func TestToken(t *testing.T) {
	token := regexp.MustCompile(`^(~[a-z2-7]{16}|[-A-Za-z0-9._:/@+=][-A-Za-z0-9._:/@+=~]{0,255})$`)
	seen := map[string]string{}
	add := func(tag string) {
		got := edge.Token(tag)
		if !token.MatchString(got) {
			t.Errorf("%q is told as %q", tag, got)
		}
		if other, ok := seen[got]; ok && other != tag {
			t.Errorf("%q and %q are both told as %q", tag, other, got)
		}
		seen[got] = tag
	}
	for i := range 256 {
		add(string([]byte{byte(i)}))
		add(string([]byte{'a', byte(i)}))
	}
	for n := range 600 {
		add(strings.Repeat("x", n))
	}
	for tag := range seen { // a token is a tag, too
		if len(tag) > 0 && tag[0] == '~' {
			add(tag)
		}
	}
	if got := edge.Token("post:17"); got != "post:17" {
		t.Errorf("a plain tag is told as %q", got)
	}
}

func TestTags(t *testing.T) {
	for _, c := range []struct {
		name  string
		field string
		h     http.Header
		tags  []string
		want  http.Header // nil: they do not fit
	}{
		{"spaces", "surrogate-key", http.Header{}, []string{"a", "b"}, http.Header{"Surrogate-Key": {"a b"}}},
		{"commas", "Cache-Tag", http.Header{}, []string{"a", "b"}, http.Header{"Cache-Tag": {"a,b"}}},
		{"no tags", "Cache-Tag", http.Header{}, nil, http.Header{}},
		{"more", "Cache-Tag", http.Header{"Cache-Tag": {"x", "y"}}, []string{"a"}, http.Header{"Cache-Tag": {"x,y,a"}}},
		{"hashed", "Cache-Tag", http.Header{}, []string{"a b"}, http.Header{"Cache-Tag": {edge.Token("a b")}}},
		{"no lifetime", "Cache-Tag", http.Header{"Cache-Control": {"s-maxage=60"}}, []string{"a"}, http.Header{"Cache-Control": {"s-maxage=60"}, "Cache-Tag": {"a"}}},
		{"all that fits", "Cache-Tag", http.Header{}, many(4000), http.Header{"Cache-Tag": {strings.Repeat("x,", 3999) + "x"}}},
		{"as much as fits", "Cache-Tag", http.Header{"Cache-Tag": {"y"}}, many(4000), nil},
		{"too much", "Cache-Tag", http.Header{}, many(4001), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := c.h.Clone()
			fits := edge.Tags(c.field).Mark(h, c.tags)
			if want := c.want != nil; fits != want {
				t.Errorf("fits: %v, want %v", fits, want)
			}
			want := c.want
			if want == nil {
				want = c.h
			}
			if d := cmp.Diff(want, h); d != "" {
				t.Errorf("header (-want +got):\n%.1000s", d)
			}
		})
	}
	if err := edge.Tags("Cache-Tag").Tell(t.Context(), store.Gone, []string{"a"}); err != nil {
		t.Error(err)
	}
}

func many(n int) []string {
	tags := make([]string, n)
	for i := range tags {
		tags[i] = "x"
	}
	return tags
}

// A field that is none is a programmer's mistake.
func TestTagsPanics(t *testing.T) {
	for _, field := range []string{"", "Cache Tag", "Cache-Tag:", "caf\u00e9"} {
		func() {
			defer func() {
				if msg, _ := recover().(string); !strings.Contains(msg, fmt.Sprintf("%q", field)) {
					t.Errorf("Tags(%q) panics with %q", field, msg)
				}
			}()
			edge.Tags(field)
		}()
	}
}

// An UntoldError says how many were not told, and why.
func TestUntoldError(t *testing.T) {
	why := errors.New("cloudflare: zone 12: 429 Too Many Requests")
	err := error(&edge.UntoldError{Tags: []string{"a", "b"}, Err: why})
	if err.Error() != "2 not told: cloudflare: zone 12: 429 Too Many Requests" || !errors.Is(err, why) {
		t.Error(err)
	}
}
