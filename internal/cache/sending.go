package cache

import (
	"slices"

	"github.com/isr-go/isr/internal/page"
)

// Hold keeps a page for one who reads it, until they call Release.
func (c *Cache) Hold(p *page.Page) *page.Sending {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.sending[p]
	if s == nil {
		s = page.NewSending(p)
		c.sending[p] = s
		if !c.places.holds(p) {
			c.leave(s)
		}
	}
	s.Readers++
	return s
}

// Release is called when a reader is done.
func (c *Cache) Release(s *page.Sending) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.Readers--; s.Readers > 0 || s.Page() == nil {
		return
	}
	delete(c.sending, s.Page())
	if s.Return != nil {
		s.Return()
		c.left = slices.DeleteFunc(c.left, func(l *page.Sending) bool { return l == s })
	}
}

// leave keeps a page that has left the cache, for those who read it. It takes the memory of
// those that have left before, whose readers are slower, and are cut off; where that does
// not suffice, its own are. It is called under c.mu.
func (c *Cache) leave(s *page.Sending) {
	if s.Return != nil {
		return
	}
	for {
		release, ok := c.slow.Hold(s.Page().Size.Load())
		if ok {
			s.Return = release
			c.left = append(c.left, s)
			return
		}
		if len(c.left) == 0 {
			c.cut(s)
			return
		}
		oldest := c.left[0]
		c.left = slices.Delete(c.left, 0, 1)
		oldest.Return()
		c.cut(oldest)
	}
}

// cut cuts the readers of a page off. It is called under c.mu.
func (c *Cache) cut(s *page.Sending) {
	delete(c.sending, s.Page())
	s.Cut()
}
