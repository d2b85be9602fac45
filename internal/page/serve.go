package page

import (
	"bytes"
	"net/http"
	"strings"
	"time"

	"github.com/isr-go/isr/internal/header"
)

// Serve answers from memory, and returns the status of the page. Sender keeps the page
// where that takes long; Serve panics with http.ErrAbortHandler where it does not keep it.
// Nothing else may hold the page meanwhile: the visitor may be slow.
func (p *Page) Serve(w http.ResponseWriter, r *http.Request, v View, sender Sender) (status int) {
	status = p.Status
	rep, meanwhile := p.choose(r)
	p.send(w, r, rep, rep.valuesAt(v), v.Invalidated, meanwhile, sender)
	return status
}

// ServeForwarded answers with a page that the visitor had to wait for.
func (p *Page) ServeForwarded(w http.ResponseWriter, r *http.Request, v View, f header.CacheStatus, sender Sender) (status int) {
	status = p.Status
	rep, meanwhile := p.choose(r)
	values := rep.valuesAt(v)
	member := rep.lines.Values[len(values)-1]
	values[len(values)-1] = strings.TrimSuffix(member, isHit) + f.String()
	p.send(w, r, rep, values, v.Invalidated, meanwhile, sender)
	return status
}

// meanwhileTTL is how long a shared cache may show the body without encoding that it got
// because a better one was not ready: else it would do so for as long as the page is fresh.
const meanwhileTTL = time.Second

// send writes a representation with the given header values, which it takes over. It is
// the body without encoding meanwhile, where choose says so.
func (p *Page) send(w http.ResponseWriter, r *http.Request, rep *representation, values []string, invalidated, meanwhile bool, sender Sender) {
	if matched := p.Matched(); matched != "" {
		r.Pattern = matched // for the traces and logs of outer middleware
	}
	h := w.Header()
	etags, more := r.Header["If-None-Match"], asksForMore(r.Header)
	if p.Status == http.StatusOK && !more && len(etags) == 1 && p.isAwaited(etags[0], r.Header["Accept-Encoding"]) {
		rep.writeHeader(h, values, true, invalidated)
		h["Etag"] = []string{etags[0]}
		w.WriteHeader(http.StatusNotModified)
		return
	}
	revoked := invalidated || meanwhile
	if meanwhile {
		control := &values[len(values)-3]
		*control = header.SharedFor(*control, meanwhileTTL)
	}
	if p.Status == http.StatusOK {
		switch {
		case !more && len(etags) == 1 && etags[0] == rep.etag():
			rep.writeHeader(h, values, true, revoked)
			w.WriteHeader(http.StatusNotModified)
			return
		case more || etags != nil:
			rep.writeHeader(h, values, false, revoked)
			modified, _ := header.ParseDate(p.plain.value("Last-Modified"))
			cw, r := &contentWriter{w, p, rep != &p.plain}, wellAsked(r)
			if len(rep.body) <= chunkSize {
				http.ServeContent(cw, r, "", modified, bytes.NewReader(rep.body))
				return
			}
			sendLarge(sender, sender.Hold(p), p.codingOf(rep), len(rep.body), func(body *bodyReader) {
				http.ServeContent(cw, r, "", modified, body)
			})
			return
		}
	}
	rep.writeHeader(h, values, false, revoked)
	w.WriteHeader(p.Status)
	switch n := len(rep.body); {
	case r.Method == http.MethodHead || n == 0:
	case n <= chunkSize:
		w.Write(rep.body)
	default:
		sendLarge(sender, sender.Hold(p), p.codingOf(rep), n, func(body *bodyReader) { body.send(w) })
	}
}

// asksForMore reports whether a request asks for a part of a page, or for one
// under a condition other than If-None-Match.
func asksForMore(h http.Header) bool {
	return h["If-Modified-Since"] != nil || h["Range"] != nil || h["If-Match"] != nil || h["If-Unmodified-Since"] != nil
}

// wellAsked returns r with its conditions as http.ServeContent takes them, and
// without those that RFC 9110 has it ignore: lists stand in one line (section 5.3),
// dates are dates (13.1.3 and 13.1.4), and only GET has ranges (14.2).
func wellAsked(r *http.Request) *http.Request {
	edited := false
	edit := func() http.Header {
		if !edited {
			r, edited = r.Clone(r.Context()), true
		}
		return r.Header
	}
	for _, name := range [...]string{"If-Match", "If-None-Match"} {
		if lines := r.Header[name]; len(lines) > 1 {
			edit()[name] = []string{strings.Join(lines, ", ")}
		}
	}
	for _, name := range [...]string{"If-Modified-Since", "If-Unmodified-Since"} {
		lines := r.Header[name]
		if lines == nil {
			continue
		}
		switch date, ok := header.PlainDate(lines); {
		case !ok:
			edit().Del(name)
		case date != lines[0]:
			edit().Set(name, date)
		}
	}
	if r.Header["Range"] != nil && (r.Method != http.MethodGet || len(r.Header["If-Range"]) > 0 && !header.IsValidator(r.Header["If-Range"])) {
		edit().Del("Range")
	}
	return r
}

// A contentWriter corrects what http.ServeContent says of a representation.
type contentWriter struct {
	http.ResponseWriter
	page    *Page
	encoded bool // whether ranges are of other bytes than these
}

func (w *contentWriter) WriteHeader(status int) {
	h := w.Header()
	switch status {
	case http.StatusPreconditionFailed: // it has no body
		for _, name := range [...]string{"Content-Length", "Content-Type", "Content-Encoding", "Accept-Ranges"} {
			h.Del(name)
		}
		w.page.setUnstored(h)
	case http.StatusRequestedRangeNotSatisfiable:
		w.page.setUnstored(h)
	case http.StatusNotModified:
		h.Del("Accept-Ranges")
	default:
		if w.encoded {
			h.Del("Accept-Ranges")
		}
	}
	w.page = nil // which must not be held while the body is sent
	w.ResponseWriter.WriteHeader(status)
}
