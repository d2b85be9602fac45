package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/isr-go/isr/internal/isrtest"
)

// A process is a child. It does not outlive this one, as far as the system helps.
type process struct {
	cmd   *exec.Cmd
	stdin io.Closer
	done  chan struct{} // closed when it has ended
}

func start(cmd *exec.Cmd) (*process, error) {
	cmd.SysProcAttr = attributes()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, stdin: stdin, done: make(chan struct{})}
	go func() {
		cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// kill ends the process at once. It does nothing where that has ended.
func (p *process) kill() {
	p.cmd.Process.Kill()
	<-p.done
}

// signal sends a signal by its name: Go knows not all of them on all systems.
func (p *process) signal(name string) error {
	return exec.Command("kill", "-"+name, strconv.Itoa(p.cmd.Process.Pid)).Run()
}

// startInstance starts this program as an instance, and returns its address.
func startInstance(cfg config) (p *process, addr string, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, "", err
	}
	text, err := json.Marshal(cfg)
	if err != nil {
		return nil, "", err
	}
	cmd := exec.Command(self)
	// With -race, an instance that races ends, and its visitors see it.
	cmd.Env = append(os.Environ(), instanceEnv+"="+string(text), "GORACE=halt_on_error=1")
	cmd.Stderr = os.Stderr
	out, stdout, err := os.Pipe() // not that of cmd, which Wait would close before it is read
	if err != nil {
		return nil, "", err
	}
	defer out.Close()
	cmd.Stdout = stdout
	p, err = start(cmd)
	stdout.Close()
	if err != nil {
		return nil, "", err
	}
	addr, err = bufio.NewReader(out).ReadString('\n')
	if err != nil {
		p.kill()
		return nil, "", fmt.Errorf("instance %d does not say where it serves: %w", cfg.Number, err)
	}
	return p, strings.TrimSpace(addr), nil
}

// A redisServer is one that keeps nothing on disk: what it knew is gone when it
// ends.
type redisServer struct {
	addr string
	*process
}

// errNoRedis says what is missing.
var errNoRedis = errors.New("there is no redis-server in $PATH; on Debian and Ubuntu: apt-get install redis-server")

// startRedis starts redis-server at an address of this machine, or at a free one.
func startRedis(ctx context.Context, addr string) (*redisServer, error) {
	path, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, errNoRedis
	}
	return startServer(ctx, path, addr)
}

// startServer starts a program that is redis-server, or as good, with more arguments.
func startServer(ctx context.Context, path, addr string, args ...string) (_ *redisServer, err error) {
	if addr == "" {
		if addr, err = isrtest.FreeAddr(); err != nil {
			return nil, err
		}
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	args = append([]string{"--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"}, args...)
	cmd := exec.Command(path, args...)
	cmd.Dir = os.TempDir()
	p, err := start(cmd)
	if err != nil {
		return nil, err
	}
	s := &redisServer{addr, p}
	for {
		err := s.do("PING")
		select {
		case <-p.done: // before one looks at err: somebody else may have answered
			return nil, fmt.Errorf("redis-server at %s has ended: %v", addr, p.cmd.ProcessState)
		case <-ctx.Done():
			p.kill()
			return nil, ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
		if err == nil {
			return s, nil
		}
	}
}

// do sends commands, as an administrator would type them.
func (s *redisServer) do(commands ...string) error {
	conn, err := net.DialTimeout("tcp", s.addr, time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Second))
	in := bufio.NewReader(conn)
	for _, c := range commands {
		if _, err := fmt.Fprintf(conn, "%s\r\n", c); err != nil {
			return err
		}
		line, err := in.ReadString('\n')
		if err != nil {
			return err
		}
		if strings.HasPrefix(line, "-") {
			return fmt.Errorf("redis: %s: %s", c, strings.TrimSpace(line[1:]))
		}
	}
	return nil
}
