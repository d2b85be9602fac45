// Export writes a site as static files, for a host that serves nothing else: what isr
// prerenders is a page that can be kept anywhere.
//
//	go run ./examples/export -out public
//
// The site is a small one of its own. Its pages are those that its sitemap names; beside
// them there are assets, redirects, and the page for what is not there:
//
//	public/index.html           the page at /
//	public/birds/heron/index.html
//	public/style.css
//	public/404.html             what hosts show for unknown paths
//	public/_redirects           "/old/ /new/ 301", as Netlify and Cloudflare Pages read it
//
// What a page answers beside its body is lost, but for the status of those. What depends
// on a query, a header or a cookie cannot be a file.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/internal/progress"
	"github.com/isr-go/isr/sitemap"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // so that a second signal ends the program at once
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "export:", err)
		os.Exit(1)
	}
}

// run writes the site.
func run(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("export", flag.ExitOnError)
	out := flags.String("out", "public", "`folder` to write, which does not exist or is empty")
	flags.Parse(args)

	if err := os.MkdirAll(*out, 0o755); err != nil {
		return err
	}
	if old, err := os.ReadDir(*out); err != nil || len(old) > 0 {
		return errors.Join(err, fmt.Errorf("%s is not empty: a page that is gone would stay", *out))
	}
	dir, err := os.OpenRoot(*out)
	if err != nil {
		return err
	}
	defer dir.Close()

	site := isr.Wrap(newSite(), isr.Options{Origin: origin}) // kept for as long as this runs
	var untold error
	paths := slices.Collect(sitemap.Good(sitemap.Read(ctx, origin+"/sitemap.xml", sitemap.Options{Handler: site}), func(what string, err error) {
		untold = errors.Join(untold, fmt.Errorf("%s: %w", what, err))
	}))
	if untold != nil {
		return untold
	}
	paths = append(paths, assets...)
	paths = append(paths, slices.Sorted(maps.Keys(moved))...)
	paths = append(paths, "/sitemap.xml", notFound)

	w := &writer{site: site, dir: dir}
	if failed := progress.Show(stdout, "exported", len(paths), w.all(site.Prerender(ctx, slices.Values(paths)))); failed > 0 {
		return fmt.Errorf("%d of %d failed", failed, len(paths))
	}
	return w.writeRedirects()
}
