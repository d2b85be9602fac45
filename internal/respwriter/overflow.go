package respwriter

import (
	"bytes"
	"io"

	"github.com/isr-go/isr/internal/policy"
)

// overflow makes a Stream of what is too large to be stored. What its reader has not
// taken yet is held in memory, within the Budget: beyond that there is no Stream. It
// is called under r.mu.
func (r *Recorder) overflow() {
	var begin []byte
	switch body := r.body; {
	case body == nil:
	case body.Cap() <= 2*body.Len():
		begin = body.Bytes()
	default: // it was used for a larger one before
		begin = bytes.Clone(body.Bytes())
		putBuffer(body)
	}
	r.body = nil
	release, ok := r.c.Budget.Hold(int64(cap(begin)))
	if !ok {
		return
	}
	reader, writer := io.Pipe()
	r.overflows = &Stream{
		Status: r.status, Header: r.sent, rest: reader, writer: writer,
		begin: begin, release: release, desert: r.c.Left, cancel: r.c.Cancel, keepAlive: r.c.KeepAlive,
	}
}

// handOver hands a Stream to one of those who wait, if there is one. It is called
// without r.mu: that takes as long as they take.
func (r *Recorder) handOver(st *Stream) *io.PipeWriter {
	if !r.c.HandOff(st) {
		st.release()
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pipe, r.stream = st.writer, st
	if r.broken != nil {
		r.pipe.CloseWithError(r.broken)
	}
	return r.pipe
}

// goesOn reports whether a response that is too large, and that no visitor has taken, is
// read to its end.
func (r *Recorder) goesOn() bool {
	if r.c.ToTheEnd == nil || !r.c.ToTheEnd() {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.broken != nil {
		return false
	}
	r.closed = nil
	return true
}

// TooLarge returns the Result of a response that is being read to its end, though it is
// too large to be stored, as it is so far; false where there is none.
func (r *Recorder) TooLarge() (Result, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed != nil || r.late != 0 || r.tooLarge == (policy.Refusal{}) {
		return Result{}, false
	}
	return Result{Kind: Refused, Status: r.status, Header: r.sent, Why: r.tooLarge}, true
}

// IsStreaming reports whether a visitor has a part of the response, and waits for more.
func (r *Recorder) IsStreaming() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.pipe != nil && r.broken == nil && !r.stream.left.Load()
}

// endStream ends the visitor's Stream: by a failure, if it is one.
func (r *Recorder) endStream(failed error) {
	r.mu.Lock()
	var res Result
	if r.broken == nil && (r.late != 0 || !r.stream.left.Load()) {
		if res = r.result(failed); res.Kind == Failure {
			r.broken = res.Err
		}
	}
	pipe := r.pipe
	r.mu.Unlock()
	if res.Kind == Failure && r.c.Broken != nil {
		r.c.Broken(res)
	}
	pipe.CloseWithError(res.Err)
}
