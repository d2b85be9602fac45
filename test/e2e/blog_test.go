package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/isr-go/isr/internal/isrtest"
)

// patience bounds every single wait: for the browser, for the blog, for a
// condition on a page. It is long, because only a test that fails waits for it.
const patience = 30 * time.Second

// blogDir is where the blog is built. TestMain makes and removes it.
var blogDir string

// buildBlog builds the program once, with the race detector where the tests
// have it: a browser asks for several things at a time.
var buildBlog = sync.OnceValues(func() (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute) // nothing may be in Go's build cache
	defer cancel()
	bin := filepath.Join(blogDir, "blog")
	args := []string{"build", "-o", bin}
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		args = append(args, "-race")
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "github.com/isr-go/isr/examples/blog")...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	return bin, nil
})

// A blog is the program as a process.
type blog struct {
	*testing.T
	url string
}

// orphan is how a process has to be started to end with the tests, even where they
// end in a panic or by a timeout. Nil means that there is no such way here.
var orphan *syscall.SysProcAttr

// startBlog starts the blog on a free port. When the test ends, the blog is
// interrupted, and must then end without an error.
func startBlog(t *testing.T, args ...string) *blog {
	t.Helper()
	needBrowser(t) // there is no reason to build anything otherwise
	bin, err := buildBlog()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, append([]string{"-addr", "localhost:0"}, args...)...)
	cmd.WaitDelay = time.Second
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer // read only when the process has ended
	cmd.Stderr = &log
	cmd.SysProcAttr = orphan
	started := make(chan error, 1)
	url := make(chan string, 1)
	silent := make(chan struct{}) // when there is nothing more to come from stdout
	go func() {
		defer close(silent)
		// What ends a process with its parent ends it with the thread that has
		// started it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			if rest, ok := strings.CutPrefix(lines.Text(), "the blog:"); ok {
				url <- strings.TrimSpace(rest)
			}
		}
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Errorf("interrupting the blog: %v", err)
		}
		kill := time.AfterFunc(patience, func() { cmd.Process.Kill() })
		<-silent
		err := cmd.Wait()
		if !kill.Stop() {
			t.Errorf("the blog had to be killed, %v after it was interrupted", patience)
		}
		if err != nil {
			t.Errorf("the blog ended with an error: %v", err)
		}
		if t.Failed() {
			t.Logf("the log of the blog:\n%s", log.Bytes())
		}
	})
	b := &blog{T: t}
	select {
	case b.url = <-url:
	case <-silent:
		t.Fatal("the blog ended before it had said where it is")
	case <-time.After(patience):
		t.Fatalf("after %v, the blog had not said where it is", patience)
	}
	return b
}

// A state is the blog's inspector as JSON.
type state struct {
	Summary struct{ Generated, Failed, Misses uint64 }
	Table   struct{ Pages []row }
}

// A row is a page of the site.
type row struct {
	Path, Query, State, Phase, Error, NotStored string
	Generated                                   time.Time
	Failures                                    int
}

// state returns what the site has done and holds, as it says itself. It looks
// without a browser.
func (b *blog) state() state {
	b.Helper()
	var s state
	if err := json.Unmarshal(b.get("/debug/isr?format=json&limit=500"), &s); err != nil {
		b.Fatal(err)
	}
	return s
}

// page returns what the site says of a page of its own. There must be one.
func (b *blog) page(path string) row {
	b.Helper()
	s := b.state()
	i := slices.IndexFunc(s.Table.Pages, func(r row) bool { return r.Path == path })
	if i < 0 {
		b.Fatalf("no page %s is stored", path)
	}
	return s.Table.Pages[i]
}

// get asks the blog for something without a browser.
func (b *blog) get(path string) []byte {
	b.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, b.url+path, nil)
	if err != nil {
		b.Fatal(err)
	}
	_, body := isrtest.Fetch(b.T, http.DefaultClient, req)
	return []byte(body)
}
