package main

import (
	"context"
	"html"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/gin-gonic/gin"
	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/gorilla/mux"
	"github.com/labstack/echo/v5"
	echomiddleware "github.com/labstack/echo/v5/middleware"

	"github.com/isr-go/isr"
	isrchi "github.com/isr-go/isr/routers/chi"
)

// routers are those that are compared. Each builds the same site, as its users would:
// with its own recovery where it has one, and with its own way of not finding a page.
var routers = []struct {
	name    string
	off, on func(*site) http.Handler // without isr, and with it
}{
	{"ServeMux", serveMux, wrapped(serveMux)},
	{"chi", chiRouter, wrapped(chiRouter)},
	{"chi inside", chiRouter, chiInside},
	{"gin", ginEngine, wrapped(ginEngine)},
	{"echo", echoEngine, wrapped(echoEngine)},
	{"gorilla", gorillaRouter, wrapped(gorillaRouter)},
	{"huma", humaAPI, wrapped(humaAPI)},
}

// wrapped builds a router with isr around it.
func wrapped(build func(*site) http.Handler) func(*site) http.Handler {
	return func(s *site) http.Handler { return isr.Wrap(build(s), options()) }
}

func serveMux(s *site) http.Handler {
	m := http.NewServeMux()
	for _, rt := range s.routes() {
		m.HandleFunc(rt.method+" "+muxPath(rt.path), func(w http.ResponseWriter, r *http.Request) { rt.handle(w, r, r.PathValue) })
	}
	m.HandleFunc("GET /{rest...}", notFound)
	return recovery(m)
}

// muxPath returns the path of a route as a ServeMux has it.
func muxPath(path string) string {
	if path == "/" {
		return "/{$}"
	}
	return path
}

// recovery answers 500 where a handler panics.
func recovery(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if e := recover(); e != nil {
				http.Error(w, "Internal Server Error", http.StatusInternalServerError)
			}
		}()
		next.ServeHTTP(w, r)
	})
}

func chiRouter(s *site) http.Handler { return fillChi(chi.NewRouter(), s) }

// chiInside has isr behind a middleware of the router, not around it.
func chiInside(s *site) http.Handler {
	r := chi.NewRouter()
	_, cached := isrchi.New(r, options())
	return fillChi(r, s, cached)
}

func fillChi(r *chi.Mux, s *site, more ...func(http.Handler) http.Handler) http.Handler {
	r.Use(middleware.RequestID)
	r.Use(more...)
	r.Use(recovery)
	r.NotFound(notFound)
	for _, rt := range s.routes() {
		path := rt.path
		if strings.HasSuffix(path, "/") && path != "/" {
			path += "*"
		}
		r.MethodFunc(rt.method, path, func(w http.ResponseWriter, r *http.Request) {
			rt.handle(w, r, func(name string) string { return chi.URLParam(r, name) })
		})
	}
	return r
}

var inBraces = regexp.MustCompile(`\{(\w+)\}`)

func ginEngine(s *site) http.Handler {
	gin.SetMode(gin.ReleaseMode)
	g := gin.New()
	g.Use(gin.RecoveryWithWriter(io.Discard))
	g.NoRoute(func(c *gin.Context) { notFound(c.Writer, c.Request) })
	for _, rt := range s.routes() {
		path := inBraces.ReplaceAllString(rt.path, ":$1")
		if strings.HasSuffix(path, "/") && path != "/" {
			path += "*path"
		}
		g.Handle(rt.method, path, func(c *gin.Context) { rt.handle(c.Writer, c.Request, c.Param) })
	}
	return g
}

func echoEngine(s *site) http.Handler {
	e := echo.New()
	e.Logger = slog.New(slog.DiscardHandler)
	e.Use(echomiddleware.Recover())
	e.RouteNotFound("/*", func(c *echo.Context) error { notFound(c.Response(), c.Request()); return nil })
	for _, rt := range s.routes() {
		path := inBraces.ReplaceAllString(rt.path, ":$1")
		if strings.HasSuffix(path, "/") && path != "/" {
			path += "*"
		}
		e.Add(rt.method, path, func(c *echo.Context) error {
			rt.handle(c.Response(), c.Request(), c.Param)
			return nil
		})
	}
	return e
}

func gorillaRouter(s *site) http.Handler {
	m := mux.NewRouter()
	m.Use(recovery)
	m.NotFoundHandler = http.HandlerFunc(notFound)
	for _, rt := range s.routes() {
		h := func(w http.ResponseWriter, r *http.Request) {
			rt.handle(w, r, func(name string) string { return mux.Vars(r)[name] })
		}
		if strings.HasSuffix(rt.path, "/") && rt.path != "/" {
			m.PathPrefix(rt.path).Methods(rt.method).HandlerFunc(h)
		} else {
			m.HandleFunc(rt.path, h).Methods(rt.method)
		}
	}
	return m
}

// humaAPI has two operations as huma's users write them, and the other routes beside
// them.
func humaAPI(s *site) http.Handler {
	m := http.NewServeMux()
	api := humago.New(m, huma.DefaultConfig("The site", "1"))
	type answer struct {
		ContentType string `header:"Content-Type"`
		Body        []byte
	}
	typed := func(text string) (*answer, error) {
		return &answer{"text/html; charset=utf-8", []byte("<!doctype html>\n" + text + "\n")}, nil
	}
	huma.Register(api, huma.Operation{OperationID: "search", Method: "GET", Path: "/search"}, func(_ context.Context, in *struct {
		Q    string `query:"q"`
		Page int    `query:"page"`
	}) (*answer, error) {
		return typed("<h1>Results for " + html.EscapeString(in.Q) + "</h1>")
	})
	huma.Register(api, huma.Operation{OperationID: "comment", Method: "GET", Path: "/posts/{id}/comments/{comment}"}, func(_ context.Context, in *struct {
		ID      int    `path:"id"`
		Comment string `path:"comment"`
	}) (*answer, error) {
		if _, _, ok := s.post(func(string) string { return strconv.Itoa(in.ID) }); !ok {
			return nil, huma.Error404NotFound("no such post")
		}
		return typed("<p>Comment " + html.EscapeString(in.Comment))
	})
	for _, rt := range s.routes() {
		if rt.path == "/search" || strings.HasSuffix(rt.path, "{comment}") {
			continue
		}
		op := &huma.Operation{Method: rt.method, Path: muxPath(rt.path)}
		api.Adapter().Handle(op, func(ctx huma.Context) {
			r, w := humago.Unwrap(ctx)
			rt.handle(w, r, ctx.Param)
		})
	}
	m.HandleFunc("GET /{rest...}", notFound)
	return recovery(m)
}
