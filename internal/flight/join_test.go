package flight_test

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isr-go/isr/internal/budget"
	"github.com/isr-go/isr/internal/cache"
	"github.com/isr-go/isr/internal/encode"
	"github.com/isr-go/isr/internal/flight"
	"github.com/isr-go/isr/internal/invalidation"
	"github.com/isr-go/isr/internal/page"
	"github.com/isr-go/isr/internal/pagekey"
	"github.com/isr-go/isr/internal/policy"
)

// A visitor who has found nothing in the cache, and finds no run either, looks again
// instead of starting one: a run may have ended in between.
func TestJoinLooksAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var pages *cache.Cache
		table := invalidation.New(invalidation.MinBytes, func(by *invalidation.Judgements) { pages.JudgeAll(by) }, func() {})
		pages = cache.New(1<<20, table, budget.New(1<<20))
		group := flight.NewGroup(flight.Config{
			Encodings: encode.New[encode.Encoder](encode.Config{Cache: pages}, nil),
			Handler:   http.NotFoundHandler(), Matches: func(*http.Request) string { return "" }, Cache: pages, Table: table, Writing: budget.New(1 << 20), Slow: budget.New(1 << 20), MaxPageBytes: 1 << 20,
			Generations: 1, Regenerations: 1, Ended: func(*flight.Flight, time.Duration) {}, Evicted: func([]*page.Page) {},
		})
		rules, err := pagekey.NewRules(nil, nil, nil, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		req := flight.Request{
			Key:   pagekey.Key{Scheme: "http", Host: "example.com", Path: "/"},
			Route: &policy.Route{Rules: rules, TTL: time.Minute, NotFoundTTL: time.Minute, Timeout: time.Minute},
		}
		generate := func(seen *page.Page) *page.Page {
			f, how := group.Join(req, seen, &flight.Waiter{})
			if how != flight.Began {
				t.Fatalf("no run was started: %v", how)
			}
			<-f.Done()
			return pages.Peek(&req.Key)
		}
		first := generate(nil)
		if first == nil {
			t.Fatal("no page")
		}
		if f, how := group.Join(req, nil, &flight.Waiter{}); f != nil || how != flight.Changed {
			t.Errorf("a second run was started: %v", how)
		}
		if second := generate(first); second == first {
			t.Error("no run was started for a visitor who wants another page")
		}
		synctest.Wait()
	})
}
