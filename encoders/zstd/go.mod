module github.com/isr-go/isr/encoders/zstd

go 1.25.0

require (
	github.com/isr-go/isr v0.0.0
	github.com/klauspost/compress v1.18.6
)

require github.com/hashicorp/golang-lru/v2 v2.0.7 // indirect

replace github.com/isr-go/isr => ../..
