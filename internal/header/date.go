package header

import (
	"net/http"
	"strings"
	"time"
)

const rfc850 = "Monday, 02-Jan-06 15:04:05 GMT"

// dateLayouts are those of RFC 9110, section 5.6.7: the day of an asctime-date is two
// digits, or a space and one.
var dateLayouts = [...]string{http.TimeFormat, rfc850, time.ANSIC, "Mon Jan 02 15:04:05 2006"}

// ParseDate reads an HTTP-date (RFC 9110, section 5.6.7), whose letters may be of another
// case (RFC 9111, section 4.2). Unlike http.ParseTime it takes no single digits, further
// spaces, fractions of a second, or a wrong day of the week.
func ParseDate(s string) (t time.Time, ok bool) {
	s = trimSpace(s)
	if n := len(s) - len("GMT"); n > 0 && s[n:] != "GMT" && strings.EqualFold(s[n:], "GMT") {
		s = s[:n] + "GMT"
	}
	var leap time.Duration
	if strings.Contains(s, " 23:59:60 ") {
		s, leap = strings.Replace(s, ":60", ":59", 1), time.Second
	}
	for _, layout := range dateLayouts {
		t, err := time.Parse(layout, s)
		if err != nil {
			continue
		}
		if layout == rfc850 {
			t = inCentury(t)
		}
		var b [40]byte
		if strings.EqualFold(string(t.AppendFormat(b[:0], layout)), s) {
			return t.Add(leap), true
		}
	}
	return t, false
}

// inCentury returns a time whose year was written in two digits: one that seems to be more
// than 50 years in the future is in the past (RFC 9110, section 5.6.7).
func inCentury(t time.Time) time.Time {
	latest := time.Now().AddDate(50, 0, 0)
	for t.After(latest) {
		t = t.AddDate(-100, 0, 0)
	}
	for next := t.AddDate(100, 0, 0); !next.After(latest); next = t.AddDate(100, 0, 0) {
		t = next
	}
	return t
}

// PlainDate returns the one HTTP-date that a header is in the preferred format, which
// package net/http reads, too.
func PlainDate(lines []string) (date string, ok bool) {
	if len(lines) != 1 {
		return "", false
	}
	t, ok := ParseDate(lines[0])
	if !ok {
		return "", false
	}
	var b [40]byte
	if plain := t.AppendFormat(b[:0], http.TimeFormat); string(plain) != lines[0] {
		return string(plain), true
	}
	return lines[0], true
}
