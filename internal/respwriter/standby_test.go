package respwriter_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/isr-go/isr/internal/respwriter"
)

func TestStandby(t *testing.T) {
	type outcome struct {
		Status int
		Err    string
		Sent   int // the status that the visitor has got, or zero
		Header http.Header
		Body   string
	}
	outer := http.Header{"X-Outer": {"1"}}
	var panicked error = errors.New("the handler panicked: on purpose")
	for name, test := range map[string]struct {
		serve func(w *respwriter.Standby)
		want  outcome
	}{
		"nothing written": {func(w *respwriter.Standby) {}, outcome{200, "", 200, outer, ""}},
		"a response": {func(w *respwriter.Standby) {
			w.Header().Set("X-Own", "1")
			w.Header().Del("X-Outer")
			w.WriteHeader(201)
			io.WriteString(w, "body")
		}, outcome{201, "", 201, http.Header{"X-Own": {"1"}}, "body"}},
		"a trailer": {func(w *respwriter.Standby) {
			io.WriteString(w, "body")
			w.Header().Set("X-Late", "1")
		}, outcome{200, "", 200, http.Header{"X-Outer": {"1"}, "X-Late": {"1"}}, "body"}},
		"a failure": {func(w *respwriter.Standby) {
			w.Header().Set("X-Own", "1")
			http.Error(w, "no database", http.StatusServiceUnavailable)
			w.Flush()
		}, outcome{503, "the handler answered 503 Service Unavailable", 0, outer, ""}},
		"a failure by its header": {func(w *respwriter.Standby) {
			w.Header().Set("X-Failure", "1")
			io.WriteString(w, "no database")
		}, outcome{200, "the handler answered 200 OK", 0, outer, ""}},
		"a failure by its header, without a body": {func(w *respwriter.Standby) {
			w.Header().Set("X-Failure", "1")
		}, outcome{200, "the handler answered 200 OK", 0, outer, ""}},
		"a failure that comes too late": {func(w *respwriter.Standby) {
			io.WriteString(w, "body")
			w.WriteHeader(500)
		}, outcome{200, "", 200, outer, "body"}},
		"a panic": {func(w *respwriter.Standby) {
			if !w.Fail(panicked) {
				t.Error("the visitor has something")
			}
			io.WriteString(w, "no page")
		}, outcome{0, panicked.Error(), 0, outer, ""}},
		"a panic that comes too late": {func(w *respwriter.Standby) {
			io.WriteString(w, "half")
			if w.Fail(panicked) {
				t.Error("the visitor has nothing")
			}
		}, outcome{200, "", 200, outer, "half"}},
		"a panic after a failure": {func(w *respwriter.Standby) {
			w.WriteHeader(500)
			if !w.Fail(panicked) {
				t.Error("the visitor has something")
			}
		}, outcome{500, "the handler answered 500 Internal Server Error", 0, outer, ""}},
		"a switch of protocols": {func(w *respwriter.Standby) { w.WriteHeader(101) }, outcome{101, "", 101, outer, ""}},
		"early hints": {func(w *respwriter.Standby) {
			w.WriteHeader(103)
			w.WriteHeader(500)
		}, outcome{500, "the handler answered 500 Internal Server Error", 0, outer, ""}},
		"early hints are no failure": {func(w *respwriter.Standby) {
			w.Header().Set("X-Failure", "1")
			w.WriteHeader(103)
			w.Header().Del("X-Failure")
			io.WriteString(w, "body")
		}, outcome{200, "", 200, outer, "body"}},
	} {
		t.Run(name, func(t *testing.T) {
			rec := &sent{ResponseRecorder: httptest.NewRecorder()}
			rec.Header().Set("X-Outer", "1")
			w := respwriter.NewStandby(rec, func(status int, h http.Header) bool {
				if status < 200 && status != 101 {
					t.Errorf("asked of an informational response")
				}
				return status >= 500 || h.Get("X-Failure") != ""
			})
			test.serve(w)
			var got outcome
			var err error
			if got.Status, err = w.Finish(); err != nil {
				got.Err = err.Error()
			}
			got.Sent, got.Header, got.Body = rec.status, rec.Header(), rec.Body.String()
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// A sent notes the final status that has gone out.
type sent struct {
	*httptest.ResponseRecorder
	status int
}

func (s *sent) WriteHeader(status int) {
	if s.status == 0 && (status >= 200 || status == 101) {
		s.status = status
	}
	s.ResponseRecorder.WriteHeader(status)
}

func (s *sent) Write(b []byte) (int, error) {
	if s.status == 0 {
		s.WriteHeader(http.StatusOK)
	}
	return s.ResponseRecorder.Write(b)
}
