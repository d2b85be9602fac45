package varnish_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/isr-go/isr/edge/edgetest"
	"github.com/isr-go/isr/edge/varnish"
	"github.com/isr-go/isr/internal/servers"
)

// vcl returns a file of this folder, for an origin at a port and with a secret.
func vcl(tb testing.TB, file, port, secret string) string {
	tb.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		tb.Fatal(err)
	}
	s := string(b)
	replace := func(old, new string) {
		if !strings.Contains(s, old) {
			tb.Fatalf("%s has no %q", file, old)
		}
		s = strings.ReplaceAll(s, old, new)
	}
	replace(`.port = "8080"`, `.port = "`+port+`"`)
	if secret != "" {
		replace("\t\t# if (req.http.Isr-Secret", "\t\tif (req.http.Isr-Secret")
		replace("change me", secret)
		replace("\t\t#\treturn (synth(403, \"Wrong secret\"));", "\t\t\treturn (synth(403, \"Wrong secret\"));")
		replace("\t\t# }", "\t\t}")
	}
	return s
}

func config(file string) func(t *testing.T, origin http.Handler) edgetest.Config {
	return func(t *testing.T, origin http.Handler) edgetest.Config {
		const secret = "s3cret"
		front := servers.Varnish(t, vcl(t, file, servers.Origin(t, origin), secret))
		return edgetest.Config{
			Edge:    varnish.New(varnish.Options{Servers: []string{front.URL}, Secret: secret}),
			URL:     front.URL,
			Pause:   front.Pause,
			Refused: varnish.New(varnish.Options{Servers: []string{front.URL}, Secret: "wr0ng"}),
			Secret:  "wr0ng",
			Names:   strings.TrimPrefix(front.URL, "http://"),
		}
	}
}

// With varnish-modules.
func TestXkey(t *testing.T) {
	servers.Need(t, "varnishd", "varnish")
	needXkey(t)
	t.Parallel()
	edgetest.Run(t, config("xkey.vcl"))
}

// Without them.
func TestBan(t *testing.T) {
	servers.Need(t, "varnishd", "varnish")
	t.Parallel()
	edgetest.Run(t, config("ban.vcl"))
}

// needXkey skips a test where there are no varnish-modules.
func needXkey(t *testing.T) {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib/*/varnish/vmods/libvmod_xkey.so")
	if more, _ := filepath.Glob("/usr/lib/varnish/vmods/libvmod_xkey.so"); len(found)+len(more) == 0 {
		servers.Need(t, "/usr/lib/varnish/vmods/libvmod_xkey.so", "varnish-modules")
	}
}
