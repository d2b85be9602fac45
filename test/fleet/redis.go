package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/isr-go/isr/internal/isrtest"
	"github.com/isr-go/isr/store"
	"github.com/isr-go/isr/store/redis"
)

// errNoRedis says what is missing.
var errNoRedis = errors.New("there is no redis-server in $PATH; on Debian and Ubuntu: apt-get install redis-server")

var redisEngine = &engine{
	name: "redis",
	need: func() error {
		if _, err := exec.LookPath("redis-server"); err != nil {
			return errNoRedis
		}
		return nil
	},
	server: func(addr string) server { return &redisServer{addr: addr} },
	open: func(addr string) store.Store {
		return redis.Lazy(func() (rueidis.Client, error) {
			return rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{addr}, ForceSingleClient: true})
		}, redis.Options{Prefix: "fleet:"})
	},
}

// A redisServer is one that keeps nothing on disk: what it knew is gone when it
// ends.
type redisServer struct {
	addr string
	*process
}

func (s *redisServer) run(ctx context.Context) error {
	path, err := exec.LookPath("redis-server")
	if err != nil {
		return errNoRedis
	}
	return s.runProgram(ctx, path)
}

// startServer starts a program that is redis-server, or as good, with more arguments, at a
// free address of this machine.
func startServer(ctx context.Context, path string, args ...string) (*redisServer, error) {
	addr, err := isrtest.FreeAddr()
	if err != nil {
		return nil, err
	}
	s := &redisServer{addr: addr}
	return s, s.runProgram(ctx, path, args...)
}

func (s *redisServer) runProgram(ctx context.Context, path string, args ...string) error {
	_, port, err := net.SplitHostPort(s.addr)
	if err != nil {
		return err
	}
	args = append([]string{"--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"}, args...)
	cmd := exec.Command(path, args...)
	cmd.Dir = os.TempDir()
	p, err := start(cmd)
	if err != nil {
		return err
	}
	for {
		err := s.do("PING")
		select {
		case <-p.done: // before one looks at err: somebody else may have answered
			return fmt.Errorf("redis-server at %s has ended: %v", s.addr, p.cmd.ProcessState)
		case <-ctx.Done():
			p.kill()
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
		if err == nil {
			s.process = p
			return nil
		}
	}
}

func (s *redisServer) kill() {
	if s.process != nil {
		s.process.kill()
	}
}

func (s *redisServer) close() { s.kill() }

func (s *redisServer) empty() error { return nil }

func (s *redisServer) cut() error { return s.do("CLIENT KILL TYPE pubsub") }

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
