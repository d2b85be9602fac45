package main

import (
	"math/bits"
	"time"
)

// A histogram counts durations, each within a hundredth and a half of itself, in the same
// memory however many there are.
type histogram struct {
	counts [64 * 40]uint64
	n      uint64
	max    time.Duration
}

// grain is how many buckets there are between a power of two and the next.
const grain = 64

func (h *histogram) add(d time.Duration) {
	v := uint64(max(d, 0))
	shift := max(bits.Len64(v)-bits.Len64(grain), 0)
	h.counts[min(uint64(shift*grain)+v>>shift, uint64(len(h.counts)-1))]++
	h.n++
	h.max = max(h.max, d)
}

// quantile returns the duration that a part q of all do not exceed; zero if there are none.
func (h *histogram) quantile(q float64) time.Duration {
	rank := uint64(q * float64(h.n))
	for i, n := range h.counts {
		if n > rank {
			shift := max(i/grain-1, 0)
			return min(time.Duration(i-shift*grain+1)<<shift-1, h.max)
		}
		rank -= n
	}
	return h.max
}
