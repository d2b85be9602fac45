package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/rueidis"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/internal/isrtest"
	"github.com/isr-go/isr/store"
	"github.com/isr-go/isr/store/postgres"
	"github.com/isr-go/isr/store/redis"
)

// A replicated is a server with a replica that takes over when the server is gone.
type replicated interface {
	store(t *testing.T) store.Store // of another instance
	separate(t *testing.T)          // keeps from the replica what is done from now on
	fail(t *testing.T)              // kills the server, and waits until the replica has taken over
}

// A pair is two of Redis, or as good.
type pair struct {
	primary, replica *redisServer
	others           []*redisServer
	option           rueidis.ClientOption
}

// needProgram returns where a server like Redis is, or skips the test.
func needProgram(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	switch {
	case err == nil:
		return path
	case os.Getenv("CI") == "true" && name == "redis-server":
		t.Fatal(errNoRedis)
	default:
		t.Skipf("there is no %s in $PATH", name)
	}
	return ""
}

func mustStart(t *testing.T, path string, args ...string) *redisServer {
	t.Helper()
	server, err := startServer(t.Context(), path, args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.kill)
	return server
}

func must(t *testing.T, server *redisServer, commands ...string) {
	t.Helper()
	if err := server.do(commands...); err != nil {
		t.Fatal(err)
	}
}

// answer returns what a server answers.
func answer(server *redisServer, command ...string) string {
	out, _ := exec.Command("redis-cli", append([]string{"-p", portOf(server)}, command...)...).CombinedOutput()
	return string(out)
}

func portOf(server *redisServer) string {
	_, port, _ := net.SplitHostPort(server.addr)
	return port
}

// replicates waits until a replica is in step.
func (p *pair) replicates(t *testing.T) {
	t.Helper()
	isrtest.Eventually(t, "replica", func() error {
		if info := answer(p.replica, "INFO", "replication"); !strings.Contains(info, "master_link_status:up") {
			return fmt.Errorf("it is not in step: %s", info)
		}
		return nil
	})
}

func (p *pair) separate(t *testing.T) {
	t.Helper()
	must(t, p.primary, "ACL SETUSER default -psync -sync", "CLIENT KILL TYPE replica")
}

func (p *pair) fail(t *testing.T) {
	t.Helper()
	p.primary.kill()
	isrtest.Eventually(t, "failover", func() error {
		if info := answer(p.replica, "INFO", "replication"); !strings.Contains(info, "role:master") {
			return fmt.Errorf("it is still a replica: %s", info)
		}
		return nil
	})
}

func (p *pair) store(t *testing.T) store.Store { return redis.New(dial(t, p.option), redis.Options{}) }

// withSentinel starts a pair, and a sentinel that watches it.
func withSentinel(t *testing.T, path string) replicated {
	p := &pair{primary: mustStart(t, path)}
	p.replica = mustStart(t, path, "--replicaof", "127.0.0.1 "+portOf(p.primary), "--repl-diskless-sync-delay", "0")
	p.replicates(t)
	addr, err := isrtest.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(addr)
	conf := filepath.Join(t.TempDir(), "sentinel.conf")
	text := fmt.Sprintf("port %s\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 %s 1\n"+
		"sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 5000\n", port, portOf(p.primary))
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, conf, "--sentinel")
	sentinel, err := start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sentinel.kill)
	watch := &redisServer{addr, sentinel}
	isrtest.Eventually(t, "sentinel", func() error {
		if out := answer(watch, "SENTINEL", "REPLICAS", "main"); !strings.Contains(out, portOf(p.replica)) {
			return fmt.Errorf("it does not know the replica: %s", out)
		}
		return nil
	})
	p.option = rueidis.ClientOption{InitAddress: []string{addr}, Sentinel: rueidis.SentinelOption{MasterSet: "main"}}
	return p
}

// inCluster starts a cluster of three, one of which has the table of versions and a
// replica.
func inCluster(t *testing.T, path string) replicated {
	args := func() []string {
		addr, err := isrtest.FreeAddr()
		if err != nil {
			t.Fatal(err)
		}
		_, bus, _ := net.SplitHostPort(addr)
		return []string{"--cluster-enabled", "yes", "--cluster-port", bus, "--cluster-node-timeout", "1000",
			"--cluster-replica-validity-factor", "0", "--cluster-config-file", filepath.Join(t.TempDir(), "nodes.conf"), "--repl-diskless-sync-delay", "0"}
	}
	var all []*redisServer
	var first []string
	for i := range 4 {
		a := args()
		s := mustStart(t, path, a...)
		all = append(all, s)
		if i == 0 {
			first = []string{portOf(s), a[3]}
		}
		must(t, s, fmt.Sprintf("CLUSTER SET-CONFIG-EPOCH %d", i+1), fmt.Sprintf("CLUSTER MEET 127.0.0.1 %s %s", first[0], first[1]))
		if i < 3 {
			must(t, s, fmt.Sprintf("CLUSTER ADDSLOTSRANGE %d %d", 16384*i/3, 16384*(i+1)/3-1))
		}
	}
	var slot int
	fmt.Sscan(answer(all[0], "CLUSTER", "KEYSLOT", "isr:{versions}"), &slot)
	p := &pair{replica: all[3]}
	for i, s := range all[:3] {
		if slot >= 16384*i/3 && slot < 16384*(i+1)/3 {
			p.primary = s
		} else {
			p.others = append(p.others, s)
		}
	}
	id := strings.TrimSpace(answer(p.primary, "CLUSTER", "MYID"))
	isrtest.Eventually(t, "replica", func() error { return p.replica.do("CLUSTER REPLICATE " + id) })
	p.replicates(t)
	for _, s := range all {
		isrtest.Eventually(t, "cluster", func() error {
			if info := answer(s, "CLUSTER", "INFO"); !strings.Contains(info, "cluster_state:ok") || !strings.Contains(info, "cluster_known_nodes:4") {
				return fmt.Errorf("not ready: %s", info)
			}
			return nil
		})
	}
	p.option = rueidis.ClientOption{InitAddress: []string{p.others[0].addr, p.others[1].addr}}
	return p
}

// The server is cut off from its replica, takes a purge, and is gone; the replica takes
// over, and another instance is the first to ask it. Two seconds after the instance that got
// the purge is back, no page is there that was purged: neither for those that were there,
// nor for those that start then.
func TestFailoverLosesNoPurge(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"redis-server", "valkey-server"} {
		for how, open := range map[string]func(*testing.T, string) replicated{"sentinel": withSentinel, "cluster": inCluster} {
			t.Run(program+" "+how, func(t *testing.T) {
				t.Parallel()
				failoverLosesNoPurge(t, open(t, needProgram(t, program)))
			})
		}
	}
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		failoverLosesNoPurge(t, withStandby(t))
	})
}

func failoverLosesNoPurge(t *testing.T, p replicated) {
	var revision, generated atomic.Int64
	revision.Store(1)
	start := func() *isr.Site {
		return siteOf(t, p.store(t), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			generated.Add(1)
			fmt.Fprint(w, r.URL.Path, " ", revision.Load())
		}))
	}
	const pages = 20
	one, two := start(), start()
	for i := range pages {
		for _, site := range []*isr.Site{one, two} {
			visit(t, site, fmt.Sprint("/", i))
		}
	}
	time.Sleep(time.Second) // until all is stored, and replicated
	p.separate(t)
	revision.Store(2)
	for i := range pages / 2 {
		if err := one.Purge(t.Context(), fmt.Sprint("/", i)); err != nil {
			t.Fatal(err)
		}
	}
	p.fail(t)
	first := start()
	isrtest.Eventually(t, "answer", func() error { return first.RevalidateTag(t.Context(), "another") })
	isrtest.Eventually(t, "answer", func() error { return one.RevalidateTag(t.Context(), "yet another") })
	time.Sleep(2 * time.Second)
	for name, site := range map[string]*isr.Site{"one": one, "two": two, "first": first, "last": start()} {
		old := 0
		for i := range pages / 2 {
			if path := fmt.Sprint("/", i); visit(t, site, path) != path+" 2" {
				old++
			}
		}
		if old > 0 {
			t.Errorf("instance %q shows %d of %d pages that were purged", name, old, pages/2)
		}
	}
}

// dial returns a client that is closed with the test.
func dial(t *testing.T, option rueidis.ClientOption) rueidis.Client {
	t.Helper()
	var client rueidis.Client
	isrtest.Eventually(t, "client", func() (err error) { // a sentinel may name the last server for a while
		client, err = rueidis.NewClient(option)
		return err
	})
	t.Cleanup(client.Close)
	return client
}

func siteOf(t *testing.T, st store.Store, h http.Handler) *isr.Site {
	t.Helper()
	site := isr.Wrap(h, isr.Options{
		Origin: "https://example.com", Version: "1", Store: st,
		Default: isr.Route{TTL: time.Hour},
	})
	t.Cleanup(func() { site.Shutdown(t.Context()) })
	return site
}

// A standby is a PostgreSQL server, and another that replicates it by streaming.
type standby struct{ primary, replica *postgresServer }

// withStandby starts both.
func withStandby(t *testing.T) replicated {
	t.Helper()
	if err := postgresEngine.need(); err != nil && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	s := &standby{newPostgres(t), newPostgres(t)}
	if err := s.primary.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.replica.copyOf(s.primary); err != nil {
		t.Fatal(err)
	}
	if err := s.replica.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

func newPostgres(t *testing.T) *postgresServer {
	t.Helper()
	addr, err := isrtest.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	s := &postgresServer{addr: addr}
	t.Cleanup(s.close)
	return s
}

// copyOf makes the server a standby of another.
func (s *postgresServer) copyOf(primary *postgresServer) error {
	path, err := postgresProgram("pg_basebackup")
	if err != nil {
		return err
	}
	if s.dir, err = postgresFolder(); err != nil {
		return err
	}
	cmd := exec.Command(path, "-D", s.data(), "-d", databaseAt(primary.addr), "-R", "-X", "stream", "-c", "fast", "--no-sync")
	if err := asPostgres(cmd, s.dir); err != nil {
		return err
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("pg_basebackup: %w\n%s", err, out)
	}
	return nil
}

func (s *standby) store(t *testing.T) store.Store {
	t.Helper()
	dsn := fmt.Sprintf("postgres://isr@%s,%s/postgres?target_session_attrs=read-write", s.primary.addr, s.replica.addr)
	pool, err := pgxpool.New(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return postgres.New(pool, postgres.Options{})
}

func (s *standby) separate(t *testing.T) {
	t.Helper()
	s.must(t, s.primary, "SELECT 1 / count(*) FROM pg_stat_replication WHERE sent_lsn = replay_lsn") // it is in step
	s.must(t, s.replica, "ALTER SYSTEM SET primary_conninfo = ''")
	s.must(t, s.replica, "SELECT pg_reload_conf()")
	s.must(t, s.primary, "SELECT 1 / (count(*) = 0)::int FROM pg_stat_replication")
}

func (s *standby) fail(t *testing.T) {
	t.Helper()
	s.primary.kill()
	if err := s.replica.do("SELECT 1 / (count(*) = 0)::int FROM isr_versions WHERE effect = 3"); err != nil {
		t.Fatalf("the replica has purges: %v", err)
	}
	s.must(t, s.replica, "SELECT 1 / pg_promote()::int")
}

// must executes a statement until it has succeeded.
func (s *standby) must(t *testing.T, server *postgresServer, sql string) {
	t.Helper()
	isrtest.Eventually(t, sql, func() error { return server.do(sql) })
}
