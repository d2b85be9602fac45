package postgres

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/jackc/pgx/v5/pgxpool"
)

// conns hands out the connections of a pool. A call gets the next one that another call
// gives back, or that the pool has made, whichever comes first. The pool alone would have
// each call that finds none idle wait for one of its own, and to make a connection takes
// many times as long as a look: at a cold start all of the first visitors would be late. They
// are made one after the other, until nobody waits. Calls that are not for pages go first.
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

// acquire returns a connection, for release. Where first is set, no call that waits gets one
// before.
func (c *conns) acquire(ctx context.Context, first bool) (*pgxpool.Conn, error) {
	c.mu.Lock()
	if last := len(c.free) - 1; last >= 0 {
		conn := c.free[last]
		c.free = c.free[:last]
		c.mu.Unlock()
		return conn, nil
	}
	wait := make(chan made, 1)
	if first {
		c.waiting = slices.Insert(c.waiting, 0, wait)
	} else {
		c.waiting = append(c.waiting, wait)
	}
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
// longest, or goes first, and reports whether there was one. c.mu is held.
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
		conn, err := c.ask()
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

// ask takes a connection from the pool. What the pool's owner has it call may panic.
func (c *conns) ask() (conn *pgxpool.Conn, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return c.pool.Acquire(ctx)
}
