package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/isr-go/isr/test/bench/internal/trial"
)

// A target is something that can be measured: a Go cache or a server.
type target struct {
	trial.Peer
	Version string
	Skip    string // why it is left out, and how to get it
	server  bool   // nginx, Varnish, Next.js: no cache inside of a Go program
	live    bool   // Next.js: its own pages, and those at /live/ expire

	binary string // of its child process
	start  func(trial.Config) (*server, error)
}

// A server is a target at work in child processes.
type server struct {
	addr    string // where its pages are
	control string // where its origin takes orders
	can     []string
	version string

	purge func(path string) error // where it is not the origin's child that does it

	processes []*process // the last of them answers visitors
}

// A process is a child. It ends when its standard input is closed.
type process struct {
	cmd   *exec.Cmd
	stdin io.Closer
	ended chan struct{} // closed when it has
	err   error         // why; to be read then

	mu     sync.Mutex
	stderr bytes.Buffer // guarded by mu
}

// Write keeps what the process says, up to a megabyte.
func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stderr.Write(b[:min(len(b), max(0, 1<<20-p.stderr.Len()))])
	return len(b), nil
}

// said returns what it has written to its standard error.
func (p *process) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stderr.String()
}

// spawn starts a child with an order. stdout gets its standard output.
func spawn(ctx context.Context, binary string, o trial.Order, stdout io.Writer, env ...string) (*process, error) {
	order, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.CommandContext(ctx, binary, "child", string(order)), ended: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = stdout, p
	p.cmd.WaitDelay = time.Second
	p.cmd.Env = append(p.cmd.Environ(), env...)
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// stop ends the process, by force where it does not listen.
func (p *process) stop() error {
	p.stdin.Close()
	select {
	case <-p.ended:
	case <-time.After(8 * time.Second):
		p.cmd.Process.Kill()
		<-p.ended
		return errors.New("had to be killed")
	}
	return p.err
}

// ask runs a child for one answer.
func ask(ctx context.Context, binary string, o trial.Order, answer any) error {
	var out bytes.Buffer
	p, err := spawn(ctx, binary, o, &out)
	if err != nil {
		return err
	}
	defer p.stop()
	<-p.ended
	if p.err != nil {
		return fmt.Errorf("%s %s: %w: %s", o.Do, o.Peer, p.err, lastLine(p.said()))
	}
	return json.Unmarshal(out.Bytes(), answer)
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}

// serveChild starts a Go peer as a server.
func serveChild(binary, peer string, c trial.Config, env ...string) (*server, error) {
	out, in := io.Pipe()
	p, err := spawn(context.Background(), binary, trial.Order{Do: "serve", Peer: peer, Config: c}, in, env...)
	if err != nil {
		return nil, err
	}
	greeted := make(chan error, 1)
	var g trial.Greeting
	go func() {
		greeted <- json.NewDecoder(out).Decode(&g)
		io.Copy(io.Discard, out)
	}()
	select {
	case err = <-greeted:
	case <-p.ended:
		err = cmp.Or(p.err, errors.New("ended at once"))
	case <-time.After(20 * time.Second):
		err = errors.New("does not start")
	}
	if err != nil {
		p.stop()
		return nil, fmt.Errorf("%s: %w: %s", peer, err, lastLine(p.said()))
	}
	return &server{addr: g.Addr, control: g.Control, can: g.Can, version: g.Version, processes: []*process{p}}, nil
}

// stop ends the server and what is behind it.
func (s *server) stop() (err error) {
	for _, p := range slices.Backward(s.processes) {
		err = cmp.Or(err, p.stop())
	}
	return err
}

// alive reports whether the process that visitors talk to has not ended.
func (s *server) alive() bool {
	select {
	case <-s.processes[len(s.processes)-1].ended:
		return false
	default:
		return true
	}
}

// order gives the origin an order and reads its answer.
func (s *server) order(path string, answer any, params ...string) error {
	form := make(url.Values)
	for i := 0; i < len(params); i += 2 {
		form.Set(params[i], params[i+1])
	}
	r, err := controller.Get("http://" + s.control + path + "?" + form.Encode())
	if err != nil {
		return err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	if r.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", path, strings.TrimSpace(string(body)))
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(body, answer)
}

var controller = &http.Client{Timeout: 2 * time.Minute}

// set changes the origin; see trial.Origin.Set.
func (s *server) set(mode string, delay time.Duration, version int) error {
	return s.order("/set", nil, "mode", mode, "delay", delay.String(), "version", fmt.Sprint(version))
}

// renders returns how often the pages below a first segment were rendered.
func (s *server) renders(segment string) (n int64, err error) {
	err = s.order("/renders", &n, "of", segment)
	return n, err
}

// canPurge reports whether a path can be purged.
func (s *server) canPurge() bool { return s.purge != nil || slices.Contains(s.can, "purge") }

func (s *server) purgePath(path string) error {
	if s.purge != nil {
		return s.purge(path)
	}
	return s.order("/purge", nil, "path", path)
}
