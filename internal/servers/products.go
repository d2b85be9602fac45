package servers

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// CachePurge is the module of Debian's libnginx-mod-http-cache-purge.
const CachePurge = "/usr/lib/nginx/modules/ngx_http_cache_purge_module.so"

// Nginx starts nginx with the inside of an http block. In it {listen} stands for the
// address to listen on, and {dir} for a folder.
func Nginx(tb testing.TB, http string, modules ...string) *Server {
	tb.Helper()
	Need(tb, "nginx", "nginx")
	for _, module := range modules {
		Need(tb, module, "libnginx-mod-http-cache-purge")
	}
	return start(tb, func(port, dir string) []string {
		var b strings.Builder
		for _, module := range modules {
			b.WriteString("load_module " + module + ";\n")
		}
		b.WriteString(`daemon off;
worker_processes 1;
pid {dir}/pid;
error_log stderr warn;
events { worker_connections 256; }
http {
access_log off;
`)
		for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
			b.WriteString(kind + "_temp_path {dir}/" + kind + ";\n")
		}
		b.WriteString(http + "\n}\n")
		conf := filepath.Join(dir, "nginx.conf")
		write(tb, conf, strings.NewReplacer("{dir}", dir, "{listen}", "127.0.0.1:"+port).Replace(b.String()))
		return []string{"nginx", "-p", dir, "-e", "stderr", "-c", conf}
	})
}

// Varnish starts Varnish with a VCL.
func Varnish(tb testing.TB, vcl string) *Server {
	tb.Helper()
	Need(tb, "varnishd", "varnish")
	return start(tb, func(port, dir string) []string {
		file := filepath.Join(dir, "front.vcl")
		write(tb, file, vcl)
		return []string{"varnishd", "-F", "-j", "none", "-n", filepath.Join(dir, "n"), "-a", "127.0.0.1:" + port,
			"-s", "malloc,16m", "-p", "thread_pool_min=10", "-f", file}
	})
}

// Squid starts Squid as a reverse proxy of an origin on a port, with more of its
// configuration.
func Squid(tb testing.TB, origin, more string) *Server {
	tb.Helper()
	Need(tb, "squid", "squid")
	return start(tb, func(port, dir string) []string {
		conf := filepath.Join(dir, "squid.conf")
		write(tb, conf, strings.NewReplacer("{dir}", dir, "{port}", port, "{origin}", origin).Replace(`
http_port 127.0.0.1:{port} accel no-vhost defaultsite=127.0.0.1:{port}
cache_peer 127.0.0.1 parent {origin} 0 no-query originserver no-digest no-netdb-exchange
http_access allow all
cache_mem 16 MB
pid_filename {dir}/pid
coredump_dir {dir}
access_log none
cache_log /dev/null
cache_store_log none
netdb_filename none
shutdown_lifetime 0 seconds
pinger_enable off
`+more))
		return []string{"squid", "-N", "-f", conf}
	})
}

func write(tb testing.TB, file, text string) {
	tb.Helper()
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		tb.Fatal(err)
	}
}
