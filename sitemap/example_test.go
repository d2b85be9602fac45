package sitemap_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/sitemap"
)

// A site is prerendered from its own sitemap, before it listens.
func Example() {
	const origin = "https://reeds.example"
	mux := http.NewServeMux()
	mux.HandleFunc("GET /sitemap.xml", func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, `<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">
			<url><loc>`+origin+`/</loc></url>
			<url><loc>`+origin+`/heron</loc></url>
			<url><loc>https://elsewhere.example/</loc></url>
		</urlset>`)
	})
	mux.HandleFunc("GET /{bird...}", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "A page about %q", r.PathValue("bird"))
	})
	site := isr.Wrap(mux, isr.Options{Origin: origin, MaxRegenerations: 1})

	ctx := context.Background()
	urls := sitemap.Read(ctx, origin+"/sitemap.xml", sitemap.Options{Handler: site})
	report := func(what string, err error) { fmt.Println(what, err) }
	for url, err := range site.Prerender(ctx, sitemap.Good(urls, report)) {
		if err != nil {
			log.Print(err) // this page is made when somebody asks for it
			continue
		}
		fmt.Println("made", url)
	}
	// Output:
	// made https://reeds.example/
	// https://elsewhere.example/ sitemap: is not at https://reeds.example
	// made https://reeds.example/heron
}
