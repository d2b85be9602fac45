// Package varnish tells Varnish of edits.
//
// A page stays in Varnish for as long as it is fresh in the Site, whatever
// SharedMaxAge is, and goes when the Site is told to revalidate or purge it, at every
// URL and in every variant. Nil from Tell means that no visitor who asks from then on
// gets what is older.
//
//	isr.Options{Edge: varnish.New(varnish.Options{Servers: []string{"http://127.0.0.1:6081"}})}
//
// Varnish needs one of the two configurations beside this file, which differ in what
// they stand on. Both answer the same requests, so the program need not know which.
//
//   - xkey.vcl, for where varnish-modules are installed (Debian: varnish-modules). Tags are
//     looked up in an index. What has turned stale is shown once more, while a new one is
//     asked for.
//   - ban.vcl, for where they are not. Each purge is a ban (a regular expression over the
//     tags), which Varnish checks whatever it shows against. What has turned stale goes at
//     once: a ban cannot do less.
//
// The program asks with PURGE and the tags in Isr-Tags, from an address that the VCL's
// acl names, and takes nothing for success but an answer with Isr-Told, which only
// these VCLs give: a Varnish that passes PURGE on to the origin is an error.
//
// The tags are in the field xkey, at most 8000 bytes (http_resp_hdr_len is 8 KB), with
// at most 3000 bytes told in a request. The lifetime is in Surrogate-Control. Neither is
// passed on.
//
// Tested with Varnish 7.1 and varnish-modules 0.20, those of Debian 12. Not tested:
// Varnish Enterprise, and versions before 7.
package varnish

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/isr-go/isr/edge"
	"github.com/isr-go/isr/edge/internal/edgekit"
	"github.com/isr-go/isr/store"
)

// Options say which servers there are.
type Options struct {
	// Servers are the addresses of all Varnish servers that hold the site's pages, such
	// as "http://127.0.0.1:6081". All of them are told; nil means that all have answered.
	Servers []string

	// Secret goes along as Isr-Secret, where the VCL asks for one. Empty: none.
	Secret string

	// Client makes the requests; redirects are not followed. Nil means one like
	// http.DefaultClient. Requests end after 10 seconds.
	Client *http.Client
}

// Limits of a request and of a page: http_req_hdr_len and http_resp_hdr_len are 8 KB.
const (
	maxTold = 3000 // a ban's regular expression is longer than the tags in it
	maxTags = 8000
)

type varnish struct {
	servers []server
}

type server struct {
	url   string
	queue *edgekit.Queue
}

var _ edge.Edge = (*varnish)(nil)

// New returns an Edge for Varnish. It panics if there is no server, or one that is no
// URL with a host.
func New(o Options) edge.Edge {
	if len(o.Servers) == 0 {
		panic("varnish: New: no Servers")
	}
	v := &varnish{}
	for _, s := range o.Servers {
		u, err := url.Parse(s)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			panic(fmt.Sprintf("varnish: New: %q is no URL of a server, such as http://127.0.0.1:6081", s))
		}
		client := &edgekit.Client{Name: "varnish at " + u.Host, Secret: o.Secret, HTTP: o.Client}
		v.servers = append(v.servers, server{u.Host, &edgekit.Queue{
			Name: client.Name, MaxItems: 200, MaxBytes: maxTold, Timeout: 10 * time.Second,
			Send: func(ctx context.Context, soft bool, tokens []string) error {
				h := http.Header{"Isr-Tags": {strings.Join(tokens, ",")}}
				if soft {
					h["Isr-Soft"] = []string{"1"}
				}
				if o.Secret != "" {
					h["Isr-Secret"] = []string{o.Secret}
				}
				res, _, err := client.Do(ctx, "PURGE", strings.TrimRight(s, "/")+"/", h, nil)
				if err == nil && res.Header.Get("Isr-Told") == "" {
					err = client.Errorf("PURGE was answered with %s, but not by xkey.vcl or ban.vcl", res.Status)
				}
				return err
			},
		}})
	}
	return v
}

// Mark writes xkey and Surrogate-Control.
func (v *varnish) Mark(h http.Header, tags []string) bool {
	if !edge.WriteTokens(h, "xkey", ",", maxTags, tags) {
		return false
	}
	edgekit.SetMaxAge(h, "Surrogate-Control")
	return true
}

func (v *varnish) Tell(ctx context.Context, effect store.Effect, tags []string) error {
	failed := make([]error, len(v.servers))
	var wg sync.WaitGroup
	for i, s := range v.servers {
		wg.Go(func() { failed[i] = s.queue.TellTags(ctx, effect, tags) })
	}
	wg.Wait()
	return edgekit.Join(tags, failed)
}

// String names the servers.
func (v *varnish) String() string {
	names := make([]string, len(v.servers))
	for i, s := range v.servers {
		names[i] = s.url
	}
	return "varnish at " + strings.Join(names, ", ")
}
