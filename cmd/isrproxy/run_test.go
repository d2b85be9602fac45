package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/isr-go/isr/internal/isrtest"
)

// A running is the whole program, in this process.
type running struct {
	t         *testing.T
	url       string // where visitors ask
	said      []string
	interrupt func()
	err       error         // why it has ended
	ended     chan struct{} // closed when it has
	lines     *bufio.Scanner
}

// start runs the program until it says where it is.
func start(t *testing.T, args ...string) *running {
	t.Helper()
	ctx, interrupt := context.WithCancel(t.Context())
	out, stdout := io.Pipe()
	r := &running{t: t, interrupt: interrupt, ended: make(chan struct{}), lines: bufio.NewScanner(out)}
	go func() {
		defer close(r.ended)
		r.err = run(ctx, append([]string{"-addr", "localhost:0"}, args...), nil, stdout, io.Discard)
		stdout.Close()
	}()
	t.Cleanup(func() {
		interrupt()
		io.Copy(io.Discard, out)
		<-r.ended
	})
	_, r.url, _ = strings.Cut(r.until(" is at "), " is at ")
	return r
}

// until reads what the program says, up to a line with some words.
func (r *running) until(words string) string {
	r.t.Helper()
	for r.lines.Scan() {
		r.said = append(r.said, r.lines.Text())
		if strings.Contains(r.lines.Text(), words) {
			return r.lines.Text()
		}
	}
	<-r.ended
	r.t.Fatalf("it ended with %v, and did not say %q, but\n%s", r.err, words, strings.Join(r.said, "\n"))
	return ""
}

// end interrupts the program, and waits for its end.
func (r *running) end() error {
	r.interrupt()
	for r.lines.Scan() {
		r.said = append(r.said, r.lines.Text())
	}
	<-r.ended
	return r.err
}

// Who is being answered when the program is to end, gets their answer.
func TestShutdownIsGraceful(t *testing.T) {
	begun, release := make(chan bool, 2), make(chan bool)
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun <- true
		<-release
		io.Copy(w, r.Body)
		fmt.Fprint(w, "answer")
	}))
	t.Cleanup(origin.Close)
	p := start(t, "-origin", origin.URL)
	bodies := make(chan string, 2)
	for _, method := range []string{"GET", "POST"} { // a page, and what goes through
		go func() {
			body := "none"
			defer func() { bodies <- body }() // also where it fails
			_, body = send(t, method, p.url)
		}()
		<-begun
	}
	p.interrupt()
	p.until("shutting down")
	close(release)
	for range 2 {
		if body := <-bodies; body != "answer" {
			t.Errorf("body %q", body)
		}
	}
	if err := p.end(); err != nil {
		t.Error(err)
	}
}

// Pages outlive a restart, in a directory of this user.
func TestStoreOutlivesARestart(t *testing.T) {
	origin := countingOrigin(t)
	dir := filepath.Join(t.TempDir(), "pages")
	args := []string{"-origin", origin, "-store", dir, "-ttl", "forever", "-public", "https://example.com:8443"}
	p := start(t, args...)
	first := mustGet(t, p.url+"/a").body
	if err := p.end(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "example.com_8443")); err != nil {
		t.Error(err)
	}
	p = start(t, args...)
	if a := mustGet(t, p.url+"/a"); a.body != first || !strings.HasPrefix(a.cacheStatus, "isr; hit") {
		t.Errorf("%q %s, want %q", a.body, a.cacheStatus, first)
	}
	// Flags that make another page of it.
	if err := p.end(); err != nil {
		t.Fatal(err)
	}
	p = start(t, append(args, "-query", "")...)
	if a := mustGet(t, p.url+"/a"); a.body == first {
		t.Errorf("the page of other flags: %q", a.body)
	}
}

// A server that is not there costs nobody a page.
func TestStoreNeedNotBeThere(t *testing.T) {
	for _, scheme := range []string{"redis", "postgres"} {
		addr, err := isrtest.FreeAddr()
		if err != nil {
			t.Fatal(err)
		}
		p := start(t, "-origin", countingOrigin(t), "-store", scheme+"://"+addr)
		if a := mustGet(t, p.url+"/a"); a.status != 200 {
			t.Errorf("%s: %d %q", scheme, a.status, a.body)
		}
		if err := p.end(); err != nil && !strings.Contains(err.Error(), "Store") {
			t.Errorf("%s: %v", scheme, err)
		}
	}
}

// The inspector and the metrics are at addresses of their own, behind the secret where
// there is one.
func TestAdmin(t *testing.T) {
	addr, err := isrtest.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, "-origin", countingOrigin(t), "-inspect", addr, "-metrics", addr, "-secret", "s3")
	p.until("metrics and inspector at http://" + addr)
	mustGet(t, p.url+"/page-of-the-origin")
	if status, body := send(t, "GET", "http://"+addr+"/metrics"); status != 200 || !strings.Contains(body, "isr_") {
		t.Errorf("metrics: %d %.100s", status, body)
	}
	if status, body := send(t, "GET", "http://"+addr+"/"); status != 401 || strings.Contains(body, "page-of-the-origin") {
		t.Errorf("without the password: %d %.100s", status, body)
	}
	if status, body := send(t, "GET", "http://"+addr+"/", "Authorization", "Basic eDpzMw=="); status != 200 || !strings.Contains(body, "page-of-the-origin") {
		t.Errorf("the inspector: %d %.100s", status, body)
	}
	if status, body := send(t, "GET", p.url+"/metrics"); status != 200 || strings.Contains(body, "isr_") {
		t.Errorf("visitors see the metrics: %d %.100s", status, body)
	}
}

// A proxy that is its own origin would ask itself without end.
func TestOriginIsNotItself(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	ln.Close()
	err = run(t.Context(), []string{"-origin", "http://" + addr, "-addr", addr}, nil, io.Discard, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "is isrproxy itself") {
		t.Errorf("%v", err)
	}
	if isSelf(t.Context(), newConfig(t, "-origin", "http://"+addr).origin, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}) {
		t.Error("another port is not itself")
	}
}

// What is taken already is said, and nothing stays open.
func TestAddressInUse(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for _, flag := range []string{"-inspect", "-metrics"} {
		err := run(ctx, []string{"-origin", "http://localhost:9000", "-addr", "localhost:0", flag, ln.Addr().String()}, nil, io.Discard, io.Discard)
		if err == nil || ctx.Err() != nil || !strings.Contains(err.Error(), "in use") {
			t.Errorf("%s: %v", flag, err)
		}
	}
}

// The address of a visitor comes from a proxy in front that is trusted, and from nobody else.
func TestWhoIsBelieved(t *testing.T) {
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s|%s|%s", r.Header.Get("X-Forwarded-For"), r.Header.Get("X-Real-Ip"), r.Header.Get("Proxy"))
	}))
	t.Cleanup(origin.Close)
	for trust, want := range map[string]string{"127.0.0.1": "192.0.2.1, 127.0.0.1|192.0.2.1|", "none": "127.0.0.1||", "10.0.0.0/8": "127.0.0.1||"} {
		_, server := front(t, origin.URL, "-trust", trust)
		forged := []string{"X-Forwarded-For", "192.0.2.1", "X-Real-Ip", "192.0.2.1", "Proxy", "evil"}
		if _, got := send(t, "GET", server.URL, append(forged, "Cookie", "session=1")...); got != want {
			t.Errorf("-trust %s: the origin sees %q, want %q", trust, got, want)
		}
		if _, got := send(t, "GET", server.URL, forged...); got != "0.0.0.0||" {
			t.Errorf("-trust %s: for a page it sees %q", trust, got)
		}
	}
}
