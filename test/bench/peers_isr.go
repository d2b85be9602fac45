package main

import (
	"context"
	"iter"
	"net/http"
	"time"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/test/bench/internal/trial"
)

var isrPeer = trial.Peer{
	Name: "isr", Doc: "../../README.md",
	Setup:      "`Route{TTL, StaleWhileRevalidate, StaleIfError}`, `MaxBytes`; for the restart `Store: file.Open(dir)`",
	Background: true, Bounded: true,
	New: func(h http.Handler, c trial.Config) (*trial.Cache, error) {
		opts := isr.Options{
			Default:  isr.Route{TTL: c.TTL, StaleWhileRevalidate: c.Grace, StaleIfError: c.Grace},
			MaxBytes: c.Bytes,
		}
		if err := withStore(&opts, c.Dir); err != nil {
			return nil, err
		}
		site := isr.Wrap(h, opts)
		return &trial.Cache{
			Handler:  site,
			Purge:    func(path string) error { return site.Purge(context.Background(), path) },
			PurgeTag: func(tag string) error { return site.PurgeTag(context.Background(), tag) },
			Prerender: func(paths iter.Seq[string]) error {
				// Prerender wants the origin; the pages are the same with one.
				opts := opts
				opts.Origin = "http://example.com"
				for _, err := range isr.Wrap(h, opts).Prerender(context.Background(), paths) {
					if err != nil {
						return err
					}
				}
				return nil
			},
			Close: func() error {
				ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
				defer cancel()
				return site.Shutdown(ctx)
			},
		}, nil
	},
}

// originPeer is no cache at all: what stands behind nginx and Varnish.
var originPeer = trial.Peer{
	Name: "origin",
	New: func(h http.Handler, _ trial.Config) (*trial.Cache, error) {
		return &trial.Cache{Handler: h}, nil
	},
}
