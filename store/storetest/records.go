package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/isr-go/isr/store"
)

// hostile are keys and tags that mean something to some engine: to a file system,
// to C, to a Redis cluster, to a shell, to UTF-8.
var hostile = []string{
	"", ".", "..", "/", "../../etc/passwd", "/etc/passwd", `C:\con`, "a/b", "a/b/", "a//b", "A/B", "con",
	"\x00", "a\x00b", "a", "a ", " a", "a\n", "\r\n*1\r\n$8\r\nFLUSHALL\r\n", "{", "{a}", "{a}{b}", "{}a", "}{",
	"*", "a*", "?", "[a]", "%", "%00", "%2e%2e", "$(id)", "'", `"`, "-1", "0", "日本", "e\u0301", "\u00e9", "\xff\xfe", "\u202e",
	strings.Repeat("k", 255), strings.Repeat("k", 256), strings.Repeat("7 KB/", 7<<10/5), strings.Repeat("7 KB/", 7<<10/5) + ".",
}

// What was put is got, byte by byte, under any key and with any tags, and by the
// other process, too.
func roundTrip(t *test) {
	if rec, effect, err := Get(t.ctx, t.Stores[0], "nothing"); !errors.Is(err, store.ErrNotFound) || rec != nil || effect != store.None {
		t.Fatalf("Get of nothing: %v, %v, %v, want ErrNotFound alone", rec, effect, err)
	}
	want := make(map[string]*store.Record)
	add := func(i int, key string, rec store.Record) {
		t.Helper()
		ticket := t.begin(i, key)
		t.put(1-i, key, ticket, &rec)
		rec.Version, rec.Fence = ticket.Version, ticket.Fence
		want[key] = &rec
	}
	for n, key := range hostile {
		add(n%2, key, store.Record{Tags: []string{key, "tag of " + key[:min(len(key), 99)]}, Data: []byte("page " + key)})
	}
	all := make([]byte, 1<<16)
	for i := range all {
		all[i] = byte(i ^ i>>8)
	}
	many := make([]string, 133)
	for i := range many {
		many[i] = fmt.Sprint("tag ", i)
	}
	add(0, "empty", store.Record{})
	add(0, "empty, but not nil", store.Record{Tags: []string{}, Data: []byte{}})
	add(0, "all bytes", store.Record{Data: all})
	add(0, "many tags", store.Record{Tags: many, Data: []byte("x")})
	add(0, "all hostile tags", store.Record{Tags: hostile, Data: []byte("x")})
	add(0, "a tag twice", store.Record{Tags: []string{"b", "a", "b"}, Data: []byte("x")})
	add(0, "ttl", store.Record{TTL: long + time.Millisecond, Data: []byte("x")})
	for key, rec := range want {
		for i := range t.Stores {
			got, effect, err := Get(t.ctx, t.Stores[i], key)
			if err != nil || effect != store.None {
				t.Errorf("store %d: Get(%.50q): %v, %v", i, key, effect, err)
			} else if !equal(got, rec) {
				t.Errorf("store %d: Get(%.50q) is not what was put:\n got %s\nwant %s", i, key, show(got), show(rec))
			}
		}
	}
}

// equal says whether two records have the same content. Nil is as good as empty.
func equal(a, b *store.Record) bool {
	return a.Version == b.Version && a.Fence == b.Fence && a.TTL == b.TTL &&
		slices.Equal(a.Tags, b.Tags) && bytes.Equal(a.Data, b.Data)
}

func show(r *store.Record) string {
	return fmt.Sprintf("version %d, fence %d, ttl %v, %d bytes %.50q, %d tags %.200q", r.Version, r.Fence, r.TTL, len(r.Data), r.Data, len(r.Tags), r.Tags)
}

// The newer ticket wins, whichever comes first, and whatever the records say.
func newerWins(t *test) {
	old := t.begin(0, "key")
	mid := t.begin(1, "key")
	t.invalidate(0, store.Stale, "another")
	last := t.begin(1, "key")
	if old.Compare(mid) >= 0 || mid.Compare(last) >= 0 || last.Version <= mid.Version {
		t.Fatalf("tickets are not in order: %+v, %+v, %+v", old, mid, last)
	}
	put := func(i int, ticket store.Ticket, data string, want error) {
		t.Helper()
		// The record says the opposite of the ticket.
		rec := &store.Record{Version: ^ticket.Version, Fence: ^ticket.Fence, Data: []byte(data)}
		if err := t.Stores[i].Put(t.ctx, "key", ticket, rec); !errors.Is(err, want) {
			t.Fatalf("Put of %q: %v, want %v", data, err, want)
		}
	}
	put(0, mid, "mid", nil)
	put(0, old, "old", store.ErrSuperseded)
	put(1, old, "old", store.ErrSuperseded)
	t.is("key", "mid", store.None)
	put(1, last, "last", nil)
	put(0, last, "last", nil) // once more, as after an answer that was lost
	put(0, mid, "mid", store.ErrSuperseded)
	put(1, old, "old", store.ErrSuperseded)
	t.is("key", "last", store.None)
	rec, _, err := Get(t.ctx, t.Stores[0], "key")
	if err != nil || rec.Version != last.Version || rec.Fence != last.Fence {
		t.Errorf("Get: %v, %v: not of the ticket %+v", rec, err, last)
	}
}

// What a store is given stays as it is, and what it returns is the caller's.
func aliasing(t *test) {
	given := &store.Record{Version: 1, Fence: 2, Tags: []string{"a", "b"}, Data: []byte("data")}
	t.put(0, "key", t.begin(0, "key"), given)
	if want := (&store.Record{Version: 1, Fence: 2, Tags: []string{"a", "b"}, Data: []byte("data")}); !equal(given, want) {
		t.Errorf("Put has changed what it was given: %s", show(given))
	}
	spoil := func(rec *store.Record) {
		copy(rec.Data, "spoilt")
		rec.Tags[0] = "spoilt"
		_ = append(rec.Data[:0], "more, and still more"...)
		rec.Version, rec.Fence, rec.TTL = 0, 0, 1
	}
	spoil(given)
	for i := range 4 {
		rec, effect, err := Get(t.ctx, t.Stores[i%2], "key")
		if err != nil || effect != store.None || string(rec.Data) != "data" || !slices.Equal(rec.Tags, []string{"a", "b"}) {
			t.Fatalf("store %d: Get: %+v, %v, %v: others can change it", i%2, rec, effect, err)
		}
		spoil(rec)
	}

	tags := []string{"a", "c"}
	v := t.invalidate(0, store.Stale, tags...)
	if !slices.Equal(tags, []string{"a", "c"}) {
		t.Errorf("Invalidate has changed what it was given: %q", tags)
	}
	clear(tags)
	t.is("key", "data", store.Stale)
	for i := range 4 {
		c := t.follow(i%2, v-1, v)
		if want := []store.Change{{Tag: "a", Version: v, Effect: store.Stale}, {Tag: "c", Version: v, Effect: store.Stale}}; !slices.Equal(sorted(c), want) {
			t.Fatalf("store %d: Changes: %v, want %v: others can change it", i%2, c, want)
		}
		clear(c)
	}
}

// A record is forgotten after its TTL, and not before another's.
func ttl(t *test) {
	put := func(key string, ttl time.Duration) {
		t.Helper()
		t.put(0, key, t.begin(0, key), &store.Record{TTL: ttl, Tags: []string{"tag"}, Data: []byte(key)})
	}
	put("zero", 0)
	put("long", long)
	put("extended", t.TTL)
	put("extended", long)
	put("kept", t.TTL)
	put("kept", 0)
	put("shortened", long)
	put("shortened", t.TTL)
	put("short", t.TTL)
	put("short, stale", t.TTL)
	t.invalidate(1, store.Stale, "of others")
	for _, key := range []string{"short", "short, stale", "shortened"} {
		for i := range t.Stores {
			t.eventually("forgetting "+key, func() bool {
				_, _, err := Get(t.ctx, t.Stores[i], key)
				if err != nil && !errors.Is(err, store.ErrNotFound) {
					t.Fatalf("store %d: Get past the TTL: %v, want ErrNotFound", i, err)
				}
				return err != nil
			})
		}
	}
	for _, key := range []string{"zero", "long", "extended", "kept"} {
		t.is(key, key, store.None)
	}
	put("short", 0)
	t.is("short", "short", store.None)
}

// What is too large is refused, and is no loss of what is stored.
func tooLarge(t *test) {
	if t.MaxBytes == 0 {
		t.Skip("there is no limit")
	}
	t.store(0, "key", "small")
	for _, n := range []int{t.MaxBytes + 1<<10, 2*t.MaxBytes + 1<<10} {
		ticket := t.leads(0, "key", true)
		if err := t.Stores[0].Put(t.ctx, "key", ticket, &store.Record{Data: make([]byte, n)}); !errors.Is(err, store.ErrTooLarge) {
			t.Fatalf("Put of %d bytes: %v, want ErrTooLarge", n, err)
		}
		t.is("key", "small", store.None)
		t.end(1, "key", t.leads(1, "key", true)) // the Put has given the lease back
	}
	large := strings.Repeat("x", t.MaxBytes)
	t.store(1, "key", large)
	t.is("key", large, store.None)
}

// A damaged record is a miss, and makes room for the next.
func corrupt(t *test) {
	if t.Corrupt == nil {
		t.Skip("records cannot be damaged")
	}
	t.store(0, "neighbour", "intact", "tag")
	for n, data := range []string{"", "x", strings.Repeat("10 KB", 2<<10)} {
		t.store(0, "key", data, "tag")
		t.is("key", data, store.None)
		t.Corrupt("key")
		t.is("key", "", store.Gone)
		t.is("key", "", store.Gone)
		if n == 1 {
			t.Corrupt("key") // which need not be there any longer
		}
	}
	t.store(1, "key", "new", "tag")
	t.is("key", "new", store.None)
	t.is("neighbour", "intact", store.None)
	t.invalidate(0, store.Stale, "tag")
	t.is("key", "new", store.Stale)
}
