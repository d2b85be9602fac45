package isr

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unique"

	"github.com/isr-go/isr/internal/header"
	"github.com/isr-go/isr/internal/invalidation"
	"github.com/isr-go/isr/internal/pagekey"
	"github.com/isr-go/isr/internal/policy"
	"github.com/isr-go/isr/store"
)

// The Cache-Status of requests that go to the handler untouched (RFC 9211).
const (
	fwdBypass      = "isr; fwd=bypass"
	fwdMethod      = "isr; fwd=method"
	fwdUncacheable = "isr; fwd=bypass; detail=uncacheable"
	fwdTooLong     = "isr; fwd=bypass; detail=too-long" // of a key over maxKeyBytes
	fwdUnclean     = "isr; fwd=bypass; detail=path"     // of a path that cleanPath refuses
)

// validators are those that the handler itself has set.
type validators struct{ etag, lastModified string }

// ask makes a request conditional, and reports whether it is.
func (v validators) ask(h http.Header) bool {
	if v.etag != "" {
		h.Set("If-None-Match", v.etag)
	}
	if v.lastModified != "" {
		h.Set("If-Modified-Since", v.lastModified)
	}
	return v != validators{}
}

// match reports whether a 304 with the given headers is about the page that has
// these validators (RFC 9111, section 4.3.4). One without an ETag is.
func (v validators) match(update http.Header) bool {
	etag := update.Get("Etag")
	if !header.IsETag(etag) {
		return true
	}
	if weak, ok := strings.CutPrefix(etag, "W/"); ok {
		return weak == strings.TrimPrefix(v.etag, "W/")
	}
	return etag == v.etag
}

// A meta is what is known of a page before its response is.
type meta struct {
	key      pagekey.Key
	route    *policy.Route
	pattern  string                // of a ServeMux around the Site
	matched  string                // the pattern that the handler has matched
	since    invalidation.Snapshot // when its generation began
	seq      uint64                // which of the Site's generations it is: a later one has more
	order    store.Ticket          // the Store's; zero where it was not to be had
	maxBytes int64                 // of memory, for all pages
}

// newPage makes a page of a response.
func newPage(m meta, status int, sent http.Header, body []byte) *page {
	h := header.Forwardable(sent, body)
	plain := append([]byte(nil), body...)
	return makePage(m, status, h, header.ParseAge(sent["Age"]), plain, compress(h, plain))
}

// merged returns the headers of a stored page, as a 304 has updated them (RFC
// 9111, section 3.2).
func (p *page) merged(update http.Header) http.Header {
	h, _ := p.plain.snapshot()
	if !p.ownControl {
		delete(h, "Cache-Control")
	}
	if p.validators.etag == "" {
		delete(h, "Etag")
	}
	for name, values := range update {
		switch name {
		case "Content-Length", "Content-Encoding", "Content-Type", "Content-Range":
		default:
			h[name] = values
		}
	}
	return h
}

// freshen makes a page of a stored one and the headers that a 304 has updated (RFC
// 9111, section 4.3.4).
func freshen(m meta, old *page, merged http.Header) *page {
	var compressed []byte
	if old.gzip != nil {
		compressed = old.gzip.body
	}
	return makePage(m, old.status, header.Forwardable(merged, nil), header.ParseAge(merged["Age"]), old.plain.body, compressed)
}

// hitForPass makes the note that the response may not be stored: for a while,
// requests for it go straight to the handler.
func hitForPass(m meta, why policy.Refusal) *page {
	return &page{
		key: m.key, route: m.route, pattern: m.pattern, subject: invalidation.Subject{Since: m.since}, seq: m.seq, order: m.order,
		generated: time.Now(), pass: why, size: pageOverhead + m.key.Size(),
	}
}

// What is taken beside strings and bodies, as TestMemory finds it on the heap: by
// a page with its places in a list, the index and a shelf; by a representation
// with its stamp; and by a header line in its values and its stamp.
const (
	pageOverhead           = 1060
	representationOverhead = 290
	lineOverhead           = 2 * 16
)

// makePage makes a page of h, which it takes over, the Age that came with it, and the
// encodings of a body.
func makePage(m meta, status int, h http.Header, age time.Duration, plain, compressed []byte) *page {
	d := header.ParseCacheControl(h["Cache-Control"])
	p := &page{
		key: m.key, route: m.route, pattern: m.pattern, matched: unique.Make(m.matched).Value(),
		subject: invalidation.Subject{Since: m.since, Tags: m.route.TagsOf(h)}, seq: m.seq, order: m.order,
		status: status, generated: time.Now(), ownControl: h["Cache-Control"] != nil,
	}
	var explicit bool
	if p.lifetime, explicit = m.route.Lifetime(status, h, d); explicit {
		// An upstream cache had it for a while. Its time counts where the lifetime
		// is the upstream's, too (RFC 9111, section 4.2.3).
		p.upstream = age
		p.generated = p.generated.Add(-age)
	}
	etag := h.Get("Etag")
	if header.IsETag(etag) {
		p.validators.etag = etag
	} else {
		sum := sha256.Sum256(plain)
		etag = `"` + base64.RawURLEncoding.EncodeToString(sum[:16]) + `"`
	}
	switch {
	case !p.ownControl:
		h["Cache-Control"] = []string{m.route.CacheControlFor(status, p.lifetime)}
	case d.SMaxAge >= 0 && d.MaxAge < 0 && h["Expires"] == nil:
		// Browsers would guess how long they may keep it.
		h["Cache-Control"] = append(slices.Clip(h["Cache-Control"]), "max-age=0")
	}
	header.AddVary(h, m.route.Rules.Vary())
	if compressed != nil {
		header.AddVary(h, "Accept-Encoding")
	}
	p.represent(h, etag, plain, compressed)
	if p.size > m.maxBytes {
		return hitForPass(m, policy.Refusal{Why: fmt.Sprintf("takes more than MaxBytes (%d)", m.maxBytes), Remedy: "raise it, or set Route.Bypass"})
	}
	return p
}

// represent gives the page its representations, and its size with them: headers,
// which it takes over, and one body in two encodings.
func (p *page) represent(h http.Header, etag string, plain, compressed []byte) {
	for _, name := range [...]string{"Accept-Ranges", "Content-Length", "Etag"} {
		delete(h, name) // made anew
	}
	if compressed != nil {
		zipped := maps.Clone(h)
		zipped.Set("Content-Encoding", "gzip")
		p.gzip = newRepresentation(new(representation), &p.route.Names[1], p.status, zipped, compressed, strings.TrimSuffix(etag, `"`)+`-gzip"`, true)
	}
	p.plain = newRepresentation(&p.room, &p.route.Names[0], p.status, h, plain, etag, false)
	if t, ok := header.ParseDate(h.Get("Last-Modified")); ok {
		p.modified, p.validators.lastModified = t, h.Get("Last-Modified")
	}
	p.size = pageOverhead + p.key.Size() + p.plain.bytes() + p.gzip.bytes()
	if ofRoute := p.route.Tags; !slices.Equal(p.subject.Tags, ofRoute) {
		p.size += int64(16 * cap(p.subject.Tags))
		for i, tag := range p.subject.Tags {
			if !pagekey.IsBucket(tag) && (i >= len(ofRoute) || tag != ofRoute[i]) {
				p.size += pagekey.StringSize(tag)
			}
		}
	}
}

// A representation is one encoding of a page, with its headers ready to send.
type representation struct {
	body    []byte
	etag    string
	names   []string // of values; equal ones stand together
	values  []string // the last three: Cache-Control, Age, Cache-Status
	entity  int      // how many of the first describe the body, and are not for a 304
	untyped bool     // whether the handler wants no Content-Type, not even a guess
	promise int64    // the seconds for which caches downstream may hold it, by its Cache-Control; negative: it does not say
	stamp   atomic.Pointer[stamp]
}

// A stamp is the values of a representation for one second.
type stamp struct {
	age, left int64
	state     pageState
	revoked   bool
	values    []string
	room      [12]string // for values
}

// newRepresentation makes rep the representation of a body. The pages of a route
// mostly have the same headers: their names are those of the last, if they are. It
// has ranges, unless it is one that isr has encoded: a range is one of the plain
// bytes.
func newRepresentation(rep *representation, last *atomic.Pointer[[]string], status int, h http.Header, body []byte, etag string, encoded bool) *representation {
	rep.body, rep.etag = body, etag
	add := func(name string, values ...string) {
		for _, v := range values {
			rep.names = append(rep.names, name)
			rep.values = append(rep.values, strings.Clone(v))
		}
	}
	n := len(h) + 6
	rep.names, rep.values = make([]string, 0, n), make([]string, 0, n)
	entity := []string{"Content-Encoding", "Content-Language", "Content-Type", "Last-Modified"}
	if header.BodyAllowed(status) {
		add("Content-Length", strconv.Itoa(len(body)))
	}
	for _, name := range entity {
		add(name, h[name]...)
	}
	if status == http.StatusOK && !encoded {
		add("Accept-Ranges", "bytes")
	}
	rep.entity = len(rep.names)
	rep.untyped = h["Content-Type"] == nil && len(body) > 0
	for _, name := range slices.Sorted(maps.Keys(h)) {
		if name != "Cache-Control" && name != "Cache-Status" && name != "Etag" && name != "Vary" && !slices.Contains(entity, name) {
			add(name, h[name]...)
		}
	}
	if header.BodyAllowed(status) {
		add("Etag", etag)
	}
	add("Vary", h["Vary"]...)
	add("Cache-Control", strings.Join(h["Cache-Control"], ", "))
	rep.promise = promiseOf(header.ParseCacheControl(h["Cache-Control"]))
	add("Age", "0")
	add("Cache-Status", strings.Join(append(slices.Clip(h["Cache-Status"]), "isr"), ", "))
	names := rep.names
	if shared := last.Load(); shared != nil && slices.Equal(*shared, names) {
		rep.names = *shared
	} else {
		last.Store(&names)
	}
	return rep
}

// bytes returns how much memory rep takes.
func (rep *representation) bytes() int64 {
	if rep == nil {
		return 0
	}
	n := int64(representationOverhead + cap(rep.body) + lineOverhead*cap(rep.values))
	for _, v := range rep.values {
		n += pagekey.StringSize(v)
	}
	return n
}

// snapshot returns the headers as they were generated.
func (rep *representation) snapshot() (h http.Header, etag string) {
	h = make(http.Header, len(rep.names))
	for i, name := range rep.names[:len(rep.names)-2] {
		h[name] = append(h[name], rep.values[i])
	}
	if status := strings.TrimSuffix(strings.TrimSuffix(rep.values[len(rep.values)-1], "isr"), ", "); status != "" {
		h["Cache-Status"] = []string{status} // the handler's
	}
	return h, rep.etag
}

// at returns the values of the headers at one moment. They are formatted once a
// second, whatever the number of visitors.
func (rep *representation) at(v view) *stamp {
	age, left := int64(v.age/time.Second), int64(v.left/time.Second)
	if v.left != policy.Forever && !v.revoked {
		left = int64((v.left+v.age)/time.Second) - age // in step with Age
	}
	if s := rep.stamp.Load(); s != nil && s.age == age && s.left == left && s.state == v.state && s.revoked == v.revoked {
		return s
	}
	s := &stamp{age: age, left: left, state: v.state, revoked: v.revoked}
	s.values = append(s.room[:0], rep.values...)
	tail := s.values[len(s.values)-3:]
	promise := rep.promise
	if v.revoked {
		tail[0] = header.Revoked(tail[0])
		promise = min(promise, 0)
	}
	tail[1] = strconv.FormatInt(usedUp(age, promise, v.left == policy.Forever, left), 10)
	tail[2] += "; hit"
	if v.left != policy.Forever {
		tail[2] += "; ttl=" + strconv.FormatInt(left, 10)
	}
	if v.state != pgFresh {
		tail[2] += "; detail=stale"
	}
	rep.stamp.Store(s)
	return s
}

// promiseOf returns for how many seconds shared caches may hold what says d, or a
// negative number where it does not say.
func promiseOf(d header.Directives) int64 {
	switch {
	case d.SMaxAge >= 0:
		return int64(d.SMaxAge / time.Second)
	case d.MaxAge >= 0:
		return int64(d.MaxAge / time.Second)
	}
	return -1
}

// usedUp returns the Age of a page: how many seconds of what its Cache-Control
// promises are used up, so that what is left of them ends when the page does here.
// A page that is kept for ever is as good as validated now. A promise that is
// shorter than the page's life begins anew with each answer.
func usedUp(age, promise int64, forever bool, left int64) int64 {
	switch {
	case forever:
		return 0
	case promise < 0:
		return age
	}
	return max(0, min(age, promise-left))
}

// serve answers from memory.
func (p *page) serve(w http.ResponseWriter, r *http.Request, v view) {
	rep := p.encodingFor(r)
	p.send(w, r, rep, slices.Clone(rep.at(v).values), v.revoked)
}

// serveForwarded answers with a page that the visitor had to wait for.
func (p *page) serveForwarded(w http.ResponseWriter, r *http.Request, v view, f header.CacheStatus) {
	rep := p.encodingFor(r)
	values := slices.Clone(rep.at(v).values)
	values[len(values)-1] = strings.TrimSuffix(rep.values[len(values)-1], "isr") + f.String()
	p.send(w, r, rep, values, v.revoked)
}

// encodingFor chooses the representation. Ranges are of the plain bytes.
func (p *page) encodingFor(r *http.Request) *representation {
	if p.gzip != nil && r.Header["Range"] == nil && header.AcceptsGzip(r.Header["Accept-Encoding"]) {
		return p.gzip
	}
	return p.plain
}

// send writes a representation with the given header values, which it takes over.
func (p *page) send(w http.ResponseWriter, r *http.Request, rep *representation, values []string, revoked bool) {
	if p.matched != "" {
		r.Pattern = p.matched // for the traces and logs of outer middleware
	}
	h := w.Header()
	if p.status == http.StatusOK {
		etags, more := r.Header["If-None-Match"], asksForMore(r.Header)
		switch {
		case !more && len(etags) == 1 && etags[0] == rep.etag:
			rep.writeHeader(h, values, rep.entity, revoked)
			w.WriteHeader(http.StatusNotModified)
			return
		case more || etags != nil:
			rep.writeHeader(h, values, 0, revoked)
			http.ServeContent(&contentWriter{w, rep == p.gzip}, wellAsked(r), "", p.modified, bytes.NewReader(rep.body))
			return
		}
	}
	rep.writeHeader(h, values, 0, revoked)
	w.WriteHeader(p.status)
	if r.Method != http.MethodHead && len(rep.body) > 0 {
		w.Write(rep.body)
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
		if lines := r.Header[name]; lines != nil && !header.IsDate(lines) {
			edit().Del(name)
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
	encoded bool // whether ranges are of other bytes than these
}

func (w *contentWriter) WriteHeader(status int) {
	h := w.Header()
	switch status {
	case http.StatusPreconditionFailed: // it has no body
		for _, name := range [...]string{"Content-Length", "Content-Type", "Content-Encoding", "Accept-Ranges"} {
			h.Del(name)
		}
	case http.StatusNotModified:
		h.Del("Accept-Ranges")
	default:
		if w.encoded {
			h.Del("Accept-Ranges")
		}
	}
	w.ResponseWriter.WriteHeader(status)
}

// writeHeader sets the headers from the given one on. It gives values away:
// whoever edits a header edits his own.
func (rep *representation) writeHeader(h http.Header, values []string, from int, revoked bool) {
	fresh := len(h) == 0
	if rep.untyped {
		h["Content-Type"] = nil // which net/http takes for a no
	}
	override := revoked
	for i := from; i < len(values); {
		j := i + 1
		for j < len(values) && rep.names[j] == rep.names[i] {
			j++
		}
		name, vs := rep.names[i], values[i:j:j]
		if !fresh {
			override = override || name == "Cache-Control" && header.IsPersonal(h)
			vs = header.Merge(h, name, vs)
		}
		h[name] = vs
		i = j
	}
	if override {
		header.DeleteTargeted(h)
	}
}

// serve passes a stream on to the visitor who took it, and says why it has broken
// off, if so.
func (st *stream) serve(w http.ResponseWriter, r *http.Request) error {
	defer st.close()
	defer context.AfterFunc(r.Context(), st.close)()
	if st.matched != "" {
		r.Pattern = st.matched
	}
	h := header.Forwardable(st.header, st.begin)
	header.AddVary(h, st.route.Rules.Vary())
	if length := st.header["Content-Length"]; length != nil {
		h["Content-Length"] = length
	}
	h.Add("Cache-Status", "isr; fwd=uri-miss; detail=too-large")
	header.Copy(w.Header(), h)
	w.WriteHeader(st.status)
	_, err := w.Write(st.begin)
	st.begin = nil
	st.release()
	for buf := make([]byte, 32<<10); err == nil; {
		var n int
		if n, err = st.rest.Read(buf); n > 0 {
			if _, failed := w.Write(buf[:n]); failed != nil {
				err = failed
			}
			st.alive() // it may take its time, as long as it flows
		} else if err == nil {
			http.NewResponseController(w).Flush()
		}
	}
	if err == io.EOF {
		return nil
	}
	return err
}

// worthCompressing is the size from which a body is compressed.
const worthCompressing = 512

var zippers = sync.Pool{New: func() any { return gzip.NewWriter(nil) }}

// compress returns the body in gzip, or nil where that is not for it or gains
// nothing.
func compress(h http.Header, body []byte) []byte {
	if len(body) < worthCompressing || h["Content-Encoding"] != nil || !compressible(h.Get("Content-Type")) ||
		header.ParseCacheControl(h["Cache-Control"]).NoTransform {
		return nil
	}
	buf := getBuffer()
	defer putBuffer(buf)
	z := zippers.Get().(*gzip.Writer)
	defer zippers.Put(z)
	z.Reset(buf)
	z.Write(body) // to memory: no error
	z.Close()
	if buf.Len() >= len(body)-len(body)/16 {
		return nil
	}
	return append([]byte(nil), buf.Bytes()...)
}

func compressible(contentType string) bool {
	t, _, _ := strings.Cut(contentType, ";")
	t = strings.ToLower(strings.TrimSpace(t))
	switch t {
	case "application/javascript", "application/json", "application/xml", "application/wasm", "application/manifest+json",
		"application/x-javascript", "application/rtf", "application/vnd.ms-fontobject", "font/ttf", "font/otf", "image/bmp", "image/x-icon":
		return true
	}
	return strings.HasPrefix(t, "text/") || strings.HasSuffix(t, "+json") || strings.HasSuffix(t, "+xml")
}
