// Package isrtest is what the tests of several packages of this repository share. Only
// tests and the programs under test/ import it.
//
// It is not github.com/isr-go/isr/isrtest, which is for the tests of a site that uses isr.
package isrtest

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

// Do sends a request, with headers given as name, value, name, value, to a handler.
func Do(h http.Handler, method, target string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// Fetch sends a request over a client's network, and returns the response and its body.
// An error, also one of a body that breaks off, ends the test.
func Fetch(tb testing.TB, c *http.Client, r *http.Request) (*http.Response, string) {
	tb.Helper()
	res, err := c.Do(r)
	if err != nil {
		tb.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		tb.Fatal(err)
	}
	return res, string(b)
}

// A SlowHandler takes a second for a page, and answers 503 while it fails. The zero value
// does not fail. It is safe for concurrent use.
type SlowHandler struct{ Fails atomic.Bool }

// ServeHTTP implements [http.Handler].
func (h *SlowHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	time.Sleep(time.Second)
	if h.Fails.Load() {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	io.WriteString(w, "page")
}

// Eventually calls f, at longer and longer intervals up to a tenth of a second, until it
// returns nil. It ends the test with f's last error shortly before the test's own deadline,
// so that a slow machine is no failure.
func Eventually(tb testing.TB, what string, f func() error) {
	tb.Helper()
	var late <-chan time.Time // never, where the test has no deadline
	if t, ok := tb.(*testing.T); ok {
		if at, ok := t.Deadline(); ok {
			late = time.After(time.Until(at) - 5*time.Second)
		}
	}
	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-time.After(pause):
		case <-late:
			tb.Fatalf("%s: %v", what, err)
		}
	}
}

// FreeAddr returns an address of this machine on which nothing listens. Another process
// may take it before the caller does.
func FreeAddr() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer ln.Close()
	return ln.Addr().String(), nil
}
