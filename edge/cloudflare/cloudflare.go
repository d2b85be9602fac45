// Package cloudflare tells Cloudflare of edits.
//
// A page stays at Cloudflare for as long as it is fresh in the Site, whatever
// SharedMaxAge is, and goes when the Site is told to revalidate or purge it, at every
// URL of the zone that shows it. Cloudflare says that this takes less than 150 ms; nil
// from Tell means that it has taken the request.
//
//	isr.Options{Edge: cloudflare.New(cloudflare.Options{
//		Zone:  "023e105f4ecef8ad9ca31a8372d0c353",
//		Token: os.Getenv("CLOUDFLARE_API_TOKEN"), // may do no more than Zone, Cache Purge
//	})}
//
// Cloudflare keeps no HTML by default: a Cache Rule has to make the site's paths
// eligible for cache, with the edge TTL set to "use cache-control header if present,
// bypass cache if not".
//
// Expired and Gone are a purge by tag, Stale is an invalidation by tag, after which
// Cloudflare asks the Site whether its copy is still good. The tags go out in Cache-Tag,
// at most 16,000 bytes, and the lifetime in Cloudflare-CDN-Cache-Control; Cloudflare
// passes neither on. It ignores the case of letters in tags.
//
// Of a page with variants Cloudflare keeps one for all, whatever Vary says, but for
// Accept-Encoding. So a page that varies by anything else is not kept, unless
// Options.Vary says that the zone's cache key covers it.
//
// The limits are those of the Free plan: 25 requests at once and 5 more each minute,
// 100 tags each, for all zones of an account. What waits shares requests. What cannot
// be told before the deadline is an error at once, and is owed; so is a burst that
// another program has used up, with the time that Cloudflare asks for in Retry-After.
// An account with a better plan sets PerMinute and Burst.
//
// NOTHING here was tried against Cloudflare itself. The tests run against a server that
// does what Cloudflare's documents say, as of autumn 2026: authentication, limits, 429 with
// Retry-After, errors, latency, and purges that take a moment. Not known: whether
// invalidate_cache shares the limits of purge_cache, which is assumed, and whether a purge
// reaches what an upper tier is sending to a lower one at that moment, for which the Site
// tells once more later.
//
// Documents:
// https://developers.cloudflare.com/cache/how-to/purge-cache/purge-by-tags/,
// https://developers.cloudflare.com/cache/how-to/purge-cache/ (limits),
// https://developers.cloudflare.com/api/resources/cache/methods/invalidate,
// https://developers.cloudflare.com/fundamentals/api/reference/limits,
// https://developers.cloudflare.com/cache/concepts/cdn-cache-control/
package cloudflare

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/isr-go/isr/edge"
	"github.com/isr-go/isr/edge/internal/edgekit"
	"github.com/isr-go/isr/store"
)

// Options say which zone, and who asks.
type Options struct {
	// Zone is the zone's ID, which its overview page shows.
	Zone string

	// Token is an API token with the permission Zone, Cache Purge. It is in no error.
	Token string

	// PerMinute and Burst are how many requests the account's plan allows in a minute,
	// and at once. If several programs share an account, each gets a part. Zero means
	// 5 and 25.
	PerMinute, Burst int

	// Vary names the request headers, beside Accept-Encoding, that the zone's cache key
	// covers. Pages that vary by others are not kept.
	Vary []string

	// Client makes the requests; redirects are not followed. Nil means one like
	// http.DefaultClient. Requests end after 10 seconds.
	Client *http.Client

	// API is where the API is. Empty means "https://api.cloudflare.com/client/v4".
	API string
}

const (
	maxTags    = 16000 // bytes, of 16 KB
	maxRequest = 100   // tags
)

type cloudflare struct {
	zone  string
	vary  []string
	queue edgekit.Queue
}

var _ edge.Edge = (*cloudflare)(nil)

// New returns an Edge for a zone at Cloudflare. It panics without Zone or Token, and on
// negative limits.
func New(o Options) edge.Edge {
	switch {
	case o.Zone == "":
		panic("cloudflare: New: no Zone")
	case o.Token == "":
		panic("cloudflare: New: no Token")
	case strings.ContainsFunc(o.Token, func(r rune) bool { return r <= ' ' || r >= 0x7f }):
		panic("cloudflare: New: Token has a space, a line break, or what is not ASCII")
	case o.PerMinute < 0 || o.Burst < 0:
		panic(fmt.Sprintf("cloudflare: New: negative PerMinute (%d) or Burst (%d)", o.PerMinute, o.Burst))
	}
	client := &edgekit.Client{Name: "cloudflare: zone " + o.Zone, Secret: o.Token, HTTP: o.Client, Explain: explain}
	base := cmp.Or(strings.TrimRight(o.API, "/"), "https://api.cloudflare.com/client/v4") + "/zones/" + url.PathEscape(o.Zone)
	return &cloudflare{zone: o.Zone, vary: o.Vary, queue: edgekit.Queue{
		Name:     client.Name,
		MaxItems: maxRequest,
		Timeout:  10 * time.Second,
		Every:    time.Minute / time.Duration(cmp.Or(o.PerMinute, 5)),
		Burst:    cmp.Or(o.Burst, 25),
		Send: func(ctx context.Context, soft bool, tokens []string) error {
			body, _ := json.Marshal(map[string][]string{"tags": tokens}) // strings: no error
			call := "/purge_cache"
			if soft {
				call = "/invalidate_cache"
			}
			_, answer, err := client.Do(ctx, http.MethodPost, base+call, http.Header{
				"Authorization": {"Bearer " + o.Token}, "Content-Type": {"application/json"},
			}, body)
			if err != nil {
				return err
			}
			var a struct{ Success bool }
			if err := json.Unmarshal(answer, &a); err != nil || !a.Success {
				return client.Errorf("POST %s was answered without success: %s", base+call, cmp.Or(explain(answer), "no JSON of Cloudflare's"))
			}
			return nil
		},
	}}
}

// explain returns the errors in an answer.
func explain(body []byte) string {
	var a struct {
		Errors []struct {
			Code    int
			Message string
		}
	}
	if json.Unmarshal(body, &a) != nil {
		return ""
	}
	var all []string
	for _, e := range a.Errors {
		all = append(all, fmt.Sprintf("%d %s", e.Code, e.Message))
	}
	return strings.Join(all, ", ")
}

// Mark writes Cache-Tag and Cloudflare-CDN-Cache-Control.
func (c *cloudflare) Mark(h http.Header, tags []string) bool {
	if edgekit.VariesBy(h, c.vary) != "" || !edge.WriteTokens(h, "Cache-Tag", ",", maxTags, tags) {
		return false
	}
	edgekit.SetMaxAge(h, "Cloudflare-Cdn-Cache-Control")
	return true
}

func (c *cloudflare) Tell(ctx context.Context, effect store.Effect, tags []string) error {
	return c.queue.TellTags(ctx, effect, tags)
}

// String names the zone.
func (c *cloudflare) String() string { return "cloudflare: zone " + c.zone }
