module github.com/isr-go/isr

go 1.25.0

require github.com/hashicorp/golang-lru/v2 v2.0.7

require github.com/google/go-cmp v0.7.0
