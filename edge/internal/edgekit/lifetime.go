package edgekit

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/isr-go/isr/internal/header"
)

// Lifetime returns how long the page with a header is fresh, how much of that is over,
// and whether the header says so.
func Lifetime(h http.Header) (ttl, age time.Duration, ok bool) {
	c := header.ParseCacheControl(h["Cache-Control"])
	if ttl = c.SMaxAge; ttl < 0 {
		ttl = c.MaxAge
	}
	if ttl < 0 || c.NoStore || c.Private {
		return 0, 0, false
	}
	return ttl, max(header.ParseAge(h["Age"]), 0), true
}

// SetMaxAge gives the page its lifetime in a targeted field, unless the handler has
// said something there.
func SetMaxAge(h http.Header, field string) {
	ttl, _, ok := Lifetime(h)
	if !ok || h[field] != nil {
		return
	}
	h[field] = []string{"max-age=" + strconv.FormatInt(int64(ttl/time.Second), 10)}
}

// VariesBy returns a field that the page's variants depend on, if there is one beside
// Accept-Encoding and those that are named.
func VariesBy(h http.Header, names []string) string {
	for name := range header.List(h["Vary"]) {
		if !strings.EqualFold(name, "Accept-Encoding") && !contains(names, name) {
			return name
		}
	}
	return ""
}

func contains(names []string, name string) bool {
	for _, n := range names {
		if strings.EqualFold(n, name) {
			return true
		}
	}
	return false
}
