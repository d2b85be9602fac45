package redis

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/redis/rueidis"

	"github.com/isr-go/isr/store"
)

// A found is what Look returns. Without a record it is a miss.
type found struct {
	rec    *store.Record
	effect store.Effect
	ticket store.Ticket
}

// A request is what a look is for.
type request struct {
	keys  keys
	have  store.Ticket
	ttl   time.Duration
	token string // of the lease
}

// args are those of the scripts.
func (r *request) args() []string {
	if r.ttl <= 0 {
		return []string{"", "", "0", "0"}
	}
	return []string{string(order(r.have)), r.token, milliseconds(r.ttl), milliseconds(r.ttl + fenceTTL)}
}

// LookTimeout implements [store.LookTimeouter].
func (s *Store) LookTimeout() time.Duration { return s.lookTimeout }

// Look implements [store.Store]. It is one round trip; in a cluster, where the table and
// the page are on different servers, one for a miss and two for a record, and a third where
// that is expired.
func (s *Store) Look(ctx context.Context, key string, have store.Ticket, ttl time.Duration) (*store.Record, store.Effect, store.Ticket, error) {
	caller := ctx
	f, err := call(ctx, s, "look", func(ctx context.Context, client rueidis.Client) (f found, err error) {
		r := &request{s.keys(key), have, ttl, rand.Text()}
		if client.Mode() == rueidis.ClientModeCluster {
			f, err = s.lookInCluster(ctx, client, r)
		} else {
			f, err = s.look(ctx, client, r)
		}
		if f.ticket.Leader && (caller.Err() != nil || err != nil) { // nobody is there to give it back
			end.Exec(ctx, client, []string{r.keys.lease}, []string{r.token})
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

// look asks a server that has all.
func (s *Store) look(ctx context.Context, client rueidis.Client, r *request) (f found, err error) {
	list, err := s.exec(ctx, client, look, []string{r.keys.record, r.keys.lease, r.keys.fence}, r.args()...)
	if err != nil {
		return f, err
	}
	var n [4]int64
	if err := numbers(list, n[:]); err != nil || len(list) != 5 {
		return f, errReply
	}
	f.ticket = r.ticket(n[2], n[3] == 1)
	if f.ticket.Fence != 0 {
		f.ticket.Version = store.Version(n[0])
	}
	if n[1] >= int64(store.Gone) {
		return f, nil
	}
	f.effect = store.Effect(n[1])
	if f.rec, err = record(&list[4]); err != nil {
		return f, err
	}
	if f.rec == nil && r.ttl > 0 && f.ticket.Fence == 0 { // the server did not see that it is damaged
		return s.lead(ctx, client, r)
	}
	return f, nil
}

// lead asks for a ticket where the record is none.
func (s *Store) lead(ctx context.Context, client rueidis.Client, r *request) (f found, err error) {
	top, _, err := s.judge(ctx, client, 0, nil)
	if err != nil {
		return f, err
	}
	r.have = store.Ticket{Version: 1<<64 - 1, Fence: 1<<64 - 1}
	f, err = s.lookOrLead(ctx, client, r)
	f.rec, f.ticket.Version = nil, top
	return f, err
}

// lookInCluster asks the server of the page and that of the table.
func (s *Store) lookInCluster(ctx context.Context, client rueidis.Client, r *request) (f found, err error) {
	type answer struct {
		top store.Version
		err error
	}
	table := make(chan answer, 1)
	if r.ttl > 0 {
		go func() { // which is the version of a ticket, if there is one
			a := answer{err: errEnded}
			defer func() {
				if p := recover(); p != nil {
					a.err = fmt.Errorf("panic: %v", p)
				}
				table <- a
			}()
			a.top, _, a.err = s.judge(ctx, client, 0, nil)
		}()
	}
	if f, err = s.lookOrLead(ctx, client, r); err != nil {
		return f, err
	}
	var before store.Version
	if r.ttl > 0 {
		a := <-table
		if before, err = a.top, a.err; err != nil {
			return f, err
		}
	}
	for range 8 { // or the record changes all the time
		if f.ticket.Fence != 0 {
			f.ticket.Version = before
		}
		if f.rec == nil {
			break
		}
		top, verdict, err := s.judge(ctx, client, f.rec.Version, f.rec.Tags)
		if err != nil {
			return f, err
		}
		before = top
		have := f.rec.Ticket()
		f.effect = store.Effect(verdict)
		if verdict >= int64(store.Gone) { // or lost: it may have been
			f.rec, f.effect = nil, store.None
		}
		if r.ttl == 0 || f.ticket.Fence != 0 || f.rec != nil && f.effect < store.Expired {
			break
		}
		r.have = have
		next, err := s.lookOrLead(ctx, client, r)
		if err != nil {
			return next, err
		}
		if next.ticket.Fence != 0 {
			f.ticket = next.ticket
			f.ticket.Version = before
			break
		}
		f = next // which is newer than what would not do
	}
	if f.rec == nil && r.ttl > 0 && f.ticket.Fence == 0 { // the server did not see that it is damaged
		return s.lead(ctx, client, r)
	}
	return f, nil
}

// lookOrLead asks the server of the page alone. The ticket has no version yet.
func (s *Store) lookOrLead(ctx context.Context, client rueidis.Client, r *request) (f found, err error) {
	if r.ttl <= 0 {
		f.rec, err = s.get(ctx, client, r)
		return f, err
	}
	list, err := lookOrLead.Exec(ctx, client, []string{r.keys.record, r.keys.lease, r.keys.fence}, r.args()).ToArray()
	if e, ok := rueidis.IsRedisErr(err); ok && e.IsTryAgain() { // the slot is moving, and its keys are in two places
		if f.rec, _ = s.get(ctx, client, r); f.rec != nil && f.rec.Ticket().Compare(r.have) > 0 {
			return f, nil
		}
	}
	if err != nil {
		return found{}, err
	}
	var n [2]int64
	if err := numbers(list, n[:]); err != nil || len(list) != 3 {
		return f, errReply
	}
	f.ticket = r.ticket(n[0], n[1] == 1)
	f.rec, err = record(&list[2])
	return f, err
}

// get reads the record alone.
func (s *Store) get(ctx context.Context, client rueidis.Client, r *request) (*store.Record, error) {
	// An arbitrary command is not known to only read, so that it goes to no replica.
	m, err := client.Do(ctx, client.B().Arbitrary("GET").Keys(r.keys.record).Build()).ToMessage()
	if rueidis.IsRedisNil(err) || isWrongType(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return record(&m)
}

// ticket returns the ticket of a fence, less its version; none for zero.
func (r *request) ticket(fence int64, leads bool) store.Ticket {
	t := store.Ticket{Fence: uint64(fence), Leader: fence != 0 && leads}
	if t.Leader {
		t.Token = r.token
	}
	return t
}

// record reads what is stored under a key; nil is nothing, or what is damaged.
func record(m *rueidis.RedisMessage) (*store.Record, error) {
	b, err := m.AsBytes()
	switch {
	case rueidis.IsRedisNil(err), err == nil && len(b) < orderSize:
		return nil, nil
	case err != nil:
		return nil, err
	}
	rec := new(store.Record)
	if err := rec.UnmarshalBinary(b[orderSize:]); errors.Is(err, store.ErrNotFound) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	return rec, nil
}
