package header

import (
	"strconv"
	"strings"
)

// Accepts returns how welcome a content coding is, in thousandths: zero where it is not
// accepted, or less welcome than no encoding (RFC 9110, section 12.5.3). The coding is in
// lower case; gzip is x-gzip, too.
func Accepts(lines []string, coding string) (weight int) {
	if len(lines) == 1 && isListed(lines[0], coding) {
		return 1000 // as all browsers say it
	}
	own, identity, any := -1, -1, -1
	for e := range List(lines) {
		name, params, _ := strings.Cut(e, ";")
		q := 1000
		if params != "" {
			q = quality(params)
		}
		switch name = trimSpace(name); {
		case strings.EqualFold(name, coding), coding == "gzip" && strings.EqualFold(name, "x-gzip"):
			own = q
		case strings.EqualFold(name, "identity"):
			identity = q
		case name == "*":
			any = q
		}
	}
	if own < 0 {
		own = any
	}
	if own < identity {
		return 0
	}
	return max(0, own)
}

// isListed reports whether a line without weights has a coding.
func isListed(line, coding string) bool {
	if strings.IndexByte(line, ';') >= 0 {
		return false
	}
	for i := 0; ; {
		n := strings.Index(line[i:], coding)
		if n < 0 {
			return false
		}
		before := strings.TrimRight(line[:i+n], " \t")
		i += n + len(coding)
		if (before == "" || before[len(before)-1] == ',') && (i == len(line) || line[i] == ',') {
			return true
		}
	}
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
