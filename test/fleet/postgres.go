package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/isr-go/isr/store"
	"github.com/isr-go/isr/store/postgres"
)

// errNoPostgres says what is missing.
var errNoPostgres = errors.New("there is no PostgreSQL server; on Debian and Ubuntu: apt-get install postgresql")

var postgresEngine = &engine{
	name: "postgres",
	need: func() error {
		_, err := postgresProgram("postgres")
		return err
	},
	server: func(addr string) server { return &postgresServer{addr: addr} },
	open: func(addr string) store.Store {
		pool, err := pgxpool.New(context.Background(), databaseAt(addr)) // it dials later
		if err != nil {
			panic(err) // the address is ours
		}
		return postgres.New(pool, postgres.Options{})
	},
}

func databaseAt(addr string) string { return "postgres://isr@" + addr + "/postgres" }

// postgresProgram returns where a program of the server is: distributions do not have them
// in $PATH.
func postgresProgram(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	paths, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	if len(paths) == 0 {
		return "", errNoPostgres
	}
	return paths[len(paths)-1], nil
}

// A postgresServer is one with a folder of its own.
type postgresServer struct {
	addr string
	dir  string // has "data"; empty: nothing is there yet
	*process
}

// run starts the server. For the first time it also makes the tables, as a deploy does that
// migrates its database; an empty one has none. A server that was killed a moment ago may
// not have ended altogether: then it is tried again.
func (s *postgresServer) run(ctx context.Context) error {
	if s.dir != "" {
		return s.runAgain(ctx)
	}
	var err error
	if s.dir, err = postgresFolder(); err != nil {
		return err
	}
	if err := newCluster(s.data()); err != nil {
		return err
	}
	if err := s.runAgain(ctx); err != nil {
		return err
	}
	return s.do(postgres.Schema())
}

func (s *postgresServer) runAgain(ctx context.Context) error {
	for attempt := 1; ; attempt++ {
		err := s.runOnce(ctx)
		if err == nil || ctx.Err() != nil || attempt == 20 {
			return err
		}
		sleep(ctx, 100*time.Millisecond)
	}
}

func (s *postgresServer) data() string { return filepath.Join(s.dir, "data") }

func (s *postgresServer) runOnce(ctx context.Context) error {
	path, err := postgresProgram("postgres")
	if err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(s.addr)
	if err != nil {
		return err
	}
	var said strings.Builder // read when it has ended
	// What is killed here is the server, not the machine: the system keeps what it has written.
	cmd := exec.Command(path, "-D", s.data(), "-p", port, "-h", "127.0.0.1", "-k", s.dir,
		"-c", "fsync=off", "-c", "dynamic_shared_memory_type=mmap") // which is in the folder, too
	cmd.Stderr = &said
	if err := asPostgres(cmd, s.dir); err != nil {
		return err
	}
	p, err := start(cmd)
	if err != nil {
		return err
	}
	for {
		err := s.do("SELECT 1")
		select {
		case <-p.done: // before one looks at err: somebody else may have answered
			return fmt.Errorf("postgres at %s has ended: %v\n%s", s.addr, p.cmd.ProcessState, &said)
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

// do executes a statement, as an administrator would.
func (s *postgresServer) do(sql string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, databaseAt(s.addr))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, sql)
	return err
}

func (s *postgresServer) cut() error {
	return s.do("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN %'")
}

// signal sends a signal to the first process, and then to its children: there are no more
// of them when that was stopped.
func (s *postgresServer) signal(name string) error {
	if err := s.process.signal(name); err != nil {
		return err
	}
	return signalAll(s.children(), name)
}

func (s *postgresServer) children() []string {
	out, _ := exec.Command("pgrep", "-P", strconv.Itoa(s.cmd.Process.Pid)).Output() // it fails where there is none
	return strings.Fields(string(out))
}

// signalAll sends a signal to processes. That one of them has ended is no error.
func signalAll(pids []string, name string) error {
	for _, pid := range pids {
		var exit *exec.ExitError
		if err := exec.Command("kill", "-"+name, pid).Run(); err != nil && !errors.As(err, &exit) {
			return err
		}
	}
	return nil
}

func (s *postgresServer) kill() {
	if s.process == nil {
		return
	}
	s.process.signal("STOP") // or it would have more children
	children := s.children()
	s.process.kill()
	signalAll(children, "KILL")
	s.process = nil
}

func (s *postgresServer) empty() error {
	// The folder itself remains. By that the next server knows what memory the last one had,
	// and frees it.
	entries, err := os.ReadDir(s.data())
	for _, e := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(s.data(), e.Name())))
	}
	if err != nil {
		return err
	}
	return newCluster(s.data())
}

// close ends the server as a crash would, but for what the system would keep of it.
func (s *postgresServer) close() {
	if s.process != nil {
		s.signal("CONT")
		s.process.signal("QUIT")
		select {
		case <-s.process.done:
		case <-time.After(10 * time.Second):
			s.kill()
		}
	}
	if s.dir != "" {
		os.RemoveAll(s.dir)
	}
}

// postgresFolder makes a folder that the server's user may write to.
func postgresFolder() (string, error) {
	dir, err := os.MkdirTemp("", "isr-fleet-postgres-")
	if err == nil {
		err = os.Chmod(dir, 0o777)
	}
	return dir, err
}

// template is the folder of a server that has never run: to copy it is ten times as fast as
// to make it.
var template struct {
	sync.Mutex // guards dir; held alone
	dir        string
}

// newCluster puts the data of an empty server into a folder.
func newCluster(data string) error {
	template.Lock()
	defer template.Unlock()
	if template.dir == "" {
		path, err := postgresProgram("initdb")
		if err != nil {
			return err
		}
		dir, err := postgresFolder()
		if err != nil {
			return err
		}
		cmd := exec.Command(path, "-D", filepath.Join(dir, "data"), "-U", "isr", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale", "C")
		if err := asPostgres(cmd, dir); err != nil {
			return err
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			os.RemoveAll(dir)
			return fmt.Errorf("initdb: %w\n%s", err, out)
		}
		template.dir = dir
	}
	if out, err := exec.Command("cp", "-a", filepath.Join(template.dir, "data")+"/.", data).CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

// removeTemplate is for the end of the program.
func removeTemplate() {
	template.Lock()
	defer template.Unlock()
	if template.dir != "" {
		os.RemoveAll(template.dir)
		template.dir = ""
	}
}
