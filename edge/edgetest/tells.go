package edgetest

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/isr-go/isr/edge"
	"github.com/isr-go/isr/store"
)

const dropped = store.Gone

// eventually waits until a condition comes true.
func (t *test) eventually(what string, condition func() bool) {
	t.Helper()
	began := time.Now()
	for pause := 10 * time.Millisecond; !condition(); pause = min(2*pause, time.Second) {
		if time.Since(began) > patience/6 {
			t.Fatalf("%s: not within %v", what, patience/6)
		}
		time.Sleep(pause)
	}
}

// effects: what was told of is not shown any more; what is stale at most once.
func effects(t *test) {
	for _, effect := range []store.Effect{store.Expired, store.Gone, store.Gone + 1} {
		path := fmt.Sprintf("/%d", effect)
		t.put(path, path, "all")
		t.put(path+"/other", path+"/other", "all")
		old, other := t.cached(path), t.cached(path+"/other")
		t.tell(effect, path)
		t.isNew(path, old)
		t.isKept(path+"/other", other)
	}
	t.put("/stale", "stale")
	t.put("/stale/other", "other")
	old, other := t.cached("/stale"), t.cached("/stale/other")
	t.tell(store.Stale, "stale")
	t.get("/stale")
	t.eventually("a page that was told to be stale is not renewed", func() bool { return t.get("/stale") > old })
	t.isKept("/stale/other", other)

	// One that is stale can still be told to go.
	old = t.cached("/stale")
	t.tell(store.Stale, "stale")
	t.tell(store.Gone, "stale")
	if got := t.get("/stale"); got <= old {
		t.Errorf("page %d is shown after it was told to be stale, and gone", got)
	}
}

// anyBytes: a tag is any bytes.
func anyBytes(t *test) {
	all := []string{
		"plain", "with space", "with,comma", "", " ", "a\x00b", "\x00", "\x00/blog/1", "line\r\nbreak", "caf\u00e9", "\xff\xfe",
		strings.Repeat("long", 64), strings.Repeat("long", 64) + "er", "~tilde", "*", ".*", "a.c", "(|)", "[a]", `"`, `\`, "'", "%", "+", "/", "a b c", "$1",
	}
	for i, tag := range all {
		t.put(fmt.Sprintf("/bytes/%d", i), tag, "all of them")
	}
	made := make([]int, len(all))
	for i := range all {
		made[i] = t.cached(fmt.Sprintf("/bytes/%d", i))
	}
	for i, tag := range all {
		t.tell(dropped, tag)
		for j := range all {
			path := fmt.Sprintf("/bytes/%d", j)
			got := t.get(path)
			switch {
			case j == i && got == made[j]:
				t.Errorf("the page with tag %q is still shown after it was told", tag)
			case j != i && got != made[j] && !t.Coarse:
				t.Errorf("the page with tag %q has gone with tag %q", all[j], tag)
			}
			made[j] = got
		}
	}
	t.tell(dropped, "all of them")
	for i, tag := range all {
		if got := t.get(fmt.Sprintf("/bytes/%d", i)); got == made[i] {
			t.Errorf("the page with tag %q is still shown after all were told", tag)
		}
	}
}

// manyTags: none of a thousand is lost.
func manyTags(t *test) {
	tags := manyNames(1000)
	var made []int
	for i := 0; i < len(tags); i += 99 {
		path := fmt.Sprintf("/many/%d", i)
		t.put(path, tags[i])
		made = append(made, t.cached(path))
	}
	t.put("/many/other", "other")
	other := t.cached("/many/other")
	t.tell(dropped, tags...)
	for i := range made {
		t.isNew(fmt.Sprintf("/many/%d", i*99), made[i])
	}
	t.isKept("/many/other", other)
}

// variants: all of what is stored under a URL goes, and under all of its queries.
func variants(t *test) {
	t.put("/v", "v")
	how := [][]string{{"Accept-Encoding", "identity"}, {"Accept-Encoding", "gzip"}, {"Accept-Encoding", "br"}}
	for range 2 {
		old := 0
		for _, query := range []string{"", "?a=1", "?b=2&a=1"} {
			for _, header := range how {
				old = max(old, t.cached("/v"+query, header...))
			}
		}
		t.tell(dropped, "v")
		for _, query := range []string{"", "?a=1", "?b=2&a=1"} {
			for _, header := range how {
				t.isNew("/v"+query, old, header...)
			}
		}
	}
}

// again: to tell once more, or what no page has, is no error.
func again(t *test) {
	t.put("/again", "again")
	for range 3 {
		old := t.cached("/again")
		t.tell(dropped, "again")
		t.tell(dropped, "again", "again")
		t.tell(store.Stale, "nobody has this")
		t.isNew("/again", old)
	}
}

// nothing: where there is nothing to tell, nothing happens.
func nothing(t *test) {
	t.put("/", "a")
	old := t.cached("/")
	tags := []string{"a", "b"}
	if err := errors.Join(
		t.Edge.Tell(t.ctx, store.Gone, nil),
		t.Edge.Tell(t.ctx, store.Gone, []string{}),
		t.Edge.Tell(t.ctx, store.None, tags),
	); err != nil {
		t.Error(err)
	}
	t.isSame("/", old)
	t.tell(dropped, tags...)
	if !slices.Equal(tags, []string{"a", "b"}) {
		t.Errorf("the tags are %q now", tags)
	}
}

// urls: who finds pages by URL finds those that a URL stands for.
func urls(t *test) {
	by, ok := t.Edge.(edge.URLs)
	if !ok {
		t.Skip("it finds pages by tags")
	}
	pages := []string{"/", "/a", "/a/", "/a/b", "/a/b/c", "/ab", "/a%20b", "/caf%C3%A9", "/x%2Fy", "/star*", "/a:b"}
	for _, path := range pages {
		t.put(unescape(path), "t")
	}
	host := t.URL
	for _, c := range []struct {
		url   string
		drops []string
	}{
		{"/a", []string{"/a"}},
		{host + "/a", []string{"/a"}},
		{"/", []string{"/"}},
		{"/a/", []string{"/a/"}},
		{"/a?q=1", []string{"/a?q=1"}},
		{"/a?", []string{"/a"}},
		{"/ab", []string{"/ab", "/ab?z=1"}},
		{"/a%20b", []string{"/a%20b"}},
		{"/caf%C3%A9", []string{"/caf%C3%A9", "/caf%c3%a9"}},
		{"/x%2Fy", []string{"/x%2Fy", "/x%2fy"}},
		{"/star%2A", []string{"/star*", "/star%2A", "/star%2a"}},
		{"/a:b", []string{"/a:b", "/a%3Ab"}},
		{"/a/*", []string{"/a/", "/a/b", "/a/b/c"}},
		{host + "/a/*", []string{"/a/b"}},
		{"/*", pages},
	} {
		var made []int
		for _, path := range c.drops {
			made = append(made, t.cached(path))
		}
		if err := by.TellURLs(t.ctx, dropped, []string{c.url}); err != nil {
			t.Fatalf("TellURLs(%q): %v", c.url, err)
		}
		time.Sleep(t.Settle)
		for i, path := range c.drops {
			if got := t.get(path); got <= made[i] {
				t.Errorf("%s is still shown after %s was told", path, c.url)
			}
		}
	}
	ab, caf := t.cached("/ab"), t.cached("/caf%C3%A9")
	old := t.cached("/a")
	if err := errors.Join(by.TellURLs(t.ctx, dropped, []string{"/a", "/nobody"}), by.TellURLs(t.ctx, store.None, []string{"/ab"}), by.TellURLs(t.ctx, dropped, nil)); err != nil {
		t.Error(err)
	}
	t.isNew("/a", old)
	t.isSame("/ab", ab)
	t.isSame("/caf%C3%A9", caf)
	if err := by.TellURLs(t.ctx, store.Stale, []string{"/ab"}); err != nil {
		t.Error(err)
	}
	t.get("/ab")
	t.eventually("a URL that was told to be stale is not renewed", func() bool { return t.get("/ab") > ab })
}

// contexts: Tell returns with its ctx.
func contexts(t *test) {
	t.put("/", "a")
	t.cached("/")
	ctx, cancel := context.WithCancel(t.ctx)
	cancel()
	if err := t.Edge.Tell(ctx, store.Gone, []string{"a"}); !errors.Is(err, context.Canceled) {
		t.Errorf("with a ctx that is over: %v", err)
	}
	t.tell(dropped, "a")
}

// pause: a product that hangs holds Tell up no longer than its ctx; what was not told
// can be told later.
func pause(t *test) {
	if t.Pause == nil {
		t.Skip("it cannot hang")
	}
	t.put("/", "a")
	old := t.cached("/")
	resume := t.Pause()
	ctx, cancel := context.WithTimeout(t.ctx, 100*time.Millisecond)
	defer cancel()
	began := time.Now()
	err := t.Edge.Tell(ctx, store.Gone, []string{"a"})
	if err == nil || time.Since(began) > patience/2 {
		t.Errorf("a product that hangs: %v after %v", err, time.Since(began))
	}
	resume()
	t.eventually("a product that hung cannot be told", func() bool { return t.Edge.Tell(t.ctx, store.Gone, []string{"a"}) == nil })
	time.Sleep(t.Settle)
	t.isNew("/", old)
}

// refused: an error says what is wrong, and no secret.
func refused(t *test) {
	if t.Refused == nil {
		t.Skip("it refuses nothing")
	}
	t.put("/", "a")
	old := t.cached("/")
	err := t.Refused.Tell(t.ctx, store.Gone, []string{"a"})
	switch {
	case err == nil:
		t.Fatal("what must be refused was told")
	case t.Secret != "" && strings.Contains(err.Error(), t.Secret), t.Secret != "" && strings.Contains(fmt.Sprintf("%+v %+v", t.Refused, err), t.Secret):
		t.Errorf("the error has the secret: %v", err)
	case !strings.Contains(err.Error(), t.Names):
		t.Errorf("the error does not name %q: %v", t.Names, err)
	}
	t.Log(err)
	t.isSame("/", old)
}

// concurrent: both methods are for many at a time, and no tag is lost.
func concurrent(t *test) {
	const n = 8
	made := make([]int, n)
	for i := range n {
		path := fmt.Sprintf("/c/%d", i)
		t.put(path, path, "shared")
		made[i] = t.cached(path)
	}
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			path := fmt.Sprintf("/c/%d", i)
			for range 5 {
				if err := t.Edge.Tell(t.ctx, dropped, []string{path, "nobody"}); err != nil {
					t.Errorf("%s: %v", path, err)
					return
				}
				time.Sleep(t.Settle)
				got, err := t.ask(path)
				if err != nil || got <= made[i] {
					t.Errorf("%s is page %d, %v, and %d was told", path, got, err, made[i])
					return
				}
				made[i] = got
			}
		})
	}
	wg.Wait()
}

// unescape returns the path as the origin sees it.
func unescape(path string) string {
	u, err := url.PathUnescape(path)
	if err != nil {
		panic(err)
	}
	return u
}
