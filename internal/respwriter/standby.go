package respwriter

import (
	"bufio"
	"fmt"
	"maps"
	"net"
	"net/http"
)

// A Standby withholds a handler's failure, with its header, where a stored page can be
// shown instead (RFC 5861, section 4).
type Standby struct {
	w         http.ResponseWriter
	header    http.Header // the handler's, until it is written
	isFailure func(status int, h http.Header) bool
	status    int   // zero until the final header is written
	err       error // the failure
}

// NewStandby returns a Standby in front of w. isFailure reports which responses are
// failures.
func NewStandby(w http.ResponseWriter, isFailure func(status int, h http.Header) bool) *Standby {
	return &Standby{w: w, header: w.Header().Clone(), isFailure: isFailure}
}

// Fail notes a failure, such as a panic of the handler. It reports false where a part of
// the response has gone out already.
func (w *Standby) Fail(err error) bool {
	if w.status == 0 {
		w.err = err
	}
	return w.err != nil
}

// Finish writes the header if nothing has, and returns its status and the failure,
// if it was one: then nothing has reached the visitor. It is to be called when the
// handler has returned. The status is zero where none was written.
func (w *Standby) Finish() (status int, err error) {
	w.WriteHeader(http.StatusOK)
	return w.status, w.err
}

// Unwrap is for an http.ResponseController. Once the handler has hijacked the connection
// the stored page cannot be shown any more.
func (w *Standby) Unwrap() http.ResponseWriter {
	return unwrap(w.w, w.onHijack)
}

// onHijack notes that nothing of a response can go out any more.
func (w *Standby) onHijack() {
	if w.status == 0 && w.err == nil {
		w.status = http.StatusSwitchingProtocols
	}
}

func (w *Standby) Header() http.Header { return w.header }

func (w *Standby) WriteHeader(status int) {
	if w.status != 0 || w.err != nil {
		return
	}
	if status >= 200 && w.isFailure(status, w.header) {
		w.Fail(&statusError{status})
		w.status = status
		return
	}
	if isFinal(status) {
		w.status = status
	}
	h := w.w.Header()
	clear(h)
	maps.Copy(h, w.header)
	if isFinal(status) {
		w.header = h // for trailers
	}
	w.w.WriteHeader(status)
}

func (w *Standby) Write(b []byte) (int, error) {
	if w.WriteHeader(http.StatusOK); w.err != nil {
		return len(b), nil
	}
	return w.w.Write(b)
}

func (w *Standby) FlushError() error {
	if w.WriteHeader(http.StatusOK); w.err != nil {
		return nil
	}
	return http.NewResponseController(w.w).Flush()
}

func (w *Standby) Flush() { w.FlushError() }

type standbyHijacker struct{ w *Standby }

func (h standbyHijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := h.w.w.(http.Hijacker).Hijack()
	if err == nil {
		h.w.onHijack()
	}
	return conn, rw, err
}

// Writer returns the Standby with the optional interfaces of the writer that it wraps, as
// Pass.Writer does.
func (w *Standby) Writer() http.ResponseWriter {
	_, hijacks := w.w.(http.Hijacker)
	c, notifies := w.w.(closeNotifier)
	h := http.Hijacker(standbyHijacker{w})
	switch {
	case hijacks && notifies: // HTTP/1
		return struct {
			*Standby
			http.Hijacker
			closeNotifier
		}{w, h, c}
	case hijacks:
		return struct {
			*Standby
			http.Hijacker
		}{w, h}
	case notifies: // HTTP/2
		return struct {
			*Standby
			closeNotifier
		}{w, c}
	}
	return w
}

// A statusError is an error response of the handler.
type statusError struct{ status int }

func (e *statusError) Error() string {
	return fmt.Sprintf("the handler answered %d %s", e.status, http.StatusText(e.status))
}
