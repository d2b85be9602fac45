package changed

import (
	"hash/maphash"
	"slices"
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
	maxNames  = 4096 // that are remembered
)

// A Limiter bounds how often a name has its effect because answers name it: else logins
// that all redirect to the home page would expire it for every visitor. Of too many names
// it forgets the one that was allowed least often within the last minute: to have another
// counted anew, thousands must be named as often as that one. It is safe for concurrent use.
type Limiter struct {
	mu    sync.Mutex // guards often; held alone
	seed  maphash.Seed
	often [perMinute]*simplelru.LRU[uint64, []time.Time] // when a name was allowed within a minute, by its hash; by how often, less one
}

// NewLimiter returns a Limiter that allows every name ten times a minute.
func NewLimiter() *Limiter {
	l := &Limiter{seed: maphash.MakeSeed()}
	for n := range l.often {
		l.often[n], _ = simplelru.NewLRU[uint64, []time.Time](maxNames, nil)
	}
	return l
}

// Allow reports whether a name may have its effect once more.
func (l *Limiter) Allow(name string, now time.Time) bool {
	hash := maphash.String(l.seed, name)
	l.mu.Lock()
	defer l.mu.Unlock()
	times := l.take(hash, now)
	for len(times) > 0 && now.Sub(times[0]) >= time.Minute {
		times = times[1:]
	}
	allowed := len(times) < perMinute
	if allowed {
		times = append(slices.Clip(times), now)
	}
	l.often[len(times)-1].Add(hash, times)
	return allowed
}

// take removes what is known of a name, and returns it. For one that is not known it makes
// room. It is called under l.mu.
func (l *Limiter) take(hash uint64, now time.Time) []time.Time {
	known := 0
	for _, names := range l.often {
		if times, ok := names.Peek(hash); ok {
			names.Remove(hash)
			return times
		}
		known += names.Len()
	}
	if known < maxNames {
		return nil
	}
	var least *simplelru.LRU[uint64, []time.Time]
	for _, names := range l.often {
		switch _, times, ok := names.GetOldest(); {
		case !ok:
		case now.Sub(times[len(times)-1]) >= time.Minute:
			names.RemoveOldest()
			return nil
		case least == nil:
			least = names
		}
	}
	least.RemoveOldest()
	return nil
}
