// Blog is a small blog with a CMS behind it, served through isr.
//
//	go run ./examples/blog
//
// Then open http://localhost:8080, and its /admin, where posts are edited and the
// CMS is made slow, failing or hanging, and which says what to watch meanwhile.
//
// It is a demonstration: the admin has no login, and what is edited there is
// lost when the program ends. So it listens on localhost, and answers for no
// other names than localhost, an IP address and that of -origin: a page elsewhere
// whose name leads here (DNS rebinding) could else edit posts in your browser.
package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/inspect"
	"github.com/isr-go/isr/internal/progress"
)

//go:embed posts/*.txt templates/*.html style.css
var files embed.FS

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // so that a second signal ends the program at once
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "blog:", err)
		os.Exit(1)
	}
}

// run serves the blog until ctx is done.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("blog", flag.ExitOnError)
	addr := flags.String("addr", "localhost:8080", "`address` to listen on")
	origin := flags.String("origin", "", "public `URL` of the site (default: http:// and the address)")
	secret := flags.String("secret", "", "what /api/revalidate asks for (default: $REVALIDATE_SECRET, else a random one)")
	ttl := flags.Duration("ttl", 10*time.Second, "how long the index is fresh; posts are for three times as long, and 0 is until revalidated")
	var verbosity slog.Level
	flags.TextVar(&verbosity, "log", slog.LevelDebug, "`level` of the log: debug has every visit, info what is generated, error the failures")
	flags.Parse(args)

	mode, err := modeOf(os.Getenv("ISR_MODE"))
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", *addr)
	if err != nil {
		return err
	}
	defer ln.Close()
	level := new(slog.LevelVar)
	local := localURL(*addr, ln)
	cfg := config{
		origin:  cmp.Or(*origin, local),
		webhook: "http://" + ln.Addr().String() + "/api/revalidate",
		secret:  cmp.Or(*secret, os.Getenv("REVALIDATE_SECRET")),
		ttl:     *ttl,
		mode:    mode,
		log:     newLogger(stderr, level),
	}
	if err := checkOrigin(cfg.origin); err != nil {
		return err
	}
	shown := "$REVALIDATE_SECRET"
	switch {
	case cfg.secret == "":
		cfg.secret = rand.Text()
		shown = cfg.secret // it is for this run alone, and cannot be guessed
	case *secret != "":
		shown = "…"
	}
	blog, err := newBlog(cfg)
	if err != nil {
		return err
	}

	level.Set(max(verbosity, slog.LevelWarn)) // the progress says it already
	blog.prerender(ctx, stdout)
	level.Set(verbosity)

	fmt.Fprintf(stdout, "\nthe blog:  %s\nthe admin: %s/admin\nwhat is cached: %s/debug/isr\nrenew a page: curl -X POST -H \"Authorization: Bearer %s\" \"%s/api/revalidate?path=/about\"\n\n",
		local, local, local, shown, local)
	if tcp, ok := ln.Addr().(*net.TCPAddr); ok && !tcp.IP.IsLoopback() {
		fmt.Fprintf(stdout, "Mind that the admin has no login, and that %s is not loopback: everybody who reaches it may edit.\n\n", ln.Addr())
	}

	server := &http.Server{
		Handler:           blog.handler,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      time.Minute, // longer than the webhook may take
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
	fmt.Fprintln(stdout, "shutting down")
	// The visitors first, then the pages that are being renewed in the background.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return errors.Join(server.Shutdown(ctx), blog.site.Shutdown(ctx))
}

// config is what differs between the program and its tests.
type config struct {
	origin  string // public
	webhook string // where the CMS reaches /api/revalidate
	secret  string
	ttl     time.Duration
	mode    isr.Mode
	log     *slog.Logger
	client  *http.Client // of the CMS; nil: an ordinary one
}

// A blog is the site and all that stands around it.
type blog struct {
	cms     *cms
	site    *isr.Site
	handler http.Handler
}

func newBlog(cfg config) (*blog, error) {
	posts, err := fs.Sub(files, "posts")
	if err != nil {
		return nil, err
	}
	cms, err := newCMS(posts)
	if err != nil {
		return nil, err
	}
	recorder := new(inspect.Recorder)
	site := isr.Wrap(newPages(cms, cfg.ttl), isr.Options{
		Routes: routes(cfg.ttl),
		// However a visitor spells the host (localhost, 127.0.0.1), it is the same
		// page; and prerendering has to know for which host a page is.
		Origin:  cfg.origin,
		Mode:    cfg.mode,
		Logger:  cfg.log,
		Observe: recorder.Observe,
	})
	admin := newAdmin(cms, &webhook{client: cmp.Or(cfg.client, &http.Client{Timeout: 30 * time.Second}), url: cfg.webhook, secret: cfg.secret})

	mux := http.NewServeMux()
	mux.Handle("/", site)
	mux.Handle("/debug/isr", inspect.Handler(site, inspect.Options{Actions: true, Recorder: recorder})) // where the admin is, and for the same hosts
	mux.Handle("/admin", admin)
	mux.Handle("/admin/", admin)
	mux.Handle("/api/revalidate", isr.RevalidateHandler(site, cfg.secret))
	return &blog{cms, site, onlyFor(cfg.origin, mux)}, nil
}

// modeOf returns the mode that has a name: while one works on the templates, each visit
// should have its page made anew.
func modeOf(name string) (isr.Mode, error) {
	switch name {
	case "", "on":
		return isr.On, nil
	case "develop":
		return isr.Develop, nil
	case "off":
		return isr.Off, nil
	}
	return isr.On, fmt.Errorf("ISR_MODE=%s: want on, develop or off", name)
}

// onlyFor answers for the host of the origin, for localhost and for IP addresses:
// names that no other site can point here.
func onlyFor(origin string, h http.Handler) http.Handler {
	own := ""
	if u, err := url.Parse(origin); err == nil {
		own = nameOf(u)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := nameOf(&url.URL{Host: r.Host})
		if _, err := netip.ParseAddr(name); err != nil && !strings.EqualFold(name, "localhost") && !strings.EqualFold(name, own) {
			http.Error(w, fmt.Sprintf("There is no host %q here. If it is yours, start the blog with -origin.", r.Host), http.StatusForbidden)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// nameOf returns the name of a URL's host, without the dot that may end it.
func nameOf(u *url.URL) string { return strings.TrimSuffix(u.Hostname(), ".") }

// patience is how long a page may take. It is longer than slowness, so that a
// slow CMS makes slow pages and a hanging one makes none.
const patience = 3 * time.Second

// routes says how long the pages are fresh. Their tags are those of what they show.
func routes(ttl time.Duration) map[string]isr.Route {
	none := []string{} // so that /?utm_source=x is the page at /
	return map[string]isr.Route{
		"/{$}":         {TTL: ttl, Query: none, Timeout: patience},
		"/post/{slug}": {TTL: 3 * ttl, Query: none, Timeout: patience},
		"/tag/{tag}":   {TTL: ttl, Query: none, Timeout: patience},
		// Searches cannot be prerendered, so people get a placeholder meanwhile.
		"/search": {TTL: ttl, Query: []string{"q"}, Timeout: patience, Placeholder: http.HandlerFunc(searching)},
		// These are kept until they are revalidated on demand.
		"/about":     {Query: none, Timeout: patience},
		"/style.css": {Query: none},
	}
}

// prerender makes all pages that are known, so that no visitor waits for them.
func (b *blog) prerender(ctx context.Context, stdout io.Writer) {
	paths := []string{"/", "/about", "/search", "/style.css"}
	posts := b.cms.all()
	for _, p := range posts {
		paths = append(paths, p.Path())
	}
	for _, t := range tagsOf(posts) {
		paths = append(paths, "/tag/"+t)
	}
	progress.Show(stdout, "prerendered", len(paths), b.site.Prerender(ctx, slices.Values(paths)))
}

// localURL is where a browser on this machine finds the listener.
func localURL(addr string, ln net.Listener) string {
	host, _, _ := net.SplitHostPort(addr)
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		host = "localhost"
	}
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	return "http://" + net.JoinHostPort(host, port)
}

// checkOrigin is for what comes from the command line: isr.Wrap panics.
func checkOrigin(origin string) error {
	u, err := url.Parse(origin)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Scheme+"://"+u.Host != strings.TrimSuffix(origin, "/") {
		return fmt.Errorf("-origin %q: want a scheme and a host, such as https://blog.example", origin)
	}
	return nil
}

// newLogger returns a logger for people who watch it.
func newLogger(w io.Writer, level slog.Leveler) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{
		Level: level,
		// Short times, and nothing that is empty.
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			switch a.Value.Kind() {
			case slog.KindString, slog.KindInt64:
				if a.Value.String() == "" || a.Value.String() == "0" {
					return slog.Attr{}
				}
			case slog.KindTime:
				a.Value = slog.StringValue(a.Value.Time().Format("15:04:05.000"))
			case slog.KindDuration:
				if a.Value.Duration() == 0 {
					return slog.Attr{}
				}
				a.Value = slog.DurationValue(a.Value.Duration().Round(time.Microsecond))
			}
			return a
		},
	}))
}
