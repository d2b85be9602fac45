package isr_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isr-go/isr"
)

// An upstream's Age counts where the lifetime is the upstream's.
func TestAgeOfUpstream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			w.Header().Set("Age", "40")
			w.Header().Set("Cache-Status", "upstream; hit")
			if r.URL.Path == "/theirs" {
				w.Header().Set("Cache-Control", "max-age=60")
			}
			if r.URL.Path == "/large" {
				w.Header().Set("Cache-Control", "max-age=60")
				w.Write(make([]byte, 2000))
			}
		}}
		site := isr.Wrap(c, isr.Options{MaxPageBytes: 1000, Default: isr.Route{TTL: time.Minute}})
		for _, status := range []string{"fwd=uri-miss; detail=too-large", "fwd=bypass; detail=uncacheable"} { // streamed, then passed
			h := get(site, "/large").Header
			if got := [2]string{h.Get("Age"), strings.Join(h["Cache-Status"], ", ")}; got != [2]string{"40", "upstream; hit, isr; " + status} {
				t.Errorf("/large: %q", got)
			}
		}
		get(site, "/theirs")
		get(site, "/ours")
		time.Sleep(5 * time.Second)
		for target, want := range map[string][2]string{
			"/theirs": {"45", "upstream; hit, isr; hit; ttl=15"},
			"/ours":   {"5", "upstream; hit, isr; hit; ttl=55"},
		} {
			h := get(site, target).Header
			if got := [2]string{h.Get("Age"), h.Get("Cache-Status")}; got != want {
				t.Errorf("%s: %q, want %q", target, got, want)
			}
		}
	})
}

// Age says how much of the lifetime in Cache-Control is used up: a cache that honours
// it holds the page as long as it is fresh here and no longer, and one that ignores it
// not for longer than SharedMaxAge.
func TestAgeOfThePromise(t *testing.T) {
	type at struct {
		after time.Duration // since the page was generated
		age   string
	}
	for name, test := range map[string]struct {
		route   isr.Route
		shared  time.Duration
		control string // the handler's
		at      []at
	}{
		"a TTL below SharedMaxAge":     {isr.Route{TTL: 10 * time.Second}, 0, "", []at{{0, "0"}, {3 * time.Second, "3"}, {9999 * time.Millisecond, "9"}, {13 * time.Second, "13"}}},
		"a TTL above SharedMaxAge":     {isr.Route{TTL: time.Hour}, 0, "", []at{{0, "0"}, {30 * time.Minute, "0"}, {59 * time.Minute, "0"}, {59*time.Minute + 45*time.Second, "45"}, {time.Hour + 5*time.Second, "65"}}},
		"kept for ever":                {isr.Route{}, 0, "", []at{{0, "0"}, {10000 * time.Hour, "0"}}},
		"no s-maxage":                  {isr.Route{TTL: 10 * time.Second}, -1, "", []at{{9 * time.Second, "0"}, {13 * time.Second, "3"}}},
		"the route's, for long":        {isr.Route{CacheControl: "public, max-age=31536000, immutable"}, 0, "", []at{{time.Hour, "0"}}},
		"the route's, shorter":         {isr.Route{TTL: time.Minute, CacheControl: "public, max-age=5"}, 0, "", []at{{40 * time.Second, "0"}, {58 * time.Second, "3"}}},
		"the handler's":                {isr.Route{}, 0, "max-age=600", []at{{100 * time.Second, "100"}, {601 * time.Second, "601"}}},
		"the handler's s-maxage":       {isr.Route{}, 0, "s-maxage=600, max-age=5", []at{{100 * time.Second, "100"}}},
		"the handler promises nothing": {isr.Route{TTL: time.Minute}, 0, "public", []at{{40 * time.Second, "40"}}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, at := range test.at {
				synctest.Test(t, func(t *testing.T) {
					site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						if test.control != "" {
							w.Header().Set("Cache-Control", test.control)
						}
					}), isr.Options{Default: test.route, SharedMaxAge: test.shared})
					get(site, "/")
					time.Sleep(at.after)
					if got := get(site, "/").Header.Get("Age"); got != at.age {
						t.Errorf("Age %s after %v, want %s", got, at.after, at.age)
					}
					synctest.Wait()
				})
			}
		})
	}
}

// The dates and the Age of an upstream count as RFC 9110 and RFC 9111 say, read
// strictly.
func TestLifetimeFromUpstream(t *testing.T) {
	const in60 = "Sat, 01 Jan 2000 00:01:00 GMT" // bubbles begin at midnight of that day
	for _, test := range []struct {
		expires, age []string
		ttl          time.Duration // left of it
	}{
		{[]string{in60}, nil, 60},
		{[]string{"sat, 01 jan 2000 00:01:00 gmt"}, nil, 60}, // RFC 9111, section 4.2
		{[]string{"Saturday, 01-Jan-00 00:01:00 GMT"}, nil, 60},
		{[]string{"Sat Jan  1 00:01:00 2000"}, nil, 60},
		{[]string{"Sat Jan 01 00:01:00 2000"}, nil, 60}, // 2DIGIT, too
		{[]string{" " + in60 + "\t"}, nil, 60},          // RFC 9110, section 5.5
		{[]string{"Saturday, 01-Jan-00 00:01:00 EST"}, nil, -1},
		{[]string{"Saturday, 01-Jan-00 00:01:00 UTC"}, nil, -1},
		{[]string{"Sat, 01 Jan 2000 00:01:00 +0000"}, nil, -1},
		{[]string{"Sat, 01 Jan 2000 00:01:00.5 GMT"}, nil, -1},
		{[]string{"Sat, 01 Jan 2000 00:01:00,5 GMT"}, nil, -1},
		{[]string{"Sat, 01 Jan 2000 0:01:00 GMT"}, nil, -1},
		{[]string{"Sat, 01 Jan 2000 00:1:00 GMT"}, nil, -1},
		{[]string{"Sat, 1 Jan 2000 00:01:00 GMT"}, nil, -1},
		{[]string{"Sat,  01 Jan 2000 00:01:00 GMT"}, nil, -1},
		{[]string{"Sat, 01 Jan 2000  00:01:00 GMT"}, nil, -1},
		{[]string{"Sun, 01 Jan 2000 00:01:00 GMT"}, nil, -1}, // it is a Saturday
		{[]string{"Sat, 01 Jan 00 00:01:00 GMT"}, nil, -1},
		{[]string{"Saturday, 1-Jan-00 00:01:00 GMT"}, nil, -1},
		{[]string{"Sat, 01-Jan-00 00:01:00 GMT"}, nil, -1},
		{[]string{"Sat Jan 1 00:01:00 2000"}, nil, -1},
		{[]string{"Sat Jan  1 00:01:00 2000 GMT"}, nil, -1},
		{[]string{"0"}, nil, -1},
		{[]string{"Sat, 01 Jan 2000 23:59:60 GMT"}, nil, 24 * 3600}, // a leap second
		{[]string{"Sat, 01 Jan 2000 00:00:60 GMT"}, nil, -1},
		// Two digits are a year at most 50 years ahead (RFC 9110, section 5.6.7).
		{[]string{"Friday, 31-Dec-49 00:00:00 GMT"}, nil, 18262 * 24 * 3600},
		{[]string{"Saturday, 01-Jan-50 00:00:00 GMT"}, nil, 18263 * 24 * 3600},
		{[]string{"Saturday, 01-Jan-50 00:00:01 GMT"}, nil, -1},
		{[]string{in60}, []string{"40"}, 20},
		{[]string{in60}, []string{"40, 0"}, 20},
		{[]string{in60}, []string{"40", "0"}, 20},
		{[]string{in60}, []string{"0, 40"}, 60},
		{[]string{in60}, []string{"7200, 0"}, -1},
		{[]string{in60}, []string{"-40"}, 60},
		{[]string{in60}, []string{"soon"}, 60},
	} {
		t.Run(fmt.Sprint(test.expires, test.age), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					w.Header()["Expires"], w.Header()["Age"] = test.expires, test.age
				}), isr.Options{})
				get(site, "/")
				if test.ttl < 0 {
					if got := pages(site)["/"].State; got == isr.Fresh {
						t.Errorf("%v", got)
					}
					return
				}
				want := fmt.Sprintf("isr; hit; ttl=%d", test.ttl)
				if got := get(site, "/").Header.Get("Cache-Status"); got != want {
					t.Errorf("%q, want %q", got, want)
				}
			})
		})
	}
}
