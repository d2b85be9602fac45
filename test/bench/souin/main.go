//go:build souin

// Command souin is the child process of the benchmark that holds Souin. It is a
// module of its own, because Souin brings the whole of Caddy with it.
package main

import (
	"log"
	"net/http"
	"net/http/httptest"

	"github.com/darkweak/souin/configurationtypes"
	"github.com/darkweak/souin/pkg/middleware"

	"github.com/isr-go/isr/test/bench/internal/trial"
)

func main() {
	if err := trial.Child([]trial.Peer{peer}); err != nil {
		log.Fatal(err)
	}
}

// Souin's plugins for net/http routers are a dozen lines around this handler;
// this is what they do with their DefaultConfiguration, which names TTL and Stale.
var peer = trial.Peer{
	Name: "Souin", Module: "github.com/darkweak/souin", Background: true,
	New: func(h http.Handler, c trial.Config) (*trial.Cache, error) {
		souin := middleware.NewHTTPCacheHandler(&middleware.BaseConfiguration{
			DefaultCache: &configurationtypes.DefaultCache{
				TTL:   configurationtypes.Duration{Duration: c.TTL},
				Stale: configurationtypes.Duration{Duration: c.Grace},
			},
			API: configurationtypes.API{
				BasePath: "/souin-api",
				Souin:    configurationtypes.APIEndpoint{Enable: true},
			},
			LogLevel: "error",
		})
		handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			souin.ServeHTTP(w, r, func(w http.ResponseWriter, r *http.Request) error {
				h.ServeHTTP(w, r)
				return nil
			})
		})
		purge := func(target string, header, value string) error {
			r := httptest.NewRequest("PURGE", target, nil)
			r.RequestURI = target
			if header != "" {
				r.Header.Set(header, value)
			}
			handler.ServeHTTP(httptest.NewRecorder(), r)
			return nil
		}
		return &trial.Cache{
			Handler: handler,
			// By the very key: the default storage does not purge by pattern.
			Purge:    func(path string) error { return purge("/souin-api/souin/GET-http-example.com-"+path, "", "") },
			PurgeTag: func(tag string) error { return purge("/souin-api/souin", "Surrogate-Key", tag) },
		}, nil
	},
}
