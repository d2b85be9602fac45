package respwriter

import (
	"context"
	"io"
	"net/http"
	"sync/atomic"

	"github.com/isr-go/isr/internal/header"
	"github.com/isr-go/isr/internal/policy"
)

// A Stream is a response that is too large to be stored, for the one visit that took it,
// which calls Serve or Close.
type Stream struct {
	Status int
	Header http.Header

	begin     []byte         // what was recorded before it was too large
	rest      *io.PipeReader // a read of nothing is a flush
	writer    *io.PipeWriter // of rest
	release   func()         // returns the bytes of begin to the Budget
	desert    func()         // notes that its visitor needs no more of it
	cancel    func()         // ends the run
	keepAlive func()         // extends its deadline
	left      atomic.Bool    // whether it was closed: what the handler does then says nothing of the response
}

// Close ends the Stream, and the run with it.
func (st *Stream) Close() {
	st.left.Store(true)
	st.release()
	st.desert()
	st.rest.CloseWithError(errDiscarded)
	st.cancel()
}

// Serve passes the Stream on to its visitor. Its error says why the Stream is incomplete.
// It adds what the route varies on to Vary, and the cache's own member to Cache-Status, as
// Pass does for those who come later.
func (st *Stream) Serve(w http.ResponseWriter, r *http.Request, rt *policy.Route, cacheStatus string) error {
	defer st.Close()
	defer context.AfterFunc(r.Context(), st.Close)()
	h := header.Forwardable(st.Header, st.begin)
	delete(h, "Cache-Tag") // no tag goes out that no Edge has put there
	header.AddVary(h, rt.Rules.Vary())
	for _, name := range [...]string{"Content-Length", "Age"} { // as they were sent
		if said := st.Header[name]; said != nil {
			h[name] = said
		}
	}
	if rt.Rules.Segment != nil {
		header.MakePrivate(h)
	}
	h.Add("Cache-Status", cacheStatus)
	header.Copy(w.Header(), h)
	w.WriteHeader(st.Status)
	_, err := w.Write(st.begin)
	st.begin = nil
	st.release()
	for buf := make([]byte, 32<<10); err == nil; {
		var n int
		if n, err = st.rest.Read(buf); n > 0 {
			if _, failed := w.Write(buf[:n]); failed != nil {
				err = failed
			}
			st.keepAlive() // there is no deadline for the whole, only for each part
		} else if err == nil {
			http.NewResponseController(w).Flush()
		}
	}
	if err == io.EOF {
		return nil
	}
	return err
}
