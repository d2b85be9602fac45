// Package sitemap reads the URLs of a site from its sitemap, for [isr.Site.Prerender]:
// index files with the sitemaps that they name, gzip or not, as [sitemaps.org] says.
//
//	urls := sitemap.Good(sitemap.Read(ctx, "https://example.com/sitemap.xml", sitemap.Options{}), logError)
//	for url, err := range site.Prerender(ctx, urls) {
//
// What is read is bounded in bytes, in number and in time, and only what is at the
// origin of the first sitemap is asked for, or passed on, unless Options say otherwise: a
// sitemap that somebody else could write cannot have a program ask other servers.
//
// [isr.Site.Prerender]: https://pkg.go.dev/github.com/isr-go/isr#Site.Prerender
// [sitemaps.org]: https://www.sitemaps.org/protocol.html
package sitemap

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// What the protocol allows.
const (
	maxURLs     = 50_000 // in one file
	maxURLBytes = 2048
)

// maxDepth is how many index files may lie one in another. The protocol allows one.
const maxDepth = 3

// Options bound what [Read] does. The zero value is for a site of one's own.
type Options struct {
	// Handler, if not nil, is asked for the sitemaps, instead of the network: a site that
	// is not listening yet can be prerendered from its own. Its requests are GETs for
	// the whole URL.
	Handler http.Handler

	// Client asks for the sitemaps, where Handler is nil. Nil means http.DefaultClient.
	// Its CheckRedirect is not called.
	Client *http.Client

	// AnyOrigin passes on URLs of other origins than that of the first sitemap, and asks
	// for sitemaps there.
	AnyOrigin bool

	// MaxBytes is the size of the largest file, unpacked. Zero means 50 MiB, which is
	// the protocol's own bound.
	MaxBytes int64

	// MaxFiles is how many files are read, index files included; that there are more is
	// an error, once. Zero means 1,000.
	MaxFiles int

	// MaxURLs is how many URLs are passed on, of all files together; then there is an
	// error, and an end. Zero means a million.
	MaxURLs int

	// Timeout is how long one file may take, from the request to its end. Zero means a
	// minute. How long all of them take, ctx says.
	Timeout time.Duration
}

// Read returns the URLs in the sitemap at an absolute URL, and in those that it names
// where it is an index, in their order. It reads while it is ranged over: one file after
// the other, each to its end before its first URL is passed on, so that no connection
// waits for what takes the URLs.
//
// Each element is a URL, or an error with what it is about: the URL of a file that
// cannot be read, or a URL that is none or of another origin. After it Read goes on
// with what is left, unless ctx is done. Of a file that breaks off, what comes before that
// is passed on. The result may be ranged over again, and then reads again.
//
// Read panics if one of the Options is negative.
func Read(ctx context.Context, sitemap string, opts Options) iter.Seq2[string, error] {
	if opts.MaxBytes < 0 || opts.MaxFiles < 0 || opts.MaxURLs < 0 || opts.Timeout < 0 {
		panic(fmt.Sprintf("isr/sitemap: Options: negative MaxBytes (%d), MaxFiles (%d), MaxURLs (%d) or Timeout (%s)",
			opts.MaxBytes, opts.MaxFiles, opts.MaxURLs, opts.Timeout))
	}
	opts.MaxBytes = cmp.Or(opts.MaxBytes, 50<<20)
	opts.MaxFiles = cmp.Or(opts.MaxFiles, 1000)
	opts.MaxURLs = cmp.Or(opts.MaxURLs, 1_000_000)
	opts.Timeout = cmp.Or(opts.Timeout, time.Minute)
	return func(yield func(string, error) bool) {
		first, err := parse(sitemap)
		if err != nil {
			yield(sitemap, err)
			return
		}
		r := &reader{Options: opts, origin: originOf(first), seen: map[string]bool{sitemap: true}, yield: yield}
		r.client = r.newClient()
		r.read(ctx, []file{{url: first, name: sitemap}})
	}
}

// Good returns the URLs alone, for [isr.Site.Prerender], and tells of the rest: the error
// and what it is about. A nil tell ignores them.
//
// [isr.Site.Prerender]: https://pkg.go.dev/github.com/isr-go/isr#Site.Prerender
func Good(all iter.Seq2[string, error], tell func(what string, err error)) iter.Seq[string] {
	return func(yield func(string) bool) {
		for url, err := range all {
			if err == nil {
				if !yield(url) {
					return
				}
			} else if tell != nil {
				tell(url, err)
			}
		}
	}
}

// A file is one that is to be read.
type file struct {
	url   *url.URL
	name  string // as it was written
	depth int    // of the index files that have led there
}

// A reader reads all files of one call.
type reader struct {
	Options
	client  *http.Client
	origin  string
	seen    map[string]bool // files by name; those that are read, or will be
	tooMany bool            // whether that was said
	passed  int             // URLs
	yield   func(string, error) bool
}

// read reads files, and those that they name, depth first, until yield says no more.
func (r *reader) read(ctx context.Context, todo []file) {
	for len(todo) > 0 {
		f := todo[0]
		todo = todo[1:]
		entries, index, err := r.fetch(ctx, f)
		if index && f.depth == maxDepth {
			entries, err = nil, fmt.Errorf("more than %d index files one in another", maxDepth)
		}
		var more []file
		for _, e := range entries {
			u, bad := r.check(e)
			switch {
			case bad != nil:
				if !r.yield(e, bad) {
					return
				}
			case !index && r.passed == r.MaxURLs:
				r.yield(e, fmt.Errorf("sitemap: more than %d URLs", r.MaxURLs))
				return
			case !index:
				r.passed++
				if !r.yield(e, nil) {
					return
				}
			case r.seen[e]:
			case len(r.seen) < r.MaxFiles:
				r.seen[e] = true
				more = append(more, file{u, e, f.depth + 1})
			case !r.tooMany:
				r.tooMany = true
				if !r.yield(e, fmt.Errorf("sitemap: more than %d files", r.MaxFiles)) {
					return
				}
			}
		}
		if err != nil && !r.yield(f.name, fmt.Errorf("sitemap: %w", err)) || ctx.Err() != nil {
			return
		}
		todo = append(more, todo...)
	}
}

// check returns the URL that a sitemap names.
func (r *reader) check(name string) (*url.URL, error) {
	u, err := parse(name)
	if err == nil && !r.AnyOrigin && originOf(u) != r.origin {
		err = fmt.Errorf("sitemap: is not at %s", r.origin)
	}
	return u, err
}

func parse(name string) (*url.URL, error) {
	if len(name) >= maxURLBytes {
		return nil, fmt.Errorf("sitemap: a URL has less than %d bytes, not %d", maxURLBytes, len(name))
	}
	u, err := url.Parse(name)
	if wrong := (*url.Error)(nil); errors.As(err, &wrong) {
		err = wrong.Err // without the URL once more
	}
	if err == nil && (u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
		err = errors.New("want a whole URL, with http:// or https://")
	}
	if err != nil {
		return nil, fmt.Errorf("sitemap: %w", err)
	}
	return u, nil
}

// originOf returns scheme, host and port, so that equal origins have equal ones.
func originOf(u *url.URL) string {
	port := u.Port()
	if port == "" || u.Scheme == "http" && port == "80" || u.Scheme == "https" && port == "443" {
		port = ""
	} else {
		port = ":" + port
	}
	host := strings.ToLower(u.Hostname())
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return u.Scheme + "://" + host + port
}

// newClient returns a client that goes to no other origin, unless it may.
func (r *reader) newClient() *http.Client {
	client := *cmp.Or(r.Client, http.DefaultClient)
	if r.Handler != nil {
		client.Transport = handlerTransport{r.Handler}
	}
	client.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		if len(via) >= 10 {
			return errors.New("more than 10 redirects")
		}
		if !r.AnyOrigin && originOf(req.URL) != r.origin {
			return fmt.Errorf("redirects to %s, which is not at %s", req.URL, r.origin)
		}
		return nil
	}
	return &client
}

// fetch reads one file. Where it breaks off, there is an error beside what it names.
func (r *reader) fetch(ctx context.Context, f file) (entries []string, index bool, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, r.Timeout, fmt.Errorf("not read within %s", r.Timeout))
	defer cancel()
	defer func() {
		if err != nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
	}()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.url.String(), nil)
	if err != nil {
		return nil, false, err
	}
	res, err := r.client.Do(req)
	if err != nil {
		if wrong := (*url.Error)(nil); errors.As(err, &wrong) {
			err = wrong.Err
		}
		return nil, false, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		io.CopyN(io.Discard, res.Body, 4<<10) // so that the connection can be used again
		return nil, false, fmt.Errorf("the answer is %d", res.StatusCode)
	}
	return decode(res.Body, r.MaxBytes)
}
