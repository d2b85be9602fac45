package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

// A process is a child. It does not outlive this one, as far as the system helps.
type process struct {
	cmd   *exec.Cmd
	stdin io.Closer
	done  chan struct{} // closed when it has ended
}

func start(cmd *exec.Cmd) (*process, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = attributes()
	}
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
