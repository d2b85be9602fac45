package nginx_test

import (
	"net"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/isr-go/isr/edge/edgetest"
	"github.com/isr-go/isr/edge/nginx"
	"github.com/isr-go/isr/internal/servers"
)

// conf returns isr.conf for an origin at a port, with its own server at another.
func conf(tb testing.TB, origin, own string) string {
	tb.Helper()
	b, err := os.ReadFile("isr.conf")
	if err != nil {
		tb.Fatal(err)
	}
	s := string(b)
	for _, r := range [][2]string{
		{"listen 80;", "listen {listen};"}, {"127.0.0.1:8080", "127.0.0.1:" + origin}, {"127.0.0.1:8081", "127.0.0.1:" + own},
		{"/var/cache/nginx/", "{dir}/"}, {"keys_zone=isr:50m", "keys_zone=isr:1m"}, {"keys_zone=isr_generations:20m", "keys_zone=isr_generations:1m"},
	} {
		if !strings.Contains(s, r[0]) {
			tb.Fatalf("isr.conf has no %q", r[0])
		}
		s = strings.ReplaceAll(s, r[0], r[1])
	}
	return s
}

func freePort(tb testing.TB) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// The configuration to copy.
func TestNginx(t *testing.T) {
	t.Parallel()
	edgetest.Run(t, func(t *testing.T, origin http.Handler) edgetest.Config {
		own, at := freePort(t), servers.Origin(t, origin)
		front := servers.Nginx(t, conf(t, at, own))
		return edgetest.Config{
			Edge:   nginx.New(nginx.Options{Servers: []string{"http://127.0.0.1:" + own}}),
			URL:    front.URL,
			Coarse: true,
			Pause:  front.Pause,
			// One that has another configuration: it passes the request on.
			Refused: nginx.New(nginx.Options{Servers: []string{front.URL}}),
			Names:   strings.TrimPrefix(front.URL, "http://"),
		}
	})
}
