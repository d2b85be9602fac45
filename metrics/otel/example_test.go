package otel_test

import (
	"log"
	"net/http"
	"time"

	"github.com/isr-go/isr"
	isrotel "github.com/isr-go/isr/metrics/otel"
)

func Example() {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /time", func(w http.ResponseWriter, r *http.Request) { w.Write([]byte(time.Now().String())) })

	telemetry, err := isrotel.New(isrotel.Options{}) // otel.SetMeterProvider and SetTracerProvider say where to
	if err != nil {
		log.Fatal(err)
	}
	site := isr.Wrap(mux, isr.Options{
		Routes:  map[string]isr.Route{"/time": {TTL: 10 * time.Second}},
		Observe: telemetry.Observe,
		Trace:   telemetry.Trace,
	})
	if _, err := telemetry.Register(site); err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.ListenAndServe("localhost:8080", site))
}
