package inspect

import (
	"fmt"
	"time"
	"unicode/utf8"
)

// clip shortens a text that may be of any length, since it comes from a visitor
// or from the handler.
func clip(n int, s string) string {
	if len(s) <= n {
		return s
	}
	cut := n
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}

// list returns at most n of a list, and how many more there are.
func list(n int, all []string) (l struct {
	Items []string
	More  int
}) {
	l.Items = all[:min(n, len(all))]
	l.More = len(all) - len(l.Items)
	return l
}

// formatCount returns a whole number, which is not negative, with its thousands
// set apart.
func formatCount(n any) string {
	digits := fmt.Sprint(n)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

func formatBytes(n int64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	value, unit := float64(n)/1024, 0
	for value >= 1024 && unit < len(units)-1 {
		value, unit = value/1024, unit+1
	}
	return fmt.Sprintf("%.1f %ciB", value, units[unit])
}

// formatDuration returns how long something took.
func formatDuration(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return fmt.Sprintf("%d µs", d.Microseconds())
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

func formatSeconds(s float64) string { return formatDuration(time.Duration(s * float64(time.Second))) }

// formatSpan returns an age. The script does the same as time goes on.
func formatSpan(seconds float64) string {
	s := int64(seconds)
	switch {
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 60*60:
		return fmt.Sprintf("%dm %ds", s/60, s%60)
	case s < 24*60*60:
		return fmt.Sprintf("%dh %dm", s/(60*60), s/60%60)
	}
	return fmt.Sprintf("%dd %dh", s/(24*60*60), s/(60*60)%24)
}

// seconds returns d in seconds, as exactly as people read it.
func seconds(d time.Duration) float64 {
	if d > -time.Second && d < time.Second {
		return d.Round(time.Microsecond).Seconds()
	}
	return d.Round(time.Millisecond).Seconds()
}
