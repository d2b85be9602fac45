package main

import (
	"bytes"
	"html/template"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"
)

// pages are the handlers of the site. They know nothing of the cache, apart from
// the Cache-Tag header: what a page was made from.
type pages struct{ cms *cms }

func newPages(c *cms) http.Handler {
	p := &pages{c}
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
	posts, err := p.cms.published(r.Context())
	if err != nil {
		unavailable(w, err)
		return
	}
	render(w, http.StatusOK, "index.html", "Fresh Enough", list{Posts: posts, Tags: tagsOf(posts)})
}

func (p *pages) tag(w http.ResponseWriter, r *http.Request) {
	posts, err := p.cms.published(r.Context())
	if err != nil {
		unavailable(w, err)
		return
	}
	l := list{Tags: tagsOf(posts), Tag: r.PathValue("tag")}
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

func (p *pages) search(w http.ResponseWriter, r *http.Request) {
	posts, err := p.cms.published(r.Context())
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
	posts, err := p.cms.published(r.Context())
	if err != nil {
		unavailable(w, err)
		return
	}
	i := find(posts, r.PathValue("slug"))
	if i < 0 {
		notFound(w, r)
		return
	}
	var page struct {
		Post         post
		Newer, Older *post
	}
	page.Post = posts[i]
	// The page shows its neighbours' titles, so it has to be renewed with them.
	tags := []string{page.Post.CacheTag()}
	if i > 0 {
		page.Newer = &posts[i-1]
		tags = append(tags, page.Newer.CacheTag())
	}
	if i+1 < len(posts) {
		page.Older = &posts[i+1]
		tags = append(tags, page.Older.CacheTag())
	}
	w.Header().Set("Cache-Tag", strings.Join(tags, ", "))
	render(w, http.StatusOK, "post.html", page.Post.Title, page)
}

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
