module github.com/isr-go/isr/store/redis

go 1.25.0

require (
	github.com/alicebob/miniredis/v2 v2.36.1
	github.com/google/go-cmp v0.7.0
	github.com/isr-go/isr v0.0.0
	github.com/redis/rueidis v1.0.70
)

require (
	github.com/hashicorp/golang-lru/v2 v2.0.7 // indirect
	github.com/yuin/gopher-lua v1.1.1 // indirect
	golang.org/x/sys v0.39.0 // indirect
)

replace github.com/isr-go/isr => ../..
