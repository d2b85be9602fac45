module github.com/isr-go/isr/test/encoders

go 1.25.0

require (
	github.com/isr-go/isr v0.0.0
	github.com/isr-go/isr/encoders/brotli v0.0.0
	github.com/isr-go/isr/encoders/zstd v0.0.0
)

require (
	github.com/andybalholm/brotli v1.2.1 // indirect
	github.com/hashicorp/golang-lru/v2 v2.0.7 // indirect
	github.com/klauspost/compress v1.18.6 // indirect
)

replace (
	github.com/isr-go/isr => ../..
	github.com/isr-go/isr/encoders/brotli => ../../encoders/brotli
	github.com/isr-go/isr/encoders/zstd => ../../encoders/zstd
)
