package servers

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Nginx starts nginx with the inside of an http block. In it {listen} stands for the
// address to listen on, and {dir} for a folder.
func Nginx(tb testing.TB, http string) *Server {
	tb.Helper()
	Need(tb, "nginx", "nginx")
	return start(tb, func(port, dir string) []string {
		var b strings.Builder
		b.WriteString(`daemon off;
worker_processes 2;
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

// Squid starts Squid with a configuration, in which {listen} stands for the address to
// listen on.
func Squid(tb testing.TB, conf string) *Server {
	tb.Helper()
	Need(tb, "squid", "squid")
	return start(tb, func(port, dir string) []string {
		file := filepath.Join(dir, "squid.conf")
		write(tb, file, strings.NewReplacer("{dir}", dir, "{listen}", "127.0.0.1:"+port).Replace(conf+`
cache_mem 16 MB
pid_filename {dir}/pid
coredump_dir {dir}
access_log none
cache_log /dev/null
cache_store_log none
netdb_filename none
shutdown_lifetime 0 seconds
pinger_enable off
`))
		return []string{"squid", "-N", "-f", file}
	})
}

func write(tb testing.TB, file, text string) {
	tb.Helper()
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		tb.Fatal(err)
	}
}
