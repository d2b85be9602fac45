package postgres

import (
	"context"
	"slices"
	"sync"

	"github.com/jackc/pgx/v5/pgxpool"
)

// conns hands out the connections of a pool. A call gets the next one that another call
// gives back, or that the pool has made, whichever comes first. The pool alone would have
// each call that finds none idle wait for one of its own, and to make a connection takes
// many times as long as a look: at a cold start all of the first visitors would be late. They
// are made one after the other, until nobody waits.
type conns struct {
	pool *pgxpool.Pool

	mu      sync.Mutex // guards what follows; the pool's lock is taken under it
	waiting []chan made
	taking  bool            // whether take is at work, and nobody else asks the pool; it is while somebody waits
	free    []*pgxpool.Conn // what was given back meanwhile, and nobody waited for
}

// made is what a call that waits is given.
type made struct {
	conn *pgxpool.Conn
	err  error
}

// acquire returns a connection, for release.
func (c *conns) acquire(ctx context.Context) (*pgxpool.Conn, error) {
	c.mu.Lock()
	if last := len(c.free) - 1; last >= 0 {
		conn := c.free[last]
		c.free = c.free[:last]
		c.mu.Unlock()
		return conn, nil
	}
	wait := make(chan made, 1)
	c.waiting = append(c.waiting, wait)
	if !c.taking {
		c.taking = true
		go c.take()
	}
	c.mu.Unlock()
	select {
	case m := <-wait:
		return m.conn, m.err
	case <-ctx.Done():
	}
	c.mu.Lock()
	c.waiting = slices.DeleteFunc(c.waiting, func(w chan made) bool { return w == wait })
	c.mu.Unlock()
	select {
	case m := <-wait: // it was given one in the last moment
		return m.conn, m.err
	default:
		return nil, ctx.Err()
	}
}

// release gives a connection back.
func (c *conns) release(conn *pgxpool.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	pg := conn.Conn().PgConn()
	switch {
	case pg.IsClosed() || pg.IsBusy() || pg.TxStatus() != 'I':
		conn.Release() // which closes it
	case c.give(made{conn: conn}):
	case c.taking:
		c.free = append(c.free, conn)
	default:
		conn.Release()
	}
}

// give gives a connection, or the reason why there is none, to the call that has waited
// longest, and reports whether there was one. c.mu is held.
func (c *conns) give(m made) bool {
	if len(c.waiting) == 0 {
		return false
	}
	c.waiting[0] <- m
	c.waiting = c.waiting[1:]
	return true
}

// take takes connections from the pool while calls wait.
func (c *conns) take() {
	for again := true; again; {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		conn, err := c.pool.Acquire(ctx)
		cancel()
		c.mu.Lock()
		if !c.give(made{conn, err}) && err == nil {
			conn.Release()
		}
		if again = len(c.waiting) > 0; !again {
			c.taking = false
			for _, conn := range c.free {
				conn.Release()
			}
			c.free = nil
		}
		c.mu.Unlock()
	}
}
