package respwriter_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isr-go/isr/internal/respwriter"
)

type (
	bareWriter  struct{ http.ResponseWriter }
	canFlush    struct{ http.ResponseWriter }
	canNotify   struct{ http.ResponseWriter }
	canHijack   struct{ http.ResponseWriter }
	closeNotify interface{ CloseNotify() <-chan bool }
)

func (canFlush) Flush()                    {}
func (canNotify) CloseNotify() <-chan bool { return nil }

func (canHijack) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, other := net.Pipe()
	return conn, nil, other.Close()
}

// The handler of a request that passes finds the abilities of the server's writer,
// and none that are not there.
func TestPassKeepsAbilities(t *testing.T) {
	type abilities struct{ flush, hijack, notify, readFrom bool }
	abilitiesOf := func(w http.ResponseWriter) (a abilities) {
		_, a.flush = w.(http.Flusher)
		_, a.hijack = w.(http.Hijacker)
		_, a.notify = w.(closeNotify)
		_, a.readFrom = w.(io.ReaderFrom)
		return a
	}
	rec := httptest.NewRecorder()
	f, h, c := canFlush{rec}, canHijack{rec}, canNotify{rec}
	for name, w := range map[string]http.ResponseWriter{
		"none":   bareWriter{rec},
		"flush":  f,
		"notify": c,
		"hijack": h,
		"flush, notify": struct {
			http.ResponseWriter
			http.Flusher
			closeNotify
		}{rec, f, c},
		"flush, hijack": struct {
			http.ResponseWriter
			http.Flusher
			http.Hijacker
		}{rec, f, h},
		"hijack, notify": struct {
			http.ResponseWriter
			http.Hijacker
			closeNotify
		}{rec, h, c},
		"all": struct {
			http.ResponseWriter
			http.Flusher
			http.Hijacker
			closeNotify
		}{rec, f, h, c},
	} {
		want := abilitiesOf(w)
		want.readFrom = true // which goes by Write where it has to
		if got := abilitiesOf(respwriter.NewPass(w, respwriter.PassConfig{}).Writer()); got != want {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
		want.flush, want.readFrom = true, false // which does nothing where it cannot
		standby := respwriter.NewStandby(w, func(int, http.Header) bool { return false })
		if got := abilitiesOf(standby.Writer()); got != want {
			t.Errorf("%s, standing by: %+v, want %+v", name, got, want)
		}
	}
}

// A success is reported when the handler says so, before the visitor may know of it, and
// when the handler has returned.
func TestPassTellsSuccess(t *testing.T) {
	for name, test := range map[string]struct {
		serve func(w http.ResponseWriter)
		want  []string
	}{
		"nothing written":         {func(w http.ResponseWriter) {}, []string{"200 first", "200 committed"}},
		"a header":                {func(w http.ResponseWriter) { w.WriteHeader(303) }, []string{"303 first", "step", "303 committed"}},
		"a little":                {func(w http.ResponseWriter) { io.WriteString(w, "ok") }, []string{"200 first", "step", "200 committed"}},
		"a little, in bytes":      {func(w http.ResponseWriter) { w.Write([]byte("ok")) }, []string{"200 first", "step", "200 committed"}},
		"more than is held":       {func(w http.ResponseWriter) { w.Write(make([]byte, 5000)) }, []string{"200 first", "200 committed", "step", "200 committed"}},
		"copied":                  {func(w http.ResponseWriter) { io.Copy(w, struct{ io.Reader }{strings.NewReader("ok")}) }, []string{"200 first", "200 committed", "step", "200 committed"}},
		"flushed":                 {func(w http.ResponseWriter) { w.(http.Flusher).Flush() }, []string{"200 first", "200 committed", "step", "200 committed"}},
		"flushed by a controller": {func(w http.ResponseWriter) { http.NewResponseController(w).Flush() }, []string{"200 first", "200 committed", "step", "200 committed"}},
		"informational":           {func(w http.ResponseWriter) { w.WriteHeader(103) }, []string{"step", "200 first", "200 committed"}},
		"informational first":     {func(w http.ResponseWriter) { w.WriteHeader(103); w.WriteHeader(204) }, []string{"204 first", "step", "204 committed"}},
		"the second header":       {func(w http.ResponseWriter) { w.WriteHeader(200); w.WriteHeader(500) }, []string{"200 first", "step", "200 committed"}},
		"a failure":               {func(w http.ResponseWriter) { http.Error(w, strings.Repeat("no", 5000), http.StatusUnprocessableEntity) }, []string{"step"}},
		"a failure, then 200":     {func(w http.ResponseWriter) { w.WriteHeader(500); w.WriteHeader(200) }, []string{"step"}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			p := respwriter.NewPass(httptest.NewRecorder(), respwriter.PassConfig{OnSuccess: func(status int, h http.Header, committed bool) {
				when := "first"
				if committed {
					when = "committed"
				}
				got = append(got, fmt.Sprint(status, " ", when))
			}})
			test.serve(p.Writer())
			if name != "nothing written" {
				got = append(got, "step")
			}
			p.Finish(false)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestPassHeader(t *testing.T) {
	for name, test := range map[string]struct {
		private bool
		serve   func(w http.ResponseWriter)
		panics  bool
		want    http.Header
	}{
		"nothing written": {false, func(w http.ResponseWriter) {}, false, http.Header{"Cache-Status": {"isr; fwd=method"}}},
		"after that of the caches behind the handler (RFC 9211, section 2)": {false, func(w http.ResponseWriter) {
			w.Header().Set("Cache-Status", "upstream; hit")
			w.WriteHeader(200)
		}, false, http.Header{"Cache-Status": {"upstream; hit", "isr; fwd=method"}}},
		"once": {false, func(w http.ResponseWriter) {
			w.WriteHeader(103)
			w.WriteHeader(200)
			w.WriteHeader(500)
		}, false, http.Header{"Cache-Status": {"isr; fwd=method"}}},
		"a panic before the header":      {false, func(w http.ResponseWriter) {}, true, http.Header{"Cache-Status": {"isr; fwd=method"}}},
		"of a private response, as well": {true, func(w http.ResponseWriter) { w.Header().Set("Cache-Control", "public, max-age=60") }, true, http.Header{"Cache-Control": {"private, max-age=60"}, "Cache-Status": {"isr; fwd=method"}}},
		"private": {true, func(w http.ResponseWriter) {
			w.Header().Set("Cache-Control", "public, max-age=60")
			w.WriteHeader(200)
		}, false, http.Header{"Cache-Control": {"private, max-age=60"}, "Cache-Status": {"isr; fwd=method"}}},
		"a switch of protocols is not made private": {true, func(w http.ResponseWriter) { w.WriteHeader(101) }, false, http.Header{"Cache-Status": {"isr; fwd=method"}}},
	} {
		t.Run(name, func(t *testing.T) {
			w := httptest.NewRecorder()
			p := respwriter.NewPass(w, respwriter.PassConfig{CacheStatus: "isr; fwd=method", Private: test.private})
			test.serve(p.Writer())
			p.Finish(test.panics)
			if diff := cmp.Diff(test.want, w.Header()); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// Whatever the handler says, and however it ends, no cache stores what is no-store.
func TestPassIsNoStore(t *testing.T) {
	lower := strings.ToLower("Cache-Control") // which Set does not replace
	for name, test := range map[string]struct {
		serve  func(w http.ResponseWriter)
		status int
	}{
		"nothing written":       {func(w http.ResponseWriter) {}, 200},
		"a header":              {func(w http.ResponseWriter) { w.WriteHeader(202) }, 202},
		"two headers":           {func(w http.ResponseWriter) { w.WriteHeader(202); w.WriteHeader(500) }, 202},
		"a body":                {func(w http.ResponseWriter) { io.WriteString(w, "soon") }, 200},
		"a copy":                {func(w http.ResponseWriter) { io.Copy(w, strings.NewReader("soon")) }, 200},
		"a flush":               {func(w http.ResponseWriter) { w.(http.Flusher).Flush() }, 200},
		"a controller":          {func(w http.ResponseWriter) { http.NewResponseController(w).Flush() }, 200},
		"a switch of protocols": {func(w http.ResponseWriter) { w.WriteHeader(101) }, 101},
		"early hints": {func(w http.ResponseWriter) {
			w.WriteHeader(103)
			w.Header().Set("Cache-Control", "public, max-age=60")
			w.WriteHeader(202)
		}, 202},
		"a panic": {nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			rec := httptest.NewRecorder()
			p := respwriter.NewPass(rec, respwriter.PassConfig{NoStore: true})
			w := p.Writer()
			w.Header().Set("Cache-Control", "public, max-age=60")
			w.Header()[lower] = []string{"public, max-age=60"}
			w.Header().Set("CDN-Cache-Control", "max-age=60")
			if test.serve != nil {
				test.serve(w)
			}
			p.Finish(test.serve == nil)
			h := rec.Header()
			if p.Status() != test.status || h.Get("Cache-Control") != "no-store" || h[lower] != nil || h["Cdn-Cache-Control"] != nil {
				t.Errorf("status %d, %v", p.Status(), h)
			}
		})
	}
}

// What goes over a connection that the handler has taken is no success, whatever
// stands before the writer that has it.
func TestPassHijacked(t *testing.T) {
	for name, w := range map[string]http.ResponseWriter{
		"the writer itself": canHijack{httptest.NewRecorder()},
		"behind Unwrap":     wrapper{wrapper{canHijack{httptest.NewRecorder()}}},
	} {
		p := respwriter.NewPass(w, respwriter.PassConfig{OnSuccess: func(int, http.Header, bool) {
			t.Errorf("%s: a success", name)
		}})
		if _, _, err := http.NewResponseController(p.Writer()).Hijack(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		p.Finish(false)
	}
}

// A handler that takes the connection gets it, and nothing is written to it from here.
func TestHijackBehindUnwrap(t *testing.T) {
	rec := &sent{ResponseRecorder: httptest.NewRecorder()}
	server := wrapper{struct {
		http.ResponseWriter
		http.Hijacker
	}{rec, canHijack{}}}
	for _, w := range []http.ResponseWriter{server, server.w} {
		p := respwriter.NewPass(w, respwriter.PassConfig{NoStore: true})
		_, _, err := http.NewResponseController(p.Writer()).Hijack()
		if p.Finish(false); err != nil || p.Status() != 101 || rec.status != 0 {
			t.Errorf("Pass: %v, status %d, sent %d", err, p.Status(), rec.status)
		}
	}
	s := respwriter.NewStandby(server, func(int, http.Header) bool { return false })
	if _, _, err := http.NewResponseController(s).Hijack(); err != nil || s.Fail(errors.New("too late")) {
		t.Errorf("Standby: %v", err)
	}
	if status, err := s.Finish(); status != 101 || err != nil || rec.status != 0 {
		t.Errorf("Standby: %d, %v, sent %d", status, err, rec.status)
	}
}

// Where the server's writer cannot be hijacked, a controller says so, and its other
// abilities are found as before.
func TestControllerFindsWhatIsBehind(t *testing.T) {
	w := deadlines{ResponseWriter: httptest.NewRecorder(), set: new(int)}
	for name, front := range map[string]http.ResponseWriter{
		"Pass":    respwriter.NewPass(w, respwriter.PassConfig{}).Writer(),
		"Standby": respwriter.NewStandby(w, func(int, http.Header) bool { return false }),
	} {
		c := http.NewResponseController(front)
		if _, _, err := c.Hijack(); !errors.Is(err, http.ErrNotSupported) {
			t.Errorf("%s: Hijack: %v", name, err)
		}
		before := *w.set
		if err := c.SetWriteDeadline(time.Time{}); err != nil || *w.set != before+1 {
			t.Errorf("%s: SetWriteDeadline: %v", name, err)
		}
	}
}

// A wrapper is middleware that adds nothing.
type wrapper struct{ w http.ResponseWriter }

func (w wrapper) Unwrap() http.ResponseWriter { return w.w }
func (w wrapper) Header() http.Header         { return w.w.Header() }
func (w wrapper) WriteHeader(status int)      { w.w.WriteHeader(status) }
func (w wrapper) Write(b []byte) (int, error) { return w.w.Write(b) }

type deadlines struct {
	http.ResponseWriter
	set *int
}

func (d deadlines) SetWriteDeadline(time.Time) error {
	*d.set++
	return nil
}
