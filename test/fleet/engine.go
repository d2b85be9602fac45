package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/isr-go/isr/store"
)

// An engine is what the Store of a fleet keeps its pages in.
type engine struct {
	name   string                        // for -store
	need   func() error                  // says what is not installed
	server func(addr string) server      // at an address of this machine; it has not run yet
	open   func(addr string) store.Store // whether there is a server or not
}

// A server is one of an engine.
type server interface {
	run(ctx context.Context) error // starts it, with what it has on disk, until it answers
	signal(name string) error      // sends a signal to all its processes
	kill()                         // ends all its processes at once, if it runs
	empty() error                  // removes what it has on disk, when it does not run
	cut() error                    // closes the connections on which it tells of purges
	close()                        // ends it, and leaves nothing behind
}

var engines = []*engine{redisEngine, postgresEngine}

// engineOf returns an engine by its name.
func engineOf(name string) (*engine, error) {
	var names []string
	for _, e := range engines {
		if e.name == name {
			return e, nil
		}
		names = append(names, e.name)
	}
	return nil, fmt.Errorf("no store %q; there are: %s", name, strings.Join(names, ", "))
}
