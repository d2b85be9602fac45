package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync/atomic"

	"github.com/isr-go/isr/store"
)

// A source is what a page is made of: a number that editors count up, and
// invalidate what was made of the number before.
type source struct {
	number atomic.Uint64

	// least is the number, by effect, that a page must have whose Get begins now:
	// or it shows what was changed before an Invalidate that has returned.
	least [store.Gone + 1]atomic.Uint64

	newest atomic.Pointer[store.Ticket] // of those that are known to be stored
}

// raise makes v at least n.
func raise(v *atomic.Uint64, n uint64) {
	for old := v.Load(); old < n && !v.CompareAndSwap(old, n); old = v.Load() {
	}
}

// Whatever readers, generators and editors do at the same time in two processes: a Get
// after an invalidation has returned shows nothing that was read before it without its
// effect; nothing that was never put; and nothing older than what was shown before.
func concurrent(t *test) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	sources := make([]source, 3)
	ctx, stop := context.WithCancelCause(t.ctx)
	defer stop(nil)
	fail := func(format string, args ...any) { stop(fmt.Errorf(format, args...)) }

	parallel(8, func(g int) {
		rng := rand.New(rand.NewPCG(seed, uint64(g)))
		s := t.Stores[g%2]
		for range 150 {
			n := rng.IntN(len(sources))
			src, key := &sources[n], fmt.Sprint("page ", n)
			switch rng.IntN(4) {
			case 0:
				src.edit(ctx, s, key, sources, rng, fail)
			case 1:
				src.generate(ctx, s, key, rng, fail)
			default:
				src.read(ctx, s, key, fail)
			}
			if ctx.Err() != nil {
				return
			}
		}
	})
	if err := context.Cause(ctx); err != nil {
		t.Fatal(err)
	}
	for n := range sources {
		key := fmt.Sprint("page ", n)
		t.store(n%2, key, "new", key, "all")
		t.is(key, "new", store.None)
	}
}

// edit changes what one page is made of, or all are, and then invalidates it.
func (src *source) edit(ctx context.Context, s store.Store, key string, all []source, rng *rand.Rand, fail func(string, ...any)) {
	effect, tag := allEffects[rng.IntN(len(allEffects))], key
	edited := []*source{src}
	if rng.IntN(4) == 0 {
		tag, edited = "all", nil
		for i := range all {
			edited = append(edited, &all[i])
		}
	}
	numbers := make([]uint64, len(edited))
	for i, e := range edited {
		numbers[i] = e.number.Add(1)
	}
	if _, err := s.Invalidate(ctx, effect, tag); err != nil {
		fail("Invalidate: %w", err)
		return
	}
	for i, e := range edited {
		raise(&e.least[effect], numbers[i])
	}
}

// generate makes a page of what it finds, in some time.
func (src *source) generate(ctx context.Context, s store.Store, key string, rng *rand.Rand, fail func(string, ...any)) {
	ticket, err := Begin(ctx, s, key, long)
	if err != nil {
		fail("Begin: %w", err)
		return
	}
	wait := func() {
		for range rng.IntN(20) {
			runtime.Gosched()
		}
	}
	wait()
	data := page(key, src.number.Load())
	wait()
	if rng.IntN(8) == 0 {
		if err := s.End(ctx, key, ticket); err != nil {
			fail("End: %w", err)
		}
		return
	}
	err = s.Put(ctx, key, ticket, &store.Record{Tags: []string{"all", key}, Data: data})
	if err == nil {
		src.saw(ticket)
	} else if !errors.Is(err, store.ErrSuperseded) {
		fail("Put: %w", err)
	}
}

// page returns a page that shows whether it is whole.
func page(key string, number uint64) []byte {
	return bytes.Repeat(fmt.Appendf(nil, "%s %d\n", key, number), 50)
}

// read looks at a page as a visitor does.
func (src *source) read(ctx context.Context, s store.Store, key string, fail func(string, ...any)) {
	var least [store.Gone + 1]uint64
	for _, effect := range allEffects {
		least[effect] = src.least[effect].Load()
	}
	newest := src.newest.Load()
	rec, got, err := Get(ctx, s, key)
	if errors.Is(err, store.ErrNotFound) {
		return
	}
	if err != nil {
		fail("Get: %w", err)
		return
	}
	var number uint64
	if _, err := fmt.Sscanf(string(rec.Data), key+" %d\n", &number); err != nil || !bytes.Equal(rec.Data, page(key, number)) {
		fail("Get(%q) is what nobody has put: %.200q", key, rec.Data)
		return
	}
	for _, effect := range allEffects {
		if number < least[effect] && got < effect {
			fail("Get(%q) is %v: made of %d, but before it was called, Invalidate had returned for what is older than %d, with %v", key, got, number, least[effect], effect)
		}
	}
	ticket := store.Ticket{Version: rec.Version, Fence: rec.Fence}
	if newest != nil && ticket.Compare(*newest) < 0 {
		fail("Get(%q) is of %+v, older than what was there before, of %+v", key, ticket, *newest)
	}
	src.saw(ticket)
}

// saw notes that a ticket's record was stored.
func (src *source) saw(ticket store.Ticket) {
	for old := src.newest.Load(); old == nil || old.Compare(ticket) < 0; old = src.newest.Load() {
		if src.newest.CompareAndSwap(old, &ticket) {
			return
		}
	}
}
