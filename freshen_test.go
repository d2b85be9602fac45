package isr_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/store/memory"
)

// Where the handler has set validators, it may renew its page with a 304 (RFC 9111,
// section 4.3.4).
func TestConditionalRegeneration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		etag, extra := `"v1"`, ""
		var seen []string
		c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			seen = append(seen, r.Header.Get("If-None-Match")+r.Header.Get("If-Modified-Since"))
			w.Header().Set("Etag", etag)
			w.Header().Set("X-Run", fmt.Sprint(n))
			if extra != "" {
				w.Header().Set("Cache-Control", extra)
			}
			if r.Header.Get("If-None-Match") == etag {
				w.WriteHeader(304)
				return
			}
			fmt.Fprint(w, strings.Repeat("page of "+etag, 100))
		}}
		site := isr.Wrap(c, isr.Options{Default: isr.Route{TTL: 10 * time.Second}})
		visit := func(wantRun, wantAge, wantEtag string) {
			t.Helper()
			res := get(site, "/", "Accept-Encoding", "gzip")
			synctest.Wait()
			got := [...]string{res.Header.Get("X-Run"), res.Header.Get("Age"), res.Header.Get("Etag")}
			if want := [...]string{wantRun, wantAge, wantEtag}; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
		visit("1", "0", `"v1"`) // it is compressed behind them
		time.Sleep(10 * time.Second)
		visit("1", "10", `"v1-gzip"`)
		visit("2", "0", `"v1-gzip"`) // renewed: the body of the first run, the headers of the second
		if got := body(site, "/"); !strings.HasPrefix(got, `page of "v1"`) {
			t.Errorf("body %q", got)
		}
		// The lifetime in the 304 counts.
		time.Sleep(10 * time.Second)
		extra = "max-age=60"
		visit("2", "10", `"v1-gzip"`)
		time.Sleep(59 * time.Second)
		visit("3", "59", `"v1-gzip"`)
		// A new version comes with its body.
		etag = `"v2"`
		time.Sleep(time.Second)
		visit("3", "60", `"v1-gzip"`)
		visit("4", "0", `"v2-gzip"`)
		// Revalidate asks without conditions.
		if err := site.Revalidate(t.Context(), "/"); err != nil {
			t.Fatal(err)
		}
		// A 304 may make the page private.
		time.Sleep(60 * time.Second)
		extra = "private"
		visit("5", "60", `"v2-gzip"`)
		if got := pages(site)["/"].State; got != isr.Uncacheable {
			t.Errorf("state %v", got)
		}
		if diff := cmp.Diff([]string{"", `"v1"`, `"v1"`, `"v1"`, "", `"v2"`}, seen); diff != "" {
			t.Errorf("validators (-want +got):\n%s", diff)
		}
	})
}

// A validator that isr has added is not the handler's: no condition is sent with it.
func TestUnconditionalRegeneration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			if r.Header.Get("If-None-Match") != "" {
				t.Errorf("If-None-Match: %s", r.Header.Get("If-None-Match"))
			}
			fmt.Fprint(w, "page ", n)
		}}
		site := isr.Wrap(c, isr.Options{Default: isr.Route{TTL: time.Second}})
		get(site, "/")
		time.Sleep(time.Second)
		get(site, "/")
	})
}

// What Until has shortened is whole again in a page that a 304 renews after that time, also
// where the old one comes from the Store: it is fresh, and sent, for as long as the handler
// has said.
func TestFreshenAfterUntil(t *testing.T) {
	for name, header := range map[string][2]string{
		"max-age":  {"Cache-Control", "public, max-age=3600"},
		"s-maxage": {"Cache-Control", "s-maxage=3600"},
		"Expires":  {"Expires", "Sat, 01 Jan 2000 01:00:10 GMT"}, // bubbles begin an hour and ten seconds before that
	} {
		synctest.Test(t, func(t *testing.T) {
			until := time.Now().Add(10 * time.Second)
			h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Etag", `"1"`)
				if r.Header.Get("If-None-Match") != "" {
					w.WriteHeader(304)
					return
				}
				if time.Now().Before(until) {
					isr.Until(r.Context(), until)
				}
				w.Header().Set(header[0], header[1])
				w.Header().Set("CDN-Cache-Control", "max-age=60")
				io.WriteString(w, "page")
			})
			in := fleet(t, memory.New(), isr.Options{SharedMaxAge: -1})
			one, two := in.start(h), in.start(h)
			first := get(one, "/").Header
			synctest.Wait()
			for i, site := range []*isr.Site{two, one} {
				if i == 0 {
					got := get(two, "/").Header
					for _, h := range []http.Header{first, got} {
						if h["Expires"] != nil || h["Cdn-Cache-Control"] != nil || strings.Contains(h.Get("Cache-Control"), "3600") {
							t.Errorf("%s: before Until: %v", name, h)
						}
					}
					time.Sleep(11 * time.Second)
				}
				got := get(site, "/").Header
				synctest.Wait()
				if header[0] == "Cache-Control" && !strings.HasPrefix(got.Get("Cache-Control"), header[1]) || header[0] == "Expires" && got.Get("Expires") != header[1] || got.Get("Cdn-Cache-Control") != "max-age=60" {
					t.Errorf("%s: after it: %v", name, got)
				}
				if ttl := pages(site)["/"].TTL; ttl < 59*time.Minute || ttl > time.Hour {
					t.Errorf("%s: fresh for %v", name, ttl)
				}
			}
		})
	}
}

// A page that is renewed by its Last-Modified takes none of the headers that isr has
// added for the handler's.
func TestFreshenByLastModified(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const modified = "Mon, 02 Jan 2006 15:04:05 GMT"
		var seen []string
		site := isr.Wrap(&countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			seen = append(seen, r.Header.Get("If-None-Match")+r.Header.Get("If-Modified-Since"))
			w.Header().Set("Last-Modified", modified)
			if n > 1 {
				w.WriteHeader(304)
			}
		}}, isr.Options{Default: isr.Route{Tags: []string{"t"}}})
		for range 3 {
			get(site, "/")
			site.RevalidateTag(t.Context(), "t")
			get(site, "/")
			synctest.Wait()
		}
		if diff := cmp.Diff([]string{"", modified, modified, modified}, seen); diff != "" {
			t.Errorf("validators (-want +got):\n%s", diff)
		}
		if got := pages(site)["/"].TTL; got != 0 {
			t.Errorf("TTL %v, want none", got)
		}
	})
}

// The Age of an upstream's 304 counts.
func TestAgeOfNotModified(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		site := isr.Wrap(&countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			w.Header().Set("Etag", `"v1"`)
			w.Header().Set("Cache-Control", "max-age=60")
			if n > 1 {
				w.Header().Set("Age", "50")
				w.WriteHeader(304)
			}
		}}, isr.Options{})
		get(site, "/")
		time.Sleep(time.Minute)
		get(site, "/")
		synctest.Wait()
		if got := get(site, "/").Header; got.Get("Age") != "50" || got.Get("Cache-Status") != "isr; hit; ttl=10" {
			t.Errorf("%v", got)
		}
	})
}

// A 304 for another page than the stored one changes nothing: the handler is asked
// again, without conditions (RFC 9111, section 4.3.4).
func TestNotModifiedOfAnotherPage(t *testing.T) {
	for name, test := range map[string]struct {
		first, renewal string // ETag
		asked          int64  // how often the handler is called
		body, etag     string
	}{
		"the same":       {`"one"`, `"one"`, 2, "page 1", `"one"`},
		"none":           {`"one"`, "", 2, "page 1", `"one"`},
		"malformed":      {`"one"`, "two", 2, "page 1", ""},
		"another":        {`"one"`, `"two"`, 3, "page 3", `"two"`},
		"weak, the same": {`W/"one"`, `W/"one"`, 2, "page 1", `W/"one"`},
		"weak, of a stored strong one (RFC 9110, section 8.8.3.2)": {`"one"`, `W/"one"`, 2, "page 1", `W/"one"`},
		"strong, of a stored weak one":                             {`W/"one"`, `"one"`, 3, "page 3", `"one"`},
		"weak, another":                                            {`W/"one"`, `W/"two"`, 3, "page 3", `W/"two"`},
		"new, where the page had a date alone":                     {"", `"one"`, 3, "page 3", `"one"`},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := new(countingHandler)
				c.serve = func(w http.ResponseWriter, r *http.Request, n int64) {
					etag := test.renewal
					if n == 1 {
						etag = test.first
						w.Header().Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
					}
					if etag != "" {
						w.Header().Set("Etag", etag)
					}
					if r.Header["If-None-Match"] != nil || r.Header["If-Modified-Since"] != nil {
						w.WriteHeader(304)
						return
					}
					io.WriteString(w, "page "+string(rune('0'+n)))
				}
				site := isr.Wrap(c, isr.Options{Default: isr.Route{TTL: time.Second}})
				get(site, "/")
				time.Sleep(2 * time.Second)
				get(site, "/")
				synctest.Wait()
				res := get(site, "/")
				if etag := res.Header.Get("Etag"); read(res) != test.body || test.etag != "" && etag != test.etag || c.calls.Load() != test.asked {
					t.Errorf("ETag %s, asked %d times; %+v", etag, c.calls.Load(), test)
				}
				if got := res.Header.Get("Cache-Status"); got != "isr; hit; ttl=1" {
					t.Errorf("Cache-Status %q", got)
				}
			})
		})
	}
}

// A handler that answers 304 to a request without conditions has failed: the last good
// page stays.
func TestNotModifiedWithoutConditions(t *testing.T) {
	for name, test := range map[string]struct{ first, then string }{
		"another page":  {`"one"`, `"two"`},
		"no conditions": {"", `"one"`},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
					if n == 1 {
						if test.first != "" {
							w.Header().Set("Etag", test.first)
						}
						io.WriteString(w, "page 1")
						return
					}
					w.Header().Set("Etag", test.then)
					w.WriteHeader(304)
				}}
				site := isr.Wrap(c, isr.Options{Default: isr.Route{TTL: time.Second, StaleWhileRevalidate: time.Minute, StaleIfError: time.Minute}})
				etag := get(site, "/").Header.Get("Etag")
				for range 3 {
					time.Sleep(2 * time.Second)
					res := get(site, "/")
					synctest.Wait()
					if got := res.Header.Get("Etag"); read(res) != "page 1" || got != etag {
						t.Errorf("%s, ETag %s", res.Status, got)
					}
				}
				if p := pages(site)["/"]; p.Err == nil || p.Err.Error() != "the handler answered 304 to a request without conditions" {
					t.Errorf("error %v", p.Err)
				}
				time.Sleep(time.Hour)
				if res := get(site, "/"); res.StatusCode != 502 {
					t.Errorf("%s when it may no longer be shown", res.Status)
				}
			})
		})
	}
}
