package trial

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// An Origin is the handler behind every cache: pages of a known size, and the
// habits of handlers that caches come to grief over. It counts what it renders,
// and can be made slow, failing or worse from outside. Safe for concurrent use.
type Origin struct {
	renders sync.Map // of *atomic.Int64, by the first segment of the path

	delay   atomic.Int64 // ns
	mode    atomic.Value // string; see Set
	version atomic.Int64 // of the content
}

// Set changes the origin: delay is how long a render takes, mode is one of
//
//	ok     pages
//	fail   500
//	panic  a panic
//	abort  half a page, then http.ErrAbortHandler
//	short  half a page, with the Content-Length of a whole one
func (o *Origin) Set(mode string, delay time.Duration, version int64) {
	o.mode.Store(mode)
	o.delay.Store(int64(delay))
	o.version.Store(version)
}

// Renders returns how often a page below a first segment was rendered.
func (o *Origin) Renders(segment string) int64 { return o.counter(segment).Load() }

func (o *Origin) counter(segment string) *atomic.Int64 {
	if c, ok := o.renders.Load(segment); ok {
		return c.(*atomic.Int64)
	}
	c, _ := o.renders.LoadOrStore(segment, new(atomic.Int64))
	return c.(*atomic.Int64)
}

func (o *Origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	segment, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	o.counter(segment).Add(1)
	version := o.version.Load()
	mode, _ := o.mode.Load().(string)
	if err := sleep(r.Context(), time.Duration(o.delay.Load())); err != nil {
		http.Error(w, "the visitor has left", http.StatusServiceUnavailable)
		return
	}
	switch mode {
	case "fail":
		http.Error(w, "the database is down", http.StatusInternalServerError)
		return
	case "panic":
		panic("the origin was told to panic")
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	var body []byte
	switch segment {
	case "page", "hot", "oneoff", "content", "cookie", "pieces":
		body = render(r.URL.Path, version, PageBytes)
	case "small", "tagged":
		body = render(r.URL.Path, version, 1<<10)
	case "private":
		h.Set("Cache-Control", "private")
		body = fmt.Appendf(nil, "an account of %q", session(r))
	case "profile":
		body = fmt.Appendf(nil, "an account of %q", session(r))
	case "auth":
		body = fmt.Appendf(nil, "an account of %q", r.Header.Get("Authorization"))
	case "forwarded":
		body = fmt.Appendf(nil, `<link rel=canonical href="//%s%s">`, r.Header.Get("X-Forwarded-Host"), r.URL.Path)
	case "host":
		body = fmt.Appendf(nil, "welcome to %s", r.Host)
	case "query":
		body = fmt.Appendf(nil, "results for %q", r.URL.Query().Get("q"))
	case "version":
		body = fmt.Appendf(nil, "version %d", version)
	default:
		http.NotFound(w, r)
		return
	}
	switch segment {
	case "tagged":
		h.Set("Cache-Tag", "all")     // isr, Varnish
		h.Set("Surrogate-Key", "all") // Souin
	case "cookie":
		http.SetCookie(w, &http.Cookie{Name: "session", Value: "of-visitor-" + r.Header.Get("X-Visitor")})
	}
	h.Set("ETag", fmt.Sprintf(`"%s-%d"`, strings.ReplaceAll(rest, "/", "-"), version))
	if segment == "content" { // as file servers answer
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
		return
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	switch mode {
	case "abort":
		h.Del("Content-Length")
		w.Write(body[:len(body)/2])
		http.NewResponseController(w).Flush() // if the cache lets it: the visitor has half of it
		panic(http.ErrAbortHandler)
	case "short":
		w.Write(body[:len(body)/2])
		return
	}
	if segment == "pieces" { // as templates write
		w.Write(body[:len(body)/2])
		body = body[len(body)/2:]
	}
	w.Write(body)
}

// sleep is what a handler does that asks a database: it gives up with its context.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func session(r *http.Request) string {
	c, err := r.Cookie("session")
	if err != nil {
		return ""
	}
	return c.Value
}

// filler is HTML that compresses as pages do.
var filler = func() []byte {
	var b bytes.Buffer
	for i := 0; b.Len() < PageBytes; i++ {
		fmt.Fprintf(&b, "<p>Line %d of a page, with <a href=\"/page/%d\">a link</a> to another one.</p>\n", i, i*7919%1000)
	}
	return b.Bytes()
}()

// render returns the page at a path, with a length.
func render(path string, version int64, length int) []byte {
	b := make([]byte, 0, length)
	b = fmt.Appendf(b, "<!doctype html><title>%s</title><h1>Version %d of %s</h1>\n", path, version, path)
	return append(b, filler[:length-len(b)]...)
}

// Rendered reports whether body is a whole page of a path.
func Rendered(body []byte, path string, version int64, length int) bool {
	return bytes.Equal(body, render(path, version, length))
}
