package header

import (
	"strconv"
	"strings"
)

// AcceptsGzip reports whether gzip is at least as welcome as no encoding
// (RFC 9110, section 12.5.3).
func AcceptsGzip(lines []string) bool {
	if len(lines) == 1 && strings.HasPrefix(lines[0], "gzip, ") && !strings.Contains(lines[0], ";") {
		return true // as all browsers say it
	}
	zipped, identity, any := -1, -1, -1 // thousandths
	for e := range List(lines) {
		coding, params, _ := strings.Cut(e, ";")
		q := 1000
		if params != "" {
			q = quality(params)
		}
		switch coding = trimSpace(coding); {
		case strings.EqualFold(coding, "gzip"), strings.EqualFold(coding, "x-gzip"):
			zipped = q
		case strings.EqualFold(coding, "identity"):
			identity = q
		case coding == "*":
			any = q
		}
	}
	if zipped < 0 {
		zipped = any
	}
	return zipped > 0 && zipped >= identity
}

// quality reads a weight (RFC 9110, section 12.4.2) in thousandths; what is no
// number from 0 to 1 is zero.
func quality(params string) int {
	name, value, ok := strings.Cut(strings.Trim(params, " \t"), "=")
	if !ok || !strings.EqualFold(strings.TrimRight(name, " \t"), "q") {
		return 0
	}
	q, err := strconv.ParseFloat(strings.Trim(value, " \t"), 64)
	if err != nil || !(q >= 0 && q <= 1) {
		return 0
	}
	return int(q * 1000)
}
