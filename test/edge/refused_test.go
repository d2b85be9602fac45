package edge_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/edge"
	"github.com/isr-go/isr/edge/cloudflare"
	"github.com/isr-go/isr/edge/fastly"
	"github.com/isr-go/isr/edge/nginx"
	"github.com/isr-go/isr/edge/varnish"
	"github.com/isr-go/isr/inspect"
	"github.com/isr-go/isr/internal/servers"
)

// A product that refuses the site is an error to who purges, which says which one and how
// it has answered. The secret is in no error, log or inspector, and visitors never notice.
func TestRefused(t *testing.T) {
	const secret = "s3cr3t-t0ken"
	for _, test := range []struct {
		name   string
		status int
		body   string
		edge   func(api string) edge.Edge
		says   []string
	}{
		{"a wrong token of Cloudflare's", 403, `{"success":false,"errors":[{"code":10000,"message":"Authentication error"}]}`, func(api string) edge.Edge {
			return cloudflare.New(cloudflare.Options{Zone: "z0ne", Token: secret, API: api})
		}, []string{"cloudflare: zone z0ne", "403", "10000 Authentication error"}},
		{"a wrong zone of Cloudflare's", 404, `{"success":false,"errors":[{"code":7003,"message":"Could not route"}]}`, func(api string) edge.Edge {
			return cloudflare.New(cloudflare.Options{Zone: "z0ne", Token: secret, API: api})
		}, []string{"cloudflare: zone z0ne", "404", "7003 Could not route"}},
		{"a wrong token of Fastly's", 401, `{"msg":"Provided credentials are missing or invalid"}`, func(api string) edge.Edge {
			return fastly.New(fastly.Options{Service: "s3rvice", Token: secret, API: api})
		}, []string{"fastly: service s3rvice", "401", "credentials"}},
		{"a wrong secret of Varnish's", 403, "", func(api string) edge.Edge {
			return varnish.New(varnish.Options{Servers: []string{api}, Secret: secret})
		}, []string{"varnish at 127.0.0.1", "403"}},
		{"an nginx without isr.conf", 404, "", func(api string) edge.Edge {
			return nginx.New(nginx.Options{Servers: []string{api}})
		}, []string{"nginx at 127.0.0.1", "404"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			port := servers.Origin(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(test.status)
				fmt.Fprint(w, test.body)
			}))
			var log bytes.Buffer
			site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "a page") }), isr.Options{
				Origin: "http://example.com", Edge: test.edge("http://127.0.0.1:" + port), Logger: slog.New(slog.NewTextHandler(&log, nil)),
			})
			defer func() {
				ctx, cancel := context.WithCancel(context.Background())
				cancel() // there is no waiting for what will never be taken
				site.Shutdown(ctx)
			}()
			err := site.Purge(t.Context(), "/")
			if err == nil {
				t.Fatal("no error")
			}
			var seen strings.Builder
			w := httptest.NewRecorder()
			inspect.Handler(site, inspect.Options{}).ServeHTTP(w, httptest.NewRequest("GET", "/?format=json", nil))
			fmt.Fprintf(&seen, "%+v\n%s\n%s", err, w.Body, log.String())
			for _, want := range test.says {
				if !strings.Contains(err.Error(), want) || !strings.Contains(log.String(), want) {
					t.Errorf("%q is not said: %v; log: %s", want, err, log.String())
				}
			}
			if strings.Contains(seen.String(), secret) {
				t.Errorf("the secret is said:\n%s", seen.String())
			}
			for range 2 {
				w := httptest.NewRecorder()
				site.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
				if w.Code != http.StatusOK || w.Body.String() != "a page" {
					t.Errorf("a visitor gets %d %q", w.Code, w.Body)
				}
			}
		})
	}
}
