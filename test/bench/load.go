package main

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// slack is how late a timer may fire before it is taken for the server's doing:
// the two share a machine.
const slack = 2 * time.Millisecond

// A load is an open-loop load: requests arrive at a constant rate, whether or not
// those before have been answered. A request that finds all connections busy is
// late from the moment when it should have been sent, so that a server that
// stands still for a second is charged with every request of that second, not
// with one (no coordinated omission).
type load struct {
	rate  int // requests a second
	conns int // at least as many as should ever wait at a time
	time  time.Duration
	path  func(i int) []byte // the request with a number
}

// A latency is what visitors felt.
type latency struct {
	all    []time.Duration // sorted
	errors int             // answers that were none, or not 200
}

// run sends the load to an address.
func (l load) run(addr string) latency {
	interval := time.Second / time.Duration(l.rate)
	total := int64(l.time / interval)
	took := make([]time.Duration, total)
	var next, failed atomic.Int64
	var wg sync.WaitGroup
	begin := time.Now().Add(10 * time.Millisecond)
	for range l.conns {
		wg.Go(func() {
			c, err := dial(addr)
			defer func() {
				if c != nil {
					c.c.Close()
				}
			}()
			for {
				i := next.Add(1) - 1
				if i >= total {
					return
				}
				due := begin.Add(time.Duration(i) * interval)
				from := due
				if wait := time.Until(due); wait > 0 {
					time.Sleep(wait)
					from = charged(due, time.Now())
				}
				status := 0
				if c == nil {
					c, err = dial(addr)
				}
				if err == nil {
					status, _, err = c.ask(l.path(int(i)))
				}
				took[i] = time.Since(from)
				if err != nil || status != 200 {
					failed.Add(1)
				}
				if err != nil {
					if c != nil {
						c.c.Close()
					}
					c, err = nil, nil
				}
			}
		})
	}
	wg.Wait()
	slices.Sort(took)
	return latency{took, int(failed.Load())}
}

// charged returns from when on a request counts that was due while its
// connection was idle, and was woken up for at a time: the lateness of the timer
// is no fault of the server's, as long as it is one of a timer.
func charged(due, woken time.Time) time.Time {
	if woken.Sub(due) <= slack {
		return woken
	}
	return due.Add(slack)
}

// quantile returns the latency that a share of the requests did not exceed.
func (l latency) quantile(share float64) time.Duration {
	if len(l.all) == 0 {
		return 0
	}
	i := int(share*float64(len(l.all))+0.5) - 1
	return l.all[max(0, min(i, len(l.all)-1))]
}

// waited returns how many requests took at least d.
func (l latency) waited(d time.Duration) int {
	i, _ := slices.BinarySearch(l.all, d)
	return len(l.all) - i
}

// closed asks as fast as it can over some connections, for a time: the
// throughput. It is for machines without wrk, and takes more of them than that.
func closed(addr string, conns int, d time.Duration, request []byte) (perSecond float64, errors int64) {
	var done, failed atomic.Int64
	var wg sync.WaitGroup
	begin := time.Now()
	for range conns {
		wg.Go(func() {
			c, err := dial(addr)
			if err != nil {
				failed.Add(1)
				return
			}
			defer c.c.Close()
			for time.Since(begin) < d {
				status, _, err := c.ask(request)
				if err != nil {
					failed.Add(1)
					return
				}
				if status != 200 {
					failed.Add(1)
				}
				done.Add(1)
			}
		})
	}
	wg.Wait()
	return float64(done.Load()) / time.Since(begin).Seconds(), failed.Load()
}
