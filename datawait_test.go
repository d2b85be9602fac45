package isr_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/store/memory"
)

// Timeout counts from when somebody began to wait, however many fetches run in between.
func TestLoadTimesOutOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &shop{menus: &isr.Data[*menu]{Name: "menu", Timeout: 10 * time.Second}}
		c.fetch = func(ctx context.Context) (*menu, error) {
			isr.Tag(ctx, "rows")
			time.Sleep(9 * time.Second)
			return new(menu), nil
		}
		site := isr.Wrap(c, isr.Options{})
		ctx := site.Context(t.Context())
		go c.load(ctx)
		time.Sleep(time.Second)
		if err := site.PurgeTag(ctx, "rows"); err != nil { // nobody knows yet that the value has it
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		begin := time.Now()
		_, err := c.load(ctx)
		if took := time.Since(begin); err == nil || !strings.Contains(err.Error(), "Timeout") || took > 11*time.Second {
			t.Errorf("%v after %v", err, took)
		}
		time.Sleep(time.Minute)
	})
}

// What is evicted to make room is fetched again, and no page keeps what is older than an
// edit, though the value that told of its tags has gone meanwhile, and the table of tags
// was compacted.
func TestEvictedData(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		version := 1
		values := &isr.Data[string]{Name: "value"}
		load := func(ctx context.Context, key string) string {
			v, err := values.Load(ctx, key, func(ctx context.Context) (string, error) {
				isr.Tag(ctx, "row-"+key)
				return fmt.Sprint(key, version, strings.Repeat("x", 4000)), nil
			})
			if err != nil {
				t.Error(err)
			}
			return v[:2]
		}
		site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, load(r.Context(), "a"))
		}), isr.Options{MaxBytes: 200 << 10})
		body(site, "/page")
		body(site, "/page") // it is kept, as one that was asked for twice
		for n := range 200 {
			load(site.Context(t.Context()), fmt.Sprint(n))
		}
		if held(site, "value", "a") {
			t.Fatal("the value was not evicted")
		}
		if got := body(site, "/page"); got != "a1" {
			t.Errorf("the page has %q", got)
		}
		version = 2
		if err := site.PurgeTag(t.Context(), "row-a"); err != nil {
			t.Fatal(err)
		}
		for n := range 20_000 { // beyond what the table of tags holds without being compacted
			if err := site.PurgeTag(t.Context(), fmt.Sprint("other-", n)); err != nil {
				t.Fatal(err)
			}
		}
		if got := body(site, "/page"); got != "a2" {
			t.Errorf("after the edit the page has %q", got)
		}
	})
}

// held reports whether a value is in memory.
func held(site *isr.Site, name, key string) bool {
	for p := range site.Pages() {
		if p.Scheme == "data" && p.Path == name && p.Query == key {
			return true
		}
	}
	return false
}

// While the Store is away values are made and used; when it is back, what was made
// meanwhile counts as stale, values and pages.
func TestDataWhileTheStoreIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &faultyStore{Store: memory.New()}
		c := &shop{menus: &isr.Data[*menu]{Name: "menu"}}
		site := isr.Wrap(c, isr.Options{Store: st, Version: "1"})
		defer site.Shutdown(context.Background())
		time.Sleep(time.Second)
		st.set(down)
		time.Sleep(time.Minute)
		if a, b := body(site, "/a"), body(site, "/b"); a != "/a 0" || b != "/b 0" || c.fetched != 1 {
			t.Errorf("%q, %q, fetched %d times", a, b, c.fetched)
		}
		c.version = 1 // and another instance hears of the edit, which this one could not
		st.set(nil)
		time.Sleep(time.Minute)
		body(site, "/a") // stale, and renewed behind
		synctest.Wait()
		if a, b := body(site, "/a"), c.fetched; a != "/a 1" || b != 2 {
			t.Errorf("when it is back: %q, fetched %d times", a, b)
		}
	})
}

// A placeholder is shown while the page's data is made, and what is known by prerendering
// alone has data, too.
func TestDataOfRoutesOfTheirOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &shop{menus: &isr.Data[*menu]{Name: "menu"}, takes: time.Second}
		site := isr.Wrap(c, isr.Options{Origin: "https://example.com", Routes: map[string]isr.Route{
			"/slow":  {Placeholder: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "wait") })},
			"/known": {PrerenderedOnly: true},
		}})
		if got := body(site, "/slow"); got != "wait" {
			t.Errorf("at first %q", got)
		}
		time.Sleep(2 * time.Second)
		if got := body(site, "/slow"); got != "/slow 0" {
			t.Errorf("then %q", got)
		}
		if res := get(site, "/known"); res.StatusCode != http.StatusNotFound {
			t.Errorf("what was not prerendered: %d", res.StatusCode)
		}
		if err := site.Revalidate(t.Context(), "/known"); err != nil {
			t.Fatal(err)
		}
		c.version = 1
		if err := site.PurgeTag(t.Context(), "menu"); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{"/slow", "/known"} {
			get(site, path)
			time.Sleep(2 * time.Second)
		}
		if a, b := body(site, "/slow"), body(site, "/known"); a != "/slow 1" || b != "/known 1" || c.fetched != 2 {
			t.Errorf("after the edit %q and %q, fetched %d times", a, b, c.fetched)
		}
	})
}

// The log names a value by its Data, in text that a terminal can show.
func TestWarningsOfData(t *testing.T) {
	var log bytes.Buffer
	values := &isr.Data[string]{Name: "value"}
	site := isr.Wrap(http.NotFoundHandler(), isr.Options{MaxPageBytes: 100, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	values.Load(site.Context(t.Context()), "key", func(context.Context) (string, error) { return strings.Repeat("x", 200), nil })
	if got := log.String(); !strings.Contains(got, "path=value ") || strings.Contains(got, `\x00`) {
		t.Errorf("the log has %s", got)
	}
}
