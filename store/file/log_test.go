package file

import (
	"bytes"
	stdcmp "cmp"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isr-go/isr/store"
	"github.com/isr-go/isr/store/storetest"
)

var allowUnexported = cmp.AllowUnexported(header{}, entry{})

func TestHeader(t *testing.T) {
	h := header{id: 1, born: 2, top: 3, floors: [...]store.Version{0, 4, 5, 6}, past: [...]store.Version{0, 7, 8, 9}, size: 10, rest: 11}
	b := h.append(nil)
	if len(b) != headerSize {
		t.Fatalf("%d bytes, want %d", len(b), headerSize)
	}
	got, err := parseHeader(append(b, "entries"...))
	if diff := cmp.Diff(h, got, allowUnexported); err != nil || diff != "" {
		t.Fatalf("error %v, (-want +got):\n%s", err, diff)
	}
	for i := range b {
		damaged := bytes.Clone(b)
		damaged[i] ^= 1
		if _, err := parseHeader(damaged); err == nil {
			t.Errorf("byte %d is damaged, and the header is read", i)
		}
		if _, err := parseHeader(b[:i]); err != errDamaged {
			t.Errorf("cut to %d bytes: %v, want %v", i, err, errDamaged)
		}
	}
	for _, other := range []string{"2", "10"} {
		_, err := parseHeader(bytes.Replace(b, []byte("1\n"), []byte(other+"\n"), 1))
		if err == nil || err == errDamaged {
			t.Errorf("format %s: %v", other, err)
		}
	}
}

// entries returns a log of n invalidations, and where each ends.
func entries(seed uint32, n int) (list []entry, b []byte, ends []int) {
	for i := range n {
		e := entry{version: store.Version(10 * (i + 1)), effect: store.Effect(1 + i%3), tags: []string{}}
		for j := range i % 4 {
			e.tags = append(e.tags, string(bytes.Repeat([]byte{byte(i)}, 40*j)))
		}
		b = e.append(seed, b)
		list, ends = append(list, e), append(ends, len(b))
	}
	return list, b, ends
}

// A log that is cut anywhere has all that is whole before the cut.
func TestCutLog(t *testing.T) {
	list, b, ends := entries(7, 9)
	for cut := range len(b) + 1 {
		whole, _ := slices.BinarySearch(ends, cut+1)
		got, n := parse(7, b[:cut], 0)
		if diff := cmp.Diff(list[:whole], got, allowUnexported, cmp.Transformer("nil", func(l []entry) []entry { return append([]entry{}, l...) })); diff != "" && whole > 0 {
			t.Fatalf("cut at %d (-want +got):\n%s", cut, diff)
		}
		if whole == 0 && (n != 0 || len(got) > 0) || whole > 0 && n != ends[whole-1] {
			t.Fatalf("cut at %d: %d bytes and %d entries of %d", cut, n, len(got), whole)
		}
	}
}

// A log that is damaged anywhere lacks what is there, says so, and lacks nothing else.
func TestDamagedLog(t *testing.T) {
	list, b, ends := entries(7, 9)
	for i := range b {
		damaged := bytes.Clone(b)
		damaged[i] ^= 0x10
		hit, _ := slices.BinarySearch(ends, i+1)
		want := slices.Clone(list)
		if hit+1 < len(want) {
			want[hit+1].gap = true
		}
		want = slices.Delete(want, hit, hit+1)
		got, _ := parse(7, damaged, 0)
		if diff := cmp.Diff(want, got, allowUnexported); diff != "" {
			t.Fatalf("damaged at %d (-want +got):\n%s", i, diff)
		}
	}
}

func FuzzLog(f *testing.F) {
	_, whole, _ := entries(1, 5)
	f.Add(uint64(1), []byte{}, uint8(0))
	f.Add(uint64(1), whole, uint8(3))
	f.Add(uint64(1), whole[:len(whole)-1], uint8(3))
	f.Add(uint64(1), append([]byte("garbage"), whole...), uint8(9))
	f.Add(uint64(0), (&header{id: 3, born: 4}).append(nil), uint8(1))
	f.Fuzz(func(t *testing.T, id uint64, garbage []byte, n uint8) {
		parseHeader(garbage)
		seed := (&header{id: id}).seed()
		list, b, _ := entries(seed, int(n%16))
		got, size := parse(seed, append(b, garbage...), 0)
		if size < len(b) || size > len(b)+len(garbage) || len(got) < len(list) {
			t.Fatalf("%d bytes and %d entries, want at least %d and %d", size, len(got), len(b), len(list))
		}
		if diff := cmp.Diff(list, append([]entry{}, got[:len(list)]...), allowUnexported, cmp.Transformer("nil", func(l []entry) []entry { return append([]entry{}, l...) })); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
		for i, e := range got {
			if i > 0 && e.version <= got[i-1].version || e.effect <= store.None || e.effect > store.Gone {
				t.Fatalf("entry %d is %+v", i, e)
			}
		}
		// What is read of it can be written, and read again.
		var again []byte
		for _, e := range got {
			again = e.append(seed, again)
		}
		if twice, n := parse(seed, again, 0); len(twice) != len(got) || n != len(again) {
			t.Fatalf("%d entries of %d, %d bytes of %d", len(twice), len(got), n, len(again))
		}
	})
}

// The oldest invalidations are trimmed, unless they are recent and not too many.
func TestTrim(t *testing.T) {
	change := func(tag string, v store.Version, e store.Effect) store.Change {
		return store.Change{Tag: tag, Version: v, Effect: e}
	}
	list := []store.Change{
		change("a", 1, store.Gone), change("b", 2, store.Gone), change("c", 3, store.Stale), change("b", 4, store.Stale),
		change("a", 5, store.Expired), change("d", 6, store.Stale), change("e", 6, store.Stale), change("f", 6, store.Stale),
	}
	for _, test := range []struct {
		tags            int
		recent          store.Version
		kept, forgotten []store.Change
	}{
		{9, 9, list, nil},
		{5, 9, slices.Concat(list[:2], list[3:]), list[2:3]},
		{4, 9, slices.Concat(list[:1], list[4:]), list[1:4]},
		{3, 9, list[5:], list[:5]},
		{0, 9, list[5:], list[:5]}, // all of the newest, or all records would be old
		{3, 4, slices.Concat(list[:1], list[4:]), list[1:4]},
		{1, 2, slices.Concat(list[:1], list[4:]), list[1:4]},
		{2, 0, list, nil},
	} {
		kept, forgotten := trim(list, test.tags, test.recent)
		if diff := cmp.Diff([][]store.Change{test.kept, test.forgotten}, [][]store.Change{kept, forgotten}); diff != "" {
			t.Errorf("%d tags, recent from %d on (-want +got):\n%s", test.tags, test.recent, diff)
		}
	}
	if kept, forgotten := trim(nil, 1, 0); kept != nil || forgotten != nil {
		t.Errorf("of nothing: %v, %v", kept, forgotten)
	}
}

// Filters that are damaged count as if they knew each tag; where a part of them is missing,
// the log is lost.
func TestDamagedFilters(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	s.SetLimit(10)
	begun, err := storetest.Begin(t.Context(), s, "key", 0)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 25 {
		if _, err := s.Invalidate(t.Context(), store.Effect(1+n%2), string(rune('a'+n))); err != nil {
			t.Fatal(err)
		}
	}
	v, err := s.history.follow()
	if err == nil {
		err = s.history.rewrite(v, alone)
	}
	if err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(s.history.path)
	if err != nil {
		t.Fatal(err)
	}
	read := func(b []byte) *view {
		t.Helper()
		h := newHistory(t.TempDir())
		if err := os.WriteFile(h.path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		v, err := h.follow()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	v = read(whole)
	if got := []store.Effect{
		v.effect(begun.Version, []string{"other"}), v.effect(begun.Version, []string{"a"}),
		v.effect(begun.Version, []string{"b"}), v.effect(begun.Version, []string{"y"}),
	}; !slices.Equal(got, []store.Effect{store.None, store.Stale, store.Expired, store.Stale}) {
		t.Fatalf("effects are %v", got)
	}
	for _, at := range []int{0, 9, 100, int(v.head.rest) - 1} {
		damaged := bytes.Clone(whole)
		damaged[headerSize+at] ^= 4
		got := read(damaged)
		if effect := got.effect(begun.Version, []string{"other"}); effect != store.Expired {
			t.Errorf("byte %d is damaged: %v, want %v", at, effect, store.Expired)
		}
		if effect := got.effect(got.top, []string{"a"}); effect != store.None {
			t.Errorf("byte %d is damaged: %v on what is new", at, effect)
		}
		if diff := cmp.Diff(v.changes(begun.Version), got.changes(begun.Version)); diff != "" {
			t.Errorf("byte %d is damaged: other changes (-want +got):\n%s", at, diff)
		}
	}
	if got := read(whole[:headerSize+int(v.head.rest)-1]); got.info != nil {
		t.Error("a part of the filters is missing, and the log is read")
	}
}

// A rewritten log says the same to a process that reads it for the first time, and to
// one that has read the old one.
func TestRewrite(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	follower := newHistory(dir)
	begun, err := storetest.Begin(t.Context(), s, "key", 0)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 300 {
		tags := []string{string(rune('a' + i%20)), string(rune('A' + i%7))}
		if _, err := s.Invalidate(t.Context(), store.Effect(1+i%3), tags...); err != nil {
			t.Fatal(err)
		}
	}
	before, err := follower.follow()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.history.rewrite(before, alone); err != nil {
		t.Fatal(err)
	}
	for name, h := range map[string]*history{"old": follower, "new": newHistory(dir)} {
		v, err := h.follow()
		if err != nil || v.behind || v.top != before.top || v.end >= before.end {
			t.Fatalf("%s reader: %+v, %v, want less than %d bytes up to %d", name, v, err, before.end, before.top)
		}
		if diff := cmp.Diff(sorted(before.changes(begun.Version)), sorted(v.changes(begun.Version))); diff != "" {
			t.Fatalf("%s reader (-want +got):\n%s", name, diff)
		}
	}
}

func alone() error { return nil }

// sorted puts what was changed at once into the order of the tags.
func sorted(c store.Changes) store.Changes {
	slices.SortFunc(c.List, func(a, b store.Change) int {
		return stdcmp.Or(stdcmp.Compare(a.Version, b.Version), stdcmp.Compare(a.Tag, b.Tag), stdcmp.Compare(a.Effect, b.Effect))
	})
	return c
}

// While processes follow the log and add to it, it is rewritten all the time.
func TestRewriteWhileFollowed(t *testing.T) {
	dir := t.TempDir()
	var stores [3]*Store
	for i := range stores {
		s, err := Open(dir, Options{})
		if err != nil {
			t.Fatal(err)
		}
		s.history.slack = 256
		stores[i] = s
	}
	reader, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	c, err := reader.Changes(t.Context(), 0)
	if err != nil || !c.Reset {
		t.Fatalf("%+v, %v, want Reset", c, err)
	}
	const each = 200
	var writers sync.WaitGroup
	defer writers.Wait() // the last one's change is seen before it has returned
	for i, s := range stores {
		writers.Go(func() {
			for n := range each {
				if _, err := s.Invalidate(t.Context(), store.Gone, string([]byte{byte(i), byte(n)})); err != nil {
					t.Errorf("Invalidate: %v", err)
				}
			}
		})
	}
	seen := make(map[string]bool)
	for deadline := time.Now().Add(time.Minute); len(seen) < len(stores)*each; {
		if c, err = reader.Changes(t.Context(), c.Upto); err != nil || c.Reset || time.Now().After(deadline) {
			t.Fatalf("after %d changes: %+v, %v", len(seen), c, err)
		}
		for _, change := range c.List {
			seen[change.Tag] = true
		}
	}
	if v, err := reader.history.follow(); err != nil || v.head.size == uint64(headerSize) {
		t.Errorf("the log was never rewritten: %+v, %v", v.head, err)
	}
}

// What a crash has left at the end of the log is cut off by the next writer, and hides
// nothing that comes then, even where that has the same size.
func TestTornTail(t *testing.T) {
	dir := t.TempDir()
	open := func() *Store {
		s, err := Open(dir, Options{})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s, reader := open(), open()
	first, err := s.Invalidate(t.Context(), store.Gone, "first")
	if err != nil {
		t.Fatal(err)
	}
	torn := entry{version: first + 1, effect: store.Gone, tags: []string{"other"}}
	path := filepath.Join(dir, "purges")
	whole := torn.append(reader.history.view.Load().head.seed(), nil)
	for _, tail := range [][]byte{{0}, whole[:len(whole)-1], make([]byte, len(whole)), make([]byte, 9999)} {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(tail); err != nil {
			t.Fatal(err)
		}
		f.Close()
		before, err := reader.history.follow()
		if err != nil || size(t, path) == before.end || before.head.floors[store.Gone] != 0 {
			t.Fatalf("with %d bytes behind the end: %+v, %v", len(tail), before, err)
		}
		v, err := open().Invalidate(t.Context(), store.Gone, "tag"+string(rune('0'+len(tail)%10)))
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range []*Store{s, reader, open()} {
			c, err := s.Changes(t.Context(), before.top)
			if err != nil || c.Reset || len(c.List) != 1 || c.Upto != v {
				t.Fatalf("after a tail of %d bytes: %+v, %v, want version %d alone", len(tail), c, err, v)
			}
			if size(t, path) != mustFollow(t, s).end {
				t.Fatalf("a tail of %d bytes was not cut off", len(tail))
			}
		}
	}
	if c := open(); len(mustFollow(t, c).table.Changes(0).List) != 5 {
		t.Error("acknowledged entries were lost")
	}
}

func size(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

func mustFollow(t *testing.T, s *Store) *view {
	t.Helper()
	v, err := s.history.follow()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// A process whose lock or log may have been replaced does not acknowledge what it
// wrote.
func TestReplacedWhileAppending(t *testing.T) {
	s, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Invalidate(t.Context(), store.Gone, "tag"); err != nil {
		t.Fatal(err)
	}
	l, err := s.lock(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.history.append(store.Gone, []string{"tag"}, l.held); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(l.f.Name()); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.history.append(store.Gone, []string{"tag"}, l.held); err != errReplaced && !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("under a lock that is deleted: %v", err)
	}
	if _, err := os.Stat(s.history.path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an entry that may replace what others have read is still there: %v", err)
	}
	l.unlock()
	if _, err := s.Invalidate(t.Context(), store.Gone, "tag"); err != nil {
		t.Fatal(err)
	}
	v := mustFollow(t, s)
	f, err := os.OpenFile(s.history.path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.Remove(s.history.path); err != nil {
		t.Fatal(err)
	}
	if err := s.history.appendTo(f, v, entry{version: v.top + 1, effect: store.Gone}, alone); err != errReplaced {
		t.Errorf("to a log that is deleted: %v, want %v", err, errReplaced)
	}
	// Invalidate begins another one.
	if _, err := s.Invalidate(t.Context(), store.Gone, "tag"); err != nil {
		t.Error(err)
	}
}

// Where the clock was set back, and the log is lost, versions go on from the highest
// that a process has seen.
func TestClockSetBack(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	ahead := store.Version(clock()) + 1<<40
	if err := s.history.write(header{id: 1, born: ahead, top: ahead}, nil, nil, alone); err != nil {
		t.Fatal(err)
	}
	last, err := s.Invalidate(t.Context(), store.Gone, "tag")
	if err != nil || last <= ahead {
		t.Fatalf("version %d, %v, want more than %d", last, err, ahead)
	}
	if err := os.Remove(s.history.path); err != nil {
		t.Fatal(err)
	}
	// Another process, which knows nothing, begins a history by the clock.
	other, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if ticket, err := storetest.Begin(t.Context(), other, "key", 0); err != nil || ticket.Version >= last {
		t.Fatalf("%+v, %v: not by the clock", ticket, err)
	}
	c, err := s.Changes(t.Context(), last)
	if err != nil || !c.Reset || c.Upto <= last {
		t.Fatalf("%+v, %v, want Reset to more than %d", c, err, last)
	}
	for _, s := range []*Store{s, other} {
		if ticket, err := storetest.Begin(t.Context(), s, "key", 0); err != nil || ticket.Version <= last || ticket.Version > math.MaxInt64 {
			t.Fatalf("%+v, %v, want more than version %d", ticket, err, last)
		}
	}
}
