package redis_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/isr-go/isr/internal/isrtest"
)

// What there is on some systems only.
var (
	serverAttr       *syscall.SysProcAttr // keeps servers from outliving the tests
	sigstop, sigcont os.Signal
)

// A server is a redis-server of its own for a test.
type server struct {
	addr string
	dir  string
	args []string
	cmd  *exec.Cmd
	tb   testing.TB
}

// needServer skips a test where there is no redis-server. In CI there is one.
func needServer(tb testing.TB) string {
	tb.Helper()
	path, err := exec.LookPath("redis-server")
	if err != nil && os.Getenv("CI") != "" {
		tb.Fatal("redis-server is not installed")
	} else if err != nil {
		tb.Skip("redis-server is not installed: tested on the embedded one alone")
	}
	return path
}

// newServer starts a server on a free port, which ends with the test.
func newServer(tb testing.TB, args ...string) *server {
	tb.Helper()
	needServer(tb)
	s := &server{dir: tb.TempDir(), args: args, tb: tb}
	for range 10 { // another process may take the port first
		s.addr = freeAddr(tb)
		if s.run() {
			return s
		}
	}
	tb.Fatal("redis-server does not start")
	return nil
}

// run starts the server where it was before, and says whether it did.
func (s *server) run() bool {
	s.tb.Helper()
	_, port, _ := net.SplitHostPort(s.addr)
	args := append([]string{"--port", port, "--bind", "127.0.0.1", "--dir", s.dir, "--save", "", "--loglevel", "warning"}, s.args...)
	s.cmd = exec.Command(needServer(s.tb), args...)
	s.cmd.SysProcAttr = serverAttr
	if err := s.cmd.Start(); err != nil {
		s.tb.Fatal(err)
	}
	cmd, ended := s.cmd, make(chan struct{})
	go func() {
		cmd.Wait()
		close(ended)
	}()
	s.tb.Cleanup(func() {
		cmd.Process.Kill()
		<-ended
	})
	deadline := time.After(30 * time.Second)
	for {
		if conn, err := net.Dial("tcp", s.addr); err == nil {
			conn.Close()
			return true
		}
		select {
		case <-ended:
			return false
		case <-deadline:
			s.tb.Fatal("redis-server does not listen")
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// kill ends the server at once, as SIGKILL does.
func (s *server) kill() {
	s.cmd.Process.Kill()
	for { // the goroutine of run waits for it
		conn, err := net.Dial("tcp", s.addr)
		if err != nil {
			return
		}
		conn.Close()
	}
}

// pause makes the server hang.
func (s *server) pause() (resume func()) {
	s.cmd.Process.Signal(sigstop)
	return func() { s.cmd.Process.Signal(sigcont) }
}

// client returns a client of the server, which is closed with the test.
func (s *server) client() rueidis.Client {
	s.tb.Helper()
	return newClient(s.tb, rueidis.ClientOption{InitAddress: []string{s.addr}})
}

func newClient(tb testing.TB, option rueidis.ClientOption) rueidis.Client {
	tb.Helper()
	var client rueidis.Client
	isrtest.Eventually(tb, "client", func() (err error) {
		client, err = rueidis.NewClient(option)
		return err
	})
	tb.Cleanup(client.Close)
	return client
}

// do executes a command, which must succeed.
func do(tb testing.TB, client rueidis.Client, command ...string) *rueidis.RedisMessage {
	tb.Helper()
	m, err := try(client, command...)
	if err != nil {
		tb.Fatalf("%q: %v", command, err)
	}
	return &m
}

func try(client rueidis.Client, command ...string) (rueidis.RedisMessage, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	m, err := client.Do(ctx, client.B().Arbitrary(command...).Build()).ToMessage()
	if rueidis.IsRedisNil(err) {
		err = nil
	}
	return m, err
}

// freeAddr returns an address on which nothing listens.
func freeAddr(tb testing.TB) string {
	tb.Helper()
	addr, err := isrtest.FreeAddr()
	if err != nil {
		tb.Fatal(err)
	}
	return addr
}

// newCluster starts three servers that share the slots.
func newCluster(tb testing.TB) []*server {
	tb.Helper()
	nodes := make([]*server, 3)
	for i := range nodes {
		_, bus, _ := net.SplitHostPort(freeAddr(tb))
		nodes[i] = newServer(tb, "--cluster-enabled", "yes", "--cluster-port", bus, "--cluster-node-timeout", "60000")
		single := newClient(tb, rueidis.ClientOption{InitAddress: []string{nodes[i].addr}, ForceSingleClient: true})
		first, last := 16384*i/3, 16384*(i+1)/3-1
		do(tb, single, "CLUSTER", "ADDSLOTSRANGE", fmt.Sprint(first), fmt.Sprint(last))
		do(tb, single, "CLUSTER", "SET-CONFIG-EPOCH", fmt.Sprint(i+1))
		_, port, _ := net.SplitHostPort(nodes[0].addr)
		_, bus, _ = net.SplitHostPort("127.0.0.1:" + nodes[0].args[3])
		do(tb, single, "CLUSTER", "MEET", "127.0.0.1", port, bus)
	}
	for _, n := range nodes {
		single := newClient(tb, rueidis.ClientOption{InitAddress: []string{n.addr}, ForceSingleClient: true})
		isrtest.Eventually(tb, "cluster", func() error {
			shards, err := try(single, "CLUSTER", "SHARDS")
			list, _ := shards.ToArray()
			info, _ := try(single, "CLUSTER", "INFO")
			text, _ := info.ToString()
			if err != nil || len(list) != 3 || !strings.Contains(text, "cluster_state:ok") {
				return fmt.Errorf("%v: %d shards: %s", err, len(list), text)
			}
			return nil
		})
	}
	return nodes
}
