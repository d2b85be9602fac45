// Package store is what isr needs of a second level of its cache: one that makes
// pages outlive a restart, or that a fleet of instances shares.
//
// # The idea
//
// Order comes from the store, not from clocks and not from keys. An invalidation
// gives its tags a new [Version]; a record carries the Version that held when its
// generation began; it is stale, or gone, if any of its tags has a newer one.
// That is judged when the record is read. So what was generated across a purge is
// stale on arrival, a purge costs the same for one record and for a million, and
// there is no message whose loss would matter.
//
// # Who uses it
//
// A program passes one of the adapters (store/file, store/redis, store/memory) to
// isr as Options.Store, and calls none of these methods itself. An adapter for
// another engine implements [Store], and is tested by store/storetest:
// [Record] brings its own encoding, and [Versions] is the rule above as a table.
package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"
)

// A Version is a position in the store's one order of invalidations. The store
// issues it, and never a smaller one after a larger, not even after a wipe. It is
// not a time, whatever it looks like. Zero is before everything.
type Version uint64

// A Record is what a store keeps under a key.
type Record struct {
	Version Version       // of the Ticket: what had been invalidated when the generation began
	Fence   uint64        // of the Ticket
	Tags    []string      // by which Invalidate reaches the record
	TTL     time.Duration // the store may forget the record after this; zero: whenever it likes
	Data    []byte        // opaque
}

// Ticket returns the ticket that the record was put with, less its lease.
func (r *Record) Ticket() Ticket { return Ticket{Version: r.Version, Fence: r.Fence} }

// A Ticket is the permission to generate a page and to store it. It orders the
// generations of a key: by Version, and among equals by Fence.
type Ticket struct {
	Version Version
	Fence   uint64
	Leader  bool   // whether the lease is the holder's, and everybody else waits for its record
	Token   string // tells the lease's holder from others; for the store alone
}

// Compare is negative where t is older than u, and positive where it is newer.
func (t Ticket) Compare(u Ticket) int {
	return cmp.Or(cmp.Compare(t.Version, u.Version), cmp.Compare(t.Fence, u.Fence))
}

// An Effect is what an invalidation does to what is older than it. A larger one
// is stronger.
type Effect int

const (
	None    Effect = iota
	Stale          // served once more, and renewed in the background: RevalidateTag
	Expired        // shown only where a new one cannot be had: Revalidate, unsafe methods
	Gone           // never shown again: Purge, PurgeTag
)

// String returns the effect in lower case.
func (e Effect) String() string {
	names := [...]string{"none", "stale", "expired", "gone"}
	if e < 0 || int(e) >= len(names) {
		return fmt.Sprintf("Effect(%d)", int(e))
	}
	return names[e]
}

// A Change is one invalidation of one tag.
type Change struct {
	Tag     string
	Version Version
	Effect  Effect
}

// Changes are what was invalidated between two versions.
type Changes struct {
	List  []Change // by Version; of a tag's changes with one effect the last is enough
	Upto  Version  // the list is complete up to here: where to go on from
	Reset bool     // the history is unknown: count every copy you hold as stale, beside what is in the list

	// Floors say, with Reset, what is known of it: by effect, the newest Version of what the
	// store has forgotten. A copy that is older counts as having had that effect.
	Floors [Gone + 1]Version

	// History names the order that the versions are in. It is another one after a wipe, and
	// after a failover, a restart or a restore that may have lost what was acknowledged:
	// those who have invalidated something lately do so again. Empty: the store cannot tell.
	History string
}

// What a store returns beside errors of its own, which callers take for
// ErrUnavailable. They may be wrapped.
var (
	// ErrNotFound is the only miss: there is no record that could be shown.
	ErrNotFound = errors.New("store: no such record")

	// ErrSuperseded says that a newer record is stored than the one to put.
	ErrSuperseded = errors.New("store: superseded by a newer record")

	// ErrTooLarge says that the engine, or its limit, has no room for a record of
	// this size.
	ErrTooLarge = errors.New("store: the record is too large")

	// ErrUnavailable says that the engine does not answer, or does not do what it
	// should. Nothing is known of what came of the call.
	ErrUnavailable = errors.New("store: unavailable")
)

// A Store keeps records, and the order of the invalidations. It may be shared by
// several processes, and then gives all of them the same answers.
//
// All methods are safe for concurrent use, and atomic: a reader sees all of a
// Put or Invalidate, or nothing of it. They return soon after ctx is done, with
// its error if it was that which ended them. They neither keep nor change what
// they are given, and what they return is the caller's. Keys and tags are any
// bytes, of any length up to some KB, and mean nothing.
//
// A Store is a client, and not an engine: it may be made before the engine can be
// reached, and comes back with it. It has no Close: the owner of what is beneath
// it closes that.
type Store interface {
	// Look returns the record under a key; the strongest effect that the
	// invalidations of its tags have had on it, of all those of a Version newer than
	// its own; and, where that will not do, a ticket for a generation of the page. It
	// takes account of every Invalidate that returned, in any process, before Look was
	// called. It is one round trip, where the engine allows that: visitors wait for it.
	//
	// What is gone, past its TTL, evicted, damaged or of an unknown format is
	// ErrNotFound. With that error the ticket is as good as with none.
	//
	// A record will do where it is newer than have, and not Expired. Have is the ticket
	// of the copy that the caller wants to renew; zero where it has none. Then the
	// ticket is zero, and no lease is taken. So it is where ttl is zero: the caller only
	// looks.
	//
	// Else the ticket's Version is not older than that of any Invalidate which returned
	// before Look was called, and older than that of each one which is called after Look
	// returned: the page's data is read after it. Of two tickets for a key the one given
	// later is the newer one.
	//
	// At most one holder of a key's tickets is its Leader, until its Put or End, or
	// until ttl is over. That is a lease, and advisory: two leaders cost a
	// generation, and nothing else. Any ticket may be used to put. The record and the
	// lease are of one moment: a leader has seen what the leader before it has put.
	Look(ctx context.Context, key string, have Ticket, ttl time.Duration) (rec *Record, effect Effect, t Ticket, err error)

	// Put stores a record with the ticket's Version and Fence, whatever the
	// record's own are, and gives back the ticket's lease, whether it stores the
	// record or not. Of two records it keeps the one with the newer ticket, and
	// where that is not this one, returns ErrSuperseded; so it does where it has
	// lost the history since the ticket's Version, in a wipe. What was invalidated
	// meanwhile is stored, and stale when it is read. To put the same once more is
	// no error.
	Put(ctx context.Context, key string, t Ticket, rec *Record) error

	// End gives back the ticket's lease without storing anything. It does nothing
	// where the lease is not the ticket's, or not any longer.
	End(ctx context.Context, key string, t Ticket) error

	// Invalidate has an effect on everything older that has one of the tags: on
	// the records that are stored, and on those that are still on their way. All
	// of the tags get one new Version, which it returns. It costs the same however
	// many records there are. A nil error means that it holds from now on, in every
	// process, and as durably as the engine can make it.
	//
	// More than 2,000 tags may be invalidated one part after another, each with a Version
	// of its own, of which it returns the last. Where it fails then, some of them may be.
	//
	// A store may forget the oldest tags. What may have one of them, by a filter, counts as
	// invalidated, with the effect that it had or a stronger one; and so may what is older
	// than the filter, whatever its tags, which is safe.
	Invalidate(ctx context.Context, effect Effect, tags ...string) (Version, error)

	// Changes returns what was invalidated after a version, which is zero or one that
	// Changes or Invalidate has returned: at once if anything was, else when something
	// is, or after about a second with nothing, which proves that there is contact. It
	// may return a part, with Upto to go on from. Several may call it at a time, each
	// with a cursor of its own; one that the store does not know, after a wipe, is
	// answered with Reset.
	Changes(ctx context.Context, after Version) (Changes, error)
}

// A LookTimeouter is a Store that says how long a Look may take before the page is
// generated without it. Visitors wait that long where the engine hangs. The default is
// 100 ms, and so is zero. It is asked once.
type LookTimeouter interface {
	LookTimeout() time.Duration
}
