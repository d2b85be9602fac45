package trial

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// An Order is what a child process is asked to do, as JSON in its last argument.
type Order struct {
	Do   string // serve, cost, crowd (cost over 100,000 pages), tags, mind
	Peer string
	Config
	Time time.Duration // for each row of cost
	Args []string      // of the program that is minded
}

// Greeting is what a server says on its standard output when it can be asked.
type Greeting struct {
	Addr, Control string
	Version       string // of the peer's module
	Can           []string
}

// IsChild reports whether the process was started with an Order.
func IsChild() bool { return len(os.Args) == 3 && os.Args[1] == "child" }

// Child carries out the Order in the arguments, with one of peers. It ends when
// its standard input does, so that no child outlives the command.
func Child(peers []Peer) error {
	var o Order
	if err := json.Unmarshal([]byte(os.Args[2]), &o); err != nil {
		return err
	}
	if o.Do == "mind" {
		return mind(o.Args)
	}
	i := slices.IndexFunc(peers, func(p Peer) bool { return p.Name == o.Peer })
	if i < 0 {
		return fmt.Errorf("no peer %q", o.Peer)
	}
	answer := json.NewEncoder(os.Stdout)
	switch o.Do {
	case "serve":
		return serve(peers[i], o.Config, answer)
	case "cost":
		rows, err := Cost(peers[i], o.Config, o.Time)
		return cmp.Or(err, answer.Encode(rows))
	case "crowd":
		rows, err := Crowd(peers[i], o.Config, o.Time)
		return cmp.Or(err, answer.Encode(rows))
	case "tags":
		rows, err := Tags(peers[i], o.Config, o.Time)
		return cmp.Or(err, answer.Encode(rows))
	}
	return fmt.Errorf("no such order: %q", o.Do)
}

// start wraps an origin with a peer.
func start(p Peer, c Config) (*Origin, *Cache, error) {
	origin := new(Origin)
	cache, err := p.New(origin, c)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", p.Name, err)
	}
	return origin, cache, nil
}

// serve serves a peer on one port of the loopback interface and takes orders on another.
func serve(p Peer, c Config, greet *json.Encoder) error {
	origin, cache, err := start(p, c)
	if err != nil {
		return err
	}
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	back, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	quiet := log.New(io.Discard, "", 0)
	failed := make(chan error, 2)
	go func() {
		if cache.Serve != nil {
			failed <- cache.Serve(front)
			return
		}
		failed <- (&http.Server{Handler: cache.Handler, ErrorLog: quiet}).Serve(front)
	}()
	go func() { failed <- (&http.Server{Handler: control(origin, cache), ErrorLog: quiet}).Serve(back) }()
	g := Greeting{Addr: front.Addr().String(), Control: back.Addr().String(), Version: Version(p.Module)}
	for name, can := range map[string]bool{
		"purge": cache.Purge != nil, "purgetag": cache.PurgeTag != nil, "prerender": cache.Prerender != nil,
	} {
		if can {
			g.Can = append(g.Can, name)
		}
	}
	if err := greet.Encode(g); err != nil {
		return err
	}
	select {
	case err := <-failed:
		return err
	case <-parentLeft():
	}
	if cache.Close != nil {
		return cache.Close()
	}
	return nil
}

// parentLeft returns a channel that is closed at the end of the standard input.
func parentLeft() <-chan struct{} {
	left := make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(left)
	}()
	return left
}

// Version returns the version of a module in this program.
func Version(module string) string {
	info, ok := debug.ReadBuildInfo()
	if !ok || module == "" {
		return ""
	}
	for _, m := range info.Deps {
		if m.Path == module {
			return m.Version
		}
	}
	return ""
}

// control answers what the command asks of a server beside its pages.
func control(o *Origin, c *Cache) http.Handler {
	mux := http.NewServeMux()
	do := func(pattern string, f func(*http.Request) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			answer, err := f(r)
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			json.NewEncoder(w).Encode(answer)
		})
	}
	none := func(string) error { return errors.New("has none") }
	purge, purgeTag := c.Purge, c.PurgeTag
	if purge == nil {
		purge = none
	}
	if purgeTag == nil {
		purgeTag = none
	}
	do("/set", func(r *http.Request) (any, error) {
		delay, err := time.ParseDuration(r.FormValue("delay"))
		if err != nil {
			return nil, err
		}
		version, err := strconv.ParseInt(r.FormValue("version"), 10, 64)
		o.Set(r.FormValue("mode"), delay, version)
		return 0, err
	})
	do("/renders", func(r *http.Request) (any, error) { return o.Renders(r.FormValue("of")), nil })
	do("/heap", func(*http.Request) (any, error) { return heap(), nil })
	do("/purge", func(r *http.Request) (any, error) { return 0, purge(r.FormValue("path")) })
	do("/purgetag", func(r *http.Request) (any, error) {
		begin := time.Now()
		err := purgeTag(r.FormValue("tag"))
		return time.Since(begin), err
	})
	do("/prerender", func(r *http.Request) (any, error) {
		if c.Prerender == nil {
			return nil, errors.New("has none")
		}
		n, err := strconv.Atoi(r.FormValue("n"))
		if err != nil {
			return nil, err
		}
		begin := time.Now()
		err = c.Prerender(func(yield func(string) bool) {
			for i := range n {
				if !yield("/page/" + strconv.Itoa(i)) {
					return
				}
			}
		})
		return time.Since(begin), err
	})
	mux.HandleFunc("/profile", func(w http.ResponseWriter, r *http.Request) {
		d, err := time.ParseDuration(r.FormValue("for"))
		if err == nil {
			err = pprof.StartCPUProfile(w)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		sleep(r.Context(), d)
		pprof.StopCPUProfile()
	})
	return mux
}

// heap returns the bytes of live objects.
func heap() uint64 {
	var m runtime.MemStats
	for range 3 { // finalizers, pools
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// mind runs another program and ends it when the standard input does, because
// that program does not know about its parent.
func mind(args []string) error {
	if len(args) == 0 {
		return errors.New("mind: no program")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		return err
	case <-parentLeft():
	case <-ctx.Done():
	}
	cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-ended:
	case <-time.After(3 * time.Second):
		cmd.Process.Kill()
		<-ended
	}
	return nil
}
