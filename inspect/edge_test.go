package inspect_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/inspect"
	"github.com/isr-go/isr/store"
)

type edgePurge struct {
	URL, Tag, Error string
	Soft, Owed      bool
	Told, Next      time.Time
}

// A forgetful is an Edge that does not take the tag "lost".
type forgetful struct{}

func (forgetful) Mark(http.Header, []string) bool { return true }

func (forgetful) Tell(_ context.Context, _ store.Effect, tags []string) error {
	if slices.Contains(tags, "lost") {
		return errors.New("https://cdn.example/purge?token=abc was answered with 503")
	}
	return nil
}

// The inspector shows what the Edge was told, when, and what it is owed.
func TestEdge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &app{served: make(map[string]int)}
		a.site = isr.Wrap(http.HandlerFunc(a.serve), isr.Options{Edge: forgetful{}, Routes: map[string]isr.Route{"/reset/{token}": {}}})
		a.site.Purge(t.Context(), "/blog/1")
		a.site.Purge(t.Context(), "/reset/abc", "/news/*")
		a.site.RevalidateTag(t.Context(), "blog")
		a.site.PurgeTag(t.Context(), "lost")
		h := inspect.Handler(a.site, inspect.Options{})

		type row struct{ URL, Tag, Error string }
		var got []row
		rep := asJSON(t, h, "/")
		for _, p := range rep.Edge {
			if p.Owed == p.Told.IsZero() && !p.Next.IsZero() && p.Soft == (p.Tag == "blog") {
				got = append(got, row{p.URL, p.Tag, p.Error})
			}
		}
		want := []row{
			{"", "lost", "https://cdn.example/purge?token=(hidden) was answered with 503"}, {"", "blog", ""}, {"/news/*", "", ""}, {"/reset/(hidden)", "", ""}, {"/blog/1", "", ""},
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
		if rep.Summary["edgeOwed"] != 1 || rep.Summary["edgeErrors"] != 1 {
			t.Errorf("%+v", rep.Summary)
		}
		text := text(get(h, "/").Body.String())
		for _, want := range []string{
			"Owed to the Edge 1 1 errors",
			"Caches in front What the Edge is owed, and what it was told. Path or tag Was told Will be told What lost owed 00:00:00 UTC purge https://cdn.example/purge?token=(hidden) was answered with 503",
			"blog 00:00:00 UTC 00:00:30 UTC soft purge /news/* 00:00:00 UTC 00:00:30 UTC purge",
		} {
			if !strings.Contains(text, want) {
				t.Errorf("the page lacks %q:\n%s", want, text)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		a.site.Shutdown(ctx)
	})
	if text := text(get(inspect.Handler(newApp(isr.Options{}).site, inspect.Options{}), "/").Body.String()); strings.Contains(text, "Caches in front") {
		t.Error("the page shows an Edge, and there is none")
	}
}
