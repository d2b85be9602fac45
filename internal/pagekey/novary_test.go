package pagekey_test

import (
	"fmt"
	"testing"

	"github.com/isr-go/isr/internal/pagekey"
)

// The header says what Query and IgnoreQuery say, where that can be said, and of the pages
// of which it is true.
func TestNoVarySearch(t *testing.T) {
	var many []string
	for i := range 40 {
		many = append(many, fmt.Sprint("parameter", i))
	}
	for _, test := range []struct {
		query, ignore []string
		of            string // the query of the page, as it was sent
		want          string
	}{
		{nil, nil, "a=1", ""},
		{[]string{}, nil, "", "key-order, params"},
		{[]string{"q", "page"}, nil, "q=1&page=2", `key-order, params, except=("page" "q")`},
		{[]string{"q", "q"}, nil, "", `key-order, params, except=("q")`},
		{[]string{"q", "ref", "utm_x"}, []string{"ref", "utm_*"}, "", `key-order, params, except=("q")`},
		{[]string{"ref"}, []string{"ref"}, "", "key-order, params"},
		{nil, []string{"ref", "gclid"}, "a=b", `key-order, params=("gclid" "ref")`},
		{nil, []string{"ref", "utm_*"}, "", `key-order, params=("ref")`},
		{nil, []string{"utm_*"}, "", ""},
		{nil, []string{}, "", ""},
		{nil, many, "", ""},
		{[]string{"caf\u00e9 \"x"}, nil, "", `key-order, params, except=("caf%C3%A9+%22x")`},
		{[]string{"\xff"}, nil, "", ""},
		// What a cache decodes in another way than isr.
		{[]string{"q"}, nil, "q=100%25", ""},
		{[]string{"q"}, nil, "q=%ff", ""},
		{[]string{"q"}, nil, "q=1%3b2", ""},
		{[]string{"q"}, nil, "q=%ef%bf%bd", ""},
		{[]string{"q"}, nil, "q=a%20b", `key-order, params, except=("q")`},
	} {
		ru, err := pagekey.NewRules(test.query, test.ignore, nil, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := ru.NoVarySearch(ru.Query(test.of)); got != test.want {
			t.Errorf("Query %q, IgnoreQuery %q, of %s: %s, want %s", test.query, test.ignore, test.of, got, test.want)
		}
	}
}
