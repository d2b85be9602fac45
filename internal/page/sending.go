package page

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
)

// chunkSize is the size of the pieces in which large bodies are sent. A reader who is slow
// holds a copy of one piece, or a body that is no larger.
const chunkSize = 32 << 10

// A Sender keeps the pages that are being sent, also when they have left the cache, as far
// as there is memory for that. Where there is none it cuts their readers off.
type Sender interface {
	Hold(p *Page) *Sending
	Release(s *Sending)
}

// A Sending is a page that is being sent, to any number of readers. They hold nothing else
// of it.
type Sending struct {
	page atomic.Pointer[Page] // nil: its readers are cut off

	Readers int    // guarded by the Sender
	Return  func() // gives back the memory of a page that has left the cache; nil before; guarded likewise
}

// NewSending returns the Sending of a page.
func NewSending(p *Page) *Sending {
	s := new(Sending)
	s.page.Store(p)
	return s
}

// Page returns the page, or nil when its readers are cut off.
func (s *Sending) Page() *Page { return s.page.Load() }

// Cut cuts the readers off.
func (s *Sending) Cut() { s.page.Store(nil) }

var errCut = errors.New("isr: the page has left the cache, and its readers are too slow to keep it")

// A bodyReader reads a body in one coding, or without one. It holds the Sending alone, since
// the page would hold its memory.
type bodyReader struct {
	s      *Sending
	coding string
	size   int64
	offset int64
	err    error
}

// Read copies a part of the body.
func (r *bodyReader) Read(b []byte) (int, error) {
	p := r.s.Page()
	if p == nil {
		r.err = errCut
		return 0, errCut
	}
	if r.offset >= r.size {
		return 0, io.EOF
	}
	body := p.plain.body
	if r.coding != "" {
		body = p.Encoded(r.coding)
	}
	n := copy(b, body[r.offset:])
	r.offset += int64(n)
	return n, nil
}

// Seek is for http.ServeContent.
func (r *bodyReader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.offset
	case io.SeekEnd:
		offset += r.size
	}
	r.offset = offset
	return offset, nil
}

var chunks = sync.Pool{New: func() any { return new([chunkSize]byte) }}

// send writes the rest of the body.
func (r *bodyReader) send(w http.ResponseWriter) {
	chunk := chunks.Get().(*[chunkSize]byte)
	defer chunks.Put(chunk)
	for {
		n, err := r.Read(chunk[:])
		if err != nil {
			return
		}
		if _, err := w.Write(chunk[:n]); err != nil {
			return
		}
	}
}

// sendLarge has a large body sent by f. Where its readers are cut off, the connection is:
// nobody shall take the part for the whole.
func sendLarge(sender Sender, s *Sending, coding string, size int, f func(*bodyReader)) {
	defer sender.Release(s)
	r := &bodyReader{s: s, coding: coding, size: int64(size)}
	f(r)
	if r.err != nil {
		panic(http.ErrAbortHandler)
	}
}
