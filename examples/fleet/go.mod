module github.com/isr-go/isr/examples/fleet

go 1.25.0

require (
	github.com/isr-go/isr v0.0.0
	github.com/isr-go/isr/store/redis v0.0.0
	github.com/redis/rueidis v1.0.70
)

require (
	github.com/hashicorp/golang-lru/v2 v2.0.7 // indirect
	golang.org/x/sys v0.39.0 // indirect
)

replace (
	github.com/isr-go/isr => ../..
	github.com/isr-go/isr/store/redis => ../../store/redis
)
