package backing

import (
	"runtime/debug"
	"testing"
)

// Builds that differ have names that do.
func TestRevision(t *testing.T) {
	setting := func(key, value string) debug.BuildSetting { return debug.BuildSetting{Key: key, Value: value} }
	rev, at := setting("vcs.revision", "abc"), setting("vcs.time", "2026-01-02T03:04:05Z")
	for want, settings := range map[string][]debug.BuildSetting{
		"":                         nil,
		"abc":                      {rev, at, setting("vcs.modified", "false")},
		"abc+2026-01-02T03:04:05Z": {rev, at, setting("vcs.modified", "true")},
	} {
		if got := revision(settings); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// Programs and builds that differ have keys that do, wherever the one name ends and
// the other begins.
func TestBuildName(t *testing.T) {
	seen := make(map[string]bool)
	for _, names := range [][2]string{{"example.com/wiki", "1"}, {"example.com/shop", "1"}, {"example.com/shop", "12"}, {"example.com/shop1", "2"}, {"", ""}} {
		seen[buildName(names[0], names[1])] = true
	}
	if len(seen) != 5 {
		t.Errorf("%d of 5 differ: %v", len(seen), seen)
	}
}
