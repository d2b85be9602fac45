package isr_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isr-go/isr"
)

// What is stored, and the reason and remedy for what is not.
func TestWhatIsStored(t *testing.T) {
	header := func(h ...string) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, r *http.Request) {
			for i := 0; i < len(h); i += 2 {
				w.Header().Add(h[i], h[i+1])
			}
			io.WriteString(w, "page")
		}
	}
	status := func(code int, h ...string) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, r *http.Request) {
			for i := 0; i < len(h); i += 2 {
				w.Header().Add(h[i], h[i+1])
			}
			w.WriteHeader(code)
		}
	}
	vary := isr.Route{Vary: []string{"accept-language"}, VaryCookies: []string{"theme"}}
	for name, test := range map[string]struct {
		route     isr.Route
		serve     func(http.ResponseWriter, *http.Request)
		notStored string // empty: stored
	}{
		"200":                             {serve: status(200)},
		"203 (RFC 9111, section 4.2.2)":   {serve: status(203)},
		"301":                             {serve: status(301, "Location", "/new")},
		"308":                             {serve: status(308, "Location", "/new")},
		"404":                             {serve: status(404)},
		"410":                             {serve: status(410)},
		"302":                             {serve: status(302, "Location", "/login"), notStored: "has status 302: set Route.Bypass, or Cache-Control: max-age in the handler if it is the same for everyone"},
		"307":                             {serve: status(307, "Location", "/login"), notStored: "has status 307: set Route.Bypass, or Cache-Control: max-age in the handler if it is the same for everyone"},
		"302 with a lifetime":             {serve: status(302, "Location", "/new", "Cache-Control", "max-age=60")},
		"302 with max-age=0":              {serve: status(302, "Cache-Control", "max-age=0"), notStored: "has status 302: set Route.Bypass, or Cache-Control: max-age in the handler if it is the same for everyone"},
		"403":                             {serve: status(403), notStored: "has status 403: set Route.Bypass, or Cache-Control: max-age in the handler if it is the same for everyone"},
		"403 with a lifetime":             {serve: status(403, "Cache-Control", "s-maxage=60")},
		"204":                             {serve: status(204), notStored: "has status 204: set Route.Bypass, or Cache-Control: max-age in the handler if it is the same for everyone"},
		"204 with a lifetime":             {serve: status(204, "Cache-Control", "s-maxage=60")},
		"206 (RFC 9111, section 3.3)":     {serve: status(206, "Cache-Control", "max-age=60"), notStored: "has status 206"},
		"304":                             {serve: status(304, "Cache-Control", "max-age=60"), notStored: "has status 304"},
		"101":                             {serve: status(101), notStored: "has status 101"},
		"Set-Cookie":                      {serve: header("Set-Cookie", "session=1", "Cache-Control", "public, max-age=60"), notStored: "sets a cookie: set it in middleware outside of isr, or set Route.Bypass"},
		"set-cookie in lower case":        {serve: func(w http.ResponseWriter, r *http.Request) { w.Header()["set-cookie"] = []string{"session=1"} }, notStored: "sets a cookie: set it in middleware outside of isr, or set Route.Bypass"},
		"private":                         {serve: header("Cache-Control", "max-age=60", "Cache-Control", `Private="X-Name"`), notStored: "is private by its Cache-Control"},
		"no-store":                        {serve: header("Cache-Control", "NO-STORE"), notStored: "is no-store by its Cache-Control"},
		"no-cache":                        {serve: header("Cache-Control", "no-cache"), notStored: "is no-cache by its Cache-Control"},
		"Vary *":                          {serve: header("Vary", "Accept-Encoding, *"), notStored: "varies on everything"},
		"Vary undeclared":                 {vary, header("Vary", "Accept-Language", "Vary", "hx-request"), "varies on Hx-Request: add it to Route.Vary"},
		"Vary declared":                   {vary, header("Vary", "ACCEPT-LANGUAGE, Accept-Encoding, Cookie"), ""},
		"Vary Cookie":                     {serve: header("Vary", "Cookie"), notStored: "varies on Cookie: name the cookies in Route.VaryCookies"},
		"event stream":                    {serve: header("Content-Type", "text/event-stream"), notStored: "is an event stream: set Route.Bypass"},
		"NoStore":                         {isr.Route{TTL: isr.NoStore}, header(), "has no lifetime by its Cache-Control, and Route.TTL is NoStore"},
		"NoStore, public":                 {isr.Route{TTL: isr.NoStore}, header("Cache-Control", "public"), "has no lifetime by its Cache-Control, and Route.TTL is NoStore"},
		"NoStore, max-age=0":              {isr.Route{TTL: isr.NoStore}, header("Cache-Control", "max-age=0"), "has no lifetime by its Cache-Control, and Route.TTL is NoStore"},
		"NoStore, with a lifetime":        {isr.Route{TTL: isr.NoStore}, header("Cache-Control", "s-maxage=60"), ""},
		"NoStore, Expires":                {isr.Route{TTL: isr.NoStore}, header("Date", "Mon, 02 Jan 2006 15:04:05 GMT", "Expires", "Mon, 02 Jan 2006 15:05:05 GMT"), ""},
		"404 with a negative NotFoundTTL": {isr.Route{NotFoundTTL: -1}, status(404), "has status 404, and Route.NotFoundTTL is negative"},
		"404 with a negative NotFoundTTL, but a lifetime": {isr.Route{NotFoundTTL: -1}, status(404, "Cache-Control", "max-age=5"), ""},
		"too large": {serve: func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, strings.Repeat("x", 1001)) }, notStored: "is larger than MaxPageBytes (1000): raise it, or set Route.Bypass"},
		"too large by Content-Length": {serve: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "1001")
			io.WriteString(w, strings.Repeat("x", 500)) // fewer in all would be a failure
			io.WriteString(w, strings.Repeat("x", 501))
		}, notStored: "is larger than MaxPageBytes (1000): raise it, or set Route.Bypass"},
		"as large as MaxPageBytes": {serve: func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, strings.Repeat("x", 1000)) }},
		"hijacked":                 {serve: func(w http.ResponseWriter, r *http.Request) { http.NewResponseController(w).Hijack() }, notStored: "takes over the connection: set Route.Bypass"},
		"an invalid tag":           {serve: header("Cache-Tag", strings.Repeat("x", 257)), notStored: "has a Cache-Tag that is none: a tag has at most 256 bytes, not 257"},
		"a tag like a path":        {serve: header("Cache-Tag", "a, /a"), notStored: "has a Cache-Tag that is none: a tag does not begin with \"/\": paths are for Revalidate and Purge, and need no tag"},
		"many tags":                {serve: header("Cache-Tag", manyTags(5000))},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) { test.serve(w, r) }}
				site := isr.Wrap(c, isr.Options{MaxPageBytes: 1000, Default: test.route})
				direct := httptest.NewRecorder()
				test.serve(direct, httptest.NewRequest("GET", "/", nil))

				for i := range 2 {
					res := do(site, "GET", "/")
					if res.StatusCode != direct.Code {
						t.Errorf("visit %d: status %d, want %d", i, res.StatusCode, direct.Code)
					}
					if diff := cmp.Diff(direct.Body.String(), read(res)); diff != "" {
						t.Errorf("visit %d: body (-want +got):\n%s", i, diff)
					}
					if got := res.Header["Set-Cookie"]; !slices.Equal(got, direct.Result().Header["Set-Cookie"]) {
						t.Errorf("visit %d: Set-Cookie %q", i, got)
					}
				}
				p := pages(site)["/"]
				if p.NotStored != test.notStored {
					t.Errorf("not stored because it %q, want %q", p.NotStored, test.notStored)
				}
				if stored := p.State != isr.Uncacheable; stored != (test.notStored == "") {
					t.Errorf("state %v", p.State)
				}
			})
		})
	}
}

func manyTags(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "tag-%d, ", i)
	}
	return b.String()
}

// A response that may not be stored goes to no visitor: each visitor's own request is
// served, visitors who waited are not queued one after the other, and the page is tried
// again later.
func TestHitForPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		private := true
		var own, made atomic.Int64
		var together sync.WaitGroup
		c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			if !private {
				io.WriteString(w, "for all")
				return
			}
			w.Header().Set("Cache-Control", "private")
			if name, err := r.Cookie("name"); err == nil {
				own.Add(1)
				together.Done()
				together.Wait() // one after the other would be a deadlock
				io.WriteString(w, "for "+name.Value)
				return
			}
			made.Add(1)
			time.Sleep(time.Second)
			w.WriteHeader(200)
			if _, err := io.WriteString(w, "for no visitor"); err == nil {
				t.Error("the rest of a discarded response was written without an error")
			}
			if r.Context().Err() == nil {
				t.Error("the run's context has not ended")
			}
		}}
		site := isr.Wrap(c, isr.Options{})
		var all sync.WaitGroup
		visit := func(n int) {
			together.Add(n)
			for i := range n {
				all.Go(func() {
					res := get(site, "/", "Cookie", fmt.Sprintf("name=%d", i))
					if got, want := read(res), fmt.Sprintf("for %d", i); got != want {
						t.Errorf("visitor %d got %q", i, got)
					}
					if got, want := res.Header.Get("Cache-Status"), "isr; fwd=bypass; detail=uncacheable"; got != want {
						t.Errorf("Cache-Status %q, want %q", got, want)
					}
				})
			}
			all.Wait()
		}
		visit(100)
		visit(100)
		if own.Load() != 200 || made.Load() != 1 {
			t.Errorf("%d own requests and %d page requests, want 200 and 1", own.Load(), made.Load())
		}
		time.Sleep(10 * time.Second)
		private = false
		if got := body(site, "/", "Cookie", "name=x"); got != "for all" {
			t.Errorf("got %q after the page has become public", got)
		}

		// The other way: the stored page is removed at once.
		private = true
		if err := site.RevalidateTag(t.Context(), "none"); err != nil {
			t.Fatal(err)
		}
		site.Revalidate(t.Context(), "/")
		visit(1)
	})
}

// The remedies that the log proposes work.
func TestRemediesWork(t *testing.T) {
	for vary, want := range map[string]string{
		"Accept-Language":               "varies on Accept-Language: add it to Route.Vary",
		"Origin":                        "varies on Origin: move CORS outside of isr, where it sees each visitor's request",
		"origin, Accept-Encoding":       "varies on Origin: move CORS outside of isr, where it sees each visitor's request",
		"Access-Control-Request-Method": "varies on Access-Control-Request-Method: move CORS outside of isr, where it sees each visitor's request",
		"Range":                         "varies on Range: leave it out of Vary: isr answers it itself, and the handler never sees it",
		"two words":                     "varies on two words: it is not the name of a header",
		"User-Agent":                    "varies on User-Agent: add it to Route.Vary, and have Route.Normalize narrow it: each value is a page of its own",
		"Isr-Segment":                   "varies on Isr-Segment: set Route.Segment: the handler gets what that returns, and nothing that a visitor sends",
		"*":                             "varies on everything",
	} {
		site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Vary", vary)
		}), isr.Options{})
		get(site, "/")
		if got := pages(site)["/"].NotStored; got != want {
			t.Errorf("%s: %q, want %q", vary, got, want)
		}
	}
}

// A handler whose response may not be stored gets the reason as an error of Write.
func TestWriteTellsWhyDiscarded(t *testing.T) {
	for name, test := range map[string]struct {
		header []string
		body   string
		want   string
	}{
		"a cookie":  {[]string{"Set-Cookie", "a=b"}, "page", "isr: response discarded: it sets a cookie: set it in middleware outside of isr, or set Route.Bypass"},
		"private":   {[]string{"Cache-Control", "private"}, "page", "isr: response discarded: it is private by its Cache-Control"},
		"too large": {nil, strings.Repeat("x", 101), "isr: response discarded: it is larger than MaxPageBytes (100): raise it, or set Route.Bypass"},
	} {
		synctest.Test(t, func(t *testing.T) {
			var errs []error
			site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.RemoteAddr != "0.0.0.0:0" {
					return // a visitor's own request
				}
				for i := 0; i < len(test.header); i += 2 {
					w.Header().Set(test.header[i], test.header[i+1])
				}
				for range 2 {
					_, err := io.WriteString(w, test.body)
					errs = append(errs, err)
				}
			}), isr.Options{MaxPageBytes: 100})
			do(site, "HEAD", "/") // HEAD takes no stream
			synctest.Wait()       // the handler goes on for a moment
			for i, err := range errs {
				if err == nil || err.Error() != test.want {
					t.Errorf("%s: write %d: %v, want %s", name, i, err, test.want)
				}
			}
			if len(errs) != 2 {
				t.Errorf("%s: %d writes", name, len(errs))
			}
		})
	}
}
