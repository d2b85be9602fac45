package nginx_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/isr-go/isr/edge"
	"github.com/isr-go/isr/edge/nginx"
	"github.com/isr-go/isr/store"
)

// A fake notes what it is told.
func fake(t *testing.T, status int) (url string, told func() []string) {
	var mu sync.Mutex
	var all []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, r.RequestURI)
		w.Header().Set("Isr-Told", "1")
		w.Header().Set("Isr-Generation", "1")
		w.WriteHeader(status)
	}))
	t.Cleanup(s.Close)
	return s.URL, func() []string {
		mu.Lock()
		defer mu.Unlock()
		defer func() { all = nil }()
		slices.Sort(all)
		return slices.Compact(all)
	}
}

// What a URL names is told as a path; what nginx would take for another path, and what
// is no path, as everything.
func TestWhatIsTold(t *testing.T) {
	const all = "/told/all"
	at, told := fake(t, http.StatusNoContent)
	e := nginx.New(nginx.Options{Servers: []string{at}})
	for url, want := range map[string]string{
		"/":                           "/told/path/",
		"https://example.com":         "/told/path/",
		"https://example.com/a/b?c=d": "/told/path/a/b",
		"/a":                          "/told/path/a",
		"/a%20b":                      "/told/path/a%20b",
		"/caf%C3%A9":                  "/told/path/caf%C3%A9",
		"/a%3Ab":                      "/told/path/a:b",
		"/a?b":                        "/told/path/a",
		"/a%3Fb":                      "/told/path/a%3Fb",
		"/%2A":                        "/told/path/%2A",
		"/*":                          all,
		"/blog/*":                     all,
		"https://example.com/*":       all,
		"/a%2Fb":                      all,
		"/a/%2E%2E/b":                 all,
		"/a%00":                       all,
		"/%zz":                        all,
		"":                            all,
		"tag":                         all,
	} {
		if err := e.(edge.URLs).TellURLs(t.Context(), store.Stale, []string{url}); err != nil {
			t.Errorf("%s: %v", url, err)
		}
		if got := told(); !slices.Equal(got, []string{want}) && (want != "/told/path/%2A" || !slices.Equal(got, []string{"/told/path/*"})) {
			t.Errorf("%s is told as %q, want %q", url, got, want)
		}
	}
	if err := e.(edge.URLs).TellURLs(t.Context(), store.Gone, []string{"/a", "/b", "/c/*"}); err != nil {
		t.Error(err)
	}
	if got := told(); !slices.Equal(got, []string{all}) {
		t.Errorf("with a prefix among them, %q is told", got)
	}
	if err := e.Tell(t.Context(), store.Stale, []string{"a", "b"}); err != nil {
		t.Error(err)
	}
	if got := told(); !slices.Equal(got, []string{all}) {
		t.Errorf("of tags, %q is told", got)
	}
}

// An error names what was asked for, and not what was told instead.
func TestUntold(t *testing.T) {
	at, _ := fake(t, http.StatusForbidden)
	e := nginx.New(nginx.Options{Servers: []string{at}})
	for _, names := range [][]string{{"/a", "/b?c", "/a"}, {"/a", "/c/*"}} {
		err := e.(edge.URLs).TellURLs(t.Context(), store.Gone, names)
		var untold *edge.UntoldError
		if !errors.As(err, &untold) || !slices.Equal(untold.Tags, names[:2]) || !strings.Contains(err.Error(), "403 Forbidden") {
			t.Errorf("%q: %v", names, err)
		}
	}
	var untold *edge.UntoldError
	if err := e.Tell(t.Context(), store.Gone, []string{"a", "b"}); !errors.As(err, &untold) || !slices.Equal(untold.Tags, []string{"a", "b"}) {
		t.Errorf("%v", err)
	}
}

// Success is what nginx has kept, and nothing else.
func TestSuccess(t *testing.T) {
	for _, c := range []struct {
		name     string
		answer   func(n int, h http.Header)
		requests int
		want     string // in the error
	}{
		{"another configuration", func(int, http.Header) {}, 1, "not by isr.conf"},
		{"it draws, and keeps nothing", func(n int, h http.Header) {
			h.Set("Isr-Told", strconv.Itoa(n))
			h.Set("Isr-Generation", "0")
		}, 5, "numbers that nginx does not keep"},
		{"somebody else draws, too", func(n int, h http.Header) {
			h.Set("Isr-Told", "1")
			h.Set("Isr-Generation", strconv.Itoa(min(n, 3)/3))
		}, 3, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := 0
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				n++
				c.answer(n, w.Header())
			}))
			defer s.Close()
			err := nginx.New(nginx.Options{Servers: []string{s.URL}}).Tell(t.Context(), store.Gone, []string{"a"})
			if (err != nil) != (c.want != "") || err != nil && !strings.Contains(err.Error(), c.want) || n != c.requests {
				t.Errorf("after %d requests: %v", n, err)
			}
		})
	}
}

// nginx ignores Age, so what goes out is the moment.
func TestMark(t *testing.T) {
	e := nginx.New(nginx.Options{Servers: []string{"http://127.0.0.1:8081"}})
	for _, c := range []struct {
		control, age string
		left         time.Duration // negative: it is not kept
	}{
		{"public, max-age=0, s-maxage=60", "", time.Minute},
		{"max-age=60", "10", 50 * time.Second},
		{"max-age=60", "61", -1},
		{"max-age=0", "", -1},
	} {
		h := http.Header{"Cache-Control": {c.control}}
		if c.age != "" {
			h.Set("Age", c.age)
		}
		before := time.Now()
		if !e.Mark(h, []string{"a"}) {
			t.Errorf("%+v does not fit", c)
		}
		got := h.Get("X-Accel-Expires")
		if c.left < 0 {
			if got != "0" {
				t.Errorf("%+v: %q", c, got)
			}
			continue
		}
		var ok bool
		for at := before; !at.After(time.Now().Add(time.Second)); at = at.Add(time.Second) {
			ok = ok || got == "@"+unix(at.Add(c.left))
		}
		if !ok {
			t.Errorf("%+v: %q at %d", c, got, before.Unix())
		}
	}
}

func TestNewPanics(t *testing.T) {
	for _, list := range [][]string{nil, {""}, {"127.0.0.1:8081"}, {"http://"}} {
		func() {
			defer func() {
				if msg, _ := recover().(string); !strings.HasPrefix(msg, "nginx: New: ") {
					t.Errorf("New(%q) panics with %q", list, msg)
				}
			}()
			nginx.New(nginx.Options{Servers: list})
		}()
	}
}

func unix(t time.Time) string { return strconv.FormatInt(t.Unix(), 10) }
