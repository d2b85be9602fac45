package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"text/template"
	"time"

	"github.com/isr-go/isr/internal/isrtest"
	"github.com/isr-go/isr/test/bench/internal/trial"
)

// findServer returns the path of a program, which may be where only the
// administrator looks.
func findServer(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	return exec.LookPath("/usr/sbin/" + name)
}

// freePort returns a port on which nothing listens. That may change.
func freePort() (string, error) {
	addr, err := isrtest.FreeAddr()
	if err != nil {
		return "", err
	}
	_, port, err := net.SplitHostPort(addr)
	return port, err
}

// programVersion returns what a program calls its version.
func programVersion(pattern string, name string, args ...string) string {
	out, _ := exec.Command(name, args...).CombinedOutput()
	if m := regexp.MustCompile(pattern).FindSubmatch(out); m != nil {
		return string(m[1])
	}
	return ""
}

// inFront starts a program in front of an origin, and waits until it serves.
func inFront(self string, front *server, s *server, args []string) (*server, error) {
	p, err := spawn(context.Background(), self, trial.Order{Do: "mind", Args: args}, nil)
	if err != nil {
		return nil, err
	}
	s.processes = []*process{p}
	if front != nil {
		s.control, s.processes = front.control, append(front.processes, p)
	}
	for begin := time.Now(); time.Since(begin) < 30*time.Second; time.Sleep(20 * time.Millisecond) {
		if !s.alive() {
			break
		}
		if c, err := net.DialTimeout("tcp", s.addr, time.Second); err == nil {
			c.Close()
			return s, nil
		}
	}
	s.stop()
	return nil, fmt.Errorf("%s does not start: %s", filepath.Base(args[0]), lastLine(p.said()))
}

// The directives are those of the manual: the page is served stale while one
// request renews it in the background, and where the origin fails.
var nginxConf = template.Must(template.New("").Parse(`
worker_processes auto;
{{if .Root}}user root;{{end}}
daemon off;
pid {{.Dir}}/pid;
error_log {{.Dir}}/error.log;
events { worker_connections 4096; }
http {
	access_log off;
	sendfile on;
	tcp_nopush on;
	keepalive_requests 1000000000;
	open_file_cache max=10000;
	client_body_temp_path {{.Dir}}/body;
	proxy_temp_path {{.Dir}}/temp;
	fastcgi_temp_path {{.Dir}}/fastcgi;
	uwsgi_temp_path {{.Dir}}/uwsgi;
	scgi_temp_path {{.Dir}}/scgi;
	proxy_cache_path {{.Cache}} levels=1:2 keys_zone=pages:64m max_size={{.Bytes}} inactive=1d use_temp_path=off;
	upstream origin { server {{.Origin}}; keepalive 64; }
	server {
		listen 127.0.0.1:{{.Port}} backlog=4096;
		location / {
			proxy_pass http://origin;
			proxy_http_version 1.1;
			proxy_set_header Connection "";
			proxy_set_header Host $host;
			proxy_cache pages;
			proxy_cache_key $scheme$host$request_uri;
			proxy_cache_valid 200 301 {{.TTL}}s;
			proxy_cache_use_stale updating error timeout http_500 http_502 http_503 http_504;
			proxy_cache_background_update on;
			proxy_cache_lock on;
		}
	}
}
`))

func nginxTarget(self string) *target {
	t := &target{server: true}
	t.Peer = trial.Peer{
		Name: "nginx", Doc: "https://nginx.org/en/docs/http/ngx_http_proxy_module.html#proxy_cache_use_stale",
		Setup: "`proxy_cache` on disk, `use_stale updating error …`, `background_update`, `lock`", Background: true, Bounded: true,
	}
	path, err := findServer("nginx")
	if err != nil {
		t.Skip = "not found: `apt-get install nginx`"
		return t
	}
	t.Version = programVersion(`nginx/(\S+)`, path, "-v")
	t.start = func(c trial.Config) (*server, error) {
		dir, err := os.MkdirTemp(tmp, "bench-nginx-")
		if err != nil {
			return nil, err
		}
		port, err := freePort()
		if err != nil {
			return nil, err
		}
		origin, err := serveChild(self, "origin", c)
		if err != nil {
			return nil, err
		}
		cache := c.Dir
		if cache == "" {
			cache = filepath.Join(dir, "cache")
		}
		var conf strings.Builder
		err = nginxConf.Execute(&conf, map[string]any{
			"Root": os.Getuid() == 0, "Dir": dir, "Cache": cache, "Origin": origin.addr, "Port": port,
			"Bytes": c.Bytes, "TTL": int(c.TTL.Seconds()),
		})
		if err != nil {
			return nil, err
		}
		file := filepath.Join(dir, "nginx.conf")
		if err := os.WriteFile(file, []byte(conf.String()), 0o600); err != nil {
			return nil, err
		}
		s := &server{addr: "127.0.0.1:" + port}
		return inFront(self, origin, s, []string{path, "-p", dir, "-c", file, "-e", filepath.Join(dir, "error.log")})
	}
	return t
}

// Grace as the manual has it. What the built-in rules say (cookies, Set-Cookie,
// private) holds; a failing origin does not replace a page that may be shown.
var varnishVCL = template.Must(template.New("").Parse(`
vcl 4.1;
backend default { .host = "{{.Host}}"; .port = "{{.Port}}"; }
sub vcl_recv {
	if (req.method == "PURGE") { return (purge); }
	if (req.method == "BAN") {
		ban("obj.http.Cache-Tag ~ " + req.http.X-Tag);
		return (synth(200, "Banned"));
	}
}
sub vcl_backend_response {
	if (beresp.status == 200 && !beresp.http.Cache-Control) { set beresp.ttl = {{.TTL}}s; }
	set beresp.grace = {{.Grace}}s;
	if (beresp.status >= 500 && bereq.is_bgfetch) { return (abandon); }
}
`))

func varnishTarget(self string) *target {
	t := &target{server: true}
	t.Peer = trial.Peer{
		Name: "Varnish", Doc: "https://varnish-cache.org/docs/trunk/users-guide/vcl-grace.html",
		Setup: "`-s malloc`, `beresp.grace`; the built-in VCL otherwise", Background: true, Bounded: true,
	}
	path, err := findServer("varnishd")
	if err != nil {
		t.Skip = "not found: `apt-get install varnish`"
		return t
	}
	t.Version = programVersion(`varnish-(\S+)`, path, "-V")
	t.start = func(c trial.Config) (*server, error) {
		dir, err := os.MkdirTemp(tmp, "bench-varnish-")
		if err != nil {
			return nil, err
		}
		port, err := freePort()
		if err != nil {
			return nil, err
		}
		origin, err := serveChild(self, "origin", c)
		if err != nil {
			return nil, err
		}
		host, originPort, _ := net.SplitHostPort(origin.addr)
		var vcl strings.Builder
		err = varnishVCL.Execute(&vcl, map[string]any{
			"Host": host, "Port": originPort, "TTL": int(c.TTL.Seconds()), "Grace": int(c.Grace.Seconds()),
		})
		if err != nil {
			return nil, err
		}
		file := filepath.Join(dir, "bench.vcl")
		if err := os.WriteFile(file, []byte(vcl.String()), 0o644); err != nil {
			return nil, err
		}
		if err := os.Chmod(dir, 0o755); err != nil { // its worker may be another user
			return nil, err
		}
		s := &server{addr: "127.0.0.1:" + port}
		s.purge = func(path string) error { return s.command("PURGE", path, "") }
		return inFront(self, origin, s, []string{path, "-F", "-n", filepath.Join(dir, "work"), "-f", file,
			"-a", s.addr, "-s", fmt.Sprintf("malloc,%d", c.Bytes)})
	}
	return t
}

// command sends a request with a method that only the cache understands.
func (s *server) command(method, path, tag string) error {
	r, err := http.NewRequest(method, "http://"+s.addr+path, nil)
	if err != nil {
		return err
	}
	r.Host = "example.com"
	if tag != "" {
		r.Header.Set("X-Tag", tag)
	}
	if answer := fetch(r); answer.err != nil || answer.status != http.StatusOK {
		return errors.Join(fmt.Errorf("%s: status %d", method, answer.status), answer.err)
	}
	return nil
}
