package isr_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/isr-go/isr"
)

// In Develop the Logger warns, once, where a visitor's own request would have got another
// page: of the header or the cookie that the route does not declare.
func TestDevelopWarnsOfWhatIsNotDeclared(t *testing.T) {
	user := name("user")
	for what, test := range map[string]struct {
		route   isr.Route
		page    func(r *http.Request) string
		header  []string
		context context.Context
		want    string // in the warning; empty: none
	}{
		"header":          {isr.Route{}, func(r *http.Request) string { return r.Header.Get("Accept-Language") }, []string{"Accept-Language", "de"}, nil, "differs by Accept-Language"},
		"of several":      {isr.Route{}, func(r *http.Request) string { return r.Header.Get("Hx-Request") }, append(browser, "Hx-Request", "true"), nil, "differs by Hx-Request"},
		"declared":        {isr.Route{Vary: []string{"Accept-Language"}}, func(r *http.Request) string { return r.Header.Get("Accept-Language") }, []string{"Accept-Language", "de"}, nil, ""},
		"cookie":          {isr.Route{VaryCookies: []string{"theme"}}, func(r *http.Request) string { return fmt.Sprint(r.CookiesNamed("session")) }, []string{"Cookie", "theme=dark; session=1"}, nil, "differs by the cookie session"},
		"declared cookie": {isr.Route{VaryCookies: []string{"theme"}}, func(r *http.Request) string { return fmt.Sprint(r.CookiesNamed("theme")) }, []string{"Cookie", "theme=dark; session=1"}, nil, ""},
		"context":         {isr.Route{}, func(r *http.Request) string { return fmt.Sprint(r.Context().Value(user)) }, []string{"Cookie", "session=1"}, context.WithValue(context.Background(), user, "ann"), "no header"},
		"nothing":         {isr.Route{}, func(r *http.Request) string { return r.URL.Path }, browser, nil, ""},
		"nothing sent":    {isr.Route{}, func(r *http.Request) string { return r.RemoteAddr }, nil, nil, ""},
		"conditions":      {isr.Route{}, func(r *http.Request) string { return r.Header.Get("If-None-Match") }, []string{"If-None-Match", `"a"`, "Accept-Encoding", "gzip"}, nil, ""},
		"segment":         {isr.Route{Segment: role}, func(r *http.Request) string { return r.Header.Get("Isr-Segment") }, []string{"Cookie", "role=admin"}, nil, ""},
		"panic":           {isr.Route{}, func(r *http.Request) string { return r.Header["Cookie"][0][:len(r.Header["Cookie"][0])-1000] }, []string{"X-A", "b"}, nil, ""},
	} {
		t.Run(what, func(t *testing.T) {
			var j journal
			c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) { fmt.Fprint(w, "page ", test.page(r)) }}
			site := isr.Wrap(c, isr.Options{Mode: isr.Develop, Default: test.route, Logger: j.logger(slog.LevelWarn)})
			var calls int64
			for i := range 3 {
				func() {
					defer func() { recover() }()
					r := target("GET", "/a?q=1", test.header...)
					if test.context != nil {
						r = r.WithContext(test.context)
					}
					newSink().serve(site, r)
				}()
				if i == 0 {
					calls = c.calls.Load()
				}
			}
			if n := c.calls.Load() - calls; n != 2 && what != "panic" {
				t.Errorf("%d calls for two more visits: it was compared again", n)
			}
			_, log := j.taken()
			if n := strings.Count(log, "would get another page"); test.want == "" && n != 0 || test.want != "" && (n != 1 || !strings.Contains(log, test.want)) {
				t.Errorf("logged %q, want %q once", log, test.want)
			}
		})
	}
}

// What differs at each run is no finding, and without a Logger nothing is compared.
func TestDevelopComparesNothing(t *testing.T) {
	for _, logs := range []bool{true, false} {
		var j journal
		c := &countingHandler{}
		opts := isr.Options{Mode: isr.Develop}
		if logs {
			opts.Logger = j.logger(slog.LevelWarn)
		}
		site := isr.Wrap(c, opts)
		if got := body(site, "/", "Accept-Language", "de"); got != "page 1" {
			t.Errorf("got %q", got)
		}
		if n := c.calls.Load(); !logs && n != 1 {
			t.Errorf("%d calls without a Logger", n)
		}
		if _, log := j.taken(); log != "" {
			t.Errorf("logged %q", log)
		}
	}
}
