package backing

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"os"
	"path/filepath"
	"runtime/debug"

	"github.com/isr-go/isr/internal/pagekey"
)

// BuildName returns what the keys of a program's build begin with. An empty version
// stands for the VCS revision in the binary. It reports false where nothing tells this
// build from others of the program.
func BuildName(version string) (name string, distinct bool) {
	return buildName(readBuildInfo(), version)
}

// buildName is BuildName for a program. Its path is in the name beside the version, since
// all programs of a repository have one revision.
func buildName(info *debug.BuildInfo, version string) (name string, distinct bool) {
	if version == "" {
		version = revision(info.Settings)
	}
	return string(pagekey.AppendString(pagekey.AppendString(nil, info.Path), version)), version != ""
}

// readBuildInfo returns what the Go command has recorded in the binary, by programInfo.
func readBuildInfo() *debug.BuildInfo {
	info, _ := debug.ReadBuildInfo()
	executable, _ := os.Executable()
	return programInfo(info, executable)
}

// programInfo returns info with a Path that tells the program from others. Where nothing is
// recorded, or the program was built of files (go run main.go), so that its package has no
// path, that is the name of the executable.
func programInfo(info *debug.BuildInfo, executable string) *debug.BuildInfo {
	if info == nil {
		info = new(debug.BuildInfo)
	}
	if info.Path == "" || info.Path == "command-line-arguments" {
		info.Path = filepath.Base(executable)
	}
	return info
}

// revision returns the VCS revision of a build, or nothing where that does not tell
// it from others.
func revision(settings []debug.BuildSetting) string {
	m := make(map[string]string)
	for _, s := range settings {
		m[s.Key] = s.Value
	}
	if m["vcs.modified"] == "true" {
		return m["vcs.revision"] + "+" + m["vcs.time"]
	}
	return m["vcs.revision"]
}

// ManifestKey returns the key of what the builds of a program know of each other. Sites of
// several origins have one each.
func ManifestKey(o pagekey.Origin) string { return manifestKey(readBuildInfo(), o) }

// manifestKey is ManifestKey for a program.
func manifestKey(info *debug.BuildInfo, o pagekey.Origin) string {
	b := []byte{0xff} // no page's key begins like this
	for _, s := range [...]string{"manifest", info.Path, o.Scheme, o.Host} {
		b = pagekey.AppendString(b, s)
	}
	return keyOf(b)
}

func keyOf(b []byte) string {
	sum := sha256.Sum256(b)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// Key returns the key of a page in the Store.
func (s *Store) Key(k *pagekey.Key) string { return s.KeyIn(s.c.Build, k) }

// KeyIn returns the key of a page in the Store that a build has made. Host and scheme are always part of it,
// since other sites may use the same Store; and so is where they are from, since a Host
// that a visitor has sent is not an Options.Origin.
func (s *Store) KeyIn(build string, k *pagekey.Key) string {
	b, o := []byte(build), s.c.Origin
	if o.Host != "" {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	b = pagekey.AppendString(b, cmp.Or(k.Scheme, o.Scheme))
	b = pagekey.AppendString(b, cmp.Or(k.Host, o.Host))
	b = pagekey.AppendString(b, k.Path)
	b = pagekey.AppendString(b, k.Pattern)
	b = pagekey.AppendString(b, k.Query)
	return keyOf(append(b, k.Variant...))
}
