package encode

import (
	"bytes"
	"compress/gzip"
	"sync"
)

// leastGain is the part of a body that gzip must save.
const leastGain = 16

// A zipper compresses to memory.
type zipper struct {
	buf bytes.Buffer
	*gzip.Writer
}

var zippers = sync.Pool{New: func() any { return &zipper{Writer: gzip.NewWriter(nil)} }}

// zip returns a body in gzip, or nil where that gains nothing.
func zip(body []byte) []byte {
	z := zippers.Get().(*zipper)
	defer func() {
		if z.buf.Cap() <= 1<<20 {
			zippers.Put(z)
		}
	}()
	z.buf.Reset()
	z.Reset(&z.buf)
	z.Write(body) // to memory: no error
	z.Close()
	if z.buf.Len() >= len(body)-len(body)/leastGain {
		return nil
	}
	return bytes.Clone(z.buf.Bytes())
}
