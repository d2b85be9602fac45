package header_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/isr-go/isr/internal/header"
)

// A response is a header as Share.Of takes it.
type response struct{ names, values []string }

func responseOf(lines ...string) (r response) {
	for _, l := range lines {
		name, value, _ := strings.Cut(l, ": ")
		r.names, r.values = append(r.names, name), append(r.values, value)
	}
	return r
}

// namesOf returns the names of Lines.
func namesOf(l *header.Lines) (names []string) {
	for _, name := range l.Names {
		names = append(names, name)
	}
	return names
}

// restored returns the values that a response has, by its Lines and what it keeps itself.
func restored(l *header.Lines, values []string) []string {
	got := slices.Clone(l.Values)
	for _, i := range l.Own {
		got[i] = values[i]
	}
	if l.ETag >= 0 {
		got[l.ETag] = values[l.ETag]
	}
	return got
}

// Responses that differ in their length, their ETag and their date only have one header
// together.
func TestShare(t *testing.T) {
	var share header.Share
	of := func(n int) (*header.Lines, bool) {
		r := responseOf(fmt.Sprint("Content-Length: ", n), "Content-Type: text/html", fmt.Sprint("Last-Modified: ", n), fmt.Sprintf("Etag: %q", fmt.Sprint(n)), "Vary: A", "Vary: B", "Age: 0")
		l, shared := share.Of(r.names, r.values, 1)
		if diff := cmp.Diff(r.values, restored(l, r.values)); diff != "" {
			t.Errorf("response %d (-want +got):\n%s", n, diff)
		}
		return l, shared
	}
	first, shared := of(1)
	if shared {
		t.Error("the first response has the Lines of another")
	}
	for n := range 5 {
		if l, shared := of(n); l != first || !shared {
			t.Errorf("response %d has Lines of its own", n)
		}
	}
	want := []header.Field{
		{Name: "Content-Length", From: 0, To: 1}, {Name: "Content-Type", From: 1, To: 2}, {Name: "Last-Modified", From: 2, To: 3},
		{Name: "Etag", From: 3, To: 4}, {Name: "Vary", From: 4, To: 6}, {Name: "Age", From: 6, To: 7},
	}
	if diff := cmp.Diff(want, first.Fields); diff != "" {
		t.Errorf("fields (-want +got):\n%s", diff)
	}
}

// A value that each response has another of is kept by each; what is constant, as the
// Cache-Control of a route, is not: it has few, and each has Lines.
func TestShareOfWhatDiffers(t *testing.T) {
	var share header.Share
	made := 0
	of := func(link, control string) *header.Lines {
		r := responseOf("Content-Type: text/html", "Link: "+link, "Cache-Control: "+control)
		l, shared := share.Of(r.names, r.values, 1)
		if !shared {
			made++
		}
		if diff := cmp.Diff(r.values, restored(l, r.values)); diff != "" {
			t.Errorf("%s, %s (-want +got):\n%s", link, control, diff)
		}
		return l
	}
	for i := range 100 {
		of(fmt.Sprint(i), "max-age=1")
	}
	if made != 2 {
		t.Errorf("%d Lines for 100 responses that differ in one value, want 2", made)
	}
	for i := range 100 {
		of(fmt.Sprint(i), "max-age=2")
	}
	if made != 4 || of("1", "max-age=1") == of("1", "max-age=2") {
		t.Errorf("%d Lines for two values that are constant, want 4", made)
	}
}

// However responses differ, each has its own values, and strangers do not make the table
// grow: it has a few places.
func TestShareOfManyHeaders(t *testing.T) {
	var share header.Share
	for i := range 1000 {
		r := responseOf(fmt.Sprint("X-", i%40, ": ", i), "Cache-Control: none", fmt.Sprint("Set-", i%7, ": ", i%3))
		l, _ := share.Of(r.names, r.values, 1)
		if diff := cmp.Diff(r.values, restored(l, r.values)); diff != "" || !slices.Equal(namesOf(l), r.names) {
			t.Fatalf("response %d has %v (-want +got):\n%s", i, namesOf(l), diff)
		}
		if l.ETag >= 0 {
			t.Fatalf("response %d has an ETag", i)
		}
	}
}
