package changed

import (
	"hash/maphash"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// A Bucket is a token bucket: it bounds how often requests of strangers may name what is
// not stored here. The zero value is full. It is safe for concurrent use.
type Bucket struct {
	mu   sync.Mutex // guards what follows; held alone
	used float64
	last time.Time
}

const (
	atOnce    = 1000
	perSecond = 10
)

// Allow reports whether one more is allowed.
func (b *Bucket) Allow(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used = max(0, b.used-perSecond*now.Sub(b.last).Seconds())
	b.last = now
	if b.used > atOnce-1 {
		return false
	}
	b.used++
	return true
}

const (
	perMinute = 10
	maxPaths  = 4096 // that are remembered
)

// A Limiter bounds how often a path is expired because an answer's Location names it:
// else logins that all redirect to the home page would expire it for every visitor. It is
// safe for concurrent use.
type Limiter struct {
	mu     sync.Mutex // guards recent; held alone
	seed   maphash.Seed
	recent *simplelru.LRU[uint64, *[perMinute]time.Time] // by the path's hash
}

// NewLimiter returns a Limiter that allows everything ten times a minute.
func NewLimiter() *Limiter {
	recent, _ := simplelru.NewLRU[uint64, *[perMinute]time.Time](maxPaths, nil)
	return &Limiter{seed: maphash.MakeSeed(), recent: recent}
}

// Allow reports whether a path may be expired once more.
func (l *Limiter) Allow(path string, now time.Time) bool {
	hash := maphash.String(l.seed, path)
	l.mu.Lock()
	defer l.mu.Unlock()
	times, ok := l.recent.Get(hash)
	if !ok {
		times = new([perMinute]time.Time)
		l.recent.Add(hash, times)
	}
	if now.Sub(times[0]) < time.Minute {
		return false
	}
	copy(times[:], times[1:])
	times[len(times)-1] = now
	return true
}
