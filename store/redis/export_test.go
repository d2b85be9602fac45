package redis

import "time"

// MaxCalls is how many calls are under way at once, at most.
const MaxCalls = maxCalls

// What tests do to the server behind a Store's back.

// RecordKey returns the name of the record that is stored under a key.
func (s *Store) RecordKey(key string) string { return s.keys(key).record }

// FenceKey returns the name of the last fence of a key.
func (s *Store) FenceKey(key string) string { return s.keys(key).fence }

// Table returns the name of the table of versions, and of the channel.
func (s *Store) Table() string { return s.table }

// SetLimit sets how many invalidations the table holds, however recent they are.
func (s *Store) SetLimit(n int) { s.limit, s.recent = n, 0 }

// SetRecent sets for how long the table forgets nothing that need not be.
func (s *Store) SetRecent(d time.Duration) { s.recent = d }

// SetHeartbeat sets how long Changes waits.
func (s *Store) SetHeartbeat(d time.Duration) { s.heartbeat = d }

// Subscribed says whether there is a subscription, or an attempt at one.
func (s *Store) Subscribed() bool { return s.hints.Active() }

// FillPages takes all slots of calls for pages.
func (s *Store) FillPages() {
	for range cap(s.pages) {
		s.pages <- struct{}{}
	}
}
