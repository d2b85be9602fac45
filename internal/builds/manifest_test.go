package builds

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func asked(scores ...any) (list []Asked) {
	for i := 0; i < len(scores); i += 2 {
		v := Visit{Path: scores[i].(string)}
		list = append(list, Asked{v.encode(), scores[i+1].(float64)})
	}
	return list
}

func shown(m *Manifest) (list []string) {
	for _, a := range m.Pages {
		v, _ := decodeVisit(a.Page)
		list = append(list, fmt.Sprintf("%s %.3g", v.Path, a.Score))
	}
	return list
}

// A build inherits from the last three before it, also where an older one begins again.
func TestOthers(t *testing.T) {
	m := new(Manifest)
	for _, build := range []string{"a", "b", "b", "c", "d", "e"} {
		m.Begin(build)
	}
	if diff := cmp.Diff([]string{"d", "c", "b"}, m.Others("e")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if m.Begin("c") {
		t.Error("a build that runs beside a newer one begins again and again")
	}
	if !m.Begin("a") {
		t.Error("a build that was forgotten did not begin")
	}
	if diff := cmp.Diff([]string{"e", "d", "c"}, m.Others("a")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := m.Others("never begun"); len(got) != 3 {
		t.Errorf("%d builds to inherit from, want 3", len(got))
	}
}

// What is asked for comes first, whichever instance says so and however often, and what is
// not asked for any more is forgotten.
func TestMerge(t *testing.T) {
	now := time.Unix(1e9, 0)
	m := new(Manifest)
	m.Merge(asked("/a", 10.0, "/b", 20.0), now)
	m.Merge(asked("/a", 30.0, "/c", 1.0), now)
	want := []string{"/a 30", "/b 20", "/c 1"}
	if diff := cmp.Diff(want, shown(m)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if m.Merge(asked("/a", 30.0, "/b", 2.0), now) || m.Merge(nil, now.Add(time.Minute)) {
		t.Error("what says nothing new is to be written")
	}
	m.Merge(asked("/b", 16.0), now.Add(time.Hour))
	if diff := cmp.Diff([]string{"/b 16", "/a 15", "/c 0.5"}, shown(m)); diff != "" {
		t.Errorf("an hour later (-want +got):\n%s", diff)
	}
	m.Merge(asked("/b", 1.0), now.Add(10*time.Hour))
	if diff := cmp.Diff([]string{"/b 1"}, shown(m)); diff != "" {
		t.Errorf("ten hours later (-want +got):\n%s", diff)
	}
	m.Merge(asked("/d", 1.0), now) // by a clock that is behind
	if len(m.Pages) != 2 {
		t.Errorf("%q", shown(m))
	}
}

// However many URLs visitors make up, the manifest stays small, and what is asked for more
// than once is not displaced.
func TestManifestIsBounded(t *testing.T) {
	m, now := new(Manifest), time.Unix(1e9, 0)
	m.Merge(asked("/home", 100.0), now)
	for round := range 20 {
		var junk []Asked
		for i := range 1000 {
			junk = append(junk, asked(fmt.Sprintf("/%d/%d?%s", round, i, strings.Repeat("x", i)), 1.0)...)
		}
		m.Merge(junk, now)
	}
	if n := len(m.encode("key")); n > 100<<10 || len(m.Pages) > maxPages {
		t.Errorf("%d bytes, %d pages", n, len(m.Pages))
	}
	if got := shown(m)[0]; got != "/home 100" {
		t.Errorf("the first page is %s", got)
	}
	if m.Merge(asked("/"+strings.Repeat("x", 2000), 1e9), now); shown(m)[0] != "/home 100" {
		t.Error("a URL of 2 KB is kept")
	}
}

func manifest() *Manifest {
	v := Visit{"https", "example.com", "/a%20b", "q=1", "/{id}", http.Header{"Accept-Language": {"de"}, "Cookie": {"a=1", "b=\xff"}}}
	return &Manifest{[]string{"one", "\x00two"}, []Asked{{v.encode(), 12.5}, {new(Visit).encode(), 0.25}}, time.Unix(1e9, 0)}
}

// What is written is read again, and what is damaged in any byte, cut off or another
// program's is told from it.
func TestEncoding(t *testing.T) {
	m := manifest()
	b := m.encode("key")
	got, err := decode(b, "key")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(m, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	want := Visit{"https", "example.com", "/a%20b", "q=1", "/{id}", http.Header{"Accept-Language": {"de"}, "Cookie": {"a=1", "b=\xff"}}}
	if v, ok := decodeVisit(got.Pages[0].Page); !ok || cmp.Diff(want, v) != "" {
		t.Errorf("%v (-want +got):\n%s", ok, cmp.Diff(want, v))
	}
	if _, ok := decodeVisit(got.Pages[1].Page); ok {
		t.Error("a visit without a path")
	}
	for i := range b {
		damaged := bytes.Clone(b)
		damaged[i] ^= 1
		if _, err := decode(damaged, "key"); err == nil {
			t.Errorf("byte %d may be damaged", i)
		}
		if _, err := decode(b[:i], "key"); err == nil {
			t.Errorf("%d bytes will do", i)
		}
	}
	if _, err := decode(b, "another key"); err == nil {
		t.Error("another program's manifest is taken")
	}
}

// Nothing that a Store returns makes a program panic, or take what it does not say.
func FuzzDecode(f *testing.F) {
	f.Add(manifest().encode("key"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := decode(b, "key"); err == nil {
			again, err := decode(m.encode("key"), "key")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(m, again); diff != "" {
				t.Error(diff)
			}
		}
		if v, ok := decodeVisit(string(b)); ok {
			if again, ok := decodeVisit(v.encode()); !ok || cmp.Diff(v, again) != "" {
				t.Error(cmp.Diff(v, again))
			}
		}
	})
}
