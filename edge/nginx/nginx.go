// Package nginx tells nginx of edits.
//
// A page stays in nginx for as long as it is fresh in the Site, whatever SharedMaxAge
// is, and goes when the Site is told to revalidate or purge it, at every query and in
// every variant. Nil from Tell means that no visitor who asks from then on gets what is
// older.
//
//	isr.Options{Edge: nginx.New(nginx.Options{Servers: []string{"http://127.0.0.1:8081"}})}
//
// nginx finds pages by URL, and knows neither tags nor soft purges. So
//
//   - what is named by path drops the pages at that path, of all hosts;
//   - what is named by tag, or by a prefix such as /blog/*, drops everything;
//   - what only turns stale is dropped, too: the Site shows it once more, if it may.
//
// A site that invalidates by tag once a minute begins with an empty nginx once a minute.
// Varnish is the better choice for it.
//
// nginx needs the configuration in isr.conf, beside this file. It works with every nginx:
// a page's key contains a number for its path and one for everything, which nginx keeps
// in its own cache, and to tell is to replace one of them. A hit costs two look-ups more
// for that, some 40 microseconds. A path and a query that nobody asks for any more leave
// the cache after proxy_cache_path's inactive, or when max_size is reached.
//
// The module ngx_cache_purge is not used. It drops one key at a time, and of a page with
// variants one alone, after which the others are shown again; and version 2.3, which the
// distributions have, reads nginx's memory where it was in nginx 1.7: with the nginx of
// Debian 12 a purge ends the worker.
//
// The requests go to a server that listens on the loopback interface alone. With nginx on
// another machine, let it listen on a private address, and say there with allow and deny
// who may ask. Nothing counts as success but an answer with the new number in Isr-Told,
// and the same in Isr-Generation, where nginx says what it has kept.
//
// The lifetime is in X-Accel-Expires, as a moment: nginx ignores Age. What has none is not
// kept: the configuration ignores Cache-Control and Expires, since nginx before 1.23
// takes max-age=0 for more. Do not let it ignore Vary or Set-Cookie, and do not set
// proxy_cache_revalidate, which keeps the old lifetime.
//
// Tested with nginx 1.22, that of Debian 12. Not tested: other versions, and nginx Plus.
package nginx

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/isr-go/isr/edge"
	"github.com/isr-go/isr/edge/internal/edgekit"
	"github.com/isr-go/isr/store"
)

// Options say which servers there are.
type Options struct {
	// Servers are the addresses at which all nginx servers that hold the site's pages are
	// told, such as "http://127.0.0.1:8081". All of them are told; nil means that all have
	// answered.
	Servers []string

	// Client makes the requests; redirects are not followed. Nil means one like
	// http.DefaultClient. Requests end after 10 seconds.
	Client *http.Client
}

// everything is what is told to drop all pages; else "/path" and a path.
const everything = "/all"

type nginx struct {
	servers []server
}

type server struct {
	host  string
	queue *edgekit.Queue
}

var (
	_ edge.Edge = (*nginx)(nil)
	_ edge.URLs = (*nginx)(nil)
)

// New returns an Edge for nginx; it is an edge.URLs, too. It panics if there is no
// server, or one that is no URL with a host.
func New(o Options) edge.Edge {
	if len(o.Servers) == 0 {
		panic("nginx: New: no Servers")
	}
	n := &nginx{}
	for _, s := range o.Servers {
		u, err := url.Parse(s)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			panic(fmt.Sprintf("nginx: New: %q is no URL of a server, such as http://127.0.0.1:8081", s))
		}
		client := &edgekit.Client{Name: "nginx at " + u.Host, HTTP: o.Client}
		n.servers = append(n.servers, server{u.Host, &edgekit.Queue{
			Name: client.Name, MaxItems: 1, Parallel: 4, Timeout: 10 * time.Second,
			Send: func(ctx context.Context, _ bool, items []string) error {
				return told(ctx, client, strings.TrimRight(s, "/")+"/told"+items[0])
			},
		}})
	}
	return n
}

// attempts is how often a number may be replaced by another one while it is looked at.
const attempts = 5

// told lets a server draw a new number.
func told(ctx context.Context, client *edgekit.Client, url string) error {
	for range attempts {
		res, _, err := client.Do(ctx, http.MethodGet, url, nil, nil)
		if err != nil {
			return err
		}
		drawn, kept := res.Header.Get("Isr-Told"), res.Header.Get("Isr-Generation")
		if drawn == "" || kept == "" {
			return client.Errorf("GET %s was answered with %s, but not by isr.conf", url, res.Status)
		}
		if drawn == kept {
			return nil
		}
	}
	return client.Errorf("GET %s draws numbers that nginx does not keep: look into its error log, and at its disk", url)
}

// Mark writes X-Accel-Expires.
func (n *nginx) Mark(h http.Header, tags []string) bool {
	const field = "X-Accel-Expires"
	ttl, age, ok := edgekit.Lifetime(h)
	if !ok || h[field] != nil {
		return true
	}
	value := "0" // not kept
	if left := ttl - age; left > 0 {
		value = "@" + strconv.FormatInt(time.Now().Add(left).Unix(), 10)
	}
	h[field] = []string{value}
	return true
}

// Tell drops everything: which pages have a tag nginx does not know.
func (n *nginx) Tell(ctx context.Context, effect store.Effect, tags []string) error {
	return n.tell(ctx, effect, tags, func(string) string { return everything })
}

// TellURLs drops what is at the paths of the URLs.
func (n *nginx) TellURLs(ctx context.Context, effect store.Effect, urls []string) error {
	return n.tell(ctx, effect, urls, itemOf)
}

func (n *nginx) tell(ctx context.Context, effect store.Effect, names []string, itemOf func(string) string) error {
	items := make([]string, len(names))
	for i, name := range names {
		items[i] = itemOf(name)
	}
	if slices.Contains(items, everything) {
		items = []string{everything}
	}
	failed := make([]error, len(n.servers))
	var wg sync.WaitGroup
	for i, s := range n.servers {
		wg.Go(func() { failed[i] = s.queue.Tell(ctx, effect, items) })
	}
	wg.Wait()
	return edgekit.JoinAs(names, items, failed, itemOf)
}

// itemOf returns what drops the pages at a URL. nginx compares paths without escapes: a
// slash that is part of a segment would be another path there.
func itemOf(u string) string {
	path, _, _ := strings.Cut(u, "?")
	if i := strings.Index(path, "://"); i >= 0 {
		slash := strings.IndexByte(path[i+3:], '/')
		if slash < 0 {
			return "/path/"
		}
		path = path[i+3+slash:]
	}
	plain, err := url.PathUnescape(path)
	if err != nil || !strings.HasPrefix(path, "/") || strings.HasSuffix(path, "/*") || strings.Contains(plain, "//") ||
		strings.Count(plain, "/") != strings.Count(path, "/") || strings.ContainsAny(plain, "\x00#") {
		return everything
	}
	for segment := range strings.SplitSeq(plain, "/") {
		if segment == "." || segment == ".." {
			return everything
		}
	}
	return "/path" + (&url.URL{Path: plain}).EscapedPath()
}

// String names the servers.
func (n *nginx) String() string {
	names := make([]string, len(n.servers))
	for i, s := range n.servers {
		names[i] = s.host
	}
	return "nginx at " + strings.Join(names, ", ")
}
