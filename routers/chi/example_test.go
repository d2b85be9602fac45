package isrchi_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/isr-go/isr"
	isrchi "github.com/isr-go/isr/routers/chi"
)

func Example() {
	r := chi.NewRouter()
	site, cached := isrchi.New(r, isr.Options{Default: isr.Route{TTL: time.Minute}})
	r.Use(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Println("a visit to", r.URL) // outside of the pages: each time
			next.ServeHTTP(w, r)
		})
	})
	r.Route("/blog", func(r chi.Router) {
		r.Use(cached)
		r.Get("/{id}", func(w http.ResponseWriter, r *http.Request) {
			fmt.Println("post", chi.URLParam(r, "id"), "is made") // once
		})
	})
	r.Handle("/api/revalidate", isr.RevalidateHandler(site, "the secret"))

	for range 2 {
		r.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/blog/1", nil))
	}
	// Output:
	// a visit to /blog/1
	// post 1 is made
	// a visit to /blog/1
}
