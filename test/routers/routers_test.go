package main

import (
	"bufio"
	"context"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// With isr around a router, every answer is what it is without, but for the
// differences that have a reason; and the README names these.
func TestSameAsWithout(t *testing.T) {
	rep, err := compareAll()
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range rep.unexplained {
		t.Error(u)
	}
	for i, found := range rep.found {
		if len(found) == 0 {
			t.Errorf("nothing differs in that %s", differences[i].what)
		}
	}
	text, err := os.ReadFile(readme)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), begin+rep.table()+end) {
		t.Error("README.md has another table: go -C test/routers run .")
	}
}

// eachRouter runs a test for each router, without isr and with it.
func eachRouter(t *testing.T, protocol string, f func(t *testing.T, c *client, s *site)) {
	for _, r := range routers {
		for name, build := range map[string]func(*site) http.Handler{"without isr": r.off, "with isr": r.on} {
			t.Run(r.name+" "+name, func(t *testing.T) {
				c, s, err := start(build, protocol)
				if err != nil {
					t.Fatal(err)
				}
				defer c.close()
				f(t, c, s)
			})
		}
	}
}

// A websocket talks with the handler, through scs, isr and the router.
func TestWebsocket(t *testing.T) {
	eachRouter(t, "h1", func(t *testing.T, c *client, _ *site) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		for range 2 {
			ws, _, err := websocket.Dial(ctx, c.url+"/ws", nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, text := range []string{"hello", "again"} {
				if err := ws.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
					t.Fatal(err)
				}
				if _, b, err := ws.Read(ctx); err != nil || string(b) != "you said "+text {
					t.Errorf("got %q, %v", b, err)
				}
			}
			ws.CloseNow()
		}
	})
}

// What a handler flushes on a bypassed route, and an event of any route, arrives
// before the handler has ended.
func TestFlush(t *testing.T) {
	for _, protocol := range protocols {
		for _, path := range []string{"/live/gate", "/events/gate"} {
			t.Run(protocol+path, func(t *testing.T) {
				eachRouter(t, protocol, func(t *testing.T, c *client, s *site) {
					ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
					defer cancel()
					r, err := http.NewRequestWithContext(ctx, "GET", c.url+path, nil)
					if err != nil {
						t.Fatal(err)
					}
					res, err := c.transport.RoundTrip(r)
					if err != nil {
						t.Fatal(err)
					}
					defer res.Body.Close()
					lines := bufio.NewReader(res.Body)
					if line, err := lines.ReadString('\n'); line != "data: before\n" {
						t.Fatalf("got %q, %v", line, err)
					}
					close(s.gate)
					if line, err := lines.ReadString('\n'); line != "data: after\n" {
						t.Errorf("got %q, %v", line, err)
					}
				})
			})
		}
	}
}
