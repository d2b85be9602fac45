package page

import (
	"time"

	"github.com/isr-go/isr/internal/invalidation"
)

// failureRecord is what came of the attempts to renew a page.
type failureRecord struct {
	failures int
	err      error
	began    invalidation.Snapshot // when the last of them did
	seq      uint64                // which it was
	until    time.Time             // when it is time for another attempt in the background
}

// pause returns how long a page is left alone after some failures in a row: the
// first may have been a hiccup.
func pause(failures int, retryAfter time.Duration) time.Duration {
	if failures < 2 {
		return 0
	}
	d := maxPause
	if n := failures - 2; n < 5 {
		d = min(d, minPause<<n)
	}
	return max(d, min(retryAfter, maxRetryAfter))
}

// Bounds of the pause between two attempts to renew a page.
const (
	minPause      = time.Second
	maxPause      = 30 * time.Second
	maxRetryAfter = 5 * time.Minute
)

// Fail notes a failed attempt to renew the page, and how long the handler asks to
// be left alone.
func (p *Page) Fail(err error, began invalidation.Snapshot, seq uint64, retryAfter time.Duration) {
	for {
		old := p.failures.Load()
		t := &failureRecord{failures: 1, err: err, began: began, seq: seq}
		if old != nil {
			t.failures += old.failures
			if old.seq > seq {
				t.began, t.seq = old.began, old.seq
			}
		}
		t.until = time.Now().Add(pause(t.failures, retryAfter))
		if p.failures.CompareAndSwap(old, t) {
			return
		}
	}
}

// IsFailing reports whether the last attempt to renew the page has failed. An
// invalidation since then gives hope.
func (p *Page) IsFailing(table *invalidation.Table) bool {
	for {
		t := p.failures.Load()
		if t == nil {
			return false
		}
		if was := table.Since(&t.began, &p.Key, p.Subject.Tags); p.failures.Load() == t {
			return !was
		}
	}
}
