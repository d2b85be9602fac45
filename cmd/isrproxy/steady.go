package main

import (
	"io"
	"log"
	"net/http"
	"time"
)

// A visitor who says nothing, or takes nothing, keeps a connection for so long. What
// goes through may take longer, as long as it moves: see steady.
const (
	patience = time.Minute     // for a whole request, and for the next bytes of what goes through
	reading  = 2 * time.Minute // for a whole page, from the request on
)

func newServer(h http.Handler, errors *log.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ErrorLog:          errors,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       patience,
		WriteTimeout:      reading,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
	}
}

// steady lets uploads, downloads and event streams take as long as they move: the
// server's deadlines are for the whole of a request and of an answer, these are for
// each part. The deadlines of a page are its route's.
func steady(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := http.NewResponseController(w)
		c.SetReadDeadline(time.Time{}) // errors: it is a page
		c.SetWriteDeadline(time.Time{})
		defer func() { c.SetWriteDeadline(time.Now().Add(patience)) }() // for what is still to be sent
		if r.Body != nil && r.Body != http.NoBody {
			r = r.WithContext(r.Context())
			r.Body = &steadyBody{r.Body, c}
		}
		h.ServeHTTP(&steadyWriter{w, c}, r)
	})
}

type steadyBody struct {
	io.ReadCloser
	c *http.ResponseController
}

func (b *steadyBody) Read(p []byte) (int, error) {
	b.c.SetReadDeadline(time.Now().Add(patience))
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		b.c.SetReadDeadline(time.Time{}) // from here on, it is the answer that takes time
	}
	return n, err
}

type steadyWriter struct {
	http.ResponseWriter
	c *http.ResponseController
}

func (w *steadyWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *steadyWriter) Write(p []byte) (int, error) {
	w.c.SetWriteDeadline(time.Now().Add(patience))
	defer w.c.SetWriteDeadline(time.Time{}) // the next part may be long in coming
	return w.ResponseWriter.Write(p)
}

func (w *steadyWriter) FlushError() error {
	w.c.SetWriteDeadline(time.Now().Add(patience))
	defer w.c.SetWriteDeadline(time.Time{})
	return w.c.Flush()
}
