package page

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"strings"
	"sync"

	"github.com/isr-go/isr/internal/header"
)

// worthCompressing is the size from which a body is compressed.
const worthCompressing = 512

// A zipper compresses to memory.
type zipper struct {
	buf bytes.Buffer
	*gzip.Writer
}

var zippers = sync.Pool{New: func() any { return &zipper{Writer: gzip.NewWriter(nil)} }}

// compress returns the body in gzip, or nil where that is not for it or gains
// nothing.
func compress(h http.Header, body []byte) []byte {
	if len(body) < worthCompressing || h["Content-Encoding"] != nil || !compressible(header.MediaType(h)) ||
		header.ParseCacheControl(h["Cache-Control"]).NoTransform {
		return nil
	}
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
	if z.buf.Len() >= len(body)-len(body)/16 {
		return nil
	}
	return bytes.Clone(z.buf.Bytes())
}

// compressible reports whether what has a media type becomes smaller.
func compressible(t string) bool {
	switch t {
	case "application/javascript", "application/json", "application/xml", "application/wasm", "application/manifest+json",
		"application/x-javascript", "application/rtf", "application/vnd.ms-fontobject", "font/ttf", "font/otf", "image/bmp", "image/x-icon":
		return true
	}
	return strings.HasPrefix(t, "text/") || strings.HasSuffix(t, "+json") || strings.HasSuffix(t, "+xml")
}
