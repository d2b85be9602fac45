package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"
)

// A conn is a visitor's connection that is kept alive. It does as little as it
// can, so that the server's share of the machine is large.
type conn struct {
	addr string
	c    net.Conn
	in   *bufio.Reader
}

func dial(addr string) (*conn, error) {
	c, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return nil, err
	}
	return &conn{addr, c, bufio.NewReaderSize(c, 16<<10)}, nil
}

// raw is a request for a path, ready to be written.
func raw(path string) []byte {
	return []byte("GET " + path + " HTTP/1.1\r\nHost: example.com\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n")
}

// ask sends a request and reads the answer to its end. It is for well-formed
// answers to GET only.
func (c *conn) ask(request []byte) (status, n int, err error) {
	c.c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := c.c.Write(request); err != nil {
		return 0, 0, err
	}
	length, chunked := -1, false
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return status, 0, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if status == 0 {
			if len(line) < 12 {
				return 0, 0, fmt.Errorf("status line %q", line)
			}
			if status, err = strconv.Atoi(string(line[9:12])); err != nil {
				return 0, 0, err
			}
			continue
		}
		if len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch {
		case equalFold(name, "content-length"):
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return status, 0, err
			}
		case equalFold(name, "transfer-encoding"):
			chunked = true
		}
	}
	switch {
	case chunked:
		n, err = c.skipChunks()
	case length >= 0:
		n, err = c.in.Discard(length)
	case status != http.StatusNoContent && status != http.StatusNotModified:
		err = errors.New("an answer without end")
	}
	return status, n, err
}

func equalFold(name []byte, lower string) bool {
	return len(name) == len(lower) && bytes.EqualFold(name, []byte(lower))
}

func (c *conn) skipChunks() (n int, err error) {
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return n, err
		}
		size, err := strconv.ParseUint(string(bytes.TrimRight(line, "\r\n")), 16, 31)
		if err != nil {
			return n, err
		}
		if _, err := c.in.Discard(int(size) + 2); err != nil {
			return n, err
		}
		if n += int(size); size == 0 {
			return n, nil
		}
	}
}

// A reply is an answer with all that one may want to know of it.
type reply struct {
	status int
	header http.Header
	body   string
	err    error // the answer broke off
}

// visitor is a client of its own for each request: nothing is remembered.
var visitor = &http.Client{
	Timeout:       20 * time.Second,
	Transport:     &http.Transport{DisableKeepAlives: true, DisableCompression: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// visit asks for a path. Headers are names and values in turn; Host is one.
func (s *server) visit(method, path string, headers ...string) reply {
	r, err := http.NewRequest(method, "http://"+s.addr+path, nil)
	if err != nil {
		return reply{err: err}
	}
	r.Host = "example.com"
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			r.Host = headers[i+1]
			continue
		}
		r.Header.Set(headers[i], headers[i+1])
	}
	return fetch(r)
}

func fetch(r *http.Request) reply {
	answer, err := visitor.Do(r)
	if err != nil {
		return reply{err: err}
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	return reply{answer.StatusCode, answer.Header, string(body), err}
}
