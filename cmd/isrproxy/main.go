// Isrproxy puts isr in front of a site that exists already, in whatever language.
//
//	go run ./cmd/isrproxy -origin http://localhost:9000 -ttl 30s
//
// The README beside it has recipes for WordPress, MediaWiki, DokuWiki and Next.js, and
// isrproxy -help lists the flags.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/internal/progress"
	"github.com/isr-go/isr/sitemap"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // so that a second signal ends the program at once
	switch err := run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr); {
	case errors.Is(err, flag.ErrHelp):
	case errors.As(err, new(flagError)):
		fmt.Fprintln(os.Stderr, "isrproxy:", err)
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "isrproxy:", err)
		os.Exit(1)
	}
}

// run serves the site until ctx is done.
func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) (err error) {
	cfg, err := parseFlags(args, environ, stdout)
	if err != nil {
		return err
	}
	cfg.logger = slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: cfg.log}))
	ln, err := net.Listen("tcp", cfg.addr)
	if err != nil {
		return err
	}
	defer ln.Close()
	if isSelf(ctx, cfg.origin, ln.Addr()) {
		return flagError(fmt.Sprintf("-origin %q is isrproxy itself, which listens on %s: name the server behind it", cfg.origin, ln.Addr()))
	}
	if cfg.store, err = openStore(cfg.storeName, cfg.public); err != nil {
		return err
	}
	defer cfg.store.Close()
	p, err := newProxy(cfg)
	if err != nil {
		return err
	}

	ended := make(chan error, 1+len(p.admin))
	var servers []*http.Server
	serve := func(h http.Handler, ln net.Listener) {
		server := newServer(h, slog.NewLogLogger(cfg.logger.Handler(), slog.LevelDebug))
		servers = append(servers, server)
		go func() { ended <- server.Serve(ln) }()
	}
	serve(p.handler, ln)
	defer func() {
		for _, server := range servers {
			server.Close() // once more, for where one of them could not listen
		}
	}()
	fmt.Fprintf(stdout, "%s is at http://%s\n", cfg.origin, ln.Addr())
	for addr, h := range p.admin {
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			return err
		}
		serve(h, ln)
		fmt.Fprintf(stdout, "%s at http://%s\n", h.about, ln.Addr())
	}

	var background sync.WaitGroup
	serving, stop := context.WithCancel(ctx)
	if cfg.sitemap != "" {
		background.Go(func() { warm(serving, p.site, cfg.publicOrigin()+cfg.sitemap, stdout) })
	}
	select {
	case err = <-ended:
	case <-ctx.Done():
		fmt.Fprintln(stdout, "shutting down")
	}
	stop()
	background.Wait()
	return errors.Join(err, shutDown(servers, p.site, cfg.logger))
}

// grace is how long requests that are under way may take when the program is to end.
const grace = 10 * time.Second

// shutDown ends the servers: the visitors first, then what is renewed and written in the
// background. What has not finished by then is cut off: event streams do not end by
// themselves.
func shutDown(servers []*http.Server, site *isr.Site, log *slog.Logger) error {
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	var errs []error
	for _, server := range slices.Backward(servers) {
		err := server.Shutdown(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			log.Warn("requests were still under way, and are cut off", "after", grace)
			err = server.Close()
		}
		errs = append(errs, err)
	}
	ctx, cancel = context.WithTimeout(context.Background(), grace)
	defer cancel()
	return errors.Join(append(errs, site.Shutdown(ctx))...)
}

// warm asks for the pages that a sitemap of the site names.
func warm(ctx context.Context, site *isr.Site, names string, stdout io.Writer) {
	urls := sitemap.Good(sitemap.Read(ctx, names, sitemap.Options{Handler: site}), func(what string, err error) {
		fmt.Fprintf(stdout, "%q: %v\n", what, err)
	})
	progress.Show(stdout, "warmed", 0, site.Prerender(ctx, urls))
}
