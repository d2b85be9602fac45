package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestQuantile(t *testing.T) {
	var l latency
	if got := l.quantile(.5); got != 0 {
		t.Errorf("nothing has a median of %v", got)
	}
	for i := range 1000 {
		l.all = append(l.all, time.Duration(i+1))
	}
	for _, c := range []struct {
		share float64
		want  time.Duration
	}{{0, 1}, {.5, 500}, {.99, 990}, {.999, 999}, {1, 1000}} {
		if got := l.quantile(c.share); got != c.want {
			t.Errorf("quantile %v: %d, want %d", c.share, got, c.want)
		}
	}
	if got := l.waited(901); got != 100 {
		t.Errorf("%d waited 901 or more, want 100", got)
	}
	if got := l.waited(1001); got != 0 {
		t.Errorf("%d waited 1001 or more, want 0", got)
	}
}

// A late timer is not charged to the server; more than that is.
func TestCharged(t *testing.T) {
	due := time.Now()
	for _, c := range []struct{ late, want time.Duration }{
		{0, 0}, {time.Millisecond, time.Millisecond}, {slack, slack}, {50 * time.Millisecond, slack},
	} {
		if got := charged(due, due.Add(c.late)).Sub(due); got != c.want {
			t.Errorf("woken %v late: counts from %v on, want %v", c.late, got, c.want)
		}
	}
}

// A server that stalls is charged with all requests that come meanwhile, not only with
// those of open connections.
func TestNoCoordinatedOmission(t *testing.T) {
	const stall = 200 * time.Millisecond
	var seen atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n := seen.Add(1); n > 20 && n <= 24 {
			time.Sleep(stall) // all four connections at once
		}
		io.WriteString(w, "ok")
	}))
	defer server.Close()
	request := raw("/")
	got := load{rate: 500, conns: 4, time: 600 * time.Millisecond, path: func(int) []byte { return request }}.
		run(strings.TrimPrefix(server.URL, "http://"))
	if got.errors != 0 || len(got.all) != 300 {
		t.Fatalf("%d errors in %d requests", got.errors, len(got.all))
	}
	// 100 arrive in those 200 ms, so about 50 of them wait half of it or more. A
	// closed loop would have seen four.
	if n := got.waited(stall / 2); n < 30 {
		t.Errorf("%d requests waited %v or more, want about 50", n, stall/2)
	}
}

func TestErrorsAreCounted(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/gone" {
			panic(http.ErrAbortHandler)
		}
		http.NotFound(w, r)
	}))
	defer server.Close()
	addr := strings.TrimPrefix(server.URL, "http://")
	paths := [][]byte{raw("/gone"), raw("/none")}
	got := load{rate: 1000, conns: 2, time: 20 * time.Millisecond, path: func(i int) []byte { return paths[i%2] }}.run(addr)
	if got.errors != 20 {
		t.Errorf("%d errors, want 20", got.errors)
	}
}

// A visitor's connection reads what servers write.
func TestAsk(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/chunked":
			io.WriteString(w, "one")
			http.NewResponseController(w).Flush()
			io.WriteString(w, strings.Repeat("x", 5000))
		case "/none":
			w.WriteHeader(http.StatusNotModified)
		default:
			io.WriteString(w, "plain")
		}
	}))
	defer server.Close()
	c, err := dial(strings.TrimPrefix(server.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.c.Close()
	for range 2 { // over one connection: nothing may be left
		for _, want := range []struct {
			path      string
			status, n int
		}{{"/chunked", 200, 5003}, {"/none", 304, 0}, {"/plain", 200, 5}} {
			status, n, err := c.ask(raw(want.path))
			if err != nil || status != want.status || n != want.n {
				t.Errorf("%s: %d with %d bytes, %v", want.path, status, n, err)
			}
		}
	}
}
