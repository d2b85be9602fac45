package main

import (
	"bytes"
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/encoders/brotli"
	"github.com/isr-go/isr/encoders/zstd"
)

// A flagError says what is wrong with a flag, and what to write.
type flagError string

func (e flagError) Error() string { return string(e) }

func wrong(format string, args ...any) error { return flagError(fmt.Sprintf(format, args...)) }

// A config is what the flags say.
type config struct {
	origin, public   *url.URL
	addr             string
	ttl              lifetime
	routes           map[string]lifetime // by pattern
	query            *list               // nil: all
	ignoreQuery      list
	bypassQuery      list
	vary, ignoreVary list
	session          globs
	dropCookie       globs
	maxTTL, stale    time.Duration // zero: no bound
	timeout          time.Duration
	mustRevalidate   bool   // whether it counts
	phpSession       bool   // whether what PHP says of a page with a session does not count
	images           string // path of images in the format that a browser prefers; may be empty
	memory           int64
	encoders         []isr.Encoder // beside gzip, best first
	secret           string
	purge            string // who may: "loopback" beside those with the secret, or "secret"
	trust            []netip.Prefix
	storeName        string
	sitemap          string
	inspect, metrics string
	log              slog.Level

	// What is made of them.
	store     closingStore
	logger    *slog.Logger
	transport http.RoundTripper // to the origin; nil: an ordinary one
}

// publicOrigin is under what visitors know the site.
func (c *config) publicOrigin() string { return c.public.Scheme + "://" + c.public.Host }

// defaults are of a site of which nothing is known.
func defaults() *config {
	return &config{
		addr: "localhost:8080", ttl: lifetime{ttl: 30 * time.Second}, routes: map[string]lifetime{},
		timeout: 30 * time.Second, mustRevalidate: true, memory: 64 << 20, purge: "loopback",
		trust: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")},
		log:   slog.LevelInfo,
	}
}

// parseFlags reads the flags, and what the environment says in their place. It returns
// flag.ErrHelp where it has written to stdout which flags there are.
func parseFlags(args, environ []string, stdout io.Writer) (*config, error) {
	c := defaults()
	var origin, public, preset string
	fs := flag.NewFlagSet("isrproxy", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.Usage = func() {}
	fs.StringVar(&preset, "preset", "", "`name` of what the site is made with, which sets other flags: "+presetNames())
	fs.StringVar(&origin, "origin", "", "`URL` of the site, such as http://localhost:9000")
	fs.StringVar(&c.addr, "addr", c.addr, "`address` to listen on")
	fs.StringVar(&public, "public", "", "`URL` under which visitors know the site (default: the origin's)")
	fs.Var(&c.ttl, "ttl", "how long a page is fresh, unless the origin says so itself: a `lifetime` such as 30s, forever, or origin for only what the origin says")
	fs.Var((*routes)(&c.routes), "route", "`pattern=lifetime` of pages of their own, such as '/blog/{id}=10s' or '/account/=bypass'; repeatable")
	fs.Func("query", "`names` of the only query parameters that pages depend on; empty: none (default: all)", func(s string) error {
		if c.query == nil {
			c.query = new(list)
		}
		return c.query.Set(s)
	})
	fs.Var(&c.ignoreQuery, "ignore-query", "`names` of query parameters that they do not depend on, such as ref,spm_*; utm_* and its like are ignored anyway")
	fs.Var(&c.bypassQuery, "bypass-query", "`names` of query parameters with which a request passes the cache, such as preview")
	fs.Var(&c.vary, "vary", "`names` of request headers that pages depend on, such as Accept-Language")
	fs.Var(&c.ignoreVary, "ignore-vary", "`names` in the origin's Vary that do not count, such as Cookie")
	fs.Var(&c.session, "session", "`names` of cookies whose owners pass the cache, such as 'wordpress_*,wp-postpass_*'")
	fs.Var(&c.dropCookie, "drop-cookie", "`names` of cookies in Set-Cookie that mean nothing in a page, and are left out")
	fs.DurationVar(&c.maxTTL, "max-ttl", 0, "the longest lifetime that the origin may ask for (default: no bound)")
	fs.DurationVar(&c.stale, "stale", 0, "how long after its lifetime a page is still shown, while it is renewed (default: no bound)")
	fs.BoolVar(&c.mustRevalidate, "must-revalidate", true, "whether the origin's must-revalidate counts: then no old page is shown, not even when the origin fails")
	fs.BoolVar(&c.phpSession, "php-session", false, "ignore the no-store that PHP adds to each page where a session was opened")
	fs.DurationVar(&c.timeout, "timeout", c.timeout, "how long the origin may take for a page")
	fs.Func("memory", "memory for pages, such as 256MB (default 64MB)", func(s string) (err error) { c.memory, err = parseBytes(s); return err })
	fs.Func("encoders", "`names` of encodings that pages are kept in beside gzip, best first: br,zstd (default: gzip alone)", func(s string) (err error) {
		c.encoders, err = parseEncoders(s)
		return err
	})
	fs.StringVar(&c.secret, "secret", "", "what the webhook at "+webhookPath+", PURGE and an inspector that others can reach ask for; better in the environment")
	fs.StringVar(&c.purge, "purge", c.purge, "`who` may send PURGE beside those who have the secret: loopback (from this machine, not forwarded), or secret for nobody")
	fs.Func("trust", "`networks` of proxies in front whose X-Forwarded-For is passed on, or none (default 127.0.0.0/8,::1/128)", func(s string) (err error) {
		c.trust, err = parseNetworks(s)
		return err
	})
	fs.StringVar(&c.storeName, "store", "", "where pages outlive a restart: a `directory`, or redis://host:6379 or postgres://host/database to share them")
	fs.StringVar(&c.sitemap, "sitemap", "", "`path` of the origin's sitemap, such as /sitemap.xml: its pages are asked for at the start")
	fs.StringVar(&c.inspect, "inspect", "", "`address` at which to look at what is cached, such as localhost:8081")
	fs.StringVar(&c.metrics, "metrics", "", "`address` at which Prometheus finds /metrics; may be that of -inspect")
	fs.TextVar(&c.log, "log", c.log, "`level` of the log: debug has every visit, info what is generated, error the failures")

	// The preset first, whose lists the other flags add to.
	if err := fs.Parse(args); err != nil {
		return nil, explain(fs, err, stdout)
	}
	if fs.NArg() > 0 {
		return nil, wrong("%q is no flag: all that isrproxy takes begins with a dash, such as -origin http://localhost:9000", fs.Arg(0))
	}
	env, err := fromEnvironment(fs, environ)
	if err != nil {
		return nil, err
	}
	if preset == "" {
		preset = env["preset"]
	}
	*c = *defaults()
	if preset != "" {
		set, ok := presets[preset]
		if !ok {
			return nil, wrong("-preset %q: there is none of that name; there are %s", preset, presetNames())
		}
		set(c)
	}
	given := map[string]bool{}
	fs.Visit(func(f *flag.Flag) { given[f.Name] = true })
	for _, name := range slices.Sorted(maps.Keys(env)) {
		if !given[name] {
			if err := fs.Set(name, env[name]); err != nil {
				return nil, wrong("%s %q: %v", envName(name), env[name], err)
			}
		}
	}
	if err := fs.Parse(args); err != nil {
		return nil, explain(fs, err, stdout)
	}
	return c, c.check(origin, public)
}

// check reads and checks what depends on other flags.
func (c *config) check(origin, public string) (err error) {
	if c.origin, err = parseURL("-origin", origin); err != nil {
		return err
	}
	if c.public, err = parseURL("-public", cmp.Or(public, c.origin.Scheme+"://"+c.origin.Host)); err != nil {
		return err
	}
	switch {
	case c.public.Path != "" && c.public.Path != "/":
		return wrong("-public %q: want no path", public)
	case c.sitemap != "" && !strings.HasPrefix(c.sitemap, "/"):
		return wrong("-sitemap %q: want a path, such as /sitemap.xml", c.sitemap)
	case c.ttl.bypass:
		return wrong("-ttl bypass would cache nothing at all: want a lifetime such as 30s, forever or origin, and -route '/account/=bypass' for what is not to be cached")
	case c.maxTTL < 0, c.stale < 0:
		return wrong("-max-ttl %s and -stale %s: want none that is negative", c.maxTTL, c.stale)
	case c.timeout <= 0:
		return wrong("-timeout %s: want more than zero, such as 30s", c.timeout)
	case c.purge != "loopback" && c.purge != "secret":
		return wrong("-purge %q: want loopback or secret", c.purge)
	}
	for _, addr := range []string{c.inspect, c.metrics} {
		if addr == c.addr {
			return wrong("-addr, -inspect and -metrics %q: visitors would reach what is not for them; want an address of its own, such as localhost:8081", addr)
		}
	}
	if c.inspect != "" && c.secret == "" && !isLoopback(c.inspect) {
		return wrong("-inspect %q: all who reach it could look at all pages and purge them; want localhost:8081, or a -secret, which is then the password", c.inspect)
	}
	return nil
}

// explain says what is wrong with the arguments, in place of package flag.
func explain(fs *flag.FlagSet, err error, stdout io.Writer) error {
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(stdout, "isrproxy puts isr in front of a site that exists already.\n\n  isrproxy -origin http://localhost:9000 -ttl 30s\n\n"+
			"Each flag may also stand in the environment: -ignore-vary as ISRPROXY_IGNORE_VARY.\n\n")
		var text bytes.Buffer
		fs.SetOutput(&text)
		fs.PrintDefaults()
		stdout.Write(text.Bytes())
		return err
	}
	if name, ok := strings.CutPrefix(err.Error(), "flag provided but not defined: -"); ok {
		return unknown(fs, "-", name)
	}
	return wrong("%v", err)
}

// unknown is the error for a flag that there is not.
func unknown(fs *flag.FlagSet, dash, name string) error {
	best, distance := "", 3 // what is farther away is no slip of the fingers
	fs.VisitAll(func(f *flag.Flag) {
		if d := editDistance(f.Name, name); d < distance || strings.HasPrefix(f.Name, name) && best == "" {
			best, distance = f.Name, d
		}
	})
	if best != "" {
		return wrong("there is no %s%s: did you mean -%s? isrproxy -help lists all flags", dash, name, best)
	}
	return wrong("there is no %s%s: isrproxy -help lists all flags", dash, name)
}

// editDistance is how many letters are to be changed, added or left out.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		last := row[0]
		row[0] = i + 1
		for j := range len(b) {
			substituted := last
			if a[i] != b[j] {
				substituted++
			}
			last, row[j+1] = row[j+1], min(substituted, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// envName is the name of a flag in the environment.
func envName(flag string) string {
	return "ISRPROXY_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// fromEnvironment returns the flags that stand in the environment.
func fromEnvironment(fs *flag.FlagSet, environ []string) (map[string]string, error) {
	env := map[string]string{}
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		suffix, ours := strings.CutPrefix(name, "ISRPROXY_")
		if !ours {
			continue
		}
		flag := strings.ToLower(strings.ReplaceAll(suffix, "_", "-"))
		if fs.Lookup(flag) == nil {
			return nil, fmt.Errorf("%s in the environment: %w", name, unknown(fs, "-", flag))
		}
		env[flag] = value
	}
	return env, nil
}

// parseURL reads the address of a site.
func parseURL(name, value string) (*url.URL, error) {
	u, err := url.Parse(value)
	switch {
	case value == "":
		err = errors.New("is missing")
	case err != nil:
		err = errors.Unwrap(err) // without the value once more
	case u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		err = errors.New("has no http:// or https:// and host")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		err = errors.New("has more than a scheme, a host and a path")
	default:
		return u, nil
	}
	return nil, wrong("%s %q: %v; want something like http://localhost:9000", name, value, err)
}

// A lifetime is how the pages of a route live.
type lifetime struct {
	ttl    time.Duration // as in isr.Route
	bypass bool
}

func (l *lifetime) String() string {
	switch {
	case l.bypass:
		return "bypass"
	case l.ttl < 0:
		return "origin"
	case l.ttl == 0:
		return "forever"
	}
	return l.ttl.String()
}

// Set implements [flag.Value].
func (l *lifetime) Set(s string) (err error) {
	switch s {
	case "bypass":
		*l = lifetime{bypass: true}
	case "origin":
		*l = lifetime{ttl: isr.NoStore}
	case "forever":
		*l = lifetime{}
	default:
		d, err := time.ParseDuration(s)
		if err != nil || d <= 0 {
			return errors.New("want a lifetime: a time such as 10s or 1h30m, forever (until it is purged), origin (only what the origin's Cache-Control says) or bypass (never cached)")
		}
		*l = lifetime{ttl: d}
	}
	return nil
}

// routes are lifetimes by pattern.
type routes map[string]lifetime

func (r *routes) String() string { return "" }

// Set implements [flag.Value]. In the environment there may be several, with ";" between them.
func (r *routes) Set(s string) error {
	for route := range strings.SplitSeq(s, ";") {
		route = strings.TrimSpace(route)
		i := strings.LastIndexByte(route, '=')
		if i <= 0 || i == len(route)-1 {
			pattern := strings.TrimRight(cmp.Or(route, "/blog/{id}"), "=")
			return fmt.Errorf("%q has no lifetime: write '%s=10s', or forever, origin or bypass in place of 10s", route, pattern)
		}
		var l lifetime
		if err := l.Set(route[i+1:]); err != nil {
			return fmt.Errorf("%q: %w", route, err)
		}
		if *r == nil {
			*r = routes{}
		}
		(*r)[route[:i]] = l
	}
	return nil
}

// parseEncoders reads names of encodings. There is gzip anyway, so it may be named.
func parseEncoders(s string) (encoders []isr.Encoder, err error) {
	var names list
	names.Set(s)
	for i, name := range names {
		if slices.Contains(names[:i], name) {
			return nil, fmt.Errorf("%s is there twice", name)
		}
		switch name {
		case "br":
			encoders = append(encoders, brotli.Encoder{})
		case "zstd":
			encoders = append(encoders, zstd.Encoder{})
		case "gzip":
		default:
			return nil, fmt.Errorf("%q: want br, zstd or gzip, with commas between them", name)
		}
	}
	return encoders, nil
}

// A list is of names, with commas between them. Each flag adds to it.
type list []string

func (l *list) String() string { return strings.Join(*l, ",") }

// Set implements [flag.Value].
func (l *list) Set(s string) error {
	for name := range strings.SplitSeq(s, ",") {
		if name = strings.TrimSpace(name); name != "" {
			*l = append(*l, name)
		}
	}
	return nil
}

// globs are names in which "*" stands for any letters.
type globs []string

func (g *globs) String() string { return strings.Join(*g, ",") }

// Set implements [flag.Value].
func (g *globs) Set(s string) error {
	var names list
	names.Set(s)
	for _, name := range names {
		if strings.Trim(name, "*") == "" {
			return fmt.Errorf("%q is every cookie there is, also those of a visitor who is nobody in particular: name those that matter, such as 'wordpress_*' or session", name)
		}
		if strings.ContainsAny(name, " =;\"") {
			return fmt.Errorf("%q is no name of a cookie: want names alone, with commas between them, such as 'wordpress_*,session'", name)
		}
	}
	*g = append(*g, names...)
	return nil
}

func (g globs) match(name string) bool {
	return slices.ContainsFunc(g, func(pattern string) bool { return matches(pattern, name) })
}

func matches(pattern, name string) bool {
	prefix, rest, star := strings.Cut(pattern, "*")
	if !star {
		return name == pattern
	}
	if !strings.HasPrefix(name, prefix) {
		return false
	}
	for name = name[len(prefix):]; ; name = name[1:] {
		if matches(rest, name) {
			return true
		}
		if name == "" {
			return false
		}
	}
}

// parseBytes reads a number of bytes.
func parseBytes(s string) (int64, error) {
	number, unit := strings.TrimSpace(s), int64(1)
	for _, u := range []struct {
		name  string
		bytes int64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"GB", 1 << 30}, {"MB", 1 << 20}, {"KB", 1 << 10}, {"G", 1 << 30}, {"M", 1 << 20}, {"K", 1 << 10}} {
		if rest, ok := strings.CutSuffix(strings.ToLower(number), strings.ToLower(u.name)); ok {
			number, unit = strings.TrimSpace(rest), u.bytes
			break
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n <= 0 || n > 1<<62/unit {
		return 0, errors.New("want a number of bytes, such as 256MB or 1GB")
	}
	return n * unit, nil
}

// parseNetworks reads networks, or "none".
func parseNetworks(s string) (networks []netip.Prefix, err error) {
	if s == "none" {
		return nil, nil
	}
	var names list
	names.Set(s)
	for _, name := range names {
		network, err := netip.ParsePrefix(name)
		if addr, bad := netip.ParseAddr(name); bad == nil {
			network, err = netip.PrefixFrom(addr, addr.BitLen()), nil
		}
		if err != nil || network.Bits() == 0 {
			return nil, fmt.Errorf("%q: want networks such as 10.0.0.0/8, or addresses, but not all there are: the origin believes what they say", name)
		}
		networks = append(networks, network.Masked())
	}
	if networks == nil {
		return nil, errors.New("want networks such as 10.0.0.0/8, or none")
	}
	return networks, nil
}

// isLoopback reports whether only this machine reaches an address.
func isLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}
