//go:build linux

package postgres_test

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/isr-go/isr/store"
)

// A call reads a few rows, however many pages, leases and invalidations there are.
func TestCallsReadFewRows(t *testing.T) {
	s := newServer(t)
	if _, err := s.open(t).Invalidate(t.Context(), store.Stale, "the first"); err != nil { // makes the tables
		t.Fatal(err)
	}
	pool := s.pool()
	defer pool.Close()
	for _, sql := range []string{
		"INSERT INTO isr_pages SELECT sha256(i::text::bytea), 1, 1, '{}', now() + interval '1 hour', '' FROM generate_series(1, 5000) i",
		"INSERT INTO isr_leases SELECT sha256(i::text::bytea), 1, '', now() FROM generate_series(1, 5000) i",
		"INSERT INTO isr_versions SELECT sha256(i::text::bytea), 1, top - i, '' FROM isr_history, generate_series(1, 5000) i",
		"UPDATE isr_history SET tags = 5001",
		"ANALYZE",
	} {
		if _, err := pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	for name, call := range map[string]string{
		"put":                        "isr_put(0, 'key', top, 1, '{}', interval '1 hour', 'record', '') FROM isr_history",
		"look":                       "isr_look(0, sha256('1'), 0, 0, 'token', interval '1 minute')",
		"end":                        "isr_end(sha256('1'), 'token')",
		"invalidate":                 "isr_invalidate(0, 3, '{sum}', '{tag}', 10000, 1000, 0)",
		"invalidate in a full table": "isr_invalidate(0, 3, '{sum}', '{tag}', 1000, 1000, 3600000000)",
		"changes":                    "isr_changes(0, top, 100) FROM isr_history",
	} {
		t.Run(name, func(t *testing.T) {
			var before, after int
			count := func(tx pgx.Tx, rows *int) error { // with those of the connection's last transactions
				return tx.QueryRow(t.Context(), `SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0))
					FROM pg_stat_xact_user_tables WHERE relname IN ('isr_pages', 'isr_leases', 'isr_versions')`).Scan(rows)
			}
			err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
				if err := count(tx, &before); err != nil {
					return err
				}
				if _, err := tx.Exec(t.Context(), "SELECT "+call); err != nil {
					return err
				}
				return count(tx, &after)
			})
			if err != nil {
				t.Fatal(err)
			}
			if rows := after - before; rows > 100 {
				t.Errorf("it reads %d rows", rows)
			}
		})
	}
}
