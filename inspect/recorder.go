package inspect

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/isr-go/isr"
)

// The charts show the last ten minutes, ten seconds to a bar.
const (
	bucketTime = 10 * time.Second
	buckets    = 60
)

// A Recorder counts what a Site does, ten seconds at a time, and remembers the
// last ten minutes in a few kilobytes. The zero value is ready for use. It must
// not be copied. Its methods are safe for concurrent use.
type Recorder struct {
	mu   sync.Mutex // guards the emptying of a bucket; held alone
	ring [buckets]bucket
}

// A bucket holds the counts of one stretch of time.
type bucket struct {
	number  atomic.Int64 // which one, counted from the epoch
	counts  [isr.EdgeFailed + 1]atomic.Uint64
	took    atomic.Int64 // by all generations together, in ns
	slowest atomic.Int64
}

// Observe counts an event. It is what isr.Options.Observe wants, or may be called
// from there. It does not block.
func (rec *Recorder) Observe(e isr.Event) {
	if e.Kind < 0 || e.Kind > isr.EdgeFailed {
		return
	}
	b := rec.bucket(bucketNumber(time.Now()))
	b.counts[e.Kind].Add(1)
	if e.Kind != isr.Generated && e.Kind != isr.Failed {
		return
	}
	b.took.Add(int64(e.Duration))
	for {
		old := b.slowest.Load()
		if int64(e.Duration) <= old || b.slowest.CompareAndSwap(old, int64(e.Duration)) {
			return
		}
	}
}

func bucketNumber(t time.Time) int64 { return t.UnixNano() / int64(bucketTime) }

// bucket returns the bucket with a number, emptied of what it held before.
func (rec *Recorder) bucket(number int64) *bucket {
	b := &rec.ring[number%buckets]
	if b.number.Load() >= number { // greater: a clock that was set back
		return b
	}
	rec.mu.Lock()
	defer rec.mu.Unlock()
	if b.number.Load() < number {
		for i := range b.counts {
			b.counts[i].Store(0)
		}
		b.took.Store(0)
		b.slowest.Store(0)
		b.number.Store(number)
	}
	return b
}

// A history is what a Recorder remembers.
type history struct {
	BucketSeconds float64  `json:"bucketSeconds"`
	Buckets       []sample `json:"buckets"` // the oldest first; the last is under way
}

// A sample is the content of one bucket.
type sample struct {
	Start          time.Time `json:"start"`
	Hits           uint64    `json:"hits"`
	Stale          uint64    `json:"stale"`
	Misses         uint64    `json:"misses"`
	Passed         uint64    `json:"passed"`
	Generated      uint64    `json:"generated"`
	Failed         uint64    `json:"failed"`
	MeanSeconds    float64   `json:"meanSeconds"` // of generations, the failed ones included
	SlowestSeconds float64   `json:"slowestSeconds"`
}

// history returns the last ten minutes, up to now.
func (rec *Recorder) history(now time.Time) *history {
	h := &history{BucketSeconds: bucketTime.Seconds(), Buckets: make([]sample, buckets)}
	last := bucketNumber(now)
	for i := range h.Buckets {
		number := last - buckets + 1 + int64(i)
		s := sample{Start: time.Unix(0, number*int64(bucketTime)).UTC()}
		if b := &rec.ring[number%buckets]; b.number.Load() == number {
			count := func(k isr.Kind) uint64 { return b.counts[k].Load() }
			s.Hits, s.Stale, s.Misses, s.Passed = count(isr.Hit), count(isr.StaleHit), count(isr.Miss), count(isr.Passed)
			s.Generated, s.Failed = count(isr.Generated), count(isr.Failed)
			if n := s.Generated + s.Failed; n > 0 {
				s.MeanSeconds = seconds(time.Duration(b.took.Load()) / time.Duration(n))
			}
			s.SlowestSeconds = seconds(time.Duration(b.slowest.Load()))
		}
		h.Buckets[i] = s
	}
	return h
}
