package edgetest_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/isr-go/isr/edge"
	"github.com/isr-go/isr/edge/edgetest"
	"github.com/isr-go/isr/edge/internal/edgekit"
	"github.com/isr-go/isr/edge/internal/fakecdn"
	"github.com/isr-go/isr/store"
)

const (
	tagField = "Test-Tags"
	control  = "Test-Cdn-Cache-Control"
	secret   = "s3cret"
)

// An adapter is for a fakecdn.CDN, whole but for the fault that it is given.
type adapter struct {
	cdn  *fakecdn.CDN
	mark func(h http.Header, tags []string) bool
	tell func(ctx context.Context, effect store.Effect, tags []string) error
}

func (a *adapter) Mark(h http.Header, tags []string) bool { return a.mark(h, tags) }

func (a *adapter) Tell(ctx context.Context, effect store.Effect, tags []string) error {
	return a.tell(ctx, effect, tags)
}

func (a *adapter) markWell(h http.Header, tags []string) bool {
	if !edge.WriteTokens(h, tagField, ",", 8000, tags) {
		return false
	}
	edgekit.SetMaxAge(h, control)
	return true
}

func (a *adapter) tellWell(ctx context.Context, effect store.Effect, tags []string) error {
	if err := ctx.Err(); err != nil || effect <= store.None {
		return err
	}
	tokens := make([]string, len(tags))
	for i, tag := range tags {
		tokens[i] = edge.Token(tag)
	}
	a.cdn.Purge(effect == store.Stale, tokens)
	return nil
}

// byURL is an adapter that is told URLs, and does not listen.
type byURL struct{ *adapter }

func (byURL) TellURLs(context.Context, store.Effect, []string) error { return nil }

// config returns a config with a broken adapter.
func config(breaks func(a *adapter, c *edgetest.Config)) func(t *testing.T, origin http.Handler) edgetest.Config {
	return func(t *testing.T, origin http.Handler) edgetest.Config {
		cdn := &fakecdn.CDN{Origin: origin, Tags: tagField, Control: control, Separators: ",", MaxTags: 8000}
		front := httptest.NewServer(cdn)
		t.Cleanup(front.Close)
		a := &adapter{cdn: cdn}
		a.mark, a.tell = a.markWell, a.tellWell
		refuses := &adapter{mark: a.markWell, tell: func(context.Context, store.Effect, []string) error {
			return errors.New("product: zone 12: 403 Forbidden")
		}}
		c := edgetest.Config{Edge: a, URL: front.URL, Refused: refuses, Secret: secret, Names: "zone 12"}
		breaks(a, &c)
		return c
	}
}

// An adapter without a fault passes.
func TestSuitePasses(t *testing.T) {
	edgetest.Run(t, config(func(*adapter, *edgetest.Config) {}))
}

// broken are adapters as one might write them, and those of the tests that have to find
// out.
var broken = []struct {
	name   string
	caught []string
	breaks func(a *adapter, c *edgetest.Config)
}{
	{"tags as they are", []string{"AnyBytes"}, func(a *adapter, _ *edgetest.Config) {
		a.mark = func(h http.Header, tags []string) bool {
			h.Set(tagField, strings.Join(tags, ","))
			edgekit.SetMaxAge(h, control)
			return true
		}
		a.tell = func(ctx context.Context, effect store.Effect, tags []string) error {
			if effect > store.None && ctx.Err() == nil {
				a.cdn.Purge(effect == store.Stale, tags)
			}
			return ctx.Err()
		}
	}},
	{"everything fits", []string{"Limit"}, func(a *adapter, _ *edgetest.Config) {
		a.mark = func(h http.Header, tags []string) bool {
			edge.WriteTokens(h, tagField, ",", 1<<30, tags)
			edgekit.SetMaxAge(h, control)
			return true
		}
	}},
	{"what does not fit is kept", []string{"Limit"}, func(a *adapter, _ *edgetest.Config) {
		a.mark = func(h http.Header, tags []string) bool {
			edgekit.SetMaxAge(h, control)
			return a.markWell(h, tags)
		}
	}},
	{"no lifetime", []string{"Kept"}, func(a *adapter, _ *edgetest.Config) {
		a.mark = func(h http.Header, tags []string) bool { return edge.WriteTokens(h, tagField, ",", 8000, tags) }
	}},
	{"a lifetime for all", []string{"Unmarked", "Mark"}, func(a *adapter, _ *edgetest.Config) {
		a.mark = func(h http.Header, tags []string) bool {
			h.Set(control, "max-age=86400")
			return a.markWell(h, tags)
		}
	}},
	{"the header of others is changed", []string{"Mark"}, func(a *adapter, _ *edgetest.Config) {
		a.mark = func(h http.Header, tags []string) bool {
			fits := a.markWell(h, tags)
			h.Set("Cache-Control", "max-age=0")
			return fits
		}
	}},
	{"the tags are changed", []string{"Mark"}, func(a *adapter, _ *edgetest.Config) {
		a.mark = func(h http.Header, tags []string) bool {
			slices.Sort(tags)
			return a.markWell(h, tags)
		}
	}},
	{"stale is nothing", []string{"Effects"}, told(func(a *adapter, ctx context.Context, effect store.Effect, tags []string) error {
		if effect == store.Stale {
			return nil
		}
		return a.tellWell(ctx, effect, tags)
	})},
	{"unknown is nothing", []string{"Effects"}, told(func(a *adapter, ctx context.Context, effect store.Effect, tags []string) error {
		if effect > store.Gone {
			return nil
		}
		return a.tellWell(ctx, effect, tags)
	})},
	{"none is something", []string{"Nothing"}, told(func(a *adapter, ctx context.Context, effect store.Effect, tags []string) error {
		return a.tellWell(ctx, max(effect, store.Gone), tags)
	})},
	{"too late", []string{"Effects", "Again"}, told(func(a *adapter, ctx context.Context, effect store.Effect, tags []string) error {
		time.AfterFunc(time.Second, func() { a.tellWell(context.Background(), effect, tags) })
		return ctx.Err()
	})},
	{"the first tags alone", []string{"ManyTags"}, told(func(a *adapter, ctx context.Context, effect store.Effect, tags []string) error {
		return a.tellWell(ctx, effect, tags[:min(len(tags), 100)])
	})},
	{"an error for what nobody has", []string{"Again"}, told(func(a *adapter, ctx context.Context, effect store.Effect, tags []string) error {
		if slices.Contains(tags, "nobody has this") {
			return errors.New("404 Not Found")
		}
		return a.tellWell(ctx, effect, tags)
	})},
	{"one at a time, or not at all", []string{"Concurrent"}, func(a *adapter, c *edgetest.Config) {
		var busy atomic.Bool
		a.tell = func(ctx context.Context, effect store.Effect, tags []string) error {
			if !busy.CompareAndSwap(false, true) {
				return nil
			}
			defer busy.Store(false)
			time.Sleep(10 * time.Millisecond)
			return a.tellWell(ctx, effect, tags)
		}
	}},
	{"ctx is not looked at", []string{"Context"}, told(func(a *adapter, _ context.Context, effect store.Effect, tags []string) error {
		return a.tellWell(context.Background(), effect, tags)
	})},
	{"the secret is told", []string{"Refused"}, func(_ *adapter, c *edgetest.Config) {
		c.Refused.(*adapter).tell = func(context.Context, store.Effect, []string) error {
			return errors.New("zone 12: token " + secret + " is wrong")
		}
	}},
	{"no reason", []string{"Refused"}, func(_ *adapter, c *edgetest.Config) {
		c.Refused.(*adapter).tell = func(context.Context, store.Effect, []string) error { return errors.New("403") }
	}},
	{"a wrong secret is as good", []string{"Refused"}, func(a *adapter, c *edgetest.Config) { c.Refused = a }},
	{"URLs are ignored", []string{"URLs"}, func(a *adapter, c *edgetest.Config) { c.Edge = byURL{a} }},
}

// told breaks Tell.
func told(tell func(a *adapter, ctx context.Context, effect store.Effect, tags []string) error) func(*adapter, *edgetest.Config) {
	return func(a *adapter, _ *edgetest.Config) {
		a.tell = func(ctx context.Context, effect store.Effect, tags []string) error { return tell(a, ctx, effect, tags) }
	}
}

// child is the variable that makes TestSuiteFindsEachFault the one that fails.
const child = "EDGETEST_BROKEN"

var failed = regexp.MustCompile(`(?m)^ *--- FAIL: TestSuiteFindsEachFault/edge/(\w+)`)

// The suite can fail: it finds the fault of each broken adapter. As a test that fails
// would fail this one, that is in another process.
func TestSuiteFindsEachFault(t *testing.T) {
	if name := os.Getenv(child); name != "" {
		for _, b := range broken {
			if b.name == name {
				t.Run("edge", func(t *testing.T) { edgetest.Run(t, config(b.breaks)) })
			}
		}
		return
	}
	for _, b := range broken {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			run := "^TestSuiteFindsEachFault$/^edge$/^(" + strings.Join(b.caught, "|") + ")$"
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run="+run, "-test.timeout=1m")
			cmd.Env = append(os.Environ(), child+"="+b.name)
			out, err := cmd.CombinedOutput()
			if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) {
				t.Fatalf("nothing was found: %v", err)
			}
			var by []string
			for _, match := range failed.FindAllSubmatch(out, -1) {
				by = append(by, string(match[1]))
			}
			for _, want := range b.caught {
				if !slices.Contains(by, want) {
					t.Errorf("%s did not find it:\n%s", want, out)
				}
			}
		})
	}
}
