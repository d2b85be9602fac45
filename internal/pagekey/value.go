package pagekey

import (
	"crypto/sha256"
	"encoding/base64"
	"strings"
)

// ValueScheme is that of the keys of values: no visitor's request has it.
const ValueScheme = "data"

// ValueSeparator stands between the name of a value's source and its key there. No name
// has it.
const ValueSeparator = "\x00"

// Value returns the key of the page that a value is. Its path is unlike that of any other
// value: the look-up of a path is faster than that of a key.
func Value(name, key string) Key {
	return Key{Scheme: ValueScheme, Path: name + ValueSeparator + key}
}

// Value returns the name of a value's source, and its key there. It reports false where
// the page is none.
func (k *Key) Value() (name, key string, ok bool) {
	if k.Scheme != ValueScheme {
		return "", "", false
	}
	name, key, _ = strings.Cut(k.Path, ValueSeparator)
	return name, key, true
}

// Shown returns what the log calls the page: its path, or the name of a value's source.
func (k *Key) Shown() string {
	if name, _, ok := k.Value(); ok {
		return name
	}
	return k.Path
}

// ValueTag returns the tag of one value, and of each page that has read it.
func ValueTag(name, key string) string { return AsTag(name + ":" + key) }

// AsTag returns a tag for a name that may be none: too long, or with a comma.
func AsTag(name string) string {
	if CheckTag(name) == nil {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return "data:" + base64.RawURLEncoding.EncodeToString(sum[:16])
}
