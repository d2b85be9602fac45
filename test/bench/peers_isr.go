package main

import (
	"bytes"
	"context"
	"iter"
	"net/http"
	"strconv"
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

// The floors: no cache, only what net/http makes of a page that is there.
var floors = []trial.Peer{
	{
		Name: "bare handler", Floor: true, Setup: "three headers and a prepared body",
		New: func(http.Handler, trial.Config) (*trial.Cache, error) {
			body := bytes.Repeat([]byte("<p>A page. "), trial.PageBytes/11+1)[:trial.PageBytes]
			length := strconv.Itoa(len(body))
			return &trial.Cache{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				h := w.Header()
				h.Set("Content-Type", "text/html; charset=utf-8")
				h.Set("Content-Length", length)
				h.Set("Cache-Control", "public, max-age=60")
				w.Write(body)
			})}, nil
		},
	},
	{
		Name: "http.ServeContent", Floor: true, Setup: "of a prepared body, with an ETag",
		New: func(http.Handler, trial.Config) (*trial.Cache, error) {
			body := bytes.Repeat([]byte("<p>A page. "), trial.PageBytes/11+1)[:trial.PageBytes]
			return &trial.Cache{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				h := w.Header()
				h.Set("Content-Type", "text/html; charset=utf-8")
				h.Set("Cache-Control", "public, max-age=60")
				h.Set("ETag", `"1"`)
				http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
			})}, nil
		},
	},
}

// originPeer is no cache at all: what stands behind nginx and Varnish.
var originPeer = trial.Peer{
	Name: "origin",
	New: func(h http.Handler, _ trial.Config) (*trial.Cache, error) {
		return &trial.Cache{Handler: h}, nil
	},
}
