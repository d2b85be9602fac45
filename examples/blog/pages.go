package main

import (
	"bytes"
	"context"
	"html/template"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/isr-go/isr"
)

// pages are the handlers of the site. They know nothing of tags: what they load knows its own.
type pages struct{ repository }

// A repository is how the site reads the CMS. What pages share is kept: when a post is
// edited, it is fetched once, however many pages show it.
type repository struct {
	cms *cms

	lists   isr.Data[[]post]   // all posts, newest first
	entries isr.Data[*entry]   // a post and its neighbours, by slug; nil where there is none
	clouds  isr.Data[[]string] // the tags of all posts
}

// An entry is a post, and what else its page shows.
type entry struct {
	Post         post
	Newer, Older *post // nil: there is none
}

func newRepository(c *cms, ttl time.Duration) repository {
	// While the CMS fails the site shows its last good pages, and makes none of old values.
	const never = -1
	return repository{
		cms:     c,
		lists:   isr.Data[[]post]{Name: "posts", TTL: ttl, StaleWhileRevalidate: never, StaleIfError: never, Timeout: patience},
		entries: isr.Data[*entry]{Name: "post", TTL: ttl, StaleWhileRevalidate: never, StaleIfError: never, Timeout: patience},
		clouds:  isr.Data[[]string]{Name: "cloud", TTL: ttl, StaleWhileRevalidate: never, StaleIfError: never, Timeout: patience},
	}
}

// ask asks the CMS. What is made of the answer depends on each post, and on which there
// are: a value, and all pages that it is on; or the search, which keeps no value.
func (r *repository) ask(ctx context.Context) ([]post, error) {
	posts, err := r.cms.published(ctx)
	isr.Tag(ctx, "posts")
	for _, p := range posts {
		isr.Tag(ctx, p.CacheTag())
	}
	return posts, err
}

// list returns all posts.
func (r *repository) list(ctx context.Context) ([]post, error) {
	return r.lists.Load(ctx, "all", r.ask)
}

// cloud returns the tags of all posts. It is made of the list, and has its tags.
func (r *repository) cloud(ctx context.Context) ([]string, error) {
	return r.clouds.Load(ctx, "all", func(ctx context.Context) ([]string, error) {
		posts, err := r.list(ctx)
		return tagsOf(posts), err
	})
}

// entry returns the post at a slug, or nil. It has the tag of that slug, also where there
// is no post, and those of the neighbours, whose titles it shows.
func (r *repository) entry(ctx context.Context, slug string) (*entry, error) {
	return r.entries.Load(ctx, slug, func(ctx context.Context) (*entry, error) {
		posts, err := r.cms.published(ctx)
		i := find(posts, slug)
		if i < 0 {
			return nil, err
		}
		e := &entry{Post: posts[i]}
		if i > 0 {
			e.Newer = &posts[i-1]
			isr.Tag(ctx, e.Newer.CacheTag())
		}
		if i+1 < len(posts) {
			e.Older = &posts[i+1]
			isr.Tag(ctx, e.Older.CacheTag())
		}
		return e, nil
	})
}

func newPages(c *cms, ttl time.Duration) http.Handler {
	p := &pages{newRepository(c, ttl)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", p.index)
	mux.HandleFunc("GET /post/{slug}", p.post)
	mux.HandleFunc("GET /tag/{tag}", p.tag)
	mux.HandleFunc("GET /search", p.search)
	mux.HandleFunc("GET /about", p.about)
	mux.HandleFunc("GET /style.css", func(w http.ResponseWriter, r *http.Request) {
		http.ServeFileFS(w, r, files, "style.css")
	})
	mux.HandleFunc("GET /", notFound)
	return mux
}

// A list is a page that shows several posts.
type list struct {
	Posts []post
	Tags  []string // of all posts
	Tag   string   // on a tag's page
	Query string   // on the search page
}

func (p *pages) index(w http.ResponseWriter, r *http.Request) {
	posts, tags, err := p.listAndCloud(r.Context())
	if err != nil {
		unavailable(w, err)
		return
	}
	render(w, http.StatusOK, "index.html", "Fresh Enough", list{Posts: posts, Tags: tags})
}

func (p *pages) listAndCloud(ctx context.Context) (posts []post, tags []string, err error) {
	if posts, err = p.list(ctx); err == nil {
		tags, err = p.cloud(ctx)
	}
	return posts, tags, err
}

func (p *pages) tag(w http.ResponseWriter, r *http.Request) {
	posts, tags, err := p.listAndCloud(r.Context())
	if err != nil {
		unavailable(w, err)
		return
	}
	l := list{Tags: tags, Tag: r.PathValue("tag")}
	for _, post := range posts {
		if slices.Contains(post.Tags, l.Tag) {
			l.Posts = append(l.Posts, post)
		}
	}
	if l.Posts == nil {
		notFound(w, r)
		return
	}
	render(w, http.StatusOK, "tag.html", "Posts about "+l.Tag, l)
}

// search asks the CMS each time: each word is a page of its own already.
func (p *pages) search(w http.ResponseWriter, r *http.Request) {
	posts, err := p.ask(r.Context())
	if err != nil {
		unavailable(w, err)
		return
	}
	l := list{Query: strings.TrimSpace(r.FormValue("q"))}
	q := strings.ToLower(l.Query)
	for _, post := range posts {
		if q != "" && strings.Contains(strings.ToLower(post.Title+"\n"+post.Text), q) {
			l.Posts = append(l.Posts, post)
		}
	}
	render(w, http.StatusOK, "search.html", "Search", l)
}

// searching is shown while a new search is under way. The
// browser asks again by itself, and then gets the page.
func searching(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Refresh", "1")
	render(w, http.StatusOK, "searching.html", "Searching", list{Query: r.FormValue("q")})
}

func (p *pages) post(w http.ResponseWriter, r *http.Request) {
	e, err := p.entry(r.Context(), r.PathValue("slug"))
	switch {
	case err != nil:
		unavailable(w, err)
	case e == nil:
		notFound(w, r)
	default:
		render(w, http.StatusOK, "post.html", e.Post.Title, e)
	}
}

// about depends on no post: it is kept until it is revalidated by its path.
func (p *pages) about(w http.ResponseWriter, r *http.Request) {
	posts, err := p.cms.published(r.Context())
	if err != nil {
		unavailable(w, err)
		return
	}
	render(w, http.StatusOK, "about.html", "About", len(posts))
}

func notFound(w http.ResponseWriter, r *http.Request) {
	render(w, http.StatusNotFound, "error.html", "There is no such page", "Perhaps there was one, or there will be.")
}

// unavailable answers where the CMS does not. A cache that has an old page sees by the
// status that it should serve that instead.
func unavailable(w http.ResponseWriter, err error) {
	render(w, http.StatusServiceUnavailable, "error.html", "This page cannot be made just now", "The reason: "+err.Error()+".")
}

// A view is what every template gets.
type view struct {
	Title     string
	Generated time.Time
	Data      any
}

var templates = parseTemplates("index.html", "post.html", "tag.html", "search.html", "searching.html", "about.html", "error.html",
	"admin.html", "edit.html")

// parseTemplates gives each page a layout of its own to fill in.
func parseTemplates(names ...string) map[string]*template.Template {
	helpers := template.FuncMap{"paragraphs": paragraphs, "summary": summary, "join": strings.Join}
	shared := template.Must(template.New("").Funcs(helpers).ParseFS(files, "templates/layout.html", "templates/posts.html", "templates/form.html"))
	all := make(map[string]*template.Template)
	for _, name := range names {
		all[name] = template.Must(template.Must(shared.Clone()).ParseFS(files, "templates/"+name))
	}
	return all
}

// render sends a page, or none: half a page with status 200 would be kept.
func render(w http.ResponseWriter, status int, name, title string, data any) {
	var body bytes.Buffer
	if err := templates[name].ExecuteTemplate(&body, "layout", view{title, time.Now(), data}); err != nil {
		slog.Error("blog: template", "name", name, "error", err)
		http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	w.Write(body.Bytes())
}

// A span is a part of a paragraph.
type span struct {
	Text string
	Code bool
}

// paragraphs reads the text of a post.
func paragraphs(text string) [][]span {
	var out [][]span
	for p := range strings.SplitSeq(strings.ReplaceAll(text, "\r\n", "\n"), "\n\n") {
		if p = strings.TrimSpace(p); p == "" {
			continue
		}
		var spans []span
		code := false
		for part := range strings.SplitSeq(p, "`") {
			spans = append(spans, span{part, code})
			code = !code
		}
		out = append(out, spans)
	}
	return out
}

// summary is the first sentence of a post.
func summary(text string) []span {
	all := paragraphs(text)
	if len(all) == 0 {
		return nil
	}
	for i, s := range all[0] {
		if before, _, ok := strings.Cut(s.Text, ". "); ok && !s.Code {
			return append(all[0][:i:i], span{Text: before + "."})
		}
	}
	return all[0]
}
