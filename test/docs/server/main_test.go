package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/alexedwards/scs/v2"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/isr-go/isr/internal/isrtest"
)

func get(t *testing.T, c *http.Client, url string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return isrtest.Fetch(t, c, req)
}

// A page beside which the session's cookie is set is for that visitor alone, and
// the same page without one is for everybody.
func TestCookieBesideAPage(t *testing.T) {
	sessions := scs.New()
	sessions.IdleTimeout = time.Hour
	handler, _ := newHandler(newApp(sessions), sessions)
	srv := httptest.NewServer(handler)
	defer srv.Close()
	jar, _ := cookiejar.New(nil)
	ann := &http.Client{Jar: jar}

	res, err := ann.PostForm(srv.URL+"/login", url.Values{"name": {"Ann"}})
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(res.Body)
	res.Body.Close()
	if got := string(b); got != "<p>Hello, Ann!" || res.Header.Get("Cache-Status") != "isr; fwd=bypass" {
		t.Errorf("the account: %q %v", got, res.Header)
	}
	res, page := get(t, ann, srv.URL)
	if got := res.Header.Values("Cache-Control"); len(got) != 1 || got[0] != "private, max-age=0" || res.Header["Set-Cookie"] == nil {
		t.Errorf("with a session: %v", res.Header)
	}
	res, other := get(t, http.DefaultClient, srv.URL)
	if !strings.HasPrefix(res.Header.Get("Cache-Control"), "public") || res.Header["Set-Cookie"] != nil ||
		!strings.HasPrefix(res.Header.Get("Cache-Status"), "isr; hit") || other != page {
		t.Errorf("without: %v", res.Header)
	}
}

func TestCrossOriginProtection(t *testing.T) {
	sessions := scs.New()
	handler, _ := newHandler(newApp(sessions), sessions)
	w := httptest.NewRecorder()
	r := httptest.NewRequest("POST", "/login", nil)
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	handler.ServeHTTP(w, r)
	if w.Code != http.StatusForbidden {
		t.Errorf("got %d", w.Code)
	}
}

// A panic of a page's first generation reaches the recovery, and its 500 the span.
func TestPanics(t *testing.T) {
	spans := tracetest.NewSpanRecorder()
	otel.SetTracerProvider(trace.NewTracerProvider(trace.WithSpanProcessor(spans)))
	sessions := scs.New()
	handler, site := newHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/account" { // which has no generation
			fmt.Fprint(w, "half")
		}
		panic("no database")
	}), sessions)
	srv := httptest.NewServer(handler)
	defer srv.Close()
	for i := range 2 {
		res, body := get(t, http.DefaultClient, srv.URL)
		if res.StatusCode != 500 || body != "Internal Server Error\n" {
			t.Errorf("%d %q", res.StatusCode, body)
		}
		if n := site.Stats().Failed; n != uint64(i+1) {
			t.Errorf("%d generations have failed", n)
		}
	}
	if res, err := http.Get(srv.URL + "/account"); err == nil {
		if _, err = io.ReadAll(res.Body); err == nil {
			t.Error("half a response passes for a whole one")
		}
		res.Body.Close()
	}
	if s := spans.Ended(); len(s) < 2 || s[0].Status().Code != codes.Error {
		t.Errorf("spans: %v", s)
	}
}

// On SIGTERM visitors get their pages, and then the pages
// that are generated behind them are waited for.
func TestShutdown(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	began, goOn, renewed := make(chan string, 10), make(chan struct{}), atomic.Bool{}
	slow := false
	sessions := scs.New()
	handler, site := newHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !slow {
			w.Header().Set("Cache-Tag", "page")
			return
		}
		began <- r.URL.Path
		<-goOn
		if r.URL.Path == "/stored" {
			for range 1000 {
				runtime.Gosched() // so that visitors who do not wait for it have left
			}
			renewed.Store(true)
		}
	}), sessions)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, ln, handler, site) }()
	base := "http://" + ln.Addr().String()

	get(t, http.DefaultClient, base+"/stored")
	slow = true
	site.RevalidateTag(ctx, "page")
	get(t, http.DefaultClient, base+"/stored") // stale, and renewed behind it
	<-began
	visitor := make(chan error, 1)
	go func() {
		res, err := http.Get(base + "/new")
		if err == nil && res.StatusCode != 200 {
			err = errors.New(res.Status)
		}
		visitor <- err
	}()
	<-began
	cancel()
	close(goOn)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := <-visitor; err != nil {
		t.Error(err)
	}
	if !renewed.Load() {
		t.Error("a page that was being generated was not waited for")
	}
}

// The program of the docs ends without an error on SIGTERM, while a visitor waits.
func TestSIGTERM(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no SIGTERM")
	}
	bin := filepath.Join(t.TempDir(), "server")
	if out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.Command(bin)
	cmd.Env = append(cmd.Environ(), "ADDR=127.0.0.1:0")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	line, err := bufio.NewReader(stderr).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	base := line[strings.Index(line, "http://") : len(line)-1]
	sent := make(chan struct{})
	visitor := make(chan error, 1)
	go func() {
		c, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
		if err != nil {
			close(sent)
			visitor <- err
			return
		}
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
		close(sent)
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err == nil && res.StatusCode != 200 {
			err = errors.New(res.Status)
		}
		visitor <- err
	}()
	<-sent
	another := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	get(t, another, base+"/healthz") // on a connection that was accepted after the other
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-visitor; err != nil {
		t.Errorf("a visitor who waits gets %v", err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the program ends with %v", err)
	}
}
