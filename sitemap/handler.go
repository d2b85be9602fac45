package sitemap

import (
	"context"
	"fmt"
	"io"
	"net/http"
)

// A handlerTransport asks a handler instead of the network. What the handler writes is
// read while it writes it.
type handlerTransport struct{ handler http.Handler }

func (t handlerTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	in := req.Clone(req.Context())
	in.RequestURI = req.URL.RequestURI()
	in.Host = req.URL.Host
	in.Body = http.NoBody
	in.RemoteAddr = "0.0.0.0:0"
	out, body := io.Pipe()
	w := &pipeWriter{header: make(http.Header), body: body, began: make(chan *http.Response, 1)}
	go func() {
		defer func() {
			if v := recover(); v != nil {
				w.WriteHeader(http.StatusInternalServerError)
				body.CloseWithError(fmt.Errorf("the handler panics: %v", v))
				return
			}
			w.WriteHeader(http.StatusOK)
			body.Close()
		}()
		t.handler.ServeHTTP(w, in)
	}()
	// Afterwards the handler's next Write fails, too.
	context.AfterFunc(req.Context(), func() { out.CloseWithError(req.Context().Err()) })
	select {
	case res := <-w.began:
		res.Request, res.Body = req, out
		return res, nil
	case <-req.Context().Done():
		return nil, req.Context().Err()
	}
}

// A pipeWriter is the ResponseWriter of a handler whose body goes through a pipe.
type pipeWriter struct {
	header http.Header
	body   *io.PipeWriter
	began  chan *http.Response // of one
	sent   bool
}

func (w *pipeWriter) Header() http.Header { return w.header }

func (w *pipeWriter) WriteHeader(status int) {
	if w.sent || status < 200 {
		return
	}
	w.sent = true
	w.began <- &http.Response{
		StatusCode: status, Status: fmt.Sprint(status, " ", http.StatusText(status)),
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: w.header.Clone(), ContentLength: -1,
	}
}

func (w *pipeWriter) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.body.Write(b)
}
