package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/go-chi/chi/v5"
	"github.com/gorilla/mux"
	"github.com/labstack/echo/v5"

	"github.com/isr-go/isr"
	isrchi "github.com/isr-go/isr/routers/chi"
)

// inside are the ways to put isr inside of a router, and what becomes of the page at
// /posts/7 and /posts/8: docs/routers.md says so.
var inside = []struct {
	name  string
	build func(wrap func(http.Handler) http.Handler) http.Handler
	page  string // for each of the posts, where "ID" is its own
	sites int    // after three requests
}{
	{"a handler of a ServeMux", func(wrap func(http.Handler) http.Handler) http.Handler {
		m := http.NewServeMux()
		m.Handle("GET /posts/{id}", wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write([]byte(r.PathValue("id"))) })))
		return m
	}, "ID", 1},
	{"chi's With", func(wrap func(http.Handler) http.Handler) http.Handler {
		r := chi.NewRouter()
		r.With(wrap).Get("/posts/{id}", func(w http.ResponseWriter, r *http.Request) { w.Write([]byte(chi.URLParam(r, "id"))) })
		return r
	}, "", 1},
	{"chi's Use", func(wrap func(http.Handler) http.Handler) http.Handler {
		r := chi.NewRouter()
		r.Use(func(next http.Handler) http.Handler {
			return wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				defer func() {
					if recover() != nil {
						w.Write([]byte("panic"))
					}
				}()
				next.ServeHTTP(w, r)
			}))
		})
		r.Get("/posts/{id}", func(w http.ResponseWriter, r *http.Request) { w.Write([]byte(chi.URLParam(r, "id"))) })
		return r
	}, "panic", 1},
	{"gorilla's Use", func(wrap func(http.Handler) http.Handler) http.Handler {
		r := mux.NewRouter()
		r.Use(wrap)
		r.HandleFunc("/posts/{id}", func(w http.ResponseWriter, r *http.Request) { w.Write([]byte(mux.Vars(r)["id"])) })
		return r
	}, "", 3},
	{"a handler of gorilla's", func(wrap func(http.Handler) http.Handler) http.Handler {
		r := mux.NewRouter()
		r.Handle("/posts/{id}", wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write([]byte(mux.Vars(r)["id"])) })))
		return r
	}, "", 1},
	{"echo's WrapMiddleware", func(wrap func(http.Handler) http.Handler) http.Handler {
		e := echo.New()
		e.Use(echo.WrapMiddleware(wrap))
		e.GET("/posts/:id", func(c *echo.Context) error { return c.String(200, c.Param("id")) })
		return e
	}, "ID", 3},
	{"a middleware of gin's", func(wrap func(http.Handler) http.Handler) http.Handler {
		g := gin.New()
		g.Use(func(c *gin.Context) {
			wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { c.Next() })).ServeHTTP(c.Writer, c.Request)
		})
		g.GET("/posts/:id", func(c *gin.Context) { c.String(200, c.Param("id")) })
		return g
	}, "ID", 3},
}

// What breaks inside of a router is what the documentation says: the page is made
// without its parameter, or there is a Site for each request.
func TestInside(t *testing.T) {
	gin.SetMode(gin.ReleaseMode)
	for _, tt := range inside {
		sites := 0
		h := tt.build(func(next http.Handler) http.Handler {
			sites++
			return isr.Wrap(next, isr.Options{})
		})
		for _, path := range []string{"/posts/7", "/posts/8", "/posts/7"} {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
			if want := strings.ReplaceAll(tt.page, "ID", path[len(path)-1:]); w.Body.String() != want {
				t.Errorf("%s: %s: got %q, want %q", tt.name, path, w.Body, want)
			}
		}
		if sites != tt.sites {
			t.Errorf("%s: %d Sites, want %d", tt.name, sites, tt.sites)
		}
	}
}

// The middleware for chi makes whole pages, once, wherever it is.
func TestInsideChi(t *testing.T) {
	for _, use := range []bool{true, false} {
		r := chi.NewRouter()
		_, cached := isrchi.New(r, isr.Options{})
		routes := chi.Router(r)
		if use {
			r.Use(cached)
		} else {
			routes = r.With(cached)
		}
		made := 0
		routes.Get("/posts/{id}", func(w http.ResponseWriter, r *http.Request) {
			made++
			w.Write([]byte(chi.URLParam(r, "id")))
		})
		for range 2 {
			w := httptest.NewRecorder()
			r.ServeHTTP(w, httptest.NewRequest("GET", "/posts/7", nil))
			if w.Body.String() != "7" || made != 1 {
				t.Errorf("Use %v: got %q, made %d times", use, w.Body, made)
			}
		}
	}
}
