package respwriter

import (
	"bufio"
	"net"
	"net/http"
)

// unwrap returns what a writer of this package unwraps to: the writer w that it wraps.
// Where a Hijacker may be found below w, it is an unwrapped, which notices its use.
func unwrap(w http.ResponseWriter, onHijack func()) http.ResponseWriter {
	if _, hijacks := w.(http.Hijacker); !hijacks {
		if _, wraps := w.(interface{ Unwrap() http.ResponseWriter }); wraps {
			return unwrapped{w, onHijack}
		}
	}
	return w
}

// An unwrapped hijacks what an http.ResponseController would find further down, and calls
// onHijack.
type unwrapped struct {
	http.ResponseWriter
	onHijack func()
}

func (u unwrapped) Unwrap() http.ResponseWriter { return u.ResponseWriter }

func (u unwrapped) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(u.ResponseWriter).Hijack()
	if err == nil {
		u.onHijack()
	}
	return conn, rw, err
}

// isFinal reports whether a status is that of a final response: after 101, too,
// no other follows.
func isFinal(status int) bool {
	return status >= 200 || status == http.StatusSwitchingProtocols
}
