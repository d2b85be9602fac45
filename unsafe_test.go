package isr_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/store/memory"
)

// A successful POST, PUT, PATCH or DELETE expires the page at its path, before its
// author can know of the success (RFC 9111, section 4.4).
func TestUnsafeMethods(t *testing.T) {
	serve := func(status int) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) { w.WriteHeader(status) }
	}
	for _, test := range []struct {
		name, method, target string
		serve                func(http.ResponseWriter)
		expires              bool
	}{
		{"200", "POST", "/a", serve(200), true},
		{"201", "PUT", "/a", serve(201), true},
		{"204", "DELETE", "/a", serve(204), true},
		{"303", "PATCH", "/a?x=y", serve(303), true},
		{"other spelling", "POST", "/%61", serve(200), true},
		{"write", "POST", "/a", func(w http.ResponseWriter) { io.WriteString(w, "done") }, true},
		{"flush", "POST", "/a", func(w http.ResponseWriter) { http.NewResponseController(w).Flush() }, true},
		{"copy", "POST", "/a", func(w http.ResponseWriter) { io.Copy(w, strings.NewReader("done")) }, true},
		{"silence", "POST", "/a", func(w http.ResponseWriter) {}, true},
		{"103 first", "POST", "/a", func(w http.ResponseWriter) { w.WriteHeader(103); w.WriteHeader(200) }, true},
		{"400", "POST", "/a", serve(400), false},
		{"500", "DELETE", "/a", serve(500), false},
		{"another page", "POST", "/b", serve(200), false},
		{"a safe method", "OPTIONS", "/a", serve(200), false},
		{"no path", "POST", "*", serve(200), false},
	} {
		t.Run(test.method+" "+test.name, func(t *testing.T) {
			c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
				if r.Method != http.MethodGet {
					test.serve(w)
					return
				}
				fmt.Fprint(w, "page ", n)
			}}
			site := isr.Wrap(c, isr.Options{})
			get(site, "/a")
			r := httptest.NewRequest(test.method, "/", nil)
			if test.target == "*" {
				r.URL.Path = "*"
			} else {
				r = httptest.NewRequest(test.method, test.target, nil)
			}
			direct := httptest.NewRecorder()
			test.serve(direct)
			w := httptest.NewRecorder()
			site.ServeHTTP(w, r)
			if w.Code != direct.Code || w.Body.String() != direct.Body.String() || w.Flushed != direct.Flushed {
				t.Errorf("the visitor got %d %q, want %d %q", w.Code, w.Body, direct.Code, direct.Body)
			}
			want := "page 1"
			if test.expires {
				want = "page 3"
			}
			if got := body(site, "/a"); got != want {
				t.Errorf("then %q, want %q", got, want)
			}
		})
	}
}

// A handler that changes its data, sends the header and then panics has changed it.
func TestPanicAfterChange(t *testing.T) {
	data := 1
	var site *isr.Site
	site = isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			w.WriteHeader(200)
			get(site, "/") // someone asks in between
			data = 2
			panic(http.ErrAbortHandler)
		}
		fmt.Fprint(w, "data ", data)
	}), isr.Options{})
	get(site, "/")
	if v := recovered(func() { do(site, "POST", "/") }); v != http.ErrAbortHandler {
		t.Fatalf("panic %v", v)
	}
	if got := body(site, "/"); got != "data 2" {
		t.Errorf("got %q", got)
	}
}

// A POST that takes over the connection expires nothing, because its outcome is not
// known.
func TestHijackedPostExpiresNothing(t *testing.T) {
	c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
		if r.Method == http.MethodPost {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Fatal(err)
			}
			conn.Close()
		}
	}}
	site := isr.Wrap(c, isr.Options{})
	get(site, "/")
	site.ServeHTTP(hijackable{httptest.NewRecorder()}, httptest.NewRequest("POST", "/", nil))
	if got := get(site, "/").Header.Get("Cache-Status"); got != "isr; hit" {
		t.Errorf("Cache-Status %q", got)
	}
}

type hijackable struct{ *httptest.ResponseRecorder }

func (hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, other := net.Pipe()
	return conn, nil, other.Close()
}

// A successful request with a method that is not known to be safe expires the page at
// its path, and those at a Location and Content-Location on this site (RFC 9111,
// section 4.4).
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
		want           string // the pages that expire, of /, /a and /b/c
	}{
		"POST":                                      {"POST", "/a", answer(200), "", "/a"},
		"MOVE (RFC 4918, section 9.9)":              {"MOVE", "/a", answer(201), "", "/a"},
		"PROPPATCH (RFC 4918, section 9.2)":         {"PROPPATCH", "/a", answer(207), "", "/a"},
		"an unknown method (RFC 9111, section 4.4)": {"FROBNICATE", "/a", answer(200), "", "/a"},
		"OPTIONS":                             {"OPTIONS", "/a", answer(200), "", ""},
		"TRACE":                               {"TRACE", "/a", answer(200), "", ""},
		"a failure":                           {"MOVE", "/a", answer(409, "Location", "/b/c"), "", ""},
		"Location":                            {"POST", "/comment", answer(302, "Location", "/a#comment-1"), "", "/a"},
		"Location of a 201":                   {"POST", "/new", answer(201, "Location", "/b/c?x=y"), "", "/b/c"},
		"relative Location":                   {"POST", "/b/new", answer(303, "Location", "c"), "", "/b/c"},
		"with dot segments":                   {"POST", "/x", answer(303, "Location", "../b/./c"), "", "/b/c"},
		"other spelling":                      {"POST", "/x", answer(303, "Location", "/%61"), "", "/a"},
		"absolute Location":                   {"POST", "/x", answer(303, "Location", "http://Example.com/a"), "", "/a"},
		"by https":                            {"POST", "/x", answer(303, "Location", "https://example.com/a"), "", "/a"},
		"another site":                        {"POST", "/x", answer(303, "Location", "http://example.org/a"), "", ""},
		"another site, no scheme":             {"POST", "/x", answer(303, "Location", "//example.org/a"), "", ""},
		"another port":                        {"POST", "/x", answer(303, "Location", "http://example.com:81/a"), "", ""},
		"no path":                             {"POST", "/x", answer(303, "Location", "mailto:a@example.com"), "", ""},
		"malformed":                           {"POST", "/x", answer(303, "Location", "http://[/a"), "", ""},
		"Location without a path":             {"POST", "/x", answer(303, "Location", "http://example.com#top"), "", "/"},
		"Content-Location without a path":     {"PUT", "/x", answer(200, "Content-Location", "//example.com"), "", "/"},
		"Content-Location":                    {"PUT", "/x", answer(200, "Content-Location", "/a"), "", "/a"},
		"Location and Content-Location":       {"PUT", "/x", answer(201, "Location", "/b/c", "Content-Location", "/a"), "", "/a /b/c"},
		"path, Location and Content-Location": {"PUT", "/a", answer(201, "Location", "/b/c", "Content-Location", "/a"), "", "/a /b/c"},
		"Origin":                              {"POST", "/x", answer(303, "Location", "https://www.example.com/a"), "https://www.example.com", "/a"},
		"the Host, beside Origin":             {"POST", "/x", answer(303, "Location", "http://example.com/a"), "https://www.example.com", "/a"},
		"another, beside Origin":              {"POST", "/x", answer(303, "Location", "http://example.org/a"), "https://www.example.com", ""},
		"set late":                            {"POST", "/x", func(w http.ResponseWriter) { w.WriteHeader(303); w.Header().Set("X", "y") }, "", ""},
		"by writing":                          {"POST", "/x", func(w http.ResponseWriter) { w.Header().Set("Content-Location", "/a"); io.WriteString(w, "done") }, "", "/a"},
		"to the clean path":                   {"POST", "/a/", answer(307, "Location", "/a"), "", ""},
		"to the clean path, dots":             {"POST", "/N/../a", answer(307, "Location", "/a"), "", ""},
		"to the clean path, slashes":          {"POST", "/b//c", answer(301, "Location", "/b/c?x=y"), "", ""},
		"to another host":                     {"POST", "/a", answer(308, "Location", "https://www.example.org/a"), "", ""},
		"to https":                            {"POST", "/a", answer(308, "Location", "https://example.com/a"), "", ""},
		"/ to https":                          {"POST", "/", answer(308, "Location", "https://example.com"), "", ""},
		"to itself":                           {"POST", "/a", answer(301, "Location", "/a"), "", "/a"},
		"303 to the clean path":               {"POST", "/a/", answer(303, "Location", "/a"), "", "/a"},
		"308 elsewhere":                       {"POST", "/a", answer(308, "Location", "/b/c"), "", "/a /b/c"},
	} {
		t.Run(name, func(t *testing.T) {
			c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
				if r.Method != http.MethodGet {
					test.serve(w)
				}
			}}
			site := isr.Wrap(c, isr.Options{Origin: test.origin})
			for _, target := range []string{"/", "/a", "/b/c"} {
				get(site, target)
			}
			do(site, test.method, test.target)
			var expired []string
			for _, target := range []string{"/", "/a", "/b/c"} {
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

// A Location expires a page ten times a minute; beyond that it turns it stale, so that
// logins that all lead to the home page do not keep its visitors waiting.
func TestLocationLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
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
		for range 3 { // a POST to the page itself has changed it
			do(site, "POST", "/?next=/x")
			if got := pages(site)["/"].State; got != isr.Expired {
				t.Errorf("%v", got)
			}
			get(site, "/")
		}
	})
}

// However many other paths a stranger has answers name, be there pages or not, that does not
// have a Location expire a page more than ten times a minute.
func TestLocationLimitOutlivesAFlood(t *testing.T) {
	for name, test := range map[string]struct{ stored, fleet bool }{
		"of unknown paths":              {},
		"of stored pages":               {stored: true},
		"of unknown paths with a Store": {fleet: true},
		"of stored pages with a Store":  {stored: true, fleet: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
					if r.Method == http.MethodPost {
						http.Redirect(w, r, r.URL.Query().Get("next"), http.StatusSeeOther)
					}
				}}
				in := fleet(t, nil, isr.Options{})
				if test.fleet {
					in.store = memory.New()
				}
				site := in.start(c)
				get(site, "/")
				expired := 0
				for round := range 3 {
					for range 8 {
						do(site, "POST", "/login?next=/")
						if pages(site)["/"].State == isr.Expired {
							expired++
						}
						get(site, "/")
						synctest.Wait()
					}
					for i := range 4500 {
						path := fmt.Sprint("/other/", round, "/", i)
						if test.stored {
							get(site, path)
						}
						do(site, "POST", "/login?next="+path)
					}
				}
				if expired != 10 {
					t.Errorf("expired %d times within a minute, want 10", expired)
				}
			})
		})
	}
}

// A flood of POSTs to a login, whose answers name unknown paths, does not keep a POST to a
// page from the instances that have it.
func TestLoginsKeepNoPostBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			if r.Method == http.MethodPost {
				http.Redirect(w, r, r.URL.Query().Get("next"), http.StatusSeeOther)
				return
			}
			fmt.Fprint(w, "page ", n)
		}}
		in := fleet(t, memory.New(), isr.Options{})
		one, other := in.start(c), in.start(c)
		want := body(other, "/post")
		for i := range 1200 {
			do(one, "POST", fmt.Sprint("/login?next=/none/", i))
		}
		do(one, "POST", "/post?next=/done")
		synctest.Wait()
		if got := body(other, "/post"); got == want {
			t.Error("the other instance shows the page from before the POST")
		}
	})
}

// A POST to a path that has a hit-for-pass expires nothing: there is no page that it
// could have changed.
func TestHitForPassExpiresNothing(t *testing.T) {
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

// The author of a change sees it on every instance.
func TestFleetSeesAPost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{
			Default: isr.Route{TTL: time.Minute},
			Routes:  map[string]isr.Route{"/api/": {Bypass: isr.Always}},
		})
		st := &faultyStore{Store: in.store}
		in.store = st
		var c countingHandler
		one, other := in.start(&c), in.start(&c)
		body(other, "/post")
		do(one, "POST", "/post") // which one knows nothing of
		synctest.Wait()
		if got := body(other, "/post"); got != "page 3" {
			t.Errorf("after the POST: %q", got)
		}
		before := st.count("invalidate")
		do(one, "POST", "/api/track")
		synctest.Wait()
		if n := st.count("invalidate") - before; n != 0 {
			t.Errorf("a POST to what is never stored invalidated %d times", n)
		}
		st.set(hung(t))
		begin := time.Now()
		do(one, "POST", "/post")
		if took := time.Since(begin); took > 100*time.Millisecond {
			t.Errorf("with a hung store the POST took %v", took)
		}
		if got := body(one, "/post"); got == "page 3" {
			t.Error("the author does not see the change")
		}
	})
}

// A POST costs one generation in the whole fleet, however long the Store takes to
// answer; the Store gets the invalidation once before the visitor can know of the
// success and once when the handler has returned.
func TestPostCostsOneGeneration(t *testing.T) {
	for _, way := range []time.Duration{0, 2 * time.Millisecond, 30 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			st := &faultyStore{Store: memory.New(), after: only(slow(way), "invalidate")}
			st.set(only(slow(way), "invalidate"))
			in := fleet(t, st, isr.Options{Default: isr.Route{TTL: time.Hour}})
			var generated atomic.Int64
			h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodPost {
					w.WriteHeader(http.StatusSeeOther)
					return
				}
				generated.Add(1)
			})
			one, two := in.start(h), in.start(h)
			get(one, "/")
			get(two, "/")
			time.Sleep(time.Second)
			do(one, "POST", "/")
			for range 100 {
				get(two, "/")
				get(one, "/")
				time.Sleep(time.Millisecond)
			}
			time.Sleep(5 * time.Second)
			if n := generated.Load() - 1; n != 1 {
				t.Errorf("a Store that takes %v: generated %d times", way, n)
			}
			if n := st.count("invalidate"); n > 2 {
				t.Errorf("a Store that takes %v: %d invalidations", way, n)
			}
		})
	}
}

// Bypass sees of a POST what a page request has: the page that it changes may be stored
// elsewhere even if the one without cookies never is.
func TestPostToWhatBypassLetsThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{Default: isr.Route{
			VaryCookies: []string{"lang"},
			Bypass:      func(r *http.Request) bool { _, err := r.Cookie("lang"); return err != nil },
		}})
		var c countingHandler
		one, two := in.start(&c), in.start(&c)
		body(two, "/", "Cookie", "lang=de")
		do(one, "POST", "/", "Cookie", "lang=de")
		synctest.Wait()
		for _, site := range []*isr.Site{two, in.start(&c)} {
			if got := body(site, "/", "Cookie", "lang=de"); got != "page 3" {
				t.Errorf("after the POST: %q", got)
			}
		}
	})
}

// The author of a change sees it on every instance as soon as the success is sent, even
// while the handler goes on.
func TestChangeIsSeenBeforeTheHandlerReturns(t *testing.T) {
	for name, succeed := range map[string]func(w http.ResponseWriter){
		"flushed":        func(w http.ResponseWriter) { io.WriteString(w, "ok"); w.(http.Flusher).Flush() },
		"flushed header": func(w http.ResponseWriter) { w.WriteHeader(http.StatusCreated); w.(http.Flusher).Flush() },
		"long":           func(w http.ResponseWriter) { w.Write(make([]byte, 3<<10)) },
		"in parts":       func(w http.ResponseWriter) { w.Write(make([]byte, 2<<10)); w.Write(make([]byte, 1)) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				in := fleet(t, memory.New(), isr.Options{})
				c := countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
					if r.Method == http.MethodPost {
						succeed(w)
						time.Sleep(time.Minute)
						return
					}
					fmt.Fprintf(w, "page %d", n)
				}}
				one, two := in.start(&c), in.start(&c)
				body(one, "/")
				body(two, "/")
				go do(one, "POST", "/")
				synctest.Wait()
				for _, site := range []*isr.Site{two, one} {
					if got := body(site, "/"); got != "page 3" {
						t.Errorf("got %q", got)
					}
				}
				time.Sleep(2 * time.Minute)
			})
		})
	}
	synctest.Test(t, func(t *testing.T) { // not sent yet, but here it costs nothing to know it
		c := countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			if r.Method == http.MethodPost {
				w.WriteHeader(http.StatusCreated)
				time.Sleep(time.Minute)
				return
			}
			fmt.Fprintf(w, "page %d", n)
		}}
		site := fleet(t, memory.New(), isr.Options{}).start(&c)
		body(site, "/")
		go do(site, "POST", "/")
		synctest.Wait()
		if got := body(site, "/"); got != "page 3" {
			t.Errorf("where the change was made: %q", got)
		}
		time.Sleep(2 * time.Minute)
	})
}
