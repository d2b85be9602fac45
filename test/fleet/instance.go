package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/store"
)

// instanceEnv is the environment variable that makes an instance of the program.
const instanceEnv = "ISR_FLEET_INSTANCE"

// maxWarmTime is for how long an instance makes pages before it serves.
const maxWarmTime = 10 * time.Second

// What the site is like.
const (
	pageCount  = 20
	pageTTL    = 2 * time.Second
	renderTime = 50 * time.Millisecond
	pageBytes  = 4 << 10
	secret     = "only on loopback"
)

// Headers of each response: who has answered, which need not be who has rendered.
const (
	instanceHeader = "X-Instance"
	buildHeader    = "X-Build"
)

// A config says what an instance has to know.
type config struct {
	Number int
	Build  string // Options.Version
	Store  string // name of the engine
	Addr   string // host:port of its server
	CMS    string // URL
	Log    bool

	Inherit isr.Inherit
	Warm    bool // before it says where it serves
}

// instanceMain is the whole program where it was started as an instance, and
// reports whether it was.
func instanceMain() bool {
	text, ok := os.LookupEnv(instanceEnv)
	if !ok {
		return false
	}
	var cfg config
	err := json.Unmarshal([]byte(text), &cfg)
	if err == nil {
		err = serve(cfg, os.Stdin, os.Stdout)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "fleet: instance %d: %v\n", cfg.Number, err)
		os.Exit(1)
	}
	return true
}

// serve prints the address that it serves, and shuts down when stdin ends: because
// it was closed, or because there is nobody any more who could.
func serve(cfg config, stdin io.Reader, stdout io.Writer) error {
	site, mux, err := newInstance(cfg)
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	number := strconv.Itoa(cfg.Number)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(instanceHeader, number)
		w.Header().Set(buildHeader, cfg.Build)
		mux.ServeHTTP(w, r)
	})}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ln) }()
	if cfg.Warm {
		ctx, cancel := context.WithTimeout(context.Background(), maxWarmTime)
		for path, err := range site.Warm(ctx) {
			if err != nil && cfg.Log {
				slog.Error("not warmed", "instance", cfg.Number, "path", path, "error", err)
			}
		}
		cancel()
	}
	fmt.Fprintln(stdout, ln.Addr())
	go func() {
		io.Copy(io.Discard, stdin)
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		err := server.Shutdown(ctx)
		if err == nil {
			err = site.Shutdown(ctx)
		}
		ended <- err
	}()
	if err := <-ended; err != http.ErrServerClosed {
		return err
	}
	return <-ended
}

// newInstance returns a site, and a handler that answers for it and its webhook. It asks the
// Store once before, as a check of readiness would: a new connection to PostgreSQL may take
// longer than visitors wait.
func newInstance(cfg config) (*isr.Site, http.Handler, error) {
	e, err := engineOf(cfg.Store)
	if err != nil {
		return nil, nil, err
	}
	st := e.open(cfg.Addr)
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	st.Look(ctx, "", store.Ticket{}, 0) // it may fail
	opts := isr.Options{
		Default: isr.Route{TTL: pageTTL},
		Routes:  map[string]isr.Route{"/data/{page}": {}}, // only an edit makes them old
		Origin:  "http://fleet.example",                   // which all of them are
		Store:   st,
		Version: cfg.Build,
		Inherit: cfg.Inherit,
	}
	if cfg.Log {
		opts.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil)).With("instance", cfg.Number)
	}
	site := isr.Wrap(newPages(cfg), opts)
	mux := http.NewServeMux()
	mux.Handle("/api/revalidate", isr.RevalidateHandler(site, secret))
	mux.Handle("/", site)
	return site, mux, nil
}

// newPages returns the handler that knows nothing of a cache. It asks the CMS
// first, and takes its time then: so a purge often comes in between.
func newPages(cfg config) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /page/{page}", func(w http.ResponseWriter, r *http.Request) {
		page := r.PathValue("page")
		revision, err := ask(r.Context(), fmt.Sprintf("%s/revision/%s?by=%d", cfg.CMS, page, cfg.Number))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		select {
		case <-time.After(renderTime):
		case <-r.Context().Done():
			return
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Tag", "page-"+page)
		w.Write(render(page, revision, cfg.Build))
	})
	mux.HandleFunc("GET /data/{page}", dataPage(cfg))
	return mux
}

// ask returns the CMS's answer.
func ask(ctx context.Context, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("the CMS answers %s", resp.Status)
	}
	return string(b), err
}

// render returns a page of which a visitor can tell whether it is whole, and what
// it is: two lines, the sum of the second, and the text.
func render(page, revision, build string) []byte {
	text := fmt.Sprintf("%s %s %s\n", page, revision, build)
	text += strings.Repeat(text, pageBytes/len(text))
	return fmt.Appendf(nil, "%08x\n%s", crc32.ChecksumIEEE([]byte(text)), text)
}

// read is the inverse of render.
func read(b []byte) (page, revision int, build string, err error) {
	sum, text, _ := bytes.Cut(b, []byte("\n"))
	if string(sum) != fmt.Sprintf("%08x", crc32.ChecksumIEEE(text)) {
		return 0, 0, "", fmt.Errorf("a page of %d bytes that is not whole", len(b))
	}
	_, err = fmt.Sscan(string(text), &page, &revision, &build)
	return page, revision, build, err
}
