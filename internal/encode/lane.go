package encode

import (
	"bytes"
	"container/list"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/isr-go/isr/internal/page"
)

// maxWaiting is how many pages wait for one encoder. Beyond it one keeps the encodings that
// it has.
const maxWaiting = 1 << 14

// maxTime is how long an encoder may take for one page.
const maxTime = 30 * time.Second

// A lane is one encoder and the pages that wait for it. Of those that are known the newest
// is next: a page that is renewed every few seconds does not wait behind a thousand that
// were prerendered. Pages that a visitor was the first to ask for come after them, and are
// the first to be left out.
type lane struct {
	p       *Pool
	encoder Encoder
	coding  string
	slots   int // how many pages it encodes at a time. A call that never returns keeps its slot

	mu      sync.Mutex // guards what follows; held alone
	waiting list.List  // of *job: the last is next
	running int
}

// add has a page encoded.
func (l *lane) add(j *job, isKnown bool) {
	l.mu.Lock()
	if isKnown {
		l.waiting.PushBack(j)
	} else {
		l.waiting.PushFront(j)
	}
	var dropped *job
	if l.waiting.Len() > maxWaiting {
		dropped = l.waiting.Remove(l.waiting.Front()).(*job)
	}
	starts := l.running < l.slots
	if starts {
		l.running++
	}
	l.mu.Unlock()
	if dropped != nil {
		dropped.end()
	}
	if starts {
		go l.work()
	}
}

// work encodes pages until none waits.
func (l *lane) work() {
	ended := false
	defer func() {
		if !ended { // by runtime.Goexit of the encoder
			go l.work()
		}
	}()
	for j := l.next(); j != nil; j = l.next() {
		pg := j.page.Value()
		if pg == nil || l.p.c.Cache.Peek(&pg.Key) != pg {
			j.end()
			continue
		}
		l.encode(j, pg)
	}
	ended = true
}

// next returns the next page, or nil where none waits: then work ends.
func (l *lane) next() *job {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waiting.Len() == 0 {
		l.running--
		return nil
	}
	return l.waiting.Remove(l.waiting.Back()).(*job)
}

// errLate says that an encoder took too long.
var errLate = fmt.Errorf("it took longer than %v", maxTime)

// encode encodes one page. A call that takes too long is not waited for; what comes of it
// is dropped.
func (l *lane) encode(j *job, pg *page.Page) {
	out := &output{limit: j.size}
	var over atomic.Bool
	finish := func(err error) {
		if over.Swap(true) {
			return
		}
		defer j.end()
		b, isSmaller := out.close()
		switch {
		case !isSmaller && err != errLate:
		case err != nil:
			l.p.c.Failed(l.coding, err)
		case len(b) == 0:
			l.p.c.Failed(l.coding, errors.New("it wrote nothing"))
		default:
			l.p.add(pg, l.coding, b)
		}
	}
	timer := time.AfterFunc(maxTime, func() { finish(errLate) })
	err := errors.New("it called runtime.Goexit")
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("it panicked: %v", v)
		}
		timer.Stop()
		finish(err)
	}()
	err = l.encoder.Encode(out, pg.Body())
}

// An output takes what an encoder writes, as long as that is smaller than what it must be
// smaller than.
type output struct {
	limit int

	mu     sync.Mutex // guards what follows; held alone
	buf    bytes.Buffer
	tooBig bool
	closed bool
}

// errNotSmaller says that an encoder need not go on.
var errNotSmaller = errors.New("isr: no smaller than what there is")

// Write implements [io.Writer].
func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.closed:
		return 0, io.ErrClosedPipe
	case o.tooBig || o.buf.Len()+len(b) >= o.limit:
		o.tooBig = true
		return 0, errNotSmaller
	}
	return o.buf.Write(b)
}

// close returns what was written, and whether that is small enough. Nothing more is taken.
func (o *output) close() (b []byte, isSmaller bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	return bytes.Clone(o.buf.Bytes()), !o.tooBig
}
