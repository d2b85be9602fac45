// Package servers starts the caches of the distribution (nginx, Varnish, Squid) for
// tests, each on a free port of the loopback interface and in a folder of its own. They
// end with the test.
package servers

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// What there is on some systems only.
var (
	serverAttr       *syscall.SysProcAttr // keeps servers from outliving the tests
	sigstop, sigcont os.Signal
)

// Need skips a test where a command or a file is missing, which the package of the
// distribution brings. In CI it fails.
func Need(tb testing.TB, name, pkg string) {
	tb.Helper()
	var err error
	if filepath.IsAbs(name) {
		_, err = os.Stat(name)
	} else {
		_, err = find(name)
	}
	switch {
	case err == nil:
	case os.Getenv("CI") != "":
		tb.Fatalf("%s is missing: %v (Debian has it in the package %s)", name, err, pkg)
	default:
		tb.Skipf("%s is missing, and not tested with: Debian has it in the package %s", name, pkg)
	}
}

// find looks for a server, also where only root's path leads.
func find(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		if path, err := exec.LookPath("/usr/sbin/" + name); err == nil {
			return path, nil
		}
	}
	return path, err
}

// A Server is one that runs.
type Server struct {
	URL string // where visitors ask it
	Dir string // its folder

	cmd   *exec.Cmd
	ended chan struct{}
	log   *output
}

// output is what a server prints.
type output struct {
	mu sync.Mutex // guards b; held alone
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// start runs a command until the test ends, once its configuration is written for a
// free port: args gets both. Another program may be faster to take the port.
func start(tb testing.TB, args func(port, dir string) []string) *Server {
	tb.Helper()
	dir, err := os.MkdirTemp("", "isr-front-") // short, for sockets
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		tb.Fatal(err)
	}
	var s *Server
	for range 5 {
		port := freePort(tb)
		s = &Server{URL: "http://127.0.0.1:" + port, Dir: dir, ended: make(chan struct{}), log: new(output)}
		command := args(port, dir)
		path, err := find(command[0])
		if err != nil {
			tb.Fatal(err)
		}
		s.cmd = exec.Command(path, command[1:]...)
		s.cmd.SysProcAttr, s.cmd.Dir, s.cmd.Stdout, s.cmd.Stderr = serverAttr, dir, s.log, s.log
		s.cmd.WaitDelay = time.Second // a child that has left holds the pipe
		if err := s.cmd.Start(); err != nil {
			tb.Fatal(err)
		}
		go func() {
			s.cmd.Wait()
			close(s.ended)
		}()
		if s.listens(tb) {
			tb.Cleanup(s.Stop)
			return s
		}
	}
	tb.Fatalf("the server does not start: %s", s.log)
	return nil
}

// listens waits until the server accepts connections, and reports false where it has
// ended instead.
func (s *Server) listens(tb testing.TB) bool {
	tb.Helper()
	deadline := time.After(30 * time.Second)
	for {
		if conn, err := net.Dial("tcp", strings.TrimPrefix(s.URL, "http://")); err == nil {
			conn.Close()
			return true
		}
		select {
		case <-s.ended:
			return false
		case <-deadline:
			s.Stop()
			tb.Fatalf("the server does not listen: %s", s.log)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Stop ends the server, and what it has started. It may be called more than once.
func (s *Server) Stop() {
	select {
	case <-s.ended:
		return
	default:
	}
	s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.ended:
	case <-time.After(5 * time.Second):
		s.cmd.Process.Kill()
		<-s.ended
	}
}

// Pause makes the server hang, with those that it has started.
func (s *Server) Pause() (resume func()) {
	family := s.family()
	for _, p := range family {
		p.Signal(sigstop)
	}
	for _, p := range family { // its threads stop one after the other
		for range 1000 {
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Pid))
			if _, state, ok := strings.Cut(string(b), ") "); err != nil || !ok || strings.HasPrefix(state, "T") {
				break
			}
			time.Sleep(time.Millisecond)
		}
	}
	var once sync.Once
	return func() {
		once.Do(func() {
			for _, p := range family {
				p.Signal(sigcont)
			}
		})
	}
}

// family returns the server's process, and its children.
func (s *Server) family() []*os.Process {
	all := []*os.Process{s.cmd.Process}
	pid := s.cmd.Process.Pid
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	for field := range strings.FieldsSeq(string(b)) {
		var child int
		if _, err := fmt.Sscan(field, &child); err == nil {
			if p, err := os.FindProcess(child); err == nil {
				all = append(all, p)
			}
		}
	}
	return all
}

// Log returns what the server has printed.
func (s *Server) Log() string { return s.log.String() }

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

// Origin serves a handler on the loopback interface until the test ends, and returns
// its port.
func Origin(tb testing.TB, h http.Handler) (port string) {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	server := &http.Server{Handler: h}
	go server.Serve(l)
	tb.Cleanup(func() { server.Close() })
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return port
}
