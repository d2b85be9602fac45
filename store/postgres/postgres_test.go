//go:build linux

package postgres_test

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
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/isr-go/isr/internal/isrtest"
	"github.com/isr-go/isr/store"
	"github.com/isr-go/isr/store/postgres"
	"github.com/isr-go/isr/store/storetest"
)

// A server is a PostgreSQL of its own for a test.
type server struct {
	t    testing.TB
	addr string
	dir  string
	cmd  *exec.Cmd
	done chan struct{}
}

// program returns where a program of the server is, or skips the test. In CI it is there.
func program(t testing.TB, name string) string {
	t.Helper()
	paths, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	if path, err := exec.LookPath(name); err == nil {
		paths = append(paths, path)
	}
	switch {
	case len(paths) > 0:
		return paths[0]
	case os.Getenv("CI") != "":
		t.Fatalf("%s is not installed", name)
	default:
		t.Skipf("%s is not installed; on Debian and Ubuntu: apt-get install postgresql", name)
	}
	return ""
}

// attributes let a program run as the user postgres, where this one is root, which the
// server refuses.
func attributes(t testing.TB, dir string) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if os.Getuid() != 0 {
		return attr
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	for ; strings.HasPrefix(filepath.Base(filepath.Dir(dir)), "Test"); dir = filepath.Dir(dir) {
		os.Chmod(filepath.Dir(dir), 0o755)
	}
	attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return attr
}

func newServer(t testing.TB) *server {
	t.Helper()
	initdb := program(t, "initdb")
	parent, err := os.MkdirTemp("", "isr-postgres-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(parent) })
	os.Chmod(parent, 0o777)
	s := &server{t: t, dir: filepath.Join(parent, "data")}
	cmd := exec.Command(initdb, "-D", s.dir, "-U", "isr", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale", "C")
	cmd.Dir, cmd.SysProcAttr = parent, attributes(t, s.dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	for range 10 { // another process may take the port first
		if s.addr, err = isrtest.FreeAddr(); err != nil {
			t.Fatal(err)
		}
		if s.run() {
			return s
		}
	}
	t.Fatal("postgres does not start")
	return nil
}

// run starts the server where it was before, and says whether it did.
func (s *server) run() bool {
	s.t.Helper()
	_, port, _ := net.SplitHostPort(s.addr)
	s.cmd = exec.Command(program(s.t, "postgres"), "-D", s.dir, "-p", port, "-h", "127.0.0.1", "-k", filepath.Dir(s.dir))
	s.cmd.Dir, s.cmd.SysProcAttr = s.dir, attributes(s.t, s.dir)
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	cmd, done := s.cmd, make(chan struct{})
	s.done = done
	go func() {
		cmd.Wait()
		close(done)
	}()
	s.t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGQUIT)
		<-done
	})
	ok := false
	isrtest.Eventually(s.t, "server", func() error {
		select {
		case <-done:
			return nil
		default:
		}
		pool := s.pool()
		defer pool.Close()
		if err := pool.Ping(context.Background()); err != nil {
			return err
		}
		ok = true
		return nil
	})
	return ok
}

// kill ends the server at once, as SIGKILL does.
func (s *server) kill() {
	children := s.children()
	s.cmd.Process.Kill()
	for _, pid := range children {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	<-s.done
}

func (s *server) children() (pids []int) {
	out, _ := exec.Command("ps", "-o", "pid=", "--ppid", strconv.Itoa(s.cmd.Process.Pid)).Output()
	for _, field := range strings.Fields(string(out)) {
		pid, _ := strconv.Atoi(field)
		pids = append(pids, pid)
	}
	return pids
}

// pause makes the server hang.
func (s *server) pause() (resume func()) {
	s.cmd.Process.Signal(syscall.SIGSTOP)
	pids := s.children()
	for _, pid := range pids {
		syscall.Kill(pid, syscall.SIGSTOP)
	}
	return func() {
		for _, pid := range append(pids, s.cmd.Process.Pid) {
			syscall.Kill(pid, syscall.SIGCONT)
		}
	}
}

func (s *server) url() string {
	return fmt.Sprintf("postgres://isr@%s/postgres?pool_max_conns=16", s.addr)
}

func (s *server) pool() *pgxpool.Pool {
	pool, err := pgxpool.New(context.Background(), s.url())
	if err != nil {
		s.t.Fatal(err)
	}
	return pool
}

func (s *server) open(t testing.TB) *postgres.Store {
	pool := s.pool()
	t.Cleanup(pool.Close)
	return postgres.New(pool, postgres.Options{})
}

// The contract, on a server of its own.
func TestStore(t *testing.T) {
	s := newServer(t)
	storetest.Run(t, func(t *testing.T) storetest.Config {
		admin := s.pool()
		t.Cleanup(admin.Close)
		exec := func(sql string, args ...any) {
			t.Helper()
			if _, err := admin.Exec(t.Context(), sql, args...); err != nil {
				t.Fatal(err)
			}
		}
		exec("DROP SCHEMA public CASCADE")
		exec("CREATE SCHEMA public")
		const limit = 500
		open := func() (stores [2]store.Store) {
			for i := range stores {
				s := s.open(t)
				s.SetLimit(limit)
				stores[i] = s
			}
			return stores
		}
		return storetest.Config{
			Stores:   open(),
			MaxBytes: 1 << 20,
			Limit:    limit,
			Wipe:     func() { exec("TRUNCATE isr_history, isr_versions, isr_pages, isr_leases") },
			Pause:    s.pause,
			Reopen:   open,
			Corrupt: func(key string) {
				exec("UPDATE isr_pages SET record = set_byte(record, 10, get_byte(record, 10) # 1) WHERE key = sha256($1)", []byte(key))
			},
		}
	})
}

// An import of many articles spares nearly all pages that it does not concern, also where the
// table has room for 65,536 tags alone.
func TestImport(t *testing.T) {
	s := newServer(t).open(t)
	s.SetLimit(1 << 16)
	storetest.Import(t, s, 300_000)
}

// A filter that is lost counts as if it knew each tag, and nothing that is newer is older.
func TestDamagedFilters(t *testing.T) {
	server := newServer(t)
	s, admin := server.open(t), server.pool()
	defer admin.Close()
	s.SetLimit(10)
	put := func(key string, tags ...string) {
		t.Helper()
		ticket, err := storetest.Begin(t.Context(), s, key, 1e9)
		if err == nil {
			err = s.Put(t.Context(), key, ticket, &store.Record{Tags: tags})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	is := func(key string, want store.Effect) {
		t.Helper()
		if _, got, err := storetest.Get(t.Context(), s, key); err != nil || got != want {
			t.Errorf("%s: %v, %v, want %v", key, got, err, want)
		}
	}
	fill := func(round string) {
		for n := range 15 {
			if _, err := s.Invalidate(t.Context(), store.Expired, fmt.Sprint(round, n)); err != nil {
				t.Fatal(err)
			}
		}
	}
	put("before", "x")
	fill("first")
	put("between", "x")
	is("before", store.None)
	if _, err := admin.Exec(t.Context(), "DELETE FROM isr_filters"); err != nil {
		t.Fatal(err)
	}
	is("before", store.Expired)
	is("between", store.None)
}

// A crash loses the pages, which can be made again, and no purge.
func TestCrash(t *testing.T) {
	s := newServer(t)
	st := s.open(t)
	ctx := t.Context()
	ticket, err := storetest.Begin(ctx, st, "key", 1e9)
	if err == nil {
		err = st.Put(ctx, "key", ticket, &store.Record{Tags: []string{"tag"}, Data: []byte("data")})
	}
	if err != nil {
		t.Fatal(err)
	}
	v, err := st.Invalidate(ctx, store.Gone, "tag")
	if err != nil {
		t.Fatal(err)
	}
	s.kill()
	if !s.run() {
		t.Fatal("postgres does not start again")
	}
	isrtest.Eventually(t, "answer", func() error {
		c, err := st.Changes(ctx, v-1)
		if err == nil && (c.Reset || len(c.List) != 1 || c.List[0].Version != v) {
			t.Fatalf("%+v, want the purge", c)
		}
		return err
	})
}

// stuckPool returns a pool that makes one connection at once, and each other when it may. It
// counts in dials how many it has begun to make.
func (s *server) stuckPool(t *testing.T) (pool *pgxpool.Pool, dials <-chan struct{}, may chan struct{}) {
	t.Helper()
	config, err := pgxpool.ParseConfig(s.url() + "&sslmode=disable") // else each connection is dialled twice
	if err != nil {
		t.Fatal(err)
	}
	dial, begun := config.ConnConfig.DialFunc, make(chan struct{}, 100)
	may = make(chan struct{})
	ended := make(chan struct{})
	config.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if begun <- struct{}{}; len(begun) > 1 {
			select {
			case <-may:
			case <-ended:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		return dial(ctx, network, addr)
	}
	if pool, err = pgxpool.NewWithConfig(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		close(ended) // else the pool waits
		pool.Close()
	})
	return pool, begun, may
}

// Where connections take their time to be made, calls share those that there are.
func TestCallsDoNotWaitForNewConnections(t *testing.T) {
	pool, dials, may := newServer(t).stuckPool(t)
	st := postgres.New(pool, postgres.Options{})
	look := func(key string) {
		if _, _, err := storetest.Get(t.Context(), st, key); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("%s: %v", key, err)
		}
	}
	look("first")
	var all sync.WaitGroup
	for n := range 20 {
		all.Go(func() {
			for range 20 {
				look(fmt.Sprint(n))
			}
		})
	}
	all.Wait()
	if n := len(dials); n != 2 {
		t.Errorf("%d connections, want one, and one more that is being made", n)
	}
	may <- struct{}{}
	isrtest.Eventually(t, "connection", func() error { // it is not lost
		if n := pool.Stat().IdleConns(); n != 2 {
			return fmt.Errorf("%d connections", n)
		}
		return nil
	})
}

// A purge does not wait for the calls for pages that wait for connections.
func TestPurgesGoFirst(t *testing.T) {
	s := newServer(t)
	pool, _, may := s.stuckPool(t)
	st, admin := postgres.New(pool, postgres.Options{}), s.pool()
	defer admin.Close()
	look := func() {
		if _, _, err := storetest.Get(t.Context(), st, "key"); !errors.Is(err, store.ErrNotFound) {
			t.Error(err)
		}
	}
	waiting := func(want int) {
		t.Helper()
		isrtest.Eventually(t, "queue", func() error {
			if n := st.Waiting(); n != want {
				return fmt.Errorf("%d wait, want %d", n, want)
			}
			return nil
		})
	}
	look()
	tx, err := admin.Begin(t.Context())
	if err == nil {
		_, err = tx.Exec(t.Context(), "LOCK TABLE isr_pages")
	}
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 10 {
		all.Go(look)
	}
	waiting(9) // one hangs
	all.Go(func() {
		if _, err := st.Invalidate(t.Context(), store.Gone, "tag"); err != nil {
			t.Error(err)
		}
		if n := st.Waiting(); n < 8 {
			t.Errorf("%d wait after the purge, want all but one at least", n)
		}
		if err := tx.Rollback(t.Context()); err != nil {
			t.Error(err)
		}
	})
	waiting(10)
	may <- struct{}{}
	all.Wait()
}

// A program whose database has never answered has a Store that says so.
func TestNeverThere(t *testing.T) {
	addr, err := isrtest.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	pool, err := pgxpool.New(t.Context(), "postgres://isr:secret@"+addr+"/postgres")
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	st := postgres.New(pool, postgres.Options{})
	_, _, err = storetest.Get(t.Context(), st, "key")
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("Look: %v", err)
	}
}
