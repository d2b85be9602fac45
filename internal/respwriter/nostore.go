package respwriter

import (
	"cmp"
	"net/http"

	"github.com/isr-go/isr/internal/header"
)

// A NoStore makes sure that no cache keeps the response.
type NoStore struct {
	w      http.ResponseWriter
	status int // zero until the final header is written
}

// NewNoStore returns a NoStore in front of w.
func NewNoStore(w http.ResponseWriter) *NoStore { return &NoStore{w: w} }

// Finish writes the header if nothing has, and returns its status. It is to be
// called when the handler has returned.
func (w *NoStore) Finish() (status int) {
	w.implicit()
	return w.status
}

// Unwrap is for an http.ResponseController. No cache can keep what goes over a
// connection that the handler hijacks.
func (w *NoStore) Unwrap() http.ResponseWriter {
	return unwrapped{w.w, func() { w.status = cmp.Or(w.status, http.StatusSwitchingProtocols) }}
}

func (w *NoStore) Header() http.Header { return w.w.Header() }

func (w *NoStore) WriteHeader(status int) {
	if w.status == 0 {
		if isFinal(status) {
			w.status = status
		}
		header.SetNoStore(w.Header())
	}
	w.w.WriteHeader(status)
}

func (w *NoStore) implicit() {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
}

func (w *NoStore) Write(b []byte) (int, error) {
	w.implicit()
	return w.w.Write(b)
}

func (w *NoStore) FlushError() error {
	w.implicit()
	return http.NewResponseController(w.w).Flush()
}

func (w *NoStore) Flush() { w.FlushError() }
