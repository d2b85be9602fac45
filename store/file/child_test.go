package file_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/isr-go/isr/store"
	"github.com/isr-go/isr/store/file"
	"github.com/isr-go/isr/store/storetest"
)

// Some of the tests need processes that can be killed, limited or stripped of their
// rights. They are this test's own program, with the name of what to do in its
// environment.
const (
	childEnv = "ISR_STORE_FILE_CHILD"
	dirEnv   = "ISR_STORE_FILE_DIR"
)

// children are what a child process does, with a directory, until it has finished
// or killed. What it returns fails the test.
var children = map[string]func(dir string) error{"load": load}

func TestMain(m *testing.M) {
	if f := children[os.Getenv(childEnv)]; f != nil {
		if err := f(os.Getenv(dirEnv)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// A child is a process, and the lines that it prints.
type child struct {
	*exec.Cmd
	lines *bufio.Scanner
	err   bytes.Buffer
}

func start(t *testing.T, name, dir string) *child {
	t.Helper()
	c := &child{Cmd: exec.Command(os.Args[0])}
	c.Env = append(os.Environ(), childEnv+"="+name, dirEnv+"="+dir)
	c.Stderr = &c.err
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.lines = bufio.NewScanner(out)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill() })
	return c
}

// run waits for the end of a child that ends by itself.
func run(t *testing.T, name, dir string) {
	t.Helper()
	c := start(t, name, dir)
	for c.lines.Scan() {
		t.Log(c.lines.Text())
	}
	if err := c.Wait(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, c.err.String())
	}
}

const shared = 10 // pages that all children write

// load puts and purges in four goroutines, and prints what was acknowledged. All of
// a line is written at once.
func load(dir string) error {
	s, err := file.Open(dir, file.Options{MaxBytes: -1})
	if err != nil {
		return err
	}
	s.SetSlack(4 << 10)
	me := os.Getpid()
	failed := make(chan error)
	for g := range 4 {
		go func() {
			for n := 0; ; n++ {
				name := fmt.Sprintf("%d-%d-%d", me, g, n)
				err := errors.Join(
					store1(s, "kept "+name, "tag of nobody"),
					store1(s, "purged "+name, "tag "+name),
					store1(s, fmt.Sprint("shared ", n%shared), "shared"))
				if err != nil {
					failed <- err
					return
				}
				if _, err := s.Invalidate(background, store.Gone, "tag "+name); err != nil {
					failed <- err
					return
				}
				fmt.Println(name)
			}
		}()
	}
	return <-failed
}

// store1 stores a page with a checksum.
func store1(s store.Store, key, tag string) error {
	ticket, err := storetest.Begin(background, s, key, time.Minute)
	if err != nil {
		return err
	}
	err = s.Put(background, key, ticket, &store.Record{Tags: []string{tag}, Data: page(key)})
	if errors.Is(err, store.ErrSuperseded) {
		return nil
	}
	return err
}

func page(key string) []byte {
	body := strings.Repeat(fmt.Sprintf("%s %d\n", key, rand.Uint64()), 1+rand.IntN(2000))
	return fmt.Appendf(nil, "%s%x", body, sha256.Sum256([]byte(body)))
}

func isWhole(key string, b []byte) bool {
	n := len(b) - 2*sha256.Size
	return n > 0 && bytes.HasPrefix(b, []byte(key+" ")) && fmt.Sprintf("%x", sha256.Sum256(b[:n])) == string(b[n:])
}

// Children put and purge in one directory, and are killed meanwhile: every purge that
// was acknowledged holds, at once and in every process, and every page is complete.
func TestProcessesKilled(t *testing.T) {
	dir := t.TempDir()
	const kills, processes = 20, 3
	s := open(t, dir, file.Options{MaxBytes: -1})
	cursor, err := s.Changes(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	var running []*child
	for range processes {
		running = append(running, start(t, "load", dir))
	}
	var acknowledged []string
	check := func(name string) {
		t.Helper()
		acknowledged = append(acknowledged, name)
		is(t, s, "purged "+name, "", store.Gone)
		checkWhole(t, s, "kept "+name)
	}
	for kill := range kills {
		c := running[kill%processes]
		for range 5 + rand.IntN(20) {
			if !c.lines.Scan() {
				c.Wait()
				t.Fatalf("child %d ended: %s", kill, c.err.String())
			}
			check(c.lines.Text())
		}
		if err := c.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for c.lines.Scan() { // what it had acknowledged before
			check(c.lines.Text())
		}
		c.Wait()
		running[kill%processes] = start(t, "load", dir)
	}
	for _, c := range running {
		c.Process.Kill()
		for c.lines.Scan() {
			check(c.lines.Text())
		}
		c.Wait()
	}

	// A process that has just started finds the same, and so does one that followed.
	fresh := open(t, dir, file.Options{MaxBytes: -1})
	seen := make(map[string]bool)
	for after := cursor.Upto; ; {
		c, err := s.Changes(t.Context(), after)
		if err != nil || c.Reset {
			t.Fatalf("Changes: Reset is %v, %v", c.Reset, err)
		}
		if len(c.List) == 0 {
			break
		}
		for _, change := range c.List {
			seen[change.Tag] = true
		}
		after = c.Upto
	}
	for _, name := range acknowledged {
		is(t, fresh, "purged "+name, "", store.Gone)
		checkWhole(t, fresh, "kept "+name)
		if !seen["tag "+name] {
			t.Fatalf("the purge of %q is lost", name)
		}
	}
	for n := range shared {
		if key := fmt.Sprint("shared ", n); stored(dir, key) { // no child may have got so far
			checkWhole(t, fresh, key)
		}
	}
	t.Logf("%d kills, %d purges acknowledged, 0 lost; %d pages read, 0 torn", kills, len(acknowledged), 2*len(acknowledged)+shared)
}

func checkWhole(t *testing.T, s store.Store, key string) {
	t.Helper()
	rec, _, err := storetest.Get(background, s, key)
	if err != nil {
		t.Fatalf("Get(%q): %v", key, err)
	}
	if !isWhole(key, rec.Data) {
		t.Fatalf("Get(%q): a torn page: %.100q", key, rec.Data)
	}
}
