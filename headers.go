package isr

import (
	"context"
	"io"
	"net/http"

	"github.com/isr-go/isr/internal/header"
)

// The Cache-Status of requests that go to the handler untouched (RFC 9211).
const (
	fwdBypass      = "isr; fwd=bypass"
	fwdMethod      = "isr; fwd=method"
	fwdUncacheable = "isr; fwd=bypass; detail=uncacheable"
	fwdTooLong     = "isr; fwd=bypass; detail=too-long" // of a key over maxKeyBytes
	fwdUnclean     = "isr; fwd=bypass; detail=path"     // of a path that cleanPath refuses
)

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
