module github.com/isr-go/isr/encoders/brotli

go 1.25.0

require (
	github.com/andybalholm/brotli v1.2.1
	github.com/isr-go/isr v0.0.0
)

require github.com/hashicorp/golang-lru/v2 v2.0.7 // indirect

replace github.com/isr-go/isr => ../..
