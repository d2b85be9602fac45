package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/internal/isrtest"
)

// behind runs a test in a bubble, with the proxy's server in front of a handler.
func behind(t *testing.T, origin http.HandlerFunc, test func(t *testing.T, visitors *isrtest.Network)) {
	synctest.Test(t, func(t *testing.T) {
		back, front := isrtest.NewNetwork(), isrtest.NewNetwork()
		transport := &http.Transport{DialContext: back.DialContext}
		c := newConfig(t, "-origin", "http://origin.example", "-ttl", "1h", "-session", "session")
		c.transport = transport
		p, err := newProxy(c)
		if err != nil {
			t.Fatal(err)
		}
		site := p.site
		servers := []*http.Server{newServer(p.handler, log.New(io.Discard, "", 0)), {Handler: origin}}
		go servers[0].Serve(front)
		go servers[1].Serve(back)
		defer func() {
			transport.CloseIdleConnections()
			if err := errors.Join(servers[0].Close(), site.Shutdown(t.Context()), servers[1].Close()); err != nil {
				t.Error(err)
			}
		}()
		test(t, front)
	})
}

func TestStreamsOutlastTheTimeouts(t *testing.T) {
	const events, pause = 10, 3 * time.Minute
	origin := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range events {
			time.Sleep(pause)
			fmt.Fprintf(w, "data: %d\n\n", i)
			http.NewResponseController(w).Flush()
			if r.Context().Err() != nil {
				return
			}
		}
	}
	behind(t, origin, func(t *testing.T, visitors *isrtest.Network) {
		conn, _ := visitors.DialContext(t.Context(), "", "")
		defer conn.Close()
		io.WriteString(conn, "GET /events HTTP/1.1\r\nHost: x\r\nCookie: session=1\r\nConnection: close\r\n\r\n")
		begin := time.Now()
		all, err := io.ReadAll(conn)
		if err != nil || strings.Count(string(all), "data: ") != events || time.Since(begin) != events*pause {
			t.Errorf("after %v: %v\n%s", time.Since(begin), err, all)
		}
	})
}

func TestUploadsOutlastTheTimeouts(t *testing.T) {
	const parts, pause = 10, 50 * time.Second
	origin := func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		time.Sleep(5 * time.Minute) // it thinks it over
		fmt.Fprint(w, "got ", n, " ", err)
	}
	behind(t, origin, func(t *testing.T, visitors *isrtest.Network) {
		conn, _ := visitors.DialContext(t.Context(), "", "")
		defer conn.Close()
		fmt.Fprintf(conn, "POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", parts)
		for range parts {
			time.Sleep(pause)
			io.WriteString(conn, "x")
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "got 10 <nil>" {
			t.Errorf("%q, %v", body, err)
		}
	})
}

// A peer that does not go on, in whatever part of an exchange, holds nothing for long.
func TestStalledVisitorsAreCutOff(t *testing.T) {
	for name, request := range map[string]string{
		"nothing":         "",
		"half a header":   "GET / HTTP/1.1\r\nHo",
		"half an upload":  "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf",
		"reads no page":   "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"reads no stream": "GET / HTTP/1.1\r\nHost: x\r\nCookie: session=1\r\n\r\n",
	} {
		origin := func(w http.ResponseWriter, r *http.Request) {
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				return
			}
			w.Header().Set("Content-Length", strconv.Itoa(100*10<<10)) // else ReverseProxy has a mutex, at which time stands still in a bubble
			for range 100 {
				if _, err := w.Write(make([]byte, 10<<10)); err != nil {
					return
				}
			}
		}
		behind(t, origin, func(t *testing.T, visitors *isrtest.Network) {
			conn, _ := visitors.DialContext(t.Context(), "", "")
			defer conn.Close()
			io.WriteString(conn, request)
			time.Sleep(reading + time.Second)
			synctest.Wait()
			conn.SetDeadline(time.Now().Add(time.Second))
			n, err := io.Copy(io.Discard, conn)
			if err != nil || n > 64<<10 {
				t.Errorf("%s: %d bytes were still to come, and then %v", name, n, err)
			}
		})
	}
}

// After an answer, an open connection is kept for a while, and no longer.
func TestIdleConnectionsAreClosed(t *testing.T) {
	behind(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello") }, func(t *testing.T, visitors *isrtest.Network) {
		for _, method := range []string{"GET", "POST"} {
			conn, _ := visitors.DialContext(t.Context(), "", "")
			defer conn.Close()
			in := bufio.NewReader(conn)
			for range 2 {
				time.Sleep(5 * time.Second)
				fmt.Fprintf(conn, "%s / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", method)
				resp, err := http.ReadResponse(in, nil)
				if err != nil {
					t.Fatal(err)
				}
				if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "hello" {
					t.Errorf("%s: %q, %v", method, body, err)
				}
			}
			begin := time.Now()
			if _, err := in.ReadByte(); err != io.EOF || time.Since(begin) != 2*time.Minute {
				t.Errorf("%s: %v after %v", method, err, time.Since(begin))
			}
		}
	})
}

// What does not end by itself is cut off at the end of the program, and that is no failure.
func TestStreamsAreCutOffAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, "data: 1\n\n")
			http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}), isr.Options{Default: isr.Route{Bypass: isr.Always}})
		front := isrtest.NewNetwork()
		server := newServer(steady(site), log.New(io.Discard, "", 0))
		go server.Serve(front)
		conn, _ := front.DialContext(t.Context(), "", "")
		defer conn.Close()
		io.WriteString(conn, "GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
		in := bufio.NewReader(conn)
		for line := ""; !strings.HasPrefix(line, "data"); {
			var err error
			if line, err = in.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
		}
		begin := time.Now()
		if err := shutDown([]*http.Server{server}, site, slog.New(slog.DiscardHandler)); err != nil || time.Since(begin) != grace {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		if rest, err := io.ReadAll(in); strings.Contains(string(rest), "\r\n0\r\n") {
			t.Errorf("%q, %v: a stream that is cut off must not look whole", rest, err)
		}
	})
}
