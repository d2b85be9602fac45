package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/isr-go/isr/internal/isrtest"
)

// startStore starts what a Store is on, empty, and returns where that is.
func startStore(ctx context.Context, name string) (place string, stop func(), err error) {
	dir, err := os.MkdirTemp("", "isr-scale-")
	if err != nil {
		return "", nil, err
	}
	end := func() {}
	switch name {
	case "store/file":
		place = filepath.Join(dir, "pages")
	case "store/redis":
		place, end, err = startRedis(ctx, dir)
	case "store/postgres":
		place, end, err = startPostgres(ctx, dir)
	default:
		err = fmt.Errorf("no Store %q", name)
	}
	if err != nil {
		os.RemoveAll(dir)
		return "", nil, err
	}
	return place, func() { end(); os.RemoveAll(dir) }, nil
}

func startRedis(ctx context.Context, dir string) (addr string, stop func(), err error) {
	program, err := exec.LookPath("redis-server")
	if err != nil {
		return "", nil, errors.New("there is no redis-server in $PATH; on Debian and Ubuntu: apt-get install redis-server")
	}
	return serve(ctx, func(port string) *exec.Cmd {
		cmd := exec.Command(program, "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no")
		cmd.Dir, cmd.SysProcAttr = dir, attributes()
		return cmd
	}, syscall.SIGTERM)
}

func startPostgres(ctx context.Context, dir string) (url string, stop func(), err error) {
	program := func(name string) string {
		found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
		if path, err := exec.LookPath(name); err == nil {
			found = append(found, path)
		}
		if found == nil {
			return ""
		}
		return found[0]
	}
	initdb, postgres := program("initdb"), program("postgres")
	if initdb == "" || postgres == "" {
		return "", nil, errors.New("there is no PostgreSQL; on Debian and Ubuntu: apt-get install postgresql")
	}
	attr, err := asPostgres()
	if err != nil {
		return "", nil, err
	}
	data := filepath.Join(dir, "data")
	cmd := exec.CommandContext(ctx, initdb, "-D", data, "-U", "isr", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale", "C")
	cmd.Dir, cmd.SysProcAttr = dir, attr
	if err := os.Chmod(dir, 0o777); err != nil { // the server's user is another one
		return "", nil, err
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", nil, fmt.Errorf("initdb: %w: %s", err, out)
	}
	addr, stop, err := serve(ctx, func(port string) *exec.Cmd {
		cmd := exec.Command(postgres, "-D", data, "-p", port, "-h", "127.0.0.1", "-k", dir)
		cmd.Dir, cmd.SysProcAttr = dir, attr
		return cmd
	}, syscall.SIGQUIT)
	if err != nil {
		return "", nil, err
	}
	url = "postgres://isr@" + addr + "/postgres?pool_max_conns=16"
	for { // it listens a moment before it answers
		s, end, err := openStore("store/postgres", url)
		if err == nil {
			_, err = s.Changes(ctx, 0)
			end()
		}
		if err == nil {
			return url, stop, nil
		}
		select {
		case <-ctx.Done():
			stop()
			return "", nil, errors.Join(ctx.Err(), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// serve starts a server on a free port, and waits until it listens.
func serve(ctx context.Context, command func(port string) *exec.Cmd, last syscall.Signal) (addr string, stop func(), err error) {
	for range 5 { // another process may take the port first
		if addr, err = isrtest.FreeAddr(); err != nil {
			return "", nil, err
		}
		_, port, _ := net.SplitHostPort(addr)
		cmd := command(port)
		if err = cmd.Start(); err != nil {
			return "", nil, err
		}
		ended := make(chan struct{})
		go func() {
			cmd.Wait()
			close(ended)
		}()
		stop = func() {
			cmd.Process.Signal(last)
			<-ended
		}
		if err = listening(ctx, addr, ended); err == nil {
			return addr, stop, nil
		}
		stop()
	}
	return "", nil, err
}

func listening(ctx context.Context, addr string, ended <-chan struct{}) error {
	for {
		conn, err := net.DialTimeout("tcp", addr, time.Second)
		select { // before one looks at err: somebody else may have answered
		case <-ended:
			return fmt.Errorf("the server at %s has ended", addr)
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
		if err == nil {
			conn.Close()
			return nil
		}
	}
}

// asPostgres lets a program run as the user postgres, where this one is root, which the
// server refuses.
func asPostgres() (*syscall.SysProcAttr, error) {
	attr := attributes()
	if os.Getuid() != 0 {
		return attr, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, err
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	return asUser(attr, uint32(uid), uint32(gid)), nil
}
