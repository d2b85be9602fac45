package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"html"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/alexedwards/scs/v2"
	"github.com/isr-go/isr"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	ln, err := net.Listen("tcp", cmp.Or(os.Getenv("ADDR"), "localhost:8080"))
	if err != nil {
		log.Fatal(err)
	}
	log.Print("listening on http://", ln.Addr())
	sessions := scs.New()
	sessions.IdleTimeout = 20 * time.Minute
	handler, site := newHandler(newApp(sessions), sessions)
	if err := serve(ctx, ln, handler, site); err != nil {
		log.Fatal(err)
	}
}

// newApp returns the program itself: a router, pages, and what is for one visitor.
func newApp(sessions *scs.SessionManager) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(time.Second) // a database, a CMS, a template
		fmt.Fprint(w, `<form method="post" action="/login"><input name="name"><button>Sign in</button></form>`)
	})
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		if err := sessions.RenewToken(r.Context()); err != nil {
			panic(err)
		}
		sessions.Put(r.Context(), "name", r.FormValue("name"))
		http.Redirect(w, r, "/account", http.StatusSeeOther)
	})
	mux.HandleFunc("GET /account", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "private")
		fmt.Fprintf(w, "<p>Hello, %s!", html.EscapeString(sessions.GetString(r.Context(), "name")))
	})
	return mux
}

// newHandler puts everything around the app, from the inside out.
func newHandler(app http.Handler, sessions *scs.SessionManager) (http.Handler, *isr.Site) {
	site := isr.Wrap(app, isr.Options{
		Origin:  "http://localhost:8080",
		Default: isr.Route{TTL: time.Minute},
		Routes:  map[string]isr.Route{"/account": {Bypass: isr.Always}},
		Logger:  slog.Default(),
	})
	pages := http.NewCrossOriginProtection().Handler(sessions.LoadAndSave(site))

	mux := http.NewServeMux()
	mux.Handle("/", pages)
	mux.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	if secret := os.Getenv("REVALIDATE_SECRET"); secret != "" {
		mux.Handle("/api/revalidate", isr.RevalidateHandler(site, secret))
	}
	return otelhttp.NewHandler(recovery(mux), "site"), site
}

// recovery answers 500 where next panics, and cuts the connection where it has
// written something already: half a response must not pass for a whole one.
func recovery(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out := &response{ResponseWriter: w}
		defer func() {
			v := recover()
			if v == nil {
				return
			}
			if v != http.ErrAbortHandler {
				slog.Error("panic", "path", r.URL.Path, "error", v, "stack", string(debug.Stack()))
			}
			if v == http.ErrAbortHandler || out.begun {
				panic(http.ErrAbortHandler)
			}
			http.Error(w, "Internal Server Error", http.StatusInternalServerError)
		}()
		next.ServeHTTP(out, r)
	})
}

// A response knows whether it has begun, and is private if it sets a cookie. isr
// makes it private where the cookie is there before the page; scs sets it later.
type response struct {
	http.ResponseWriter
	begun bool
}

func (w *response) WriteHeader(status int) {
	if status >= 200 && !w.begun {
		w.begun = true
		if w.Header()["Set-Cookie"] != nil {
			w.Header().Set("Cache-Control", "private, max-age=0")
		}
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *response) Write(b []byte) (int, error) {
	if !w.begun {
		w.WriteHeader(http.StatusOK)
	}
	return w.ResponseWriter.Write(b)
}

func (w *response) FlushError() error {
	if !w.begun {
		w.WriteHeader(http.StatusOK)
	}
	return http.NewResponseController(w.ResponseWriter).Flush()
}

func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// serve answers visitors until ctx is done, then ends in order: first the requests
// under way, then the pages that are generated in the background.
func serve(ctx context.Context, ln net.Listener, handler http.Handler, site *isr.Site) error {
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      time.Minute, // longer than Route.Timeout
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ln) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second) // longer than Route.Timeout
	defer cancel()
	return errors.Join(server.Shutdown(ctx), site.Shutdown(ctx))
}
