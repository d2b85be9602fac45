// Package postgres keeps isr's pages in PostgreSQL, for a fleet of instances to share, and
// for restarts to outlive: a [store.Store] for isr.Options.Store.
//
//	pool, err := pgxpool.New(ctx, "postgres://localhost/blog")
//	if err != nil {
//		return err
//	}
//	site := isr.Wrap(mux, isr.Options{Store: postgres.New(pool, postgres.Options{})})
//
// It needs PostgreSQL 13. Each call is one statement, a function in the database, and one
// round trip. The order of the versions is that of the commits: each invalidation holds the
// lock of one row. NOTIFY is a hint to look, and no more.
//
// The pages are in an unlogged table: they can be made again, so they are neither written
// twice nor sent to standbys. After a crash, and on a standby that takes over, there are
// none. What was invalidated is in a logged table, as durable as the server is configured to
// make it: a purge that was acknowledged holds.
package postgres

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	_ "embed"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/isr-go/isr/store"
	"github.com/isr-go/isr/store/internal/hints"
)

const (
	// maxData is the most that Put takes.
	maxData = 1 << 20

	// maxTags is how many invalidations the table holds, of a tag with one effect each, and
	// those beside that are more recent than recent; epochTags, how many of those that were
	// forgotten are in one filter.
	maxTags   = 1 << 20
	recent    = time.Minute
	epochTags = 1 << 16

	// maxAtOnce is how many tags are invalidated at a time, under the lock of the history.
	maxAtOnce = 2000

	// maxChanges is about how many of them Changes returns at once.
	maxChanges = 4096

	// forever is the expiry of a record without a TTL.
	forever = 365 * 24 * time.Hour

	// patience is how long a call goes on after its caller has left, at most.
	patience = 15 * time.Second

	heartbeat          = time.Second
	defaultLookTimeout = 250 * time.Millisecond
)

// Options configure [New]. The zero value is ready for use.
type Options struct {
	// Migrated says that the database has the tables and functions of [Schema] already.
	// Zero: where they are missing, they are made, in the first schema of the search path.
	Migrated bool

	// LookTimeout is how long visitors wait for an answer where the server is slow, or
	// hangs, before their page is generated without it. It should be several round trips,
	// since a connection that is new takes some. Zero: 250 ms.
	LookTimeout time.Duration
}

// A Store is a [store.Store] on PostgreSQL. Make it with [New]. Its methods are safe for
// concurrent use. While Changes is called, it listens on one connection of the pool, and
// calls for pages use all but two of the others, so that purges never wait for them.
type Store struct {
	conns       *conns
	migrated    bool
	lookTimeout time.Duration
	limit       int64         // maxTags, but for tests
	recent      time.Duration // the constant, but for tests

	// Have one for each call that is under way, those among them whose callers have left.
	pages, rest chan struct{}

	hints     *hints.Hints
	migrating sync.Mutex    // held while the tables are made; held alone
	seen      atomic.Uint64 // the newest version that any answer had
}

var (
	_ store.Store         = (*Store)(nil)
	_ store.LookTimeouter = (*Store)(nil)
)

//go:embed schema.sql
var schema string

// Schema returns the statements that make the tables and functions, for those who change
// their databases themselves. They may be executed again, and where an older version of
// this package has executed its own. They are one string, for one call of Exec without
// arguments.
func Schema() string { return schema }

// New returns a Store on a pool, which remains the caller's: to close it ends the Store. The
// pool should have at least four connections. New talks to nobody yet. It panics if pool is
// nil, or LookTimeout below zero.
func New(pool *pgxpool.Pool, opts Options) *Store {
	switch {
	case pool == nil:
		panic("store/postgres: New: nil pool")
	case opts.LookTimeout < 0:
		panic(fmt.Sprintf("store/postgres: New: a LookTimeout of %v", opts.LookTimeout))
	}
	s := &Store{
		conns:       &conns{pool: pool},
		migrated:    opts.Migrated,
		lookTimeout: cmp.Or(opts.LookTimeout, defaultLookTimeout),
		limit:       maxTags,
		recent:      recent,
		pages:       make(chan struct{}, max(1, pool.Config().MaxConns-3)),
		rest:        make(chan struct{}, max(1, min(2, pool.Config().MaxConns-1))),
	}
	s.hints = hints.New(s.listen)
	return s
}

// LookTimeout implements [store.LookTimeouter].
func (s *Store) LookTimeout() time.Duration { return s.lookTimeout }

// Look implements [store.Store].
func (s *Store) Look(ctx context.Context, key string, have store.Ticket, ttl time.Duration) (*store.Record, store.Effect, store.Ticket, error) {
	type found struct {
		rec    *store.Record
		effect store.Effect
		ticket store.Ticket
	}
	caller, token := ctx, ""
	if ttl > 0 {
		token = rand.Text()
	}
	f, err := call(ctx, s, s.pages, "look", func(ctx context.Context, conn *pgxpool.Conn) (f found, err error) {
		look := func(have store.Ticket) (verdict int, value []byte, err error) {
			var top, fence int64
			var leads bool
			err = conn.QueryRow(ctx, "SELECT * FROM isr_look($1, $2, $3, $4, $5, $6)",
				s.seen.Load(), hash(key), number(uint64(have.Version)), number(have.Fence), token, ttl).
				Scan(&top, &verdict, &fence, &leads, &value)
			if err != nil {
				return verdict, nil, err
			}
			s.saw(top)
			if f.ticket = (store.Ticket{}); fence > 0 {
				f.ticket = store.Ticket{Version: store.Version(top), Fence: uint64(fence), Leader: leads}
			}
			if leads {
				f.ticket.Token = token
			}
			return verdict, value, nil
		}
		verdict, value, err := look(have)
		if err != nil {
			return f, err
		}
		if value != nil {
			f.rec, f.effect = new(store.Record), store.Effect(verdict)
			if f.rec.UnmarshalBinary(value) != nil {
				f.rec, f.effect = nil, store.None
				if ttl > 0 && f.ticket.Fence == 0 { // the server did not see that it is damaged
					if _, _, err := look(store.Ticket{Version: math.MaxInt64, Fence: math.MaxInt64}); err != nil {
						return f, err
					}
				}
			}
		}
		if f.ticket.Leader && caller.Err() != nil { // nobody is there to give it back
			_, err = conn.Exec(ctx, "SELECT isr_end($1, $2)", hash(key), token)
		}
		return f, err
	})
	if err != nil {
		return nil, store.None, store.Ticket{}, err
	}
	if f.rec == nil {
		err = store.ErrNotFound
	}
	return f.rec, f.effect, f.ticket, err
}

// Put implements [store.Store]. Data of more than 1 MiB is ErrTooLarge.
func (s *Store) Put(ctx context.Context, key string, t store.Ticket, rec *store.Record) error {
	if len(rec.Data) > maxData {
		s.End(ctx, key, t) // where that fails the lease ends by itself
		return fmt.Errorf("%w: %d bytes, more than %d", store.ErrTooLarge, len(rec.Data), maxData)
	}
	r := *rec
	r.Version, r.Fence = t.Version, t.Fence
	ttl := min(cmp.Or(r.TTL, forever), forever)
	value, err := r.AppendBinary(nil)
	if err != nil {
		return err
	}
	tags := hashes(r.Tags)
	_, err = call(ctx, s, s.pages, "put", func(ctx context.Context, conn *pgxpool.Conn) (none struct{}, err error) {
		var top int64
		var stored bool
		err = conn.QueryRow(ctx, "SELECT * FROM isr_put($1, $2, $3, $4, $5, $6, $7, $8)",
			s.seen.Load(), hash(key), number(uint64(t.Version)), number(t.Fence), tags, ttl, value, t.Token).Scan(&top, &stored)
		if err != nil {
			return none, err
		}
		if s.saw(top); !stored {
			err = store.ErrSuperseded
		}
		return none, err
	})
	return err
}

// End implements [store.Store].
func (s *Store) End(ctx context.Context, key string, t store.Ticket) error {
	if t.Token == "" {
		return ctx.Err()
	}
	_, err := call(ctx, s, s.pages, "end", func(ctx context.Context, conn *pgxpool.Conn) (pgconn.CommandTag, error) {
		return conn.Exec(ctx, "SELECT isr_end($1, $2)", hash(key), t.Token)
	})
	return err
}

// Invalidate implements [store.Store]. It is as durable as a commit is on this server. More
// than 2,000 tags take several commits.
func (s *Store) Invalidate(ctx context.Context, effect store.Effect, tags ...string) (v store.Version, err error) {
	if effect <= store.None || effect > store.Gone {
		return 0, fmt.Errorf("store/postgres: cannot invalidate to %v", effect)
	}
	for {
		n := min(len(tags), maxAtOnce)
		v, err = s.invalidate(ctx, effect, tags[:n])
		if tags = tags[n:]; err != nil || len(tags) == 0 {
			return v, err
		}
	}
}

func (s *Store) invalidate(ctx context.Context, effect store.Effect, tags []string) (store.Version, error) {
	names := make([][]byte, len(tags))
	for i, tag := range tags {
		names[i] = []byte(tag)
	}
	sums := hashes(tags)
	return call(ctx, s, s.rest, "invalidate", func(ctx context.Context, conn *pgxpool.Conn) (store.Version, error) {
		var v int64
		err := conn.QueryRow(ctx, "SELECT isr_invalidate($1, $2, $3, $4, $5, $6, $7)", s.seen.Load(), int(effect), sums, names,
			s.limit, min(s.limit, epochTags), s.recent.Microseconds()).Scan(&v)
		if err == nil {
			s.saw(v)
		}
		return store.Version(v), err
	})
}

// Changes implements [store.Store]. Where the server does not notify, what happens in its
// second is seen by the next call, which looks at once.
func (s *Store) Changes(ctx context.Context, after store.Version) (store.Changes, error) {
	s.hints.Enter()
	defer s.hints.Leave()
	timeout := time.NewTimer(heartbeat)
	defer timeout.Stop()
	for {
		hint := s.hints.Next() // before looking, so that none is missed
		c, err := call(ctx, s, s.rest, "changes", func(ctx context.Context, conn *pgxpool.Conn) (store.Changes, error) {
			return s.changes(ctx, conn, after)
		})
		s.hints.Looked(err)
		if err != nil || c.Reset || len(c.List) > 0 {
			return c, err
		}
		select {
		case <-hint:
		case <-timeout.C:
			return c, nil
		case <-ctx.Done():
			return store.Changes{}, fmt.Errorf("store/postgres: changes: %w", ctx.Err())
		}
	}
}

// listen is what hints need.
func (s *Store) listen(ctx context.Context, hint func()) {
	conn, err := s.conns.pool.Acquire(ctx)
	if err != nil {
		return
	}
	c := conn.Hijack() // it listens still, so that it must not go back
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		c.Close(ctx)
	}()
	if _, err := c.Exec(ctx, "LISTEN isr_versions"); err != nil {
		return
	}
	hint() // what came before
	for {
		if _, err := c.WaitForNotification(ctx); err != nil {
			return
		}
		hint()
	}
}

// changes looks once.
func (s *Store) changes(ctx context.Context, conn *pgxpool.Conn, after store.Version) (c store.Changes, err error) {
	var top, upto int64
	var floors, versions []int64
	var effects []int16
	var tags [][]byte
	err = conn.QueryRow(ctx, "SELECT * FROM isr_changes($1, $2, $3)", s.seen.Load(), number(uint64(after)), maxChanges).
		Scan(&top, &upto, &c.Reset, &c.History, &floors, &effects, &versions, &tags)
	if err != nil {
		return c, err
	}
	if len(effects) != len(versions) || len(tags) != len(versions) || len(floors) != int(store.Gone) {
		return c, errors.New("unexpected reply")
	}
	s.saw(top)
	c.Upto = store.Version(upto)
	for i, floor := range floors {
		if c.Reset {
			c.Floors[i+1] = store.Version(floor)
		}
	}
	for i, tag := range tags {
		c.List = append(c.List, store.Change{Tag: string(tag), Version: store.Version(versions[i]), Effect: store.Effect(effects[i])})
	}
	return c, nil
}

// saw notes a version that the server has issued. A server whose newest is older has lost a
// part of its history.
func (s *Store) saw(top int64) {
	for {
		seen := s.seen.Load()
		if uint64(top) <= seen || s.seen.CompareAndSwap(seen, uint64(top)) {
			return
		}
	}
}

// number returns a number as the server takes it.
func number(n uint64) int64 { return int64(min(n, math.MaxInt64)) }

func hash(s string) []byte {
	sum := sha256.Sum256([]byte(s))
	return sum[:]
}

func hashes(tags []string) [][]byte {
	list := make([][]byte, len(tags))
	for i, tag := range tags {
		list[i] = hash(tag)
	}
	return list
}

// call calls f with a connection, and leaves it behind when ctx is done. The driver is not
// given the caller's deadline: it would close the connection when that is over.
func call[T any](ctx context.Context, s *Store, slots chan struct{}, op string, f func(context.Context, *pgxpool.Conn) (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	var none T
	if err := ctx.Err(); err != nil {
		return none, fmt.Errorf("store/postgres: %s: %w", op, err)
	}
	select {
	case slots <- struct{}{}:
	case <-ctx.Done():
		return none, fmt.Errorf("store/postgres: %s: %w", op, ctx.Err())
	}
	done := make(chan result, 1)
	go func() {
		r := result{err: errors.New("it did not return")}
		defer func() {
			if p := recover(); p != nil { // on the caller's goroutine it would be net/http's
				r.err = fmt.Errorf("panic: %v", p)
			}
			<-slots
			done <- r
		}()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		defer cancel()
		conn, err := s.conns.acquire(ctx, slots == s.rest)
		if err != nil {
			r.err = fault(op, err)
			return
		}
		defer s.conns.release(conn)
		value, err := f(ctx, conn)
		if !s.migrated && isMissing(err) {
			if err = s.migrate(ctx, conn); err == nil {
				value, err = f(ctx, conn)
			}
		}
		r = result{value, fault(op, err)}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		return none, fmt.Errorf("store/postgres: %s: %w", op, ctx.Err())
	}
}

// isMissing says whether an error is that a table, type or function is not there.
func isMissing(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && (e.Code == "42P01" || e.Code == "42883" || e.Code == "42704")
}

// migrate makes what is missing, once at a time in all processes.
func (s *Store) migrate(ctx context.Context, conn *pgxpool.Conn) error {
	s.migrating.Lock()
	defer s.migrating.Unlock()
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock(hashtext('isr_history'))"); err != nil {
			return err
		}
		var made bool // by another, who had the lock before; to do it again would lock the tables that are used by now
		err := tx.QueryRow(ctx, "SELECT to_regprocedure('isr_invalidate(bigint, int, bytea[], bytea[], bigint, bigint, bigint)') IS NOT NULL").Scan(&made)
		if err == nil && !made {
			_, err = tx.Exec(ctx, schema)
		}
		return err
	})
}

// fault returns the error of an operation: the store's own as they are, and all others as
// ErrUnavailable, with the server's message alone. Others may quote a URL, with its password.
func fault(op string, err error) error {
	if err == nil || errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrSuperseded) {
		return err
	}
	text := err.Error()
	var e *pgconn.PgError
	switch {
	case errors.As(err, &e):
		text = e.Code + " " + e.Message
		if e.Code == "53100" && op == "put" { // the disk is full
			return fmt.Errorf("store/postgres: %s: %w: %s", op, store.ErrTooLarge, text)
		}
	case strings.Contains(text, "://") || strings.Contains(text, "password"):
		text = "withheld, since it may have a password in it"
	}
	return fmt.Errorf("store/postgres: %s: %w: %s", op, store.ErrUnavailable, text[:min(len(text), 300)])
}
