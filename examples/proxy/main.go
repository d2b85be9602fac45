// Proxy puts isr in front of a site that exists already, in whatever language.
//
//	go run ./examples/proxy -origin http://localhost:9000 -ttl 30s
//
// Then open http://localhost:8080. Pages are asked for at the origin once, served
// from memory, and renewed in the background when they are older than 30 seconds;
// when the origin is down, the last good pages are kept. An origin that
// sends Last-Modified or an ETag is asked whether a page has changed, and need not
// send it again. What is not a page (forms, uploads, websockets) goes through.
//
// The origin's own Cache-Control decides, where it sends one. -ttl is for pages
// without.
//
// The origin is asked under one name, whatever name a visitor uses: its own, or
// that of -public, such as https://example.com, for sites that make absolute links
// or tell their hosts apart by name.
//
// With -sitemap, the pages that the origin's sitemap names are asked for at the start,
// so that no visitor waits for them.
//
// Pages are the same for everyone: the origin sees no cookies when it is asked for
// one. If people can log in, name their cookie with -session, and a visitor who has it
// passes the cache. Pages that set a cookie, or say that they are private, are
// never kept.
//
// For a page, the origin sees X-Forwarded-For: 0.0.0.0, because it is for no visitor
// in particular; for what goes through, the visitor's address. It is never missing: an
// origin that trusts a proxy on its own machine would take a request without it for
// one of its own.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/examples/internal/progress"
	"github.com/isr-go/isr/sitemap"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // so that a second signal ends the program at once
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "proxy:", err)
		os.Exit(1)
	}
}

// run serves the site until ctx is done.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("proxy", flag.ExitOnError)
	addr := flags.String("addr", "localhost:8080", "`address` to listen on")
	origin := flags.String("origin", "", "`URL` of the site, such as http://localhost:9000")
	public := flags.String("public", "", "`URL` under which visitors know the site (default: the origin's)")
	session := flags.String("session", "", "`name` of a cookie whose owners go past the cache")
	names := flags.String("sitemap", "", "`path` of the origin's sitemap, such as /sitemap.xml: its pages are prerendered")
	ttl := flags.Duration("ttl", 30*time.Second, "how long a page is fresh, unless the origin says so itself; 0 is for good")
	var level slog.Level
	flags.TextVar(&level, "log", slog.LevelDebug, "`level` of the log: debug has every visit, info what is generated, error the failures")
	flags.Parse(args)

	cfg := config{ttl: *ttl, session: *session, log: slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level}))}
	var err error
	if cfg.origin, err = parseURL("-origin", *origin); err != nil {
		return err
	}
	if cfg.public, err = parseURL("-public", cmp.Or(*public, cfg.origin.Scheme+"://"+cfg.origin.Host)); err != nil {
		return err
	}
	if cfg.public.Path != "" && cfg.public.Path != "/" {
		return fmt.Errorf("-public %q: want no path", *public)
	}
	if *names != "" && !strings.HasPrefix(*names, "/") {
		return fmt.Errorf("-sitemap %q: want a path, such as /sitemap.xml", *names)
	}
	site := newSite(cfg)

	ln, err := net.Listen("tcp", *addr)
	if err != nil {
		return err
	}
	server := newServer(site)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ln) }()
	fmt.Fprintf(stdout, "%s is at http://%s\n", cfg.origin, ln.Addr())
	if *names != "" {
		var background sync.WaitGroup
		serving, stop := context.WithCancel(ctx)
		defer func() {
			stop()
			background.Wait()
		}()
		background.Go(func() { prerender(serving, site, cfg.public.Scheme+"://"+cfg.public.Host+*names, stdout) })
	}
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	fmt.Fprintln(stdout, "shutting down")
	// The visitors first, then the pages that are being renewed in the background.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return errors.Join(server.Shutdown(ctx), site.Shutdown(ctx))
}

// prerender asks for the pages that a sitemap of the site names.
func prerender(ctx context.Context, site *isr.Site, names string, stdout io.Writer) {
	urls := sitemap.Good(sitemap.Read(ctx, names, sitemap.Options{Handler: site}), func(what string, err error) {
		fmt.Fprintf(stdout, "%q: %v\n", what, err)
	})
	progress.Show(stdout, "prerendered", 0, site.Prerender(ctx, urls))
}

// A visitor who says nothing, or takes nothing, keeps a connection for so long. What
// goes through may take longer, as long as it moves: see steady.
const (
	patience = time.Minute     // for a whole request, and for the next bytes of what goes through
	reading  = 2 * time.Minute // for a whole page, from the request on
)

func newServer(site http.Handler) *http.Server {
	return &http.Server{
		Handler:           site,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       patience,
		WriteTimeout:      reading,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
	}
}

// parseURL reads the address of a site.
func parseURL(name, value string) (*url.URL, error) {
	u, err := url.Parse(value)
	switch {
	case value == "":
		err = errors.New("is missing")
	case err != nil:
		err = errors.Unwrap(err) // without the value once more
	case u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		err = errors.New("has no http:// or https:// and host")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		err = errors.New("has more than a scheme, a host and a path")
	default:
		return u, nil
	}
	return nil, fmt.Errorf("%s %q: %w; want something like http://localhost:9000", name, value, err)
}

type config struct {
	origin, public *url.URL
	ttl            time.Duration
	session        string // a cookie, or empty
	log            *slog.Logger
	transport      http.RoundTripper // to the origin; nil: an ordinary one
}

// newSite returns the site that is at the origin, with isr in front.
func newSite(cfg config) *isr.Site {
	return isr.Wrap(steady(newProxy(cfg)), isr.Options{
		Default: isr.Route{TTL: cfg.ttl, Bypass: hasCookie(cfg.session)},
		// One site, under whatever name it is asked for.
		Origin: cfg.public.Scheme + "://" + cfg.public.Host,
		Logger: cfg.log,
	})
}

func hasCookie(name string) func(*http.Request) bool {
	return func(r *http.Request) bool {
		return name != "" && len(r.CookiesNamed(name)) > 0
	}
}

func newProxy(cfg config) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(cfg.origin)
			r.SetXForwarded()
			// Requests for pages and those that go through must agree on where the
			// site is, or its links lead to two places.
			r.Out.Host = cfg.public.Host
			r.Out.Header.Set("X-Forwarded-Host", cfg.public.Host)
			r.Out.Header.Set("X-Forwarded-Proto", cfg.public.Scheme)
		},
		Transport: cfg.transport,
		ErrorLog:  slog.NewLogLogger(cfg.log.Handler(), slog.LevelError),
	}
}

// steady lets uploads, downloads and event streams take as long as they move: the
// server's deadlines are for the whole of a request and of an answer, these are for
// each part. The deadlines of a page are its route's.
func steady(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := http.NewResponseController(w)
		c.SetReadDeadline(time.Time{}) // errors: it is a page
		c.SetWriteDeadline(time.Time{})
		defer func() { c.SetWriteDeadline(time.Now().Add(patience)) }() // for what is still to be sent
		if r.Body != nil && r.Body != http.NoBody {
			r = r.WithContext(r.Context())
			r.Body = &steadyBody{r.Body, c}
		}
		h.ServeHTTP(&steadyWriter{w, c}, r)
	})
}

type steadyBody struct {
	io.ReadCloser
	c *http.ResponseController
}

func (b *steadyBody) Read(p []byte) (int, error) {
	b.c.SetReadDeadline(time.Now().Add(patience))
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		b.c.SetReadDeadline(time.Time{}) // from here on, it is the answer that takes time
	}
	return n, err
}

type steadyWriter struct {
	http.ResponseWriter
	c *http.ResponseController
}

func (w *steadyWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *steadyWriter) Write(p []byte) (int, error) {
	w.c.SetWriteDeadline(time.Now().Add(patience))
	defer w.c.SetWriteDeadline(time.Time{}) // the next part may be long in coming
	return w.ResponseWriter.Write(p)
}

func (w *steadyWriter) FlushError() error {
	w.c.SetWriteDeadline(time.Now().Add(patience))
	defer w.c.SetWriteDeadline(time.Time{})
	return w.c.Flush()
}
