package page

import (
	"strconv"
	"sync/atomic"
)

// A stamp is a number as a hit says it, in its Age or its Cache-Status.
type stamp struct {
	n    int64
	text string
}

// stamps are those that were needed last. Pages do not keep their own, which would take
// more memory than most headers; who asks for any page in the same second has the same few.
// They are a cache of bounded size for the whole program.
type stamps [4096]atomic.Pointer[stamp]

var ages, fresh, stale stamps

// of returns what is said of a number, by format where nobody has asked for it lately.
func (s *stamps) of(n int64, format func(int64) string) string {
	at := &s[uint64(n)%uint64(len(s))]
	if old := at.Load(); old != nil && old.n == n {
		return old.text
	}
	text := format(n)
	at.Store(&stamp{n, text})
	return text
}

func formatAge(n int64) string { return strconv.FormatInt(n, 10) }

func formatFresh(n int64) string { return isHit + "; ttl=" + strconv.FormatInt(n, 10) }

func formatStale(n int64) string { return formatFresh(n) + "; detail=stale" }
