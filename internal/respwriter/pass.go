// Package respwriter has the http.ResponseWriters that a handler gets in place of a
// visitor's. They behave as that does, for calls in any order, also from goroutines that
// outlive the handler's call.
//
// A Pass and a Standby wrap a visitor's own. They edit the header at the last
// moment, when the final status is known and nothing has gone out, and can be flushed,
// hijacked and asked by an http.ResponseController as the writer that they wrap. A
// Recorder wraps none: it records a page, says why the response may not be stored, or
// makes a Stream of what is too large.
package respwriter

import (
	"bufio"
	"io"
	"net"
	"net/http"

	"github.com/isr-go/isr/internal/header"
)

// A PassConfig configures a Pass.
type PassConfig struct {
	CacheStatus string // the cache's own member of Cache-Status (RFC 9211)
	Private     bool   // whether no cache may keep the response for others
	NoStore     bool   // whether none may keep it at all

	// OnSuccess, unless nil, is called when the handler answers with success (a status
	// from 200 to 399); with committed false. It is called again, with committed true,
	// before the first bytes may go out, and when the handler has returned: by then all
	// that it changes is changed.
	OnSuccess func(status int, h http.Header, committed bool)
}

// A Pass is the writer of a request that passes the cache, or that a handler other than
// the page's answers. When the final header is about
// to go out it adds the cache's own member to Cache-Status, after those of upstream caches
// (RFC 9211, section 2). It is for one goroutine at a time, as any http.ResponseWriter.
type Pass struct{ pass }

// NewPass returns a Pass in front of w. The handler gets its Writer.
func NewPass(w http.ResponseWriter, c PassConfig) *Pass {
	return &Pass{pass{ResponseWriter: w, PassConfig: c}}
}

// Status returns the status of the response, or zero where none is written. It may be an
// informational one, such as 101 where the handler has taken over the connection.
func (p *Pass) Status() int {
	if p.hijacked && p.status == 0 {
		return http.StatusSwitchingProtocols
	}
	return p.status
}

// Finish is to be called when the handler has returned, with whether that was by a
// panic: it completes the header where nothing has.
func (p *Pass) Finish(panicked bool) {
	switch {
	case p.hijacked:
	case panicked && p.status < 200:
		p.complete() // for the response that outer middleware makes of the panic
	default:
		p.implicit()
		p.notify(true)
	}
}

type pass struct {
	http.ResponseWriter
	PassConfig
	completed bool // whether the header has what the Pass adds
	status    int
	written   int  // bytes that may not have gone out yet
	hijacked  bool // then the response is not known here
}

// serverBuffer is how many bytes of a response net/http holds in its buffer, at least,
// until the handler returns.
const serverBuffer = 2 << 10

func (p *pass) Unwrap() http.ResponseWriter {
	return unwrap(p.ResponseWriter, func() { p.hijacked = true })
}

func (p *pass) WriteHeader(status int) {
	p.hijacked = p.hijacked || status == http.StatusSwitchingProtocols
	if p.status < 200 {
		p.begin(status)
		p.notify(false)
	}
	p.ResponseWriter.WriteHeader(status)
}

// begin notes the status, and completes the header if it is the final one. What
// 101 leads to is a connection, which no cache can keep.
func (p *pass) begin(status int) {
	p.status = status
	if isFinal(status) {
		p.complete()
	}
}

// complete completes the header, once.
func (p *pass) complete() {
	if p.completed {
		return
	}
	p.completed = true
	p.Header().Add("Cache-Status", p.CacheStatus)
	switch {
	case p.NoStore:
		header.SetNoStore(p.Header())
	case p.Private && p.status != http.StatusSwitchingProtocols:
		header.MakePrivate(p.Header())
	}
}

func (p *pass) notify(committed bool) {
	if p.OnSuccess != nil && p.status >= 200 && p.status < 400 {
		p.OnSuccess(p.status, p.Header(), committed)
	}
}

func (p *pass) implicit() {
	if p.status < 200 {
		p.begin(http.StatusOK)
		p.notify(false)
	}
}

// beforeWrite is called before n bytes of the response may go out.
func (p *pass) beforeWrite(n int) {
	p.implicit()
	if p.written <= serverBuffer && p.written+n > serverBuffer {
		p.notify(true)
	}
	p.written = min(p.written+n, serverBuffer+1)
}

func (p *pass) Write(b []byte) (int, error) {
	p.beforeWrite(len(b))
	return p.ResponseWriter.Write(b)
}

func (p *pass) WriteString(s string) (int, error) {
	p.beforeWrite(len(s))
	return io.WriteString(p.ResponseWriter, s)
}

func (p *pass) ReadFrom(r io.Reader) (int64, error) {
	p.beforeWrite(serverBuffer + 1)
	return io.Copy(p.ResponseWriter, r)
}

// FlushError is for an http.ResponseController, which would else flush the writer below.
func (p *pass) FlushError() error {
	p.beforeWrite(serverBuffer + 1)
	return http.NewResponseController(p.ResponseWriter).Flush()
}

// What else a ResponseWriter may do, and its Pass then, too.
type (
	flusher       struct{ *pass }
	hijacker      struct{ *pass }
	closeNotifier interface{ CloseNotify() <-chan bool }
)

func (f flusher) Flush() { f.FlushError() }

func (h hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := h.ResponseWriter.(http.Hijacker).Hijack()
	h.hijacked = h.hijacked || err == nil
	return conn, rw, err
}

// Writer returns the Pass with the optional interfaces of the writer that it wraps:
// handlers look for them by type assertion.
func (p *Pass) Writer() http.ResponseWriter {
	o := &p.pass
	_, flushes := o.ResponseWriter.(http.Flusher)
	_, hijacks := o.ResponseWriter.(http.Hijacker)
	c, notifies := o.ResponseWriter.(closeNotifier)
	f, h := http.Flusher(flusher{o}), http.Hijacker(hijacker{o})
	switch {
	case flushes && hijacks && notifies: // HTTP/1
		return struct {
			*pass
			http.Flusher
			http.Hijacker
			closeNotifier
		}{o, f, h, c}
	case flushes && hijacks:
		return struct {
			*pass
			http.Flusher
			http.Hijacker
		}{o, f, h}
	case flushes && notifies: // HTTP/2
		return struct {
			*pass
			http.Flusher
			closeNotifier
		}{o, f, c}
	case hijacks && notifies:
		return struct {
			*pass
			http.Hijacker
			closeNotifier
		}{o, h, c}
	case flushes:
		return struct {
			*pass
			http.Flusher
		}{o, f}
	case hijacks:
		return hijacker{o}
	case notifies:
		return struct {
			*pass
			closeNotifier
		}{o, c}
	}
	return o
}
