package main

import (
	"embed"
	"encoding/xml"
	"fmt"
	"html/template"
	"net/http"
)

const origin = "https://reeds.example"

//go:embed style.css
var files embed.FS

// assets are what pages need, and no sitemap names.
var assets = []string{"/style.css"}

// moved is where pages are that were elsewhere.
var moved = map[string]string{"/herons/": "/birds/grey-heron/", "/birds/night-heron/": "/birds/"}

type bird struct{ Slug, Name, About string }

// birds would be in a database.
var birds = []bird{
	{"grey-heron", "Grey heron", "Stands in the shallows, and waits."},
	{"bittern", "Bittern", "Is heard in spring, and hardly ever seen."},
	{"reed-warbler", "Reed warbler", "Hangs its nest between the stalks."},
}

var page = template.Must(template.New("").Parse(`<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<title>{{.Title}}</title>
<link rel="stylesheet" href="/style.css">
<h1>{{.Title}}</h1>
<p>{{.Text}}</p>
{{with .Birds}}<ul>{{range .}}
<li><a href="/birds/{{.Slug}}/">{{.Name}}</a></li>{{end}}
</ul>
{{end}}<p><a href="/">The reeds</a> · <a href="/birds/">Birds</a></p>
`))

// newSite returns the site, as it would be served.
func newSite() http.Handler {
	show := func(w http.ResponseWriter, status int, title, text string, list []bird) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.WriteHeader(status)
		page.Execute(w, struct {
			Title, Text string
			Birds       []bird
		}{title, text, list})
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		show(w, http.StatusOK, "The reeds", "A small lake, and who lives there.", nil)
	})
	mux.HandleFunc("GET /birds/{$}", func(w http.ResponseWriter, r *http.Request) {
		show(w, http.StatusOK, "Birds", "From the path along the north shore:", birds)
	})
	mux.HandleFunc("GET /birds/{slug}/{$}", func(w http.ResponseWriter, r *http.Request) {
		for _, b := range birds {
			if b.Slug == r.PathValue("slug") {
				show(w, http.StatusOK, b.Name, b.About, nil)
				return
			}
		}
		show(w, http.StatusNotFound, "Not here", "No such bird was seen.", nil)
	})
	mux.HandleFunc("GET /about", func(w http.ResponseWriter, r *http.Request) {
		show(w, http.StatusOK, "About", "Written by those who live beside it.", nil)
	})
	mux.HandleFunc("GET /sitemap.xml", serveSitemap)
	mux.Handle("GET /style.css", http.FileServerFS(files))
	for from, to := range moved {
		mux.Handle("GET "+from+"{$}", http.RedirectHandler(to, http.StatusMovedPermanently))
	}
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		show(w, http.StatusNotFound, "Not here", "There is no such page.", nil)
	})
	return mux
}

// serveSitemap names all pages.
func serveSitemap(w http.ResponseWriter, r *http.Request) {
	type location struct {
		Loc string `xml:"loc"`
	}
	set := struct {
		XMLName xml.Name   `xml:"http://www.sitemaps.org/schemas/sitemap/0.9 urlset"`
		URLs    []location `xml:"url"`
	}{URLs: []location{{origin + "/"}, {origin + "/birds/"}, {origin + "/about"}}}
	for _, b := range birds {
		set.URLs = append(set.URLs, location{origin + "/birds/" + b.Slug + "/"})
	}
	w.Header().Set("Content-Type", "text/xml; charset=utf-8")
	fmt.Fprint(w, xml.Header)
	xml.NewEncoder(w).Encode(set)
}
