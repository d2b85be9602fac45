package header

import (
	"net/http"
	"testing"
	"time"
)

// Of the fields for caches of one kind those stay that are sure to keep within a bound.
func TestLimitTargeted(t *testing.T) {
	for line, want := range map[[2]string]bool{
		{"CDN-Cache-Control", "max-age=60"}:                            true,
		{"CDN-Cache-Control", "max-age=61"}:                            false,
		{"CDN-Cache-Control", `S-MaxAge="60", public`}:                 true,
		{"CDN-Cache-Control", "max-age=60, s-maxage=61"}:               false,
		{"CDN-Cache-Control", "max-age=60, stale-while-revalidate=90"}: false,
		{"CDN-Cache-Control", "max-age=3600, no-store"}:                true,
		{"CDN-Cache-Control", "no-cache"}:                              true,
		{"CDN-Cache-Control", "private"}:                               true,
		{"CDN-Cache-Control", "public"}:                                false,
		{"cdn-cache-control", "max-age=61"}:                            false,
		{"Cloudflare-CDN-Cache-Control", "max-age=soon"}:               false,
		{"Surrogate-Control", "max-age=10+600"}:                        false,
		{"Edge-Control", "max-age=1d"}:                                 false,
		{"X-Accel-Expires", "60"}:                                      true,
		{"X-Accel-Expires", "0"}:                                       true,
		{"X-Accel-Expires", "61"}:                                      false,
		{"X-Accel-Expires", "@60"}:                                     false,
		{"Cache-Control", "max-age=61"}:                                true, // is for all
	} {
		h := http.Header{line[0]: {line[1]}}
		LimitTargeted(h, time.Minute)
		if _, got := h[line[0]]; got != want {
			t.Errorf("%s: %s stays: %v", line[0], line[1], got)
		}
	}
}
