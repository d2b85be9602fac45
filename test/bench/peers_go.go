package main

import (
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"time"

	gincache "github.com/chenyahui/gin-cache"
	"github.com/chenyahui/gin-cache/persist"
	"github.com/gin-gonic/gin"
	"github.com/go-chi/stampede"
	"github.com/gofiber/fiber/v3"
	"github.com/gofiber/fiber/v3/middleware/adaptor"
	fibercache "github.com/gofiber/fiber/v3/middleware/cache"
	"github.com/jellydator/ttlcache/v2"
	"github.com/kevburnsjr/microcache"
	httpcache "github.com/victorspringer/http-cache"
	"github.com/victorspringer/http-cache/adapter/memory"

	"github.com/isr-go/isr/test/bench/internal/trial"
)

// Each cache is set up as its own documents recommend; where they leave a choice,
// the one that is better for it is made.
var goPeers = []trial.Peer{
	{
		// The README's example, with its key headers. It wants goware/cachestore-mem
		// for its backend: an LRU of values with an expiry each, as ours is.
		Name: "stampede", Module: "github.com/go-chi/stampede", Bounded: true,
		Doc:   "https://github.com/go-chi/stampede/blob/v0.9.1/README.md",
		Setup: "`Handler(logger, cache, ttl, WithHTTPCacheKeyRequestHeaders({\"Authorization\"}))`, an LRU behind it",
		New: func(h http.Handler, c trial.Config) (*trial.Cache, error) {
			wrap := stampede.Handler(slog.New(slog.NewTextHandler(io.Discard, nil)), newLRUBackend(c.Entries()), c.TTL,
				stampede.WithHTTPCacheKeyRequestHeaders([]string{"Authorization"}))
			return &trial.Cache{Handler: wrap(h)}, nil
		},
	},
	{
		// The README's example, less its monitor. Nocache is off, as there is no
		// handler here that would set microcache-cache: 1.
		Name: "microcache", Module: "github.com/kevburnsjr/microcache", Background: true, Bounded: true,
		Doc:   "https://github.com/kevburnsjr/microcache/blob/v1.2.0/README.md",
		Setup: "the README's `Config`: collapsed forwarding, stale while revalidate and if error, `HashQuery`, Snappy, `NewDriverLRU`",
		New: func(h http.Handler, c trial.Config) (*trial.Cache, error) {
			cache := microcache.New(microcache.Config{
				Timeout:              3 * time.Second,
				TTL:                  c.TTL,
				StaleIfError:         c.Grace,
				StaleRecache:         true,
				StaleWhileRevalidate: c.Grace,
				CollapsedForwarding:  true,
				HashQuery:            true,
				QueryIgnore:          []string{},
				Driver:               microcache.NewDriverLRU(c.Entries()),
				Compressor:           microcache.CompressorSnappy{},
			})
			handler := cache.Middleware(h)
			return &trial.Cache{
				Handler: handler,
				// A successful unsafe request to the address is its way to purge.
				Purge: func(path string) error {
					handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, path, nil))
					return nil
				},
			}, nil
		},
	},
	{
		Name: "http-cache", Module: "github.com/victorspringer/http-cache", Bounded: true,
		Doc:   "https://github.com/victorspringer/http-cache/blob/7d9f48f8ab91/README.md",
		Setup: "`ClientWithAdapter(memory LRU)`, `ClientWithTTL`, `ClientWithRefreshKey(\"opn\")`",
		New: func(h http.Handler, c trial.Config) (*trial.Cache, error) {
			adapter, err := memory.NewAdapter(
				memory.AdapterWithAlgorithm(memory.LRU),
				memory.AdapterWithCapacity(c.Entries()),
			)
			if err != nil {
				return nil, err
			}
			client, err := httpcache.NewClient(
				httpcache.ClientWithAdapter(adapter),
				httpcache.ClientWithTTL(c.TTL),
				httpcache.ClientWithRefreshKey("opn"),
			)
			if err != nil {
				return nil, err
			}
			handler := client.Middleware(h)
			return &trial.Cache{
				Handler: handler,
				// A request with the refresh key renews the page.
				Purge: func(path string) error {
					handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, path+"?opn=1", nil))
					return nil
				},
			}, nil
		},
	},
	{
		Name: "gin-cache", Module: "github.com/chenyahui/gin-cache",
		Doc:   "https://github.com/chenyahui/gin-cache/blob/v1.10.0/readme.md",
		Setup: "`CacheByRequestURI(persist.NewMemoryStore(…), ttl)` in Gin",
		New: func(h http.Handler, c trial.Config) (*trial.Cache, error) {
			gin.SetMode(gin.ReleaseMode)
			store := persist.NewMemoryStore(time.Minute)
			app := gin.New()
			app.GET("/*path", gincache.CacheByRequestURI(store, c.TTL), gin.WrapH(h))
			app.HEAD("/*path", gin.WrapH(h))
			return &trial.Cache{Handler: app, Purge: func(path string) error {
				if err := store.Delete(path); err != ttlcache.ErrNotFound {
					return err
				}
				return nil
			}}, nil
		},
	},
	{
		Name: "fiber cache", Module: "github.com/gofiber/fiber/v3", OwnServer: true, Bounded: true,
		Doc:   "https://github.com/gofiber/fiber/blob/v3.3.0/docs/middleware/cache.md",
		Setup: "`cache.New(cache.Config{Expiration, MaxBytes})`; its own server (fasthttp), the handler by `adaptor`",
		New: func(h http.Handler, c trial.Config) (*trial.Cache, error) {
			app := fiber.New()
			app.Use(fibercache.New(fibercache.Config{Expiration: c.TTL, MaxBytes: uint(c.Bytes)}))
			app.Use(adaptor.HTTPHandler(h))
			return &trial.Cache{Serve: func(l net.Listener) error {
				return app.Listener(l, fiber.ListenConfig{DisableStartupMessage: true})
			}}, nil
		},
	},
}

// missingPeers are caches that belong here and are not.
var missingPeers = []string{
	"motoki317/swr-cache v0.0.7: the module proxy that this was written with does not serve it. Where yours does, `go get github.com/motoki317/swr-cache@v0.0.7` " +
		"in test/bench, and make it a `trial.Peer` in peers_go.go with `swrcache.NewWithProxy`",
	"soulteary/httpcache-kit v1.0.0: needs Go 1.25.4, and so would everything in this workspace",
}

// allPeers are those that this program can be a child with.
func allPeers() []trial.Peer {
	peers := append([]trial.Peer{isrPeer}, goPeers...)
	return append(append(peers, floors...), originPeer)
}
