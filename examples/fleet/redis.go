package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync"
	"time"

	"github.com/redis/rueidis"
)

// A lazyClient is made when Redis is needed and there: it may be down when the
// program starts.
type lazyClient struct {
	addr string

	mu     sync.Mutex
	client rueidis.Client // guarded by mu
}

func (c *lazyClient) connect() (rueidis.Client, error) {
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{c.addr}})
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.client = client
	return client, nil
}

// Close closes the client, if there is one.
func (c *lazyClient) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.client != nil {
		c.client.Close()
	}
	return nil
}

var errNoRedis = errors.New("there is no redis-server in $PATH to start: install it (on Debian and Ubuntu: apt-get install redis-server; on macOS: brew install redis), " +
	"or name a Redis that is running with -redis localhost:6379")

// A redisServer is one that was started for this program alone, and keeps nothing.
type redisServer struct {
	addr string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

// startRedis starts redis-server on a free port.
func startRedis(ctx context.Context) (*redisServer, error) {
	path, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, errNoRedis
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	addr := ln.Addr().String()
	ln.Close()
	_, port, _ := net.SplitHostPort(addr)
	s := &redisServer{addr: addr, done: make(chan struct{})}
	s.cmd = exec.Command(path, "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no")
	s.cmd.Dir = os.TempDir()
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		s.cmd.Wait()
		close(s.done)
	}()
	for {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
		}
		select {
		case <-s.done: // before err is looked at: another server may have answered
			return nil, fmt.Errorf("redis-server at %s has ended: %v", addr, s.cmd.ProcessState)
		case <-ctx.Done():
			s.stop()
			return nil, ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
		if err == nil {
			return s, nil
		}
	}
}

func (s *redisServer) stop() {
	s.cmd.Process.Kill()
	<-s.done
}
