package backing

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"runtime/debug"

	"github.com/isr-go/isr/internal/pagekey"
)

// BuildName returns what the keys of a program's build begin with. An empty version
// stands for the VCS revision in the binary. It reports false where nothing tells this
// build from others of the program.
func BuildName(version string) (name string, distinct bool) {
	var program string
	if info, ok := debug.ReadBuildInfo(); ok {
		program = info.Path
		if version == "" {
			version = revision(info.Settings)
		}
	}
	return buildName(program, version), version != ""
}

// buildName joins the names of program and version: all programs of a repository have
// one revision.
func buildName(program, version string) string {
	return string(pagekey.AppendString(pagekey.AppendString(nil, program), version))
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
func ManifestKey(o pagekey.Origin) string {
	program := ""
	if info, ok := debug.ReadBuildInfo(); ok {
		program = info.Path
	}
	b := []byte{0xff} // no page's key begins like this
	for _, s := range [...]string{"manifest", program, o.Scheme, o.Host} {
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
