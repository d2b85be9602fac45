package isr_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isr-go/isr"
)

// A handler that cannot be changed may vary on what the page does not depend on, set a
// cookie that means nothing, and ask for a longer life than the site wants.
func TestForeignHandler(t *testing.T) {
	for name, test := range map[string]struct {
		route  isr.Route
		header http.Header
		stored bool
		vary   string
		ttl    time.Duration
		sent   string // Cache-Control
	}{
		"a Vary that does not count":      {isr.Route{IgnoreVary: []string{"cookie", "X-Other"}}, http.Header{"Vary": {"Cookie, Accept-Encoding"}}, true, "Accept-Encoding", 0, "public, max-age=0, s-maxage=60"},
		"a Vary that does":                {isr.Route{IgnoreVary: []string{"Cookie"}}, http.Header{"Vary": {"Cookie, Accept"}}, false, "Cookie, Accept", 0, ""},
		"a Vary on everything":            {isr.Route{IgnoreVary: []string{"Cookie"}}, http.Header{"Vary": {"*"}}, false, "*", 0, ""},
		"a lifetime that is too long":     {isr.Route{MaxTTL: time.Minute}, http.Header{"Cache-Control": {"public, max-age=3600"}}, true, "", time.Minute, "public, max-age=60"},
		"one for shared caches":           {isr.Route{MaxTTL: time.Minute}, http.Header{"Cache-Control": {"max-age=5, s-maxage=3600"}}, true, "", time.Minute, "max-age=5, s-maxage=60"},
		"one that is not":                 {isr.Route{MaxTTL: time.Minute}, http.Header{"Cache-Control": {"max-age=30"}}, true, "", 30 * time.Second, "max-age=30"},
		"none, so that the route's holds": {isr.Route{TTL: time.Hour, MaxTTL: time.Minute}, nil, true, "", time.Hour, "public, max-age=0, s-maxage=60"},
		"a cookie that means nothing": {isr.Route{Rewrite: func(status int, h http.Header) {
			if status == 200 && h.Get("Set-Cookie") == "seen=1" {
				h.Del("Set-Cookie")
				h["x-lower"] = []string{"1"}
			}
		}}, http.Header{"Set-Cookie": {"seen=1"}}, true, "", 0, "public, max-age=0, s-maxage=60"},
		"a cookie that means something": {isr.Route{Rewrite: func(int, http.Header) {}}, http.Header{"Set-Cookie": {"session=1"}}, false, "", 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				for name, values := range test.header {
					w.Header()[name] = values
				}
				io.WriteString(w, "page")
			}), isr.Options{Default: test.route})
			h := get(site, "/").Header
			p := pages(site)["/"]
			if stored := p.NotStored == ""; stored != test.stored || p.TTL != test.ttl && stored {
				t.Errorf("stored: %v (%s), TTL %v", stored, p.NotStored, p.TTL)
			}
			if got := h.Get("Vary"); got != test.vary {
				t.Errorf("Vary %q, want %q", got, test.vary)
			}
			if got := h.Get("Cache-Control"); got != test.sent && test.stored {
				t.Errorf("Cache-Control %q, want %q", got, test.sent)
			}
		})
	}
}

// NotFound answers for what was never prerendered, and nobody keeps what it says.
func TestNotFound(t *testing.T) {
	site := isr.Wrap(http.NotFoundHandler(), isr.Options{Default: isr.Route{
		PrerenderedOnly: true,
		NotFound: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "max-age=3600")
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, "no ", r.URL.Path, r.Header.Get("Cookie"))
		}),
	}})
	res := get(site, "/a", "Cookie", "?b=c")
	if got := read(res); res.StatusCode != 404 || got != "no /a?b=c" || res.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("%d %q %v", res.StatusCode, got, res.Header)
	}
}

// What a program's own context holds, pages and fetches see; when it ends they do.
func TestBaseContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		closed := errors.New("the program ends")
		base, cancel := context.WithCancelCause(context.WithValue(t.Context(), name("database"), "db"))
		values := &isr.Data[string]{Name: "value"}
		site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			v, err := values.Load(r.Context(), "key", func(ctx context.Context) (string, error) {
				return fmt.Sprint(ctx.Value(name("database"))), nil
			})
			fmt.Fprint(w, r.Context().Value(name("database")), " ", v, err)
			if r.URL.Path == "/hangs" {
				<-r.Context().Done()
				isr.Fail(r.Context(), r.Context().Err())
			}
		}), isr.Options{BaseContext: func() context.Context { return base }})
		if got := body(site, "/"); got != "db db<nil>" {
			t.Errorf("got %q", got)
		}
		time.AfterFunc(time.Second, func() { cancel(closed) })
		begin := time.Now()
		if res := get(site, "/hangs"); res.StatusCode != 500 || time.Since(begin) != time.Second {
			t.Errorf("%d after %v", res.StatusCode, time.Since(begin))
		}
	})
}

// What no request could put right panics.
func TestForeignPanics(t *testing.T) {
	for _, route := range []isr.Route{{MaxTTL: -1}, {IgnoreVary: []string{"*"}}, {IgnoreVary: []string{"a b"}}} {
		if recovered(func() { isr.Wrap(http.NotFoundHandler(), isr.Options{Default: route}) }) == nil {
			t.Errorf("%+v is taken", route)
		}
	}
}
