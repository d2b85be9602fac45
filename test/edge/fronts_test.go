package edge_test

import (
	"bytes"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/isr-go/isr/internal/servers"
)

// cdn is the documentation that has the configurations.
const cdn = "../../docs/cdn.md"

// config returns the block of cdn that begins with a comment, for an origin at a port.
func config(t *testing.T, comment, origin string) string {
	t.Helper()
	text, err := os.ReadFile(cdn)
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?ms)^```[a-z]+\n(" + regexp.QuoteMeta(comment) + ".*?)^```$").FindSubmatch(text)
	if block == nil {
		t.Fatalf("%s has no block that begins with %q", cdn, comment)
	}
	if !bytes.Contains(block[1], []byte("8080")) {
		t.Fatalf("%q in %s has no origin at port 8080", comment, cdn)
	}
	return strings.ReplaceAll(string(block[1]), "8080", origin)
}

// fronts are what stands in front of a Site.
var fronts = []struct {
	name  string
	start func(t *testing.T, origin string) *servers.Server
	asIs  bool // not as cdn.md has it: measured, and without bars
}{
	{"nginx", func(t *testing.T, origin string) *servers.Server {
		return servers.Nginx(t, strings.NewReplacer("listen 80;", "listen {listen};", "/var/cache/nginx/", "{dir}/").Replace(config(t, "# nginx.conf", origin)))
	}, false},
	{"Varnish", func(t *testing.T, origin string) *servers.Server {
		return servers.Varnish(t, config(t, "vcl 4.1; # default.vcl", origin))
	}, false},
	{"Varnish, as it comes", func(t *testing.T, origin string) *servers.Server {
		return servers.Varnish(t, `vcl 4.1; backend default { .host = "127.0.0.1"; .port = "`+origin+`"; }`)
	}, true},
	{"Squid", func(t *testing.T, origin string) *servers.Server {
		return servers.Squid(t, strings.Replace(config(t, "# squid.conf", origin), "http_port 80 ", "http_port {listen} ", 1))
	}, false},
}
