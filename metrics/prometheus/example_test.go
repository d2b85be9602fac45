package prometheus_test

import (
	"log"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/isr-go/isr"
	isrprom "github.com/isr-go/isr/metrics/prometheus"
)

func Example() {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /time", func(w http.ResponseWriter, r *http.Request) { w.Write([]byte(time.Now().String())) })

	metrics := isrprom.New(isrprom.Options{})
	site := isr.Wrap(mux, isr.Options{
		Routes:  map[string]isr.Route{"/time": {TTL: 10 * time.Second}},
		Observe: metrics.Observe,
	})
	prometheus.MustRegister(metrics.Collector(site))

	http.Handle("/", site)
	http.Handle("/metrics", promhttp.Handler())
	log.Fatal(http.ListenAndServe("localhost:8080", nil))
}
