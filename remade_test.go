package isr_test

import (
	"bytes"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/isr-go/isr"
)

// warnings returns how often it was logged that a Site is made for each request, where
// h is asked 100 times for two pages. Wrap is called with the options that h is made with.
func warnings(makeHandler func(isr.Options) http.Handler) (n int, log string) {
	var b bytes.Buffer
	h := makeHandler(isr.Options{Logger: slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{Level: slog.LevelWarn}))})
	for range 50 {
		get(h, "/a")
		get(h, "/b")
	}
	return strings.Count(b.String(), "made anew for each request"), b.String()
}

// A middleware that makes a Site for each request is warned of, once, with the remedy.
func TestSiteMadeForEachRequest(t *testing.T) {
	page := new(countingHandler)
	for name, makeHandler := range map[string]func(isr.Options) http.Handler{
		"for the route's handler": func(opts isr.Options) http.Handler {
			other := new(countingHandler)
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				next := page
				if r.URL.Path == "/b" {
					next = other
				}
				isr.Wrap(next, opts).ServeHTTP(w, r)
			})
		},
		"for a closure around it": func(opts isr.Options) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				next := http.HandlerFunc(func(w http.ResponseWriter, inner *http.Request) { page.ServeHTTP(w, r) })
				isr.Wrap(next, opts).ServeHTTP(w, r)
			})
		},
	} {
		n, log := warnings(makeHandler)
		if n != 1 || !strings.Contains(log, "remedy=") || !strings.Contains(log, "around the router") {
			t.Errorf("%s: %d warnings: %s", name, n, log)
		}
	}
}

// Sites that are made while requests are served, but kept, are not warned of, and nor are
// those that tests make.
func TestSitesMadeForGoodReason(t *testing.T) {
	page := new(countingHandler)
	for name, makeHandler := range map[string]func(isr.Options) http.Handler{
		"before": func(opts isr.Options) http.Handler {
			for range 100 {
				isr.Wrap(page, opts)
			}
			return isr.Wrap(page, opts)
		},
		"when it is needed": func(opts isr.Options) http.Handler {
			var site *isr.Site
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if site == nil {
					site = isr.Wrap(page, opts)
				}
				site.ServeHTTP(w, r)
			})
		},
		"for each tenant": func(opts isr.Options) http.Handler {
			var tenants []*isr.Site
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				tenants = append(tenants, isr.Wrap(http.NewServeMux(), opts))
				tenants[len(tenants)-1].ServeHTTP(w, r)
			})
		},
		"anew after each change of the options": func(opts isr.Options) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				site := isr.Wrap(page, opts)
				for range 3 {
					site.ServeHTTP(w, r)
				}
			})
		},
	} {
		if n, log := warnings(makeHandler); n != 0 {
			t.Errorf("%s: %d warnings: %s", name, n, log)
		}
	}
}
