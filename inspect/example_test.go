package inspect_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/inspect"
)

func ExampleHandler() {
	app := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "Hello from", r.URL.Path)
	})
	var rec inspect.Recorder
	site := isr.Wrap(app, isr.Options{
		Default: isr.Route{TTL: time.Minute},
		Observe: rec.Observe,
	})

	// requireAdmin stands for your own authentication: the page shows all that is
	// cached, and with Actions lets it be purged.
	requireAdmin := func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if _, password, _ := r.BasicAuth(); password != "secret" {
				w.Header().Set("WWW-Authenticate", "Basic")
				http.Error(w, "who are you?", http.StatusUnauthorized)
				return
			}
			h.ServeHTTP(w, r)
		})
	}
	mux := http.NewServeMux()
	mux.Handle("/", site)
	mux.Handle("/debug/isr", requireAdmin(inspect.Handler(site, inspect.Options{Actions: true, Recorder: &rec})))

	get := func(target string, password string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("GET", target, nil)
		if password != "" {
			r.SetBasicAuth("admin", password)
		}
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		return w
	}
	get("/hello", "")
	fmt.Println(get("/debug/isr", "").Code)
	w := get("/debug/isr", "secret")
	fmt.Println(w.Code, w.Header().Get("Content-Type"))
	w = get("/debug/isr?format=json", "secret")
	fmt.Println(w.Code, w.Header().Get("Content-Type"))
	// Output:
	// 401
	// 200 text/html; charset=utf-8
	// 200 application/json
}
