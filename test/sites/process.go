//go:build unix

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/isr-go/isr/internal/isrtest"
)

// A process is a server of a site's own: it has its data in the site's folder, listens on
// a free port of the loopback interface or on a socket there, and ends with the program.
type process struct {
	name  string
	argv  []string
	dir   string
	env   []string
	ready func() error // returns nil when it answers

	cmd   *exec.Cmd
	ended chan struct{}
	said  *tail
}

// A tail keeps the end of what a process prints.
type tail struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.b.Len() > 64<<10 {
		t.b.Next(t.b.Len() - 32<<10)
	}
	return t.b.Write(p)
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.String()
}

// start starts the process, and waits until it is ready.
func (p *process) start(ctx context.Context) error {
	p.cmd = exec.Command(p.argv[0], p.argv[1:]...)
	p.cmd.Dir = p.dir
	p.cmd.Env = append(os.Environ(), p.env...)
	p.cmd.SysProcAttr = attributes()
	p.said = &tail{}
	p.cmd.Stdout, p.cmd.Stderr = p.said, p.said
	p.cmd.WaitDelay = time.Second
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	p.ended = make(chan struct{})
	go func() {
		p.cmd.Wait()
		close(p.ended)
	}()
	deadline := time.Now().Add(time.Minute)
	for {
		err := p.ready()
		if err == nil {
			return nil
		}
		select {
		case <-p.ended:
			return fmt.Errorf("%s has ended: %v\n%s", p.name, p.cmd.ProcessState, p.said)
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s is not ready after a minute: %w\n%s", p.name, err, p.said)
		}
	}
}

// kill ends the process and its children at once, as the kernel would that is short of memory.
func (p *process) kill() {
	p.signal(syscall.SIGKILL)
}

// stop asks the process to end, and waits until it has.
func (p *process) stop() {
	p.signal(syscall.SIGTERM)
}

func (p *process) signal(s syscall.Signal) {
	if p.cmd == nil || p.cmd.Process == nil {
		return
	}
	syscall.Kill(-p.cmd.Process.Pid, s)
	select {
	case <-p.ended:
	case <-time.After(20 * time.Second):
	}
	syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // what its end has left
	<-p.ended
}

// listens returns a function that tries to connect.
func listens(network, addr string) func() error {
	return func() error {
		conn, err := net.DialTimeout(network, addr, time.Second)
		if err == nil {
			conn.Close()
		}
		return err
	}
}

// A stack is the servers of one site.
type stack struct {
	dir    string
	origin string // where the site itself is: host:port
	public string // where isrproxy is, which visitors and the site take for the site
	isr    string // the program isrproxy

	servers []*process // in the order in which they were started
}

func newStack(dir, isr string) (*stack, error) {
	origin, err := isrtest.FreeAddr()
	public, err2 := isrtest.FreeAddr()
	return &stack{dir: dir, origin: origin, public: public, isr: isr}, errors.Join(err, err2)
}

// run starts a server of the stack.
func (s *stack) run(ctx context.Context, p *process) (*process, error) {
	if p.dir == "" {
		p.dir = s.dir
	}
	s.servers = append(s.servers, p)
	return p, p.start(ctx)
}

// stop ends all servers, the last one first.
func (s *stack) stop() {
	for i := len(s.servers) - 1; i >= 0; i-- {
		s.servers[i].stop()
	}
}

// command runs a command to its end.
func (s *stack) command(ctx context.Context, dir string, argv ...string) (string, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, out)
	}
	return string(out), nil
}

// write writes a file of the stack, in which {dir}, {origin} and {public} stand for what they are.
func (s *stack) write(name, text string) (path string, err error) {
	path = filepath.Join(s.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	text = strings.NewReplacer("{dir}", s.dir, "{origin}", s.origin, "{public}", s.public).Replace(text)
	return path, os.WriteFile(path, []byte(text), 0o644)
}

// runProxy puts isrproxy in front.
func (s *stack) runProxy(ctx context.Context, addr string, flags ...string) (*process, error) {
	return s.run(ctx, &process{
		name:  "isrproxy",
		argv:  append([]string{s.isr, "-origin", "http://" + s.origin, "-public", "http://" + s.public, "-addr", addr, "-log", "error"}, flags...),
		ready: listens("tcp", addr),
	})
}

// runPHP runs PHP's process manager, with as many workers as a small server has.
func (s *stack) runPHP(ctx context.Context) (*process, error) {
	fpm, err := newest("/usr/sbin/php-fpm*")
	if err != nil {
		return nil, err
	}
	user, root := "", ""
	if os.Getuid() == 0 {
		user, root = "user = root\ngroup = root\n", "-R"
	}
	conf, err := s.write("php-fpm.conf", `[global]
error_log = /dev/stderr
daemonize = no
[site]
listen = {dir}/php.sock
pm = static
pm.max_children = 4
php_admin_value[session.save_path] = {dir}
php_admin_value[opcache.enable] = 1
php_admin_value[upload_tmp_dir] = {dir}
`+user)
	if err != nil {
		return nil, err
	}
	argv := []string{fpm, "-F", "-y", conf}
	if root != "" {
		argv = append(argv, root)
	}
	return s.run(ctx, &process{name: "php-fpm", argv: argv, ready: listens("unix", filepath.Join(s.dir, "php.sock"))})
}

// newest returns the last of the files that a pattern matches.
func newest(pattern string) (string, error) {
	files, err := filepath.Glob(pattern)
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("there is no %s", pattern)
	}
	if err != nil {
		return "", err
	}
	return files[len(files)-1], nil
}

// runMariaDB runs a database server with an empty database of a name, whose root needs no password.
func (s *stack) runMariaDB(ctx context.Context, name string) (p *process, addr string, err error) {
	if addr, err = isrtest.FreeAddr(); err != nil {
		return nil, "", err
	}
	_, port, _ := net.SplitHostPort(addr)
	data, sock := filepath.Join(s.dir, "mariadb"), filepath.Join(s.dir, "mariadb.sock")
	user := []string{}
	if os.Getuid() == 0 {
		user = []string{"--user=root"}
	}
	install := append([]string{"mariadb-install-db", "--no-defaults", "--datadir=" + data, "--auth-root-authentication-method=normal", "--skip-test-db"}, user...)
	if _, err = s.command(ctx, s.dir, install...); err != nil {
		return nil, "", err
	}
	p, err = s.run(ctx, &process{
		name: "mariadbd",
		argv: append([]string{"/usr/sbin/mariadbd", "--no-defaults", "--datadir=" + data, "--socket=" + sock, "--port=" + port, "--bind-address=127.0.0.1",
			"--skip-name-resolve", "--innodb-flush-log-at-trx-commit=2", "--pid-file=" + filepath.Join(s.dir, "mariadb.pid")}, user...),
		ready: listens("unix", sock),
	})
	if err != nil {
		return nil, "", err
	}
	_, err = s.command(ctx, s.dir, "mariadb", "--no-defaults", "--socket="+sock, "-uroot", "-e", "CREATE DATABASE "+name+
		"; CREATE USER site@'%' IDENTIFIED BY 'site'; CREATE USER site@localhost IDENTIFIED BY 'site'; GRANT ALL ON "+name+".* TO site@'%'; GRANT ALL ON "+name+".* TO site@localhost")
	return p, addr, err
}

// runNginx runs nginx with the inside of a server block.
func (s *stack) runNginx(ctx context.Context, server string) (*process, error) {
	user := ""
	if os.Getuid() == 0 {
		user = "user root;"
	}
	temp := ""
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		temp += kind + "_temp_path {dir}/nginx-" + kind + ";\n"
	}
	conf, err := s.write("nginx.conf", user+`
daemon off;
worker_processes 2;
pid {dir}/nginx.pid;
error_log stderr crit;
events { worker_connections 512; }
http {
include /etc/nginx/mime.types;
access_log off;
client_max_body_size 100m;
`+temp+`
server {
listen {origin};
server_name _;
absolute_redirect off;
`+server+`
}
}
`)
	if err != nil {
		return nil, err
	}
	return s.run(ctx, &process{name: "nginx", argv: []string{"/usr/sbin/nginx", "-p", s.dir, "-e", "stderr", "-c", conf}, ready: listens("tcp", s.origin)})
}

// fastCGI is what nginx says to PHP, as Debian's snippet does, under the public address.
const fastCGI = `
include /etc/nginx/fastcgi_params;
fastcgi_param HTTP_HOST $http_host; # with its port
fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name;
fastcgi_pass unix:{dir}/php.sock;
fastcgi_read_timeout 60s;
`
