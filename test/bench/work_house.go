package main

import (
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/isr-go/isr/test/bench/internal/trial"
)

// hotSet asks for a hundred pages again and again, and for four hundred others
// once in between, with room for 240.
func (b *bench) hotSet() {
	const hot, oneOffs, room = 100, 400, 240
	rounds := 4
	if b.quick {
		rounds = 1
	}
	budget := usual
	budget.Bytes = room * trial.PageBytes
	for t := range b.turns(func(t *target) bool { return b.caching(t) && !t.live }) {
		if !t.Bounded {
			b.res.none("hot set", t.Name, "its memory has no bound")
			continue
		}
		b.say("hot set: %s", t.Name)
		b.served(t, budget, func(s *server) error {
			c, err := dial(s.addr)
			if err != nil {
				return err
			}
			defer c.c.Close()
			get := func(path string) error {
				status, _, err := c.ask(raw(path))
				if err == nil && status != 200 {
					err = fmt.Errorf("%s: status %d", path, status)
				}
				return err
			}
			for range 3 {
				for i := range hot {
					if err := get("/hot/" + strconv.Itoa(i)); err != nil {
						return err
					}
				}
			}
			before, err := s.renders("hot")
			if err != nil {
				return err
			}
			for round := range rounds {
				for i := range oneOffs {
					if err := get(fmt.Sprintf("/oneoff/%d-%d", round, i)); err != nil {
						return err
					}
					if i%(oneOffs/hot) == 0 {
						if err := get("/hot/" + strconv.Itoa(i*hot/oneOffs)); err != nil {
							return err
						}
					}
				}
			}
			after, err := s.renders("hot")
			if err != nil {
				return err
			}
			b.res.add("hot set", t.Name, 100*(1-float64(after-before)/float64(rounds*hot)), "")
			return nil
		})
	}
}

// memory measures what a page takes beside its bytes.
func (b *bench) memory() {
	n := 3000
	if b.quick {
		n = 1000
	}
	for t := range b.turns(b.inGo) {
		if t.Floor && !t.Keeps {
			continue
		}
		b.say("memory: %s", t.Name)
		b.served(t, usual, func(s *server) error {
			c, err := dial(s.addr)
			if err != nil {
				return err
			}
			defer c.c.Close()
			get := func(i int) error {
				_, _, err := c.ask(raw("/page/" + strconv.Itoa(i)))
				return err
			}
			for i := range 50 { // what is not for the pages
				if err := get(i); err != nil {
					return err
				}
			}
			var before, after uint64
			if err := s.order("/heap", &before); err != nil {
				return err
			}
			for i := range n {
				if err := get(50 + i); err != nil {
					return err
				}
			}
			if err := s.order("/heap", &after); err != nil {
				return err
			}
			per := (float64(after)-float64(before))/float64(n) - trial.PageBytes
			b.res.add("overhead", t.Name, per, "")
			return nil
		})
	}
}

// tags measures the purge of a tag.
func (b *bench) tags() {
	const name = "purge of a tag with 100,000 pages"
	if b.quick {
		b.skipped("the purge of a tag: not with -quick: 100,000 pages have to be there first")
		return
	}
	config := usual
	config.Bytes = 1400 << 20
	for t := range b.turns(b.caching) {
		b.say("tags: %s", t.Name)
		switch {
		case t.live:
			b.res.none(name, t.Name, "not in the Pages Router")
		case t.Name == "Varnish":
			b.served(t, config, func(s *server) error { return b.ban(s, name) })
		case t.server:
			b.res.none(name, t.Name, "has no tags")
		default:
			patience := 30 * time.Second
			if t.Name == "Souin" { // which takes longer for a page the more there are
				patience = 5 * time.Second
			}
			b.rows(t, trial.Order{Do: "tags", Peer: t.Name, Config: config, Time: patience})
		}
	}
}

// ban is Varnish's purge of a tag.
func (b *bench) ban(s *server, name string) error {
	const n = 100_000
	filled := load{rate: 1 << 20, conns: 16, time: n * (time.Second >> 20), path: func(i int) []byte {
		return raw("/tagged/" + strconv.Itoa(i))
	}}.run(s.addr)
	if filled.errors > 0 {
		return fmt.Errorf("%d errors while it was filled", filled.errors)
	}
	begin := time.Now()
	if err := s.command("BAN", "/", "all"); err != nil {
		return err
	}
	b.res.add(name, "Varnish", ms(time.Since(begin)), "over the wire")
	return nil
}

// restart measures the first answer of a cache that has been restarted, for a
// page that takes 50 ms to render and was there before.
func (b *bench) restart() {
	const render = 50 * time.Millisecond
	for t := range b.turns(b.caching) {
		if t.Name != "isr" && t.Name != "nginx" && !t.live {
			b.res.none("restart", t.Name, "keeps nothing: the page is rendered again")
			continue
		}
		b.say("restart: %s", t.Name)
		dir, err := os.MkdirTemp(tmp, "restart-")
		if err != nil {
			b.note("%v", err)
			continue
		}
		config := usual
		config.Dir = dir
		segment, path := "page", "/page/7"
		b.served(t, config, func(s *server) error {
			if r := s.visit("GET", path); r.status != 200 {
				return fmt.Errorf("status %d, %v", r.status, r.err)
			}
			time.Sleep(500 * time.Millisecond) // it may be stored behind the visitor's back
			return nil
		})
		b.served(t, config, func(s *server) error {
			if err := s.set("ok", render, 1); err != nil {
				return err
			}
			c, err := dial(s.addr)
			if err != nil {
				return err
			}
			defer c.c.Close()
			begin := time.Now()
			if status, _, err := c.ask(raw(path)); err != nil || status != 200 {
				return fmt.Errorf("status %d, %v", status, err)
			}
			took := time.Since(begin)
			n, err := s.renders(segment)
			if err != nil {
				return err
			}
			more := "not rendered again"
			if n > 0 {
				more = "rendered again"
			}
			b.res.add("restart", t.Name, ms(took), more)
			return nil
		})
	}
}

// prerender measures how long 1,000 pages take that take 5 ms each.
func (b *bench) prerender() {
	for t := range b.turns(b.caching) {
		if t.live {
			continue // measured when it was built
		}
		if t.server || t.OwnServer {
			b.res.none("prerender", t.Name, "a crawler has to ask for them")
			continue
		}
		b.served(t, usual, func(s *server) error {
			if err := s.set("ok", 5*time.Millisecond, 1); err != nil {
				return err
			}
			var took time.Duration
			if err := s.order("/prerender", &took, "n", "1000"); err != nil {
				b.res.none("prerender", t.Name, "a crawler has to ask for them")
				return nil
			}
			b.res.add("prerender", t.Name, ms(took), "5 ms each")
			return nil
		})
	}
}
