package main

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/store/redis"
)

// needRedis starts a Redis that ends with the test.
func needRedis(t *testing.T) *redisServer {
	t.Helper()
	return mustStart(t, needProgram(t, "redis-server"))
}

// far returns an address at which a server answers as if it were a time away, there and
// back.
func far(t *testing.T, addr string, away time.Duration) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			here, err := l.Accept()
			if err != nil {
				return
			}
			there, err := net.Dial("tcp", addr)
			if err != nil {
				here.Close()
				continue
			}
			go delay(there, here, away/2)
			go delay(here, there, away/2)
		}
	}()
	return l.Addr().String()
}

// delay copies what is sent, a while later.
func delay(to, from net.Conn, by time.Duration) {
	defer to.Close()
	type part struct {
		b  []byte
		at time.Time
	}
	parts := make(chan part, 1024)
	go func() {
		defer close(parts)
		for {
			b := make([]byte, 32<<10)
			n, err := from.Read(b)
			if n > 0 {
				parts <- part{b[:n], time.Now().Add(by)}
			}
			if err != nil {
				return
			}
		}
	}()
	for p := range parts {
		time.Sleep(time.Until(p.at))
		if _, err := to.Write(p.b); err != nil {
			from.Close()
		}
	}
}

func at(addr string) rueidis.ClientOption {
	return rueidis.ClientOption{InitAddress: []string{addr}}
}

// instance returns a site on a Redis, and counts what it generates.
func instance(t *testing.T, option rueidis.ClientOption, generated *atomic.Int64) *isr.Site {
	t.Helper()
	client, err := rueidis.NewClient(option)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		generated.Add(1)
		fmt.Fprint(w, r.URL.Path)
	}), isr.Options{
		Origin: "https://example.com", Version: "1", Store: redis.New(client, redis.Options{}),
		Default: isr.Route{TTL: time.Hour},
		Observe: func(e isr.Event) {
			if e.Kind == isr.StoreFailed {
				t.Log(e.Err)
			}
		},
	})
	t.Cleanup(func() { site.Shutdown(t.Context()) })
	return site
}

func visit(t *testing.T, site *isr.Site, path string) string {
	t.Helper()
	w := httptest.NewRecorder()
	site.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
	return w.Body.String()
}

// Where Redis is 50 ms away, what is stored there is shown, and not generated once more:
// one after another, and all at once, by an instance that has just started. A machine that
// is busy with something else for longer than a look may take gets another chance.
func TestFarAway(t *testing.T) {
	t.Parallel()
	server := needRedis(t)
	const pages = 200
	var first atomic.Int64
	near := instance(t, at(server.addr), &first)
	for i := range pages {
		visit(t, near, fmt.Sprint("/", i))
	}
	near.Shutdown(t.Context()) // until all is stored
	if n := first.Load(); n != pages {
		t.Errorf("%d generations of %d pages", n, pages)
	}
	visitAll := func(t *testing.T, pages, atOnce int) (generated int64) {
		var n atomic.Int64
		site := instance(t, at(far(t, server.addr, 50*time.Millisecond)), &n)
		var all sync.WaitGroup
		turn := make(chan struct{}, atOnce)
		for i := range pages {
			turn <- struct{}{}
			all.Go(func() {
				defer func() { <-turn }()
				if path := fmt.Sprint("/", i); visit(t, site, path) != path {
					t.Errorf("%s is another page", path)
				}
			})
		}
		all.Wait()
		return n.Load()
	}
	for name, n := range map[string]struct{ pages, atOnce int }{"one after another": {pages / 5, 1}, "at once": {pages, pages}} {
		t.Run(name, func(t *testing.T) {
			for attempt := 1; ; attempt++ {
				generated := visitAll(t, n.pages, n.atOnce)
				if generated == 0 {
					return
				}
				if attempt == 3 {
					t.Fatalf("%d of %d pages were generated, though they were stored", generated, n.pages)
				}
			}
		})
	}
}
