package isr_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/store/memory"
)

// A page changes with its data also where the value itself is not kept, or could not be
// had, and where the handler, asked whether the page has changed, does not look at it.
func TestPagesOfDataThatIsNotKept(t *testing.T) {
	for name, test := range map[string]struct {
		ttl  time.Duration
		opts isr.Options
		etag bool
		size int // of the value
		err  bool
	}{
		"a value of NoStore":                {ttl: isr.NoStore},
		"a value that is too large":         {opts: isr.Options{MaxPageBytes: 1000}, size: 2000},
		"a value that memory cannot hold":   {opts: isr.Options{MaxBytes: 4000}, size: 1700},
		"a value that there is not":         {err: true},
		"a page with an ETag of its own":    {etag: true},
		"a page with an ETag and a Store":   {etag: true, opts: isr.Options{Store: memory.New(), Version: "1"}},
		"a value that is not kept, a Store": {ttl: isr.NoStore, opts: isr.Options{Store: memory.New(), Version: "1"}},
	} {
		for _, tag := range []string{"value", "value:k", "all", "row"} {
			t.Run(name+", "+tag, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					values := &isr.Data[string]{Name: "value", Tags: []string{"all"}, TTL: test.ttl}
					version, missing := 1, test.err
					opts := test.opts
					if opts.Store != nil {
						opts.Store = memory.New()
					}
					site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						if test.etag {
							w.Header().Set("ETag", `"of-the-template"`)
							if r.Header.Get("If-None-Match") != "" {
								w.WriteHeader(http.StatusNotModified)
								return
							}
						}
						_, err := values.Load(r.Context(), "k", func(ctx context.Context) (string, error) {
							isr.Tag(ctx, "row")
							if missing {
								return "", errors.New("no such row")
							}
							return strings.Repeat("x", test.size), nil
						})
						fmt.Fprintln(w, version, err != nil)
					}), opts)
					defer site.Shutdown(context.Background())
					want := fmt.Sprintln(1, missing)
					for range 2 {
						if got := body(site, "/"); got != want {
							t.Fatalf("got %q, want %q", got, want)
						}
						synctest.Wait()
					}
					version, missing = 2, false
					if err := site.RevalidateTag(t.Context(), tag); err != nil {
						t.Fatal(err)
					}
					body(site, "/")
					synctest.Wait()
					if got := body(site, "/"); got != "2 false\n" {
						t.Errorf("when its data has changed: %q", got)
					}
				})
			})
		}
	}
}

// Until of a value that is not kept holds for the page, too.
func TestUntilOfDataThatIsNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		values, calls := &isr.Data[int]{Name: "value", TTL: isr.NoStore}, 0
		site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			n, _ := values.Load(r.Context(), "", func(ctx context.Context) (int, error) {
				isr.Until(ctx, time.Now().Add(time.Minute))
				calls++
				return calls, nil
			})
			fmt.Fprint(w, n)
		}), isr.Options{})
		body(site, "/")
		time.Sleep(2 * time.Minute)
		if got := body(site, "/"); got != "2" && calls < 2 {
			t.Errorf("got %q after its time", got)
		}
	})
}
