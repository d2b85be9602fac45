package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// A webhook tells the site what has changed, as any CMS would: over HTTP.
type webhook struct {
	client      *http.Client
	url, secret string

	mu    sync.Mutex
	calls []call // guarded by mu; newest first
}

// A call is one that was made, for the admin to show.
type call struct {
	Time           time.Time
	Method         string
	Request, Reply string
	Took           time.Duration
}

// names is what the webhook takes.
type names struct {
	Paths []string `json:"paths,omitempty"`
	Tags  []string `json:"tags,omitempty"`
}

// send makes a call: POST renews, DELETE drops. The admin shows the answer: the change is
// made already, and cannot be undone.
func (h *webhook) send(ctx context.Context, method string, what names) {
	body, _ := json.Marshal(what) // strings: no error
	c := call{Time: time.Now(), Method: method, Request: string(body)}
	if reply, err := h.do(ctx, method, body); err != nil {
		c.Reply = err.Error()
	} else {
		c.Reply = reply
	}
	c.Took = time.Since(c.Time).Round(time.Millisecond / 10)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.calls = append([]call{c}, h.calls[:min(len(h.calls), 9)]...)
}

func (h *webhook) do(ctx context.Context, method string, body []byte) (string, error) {
	req, err := http.NewRequestWithContext(ctx, method, h.url, bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", "Bearer "+h.secret)
	req.Header.Set("Content-Type", "application/json")
	resp, err := h.client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	return fmt.Sprintf("%d %s", resp.StatusCode, bytes.TrimSpace(answer)), err
}

func (h *webhook) recent() []call {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.calls
}

// An admin is the form in front of the CMS. It stands outside of the cache: what
// it shows must be true now.
type admin struct {
	cms  *cms
	site *webhook
}

func newAdmin(c *cms, site *webhook) http.Handler {
	a := &admin{c, site}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /admin", a.overview)
	mux.HandleFunc("POST /admin/mode", a.switchMode)
	mux.HandleFunc("POST /admin/revalidate", a.revalidate)
	mux.HandleFunc("POST /admin/post", a.add)
	mux.HandleFunc("GET /admin/post/{slug}", a.show)
	mux.HandleFunc("POST /admin/post/{slug}", a.edit)
	mux.HandleFunc("POST /admin/post/{slug}/delete", a.remove)
	var h http.Handler = mux
	h = http.NewCrossOriginProtection().Handler(h) // no other site's page may send these forms
	h = http.MaxBytesHandler(h, 1<<20)
	return noStore(h)
}

func noStore(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		h.ServeHTTP(w, r)
	})
}

func (a *admin) overview(w http.ResponseWriter, r *http.Request) {
	render(w, http.StatusOK, "admin.html", "Admin", map[string]any{
		"Posts": a.cms.all(), "Mode": a.cms.currentMode(), "Modes": modes, "Calls": a.site.recent(), "Form": form{Action: "/admin/post"},
	})
}

func (a *admin) switchMode(w http.ResponseWriter, r *http.Request) {
	m := mode(r.PostFormValue("mode"))
	if !slices.Contains(modes, m) {
		http.Error(w, fmt.Sprintf("mode %q: want one of %q", m, modes), http.StatusBadRequest)
		return
	}
	a.cms.setMode(m)
	done(w, r, "cms")
}

func (a *admin) revalidate(w http.ResponseWriter, r *http.Request) {
	a.site.send(r.Context(), http.MethodPost, names{
		Paths: strings.Fields(r.PostFormValue("path")),
		Tags:  strings.Fields(strings.ReplaceAll(r.PostFormValue("tag"), ",", " ")),
	})
	done(w, r, "calls")
}

// A form is a post as it is typed.
type form struct {
	Action            string // where it goes
	Title, Tags, Text string
	Problem           string
	Post              post // what is edited; zero for a new one
}

// read takes a form, and says whether it makes a post.
func read(r *http.Request) (f form, ok bool) {
	f = form{Action: r.URL.Path, Title: strings.TrimSpace(r.PostFormValue("title")), Tags: r.PostFormValue("tags"), Text: strings.TrimSpace(r.PostFormValue("text"))}
	if f.Title == "" || f.Text == "" {
		f.Problem = "A post needs a title and a text."
	}
	return f, f.Problem == ""
}

func (a *admin) add(w http.ResponseWriter, r *http.Request) {
	f, ok := read(r)
	if !ok {
		render(w, http.StatusUnprocessableEntity, "edit.html", "Add a post", f)
		return
	}
	p := a.cms.add(f.Title, f.Text, splitTags(f.Tags))
	// At once: the new page and the index. When they are next asked for: whatever
	// lists posts, and the posts that have got a new neighbour. (The post's own tag is
	// that of the value that there was no such post.)
	a.site.send(r.Context(), http.MethodPost, names{Paths: []string{p.Path(), "/"}, Tags: append([]string{"posts", p.CacheTag()}, a.neighbours(p)...)})
	done(w, r, "calls")
}

// neighbours names the posts that stand next to p.
func (a *admin) neighbours(p post) (tags []string) {
	posts := a.cms.all()
	i := find(posts, p.Slug)
	if i < 0 {
		return nil // it was removed meanwhile
	}
	for _, neighbour := range slices.Concat(posts[max(0, i-1):i], posts[i+1:min(i+2, len(posts))]) {
		tags = append(tags, neighbour.CacheTag())
	}
	return tags
}

func (a *admin) show(w http.ResponseWriter, r *http.Request) {
	posts := a.cms.all()
	i := find(posts, r.PathValue("slug"))
	if i < 0 {
		notFound(w, r)
		return
	}
	p := posts[i]
	render(w, http.StatusOK, "edit.html", "Edit a post", form{Action: r.URL.Path, Title: p.Title, Tags: strings.Join(p.Tags, ", "), Text: p.Text, Post: p})
}

func (a *admin) edit(w http.ResponseWriter, r *http.Request) {
	f, ok := read(r)
	if !ok {
		f.Post.Slug = r.PathValue("slug")
		render(w, http.StatusUnprocessableEntity, "edit.html", "Edit a post", f)
		return
	}
	p, found := a.cms.edit(r.PathValue("slug"), f.Title, f.Text, splitTags(f.Tags))
	if !found {
		notFound(w, r)
		return
	}
	// One tag: every page that shows the post has it, by what it was made of. The author
	// looks at two of them, and is not to see them stale first.
	a.site.send(r.Context(), http.MethodPost, names{Paths: []string{p.Path(), "/"}, Tags: []string{p.CacheTag()}})
	done(w, r, "calls")
}

func (a *admin) remove(w http.ResponseWriter, r *http.Request) {
	p, found := a.cms.remove(r.PathValue("slug"))
	if !found {
		notFound(w, r)
		return
	}
	// What was removed must not be shown again, even if the CMS fails now: that is a
	// purge, once it can no longer be made of the old post. The others are only renewed.
	a.site.send(r.Context(), http.MethodPost, names{Paths: []string{"/"}, Tags: []string{p.CacheTag()}})
	a.site.send(r.Context(), http.MethodDelete, names{Paths: []string{p.Path()}})
	done(w, r, "calls")
}

// done leads back to the section of the overview that shows what came of it.
func done(w http.ResponseWriter, r *http.Request, section string) {
	http.Redirect(w, r, "/admin#"+section, http.StatusSeeOther)
}
