package main

import (
	"context"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/isr-go/isr/test/bench/internal/trial"
)

// usual is how the caches are set up where nothing else is said: pages stay fresh.
var usual = trial.Config{TTL: time.Hour, Grace: 24 * time.Hour, Bytes: 256 << 20}

// hits measures hits without a network. The targets take turns, and in another
// order each round, so that what else the machine does hits all of them.
func (b *bench) hits() {
	rounds, each := 4, 150*time.Millisecond
	if b.quick {
		rounds, each = 2, 40*time.Millisecond
	}
	for round := range rounds {
		for t := range b.turns(b.inGo) {
			b.say("hits, round %d: %s", round+1, t.Name)
			b.rows(t, trial.Order{Do: "cost", Peer: t.Name, Config: usual, Time: each})
			if round < 2 && !b.quick {
				crowd := usual
				crowd.Bytes = 1400 << 20 // room for 100,000 where pages are counted
				b.rows(t, trial.Order{Do: "crowd", Peer: t.Name, Config: crowd, Time: each})
			}
		}
	}
}

// rows asks a child for rows.
func (b *bench) rows(t *target, o trial.Order) {
	if t.Name == "Souin" && o.Do == "crowd" {
		b.res.none("one of 100,000 (1 KB)", t.Name, "filling it takes minutes")
		return
	}
	ctx, cancel := context.WithTimeout(b.ctx, time.Minute)
	defer cancel()
	var rows trial.Rows
	if err := ask(ctx, t.binary, o, &rows); err != nil {
		b.note("%s: %v", t.Name, err)
		return
	}
	for name, row := range rows {
		switch {
		case row.None != "":
			b.res.none(name, t.Name, row.None)
		case o.Do == "tags":
			b.res.add(name, t.Name, row.Ns/1e6, "")
		default:
			b.res.add(name, t.Name, row.Ns, allocs(row.Allocs))
		}
	}
}

func allocs(n float64) string {
	if n = float64(int(n + 0.5)); n == 1 {
		return "1 alloc"
	}
	return strconv.Itoa(int(n)) + " allocs"
}

// served starts a target, does something with it, and ends it.
func (b *bench) served(t *target, c trial.Config, f func(*server) error) {
	s, err := t.start(c)
	if err != nil {
		b.note("%v", err)
		return
	}
	if s.version != "" {
		t.Version = s.version
	}
	if err := f(s); err != nil {
		b.note("%s: %v", t.Name, err)
	}
	if err := s.stop(); err != nil {
		b.note("%s: at its end: %v", t.Name, err)
	}
}

// turns yields the chosen targets in an order of chance.
func (b *bench) turns(chosen func(*target) bool) func(func(*target) bool) {
	var those []*target
	for _, t := range b.targets {
		if t.Skip == "" && chosen(t) {
			those = append(those, t)
		}
	}
	rand.Shuffle(len(those), func(i, j int) { those[i], those[j] = those[j], those[i] })
	return func(yield func(*target) bool) {
		for _, t := range those {
			if b.ctx.Err() != nil || !yield(t) {
				return
			}
		}
	}
}
