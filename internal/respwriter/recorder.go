package respwriter

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/isr-go/isr/internal/budget"
	"github.com/isr-go/isr/internal/header"
	"github.com/isr-go/isr/internal/policy"
)

// A Config is what a Recorder needs of its run. Its functions are called by the goroutine
// that writes the response, which may have outlived the handler's call, and never with a
// mutex held.
type Config struct {
	Context   context.Context // of the handler's request: done when the run has ended
	Limit     int64           // what is larger, in bytes, may not be stored
	Budget    *budget.Budget  // of all the streams together
	IsFailure func(status int, h http.Header) bool
	Rewrite   func(status int, h http.Header) // of what is sent; may be nil
	Refuses   func(status int, h http.Header) policy.Refusal

	// RefusesAtEnd is asked once more, when the handler has returned, or flushes: it may
	// have given the response its lifetime by then. The status is the stored page's
	// where this is as good as new.
	RefusesAtEnd func(status int, h http.Header) policy.Refusal

	// Failed says why the generation has failed, if the handler has said so.
	Failed func() error

	// Renew returns the status and the headers of the stored page as a 304 with the
	// headers h updates them, or false where that is about another page (RFC 9111,
	// section 4.3.4). It is nil where there is no stored page.
	Renew func(h http.Header) (status int, updated http.Header, ok bool)

	// HandOff hands a Stream to a visitor, and returns when one has taken it, or with
	// false when no visitor who would take it waits any more.
	HandOff func(*Stream) bool

	// ToTheEnd reports whether a response that is too large, and that no visitor takes, is
	// read to its end, since it matters whether it fails before that. It may be nil.
	ToTheEnd func() bool

	// Broken gets the Failure of a Stream whose Result was Refused: a visitor has a part of
	// it. It is called at most once, and not where that visitor, or Abort, has ended the
	// Stream.
	Broken func(Result)

	Left      func() // the visitor of a Stream needs no more of it; it may be called more than once
	Cancel    func() // ends the handler's context: the rest is not needed
	KeepAlive func() // extends the deadline: a visitor has got a part of the Stream

	// Done gets the Result, at most once; never, where the Recorder is aborted before.
	Done func(Result)
}

// A Result is what a Recorder has decided of a response.
type Result struct {
	Kind   Kind
	Status int // the handler's; of a Failure what those who wait get

	// Header are the headers as they were sent: of a Renewal those of the page, and
	// of a Failure nil, unless it is a response that can be passed on.
	Header http.Header
	Body   []byte // valid until Done returns

	Why        policy.Refusal // of a Refused
	Err        error          // of a Failure
	RetryAfter time.Duration  // of a Failure: the handler's Retry-After
}

// A Kind is the kind of a Result.
type Kind int

const (
	Page    Kind = iota
	Renewal      // a 304: the stored page is still valid
	Refused      // the response may not be stored
	Failure      // the handler could not make the page
	foreign      // a 304 about another page than the stored one, or to a request without conditions
)

// Why a response fails, where the handler does not say so itself.
var (
	errShort       = errors.New("the handler wrote fewer bytes than its Content-Length")
	errLong        = errors.New("the handler wrote more bytes than its Content-Length")
	errNotModified = errors.New("the handler answered 304 to a request without conditions")
	errDiscarded   = errors.New("isr: response discarded: nobody waits for it any more")
)

// A Recorder is the ResponseWriter of a run that makes a page. It calls Done as soon as
// the Result is known: with the header, where the response may not be stored, and with
// the first byte that is too many, where a visitor takes the Stream or nobody cares for
// the end.
type Recorder struct {
	c      Config
	header http.Header // the handler's

	mu          sync.Mutex  // guards what follows: goroutines may write after the handler has returned; held alone
	conditional bool        // whether the request carries the validators of the stored page
	closed      error       // what later writes get, once the Result is decided
	status      int         // zero until the final header is written
	sent        http.Header // as it was then
	length      int64       // the declared Content-Length, or -1
	kind        Kind
	final       int // the status of the page, which is not that of a 304
	body        *bytes.Buffer
	size        int64 // of the body so far
	overrun     bool  // whether more was written than declared
	late        int   // the status of a failure that comes after the header, or zero
	pipe        *io.PipeWriter
	overflows   *Stream        // what is about to be handed over
	stream      *Stream        // what was, with pipe
	tooLarge    policy.Refusal // of what is larger than Limit
	broken      error          // what has ended the response before the handler has
}

// NewRecorder returns a Recorder of a response to a request without conditions.
func NewRecorder(c Config) *Recorder {
	return &Recorder{c: c, header: make(http.Header), length: -1}
}

// SetConditional says whether the request carries the validators of the stored page.
func (r *Recorder) SetConditional(conditional bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conditional = conditional
}

func (r *Recorder) Header() http.Header { return r.header }

func (r *Recorder) WriteHeader(status int) {
	if status < 100 || status > 999 {
		panic(fmt.Sprintf("invalid WriteHeader code %v", status)) // as net/http does
	}
	if isFinal(status) { // else informational; the page is the final response
		r.refuse(r.takeHeader(status, false))
	}
}

// Flush writes the header, which may already decide the Result, and flushes what a
// visitor has got of a Stream.
func (r *Recorder) Flush() {
	why := r.takeHeader(http.StatusOK, true)
	if why == (policy.Refusal{}) {
		why = r.refusesAtEnd()
	}
	r.refuse(why)
	r.mu.Lock()
	pipe := r.pipe
	r.mu.Unlock()
	if pipe != nil {
		pipe.Write(nil)
	}
}

// Hijack fails: the response of a page request goes over no connection. It is not stored.
func (r *Recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	r.mu.Lock()
	var why policy.Refusal
	if r.closed == nil {
		why = policy.Refusal{Why: "takes over the connection", Remedy: "set Route.Bypass"}
		r.closed = discarded(why)
	}
	r.mu.Unlock()
	r.refuse(why)
	return nil, nil, http.ErrNotSupported
}

// CloseNotify is for handlers that stop when the client is gone (gin's Stream): the
// channel gets its value when the run's context is done.
func (r *Recorder) CloseNotify() <-chan bool {
	gone := make(chan bool, 1)
	context.AfterFunc(r.c.Context, func() { gone <- true })
	return gone
}

// discarded is what a handler's Write returns where its response may not be stored.
func discarded(why policy.Refusal) error {
	return fmt.Errorf("isr: response discarded: it %s", why)
}

// Retry reports whether the response is a 304 that is not about the stored page, since
// its ETag is another. It then resets the Recorder for the response to a request without
// conditions (RFC 9111, section 4.3.4): the content has changed, and can be had now.
func (r *Recorder) Retry() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.kind != foreign || !r.conditional || r.closed != nil || r.late != 0 {
		return false
	}
	r.header, r.sent, r.conditional = make(http.Header), nil, false
	r.status, r.length, r.kind = 0, -1, Page
	return true
}

// takeHeader takes the final header, if it is the first, and returns why the response may
// not be stored, if so. A later WriteHeader with the status of a failure makes the response
// one (a template that breaks in the middle, a recovery inside the site); an implicit 200
// of a Write does not count. It is called without r.mu, since Route.Failure is.
func (r *Recorder) takeHeader(status int, implicit bool) (why policy.Refusal) {
	r.mu.Lock()
	began, conditional, h := r.status != 0, r.conditional, r.header
	ignored := r.isDecided() || began && (implicit || r.late != 0)
	r.mu.Unlock()
	if ignored {
		return why
	}
	if began {
		if r.c.IsFailure(status, h) {
			r.fail(status)
		}
		return why
	}
	sent, length, kind, final := header.Canonical(h), int64(-1), Page, status
	if r.c.Rewrite != nil {
		r.c.Rewrite(status, sent)
		sent = header.Canonical(sent) // however it spells them
	}
	if n, err := strconv.ParseInt(sent.Get("Content-Length"), 10, 64); err == nil && n >= 0 {
		length = n
	}
	switch {
	case r.c.Failed() != nil, r.c.IsFailure(status, sent):
		kind = Failure
	case status == http.StatusNotModified && r.c.Renew != nil:
		kind = foreign
		if conditional {
			if of, updated, ok := r.c.Renew(sent); ok {
				kind, sent, final = Renewal, updated, of
			}
		}
	}
	if kind == Page || kind == Renewal {
		why = r.c.Refuses(final, sent)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.status != 0 || r.closed != nil { // meanwhile
		return policy.Refusal{}
	}
	r.status, r.sent, r.length, r.kind, r.final = status, sent, length, kind, final
	if why != (policy.Refusal{}) {
		r.closed = discarded(why)
	}
	return why
}

// isDecided reports whether what is still to come cannot make the response a failure. It
// is called under r.mu.
func (r *Recorder) isDecided() bool {
	return r.closed != nil && (r.pipe == nil || r.stream.left.Load())
}

// fail notes a failure that comes after the header. A visitor who has a part of the
// response gets no more of it.
func (r *Recorder) fail(status int) {
	r.mu.Lock()
	if r.isDecided() || r.late != 0 {
		r.mu.Unlock()
		return
	}
	r.late = status
	streaming := r.pipe != nil
	r.mu.Unlock()
	if streaming {
		r.endStream(r.c.Failed())
	}
}

// refuse reports that the response may not be stored, where there is a reason.
func (r *Recorder) refuse(why policy.Refusal) {
	if why == (policy.Refusal{}) {
		return
	}
	r.mu.Lock()
	result := Result{Kind: Refused, Status: r.status, Header: r.sent, Why: why}
	r.mu.Unlock()
	r.c.Done(result)
	r.mu.Lock()
	streaming := r.pipe != nil
	r.mu.Unlock()
	if !streaming {
		r.c.Cancel()
	}
}

func (r *Recorder) Write(b []byte) (n int, err error) {
	why, failed := r.takeHeader(http.StatusOK, true), r.c.Failed() != nil
	r.mu.Lock()
	if failed && r.pipe == nil && (r.kind == Page || r.kind == Renewal) {
		r.kind = Failure
	}
	overflows := false
	if why == (policy.Refusal{}) {
		n, why, err = r.write(b)
		overflows = why != (policy.Refusal{})
	}
	pipe, st := r.pipe, r.overflows
	r.overflows = nil
	r.mu.Unlock()
	if st != nil {
		pipe = r.handOver(st)
	}
	if overflows && pipe == nil && r.goesOn() {
		return n, nil
	}
	r.refuse(why)
	switch {
	case pipe != nil && err == nil:
		return pipe.Write(b) // without r.mu: the visitor's connection may be slow
	case why != (policy.Refusal{}):
		return 0, discarded(why)
	}
	return n, err
}

// write takes a part of the body, or returns why the response may not be stored. It is
// called under r.mu.
func (r *Recorder) write(b []byte) (n int, why policy.Refusal, err error) {
	limit := r.c.Limit
	switch size := r.size + int64(len(b)); {
	case r.closed != nil && r.pipe == nil:
		return 0, why, r.closed
	case !header.BodyAllowed(r.status):
		return 0, why, http.ErrBodyNotAllowed
	case r.length >= 0 && size > r.length:
		r.overrun = true
		return 0, why, http.ErrContentLength
	default:
		r.size = size
	}
	switch {
	case r.pipe != nil, r.tooLarge != (policy.Refusal{}), r.kind == Failure && r.size > limit:
	case r.kind != Failure && (r.size > limit || r.length > limit):
		r.overflow()
		why = policy.Refusal{Why: fmt.Sprintf("is larger than MaxPageBytes (%d)", limit), Remedy: "raise it, or set Route.Bypass"}
		r.tooLarge, r.closed = why, discarded(why)
	default:
		if r.body == nil {
			r.body = getBuffer()
		}
		r.body.Write(b)
	}
	return len(b), why, nil
}

// Abort ends the response before the handler does: what that writes from now on is
// dropped, and a visitor who reads a Stream gets the error.
func (r *Recorder) Abort(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.broken = err
	if r.closed == nil {
		r.closed = errDiscarded
	}
	if r.pipe != nil {
		r.pipe.CloseWithError(err)
	}
}

// Finish is to be called when the handler has returned.
func (r *Recorder) Finish() {
	why := r.takeHeader(http.StatusOK, true)
	if why == (policy.Refusal{}) {
		why = r.refusesAtEnd()
	}
	failed := r.c.Failed()
	r.mu.Lock()
	pipe, decided := r.pipe, r.closed != nil
	r.closed = errDiscarded
	if pipe == nil {
		r.broken = errDiscarded // of a Stream that a goroutine of the handler's still hands over
	}
	r.mu.Unlock()
	r.refuse(why)
	if pipe != nil {
		r.endStream(failed)
	}
	if decided {
		return
	}
	// From here on no other goroutine touches the response.
	defer putBuffer(r.body)
	res := r.result(failed)
	r.c.Done(res)
	if res.Kind == Refused {
		r.c.Cancel()
	}
}

// refusesAtEnd says why a response that is being recorded may not be stored after all,
// if so.
func (r *Recorder) refusesAtEnd() (why policy.Refusal) {
	r.mu.Lock()
	status, h := r.final, r.sent
	recorded := r.closed == nil && r.late == 0 && (r.kind == Page || r.kind == Renewal)
	r.mu.Unlock()
	if !recorded || r.c.Failed() != nil {
		return why
	}
	if why = r.c.RefusesAtEnd(status, h); why != (policy.Refusal{}) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.closed != nil { // meanwhile
			return policy.Refusal{}
		}
		r.closed = discarded(why)
	}
	return why
}

// result returns the Result of a complete response, which has failed where the handler
// has said so.
func (r *Recorder) result(failed error) Result {
	var body []byte
	if r.body != nil {
		body = r.body.Bytes()
	}
	fail := Result{Kind: Failure, Status: http.StatusBadGateway}
	switch {
	case failed != nil && r.kind == Failure && r.c.IsFailure(r.status, r.sent):
		fail.Status, fail.Err, fail.RetryAfter = r.status, failed, header.RetryAfter(r.sent)
		if r.size <= r.c.Limit {
			fail.Header, fail.Body = r.sent, body
		}
	case failed != nil:
		fail.Status, fail.Err = http.StatusInternalServerError, failed
	case r.late != 0:
		fail.Status = r.late
		fail.Err = fmt.Errorf("%w, after it had begun to answer %d", &statusError{r.late}, r.status)
		fail.RetryAfter = header.RetryAfter(r.header)
	case r.overrun:
		fail.Err = errLong
	case r.length >= 0 && r.size < r.length && header.BodyAllowed(r.status):
		fail.Err = errShort
	case r.kind == foreign:
		fail.Err = errNotModified
	case r.kind == Failure:
		fail.Status = r.status
		fail.Err = &statusError{r.status}
		fail.RetryAfter = header.RetryAfter(r.sent)
		if r.size <= r.c.Limit {
			fail.Header, fail.Body = r.sent, body
		}
	case r.tooLarge != (policy.Refusal{}):
		return Result{Kind: Refused, Status: r.status, Header: r.sent, Why: r.tooLarge}
	default:
		return Result{Kind: r.kind, Status: r.status, Header: r.sent, Body: body}
	}
	return fail
}

// buffers hold the bodies of responses that are being written.
var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

func getBuffer() *bytes.Buffer { return buffers.Get().(*bytes.Buffer) }

func putBuffer(b *bytes.Buffer) {
	if b != nil && b.Cap() <= 1<<20 {
		b.Reset()
		buffers.Put(b)
	}
}
