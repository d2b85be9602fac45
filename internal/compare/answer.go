// Package compare finds what a handler makes of a visitor's own request that it does not
// make of a page request, and names what in the request makes the difference.
package compare

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"
)

// maxBody is how much of a body is compared.
const maxBody = 4 << 20

// An Answer is what is compared of a response.
type Answer struct {
	Status         int
	Type, Location string
	Body           []byte
}

// NewAnswer returns what is compared of a response.
func NewAnswer(status int, h http.Header, body []byte) Answer {
	return Answer{status, h.Get("Content-Type"), h.Get("Location"), body[:min(len(body), maxBody)]}
}

// Equal reports whether visitors would not see a difference.
func (a Answer) Equal(b Answer) bool {
	return a.Status == b.Status && a.Location == b.Location && bytes.Equal(a.Body, b.Body) && (a.Type == b.Type || a.Type == "" || b.Type == "")
}

// Ask asks a handler. Its panic is an error.
func Ask(h http.Handler, r *http.Request) (a Answer, err error) {
	w := &recorder{context: r.Context(), header: make(http.Header)}
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("the handler panicked: %v", v)
		}
	}()
	h.ServeHTTP(w, r)
	w.WriteHeader(http.StatusOK)
	return NewAnswer(w.status, w.sent, w.body), nil
}

// A recorder is the ResponseWriter of Ask.
type recorder struct {
	context      context.Context // of the request
	header, sent http.Header
	status       int // zero until the header is written
	body         []byte
}

func (w *recorder) Header() http.Header { return w.header }

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 && (status >= 200 || status == http.StatusSwitchingProtocols) {
		w.status, w.sent = status, w.header.Clone()
	}
}

func (w *recorder) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	w.body = append(w.body, b[:min(len(b), maxBody-len(w.body))]...)
	return len(b), nil
}

func (w *recorder) Flush() {}

// CloseNotify is for handlers that ask for it (gin's Stream).
func (w *recorder) CloseNotify() <-chan bool {
	gone := make(chan bool, 1)
	context.AfterFunc(w.context, func() { gone <- true })
	return gone
}

// A Part is what a visitor sends that a route may not declare: a header, one cookie, or
// where both are empty something else.
type Part struct{ Header, Cookie string }

// String names the part.
func (p Part) String() string {
	switch {
	case p.Header != "":
		return p.Header
	case p.Cookie != "":
		return "the cookie " + p.Cookie
	}
	return "something that is no header, such as a value in the context, the client's address, or several headers together"
}

// Remedy says what the route lacks, where a page differs by the part.
func (p Part) Remedy() string {
	switch {
	case p.Cookie != "":
		return fmt.Sprintf("where the page is for one visitor, set Route.Bypass for requests that have it; for groups of visitors, Route.Segment; where it has few values, add %q to Route.VaryCookies", p.Cookie)
	case p.Header == "":
		return "set Route.Bypass, where the page is for one visitor; for groups of visitors, Route.Segment; else have the handler look at nothing but the URL"
	case p.Header == "X-Forwarded-Host":
		return "have the handler use the request's Host, and set Options.Origin where the site has one"
	case p.Header == "X-Original-Url", p.Header == "X-Rewrite-Url", p.Header == "X-Http-Method-Override":
		return "have the handler not look at it, since any visitor can send it"
	case p.Header == "X-Forwarded-For", p.Header == "X-Real-Ip", p.Header == "Forwarded":
		return "set Route.Bypass, or for groups of visitors Route.Segment"
	case strings.HasPrefix(p.Header, "Hx-"), strings.HasPrefix(p.Header, "X-Requested-"):
		return "add it to Route.Vary"
	}
	return "add it to Route.Vary, with Normalize"
}
