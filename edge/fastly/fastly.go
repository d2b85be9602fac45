// Package fastly tells Fastly of edits.
//
// A page stays at Fastly for as long as it is fresh in the Site, whatever SharedMaxAge
// is, and goes when the Site is told to revalidate or purge it, at every URL and in
// every variant. Fastly says that this takes some 150 ms; nil from Tell means that it
// has taken the request.
//
//	isr.Options{Edge: fastly.New(fastly.Options{
//		Service: "SU1Z0isxPaozGVKXdv0eY",
//		Token:   os.Getenv("FASTLY_API_TOKEN"), // of this service, with the scope purge_select
//	})}
//
// Expired and Gone are a purge by surrogate keys, Stale is a soft purge by them: Fastly
// then asks the Site for a new page, and shows the old one meanwhile only where its
// configuration sets stale_while_revalidate. The tags go out in Surrogate-Key, at most
// 16,000 bytes, and the lifetime in Surrogate-Control; Fastly passes neither on, but
// between its own caches.
//
// Up to 256 tags are told in a request, one request at a time; what waits shares the
// next one. Where Fastly answers 429, Tell waits until the time in Retry-After or
// Fastly-RateLimit-Reset, or returns an error if its deadline is before that.
//
// With shielding, a purged cache can get the old page once more from a shield that is
// purged a moment later. Fastly's advice is to purge twice, two seconds apart. The Site
// tells everything once more after 30 seconds.
//
// NOTHING here was tried against Fastly itself. The tests run against a server that does
// what Fastly's documents say, as of autumn 2026: authentication, limits, 429, errors, latency,
// and purges that take a moment. Not known: how many purges an account may make in an
// hour.
//
// Documents:
// https://www.fastly.com/documentation/reference/api/purging/,
// https://www.fastly.com/documentation/reference/http/http-headers/Surrogate-Key,
// https://www.fastly.com/documentation/reference/http/http-headers/Surrogate-Control,
// https://www.fastly.com/documentation/reference/vcl/constraints-and-limitations/,
// https://www.fastly.com/documentation/guides/full-site-delivery/purging/purging-best-practices/
package fastly

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/isr-go/isr/edge"
	"github.com/isr-go/isr/edge/internal/edgekit"
	"github.com/isr-go/isr/store"
)

// Options say which service, and who asks.
type Options struct {
	// Service is the service's ID.
	Service string

	// Token is an API token with the scope purge_select. It is in no error.
	Token string

	// Client makes the requests; redirects are not followed. Nil means one like
	// http.DefaultClient. Requests end after 10 seconds.
	Client *http.Client

	// API is where the API is. Empty means "https://api.fastly.com".
	API string
}

const (
	maxTags    = 16000 // bytes, of 16 KB
	maxRequest = 256   // tags
)

type fastly struct {
	service string
	queue   edgekit.Queue
}

var _ edge.Edge = (*fastly)(nil)

// New returns an Edge for a service at Fastly. It panics without Service or Token.
func New(o Options) edge.Edge {
	switch {
	case o.Service == "":
		panic("fastly: New: no Service")
	case o.Token == "":
		panic("fastly: New: no Token")
	case strings.ContainsFunc(o.Token, func(r rune) bool { return r <= ' ' || r >= 0x7f }):
		panic("fastly: New: Token has a space, a line break, or what is not ASCII")
	}
	client := &edgekit.Client{Name: "fastly: service " + o.Service, Secret: o.Token, HTTP: o.Client, Explain: explain}
	call := cmp.Or(strings.TrimRight(o.API, "/"), "https://api.fastly.com") + "/service/" + url.PathEscape(o.Service) + "/purge"
	return &fastly{service: o.Service, queue: edgekit.Queue{
		Name:     client.Name,
		MaxItems: maxRequest,
		Timeout:  10 * time.Second,
		Send: func(ctx context.Context, soft bool, tokens []string) error {
			body, _ := json.Marshal(map[string][]string{"surrogate_keys": tokens}) // strings: no error
			h := http.Header{"Fastly-Key": {o.Token}, "Content-Type": {"application/json"}, "Accept": {"application/json"}}
			if soft {
				h["Fastly-Soft-Purge"] = []string{"1"}
			}
			_, answer, err := client.Do(ctx, http.MethodPost, call, h, body)
			if err != nil {
				return err
			}
			// It answers with an ID for each of the keys.
			var ids map[string]any
			if err := json.Unmarshal(answer, &ids); err != nil {
				return client.Errorf("POST %s was answered with no JSON of Fastly's", call)
			}
			for _, token := range tokens {
				if _, ok := ids[token]; !ok {
					return client.Errorf("POST %s was answered without an ID for %q", call, token)
				}
			}
			return nil
		},
	}}
}

// explain returns the message in an answer.
func explain(body []byte) string {
	var a struct{ Msg, Detail string }
	if json.Unmarshal(body, &a) != nil {
		return ""
	}
	if a.Detail != "" && a.Detail != a.Msg {
		return a.Msg + ": " + a.Detail
	}
	return a.Msg
}

// Mark writes Surrogate-Key and Surrogate-Control.
func (f *fastly) Mark(h http.Header, tags []string) bool {
	if !edge.WriteTokens(h, "Surrogate-Key", " ", maxTags, tags) {
		return false
	}
	edgekit.SetMaxAge(h, "Surrogate-Control")
	return true
}

func (f *fastly) Tell(ctx context.Context, effect store.Effect, tags []string) error {
	return f.queue.TellTags(ctx, effect, tags)
}

// String names the service.
func (f *fastly) String() string { return "fastly: service " + f.service }
