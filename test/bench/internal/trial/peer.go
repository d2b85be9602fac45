// Package trial is what a cache under trial runs in: the interface that puts
// every cache on the same footing, the handler that all of them wrap, and the
// child process that both live in. The load and the judgement are the command's.
package trial

import (
	"iter"
	"net"
	"net/http"
	"time"
)

// PageBytes is the size of a page of /page/, /hot/ and /oneoff/.
const PageBytes = 10 << 10

// A Peer is a cache for net/http handlers, set up as its own documents say.
type Peer struct {
	Name       string // in tables
	Module     string // the module whose version is shown; empty for what is the standard library's
	Doc        string // where the configuration is recommended
	Setup      string // that configuration in a line
	OwnServer  bool   // whether it cannot be served by net/http
	Floor      bool   // no cache at all: what the others are compared with
	Keeps      bool   // of a floor: whether it keeps pages, so that they take memory
	Background bool   // whether it runs the handler when no visitor waits for it
	Bounded    bool   // whether its memory has a bound

	// New wraps h.
	New func(h http.Handler, c Config) (*Cache, error)
}

// Config is what the caches have to agree on.
type Config struct {
	TTL   time.Duration // how long a page is fresh; whole seconds
	Grace time.Duration // how much longer it may be shown, by those that can
	Bytes int64         // memory for pages; those that count pages take Bytes / PageBytes of them
	Dir   string        // for what is to survive a restart; empty: nothing
}

// Entries is Bytes for caches that count pages.
func (c Config) Entries() int { return int(c.Bytes / PageBytes) }

// A Cache is a peer at work. What it cannot do is nil.
type Cache struct {
	Handler   http.Handler
	Serve     func(net.Listener) error // where it has a server of its own
	Purge     func(path string) error
	PurgeTag  func(tag string) error
	Prerender func(paths iter.Seq[string]) error
	Close     func() error // before the process ends
}
