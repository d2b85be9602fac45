package main

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"html"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing/fstest"
	"time"

	"github.com/alexedwards/scs/v2"
	"github.com/coder/websocket"

	"github.com/isr-go/isr"
)

// params returns a parameter of the path, whichever router has found it.
type params func(name string) string

// A route is one of the site's, for any router. A path that ends in a slash stands
// for all below it.
type route struct {
	method, path string
	handle       func(http.ResponseWriter, *http.Request, params)
}

// site is what the handlers of all routers share.
type site struct {
	sessions *scs.SessionManager
	gate     chan struct{} // closed when those who wait for it may go on
	mu       sync.Mutex
	posts    map[int]string // by mu
}

func newSite() *site {
	s := &site{sessions: scs.New(), gate: make(chan struct{}), posts: make(map[int]string)}
	s.sessions.Cookie.Persist = false
	for i := 1; i <= 12; i++ {
		s.posts[i] = fmt.Sprintf("Post %d <&>", i)
	}
	return s
}

// published is when everything was.
var published = time.Date(2024, 5, 17, 8, 0, 0, 0, time.UTC)

var assets = fstest.MapFS{
	"style.css":   {Data: []byte(strings.Repeat("p { color: #333 }\n", 200)), ModTime: published},
	"noise.bin":   {Data: noise(3000), ModTime: published},
	"a b/ü.txt":   {Data: []byte("spaces and more"), ModTime: published},
	"dir/one.txt": {Data: []byte("one"), ModTime: published},
}

// noise returns bytes that nothing compresses.
func noise(n int) []byte {
	b := make([]byte, n)
	for i, x := 0, uint32(1); i < n; i++ {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}

// options are those of isr for the site.
func options() isr.Options {
	hour := time.Hour
	return isr.Options{
		Default: isr.Route{TTL: hour},
		Routes: map[string]isr.Route{
			"/{$}":      {TTL: hour, Vary: []string{"Accept-Language"}, Normalize: language},
			"/posts":    {TTL: hour, Query: []string{"page"}, Vary: []string{"HX-Request"}},
			"/search":   {TTL: hour, Query: []string{"q", "page"}},
			"/theme":    {TTL: hour, VaryCookies: []string{"theme"}},
			"/api/":     {TTL: hour, Vary: []string{"Accept"}},
			"/account":  {Bypass: isr.Always},
			"/login":    {Bypass: isr.Always},
			"/live/":    {Bypass: isr.Always},
			"/nostore/": {TTL: isr.NoStore},
		},
	}
}

// language narrows Accept-Language to what the site has.
func language(h http.Header) {
	lang := "en"
	if strings.HasPrefix(h.Get("Accept-Language"), "de") {
		lang = "de"
	}
	h.Set("Accept-Language", lang)
}

// page writes a page of HTML.
func page(w http.ResponseWriter, status int, format string, args ...any) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<!doctype html>\n"+format+"\n", args...)
}

func notFound(w http.ResponseWriter, _ *http.Request) {
	page(w, http.StatusNotFound, "<h1>Not found</h1>")
}

// post returns the post that a path names.
func (s *site) post(p params) (id int, title string, ok bool) {
	id, err := strconv.Atoi(p("id"))
	s.mu.Lock()
	defer s.mu.Unlock()
	title, ok = s.posts[id]
	return id, title, err == nil && ok
}

// routes are those of pages; the others are in live.go.
func (s *site) routes() []route {
	return append([]route{
		{"GET", "/", func(w http.ResponseWriter, r *http.Request, _ params) {
			language(r.Header)
			lang := r.Header.Get("Accept-Language")
			w.Header().Set("Content-Language", lang)
			page(w, 200, "<h1>%s</h1> <link rel=stylesheet href=/assets/style.css>", map[string]string{"de": "Guten Tag", "en": "Hello"}[lang])
		}},
		{"GET", "/posts", s.list},
		{"GET", "/posts/{id}", s.detail},
		{"POST", "/posts/{id}", s.edit},
		{"PUT", "/posts/{id}", s.edit},
		{"DELETE", "/posts/{id}", s.remove},
		{"GET", "/posts/{id}/comments/{comment}", func(w http.ResponseWriter, r *http.Request, p params) {
			page(w, 200, "<p>Comment %s on %s", html.EscapeString(p("comment")), html.EscapeString(p("id")))
		}},
		{"GET", "/about/{lang}", func(w http.ResponseWriter, r *http.Request, p params) {
			page(w, 200, "<h1>About, in %q</h1>", html.EscapeString(p("lang")))
		}},
		{"GET", "/search", func(w http.ResponseWriter, r *http.Request, _ params) {
			page(w, 200, "<h1>Results for %q, page %q</h1>", html.EscapeString(r.FormValue("q")), r.FormValue("page"))
		}},
		{"GET", "/feed.xml", s.feed},
		{"GET", "/assets/", func(w http.ResponseWriter, r *http.Request, _ params) {
			http.StripPrefix("/assets", http.FileServerFS(assets)).ServeHTTP(w, r)
		}},
		{"GET", "/theme", func(w http.ResponseWriter, r *http.Request, _ params) {
			theme := "light"
			if c, err := r.Cookie("theme"); err == nil {
				theme = c.Value
			}
			page(w, 200, "<body class=%q>", html.EscapeString(theme))
		}},
		{"GET", "/api/posts", func(w http.ResponseWriter, r *http.Request, _ params) {
			w.Header().Set("Vary", "Accept")
			if r.Header.Get("Accept") == "text/plain" {
				io.WriteString(w, "twelve posts\n")
				return
			}
			w.Header().Set("Content-Type", "application/json")
			s.mu.Lock()
			defer s.mu.Unlock()
			json.NewEncoder(w).Encode(s.posts)
		}},
		{"POST", "/api/posts", func(w http.ResponseWriter, r *http.Request, _ params) {
			s.mu.Lock()
			defer s.mu.Unlock()
			id := len(s.posts) + 1
			b, _ := io.ReadAll(r.Body)
			s.posts[id] = string(b)
			w.Header().Set("Location", fmt.Sprint("/posts/", id))
			w.WriteHeader(http.StatusCreated)
		}},
		{"GET", "/contact", func(w http.ResponseWriter, r *http.Request, _ params) {
			page(w, 200, "<form method=post><input name=text></form>")
		}},
		{"POST", "/contact", func(w http.ResponseWriter, r *http.Request, _ params) {
			if r.FormValue("text") == "" {
				page(w, http.StatusUnprocessableEntity, "<p>Say something.")
				return
			}
			http.Redirect(w, r, "/contact", http.StatusSeeOther)
		}},
		{"GET", "/etag", func(w http.ResponseWriter, r *http.Request, _ params) {
			w.Header().Set("ETag", `"own"`)
			page(w, 200, "with a validator of its own")
		}},
		{"GET", "/moved", func(w http.ResponseWriter, r *http.Request, _ params) {
			http.Redirect(w, r, "/posts", http.StatusMovedPermanently)
		}},
		{"GET", "/found", func(w http.ResponseWriter, r *http.Request, _ params) {
			http.Redirect(w, r, "/login", http.StatusFound)
		}},
		{"GET", "/gone", func(w http.ResponseWriter, _ *http.Request, _ params) { page(w, http.StatusGone, "gone") }},
		{"GET", "/teapot", func(w http.ResponseWriter, _ *http.Request, _ params) { page(w, http.StatusTeapot, "short") }},
		{"GET", "/empty", func(w http.ResponseWriter, _ *http.Request, _ params) { w.WriteHeader(http.StatusNoContent) }},
		{"GET", "/error", func(w http.ResponseWriter, _ *http.Request, _ params) {
			http.Error(w, "the database is down", http.StatusInternalServerError)
		}},
		{"GET", "/busy", func(w http.ResponseWriter, _ *http.Request, _ params) {
			w.Header().Set("Retry-After", "7")
			http.Error(w, "later", http.StatusServiceUnavailable)
		}},
		{"GET", "/panic", func(http.ResponseWriter, *http.Request, params) { panic("a bug") }},
		{"GET", "/says/{what}", func(w http.ResponseWriter, _ *http.Request, p params) {
			w.Header().Set("Cache-Control", strings.ReplaceAll(p("what"), ";", ", "))
			page(w, 200, "with a Cache-Control of its own")
		}},
		{"GET", "/nostore/says/{what}", func(w http.ResponseWriter, _ *http.Request, p params) {
			if p("what") != "nothing" {
				w.Header().Set("Cache-Control", p("what"))
			}
			page(w, 200, "only as the handler says")
		}},
		{"GET", "/cookie", func(w http.ResponseWriter, _ *http.Request, _ params) {
			http.SetCookie(w, &http.Cookie{Name: "seen", Value: "yes"})
			page(w, 200, "with a cookie")
		}},
		{"GET", "/varies/{on}", func(w http.ResponseWriter, r *http.Request, p params) {
			w.Header().Set("Vary", p("on"))
			page(w, 200, "for %q", html.EscapeString(r.Header.Get(p("on"))))
		}},
		{"GET", "/sees", func(w http.ResponseWriter, r *http.Request, _ params) {
			page(w, 200, "%s as %q", html.EscapeString(r.Host), html.EscapeString(r.UserAgent()))
		}},
		{"GET", "/url", func(w http.ResponseWriter, r *http.Request, _ params) {
			page(w, 200, "%s", html.EscapeString(r.RequestURI))
		}},
		{"GET", "/path/{segment}", func(w http.ResponseWriter, r *http.Request, p params) {
			page(w, 200, "%q", html.EscapeString(p("segment")))
		}},
	}, s.live()...)
}

// list is the list of posts, or a part of it for htmx.
func (s *site) list(w http.ResponseWriter, r *http.Request, _ params) {
	w.Header().Set("Vary", "HX-Request")
	s.mu.Lock()
	defer s.mu.Unlock()
	var items strings.Builder
	at, _ := strconv.Atoi(r.FormValue("page"))
	ids := slices.Sorted(maps.Keys(s.posts))
	for _, id := range ids[min(at*5, len(ids)):min(at*5+5, len(ids))] {
		fmt.Fprintf(&items, "<li><a href=/posts/%d>%s</a>\n", id, html.EscapeString(s.posts[id]))
	}
	if r.Header.Get("HX-Request") == "true" {
		w.Header().Set("HX-Push-Url", r.URL.Path)
		io.WriteString(w, items.String())
		return
	}
	page(w, 200, "<ul hx-get=/posts>\n%s</ul>%s", &items, strings.Repeat("\n<!-- a footer -->", 100))
}

func (s *site) detail(w http.ResponseWriter, r *http.Request, p params) {
	id, title, ok := s.post(p)
	if !ok {
		notFound(w, r)
		return
	}
	w.Header().Set("Last-Modified", published.Format(http.TimeFormat))
	w.Header().Set("Cache-Tag", "posts, post-"+strconv.Itoa(id))
	page(w, 200, "<h1>%s</h1>", html.EscapeString(title))
}

func (s *site) edit(w http.ResponseWriter, r *http.Request, p params) {
	id, _, ok := s.post(p)
	if !ok {
		notFound(w, r)
		return
	}
	s.mu.Lock()
	s.posts[id] = r.FormValue("title")
	s.mu.Unlock()
	http.Redirect(w, r, "/posts", http.StatusSeeOther)
}

func (s *site) remove(w http.ResponseWriter, r *http.Request, p params) {
	id, _, ok := s.post(p)
	if !ok {
		notFound(w, r)
		return
	}
	s.mu.Lock()
	delete(s.posts, id)
	s.mu.Unlock()
	w.WriteHeader(http.StatusNoContent)
}

func (s *site) feed(w http.ResponseWriter, _ *http.Request, _ params) {
	type item struct {
		Title string `xml:"title"`
		Link  string `xml:"link"`
	}
	var rss struct {
		XMLName xml.Name `xml:"rss"`
		Version string   `xml:"version,attr"`
		Items   []item   `xml:"channel>item"`
	}
	rss.Version = "2.0"
	s.mu.Lock()
	for _, id := range slices.Sorted(maps.Keys(s.posts)) {
		rss.Items = append(rss.Items, item{s.posts[id], fmt.Sprint("/posts/", id)})
	}
	s.mu.Unlock()
	w.Header().Set("Content-Type", "application/rss+xml")
	w.Header().Set("Cache-Control", "max-age=600")
	xml.NewEncoder(w).Encode(rss)
}

// waitForGate answers with something at once, and with the rest when the gate is open.
func (s *site) waitForGate(w http.ResponseWriter, r *http.Request, _ params) {
	fmt.Fprintln(w, "data: before")
	if err := http.NewResponseController(w).Flush(); err != nil {
		panic(err)
	}
	select {
	case <-s.gate:
		fmt.Fprintln(w, "data: after")
	case <-r.Context().Done():
	}
}

// live are the routes that are for one visitor, or that never end.
func (s *site) live() []route {
	slow := http.TimeoutHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		page(w, 200, "in time")
	}), time.Minute, "too slow")
	hanging := http.TimeoutHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
	}), 5*time.Millisecond, "too slow")
	stream := func(w http.ResponseWriter, r *http.Request, _ params) {
		for i := range 3 {
			fmt.Fprintf(w, "part %d\n", i)
			if err := http.NewResponseController(w).Flush(); err != nil {
				panic(err)
			}
		}
	}
	return []route{
		{"GET", "/login", func(w http.ResponseWriter, r *http.Request, _ params) {
			page(w, 200, "<form method=post><input name=name></form>")
		}},
		{"POST", "/login", func(w http.ResponseWriter, r *http.Request, _ params) {
			if err := s.sessions.RenewToken(r.Context()); err != nil {
				panic(err)
			}
			s.sessions.Put(r.Context(), "name", r.FormValue("name"))
			http.Redirect(w, r, "/account", http.StatusSeeOther)
		}},
		{"GET", "/account", func(w http.ResponseWriter, r *http.Request, _ params) {
			name := s.sessions.GetString(r.Context(), "name")
			if name == "" {
				http.Redirect(w, r, "/login", http.StatusFound)
				return
			}
			w.Header().Set("Cache-Control", "private")
			page(w, 200, "<p>Hello, %s!", html.EscapeString(name))
		}},
		{"POST", "/logout", func(w http.ResponseWriter, r *http.Request, _ params) {
			s.sessions.Destroy(r.Context())
			http.Redirect(w, r, "/", http.StatusSeeOther)
		}},
		{"GET", "/slow", func(w http.ResponseWriter, r *http.Request, _ params) { slow.ServeHTTP(w, r) }},
		{"GET", "/hangs", func(w http.ResponseWriter, r *http.Request, _ params) { hanging.ServeHTTP(w, r) }},
		{"GET", "/live/gate", s.waitForGate},
		{"GET", "/events/gate", func(w http.ResponseWriter, r *http.Request, p params) {
			w.Header().Set("Content-Type", "text/event-stream")
			s.waitForGate(w, r, p)
		}},
		{"GET", "/stream", stream},
		{"GET", "/live/stream", stream},
		{"GET", "/events", func(w http.ResponseWriter, r *http.Request, p params) {
			w.Header().Set("Content-Type", "text/event-stream")
			fmt.Fprintf(w, "retry: 100\nid: %s\n\n", r.Header.Get("Last-Event-ID"))
			stream(w, r, p)
		}},
		{"GET", "/ws", func(w http.ResponseWriter, r *http.Request, _ params) {
			c, err := websocket.Accept(w, r, nil)
			if err != nil {
				return
			}
			defer c.CloseNow()
			for {
				kind, b, err := c.Read(r.Context())
				if err != nil || c.Write(r.Context(), kind, append([]byte("you said "), b...)) != nil {
					return
				}
			}
		}},
		{"POST", "/live/upload", func(w http.ResponseWriter, r *http.Request, _ params) {
			n, err := io.Copy(io.Discard, r.Body)
			fmt.Fprintln(w, n, err)
		}},
		{"GET", "/hints", func(w http.ResponseWriter, r *http.Request, _ params) {
			w.Header().Set("Link", "</assets/style.css>; rel=preload; as=style")
			w.WriteHeader(http.StatusEarlyHints)
			page(w, 200, "after an early hint")
		}},
		{"GET", "/trailer", func(w http.ResponseWriter, r *http.Request, _ params) {
			w.Header().Set("Trailer", "X-Checksum")
			page(w, 200, "with a trailer")
			w.Header().Set("X-Checksum", "42")
		}},
	}
}
