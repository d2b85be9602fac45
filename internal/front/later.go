package front

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/isr-go/isr/internal/pagekey"
	"github.com/isr-go/isr/store"
)

// start has run look for what is to be told. It is called under t.mu.
func (t *Teller) start() {
	if t.running {
		select {
		case t.wake <- struct{}{}:
		default:
		}
		return
	}
	if len(t.entries) > 0 {
		t.running = true
		go t.run()
	}
}

// run tells what is due, until there is nothing to be told later.
func (t *Teller) run() {
	for {
		t.mu.Lock()
		now := time.Now()
		batches, next, ok := t.due(now)
		if !ok {
			t.running = false
			close(t.turn)
			t.turn = make(chan struct{})
			t.mu.Unlock()
			return
		}
		if len(batches) == 0 {
			t.mu.Unlock()
			t.sleep(next)
			continue
		}
		turn := t.turn
		t.turn = make(chan struct{})
		limit := maxCallTime
		if !t.down.IsZero() {
			limit = min(max(t.pause(now), 2*time.Second), maxCallTime)
		}
		t.mu.Unlock()
		for _, b := range batches {
			ctx, cancel := context.WithTimeout(context.Background(), limit)
			t.settle(b, t.call(ctx, b), false)
			cancel()
		}
		close(turn)
		if took := time.Since(now); took > quick {
			// Visitors get a part of what the Edge takes; editors get the rest.
			t.mu.Lock()
			t.later = time.Now().Add(min(9*took, time.Minute))
			t.mu.Unlock()
		}
	}
}

// quick is what a turn may take without visitors' orders having to wait for the next.
const quick = 100 * time.Millisecond

// due returns what is to be told now, or when to look again, or reports that there is
// nothing to be told later. It is called under t.mu.
func (t *Teller) due(now time.Time) (batches []batch, next time.Time, ok bool) {
	limit := maxBatch
	if !t.down.IsZero() {
		limit = maxProbe
	}
	var by [store.Gone + 1]batch
	for _, e := range t.entries {
		if t.closed && e.calls == 0 && (!e.owed() || e.err != nil) {
			t.remove(e)
			continue
		}
		if e.calls > 0 {
			ok = true
			continue // settle wakes run
		}
		if !e.owed() && e.again.IsZero() {
			t.remove(e)
			continue
		}
		ok = true
		at, effect := e.again, e.repeat
		if e.owed() {
			at, effect = e.from, e.effect
		} else if t.closing {
			at = now
		}
		if e.visitor && !t.closing && t.later.After(at) {
			at = t.later
		}
		if at.After(now) {
			if next.IsZero() || at.Before(next) {
				next = at
			}
			continue
		}
		if limit == 0 {
			next = now
			continue
		}
		limit--
		if !e.owed() { // if it fails it is owed
			t.orders++
			e.asked, e.effect, e.again = t.orders, effect, time.Time{}
		}
		e.calls++
		b := &by[effect]
		b.effect, b.items, b.asked = effect, append(b.items, e), append(b.asked, e.asked)
	}
	for _, b := range slices.Backward(by[:]) {
		if len(b.items) > 0 {
			batches = append(batches, b)
		}
	}
	return batches, next, ok
}

// sleep waits until a time, if that is not zero, or until there is more to be told.
func (t *Teller) sleep(until time.Time) {
	var timer <-chan time.Time
	if !until.IsZero() {
		tm := time.NewTimer(time.Until(until))
		defer tm.Stop()
		timer = tm.C
	}
	select {
	case <-timer:
	case <-t.wake:
	}
}

// Close tells what is owed, and once more what was to be told again, and waits for that
// until ctx is done, whose error it then returns. After that nothing is told later.
func (t *Teller) Close(ctx context.Context) (err error) {
	t.mu.Lock()
	t.closing = true
	for _, e := range t.entries {
		if e.err != nil {
			e.from = time.Time{}
		}
	}
	idle := t.idle
	if idle == nil {
		idle = make(chan struct{})
		t.idle = idle
	}
	if len(t.entries) == 0 {
		close(idle)
		t.idle = nil
	}
	t.start()
	t.mu.Unlock()
	select {
	case <-idle:
	case <-ctx.Done():
		err = ctx.Err()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	t.start()
	return err
}

// maxLog is how many records are kept of what was told.
const maxLog = 200

// A Record is what the Edge was told, or is owed.
type Record struct {
	Name
	Effect store.Effect
	Told   time.Time // when it was told last; zero: not yet
	Owed   bool
	Next   time.Time // when it is told, or once more; zero: it is not
	Err    error     // of the last call, if that has failed
}

// maxName is how much of a name a record keeps: visitors choose how long it is.
const maxName = 1 << 10

// note keeps a record of what was told. It is called under t.mu.
func (t *Teller) note(e *entry, effect store.Effect, at time.Time) {
	if pagekey.IsBucket(e.Tag) {
		return // it is told along with a tag
	}
	name := e.Name
	if len(name.URL) > maxName {
		name.URL = strings.Clone(name.URL[:maxName])
	}
	t.log[t.logged%maxLog] = Record{Name: name, Effect: effect, Told: at}
	t.logged++
}

// Log returns what is owed, and what was told, the last first. Of the former there are
// some, if there are many.
func (t *Teller) Log() (all []Record) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range t.entries {
		if e.owed() && !pagekey.IsBucket(e.Tag) {
			all = append(all, Record{Name: e.Name, Effect: e.effect, Owed: true, Next: e.from, Err: e.err})
		}
	}
	slices.SortFunc(all, func(a, b Record) int { return a.Next.Compare(b.Next) })
	all = all[:min(len(all), maxLog)]
	for i := range min(t.logged, maxLog) {
		r := t.log[(t.logged-1-i)%maxLog]
		if e := t.entries[keyOf(r.Name, t.urls != nil)]; e != nil {
			r.Next = e.again
		}
		all = append(all, r)
	}
	return all
}

// Owed returns how many names are owed.
func (t *Teller) Owed() (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	buckets := 0 // which are told along with a tag
	for _, e := range t.entries {
		switch {
		case !e.owed():
		case pagekey.IsBucket(e.Tag):
			buckets = 1
		default:
			n++
		}
	}
	return max(n, buckets)
}
