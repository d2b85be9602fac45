package isr_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/isr-go/isr"
)

// Requests that are not for the cache reach the handler untouched, with a thin
// ResponseWriter around the original.
func TestPassedRequestsAreUntouched(t *testing.T) {
	type request func() *http.Request
	with := func(method, target, body string, header ...string) request {
		return func() *http.Request {
			var b io.Reader
			if body != "" {
				b = strings.NewReader(body)
			}
			r := httptest.NewRequest(method, target, b)
			for i := 0; i < len(header); i += 2 {
				r.Header.Set(header[i], header[i+1])
			}
			return r
		}
	}
	for name, test := range map[string]struct {
		request request
		status  string
	}{
		"OPTIONS":                         {with("OPTIONS", "/", ""), "isr; fwd=method"},
		"OPTIONS *":                       {with("OPTIONS", "*", ""), "isr; fwd=method"},
		"TRACE":                           {with("TRACE", "/", ""), "isr; fwd=method"},
		"Upgrade (RFC 9110, section 7.8)": {with("GET", "/", "", "Upgrade", "websocket"), "isr; fwd=bypass"},
		"body":                            {with("GET", "/", "a body"), "isr; fwd=bypass"},
		"Authorization":                   {with("GET", "/", "", "Authorization", "Basic x"), "isr; fwd=bypass"},
		"Bypass":                          {with("GET", "/bypass", ""), "isr; fwd=bypass"},
		"Bypass by rule":                  {with("GET", "/rule", "", "Cookie", "session=1"), "isr; fwd=bypass"},
		"chunked body": {func() *http.Request {
			return httptest.NewRequest("GET", "/", io.MultiReader(strings.NewReader("a body")))
		}, "isr; fwd=bypass"},
		"no path": {func() *http.Request {
			r := httptest.NewRequest("GET", "/", nil)
			r.URL.Opaque = "opaque"
			return r
		}, "isr; fwd=bypass"},
	} {
		t.Run(name, func(t *testing.T) {
			w, r := httptest.NewRecorder(), test.request()
			c := &countingHandler{serve: func(gotW http.ResponseWriter, gotR *http.Request, n int64) {
				if !reflect.DeepEqual(gotR.WithContext(r.Context()), r) || gotR.URL != r.URL || gotR.Body != r.Body {
					t.Error("the handler got another Request") // but for the context, which knows the Site
				}
				gotR.Pattern = "GET /" // as a ServeMux does, for the logs of outer middleware
				if u, ok := gotW.(interface{ Unwrap() http.ResponseWriter }); !ok || u.Unwrap() != http.ResponseWriter(w) {
					t.Errorf("the handler's %T is not around the original ResponseWriter", gotW)
				}
				fmt.Fprint(gotW, "page ", n)
			}}
			site := isr.Wrap(c, isr.Options{Routes: map[string]isr.Route{
				"/bypass": {Bypass: isr.Always},
				"/rule": {Bypass: func(r *http.Request) bool {
					_, err := r.Cookie("session")
					return err == nil
				}},
			}})
			for range 2 {
				clear(w.Header())
				site.ServeHTTP(w, r)
				if got := w.Header()["Cache-Status"]; !cmp.Equal(got, []string{test.status}) {
					t.Errorf("Cache-Status %q, want %q", got, test.status)
				}
				if r.Pattern != "GET /" {
					t.Errorf("outside the pattern is %q", r.Pattern)
				}
			}
			if c.calls.Load() != 2 || len(pages(site)) != 0 {
				t.Errorf("%d calls, %d pages", c.calls.Load(), len(pages(site)))
			}
		})
	}
}

// A handler can take over the connection through the Site, whatever the method.
func TestHijack(t *testing.T) {
	server := httptest.NewServer(isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n")
		rw.Flush()
		line, _ := rw.ReadString('\n')
		rw.WriteString(line)
		rw.Flush()
	}), isr.Options{}))
	defer server.Close()
	for _, method := range []string{"GET", "POST"} {
		conn, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "%s / HTTP/1.1\r\nHost: example.com\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n", method)
		br := bufio.NewReader(conn)
		res, err := http.ReadResponse(br, nil)
		if err != nil || res.StatusCode != 101 {
			t.Fatalf("%s: %v, %v", method, res, err)
		}
		fmt.Fprintln(conn, "hello")
		if got, err := br.ReadString('\n'); err != nil || got != "hello\n" {
			t.Errorf("%s: %q, %v", method, got, err)
		}
	}
}

// gin's Stream asks for CloseNotify and Flush, whatever the method, and whatever the
// handler answers for.
func TestCloseNotifyOfPasses(t *testing.T) {
	streams := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
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
	})
	server := httptest.NewServer(isr.Wrap(streams, isr.Options{Routes: map[string]isr.Route{
		"/bypass":      {Bypass: isr.Always},
		"/placeholder": {Placeholder: streams},
		"/unknown":     {PrerenderedOnly: true, NotFound: streams},
	}}))
	defer server.Close()
	for request, status := range map[string]string{
		"GET /": "", "GET /bypass": "isr; fwd=bypass", "POST /": "isr; fwd=method",
		"GET /placeholder": "isr; fwd=uri-miss; detail=placeholder", "GET /unknown": "isr; detail=not-prerendered",
	} {
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

// A request that passes although the route did not ask for it is answered for one
// visitor alone: what the handler says of its page does not apply to that answer.
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
		"Authorization":                   {header: authorized, sent: control("public, max-age=60, s-maxage=600"), want: []string{"private, max-age=60"}},
		"Upgrade (RFC 9110, section 7.8)": {header: upgrade, sent: control("public, max-age=60"), want: []string{"private, max-age=60"}},
		"a body":                          {body: "query", sent: control("public, max-age=60"), want: []string{"private, max-age=60"}},
		"HEAD":                            {method: "HEAD", header: authorized, sent: control("public, max-age=60"), want: []string{"private, max-age=60"}},
		"s-maxage alone":                  {header: authorized, sent: control("s-maxage=60"), want: []string{"private, max-age=0"}},
		"nothing":                         {header: authorized, want: []string{"private, max-age=0"}},
		"Expires":                         {header: authorized, sent: header{"Expires": {"Sat, 01 Jan 2000 00:01:00 GMT"}}, want: []string{"private"}},
		"other directives":                {header: authorized, sent: control("public, no-cache", "must-revalidate, no-transform"), want: []string{"private, max-age=0, no-cache, must-revalidate, no-transform"}},
		"no-store":                        {header: authorized, sent: control("no-store"), want: []string{"no-store"}},
		"private":                         {header: authorized, sent: control("private, max-age=5"), want: []string{"private, max-age=5"}},
		"private fields":                  {header: authorized, sent: control(`public, max-age=60, private="Set-Cookie"`), want: []string{"private, max-age=60"}},
		"private fields of none":          {header: authorized, sent: control(`public, max-age=60, private=""`), want: []string{"private, max-age=60"}},
		"private, and some fields":        {header: authorized, sent: control(`private, private="X", s-maxage=60`), want: []string{"private, max-age=0"}},
		"no-store where it is not known":  {header: authorized, sent: control("public, max-age=60, must-understand, no-store"), want: []string{"private, max-age=60, must-understand, no-store"}},
		"private where it is known":       {header: authorized, sent: control("private, must-understand, no-store"), want: []string{"private, must-understand, no-store"}},
		"other spelling":                  {header: authorized, sent: header{"cache-control": {"public, max-age=60"}}, want: []string{"private, max-age=60"}},
		"Bypass":                          {target: "/bypass", sent: control("public, max-age=60"), want: []string{"public, max-age=60"}, targeted: true},
		"Bypass, too":                     {target: "/bypass", header: authorized, sent: control("public, max-age=60"), want: []string{"public, max-age=60"}, targeted: true},
		"Bypass of an Upgrade":            {target: "/bypass", header: upgrade, sent: control("public, max-age=60"), want: []string{"public, max-age=60"}, targeted: true},
		"declared":                        {target: "/declared", header: authorized, sent: control("public, max-age=60"), want: []string{"public, max-age=60"}, targeted: true},
		"POST":                            {method: "POST", header: authorized, sent: control("public, max-age=60"), want: []string{"public, max-age=60"}, targeted: true},
		"OPTIONS":                         {method: "OPTIONS", header: authorized, sent: control("public, max-age=60"), want: []string{"public, max-age=60"}, targeted: true},
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

// A 101 gets no Cache-Control: a connection that is handed over cannot be stored.
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

// A URL, or declared headers, of more than 32 KiB name no page: the visitor's own
// request is served, and nothing is held afterwards.
func TestLongKeysPass(t *testing.T) {
	c := new(countingHandler)
	site := isr.Wrap(c, isr.Options{
		Default: isr.Route{Vary: []string{"X-Long"}},
		Routes:  map[string]isr.Route{"/listed/": {PrerenderedOnly: true}},
	})
	long := strings.Repeat("a", 33<<10)
	for _, res := range []*http.Response{get(site, "/"+long), get(site, "/?q="+long), get(site, "/", "X-Long", long)} {
		if got := res.Header.Get("Cache-Status"); got != "isr; fwd=bypass; detail=too-long" || res.StatusCode != 200 {
			t.Errorf("%d %q", res.StatusCode, got)
		}
		if got := res.Header.Get("Cache-Control"); got != "private, max-age=0" {
			t.Errorf("Cache-Control %q", got)
		}
	}
	if res := get(site, "/listed/"+long); res.StatusCode != 404 || c.calls.Load() != 3 {
		t.Errorf("%d for a path that was not prerendered", res.StatusCode)
	}
	if s := site.Stats(); s.Pages != 0 || s.Bytes != 0 {
		t.Errorf("%+v", s)
	}
	if got := get(site, "/"+long[:30<<10]).Header.Get("Cache-Status"); got != "isr; fwd=uri-miss; stored" {
		t.Errorf("30 KiB: %q", got)
	}
}
