package respwriter

import (
	"bufio"
	"net"
	"net/http"
)

// unwrap returns what stands behind a writer of this package, for those who unwrap it:
// w itself, unless a Hijacker may be found further down, behind the back of the writer.
func unwrap(w http.ResponseWriter, onHijack func()) http.ResponseWriter {
	if _, hijacks := w.(http.Hijacker); !hijacks {
		if _, wraps := w.(interface{ Unwrap() http.ResponseWriter }); wraps {
			return unwrapped{w, onHijack}
		}
	}
	return w
}

// An unwrapped hijacks what an http.ResponseController would find further down, and
// lets the writer know.
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
