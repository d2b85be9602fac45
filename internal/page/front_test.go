package page

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/isr-go/isr/internal/policy"
)

// The handler's Cache-Tag does not go out, but a page that a 304 renews, and one that comes
// back from the Store, have its tags, and those alone: another route, or another
// generation, has others.
func TestCacheTagIsKept(t *testing.T) {
	many := make([]string, 200)
	for i := range many {
		many[i] = fmt.Sprint("tag-", i)
	}
	for name, test := range map[string]struct {
		sent, said []string
		want       string // empty: as it was sent
	}{
		"one line":         {sent: []string{"one, two"}},
		"two lines":        {sent: []string{"one", "two"}, want: "one, two"},
		"beside the data":  {sent: []string{"one"}, said: []string{"said"}},
		"the route's":      {sent: []string{"all"}},
		"also the route's": {sent: []string{"all, one"}, want: "one"},
		"quoted":           {sent: []string{`"one, two"`}},
		"folded":           {sent: []string{strings.Join(many, ", ")}},
	} {
		t.Run(name, func(t *testing.T) {
			_, m := samplePage()
			m.Said = policy.Said{Tags: test.said}
			p := New(m, http.StatusOK, http.Header{"Cache-Tag": test.sent}, []byte("a page"), nil)
			decoded, err := Decode(p.encode("key"), "key", m)
			if err != nil {
				t.Fatal(err)
			}
			want := test.want
			if want == "" {
				want = test.sent[0]
			}
			for how, p := range map[string]*Page{"made": p, "decoded": decoded, "renewed": Freshen(Meta{Key: m.Key, Route: m.Route, MaxBytes: m.MaxBytes}, decoded, decoded.Merge(nil))} {
				if diff := cmp.Diff([]string{want}, p.Merge(nil)["Cache-Tag"]); diff != "" {
					t.Errorf("%s (-want +got):\n%s", how, diff)
				}
				if h, _ := p.Header(); h["Cache-Tag"] != nil {
					t.Errorf("%s: %q goes out", how, h["Cache-Tag"])
				}
				for _, tag := range append(slices.Clone(test.said), "all") {
					if !slices.Contains(p.Subject.Tags, tag) {
						t.Errorf("%s: %q lacks %q", how, p.Subject.Tags, tag)
					}
				}
			}
		})
	}
}
