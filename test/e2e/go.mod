module github.com/isr-go/isr/test/e2e

go 1.25.0

tool github.com/isr-go/isr/examples/blog

require (
	github.com/chromedp/cdproto v0.159.0
	github.com/chromedp/chromedp v0.23.0
	github.com/isr-go/isr v0.0.0
)

require (
	github.com/go-json-experiment/json v0.0.0-20260213210345-44df1a37e875 // indirect
	github.com/hashicorp/golang-lru/v2 v2.0.7 // indirect
)

replace github.com/isr-go/isr => ../..
