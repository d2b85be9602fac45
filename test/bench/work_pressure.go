package main

import (
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/isr-go/isr/test/bench/internal/trial"
)

// cold sends 1,000 visitors at once to a page that nobody has seen.
func (b *bench) cold() {
	const visitors, render = 1000, 50 * time.Millisecond
	rounds := 3
	if b.quick {
		rounds = 1
	}
	for round := range rounds {
		for t := range b.turns(b.caching) {
			b.say("cold, round %d: %s", round+1, t.Name)
			b.served(t, usual, func(s *server) error {
				if err := s.set("ok", render, 1); err != nil {
					return err
				}
				conns, err := connect(s.addr, visitors)
				if err != nil {
					return err
				}
				segment, path := t.page("cold", round)
				before, err := s.renders(segment)
				if err != nil {
					return err
				}
				took, errors := together(conns, raw(path))
				after, err := s.renders(segment)
				if err != nil {
					return err
				}
				b.res.add("cold renders", t.Name, float64(after-before), "")
				more := ""
				if errors > 0 {
					more = fmt.Sprintf("%d errors", errors)
				}
				b.res.add("cold worst", t.Name, ms(took), more)
				return nil
			})
		}
	}
}

// connect opens connections, and sees to it that they are accepted.
func connect(addr string, n int) ([]*conn, error) {
	conns := make([]*conn, n)
	for i := range conns {
		var err error
		if conns[i], err = dial(addr); err != nil {
			for _, c := range conns[:i] {
				c.c.Close()
			}
			return nil, err
		}
	}
	return conns, nil
}

// together sends a request over all connections at once, and returns how long
// the last answer took.
func together(conns []*conn, request []byte) (worst time.Duration, errors int) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	gate := make(chan struct{})
	var begin time.Time
	for _, c := range conns {
		wg.Go(func() {
			defer c.c.Close()
			<-gate
			status, _, err := c.ask(request)
			took := time.Since(begin)
			mu.Lock()
			defer mu.Unlock()
			worst = max(worst, took)
			if err != nil || status != 200 {
				errors++
			}
		})
	}
	begin = time.Now()
	close(gate)
	wg.Wait()
	return worst, errors
}

// short is how the caches are set up where pages are to expire.
var short = trial.Config{TTL: time.Second, Grace: time.Hour, Bytes: 256 << 20}

// expired asks for a page again and again that is fresh for a second and takes
// 200 ms to render, and then goes on while the handler fails.
func (b *bench) expired() {
	const render, rate = 200 * time.Millisecond, 300
	rounds, each := 2, 3*time.Second
	if b.quick {
		rounds, each = 1, 1300*time.Millisecond
	}
	for round := range rounds {
		b.expiredRound(round, render, rate, each)
	}
}

func (b *bench) expiredRound(round int, render time.Duration, rate int, each time.Duration) {
	for t := range b.turns(b.caching) {
		b.say("expired, round %d: %s", round+1, t.Name)
		b.served(t, short, func(s *server) error {
			segment, path := t.page("expired", round)
			if err := s.set("ok", render, 1); err != nil {
				return err
			}
			if r := s.visit("GET", path); r.status != 200 {
				return fmt.Errorf("%s: status %d, %v", path, r.status, r.err)
			}
			before, err := s.renders(segment)
			if err != nil {
				return err
			}
			request := raw(path)
			l := load{rate: rate, conns: 256, time: each, path: func(int) []byte { return request }}
			got := l.run(s.addr)
			after, err := s.renders(segment)
			if err != nil {
				return err
			}
			b.res.add("expired renders", t.Name, float64(after-before), fmt.Sprintf("in %v", each))
			waited := got.waited(render / 2)
			b.res.add("expired waited", t.Name, 100*float64(waited)/float64(len(got.all)), "")
			b.res.add("expired p99", t.Name, ms(got.quantile(.99)), "")
			more := ""
			if got.errors > 0 {
				more = fmt.Sprintf("%d errors", got.errors)
			}
			b.res.add("expired max", t.Name, ms(got.quantile(1)), more)

			if err := s.set("fail", 5*time.Millisecond, 1); err != nil {
				return err
			}
			got = l.run(s.addr)
			b.res.add("failing errors", t.Name, 100*float64(got.errors)/float64(len(got.all)), "")
			return nil
		})
	}
}

// page returns a path of which a target has not heard, and its first segment.
func (t *target) page(what string, n int) (segment, path string) {
	if t.live {
		return "live", "/live/" + what + strconv.Itoa(n)
	}
	return "page", "/page/" + what + strconv.Itoa(n)
}
