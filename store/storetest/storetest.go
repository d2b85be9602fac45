// Package storetest is the contract of [store.Store] as a suite of tests, for
// those who write an adapter:
//
//	func TestStore(t *testing.T) {
//		storetest.Run(t, func(t *testing.T) storetest.Config {
//			engine := startEngine(t) // ends by t.Cleanup
//			return storetest.Config{
//				Stores: [2]store.Store{adapter.New(engine), adapter.New(engine)},
//				Wipe:   engine.DeleteEverything,
//			}
//		})
//	}
//
// It asserts nothing about speed: what is to happen soon has a minute, and what is
// to happen in order is ordered by its own calls.
package storetest

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isr-go/isr/store"
)

// patience is how long a test waits for what must happen: a hang is all that it
// can find.
const patience = time.Minute

// A Config is an empty engine, and what can be done to it. Only Stores is needed;
// what the engine cannot do is left zero, and the tests of it are skipped.
type Config struct {
	// Stores are two handles on one engine, as two processes would have them. Where
	// the engine is the handle, it is there twice.
	Stores [2]store.Store

	// MaxBytes is the largest Data that Put takes, under a short key and without tags.
	// One that is 1 KB larger is ErrTooLarge: an engine may count more than Data.
	// Zero: no limit to test.
	MaxBytes int

	// Limit is about how many invalidated tags the engine remembers one by one before it
	// forgets the oldest, and at once: 300 to 1000, where that can be set for a test. Zero:
	// it forgets none, or more than a test could wait for.
	Limit int

	// TTL is the shortest that the engine honours, for records and for leases. Zero:
	// 10 ms.
	TTL time.Duration

	// Advance moves the engine's clock on, where it does not go by itself: while a
	// test waits for the end of a TTL, again and again. Nil: it goes by itself.
	Advance func(d time.Duration)

	// Wipe makes the engine lose everything, as an administrator or a crash without
	// persistence does, while the Stores stay in use. It is called once. Nil: it
	// cannot.
	Wipe func()

	// Pause makes the engine hang, as SIGSTOP does: it answers nothing, and
	// refuses no connection either, until resume, which is called once. Nil: it
	// cannot.
	Pause func() (resume func())

	// Reopen makes new handles as a restarted process does, after the old ones
	// were closed, or dropped. It is called twice. Nil: nothing outlives the process.
	Reopen func() [2]store.Store

	// Corrupt damages the record that is stored under the key where the engine keeps
	// it, in any way, if it is still there: a store may drop what is damaged. Nil: it
	// cannot.
	Corrupt func(key string)
}

// Run tests a store, each of its properties on an engine of its own: config is
// called once for each subtest, and ends what it has started by t.Cleanup.
func Run(t *testing.T, config func(t *testing.T) Config) {
	for _, p := range properties {
		t.Run(p.name, func(t *testing.T) { p.run(begin(t, config, false)) })
	}
}

// RunInBubbles is Run with each of the subtests, and its config, in a bubble of
// testing/synctest: nothing waits for the clock, and a goroutine that the store
// leaves behind fails the test, as does a moment that Changes waits for what is
// there. It is for stores that wait for channels and timers alone: who waits for I/O,
// or for a mutex whose holder waits, stops the time.
func RunInBubbles(t *testing.T, config func(t *testing.T) Config) {
	for _, p := range properties {
		t.Run(p.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { p.run(begin(t, config, true)) })
		})
	}
}

// properties are the subtests, the simple ones first.
var properties = []struct {
	name string
	run  func(*test)
}{
	{"RoundTrip", roundTrip},
	{"Aliasing", aliasing},
	{"NewerWins", newerWins},
	{"TTL", ttl},
	{"TooLarge", tooLarge},
	{"Corrupt", corrupt},

	{"Effects", effects},
	{"StaleOnArrival", staleOnArrival},
	{"AfterGone", afterGone},
	{"OtherTags", otherTags},
	{"ManyTags", manyTags},
	{"Order", order},
	{"NoTags", noTags},
	{"UnknownEffects", unknownEffects},
	{"Trimmed", trimmed},

	{"Look", look},
	{"Once", once},
	{"Lease", lease},
	{"ForeignEnd", foreignEnd},
	{"LeaseEnds", leaseEnds},
	{"PutEndsLease", putEndsLease},

	{"Changes", changes},
	{"Replay", replay},
	{"Heartbeat", heartbeat},
	{"AtOnce", atOnce},
	{"UnknownCursor", unknownCursor},
	{"History", history},

	{"Context", contexts},
	{"Pause", pause},
	{"Wipe", wipe},
	{"Durable", durable},
	{"Concurrent", concurrent},
}

// A test is one property's, with an engine of its own.
type test struct {
	*testing.T
	Config
	ctx    context.Context // over when patience is
	bubble bool            // time passes only where something waits for it
}

func begin(t *testing.T, config func(t *testing.T) Config, bubble bool) *test {
	c := config(t)
	if c.TTL == 0 {
		c.TTL = 10 * time.Millisecond
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return &test{T: t, Config: c, ctx: ctx, bubble: bubble}
}
