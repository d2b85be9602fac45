package backing

import (
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/isr-go/isr/internal/pagekey"
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
// the other begins: by the path of the main package, by Options.Version, and without that
// by the revision.
func TestBuildName(t *testing.T) {
	program := func(path string) *debug.BuildInfo {
		return &debug.BuildInfo{Path: path, Settings: []debug.BuildSetting{{Key: "vcs.revision", Value: "abc"}}}
	}
	names, manifests := make(map[string]bool), make(map[string]bool)
	for _, path := range []string{"example.com/wiki", "example.com/shop", "example.com/shop1", ""} {
		for _, version := range []string{"", "1", "11"} {
			name, distinct := buildName(program(path), version)
			if names[name] || !distinct {
				t.Errorf("%s, version %q: %q is that of another program, or none", path, version, name)
			}
			names[name] = true
		}
		for _, o := range []pagekey.Origin{{}, {Scheme: "https", Host: "example.com"}, {Scheme: "https", Host: "example.org"}} {
			key := manifestKey(program(path), o)
			if manifests[key] {
				t.Errorf("%s, %v: the manifest is that of another program", path, o)
			}
			manifests[key] = true
		}
	}
	if name, distinct := buildName(new(debug.BuildInfo), ""); distinct {
		t.Errorf("%q tells builds apart by nothing", name)
	}
	info := readBuildInfo()
	if name, _ := BuildName("1"); !strings.Contains(name, info.Path) || ManifestKey(pagekey.Origin{}) != manifestKey(info, pagekey.Origin{}) {
		t.Errorf("%q is not of %s", name, info.Path)
	}
}

// A program is told by its main package, and where that has no path by its executable.
func TestProgramInfo(t *testing.T) {
	for want, info := range map[string]*debug.BuildInfo{
		"example.com/wiki": {Path: "example.com/wiki"},
		"shop":             {Path: "command-line-arguments"}, // of go run shop.go
		"unknown":          nil,
	} {
		if got := programInfo(info, filepath.Join("tmp", "b001", filepath.Base(want))).Path; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
