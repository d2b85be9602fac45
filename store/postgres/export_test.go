package postgres

// SetLimit sets how many invalidations the table holds, however recent they are.
func (s *Store) SetLimit(n int64) { s.limit, s.recent = n, 0 }
