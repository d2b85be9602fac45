package changed_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/isr-go/isr/internal/changed"
)

// RFC 9875, section 3: a list of strings, which are tags here. What is no such list names
// nothing, and of many the first count.
func TestGroups(t *testing.T) {
	for _, test := range []struct {
		lines []string
		want  []string
	}{
		{nil, nil},
		{[]string{""}, nil},
		{[]string{`"a"`}, []string{"a"}},
		{[]string{`"a", "b c","a"`, `"d"`}, []string{"a", "b c", "d"}},
		{[]string{`"a\"b", "c\\d"`}, []string{`a"b`, `c\d`}},
		{[]string{`"a";x=1, "b";y`}, []string{"a", "b"}},
		{[]string{`"", "/path", " x", "a,b", "c"`}, []string{"c"}}, // the others are no tags
		{[]string{`a`}, nil},
		{[]string{`"a`}, nil},
		{[]string{`"a\`}, nil},
		{[]string{`"a\x"`}, nil},
		{[]string{`"a" "b"`}, nil},
		{[]string{`("a" "b")`}, nil},
		{[]string{"\"caf\u00e9\""}, nil},
	} {
		if got := changed.Groups(http.Header{"Cache-Group-Invalidation": test.lines}); !slices.Equal(got, test.want) {
			t.Errorf("%q: %q, want %q", test.lines, got, test.want)
		}
	}
	var many []string
	for i := range 1000 {
		many = append(many, fmt.Sprintf("%q", fmt.Sprint("tag", i)))
	}
	if got := changed.Groups(http.Header{"Cache-Group-Invalidation": {strings.Join(many, ", ")}}); len(got) != 128 || got[127] != "tag127" {
		t.Errorf("%d groups", len(got))
	}
}
