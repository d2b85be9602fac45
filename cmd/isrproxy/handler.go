package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	client "github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/inspect"
	"github.com/isr-go/isr/metrics/prometheus"
)

// webhookPath is where a CMS renews pages. The origin cannot have it.
const webhookPath = "/.isr/revalidate"

// A proxy is a site with isr in front, and what looks at it.
type proxy struct {
	site    *isr.Site
	handler http.Handler
	admin   map[string]adminHandler // by address
}

type adminHandler struct {
	http.Handler
	about string
}

// newProxy makes the proxy of a config. It listens nowhere yet.
func newProxy(c *config) (*proxy, error) {
	if c.logger == nil {
		c.logger = slog.New(slog.DiscardHandler)
	}
	var recorder inspect.Recorder
	metrics := prometheus.New(prometheus.Options{})
	opts := isr.Options{
		Default:  c.route(c.ttl),
		Routes:   make(map[string]isr.Route, len(c.routes)),
		Origin:   c.publicOrigin(), // one site, under whatever name it is asked for
		MaxBytes: c.memory,
		Encoders: c.encoders,
		Version:  c.version(),
		Logger:   c.logger,
		Observe: func(e isr.Event) {
			recorder.Observe(e)
			metrics.Observe(e)
		},
	}
	for pattern, l := range c.routes {
		opts.Routes[pattern] = c.route(l)
	}
	if c.images != "" {
		opts.Routes[c.images] = c.imageRoute()
	}
	if c.store.Store != nil {
		opts.Store = c.store.Store
	}
	site, err := wrap(steady(newReverseProxy(c)), opts)
	if err != nil {
		return nil, err
	}
	p := &proxy{site: site, admin: map[string]adminHandler{}}
	pages := http.Handler(site)
	if c.secret != "" {
		pages = beside(isr.RevalidateHandler(site, c.secret), site)
	}
	p.handler = newPurger(c, site, pages)

	p.mount(c.metrics, "metrics", "/metrics", func() http.Handler {
		reg := client.NewRegistry()
		reg.MustRegister(metrics.Collector(site))
		return promhttp.HandlerFor(reg, promhttp.HandlerOpts{})
	})
	p.mount(c.inspect, "inspector", "/", func() http.Handler {
		h := inspect.Handler(site, inspect.Options{Actions: true, Recorder: &recorder, MaxBytes: c.memory})
		if c.secret == "" {
			return h
		}
		return requirePassword(c.secret, h)
	})
	return p, nil
}

// mount adds a handler to those for the operator.
func (p *proxy) mount(addr, about, path string, h func() http.Handler) {
	if addr == "" {
		return
	}
	there, ok := p.admin[addr]
	if !ok {
		there.Handler = http.NewServeMux()
		there.about = about
	} else {
		there.about += " and " + about
	}
	there.Handler.(*http.ServeMux).Handle(path, h())
	p.admin[addr] = there
}

// wrap is isr.Wrap, where what it panics with is the user's mistake: a pattern or the name
// of a header.
func wrap(h http.Handler, opts isr.Options) (site *isr.Site, err error) {
	defer func() {
		switch said := recover().(type) {
		case nil:
		default:
			panic(said)
		case string:
			err = flagError(inFlags.Replace(registered.ReplaceAllString(optionOf.ReplaceAllString(said, "-route $1"), "")))
		}
	}()
	return isr.Wrap(h, opts), nil
}

// How a Site's options are called in flags.
var (
	optionOf   = regexp.MustCompile(`^isr: Options\.Routes\[("(?:[^"\\]|\\.)*")\]`)
	registered = regexp.MustCompile(` \(registered at [^)]*\)`) // that is a place in the sources
	inFlags    = strings.NewReplacer("isr: ", "", "Options.Default.Vary", "-vary", "Options.Default.IgnoreVary", "-ignore-vary", "Options.", "")
)

// beside puts the webhook beside the site. No mux does: it would redirect paths that are
// the origin's business.
func beside(webhook, site http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == webhookPath {
			webhook.ServeHTTP(w, r)
			return
		}
		site.ServeHTTP(w, r)
	})
}

// route returns how the pages of a lifetime live.
func (c *config) route(l lifetime) isr.Route {
	r := isr.Route{
		TTL:                  l.ttl,
		StaleWhileRevalidate: c.stale,
		IgnoreQuery:          slices.Concat(isr.TrackingParameters, c.ignoreQuery),
		Vary:                 c.vary,
		IgnoreVary:           c.ignoreVary,
		MaxTTL:               c.maxTTL,
		Timeout:              c.timeout,
		Bypass:               c.bypasses,
		Rewrite:              c.rewrite,
	}
	if c.query != nil {
		r.Query = append([]string{}, *c.query...)
		r.IgnoreQuery = c.ignoreQuery
	}
	if l.bypass {
		r.Bypass = isr.Always
	}
	return r
}

// imageRoute is for images that are made in the format that a browser prefers.
func (c *config) imageRoute() isr.Route {
	r := c.route(c.ttl)
	r.Vary = append(slices.Clone(r.Vary), "Accept")
	r.Normalize = func(h http.Header) {
		for name := range h {
			if name != "Accept" {
				delete(h, name)
			}
		}
		accept := h.Get("Accept")
		h.Del("Accept")
		for _, format := range []string{"image/avif", "image/webp"} {
			if strings.Contains(accept, format) {
				h.Add("Accept", format)
			}
		}
	}
	return r
}

// version names the pages that these flags make in the store, so that pages of other
// flags are not taken for them.
func (c *config) version() string {
	var query list
	if c.query != nil {
		query = append(list{"only"}, *c.query...)
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%q", []any{
		c.origin.String(), c.publicOrigin(), query, c.ignoreQuery, c.vary, c.ignoreVary, c.dropCookie, c.phpSession,
	}))
	return "isrproxy-" + hex.EncodeToString(sum[:8])
}

// bypasses reports whether a request is not for the cache: by a cookie, or by a parameter.
func (c *config) bypasses(r *http.Request) bool {
	for _, line := range r.Header["Cookie"] {
		for cookie := range strings.SplitSeq(line, ";") {
			name, _, _ := strings.Cut(strings.TrimSpace(cookie), "=")
			if c.session.match(name) {
				return true
			}
		}
	}
	if len(c.bypassQuery) == 0 || r.URL.RawQuery == "" {
		return false
	}
	for parameter := range strings.SplitSeq(r.URL.RawQuery, "&") {
		name, _, _ := strings.Cut(parameter, "=")
		if plain, err := url.QueryUnescape(name); err == nil {
			name = plain
		}
		name, _, _ = strings.Cut(name, "[") // as PHP reads it
		if slices.Contains(c.bypassQuery, name) {
			return true
		}
	}
	return false
}

// phpExpires is the Expires with which PHP says that a session was opened
// (session.cache_limiter is nocache). No program chooses it.
const phpExpires = "Thu, 19 Nov 1981 08:52:00 GMT"

// rewrite takes out of a page's header what, by the flags, means nothing.
func (c *config) rewrite(_ int, h http.Header) {
	if cookies := h["Set-Cookie"]; cookies != nil && len(c.dropCookie) > 0 {
		cookies = slices.DeleteFunc(slices.Clone(cookies), func(cookie string) bool {
			name, _, _ := strings.Cut(cookie, "=")
			return c.dropCookie.match(strings.TrimSpace(name))
		})
		if h["Set-Cookie"] = cookies; len(cookies) == 0 {
			h.Del("Set-Cookie")
		}
	}
	if c.phpSession && h.Get("Expires") == phpExpires && h.Get("Cache-Control") == "no-store, no-cache, must-revalidate" {
		h.Del("Expires")
		h.Del("Pragma")
		h.Del("Cache-Control")
	}
	if control := h["Cache-Control"]; control != nil && !c.mustRevalidate {
		h["Cache-Control"] = withoutRevalidate(control)
	}
}

// withoutRevalidate leaves must-revalidate and proxy-revalidate out of a Cache-Control.
func withoutRevalidate(lines []string) []string {
	var kept []string
	for _, line := range lines {
		if strings.Contains(line, `"`) {
			return lines // a comma may be quoted; nobody sends that
		}
		for directive := range strings.SplitSeq(line, ",") {
			switch directive = strings.TrimSpace(directive); strings.ToLower(directive) {
			case "", "must-revalidate", "proxy-revalidate":
			default:
				kept = append(kept, directive)
			}
		}
	}
	if kept == nil {
		return nil
	}
	return []string{strings.Join(kept, ", ")}
}

// addressFields are those by which proxies in front say who a visitor is.
var addressFields = []string{"X-Real-Ip", "True-Client-Ip", "X-Client-Ip", "X-Cluster-Client-Ip", "Cf-Connecting-Ip", "Fastly-Client-Ip"}

// thinking is how long the origin may take to begin an answer to what goes through. How
// long a page may take is its route's Timeout.
const thinking = 10 * time.Minute

func newReverseProxy(c *config) *httputil.ReverseProxy {
	transport := c.transport
	if transport == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.Proxy = nil // the origin is named by a flag
		t.DisableCompression = true
		t.MaxIdleConnsPerHost = 100
		t.MaxResponseHeaderBytes = 256 << 10
		t.ResponseHeaderTimeout = thinking
		t.DialContext = (&net.Dialer{Timeout: 10 * time.Second}).DialContext
		transport = t
	}
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(c.origin)
			out := r.Out.Header
			if c.trusts(r.In.RemoteAddr) {
				out["X-Forwarded-For"] = slices.Clone(r.In.Header["X-Forwarded-For"])
			} else {
				for _, name := range addressFields {
					out.Del(name)
				}
			}
			out.Del("Proxy") // CGI programs take it for a setting of theirs
			r.SetXForwarded()
			// Requests for pages and those that go through must agree on where the
			// site is, or its links lead to two places.
			r.Out.Host = c.public.Host
			out.Set("X-Forwarded-Host", c.public.Host)
			out.Set("X-Forwarded-Proto", c.public.Scheme)
		},
		Transport: transport,
		ModifyResponse: func(res *http.Response) error {
			if res.StatusCode < 100 || res.StatusCode > 999 { // a server cannot send it
				return fmt.Errorf("its status is %d", res.StatusCode)
			}
			return nil
		},
		ErrorLog: slog.NewLogLogger(c.logger.Handler(), slog.LevelError),
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			status, text := http.StatusBadGateway, "The site behind this server does not answer. Please try again later."
			var late net.Error
			if errors.Is(err, context.DeadlineExceeded) || errors.As(err, &late) && late.Timeout() {
				status, text = http.StatusGatewayTimeout, "The site behind this server takes too long to answer. Please try again later."
			}
			if !errors.Is(err, context.Canceled) {
				isr.Fail(r.Context(), fmt.Errorf("the origin: %w", err)) // so that the log of a page has it
				if !isr.Generating(r.Context()) {
					c.logger.Error("the origin does not answer", "method", r.Method, "path", r.URL.Path, "error", err)
				}
			}
			http.Error(w, text, status)
		},
	}
}

// trusts reports whether a peer is a proxy in front whose word on addresses counts.
func (c *config) trusts(remote string) bool {
	peer, err := netip.ParseAddrPort(remote)
	return err == nil && slices.ContainsFunc(c.trust, func(n netip.Prefix) bool { return n.Contains(peer.Addr().Unmap()) })
}

// isSelf reports whether the origin is this program's own listener.
func isSelf(ctx context.Context, origin *url.URL, listener net.Addr) bool {
	here, ok := listener.(*net.TCPAddr)
	port := cmp.Or(origin.Port(), map[string]string{"http": "80", "https": "443"}[origin.Scheme])
	if !ok || port != fmt.Sprint(here.Port) {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	ips, _ := net.DefaultResolver.LookupNetIP(ctx, "ip", origin.Hostname())
	for _, ip := range ips {
		if ip = ip.Unmap(); ip == here.AddrPort().Addr().Unmap() || here.IP.IsUnspecified() && ip.IsLoopback() {
			return true
		}
	}
	return false
}
