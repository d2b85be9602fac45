package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"mime"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// protocols are those over which the site is asked.
var protocols = []string{"h1", "h2c"}

// An answer is what a client gets: fields by name, among them "status", "body", and
// "length" for how it is framed.
type answer map[string]string

// A client asks one server.
type client struct {
	url       string
	transport *http.Transport
	server    *http.Server
	session   string // the Cookie that POST /login has given
}

// serve starts a server for h, and a client of it.
func serve(h http.Handler, protocol string) (*client, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := new(http.Protocols)
	p.SetHTTP1(protocol == "h1")
	p.SetUnencryptedHTTP2(protocol == "h2c")
	c := &client{
		url:       "http://" + ln.Addr().String(),
		transport: &http.Transport{Protocols: p, DisableCompression: true},
		server:    &http.Server{Handler: h, Protocols: p, ErrorLog: log.New(io.Discard, "", 0)},
	}
	go c.server.Serve(ln)
	return c, nil
}

func (c *client) close() {
	c.transport.CloseIdleConnections()
	c.server.Close()
}

// ask sends a request.
func (c *client) ask(q *request) (answer, error) {
	var mu sync.Mutex
	var early []string
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
		mu.Lock()
		defer mu.Unlock()
		early = append(early, fmt.Sprint(code, " ", h["Link"]))
		return nil
	}})
	var body io.Reader
	if q.body != "" {
		body = strings.NewReader(q.body)
	}
	r, err := http.NewRequestWithContext(ctx, q.method, c.url, body)
	if err != nil {
		return nil, err
	}
	path, query, _ := strings.Cut(q.target, "?")
	r.URL.RawQuery, r.URL.ForceQuery = query, strings.HasSuffix(q.target, "?")
	r.URL.RawPath = path
	if r.URL.Path, err = url.PathUnescape(path); err != nil {
		return nil, err
	}
	r.Host = "example.com"
	for _, line := range q.headers {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Add(name, strings.ReplaceAll(value, "{session}", c.session))
	}
	if r.Header.Get("Upgrade") != "" {
		if c.transport.Protocols.UnencryptedHTTP2() {
			r.Header.Del("Upgrade") // HTTP/2 has none
		} else {
			r.Header.Set("Connection", "Upgrade")
		}
	}
	res, err := c.transport.RoundTrip(r)
	if err != nil {
		return answer{"status": "no answer"}, nil
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil && errors.Is(err, context.DeadlineExceeded) {
		return nil, err
	}
	a := answer{"status": fmt.Sprint(res.StatusCode), "body": string(b)}
	if err != nil {
		a["body"] += "…"
	}
	for _, cookie := range res.Cookies() {
		if cookie.Name == "session" && cookie.Value != "" {
			c.session = "session=" + cookie.Value
			res.Header.Set("Set-Cookie", strings.ReplaceAll(res.Header.Get("Set-Cookie"), cookie.Value, "a-token"))
		}
	}
	if _, params, err := mime.ParseMediaType(res.Header.Get("Content-Type")); err == nil && params["boundary"] != "" { // by chance
		res.Header.Set("Content-Type", strings.ReplaceAll(res.Header.Get("Content-Type"), params["boundary"], "boundary"))
		a["body"] = strings.ReplaceAll(a["body"], params["boundary"], "boundary")
	}
	for name, values := range res.Header {
		a[name] = strings.Join(values, ", ")
		if name == "Allow" { // chi names the methods in no order
			methods := strings.Split(a[name], ", ")
			slices.Sort(methods)
			a[name] = strings.Join(methods, ", ")
		}
	}
	if date, ok := a["Date"]; ok {
		if _, err := http.ParseTime(date); err == nil {
			delete(a, "Date")
		}
	}
	for name, values := range res.Trailer {
		a["trailer "+name] = strings.Join(values, ", ")
	}
	if len(early) > 0 {
		a["early hints"] = strings.Join(early, ", ")
	}
	delete(a, "Content-Length")
	if a["length"] = "unknown"; res.ContentLength >= 0 {
		a["length"] = fmt.Sprint(res.ContentLength)
	}
	return a, nil
}

// A change is a field in which two answers differ.
type change struct{ field, off, on string }

// changes returns in which fields off and on differ.
func changes(off, on answer) (all []change) {
	fields := maps.Clone(off)
	maps.Copy(fields, on)
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if off[name] != on[name] {
			all = append(all, change{name, off[name], on[name]})
		}
	}
	return all
}
