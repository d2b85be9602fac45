package isr_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isr-go/isr/internal/backing"
	"github.com/isr-go/isr/internal/budget"
	"github.com/isr-go/isr/internal/builds"
	"github.com/isr-go/isr/internal/cache"
	"github.com/isr-go/isr/internal/invalidation"
	"github.com/isr-go/isr/internal/page"
	"github.com/isr-go/isr/internal/pagekey"
	"github.com/isr-go/isr/internal/policy"
	"github.com/isr-go/isr/store"
	"github.com/isr-go/isr/store/memory"
)

// A keeper is a Keeper and what it works for, without a Site.
type keeper struct {
	*builds.Keeper
	cache  *cache.Cache
	table  *invalidation.Table
	failed int
}

// startKeeper starts one for an instance of a build. It ends with the test.
func startKeeper(t *testing.T, st store.Store, build string) *keeper {
	in := new(keeper)
	origin := pagekey.Origin{Scheme: "https", Host: "example.com"}
	in.table = invalidation.New(invalidation.MinBytes, func(by *invalidation.Judgements) { in.cache.JudgeAll(by) }, func() {})
	in.cache = cache.New(1<<20, in.table, budget.New(1<<20))
	back := backing.Open(backing.Config{Store: st, Build: build, Origin: origin, Table: in.table, Failed: func(error) {}, Restored: func() {}})
	in.Keeper = builds.Start(builds.Config{
		Backing: back, Cache: in.cache, Build: build, Origin: origin, Failed: func(error) { in.failed++ },
	})
	t.Cleanup(func() {
		in.Close(t.Context())
		back.Close()
	})
	synctest.Wait()
	return in
}

// ask asks for a page n times.
func (in *keeper) ask(n int, path string, status int) {
	k := pagekey.Key{Path: path}
	p := in.cache.Peek(&k)
	if p == nil {
		p = &page.Page{Key: k, Route: new(policy.Route), Status: status, Subject: invalidation.Subject{Since: in.table.Now()}}
		in.cache.Put(p, false)
	}
	for range n {
		p.Hits.Add(1)
		in.cache.Touch(p, time.Now())
	}
}

// visits returns the paths that a new build is warmed by.
func (in *keeper) visits(t *testing.T) (paths []string) {
	t.Helper()
	visits, err := in.Visits()
	if err != nil {
		t.Error(err)
	}
	for _, v := range visits {
		paths = append(paths, v.Path)
	}
	return paths
}

// Instances add to one list, also when they write at the same time, and a build knows
// those before it.
func TestKeepers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := memory.New()
		var old []*keeper
		for i := range 5 {
			in := startKeeper(t, st, "old")
			in.ask(10-i, fmt.Sprintf("/%d", i), 200)
			in.ask(100, "/everywhere", 200)
			in.ask(1000, "/missing", 404)
			old = append(old, in)
		}
		time.Sleep(2 * time.Minute)
		in := startKeeper(t, st, "new")
		if diff := cmp.Diff([]string{"/everywhere", "/0", "/1", "/2", "/3", "/4"}, in.visits(t)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]string{"old"}, in.Others()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		time.Sleep(2 * time.Minute)
		if diff := cmp.Diff([]string{"new"}, old[3].Others()); diff != "" {
			t.Errorf("what the old build knows (-want +got):\n%s", diff)
		}
	})
}

// What was asked for within the last minute is written when the keeper ends.
func TestCloseWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := memory.New()
		one, two := startKeeper(t, st, "old"), startKeeper(t, st, "old")
		one.ask(2, "/1", 200)
		two.ask(1, "/2", 200)
		go one.Close(t.Context())
		two.Close(t.Context())
		time.Sleep(time.Second)
		if got := startKeeper(t, st, "new").visits(t); !slices.Equal(got, []string{"/1", "/2"}) {
			t.Errorf("%q", got)
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		three := startKeeper(t, st, "old")
		three.ask(1, "/3", 200)
		three.Close(gone)
		if got := startKeeper(t, st, "new").visits(t); slices.Contains(got, "/3") {
			t.Error("it was written though there was no time for it")
		}
	})
}
