package filter_test

import (
	"fmt"
	"testing"

	"github.com/isr-go/isr/store/internal/filter"
)

const stale, expired, gone = 1, 2, 3

// What was forgotten has its effect on what is older than the newest of its epoch, and on
// nothing that is newer.
func TestForgottenCounts(t *testing.T) {
	f := filter.New(100)
	for n := range 90 {
		f.Add(fmt.Sprint("tag ", n), 1+n%3, uint64(10+n))
	}
	newest := f.Newest()
	if newest != (filter.Newest{0, 97, 98, 99}) {
		t.Errorf("the newest are %v", newest)
	}
	for n := range 90 {
		tags := []string{"another", fmt.Sprint("tag ", n)}
		if got := f.Effect(uint64(9+n), tags, 0); got < 1+n%3 {
			t.Errorf("tag %d: %d, want %d", n, got, 1+n%3)
		}
		if got := f.Effect(newest[1+n%3], tags, 0); got == 1+n%3 {
			t.Errorf("tag %d: %d on what is newer", n, got)
		}
		if got := f.Effect(99, tags, 0); got != 0 {
			t.Errorf("tag %d: %d on what is newer than all", n, got)
		}
	}
	if got := f.Effect(9, []string{"tag 1"}, gone); got != gone {
		t.Errorf("%d, want what there was already", got)
	}
	if got := f.Effect(9, nil, 0); got != 0 {
		t.Errorf("%d on what has no tags", got)
	}
}

// Of 1,000,000 forgotten purges hardly a page of 12 tags suffers that has none of them.
func TestOthersAreSpared(t *testing.T) {
	f := filter.New(1 << 16)
	for n := range 300_000 {
		if over := f.Add(fmt.Sprint("tag ", n), gone, uint64(n+1)); over != (filter.Newest{}) {
			t.Fatalf("%d were too many", n)
		}
	}
	spared := func() (n int) {
		for page := range 5000 {
			var tags []string
			for i := range 12 {
				tags = append(tags, fmt.Sprintf("page %d, tag %d", page, i))
			}
			if f.Effect(0, tags, 0) == 0 {
				n++
			}
		}
		return n
	}
	if n := spared(); n < 4900 {
		t.Errorf("of 5000 pages %d are spared by 300,000, want 4900", n)
	}
	for n := range 700_000 {
		f.Add(fmt.Sprint("more ", n), gone, uint64(n+300_001))
	}
	if n := spared(); n < 4750 {
		t.Errorf("of 5000 pages %d are spared by 1,000,000, want 4750", n)
	}
}

// The number of epochs is bounded: what is dropped is said, and everything else stays.
func TestOldestEpochGoes(t *testing.T) {
	f := filter.New(10)
	var floors filter.Newest
	for n := range 10*filter.Epochs + 25 {
		floors.Raise(f.Add(fmt.Sprint("tag ", n), stale+n%2, uint64(n+1)))
		want := filter.Newest{}
		if over := n/10 - filter.Epochs + 1; over > 0 {
			want = filter.Newest{0, uint64(10*over - 1), uint64(10 * over), 0}
		}
		if floors != want {
			t.Fatalf("%d: what is older than %v is unknown, want %v", n, floors, want)
		}
		if got, most := f.Bytes(), int64(40*filter.Epochs); got > most {
			t.Fatalf("%d: %d bytes, more than %d", n, got, most)
		}
	}
	for n := 30; n < 10*filter.Epochs+25; n++ {
		if got := f.Effect(uint64(n), []string{fmt.Sprint("tag ", n)}, 0); got < stale+n%2 {
			t.Errorf("tag %d: %d, want %d", n, got, stale+n%2)
		}
	}
}

// What was judged goes by whole epochs, and is said.
func TestDrop(t *testing.T) {
	f := filter.New(10)
	for n := range 45 {
		f.Add(fmt.Sprint("tag ", n), stale+n%2, uint64(n+1))
	}
	for i, want := range []struct {
		upto   uint64
		floors filter.Newest
		left   int64
	}{
		{9, filter.Newest{}, 200},
		{10, filter.Newest{0, 9, 10, 0}, 160},
		{29, filter.Newest{0, 19, 20, 0}, 120},
		{100, filter.Newest{0, 45, 44, 0}, 0},
	} {
		if got := f.Drop(want.upto); got != want.floors || f.Bytes() != want.left {
			t.Errorf("%d: up to %d: %v and %d bytes, want %v and %d", i, want.upto, got, f.Bytes(), want.floors, want.left)
		}
	}
	f = filter.New(filter.TagsIn(64_000))
	for n := range 40_000 {
		f.Add(fmt.Sprint(n), stale, uint64(n))
	}
	if f.Bytes() != 64_000 {
		t.Errorf("%d bytes, want 64000", f.Bytes())
	}
}

// What is written is read, and what is no filter is an error.
func TestEncoding(t *testing.T) {
	f := filter.New(10)
	for n := range 25 {
		f.Add(fmt.Sprint("tag ", n), 1+n%3, uint64(n+1))
	}
	c := f.Clone()
	c.Add("only in the copy", gone, 100)
	if f.Newest()[gone] == 100 || f.Effect(90, []string{"only in the copy"}, 0) != 0 {
		t.Error("a copy shares what it holds")
	}
	b, err := f.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	var g filter.Filters
	if err := g.UnmarshalBinary(b); err != nil {
		t.Fatal(err)
	}
	if g.Newest() != f.Newest() || g.Bytes() != f.Bytes() {
		t.Errorf("%v with %d bytes, want %v with %d", g.Newest(), g.Bytes(), f.Newest(), f.Bytes())
	}
	for n := range 25 {
		if got := g.Effect(uint64(n), []string{fmt.Sprint("tag ", n)}, 0); got < 1+n%3 {
			t.Errorf("tag %d: %d, want %d", n, got, 1+n%3)
		}
	}
	for n := range b {
		if g.UnmarshalBinary(b[:n]) == nil && (n-8)%(32+40) != 0 {
			t.Errorf("the first %d bytes of %d are filters", n, len(b))
		}
	}
	for _, b := range [][]byte{make([]byte, 8), {255, 255, 255, 255, 255, 255, 255, 255}} {
		if err := g.UnmarshalBinary(b); err == nil {
			t.Errorf("%v: no error", b)
		}
	}
}
