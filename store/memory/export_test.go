package memory

// NewLimited is New with another number of tags that are remembered one by one.
func NewLimited(tags int) *Store { return newStore(tags) }
