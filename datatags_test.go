package isr_test

import (
	"context"
	"encoding/json"
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

// A family is a value that refers to itself when it is decoded.
type family struct {
	Name   string
	Parent *family
	Child  *family
	Born   time.Time
}

func (f *family) UnmarshalJSON(b []byte) error {
	var name string
	if err := json.Unmarshal(b, &name); err != nil {
		return err
	}
	if name == "bad" {
		panic("bad name")
	}
	*f = family{Name: name, Child: &family{Parent: f}}
	return nil
}

func (f family) MarshalJSON() ([]byte, error) { return json.Marshal(f.Name) }

// A type that decodes itself may refer to itself, and to what is not its own; where it
// panics, there is no value, and no harm.
func TestDataThatDecodesItself(t *testing.T) {
	values := &isr.Data[family]{Name: "family"}
	site := isr.Wrap(http.NotFoundHandler(), isr.Options{})
	load := func(name string) (family, error) {
		return values.Load(site.Context(t.Context()), name, func(context.Context) (family, error) { return family{Name: name}, nil })
	}
	if f, err := load("Ada"); err != nil || f.Name != "Ada" || f.Child == nil {
		t.Errorf("%+v, %v", f, err)
	}
	if _, err := load("bad"); err == nil || !strings.Contains(err.Error(), "bad name") {
		t.Errorf("%v", err)
	}
	before := site.Stats().Bytes
	times := &isr.Data[[]time.Time]{Name: "times"}
	_, err := times.Load(site.Context(t.Context()), "", func(context.Context) ([]time.Time, error) {
		return make([]time.Time, 1000), nil
	})
	if n := site.Stats().Bytes - before; err != nil || n > 80_000 {
		t.Errorf("1000 times count as %d bytes, %v", n, err)
	}
}

// A record that makes T's decoding panic is a miss.
func TestDataThatPanicsInTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := memory.New()
		start := func() *isr.Site {
			site := isr.Wrap(http.NotFoundHandler(), isr.Options{Store: st, Version: "1"})
			t.Cleanup(func() { site.Shutdown(context.Background()) })
			return site
		}
		site, strs := start(), &isr.Data[string]{Name: "family"}
		if _, err := strs.Load(site.Context(t.Context()), "k", func(context.Context) (string, error) { return "bad", nil }); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		values := &isr.Data[family]{Name: "family"}
		f, err := values.Load(start().Context(t.Context()), "k", func(context.Context) (family, error) { return family{Name: "Ada"}, nil })
		if err != nil || f.Name != "Ada" {
			t.Errorf("%+v, %v", f, err)
		}
	})
}

// What a generation loads while the Site shuts down belongs to its page as ever.
func TestDataWhileShuttingDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &shop{menus: &isr.Data[*menu]{Name: "menu"}}
		site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(time.Second)
			c.ServeHTTP(w, r)
		}), isr.Options{})
		go get(site, "/")
		time.Sleep(time.Second / 2)
		if err := site.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		c.version = 1
		if got := body(site, "/"); got != "/ 0" {
			t.Errorf("got %q", got)
			return
		}
		if err := site.PurgeTag(t.Context(), "menu"); err != nil {
			t.Fatal(err)
		}
		if got := body(site, "/"); got != "/ 1" {
			t.Errorf("when its data was purged: %q", got)
		}
	})
}

// A page that waits for a value does not wait for visitors' slots, no matter who else has asked
// for the value before.
func TestDataBehindAQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		values := &isr.Data[int]{Name: "value"}
		load := func(ctx context.Context) (int, error) {
			return values.Load(ctx, "", func(context.Context) (int, error) { return 1, nil })
		}
		site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/slow" {
				time.Sleep(20 * time.Second)
				return
			}
			n, err := load(r.Context())
			fmt.Fprint(w, n, err)
		}), isr.Options{MaxGenerations: 1, Store: memory.New(), Version: "1", Origin: "https://example.com"})
		defer site.Shutdown(context.Background())
		go get(site, "/slow")
		time.Sleep(time.Second)
		go do(site, "POST", "/")
		time.Sleep(time.Second)
		if err := site.RevalidateTag(t.Context(), "another"); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		if err := site.Revalidate(t.Context(), "/page"); err != nil {
			t.Error(err)
		}
		if took := time.Since(begin); took > time.Second {
			t.Errorf("it took %v", took)
		}
		synctest.Wait()
	})
}
