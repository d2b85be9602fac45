package pagekey

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Tags calls yield with the tags that a page has by its key: each way in which
// Revalidate and Purge can name it, the narrowest last. A page does not hold them: they
// are a function of its key.
func (k *Key) Tags(yield func(string) bool) {
	var buf [256]byte
	path := TagPath(k.Path)
	for _, base := range [2]Key{{}, {Scheme: k.Scheme, Host: k.Host}} {
		if !prefixTags(buf[:0], base.Scheme, base.Host, path, yield) {
			return
		}
		b := appendPathTag(buf[:0], base.Scheme, base.Host, path)
		if !yield(pathTag(b)) || !yield(pathTag(append(append(b, '?'), k.Query...))) || k.Host == "" {
			return
		}
	}
}

// maxPrefixes is how many prefixes of a path are tags of the page: "/", "/a/" and so on. A
// longer prefix counts as the last of them.
const maxPrefixes = 8

// cutPrefix returns as much of a canonical path as prefixes tell apart.
func cutPrefix(path string) string {
	end := 0
	for range maxPrefixes {
		i := strings.IndexByte(path[end:], '/')
		if i < 0 {
			break
		}
		end += i + 1
	}
	return path[:end]
}

// prefixTags calls yield with the tags of all pages under each prefix of a canonical path.
// The path of data does not begin with "/", and has none.
func prefixTags(b []byte, scheme, host, path string, yield func(string) bool) (more bool) {
	if path == "" || path[0] != '/' {
		return true
	}
	b = appendPrefixTag(b, scheme, host, cutPrefix(path))
	first := len(b) - len(cutPrefix(path))
	longest := ""
	if len(b) <= maxTagBytes {
		longest = string(b) // which all others are parts of
	}
	for i := first; i < len(b); i++ {
		if b[i] != '/' {
			continue
		}
		tag := ""
		if longest != "" {
			tag = longest[:i+1]
		} else {
			tag = pathTag(b[:i+1])
		}
		if !yield(tag) {
			return false
		}
	}
	return true
}

// appendPrefixTag appends the tag of all pages whose path begins with a prefix. No other
// tag looks like it.
func appendPrefixTag(b []byte, scheme, host, prefix string) []byte {
	return append(appendHost(append(b, 0, '*'), scheme, host), prefix...)
}

// NarrowestTag returns the narrowest of the key's tags.
func (k *Key) NarrowestTag() (exact string) {
	for tag := range k.Tags {
		exact = tag
	}
	return exact
}

// appendPathTag appends the tag of all pages at a path. No tag that checkTag
// accepts looks like it, nor does that of data.
func appendPathTag(b []byte, scheme, host, path string) []byte {
	b = append(b, 0)
	if path == "" || path[0] != '/' {
		b = append(b, '|')
	}
	return append(appendHost(b, scheme, host), path...)
}

func appendHost(b []byte, scheme, host string) []byte {
	if host != "" {
		b = append(append(append(b, scheme...), "://"...), host...)
	}
	return b
}

// pathTag returns what appendPathTag has made as a tag of a size that a Store
// takes.
func pathTag(b []byte) string {
	if len(b) <= maxTagBytes {
		return string(b)
	}
	sum := sha256.Sum256(b)
	return "\x00#" + base64.RawURLEncoding.EncodeToString(sum[:])
}

// PathTag returns the tag of all pages at a path, of one host or, where that is empty, of
// all.
func PathTag(scheme, host, path string) string {
	return pathTag(appendPathTag(nil, scheme, host, TagPath(path)))
}

// Everything is the tag that every page has.
const Everything = "\x00"

// Limits of tags.
const (
	maxTags     = 128 // of a page's own
	maxTagBytes = 256
	tagBuckets  = 64
)

// bucketTags are what a page has instead of the tags that are too many. No tag that
// checkTag accepts looks like them, nor does that of a path. They are in Stores:
// never change them, nor bucketTag.
var bucketTags = func() (tags [tagBuckets]string) {
	for i := range tags {
		tags[i] = fmt.Sprintf("\x00~%02d", i)
	}
	return tags
}()

// bucketTag returns the bucket that a tag is folded into. Each invalidation of the
// tag is one of its bucket, too.
func bucketTag(tag string) string {
	if IsBucket(tag) {
		return tag
	}
	sum := sha256.Sum256([]byte(tag))
	return bucketTags[sum[0]%tagBuckets]
}

// IsBucket reports whether a tag is one of those that stand for several.
func IsBucket(tag string) bool { return strings.HasPrefix(tag, "\x00~") }

// WithBuckets returns tags and their buckets.
func WithBuckets(tags []string) []string {
	all := slices.Clone(tags)
	for _, tag := range tags {
		if bucket := bucketTag(tag); !slices.Contains(all[len(tags):], bucket) {
			all = append(all, bucket)
		}
	}
	return all
}

// FoldTags returns at most maxTags tags: the first as they are, and buckets for the
// rest where they are more.
func FoldTags(tags []string) []string {
	if len(tags) <= maxTags {
		return tags
	}
	out := make([]string, 0, maxTags)
	var used [tagBuckets]bool
	for _, tag := range tags {
		if len(out) < maxTags-tagBuckets && !IsBucket(tag) {
			out = append(out, tag)
		} else {
			used[slices.Index(bucketTags[:], bucketTag(tag))] = true
		}
	}
	for i, bucket := range bucketTags {
		if used[i] {
			out = append(out, bucket)
		}
	}
	return out
}

// maxDataTags is how many tags of values a page has. They are more than its own, as a
// list may show hundreds of rows, and each is named by edits.
const maxDataTags = 512

// WithData returns the tags of a page, by FoldTags, and those of the values in it. They
// come before the buckets. Where they are too many the rest is folded, too.
func WithData(tags, data []string) []string {
	if len(data) == 0 {
		return tags
	}
	plain := PlainTags(tags)
	buckets := tags[len(plain):]
	out := slices.Clone(plain)
	seen := make(map[string]bool, len(out)+len(data))
	for _, tag := range tags {
		seen[tag] = true
	}
	var used [tagBuckets]bool
	for _, bucket := range buckets {
		used[slices.Index(bucketTags[:], bucket)] = true
	}
	for _, tag := range data {
		switch {
		case seen[tag]:
		case IsBucket(tag):
			used[slices.Index(bucketTags[:], tag)] = true
		case len(out)-len(plain) < maxDataTags:
			out = append(out, strings.Clone(tag))
		default:
			used[slices.Index(bucketTags[:], bucketTag(tag))] = true
		}
		seen[tag] = true
	}
	for i, bucket := range bucketTags {
		if used[i] {
			out = append(out, bucket)
		}
	}
	return out
}

// PlainTags returns those of a page's tags that are not buckets.
func PlainTags(tags []string) []string {
	if len(tags) == 0 || !IsBucket(tags[len(tags)-1]) {
		return tags
	}
	return slices.Clip(tags[:slices.IndexFunc(tags, IsBucket)])
}

// CheckTag says what is wrong with a tag.
func CheckTag(tag string) error {
	switch {
	case tag == "":
		return errors.New("a tag is not empty")
	case len(tag) > maxTagBytes:
		return fmt.Errorf("a tag has at most %d bytes, not %d", maxTagBytes, len(tag))
	case strings.ContainsFunc(tag, func(r rune) bool { return r < ' ' || r == ',' || r == 0x7f }):
		return errors.New("a tag has no comma and no control character")
	case strings.TrimSpace(tag) != tag:
		return errors.New("a tag neither begins nor ends with a space")
	case tag[0] == '/':
		return errors.New(`a tag does not begin with "/": paths are for Revalidate and Purge, and need no tag`)
	}
	return nil
}

// CheckTags says what is wrong with each of the tags that is invalid.
func CheckTags(tags []string) error {
	var errs []error
	for _, tag := range tags {
		if err := CheckTag(tag); err != nil {
			errs = append(errs, fmt.Errorf("isr: tag %q: %w", tag, err))
		}
	}
	return errors.Join(errs...)
}
