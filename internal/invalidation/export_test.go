package invalidation

// Bytes returns how much memory the larger of the two tables takes.
func (t *Table) Bytes() int64 { return t.bytes() }
