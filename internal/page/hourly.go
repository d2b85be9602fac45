package page

import "time"

// Hourly counts how often a page was asked for within about the last hour: what
// touch, once a second, finds of its hits.
type Hourly struct {
	begin  int64  // of an hour, as a Unix time
	hits   uint64 // before that hour
	before uint64 // in the hour before that hour
}

const hour = int64(time.Hour / time.Second)

// Note takes account of the hits at some moment.
func (h *Hourly) Note(hits uint64, now int64) {
	switch passed := now - h.begin; {
	case passed < hour:
		return
	case passed < 2*hour:
		h.before = hits - h.hits
	default:
		h.before = 0
	}
	h.begin, h.hits = now, hits
}

// Count returns about how many of the hits are of the hour before a moment.
func (h *Hourly) Count(hits uint64, now int64) uint64 {
	switch passed := max(0, now-h.begin); {
	case passed < hour:
		return hits - h.hits + h.before*uint64(hour-passed)/uint64(hour)
	case passed < 2*hour:
		return (hits - h.hits) * uint64(2*hour-passed) / uint64(hour)
	}
	return 0
}
