package isr_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isr-go/isr"
)

// What the handler says of its page is not said of the answer to a request that
// passes although the route did not ask for it: that is for one visitor alone.
func TestPassesArePrivate(t *testing.T) {
	type header = map[string][]string
	control := func(lines ...string) header { return header{"Cache-Control": lines} }
	var (
		authorized = []string{"Authorization", "Bearer x"}
		upgrade    = []string{"Upgrade", "h2c"}
	)
	for name, test := range map[string]struct {
		method, target string
		header         []string
		body           string
		sent           header
		want           []string // Cache-Control
		targeted       bool     // whether what some caches go by instead goes out
	}{
		"Authorization":        {header: authorized, sent: control("public, max-age=60, s-maxage=600"), want: []string{"private, max-age=60"}},
		"Upgrade":              {header: upgrade, sent: control("public, max-age=60"), want: []string{"private, max-age=60"}},
		"a body":               {body: "query", sent: control("public, max-age=60"), want: []string{"private, max-age=60"}},
		"HEAD":                 {method: "HEAD", header: authorized, sent: control("public, max-age=60"), want: []string{"private, max-age=60"}},
		"s-maxage alone":       {header: authorized, sent: control("s-maxage=60"), want: []string{"private, max-age=0"}},
		"nothing":              {header: authorized, want: []string{"private, max-age=0"}},
		"Expires":              {header: authorized, sent: header{"Expires": {"Sat, 01 Jan 2000 00:01:00 GMT"}}, want: []string{"private"}},
		"what browsers heed":   {header: authorized, sent: control("public, no-cache", "must-revalidate, no-transform"), want: []string{"private, max-age=0, no-cache, must-revalidate, no-transform"}},
		"no-store":             {header: authorized, sent: control("no-store"), want: []string{"no-store"}},
		"private":              {header: authorized, sent: control("private, max-age=5"), want: []string{"private, max-age=5"}},
		"odd spelling":         {header: authorized, sent: header{"cache-control": {"public, max-age=60"}}, want: []string{"private, max-age=60"}},
		"Bypass":               {target: "/bypass", sent: control("public, max-age=60"), want: []string{"public, max-age=60"}, targeted: true},
		"Bypass, too":          {target: "/bypass", header: authorized, sent: control("public, max-age=60"), want: []string{"public, max-age=60"}, targeted: true},
		"Bypass of an Upgrade": {target: "/bypass", header: upgrade, sent: control("public, max-age=60"), want: []string{"public, max-age=60"}, targeted: true},
		"declared":             {target: "/declared", header: authorized, sent: control("public, max-age=60"), want: []string{"public, max-age=60"}, targeted: true},
		"POST":                 {method: "POST", header: authorized, sent: control("public, max-age=60"), want: []string{"public, max-age=60"}, targeted: true},
		"OPTIONS":              {method: "OPTIONS", header: authorized, sent: control("public, max-age=60"), want: []string{"public, max-age=60"}, targeted: true},
	} {
		for how, serve := range map[string]func(w http.ResponseWriter){
			"status": func(w http.ResponseWriter) { w.WriteHeader(200) },
			"write":  func(w http.ResponseWriter) { io.WriteString(w, "page") },
			"copy":   func(w http.ResponseWriter) { io.Copy(w, strings.NewReader("page")) },
			"flush":  func(w http.ResponseWriter) { w.(http.Flusher).Flush() },
			"early":  func(w http.ResponseWriter) { w.WriteHeader(103); w.WriteHeader(200) },
			"none":   func(w http.ResponseWriter) {},
		} {
			site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				for name, lines := range test.sent {
					w.Header()[name] = lines
				}
				targeted(w.Header())
				serve(w)
			}), isr.Options{Routes: map[string]isr.Route{"/bypass": {Bypass: isr.Always}, "/declared": {Vary: []string{"Authorization"}}}})
			var body io.Reader
			if test.body != "" {
				body = strings.NewReader(test.body)
			}
			method, target := "GET", "/"
			if test.method != "" {
				method = test.method
			}
			if test.target != "" {
				target = test.target
			}
			r := httptest.NewRequest(method, target, body)
			for i := 0; i < len(test.header); i += 2 {
				r.Header.Set(test.header[i], test.header[i+1])
			}
			w := httptest.NewRecorder()
			site.ServeHTTP(w, r)
			h := w.Result().Header
			if how == "none" || how == "early" { // the recorder's snapshot is of another moment
				h = w.Header()
			}
			if got := h["Cache-Control"]; !cmp.Equal(got, test.want) {
				t.Errorf("%s, %s: Cache-Control %q, want %q", name, how, got, test.want)
			}
			if got := hasTargeted(h); (len(got) > 0) != test.targeted {
				t.Errorf("%s, %s: %q goes out", name, how, got)
			}
		}
	}
}

// A connection that is handed over is nothing to keep, nor to say anything about.
func TestSwitchingProtocolsIsNotPrivate(t *testing.T) {
	site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Upgrade", "websocket")
		w.WriteHeader(101)
	}), isr.Options{})
	w := httptest.NewRecorder()
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Upgrade", "websocket")
	site.ServeHTTP(w, r)
	if got := w.Header(); got["Cache-Control"] != nil || got.Get("Cache-Status") != "isr; fwd=bypass" {
		t.Errorf("101 with %v", got)
	}
}

// isr comes after the caches behind it: the last member is the one that is closest
// to the visitor (RFC 9211, section 2).
func TestCacheStatusOrder(t *testing.T) {
	for how, serve := range map[string]func(w http.ResponseWriter, r *http.Request){
		"adds": func(w http.ResponseWriter, r *http.Request) { w.Header().Add("Cache-Status", "upstream; hit") },
		"sets": func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Cache-Status", "upstream; hit") },
		"and writes": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Status", "upstream; hit")
			w.Write([]byte("page"))
		},
		"and flushes": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Status", "upstream; hit")
			http.NewResponseController(w).Flush()
		},
	} {
		site := isr.Wrap(http.HandlerFunc(serve), isr.Options{Routes: map[string]isr.Route{"/bypass": {Bypass: isr.Always}}})
		for request, want := range map[string]string{
			"GET /a":      "isr; fwd=uri-miss; stored",
			"GET /bypass": "isr; fwd=bypass",
			"OPTIONS /a":  "isr; fwd=method",
			"POST /b":     "isr; fwd=method",
			"PUT *":       "isr; fwd=method",
		} {
			method, target, _ := strings.Cut(request, " ")
			w, r := httptest.NewRecorder(), httptest.NewRequest(method, "/", nil)
			r.URL.Path = target
			site.ServeHTTP(w, r)
			if got, want := strings.Join(w.Header()["Cache-Status"], ", "), "upstream; hit, "+want; got != want {
				t.Errorf("%s, %s: %q, want %q", how, request, got, want)
			}
		}
	}
	// Who recovers from a panic outside answers with it, too.
	site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { panic("on purpose") }), isr.Options{})
	w := httptest.NewRecorder()
	recovered(func() { site.ServeHTTP(w, httptest.NewRequest("POST", "/", nil)) })
	if got := w.Header().Get("Cache-Status"); got != "isr; fwd=method" {
		t.Errorf("after a panic: %q", got)
	}
}

// A successful request with a method that is not known to be safe expires the page
// at its path, and those at a Location and Content-Location on this site.
func TestWhatAChangeExpires(t *testing.T) {
	answer := func(status int, header ...string) func(w http.ResponseWriter) {
		return func(w http.ResponseWriter) {
			for i := 0; i < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(status)
		}
	}
	for name, test := range map[string]struct {
		method, target string
		serve          func(w http.ResponseWriter)
		origin         string
		want           string // the pages that expire, of /a and /b/c
	}{
		"POST":                       {"POST", "/a", answer(200), "", "/a"},
		"MOVE":                       {"MOVE", "/a", answer(201), "", "/a"},
		"PROPPATCH":                  {"PROPPATCH", "/a", answer(207), "", "/a"},
		"a method nobody knows":      {"FROBNICATE", "/a", answer(200), "", "/a"},
		"OPTIONS":                    {"OPTIONS", "/a", answer(200), "", ""},
		"TRACE":                      {"TRACE", "/a", answer(200), "", ""},
		"a failure":                  {"MOVE", "/a", answer(409, "Location", "/b/c"), "", ""},
		"Location":                   {"POST", "/comment", answer(302, "Location", "/a#comment-1"), "", "/a"},
		"Location of a 201":          {"POST", "/new", answer(201, "Location", "/b/c?x=y"), "", "/b/c"},
		"relative Location":          {"POST", "/b/new", answer(303, "Location", "c"), "", "/b/c"},
		"with dots":                  {"POST", "/x", answer(303, "Location", "../b/./c"), "", "/b/c"},
		"other spelling":             {"POST", "/x", answer(303, "Location", "/%61"), "", "/a"},
		"absolute Location":          {"POST", "/x", answer(303, "Location", "http://Example.com/a"), "", "/a"},
		"by https":                   {"POST", "/x", answer(303, "Location", "https://example.com/a"), "", "/a"},
		"another site":               {"POST", "/x", answer(303, "Location", "http://example.org/a"), "", ""},
		"another site, no scheme":    {"POST", "/x", answer(303, "Location", "//example.org/a"), "", ""},
		"another port":               {"POST", "/x", answer(303, "Location", "http://example.com:81/a"), "", ""},
		"no path":                    {"POST", "/x", answer(303, "Location", "mailto:a@example.com"), "", ""},
		"nonsense":                   {"POST", "/x", answer(303, "Location", "http://[/a"), "", ""},
		"Content-Location":           {"PUT", "/x", answer(200, "Content-Location", "/a"), "", "/a"},
		"both":                       {"PUT", "/x", answer(201, "Location", "/b/c", "Content-Location", "/a"), "", "/a /b/c"},
		"all three":                  {"PUT", "/a", answer(201, "Location", "/b/c", "Content-Location", "/a"), "", "/a /b/c"},
		"Origin":                     {"POST", "/x", answer(303, "Location", "https://www.example.com/a"), "https://www.example.com", "/a"},
		"the Host, beside Origin":    {"POST", "/x", answer(303, "Location", "http://example.com/a"), "https://www.example.com", "/a"},
		"another, beside Origin":     {"POST", "/x", answer(303, "Location", "http://example.org/a"), "https://www.example.com", ""},
		"set late":                   {"POST", "/x", func(w http.ResponseWriter) { w.WriteHeader(303); w.Header().Set("X", "y") }, "", ""},
		"by writing":                 {"POST", "/x", func(w http.ResponseWriter) { w.Header().Set("Content-Location", "/a"); io.WriteString(w, "done") }, "", "/a"},
		"to the clean path":          {"POST", "/a/", answer(307, "Location", "/a"), "", ""},
		"to the clean path, dots":    {"POST", "/N/../a", answer(307, "Location", "/a"), "", ""},
		"to the clean path, slashes": {"POST", "/b//c", answer(301, "Location", "/b/c?x=y"), "", ""},
		"to another host":            {"POST", "/a", answer(308, "Location", "https://www.example.org/a"), "", ""},
		"to https":                   {"POST", "/a", answer(308, "Location", "https://example.com/a"), "", ""},
		"to itself":                  {"POST", "/a", answer(301, "Location", "/a"), "", "/a"},
		"303 to the clean path":      {"POST", "/a/", answer(303, "Location", "/a"), "", "/a"},
		"308 elsewhere":              {"POST", "/a", answer(308, "Location", "/b/c"), "", "/a /b/c"},
	} {
		t.Run(name, func(t *testing.T) {
			c := &cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
				if r.Method != http.MethodGet {
					test.serve(w)
				}
			}}
			site := isr.Wrap(c, isr.Options{Origin: test.origin})
			for _, target := range []string{"/a", "/b/c"} {
				get(site, target)
			}
			do(site, test.method, test.target)
			var expired []string
			for _, target := range []string{"/a", "/b/c"} {
				if pages(site)[target].State == isr.Expired {
					expired = append(expired, target)
				}
			}
			if got := strings.Join(expired, " "); got != test.want {
				t.Errorf("expired: %q, want %q", got, test.want)
			}
		})
	}
}

// A Location expires a page ten times a minute; beyond that it turns it stale, so
// that logins that all lead to the home page do not keep its visitors waiting.
func TestManyLocations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			if r.Method == http.MethodPost {
				http.Redirect(w, r, r.URL.Query().Get("next"), http.StatusSeeOther)
			}
		}}
		site := isr.Wrap(c, isr.Options{})
		states := func(target string, n int) (expired, stale int) {
			get(site, target)
			for range n {
				do(site, "POST", "/login?next="+target)
				switch pages(site)[target].State {
				case isr.Expired:
					expired++
				case isr.Stale:
					stale++
				}
				get(site, target)
				synctest.Wait()
			}
			return expired, stale
		}
		for _, want := range []struct {
			after          time.Duration
			target         string
			posts          int
			expired, stale int
		}{
			{0, "/", 8, 8, 0},
			{30 * time.Second, "/", 12, 2, 10},
			{0, "/other", 10, 10, 0},
			{31 * time.Second, "/", 12, 8, 4},
			{time.Minute, "/", 10, 10, 0},
		} {
			time.Sleep(want.after)
			if expired, stale := states(want.target, want.posts); expired != want.expired || stale != want.stale {
				t.Errorf("%+v: expired %d times, stale %d times", want, expired, stale)
			}
		}
		for range 3 { // who posts to the page itself has changed it
			do(site, "POST", "/?next=/x")
			if got := pages(site)["/"].State; got != isr.Expired {
				t.Errorf("%v", got)
			}
			get(site, "/")
		}
	})
}

// A hit-for-pass is nothing that a stranger's request could change.
func TestPassMarksExpireNothing(t *testing.T) {
	var events []string
	site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Set-Cookie", "a=b")
	}), isr.Options{Observe: func(e isr.Event) {
		if e.Kind == isr.Revalidated {
			events = append(events, e.Path)
		}
	}})
	get(site, "/")
	do(site, "POST", "/")
	if len(events) != 0 || pages(site)["/"].State != isr.Uncacheable {
		t.Errorf("%q, %v", events, pages(site)["/"].State)
	}
}

// While the Site is shut down visitors' own requests are answered; what is said of
// the page is not said of those.
func TestPassesOfAClosedSiteArePrivate(t *testing.T) {
	site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "public, s-maxage=60")
		fmt.Fprint(w, r.Header.Get("Cookie"))
	}), isr.Options{})
	if err := site.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	res := get(site, "/", "Cookie", "session=1")
	if got := res.Header.Get("Cache-Control"); got != "private, max-age=0" || read(res) != "session=1" {
		t.Errorf("Cache-Control %q", got)
	}
}

// gin's Stream asks for CloseNotify and Flush, with whatever method.
func TestStreamOfPasses(t *testing.T) {
	server := httptest.NewServer(isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		gone := w.(interface{ CloseNotify() <-chan bool }).CloseNotify()
		for range 3 {
			select {
			case <-gone:
				t.Error("gone")
			default:
				io.WriteString(w, "part ")
				w.(http.Flusher).Flush()
			}
		}
	}), isr.Options{Routes: map[string]isr.Route{"/bypass": {Bypass: isr.Always}}}))
	defer server.Close()
	for request, status := range map[string]string{"GET /": "", "GET /bypass": "isr; fwd=bypass", "POST /": "isr; fwd=method"} {
		method, target, _ := strings.Cut(request, " ")
		r, err := http.NewRequest(method, server.URL+target, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := server.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if got := read(res); got != "part part part " || status != "" && res.Header.Get("Cache-Status") != status {
			t.Errorf("%s: %q, %v", request, got, res.Header)
		}
		res.Body.Close()
	}
}
