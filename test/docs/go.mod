module github.com/isr-go/isr/test/docs

go 1.25.0

require (
	github.com/alexedwards/scs/v2 v2.9.0
	github.com/isr-go/isr v0.0.0
	github.com/isr-go/isr/store/redis v0.0.0
	github.com/redis/rueidis v1.0.70
	go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp v0.71.0
	go.opentelemetry.io/otel v1.46.0
	go.opentelemetry.io/otel/sdk v1.46.0
)

require (
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/felixge/httpsnoop v1.1.0 // indirect
	github.com/go-logr/logr v1.4.4 // indirect
	github.com/go-logr/stdr v1.2.2 // indirect
	github.com/google/uuid v1.6.0 // indirect
	github.com/hashicorp/golang-lru/v2 v2.0.7 // indirect
	go.opentelemetry.io/auto/sdk v1.2.1 // indirect
	go.opentelemetry.io/otel/metric v1.46.0 // indirect
	go.opentelemetry.io/otel/trace v1.46.0 // indirect
	golang.org/x/sys v0.47.0 // indirect
)

replace (
	github.com/isr-go/isr => ../..
	github.com/isr-go/isr/store/redis => ../../store/redis
)
