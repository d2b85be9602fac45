package postgres

// SetLimit sets how many invalidations the table holds, however recent they are.
func (s *Store) SetLimit(n int64) { s.limit, s.recent = n, 0 }

// Waiting returns how many calls wait for a connection.
func (s *Store) Waiting() int {
	s.conns.mu.Lock()
	defer s.conns.mu.Unlock()
	return len(s.conns.waiting)
}
