// Fleet is a small blog on three ports that share one Redis: a page is generated
// once for all of them, and a purge on one reaches the others.
//
//	go run ./examples/fleet
//
// Without -redis it starts a redis-server of its own, for as long as it runs. The
// README says what to try.
//
// The three would be three processes on three machines. Here they are three sites
// in one process, each with a connection of its own, that share Redis and the posts.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/store/redis"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // so that a second signal ends the program at once
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "fleet:", err)
		os.Exit(1)
	}
}

// run serves the blog on three ports until ctx is done.
func run(ctx context.Context, args []string, stdout io.Writer) (err error) {
	flags := flag.NewFlagSet("fleet", flag.ExitOnError)
	port := flags.Int("port", 8081, "first of three `ports` to listen on; 0 is any three that are free")
	addr := flags.String("redis", "", "`address` of a Redis, such as localhost:6379 (default: one is started)")
	secret := flags.String("secret", cmp.Or(os.Getenv("REVALIDATE_SECRET"), "only-for-a-try"), "what /api/revalidate asks for")
	flags.Parse(args)
	if *addr == "" {
		server, err := startRedis(ctx)
		if err != nil {
			return err
		}
		defer server.stop()
		*addr = server.addr
	}

	posts := newPosts()
	var instances []*instance
	defer func() {
		for _, in := range instances {
			err = errors.Join(err, in.stop())
		}
	}()
	ended := make(chan error, 3)
	for number := 1; number <= 3; number++ {
		at := "localhost:0"
		if *port != 0 {
			at = net.JoinHostPort("localhost", strconv.Itoa(*port+number-1))
		}
		ln, err := net.Listen("tcp", at)
		if err != nil {
			return err
		}
		in := newInstance(number, posts, *addr, *secret)
		instances = append(instances, in)
		for path, err := range in.site.Warm(ctx) { // what was asked for when it last ran with this Redis
			if err != nil {
				fmt.Fprintf(stdout, "instance %d: not warmed: %s %v\n", number, path, err)
			}
		}
		go func() { ended <- in.server.Serve(ln) }()
		fmt.Fprintf(stdout, "instance %d: http://%s\n", number, ln.Addr())
	}
	fmt.Fprintf(stdout, "all on Redis at %s; interrupt to end them\n", *addr)
	select {
	case err = <-ended:
	case <-ctx.Done():
	}
	return err
}

// An instance is what would be a process of its own.
type instance struct {
	server *http.Server
	site   *isr.Site
	redis  io.Closer
}

// newInstance returns one of those that share the posts and Redis.
func newInstance(number int, posts *posts, addr, secret string) *instance {
	client := &lazyClient{addr: addr}
	site := isr.Wrap(newPages(number, posts), isr.Options{
		Default: isr.Route{TTL: time.Minute, Tags: []string{"posts"}},
		Origin:  "https://blog.example", // of all of them together, on any port
		Store:   redis.Lazy(client.connect, redis.Options{Prefix: "fleet-example:"}),
		Inherit: isr.InheritOnError, // pages of other builds, where this one cannot make its own
	})
	mux := http.NewServeMux()
	mux.Handle("/", site)
	mux.Handle("/api/revalidate", isr.RevalidateHandler(site, secret))
	return &instance{&http.Server{
		Handler:           onlyLocal(mux),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      2 * time.Minute, // longer than the webhook may take
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
	}, site, client}
}

// onlyLocal answers for localhost and for IP addresses. Everybody who asks may edit, and a
// page elsewhere, whose name leads here, could have a browser ask.
func onlyLocal(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked := url.URL{Host: r.Host} // empty: not from a browser
		name := strings.TrimSuffix(asked.Hostname(), ".")
		if _, err := netip.ParseAddr(name); err != nil && r.Host != "" && !strings.EqualFold(name, "localhost") {
			http.Error(w, "ask localhost, or an IP address", http.StatusForbidden)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// stop ends the instance: the visitors first, then the writes to Redis, and
// then the connection.
func (in *instance) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return errors.Join(in.server.Shutdown(ctx), in.site.Shutdown(ctx), in.redis.Close())
}
