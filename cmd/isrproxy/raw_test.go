package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/isr-go/isr"
)

// rawOrigin answers each request with the bytes that a function writes, and hangs up.
func rawOrigin(t *testing.T, answer func(conn net.Conn, r *http.Request)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	t.Cleanup(func() {
		ln.Close()
		conns.Wait()
	})
	conns.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer conn.Close()
				if r, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
					answer(conn, r)
				}
			})
		}
	})
	return "http://" + ln.Addr().String()
}

// Whatever an origin sends, a visitor gets a page or an error, half a page is never kept,
// and the next page is served.
func TestOddAnswers(t *testing.T) {
	const good = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine"
	for name, test := range map[string]struct {
		answer string
		status int // 0: the connection breaks off
		body   string
		stored bool
	}{
		"no Content-Length":                  {"HTTP/1.1 200 OK\r\n\r\npage", 200, "page", true},
		"HTTP/1.0":                           {"HTTP/1.0 200 OK\r\n\r\npage", 200, "page", true},
		"chunks":                             {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\npa\r\n2\r\nge\r\n0\r\n\r\n", 200, "page", true},
		"trailers":                           {"HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npage\r\n0\r\nX-Sum: 1\r\n\r\n", 200, "page", true},
		"trailers nobody spoke of":           {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npage\r\n0\r\nX-Sum: 1\r\n\r\n", 200, "page", true},
		"early hints":                        {"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n\r\npage", 200, "page", true},
		"100 Continue":                       {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\npage", 200, "page", true},
		"1xx without end":                    {strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n", 20_000), 502, "", false},
		"only a 1xx":                         {"HTTP/1.1 103 Early Hints\r\n\r\n", 502, "", false},
		"101 that nobody asked for":          {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n", 502, "", false},
		"less than its Content-Length":       {"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\npage", 0, "", false},
		"more than its Content-Length":       {"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npage and more", 200, "page", true},
		"two lengths":                        {"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 9\r\n\r\npage", 502, "", false},
		"a length that is none":              {"HTTP/1.1 200 OK\r\nContent-Length: four\r\n\r\npage", 502, "", false},
		"a length below zero":                {"HTTP/1.1 200 OK\r\nContent-Length: -4\r\n\r\npage", 502, "", false},
		"chunks that break off":              {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\npa\r\n", 0, "", false},
		"chunks that are none":               {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\npage", 0, "", false},
		"nothing":                            {"", 502, "", false},
		"no HTTP":                            {"SSH-2.0-OpenSSH_9.2\r\n", 502, "", false},
		"half a header":                      {"HTTP/1.1 200 OK\r\nContent-Ty", 502, "", false},
		"a header that is none":              {"HTTP/1.1 200 OK\r\nno colon\r\n\r\npage", 502, "", false},
		"a status that is none":              {"HTTP/1.1 2000 OK\r\n\r\npage", 502, "", false},
		"a status below 100":                 {"HTTP/1.1 099 Low\r\n\r\npage", 502, "", false},
		"a header of a megabyte":             {"HTTP/1.1 200 OK\r\nX-Long: " + strings.Repeat("x", 1<<20) + "\r\n\r\npage", 502, "", false},
		"many headers":                       {"HTTP/1.1 200 OK\r\n" + strings.Repeat("X-Many: x\r\n", 30_000) + "\r\npage", 502, "", false},
		"204 with a body":                    {"HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\npage", 204, "", false},
		"304 that nobody asked for":          {"HTTP/1.1 304 Not Modified\r\n\r\n", 304, "", false},
		"an encoding that it does not have":  {"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\npage", 200, "page", true},
		"hop-by-hop fields":                  {"HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 9\r\nProxy-Authenticate: Basic\r\n\r\npage", 200, "page", true},
		"fields that are not text":           {"HTTP/1.1 200 OK\r\nX-Latin: \xe9\xff\r\n\r\npage", 200, "page", true},
		"a Cache-Status of its own":          {"HTTP/1.1 200 OK\r\nCache-Status: other; hit\r\n\r\npage", 200, "page", true},
		"a Content-Type that is not a type":  {"HTTP/1.1 200 OK\r\nContent-Type: ;;;\r\n\r\npage", 200, "page", true},
		"a Last-Modified that is not a date": {"HTTP/1.1 200 OK\r\nLast-Modified: yesterday\r\nETag: none\r\n\r\npage", 200, "page", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			origin := rawOrigin(t, func(conn net.Conn, r *http.Request) {
				if r.URL.Path == "/good" {
					io.WriteString(conn, good)
					return
				}
				io.WriteString(conn, test.answer)
			})
			site, server := front(t, origin, "-ttl", "1h")
			for range 2 {
				req, _ := http.NewRequest("GET", server.URL+"/odd", nil)
				req.Header.Set("Accept-Encoding", "identity") // as it is
				res, err := http.DefaultClient.Do(req)
				var body []byte
				if err == nil {
					body, err = io.ReadAll(res.Body)
					res.Body.Close()
				}
				switch {
				case test.status == 0 && (err != nil || res.StatusCode >= 500):
				case err != nil || res.StatusCode != test.status:
					t.Fatalf("%v, %v, want %d", res, err, test.status)
				case test.status == 200 && string(body) != test.body:
					t.Errorf("body %q", body)
				}
				for _, name := range []string{"X-Hop", "Keep-Alive", "Proxy-Authenticate"} {
					if err == nil && res.Header[name] != nil {
						t.Errorf("%s: %q goes on to visitors", name, res.Header[name])
					}
				}
			}
			stored := slices.ContainsFunc(slices.Collect(site.Pages()), func(p isr.Page) bool { return p.Path == "/odd" && p.NotStored == "" && p.Status == 200 })
			if stored != test.stored {
				t.Errorf("stored: %v, want %v", stored, test.stored)
			}
			if a := mustGet(t, server.URL+"/good"); a.status != 200 || a.body != "fine" {
				t.Errorf("afterwards: %d %q", a.status, a.body)
			}
			// As it goes through, too.
			req, _ := http.NewRequest("GET", server.URL+"/odd", nil)
			req.Header.Set("Cookie", "session=1")
			if res, err := http.DefaultClient.Do(req); err == nil {
				io.Copy(io.Discard, res.Body)
				res.Body.Close()
			}
			if a := mustGet(t, server.URL+"/good", func(r *http.Request) { r.Header.Set("Cookie", "session=1") }); a.status != 200 || a.body != "fine" {
				t.Errorf("afterwards, past the cache: %d %q", a.status, a.body)
			}
		})
	}
}

// Hints reach those who wait for the origin's answer to their own request.
func TestEarlyHintsGoThrough(t *testing.T) {
	origin := rawOrigin(t, func(conn net.Conn, r *http.Request) {
		io.WriteString(conn, "HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npage")
	})
	_, server := front(t, origin)
	hints := 0
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
		if code == 103 && h.Get("Link") != "" {
			hints++
		}
		return nil
	}})
	a := mustGet(t, server.URL+"/", func(r *http.Request) {
		*r = *r.WithContext(ctx)
		r.Header.Set("Cookie", "session=1")
	})
	if a.body != "page" || hints != 1 {
		t.Errorf("body %q, %d hints", a.body, hints)
	}
}

// A file of 100 MB is streamed, with and without its length, and takes no room in memory.
func TestLargeAnswersAreStreamed(t *testing.T) {
	const size = 100 << 20
	part := bytes.Repeat([]byte("x"), 1<<20)
	origin := rawOrigin(t, func(conn net.Conn, r *http.Request) {
		io.WriteString(conn, "HTTP/1.1 200 OK\r\n")
		if r.URL.Path == "/length" {
			fmt.Fprintf(conn, "Content-Length: %d\r\n", size)
		}
		io.WriteString(conn, "\r\n")
		for range size / len(part) {
			if _, err := conn.Write(part); err != nil {
				return
			}
		}
	})
	site, server := front(t, origin)
	for _, path := range []string{"/length", "/none"} {
		res, err := http.Get(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, res.Body)
		res.Body.Close()
		if err != nil || n != size || res.StatusCode != 200 {
			t.Errorf("%s: %d bytes with %v and status %d", path, n, err, res.StatusCode)
		}
	}
	if held := site.Stats().Bytes; held > 1<<20 {
		t.Errorf("%d bytes are held", held)
	}
}

// An origin that hangs holds the visitor of a page no longer than -timeout says.
func TestHangingOrigin(t *testing.T) {
	release := make(chan struct{})
	origin := rawOrigin(t, func(conn net.Conn, r *http.Request) {
		if r.URL.Path == "/half" {
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\nhalf")
		}
		<-release
	})
	defer close(release)
	_, server := front(t, origin, "-timeout", "50ms")
	for _, path := range []string{"/", "/half"} {
		if a := mustGet(t, server.URL+path); a.status != http.StatusGatewayTimeout || a.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d, %v", path, a.status, a.header)
		}
	}
}

// What goes up goes through: a large body, whole, while it is sent.
func TestLargeUploads(t *testing.T) {
	const size = 100 << 20
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n, err, r.ContentLength)
	}))
	t.Cleanup(origin.Close)
	_, server := front(t, origin.URL)
	res, err := http.Post(server.URL+"/upload", "application/octet-stream", io.LimitReader(endless{}, size))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, err := io.ReadAll(res.Body); err != nil || string(body) != fmt.Sprint(size, nil, -1) {
		t.Errorf("%q, %v", body, err)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// Websockets, and whatever else a connection is upgraded to, go through both ways.
func TestUpgradesGoThrough(t *testing.T) {
	origin := rawOrigin(t, func(conn net.Conn, r *http.Request) {
		if r.Header.Get("Upgrade") != "websocket" {
			io.WriteString(conn, "HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n")
			return
		}
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
		io.Copy(conn, conn) // an echo
	})
	_, server := front(t, origin)
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprint(conn, "GET /socket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
	in := bufio.NewReader(conn)
	res, err := http.ReadResponse(in, nil)
	if err != nil || res.StatusCode != 101 {
		t.Fatalf("%v, %v", res, err)
	}
	for _, said := range []string{"hello", strings.Repeat("x", 100_000)} {
		go io.WriteString(conn, said)
		heard := make([]byte, len(said))
		if _, err := io.ReadFull(in, heard); err != nil || string(heard) != said {
			t.Fatalf("after %d bytes: %v", len(said), err)
		}
	}
}

// A visitor who leaves ends what the origin does for them.
func TestLeavingEndsWhatGoesThrough(t *testing.T) {
	begun, ended := make(chan struct{}), make(chan struct{})
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(begun)
		<-r.Context().Done()
		close(ended)
	}))
	t.Cleanup(origin.Close)
	_, server := front(t, origin.URL)
	ctx, leave := context.WithCancel(t.Context())
	req, _ := http.NewRequestWithContext(ctx, "GET", server.URL, nil)
	req.Header.Set("Cookie", "session=1")
	go func() {
		<-begun
		leave()
	}()
	if _, err := http.DefaultClient.Do(req); err == nil {
		t.Error("there was an answer")
	}
	<-ended
}
