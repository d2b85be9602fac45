package header

import (
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Directives are what a response's Cache-Control says (RFC 9111, section 5.2.2;
// RFC 5861). Durations are negative where they are not given.
type Directives struct {
	NoStore, NoCache, Private, MustRevalidate, NoTransform bool
	MustUnderstand                                         bool // no-store does not count for a cache that knows the status
	NoCacheFields, PrivateFields                           bool // no-cache or private names fields: of the rest it does not hold
	MaxAge, SMaxAge, StaleWhileRevalidate, StaleIfError    time.Duration
}

// ParseCacheControl reads Cache-Control lines. Names are not case-sensitive, of
// duplicates the first counts, arguments may be quoted, a number too large is
// the largest, and what is no number means stale. The qualified forms of private
// and no-cache count as the unqualified ones, too.
func ParseCacheControl(lines []string) Directives {
	d := Directives{MaxAge: -1, SMaxAge: -1, StaleWhileRevalidate: -1, StaleIfError: -1}
	for _, line := range lines {
		for line != "" {
			var name, arg string
			whole := line
			name, arg, line = cutDirective(line)
			qualified := strings.Contains(whole[:len(whole)-len(line)], "=")
			seconds := func(into *time.Duration) {
				if *into < 0 {
					*into = parseSeconds(arg)
				}
			}
			switch strings.ToLower(name) {
			case "no-store":
				d.NoStore = true
			case "no-cache":
				d.NoCache, d.NoCacheFields = true, d.NoCacheFields || qualified
			case "private":
				d.Private, d.PrivateFields = true, d.PrivateFields || qualified
			case "must-understand":
				d.MustUnderstand = true
			case "must-revalidate", "proxy-revalidate":
				d.MustRevalidate = true
			case "no-transform":
				d.NoTransform = true
			case "max-age":
				seconds(&d.MaxAge)
			case "s-maxage":
				seconds(&d.SMaxAge)
			case "stale-while-revalidate":
				seconds(&d.StaleWhileRevalidate)
			case "stale-if-error":
				seconds(&d.StaleIfError)
			}
		}
	}
	return d
}

// IsUnshared reports whether no shared cache may store the response. A private that names
// fields does not say so, nor does a no-store beside must-understand, which holds only for
// a cache that does not know the status (RFC 9111, sections 5.2.2.7 and 5.2.2.3).
func (d Directives) IsUnshared() bool {
	return d.Private && !d.PrivateFields || d.IsUnstored()
}

// IsUnstored reports whether no cache may store the response.
func (d Directives) IsUnstored() bool { return d.NoStore && !d.MustUnderstand }

// cutDirective cuts the first directive off a Cache-Control line.
func cutDirective(line string) (name, arg, rest string) {
	i := strings.IndexAny(line, "=,")
	if i < 0 || line[i] == ',' {
		name, rest, _ = strings.Cut(line, ",")
		return strings.Trim(name, " \t"), "", rest
	}
	name, line = strings.Trim(line[:i], " \t"), strings.TrimLeft(line[i+1:], " \t")
	if !strings.HasPrefix(line, `"`) {
		arg, rest, _ = strings.Cut(line, ",")
		return name, strings.Trim(arg, " \t"), rest
	}
	var b strings.Builder
	for i := 1; i < len(line); i++ {
		switch line[i] {
		case '"':
			_, rest, _ = strings.Cut(line[i:], ",")
			return name, b.String(), rest
		case '\\':
			if i++; i < len(line) {
				b.WriteByte(line[i])
			}
		default:
			b.WriteByte(line[i])
		}
	}
	return name, "", line[1:] // the quote is not closed: better to believe too much of it than too little
}

// parseSeconds reads delta-seconds (RFC 9111, section 1.2.2).
func parseSeconds(s string) time.Duration {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n > math.MaxInt32 {
		n = math.MaxInt32
	}
	return time.Duration(n) * time.Second
}

// ParseAge reads the Age of an upstream: of a list the first member counts, and
// what is no number counts as zero (RFC 9111, section 5.1).
func ParseAge(lines []string) time.Duration {
	for age := range List(lines) {
		return parseSeconds(age)
	}
	return 0
}

// Private is the Cache-Control of what is for one visitor alone.
const Private = "private, max-age=0"

// MakePrivate changes the headers of an answer to one visitor's own request so that
// no shared cache keeps it: public and s-maxage were said of the page. What the visitor's
// own browser may do with it stays as the handler wants it.
func MakePrivate(h http.Header) {
	DeleteTargeted(h)
	if lines := takeCacheControl(h); lines != nil {
		h["Cache-Control"] = lines
	}
	d := ParseCacheControl(h["Cache-Control"])
	if d.IsUnshared() {
		return
	}
	control := "private"
	switch {
	case d.MaxAge >= 0:
		control += fmt.Sprintf(", max-age=%d", d.MaxAge/time.Second)
	case h["Expires"] == nil:
		control = Private
	}
	for _, also := range [...]struct {
		said bool
		name string
	}{
		{d.NoCache, "no-cache"}, {d.MustRevalidate, "must-revalidate"}, {d.NoTransform, "no-transform"},
		{d.NoStore, "must-understand, no-store"},
	} {
		if also.said {
			control += ", " + also.name
		}
	}
	h["Cache-Control"] = []string{control}
}

// SetNoStore says that nobody keeps the response, whatever was said before.
func SetNoStore(h http.Header) {
	DeleteTargeted(h)
	takeCacheControl(h)
	h["Cache-Control"] = []string{"no-store"}
}

// takeCacheControl deletes Cache-Control, however it is spelled, and returns its lines.
func takeCacheControl(h http.Header) (lines []string) {
	lines = slices.Clip(h["Cache-Control"])
	for name, more := range h {
		if strings.EqualFold(name, "Cache-Control") {
			if name != "Cache-Control" {
				lines = append(lines, more...)
			}
			delete(h, name)
		}
	}
	return lines
}

// DeleteTargeted deletes the fields by which caches of one kind go instead of by
// Cache-Control (RFC 9213): what overrides the one has to override the others.
func DeleteTargeted(h http.Header) {
	for name := range h {
		if IsTargeted(name) {
			delete(h, name)
		}
	}
}

// LimitTargeted deletes those of the fields for caches of one kind by which they may keep a
// response for longer than some time, or may as far as can be told.
func LimitTargeted(h http.Header, most time.Duration) {
	for name, lines := range h {
		if IsTargeted(name) && !keepsAtMost(lines, http.CanonicalHeaderKey(name) == "X-Accel-Expires", most) {
			delete(h, name)
		}
	}
}

// keepsAtMost reports whether the lines of a targeted field, which may be a bare number of
// seconds, are sure to let nobody keep a response for longer than some time.
func keepsAtMost(lines []string, bare bool, most time.Duration) (sure bool) {
	if d := ParseCacheControl(lines); d.NoStore || d.NoCache || d.Private {
		return true
	}
	for _, line := range lines {
		if bare {
			line = "max-age=" + line
		}
		for line != "" {
			var name, arg string
			name, arg, line = cutDirective(line)
			switch {
			case arg == "":
				continue
			case strings.Trim(arg, "0123456789") != "" || parseSeconds(arg) > most:
				return false
			}
			sure = sure || strings.EqualFold(name, "max-age") || strings.EqualFold(name, "s-maxage")
		}
	}
	return sure
}

// IsTargeted reports whether a field is for caches of one kind alone (RFC 9213).
func IsTargeted(name string) bool {
	switch name = http.CanonicalHeaderKey(name); name {
	case "Cdn-Cache-Control", "Surrogate-Control", "Edge-Control", "X-Accel-Expires":
		return true
	}
	return strings.HasSuffix(name, "-Cdn-Cache-Control")
}

// Revoked returns the Cache-Control of a page that is shown although it was
// invalidated, instead of its own: stale for every cache downstream, and never wider
// shared than the original.
func Revoked(own string) string {
	switch d := ParseCacheControl([]string{own}); {
	case d.NoStore:
		return "no-store"
	case d.Private:
		return "private, max-age=0, must-revalidate"
	}
	return "public, max-age=0, must-revalidate"
}

// Shortened returns what a Cache-Control says, less what it promises for longer than
// some time: to browsers, which would guess where it is silent, to shared caches, and to
// those that show what is stale.
func Shortened(own string, limit time.Duration) string {
	limit, silent := max(0, limit), true
	var out []string
	for line := own; line != ""; {
		var name, arg string
		name, arg, line = cutDirective(line)
		switch directive := strings.ToLower(name); directive {
		case "":
			continue
		case "stale-while-revalidate", "stale-if-error", "immutable":
			continue
		case "max-age", "s-maxage":
			silent = silent && directive != "max-age"
			arg = strconv.FormatInt(int64(min(parseSeconds(arg), limit)/time.Second), 10)
		}
		if arg != "" {
			name += "=" + quoted(arg)
		}
		out = append(out, name)
	}
	if silent {
		d := ParseCacheControl([]string{own})
		if d.SMaxAge >= 0 {
			limit = 0 // what is said of shared caches is not said of browsers
		}
		out = append(out, "max-age="+strconv.FormatInt(int64(limit/time.Second), 10))
	}
	return strings.Join(out, ", ")
}

// SharedFor returns what a Cache-Control says, less what it promises to shared caches for
// longer than some time.
func SharedFor(own string, limit time.Duration) string {
	switch d := ParseCacheControl([]string{own}); {
	case d.IsUnshared():
		return own
	case d.SMaxAge >= 0:
		limit = min(limit, d.SMaxAge)
	case d.MaxAge >= 0:
		limit = min(limit, d.MaxAge)
	}
	var out []string
	for line := own; line != ""; {
		var name, arg string
		name, arg, line = cutDirective(line)
		if strings.EqualFold(name, "s-maxage") || name == "" {
			continue
		}
		if arg != "" {
			name += "=" + quoted(arg)
		}
		out = append(out, name)
	}
	return strings.Join(append(out, "s-maxage="+strconv.FormatInt(int64(limit/time.Second), 10)), ", ")
}

// quoted returns an argument as a directive may have it.
func quoted(arg string) string {
	if IsToken(arg) {
		return arg
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(arg) + `"`
}

// IsPersonal reports whether outer middleware has made a response one visitor's
// own, by the headers that it has set.
func IsPersonal(h http.Header) bool {
	outer := ParseCacheControl(h["Cache-Control"])
	return outer.Private || outer.NoStore || h["Set-Cookie"] != nil
}

// RetryAfter returns how long a failing handler asks to be left alone (RFC 9110,
// section 10.2.3), or zero.
func RetryAfter(h http.Header) time.Duration {
	v := h.Get("Retry-After")
	if at, ok := ParseDate(v); ok {
		return max(0, time.Until(at))
	}
	return parseSeconds(trimSpace(v))
}
