module github.com/isr-go/isr/test/sites

go 1.25.0

tool github.com/isr-go/isr/cmd/isrproxy

require (
	github.com/chromedp/cdproto v0.159.0
	github.com/chromedp/chromedp v0.23.0
	github.com/isr-go/isr v0.0.0
)

require (
	github.com/andybalholm/brotli v1.2.1 // indirect
	github.com/beorn7/perks v1.0.1 // indirect
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/go-json-experiment/json v0.0.0-20260213210345-44df1a37e875 // indirect
	github.com/hashicorp/golang-lru/v2 v2.0.7 // indirect
	github.com/isr-go/isr/cmd/isrproxy v0.0.0 // indirect
	github.com/isr-go/isr/encoders/brotli v0.0.0 // indirect
	github.com/isr-go/isr/encoders/zstd v0.0.0 // indirect
	github.com/isr-go/isr/metrics/prometheus v0.0.0 // indirect
	github.com/isr-go/isr/store/postgres v0.0.0 // indirect
	github.com/isr-go/isr/store/redis v0.0.0 // indirect
	github.com/jackc/pgpassfile v1.0.0 // indirect
	github.com/jackc/pgservicefile v0.0.0-20240606120523-5a60cdf6a761 // indirect
	github.com/jackc/pgx/v5 v5.7.6 // indirect
	github.com/jackc/puddle/v2 v2.2.2 // indirect
	github.com/klauspost/compress v1.19.1 // indirect
	github.com/munnerz/goautoneg v0.0.0-20191010083416-a7dc8b61c822 // indirect
	github.com/prometheus/client_golang v1.24.1 // indirect
	github.com/prometheus/client_model v0.6.2 // indirect
	github.com/prometheus/common v0.70.1 // indirect
	github.com/prometheus/procfs v0.21.1 // indirect
	github.com/redis/rueidis v1.0.70 // indirect
	golang.org/x/crypto v0.37.0 // indirect
	golang.org/x/sync v0.22.0 // indirect
	golang.org/x/sys v0.47.0 // indirect
	golang.org/x/text v0.40.0 // indirect
	google.golang.org/protobuf v1.36.11 // indirect
)

replace (
	github.com/isr-go/isr => ../..
	github.com/isr-go/isr/cmd/isrproxy => ../../cmd/isrproxy
	github.com/isr-go/isr/encoders/brotli => ../../encoders/brotli
	github.com/isr-go/isr/encoders/zstd => ../../encoders/zstd
	github.com/isr-go/isr/metrics/prometheus => ../../metrics/prometheus
	github.com/isr-go/isr/store/postgres => ../../store/postgres
	github.com/isr-go/isr/store/redis => ../../store/redis
)
