// Package edge is what isr needs of a cache in front that can be told of an edit: a
// CDN, Varnish or nginx. Such a cache may hold a page for as long as it is fresh, and
// shows it no longer once Revalidate or Purge has returned nil.
//
// # The idea
//
// A page goes out with tags in a header field of the product's own, and with a
// lifetime that only this product reads. An invalidation names tags, and the product
// drops what carries one of them. Nothing is kept that could not be told of: what
// carries more tags than the product takes is not marked at all, and no shared cache
// keeps it.
//
// Every page carries the route's and the handler's tags, and beside them one tag each
// for its path, for each of the folders above it, for the data in it, and for
// everything. So whatever an invalidation names is a tag, and an adapter needs no more
// than that. A product that finds pages by their URL alone (nginx) cannot tell what a
// tag stands for: for such adapters there is [URLs], which says it in URLs where there
// are any. It is an interface of its own because most products are better off without:
// by tag they also reach the spellings and variants of a page that nobody has listed.
//
// # Who uses it
//
// A program sets one of the adapters (edge/varnish, edge/nginx, edge/cloudflare,
// edge/fastly) as isr.Options.Edge, and calls none of these methods itself. [Tags] is for those who
// tell their cache by other means. An adapter for another product implements [Edge],
// and runs edge/edgetest against it.
package edge

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/isr-go/isr/store"
)

// An Edge is a cache in front, or several that are told together.
//
// Both methods are safe for concurrent use, with each other and with themselves. They
// neither keep nor change the tags they are given. A tag is any bytes, none to a few
// hundred of them, and means nothing; two are the same if their bytes are. What a
// product does not take in a tag, the adapter replaces, in both methods alike:
// [Token] does that. Two tags may become the same to a product (Cloudflare ignores
// case): then more is dropped than was asked for, which is safe.
//
// An Edge is a client: it may be made before the product can be reached, and makes no
// requests on its own. It has no Close; what it has begun ends within seconds.
type Edge interface {
	// Mark puts the tags into the header of a page that shared caches may hold, and
	// the targeted field (RFC 9213) by which the product keeps it. It is called when a
	// page is stored, and not when it is served: what it adds is stored with the page.
	//
	// The header is that of the page as it is generated. In its Cache-Control, s-maxage
	// or else max-age is the time for which the page is fresh; an Age says how much of
	// that is over. Mark makes the product hold the page that long, as it reads Age:
	// one that ignores Age is given a moment, and not a duration. Where there is no
	// such time, it marks with the tags alone. What goes out to others, and is bounded
	// by SharedMaxAge, is the caller's: Mark adds fields, or adds to them, and leaves
	// those that are there, Cache-Control and a targeted field of the handler's among
	// them. It makes no requests, and does not block.
	//
	// False means that the page must not be kept by this product, because the tags do
	// not fit, or because it cannot tell the page's variants (Vary) apart. The header
	// is then as it was, and the caller sends the page with no-store for shared caches.
	Mark(h http.Header, tags []string) (fits bool)

	// Tell has an effect on every page that was marked with one of the tags and has
	// reached the product: store.Stale is the product's soft purge, by which it may show
	// the page once more while it asks for a new one; store.Expired and store.Gone are
	// its purge. A product may do more than it is asked: drop what could have turned
	// stale, or pages that have none of the tags. Nil means that what is older is not
	// shown any more, or in the time that the product's documentation gives (some
	// hundred milliseconds). It does not reach what the product has asked for and not
	// yet got: the caller tells once more when that must have ended.
	//
	// There may be thousands of tags: Tell makes the requests that the product's limits
	// ask for, and waits where they say so. Those that are asked for at the same time
	// share requests. It returns soon after ctx is done, and before that where it could
	// not be done by the deadline. To tell the same again is no error, nor is a tag
	// that no page has; no tags, or store.None, is nothing to do, and an effect that is
	// unknown is Gone. Calls may be made in any order: each is about what is older than
	// itself.
	//
	// An error says which product was asked, and how it answered, and contains no
	// secret. The caller owes what was not told, and tells it later: with an error that
	// is an [*UntoldError] (errors.As) the tags in it, with another one all of them.
	Tell(ctx context.Context, effect store.Effect, tags []string) error
}

// URLs is for an Edge that finds pages by their URL instead of by tags. It is called
// instead of Tell with what an invalidation names by path; Tell with what has no URL,
// as a tag: there such an Edge drops everything. That alone would be right as well, so
// who wraps an Edge and hides this interface loses hits, and nothing else.
type URLs interface {
	// TellURLs is Tell for pages that are at one of the URLs, and has the same contract.
	// A URL is absolute, or begins with "/" where it is that of every host. Its path is
	// escaped as RFC 3986, section 6.2.2 says. Without "?" it stands for all queries; with
	// one for the page with that query, in isr's order, which is not always a visitor's.
	// One that ends in "/*" stands for all that is below it: "/*" is everything. Another
	// star is written "%2A".
	TellURLs(ctx context.Context, effect store.Effect, urls []string) error
}

// An UntoldError says what of a call of Tell or TellURLs has not reached the product.
// All else has.
type UntoldError struct {
	Tags  []string      // or URLs; of those of the call, each once
	After time.Duration // the product takes no more before; zero: that is unknown
	Err   error         // why; of several reasons one
}

func (e *UntoldError) Error() string {
	return fmt.Sprintf("%d not told: %v", len(e.Tags), e.Err)
}

func (e *UntoldError) Unwrap() error { return e.Err }

// maxToken is the length of the longest token: every product takes that.
const maxToken = 256

// Token returns a tag as it is written in a header field and told to a product: as it
// is where it consists of A-Z, a-z, 0-9 and "-._:/@+=~", has at most 256 bytes and does
// not begin with "~"; else "~" and a hash of 16 characters. Every product takes that, in
// any case of the letters.
func Token(tag string) string {
	if isPlain(tag) {
		return tag
	}
	sum := sha256.Sum256([]byte(tag))
	return "~" + hashEncoding.EncodeToString(sum[:10])
}

var hashEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

func isPlain(tag string) bool {
	if tag == "" || len(tag) > maxToken || tag[0] == '~' {
		return false
	}
	for i := range len(tag) {
		switch c := tag[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case strings.IndexByte("-._:/@+=~", c) >= 0:
		default:
			return false
		}
	}
	return true
}

// maxField is what a field that Tags writes may hold: Varnish takes 8 KB a line.
const maxField = 8000

// Tags returns an Edge that marks pages with their tags, and tells nobody: for those
// who tell their cache by other means. The tags go into the field, by [Token], with
// spaces between them where it is Surrogate-Key, else commas. It writes no targeted
// field, so that the page goes out for SharedMaxAge. It panics if the field is no name
// of one.
func Tags(field string) Edge {
	name := http.CanonicalHeaderKey(field)
	if name == "" || strings.ContainsFunc(name, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune("\"(),/:;<=>?@[\\]{}", r)
	}) {
		panic(fmt.Sprintf("edge: Tags: %q is no name of a header field", field))
	}
	return tags(name)
}

type tags string

var _ Edge = tags("")

func (field tags) Mark(h http.Header, list []string) bool {
	separator := ","
	if field == "Surrogate-Key" {
		separator = " "
	}
	return WriteTokens(h, string(field), separator, maxField, list)
}

func (tags) Tell(context.Context, store.Effect, []string) error { return nil }

func (field tags) String() string { return "edge.Tags(" + string(field) + ")" }

// WriteTokens adds the tags, by [Token], to a field of the header, in one line with
// what is there, and reports whether all of it fits in max bytes. If not, it changes
// nothing.
func WriteTokens(h http.Header, field, separator string, max int, tags []string) (fits bool) {
	if len(tags) == 0 {
		return true
	}
	name := http.CanonicalHeaderKey(field)
	n := 0
	for _, line := range h[name] {
		n += len(line) + len(separator)
	}
	for _, tag := range tags {
		if isPlain(tag) {
			n += len(tag)
		} else {
			n += 1 + hashEncoding.EncodedLen(10)
		}
		n += len(separator)
	}
	if n-len(separator) > max {
		return false
	}
	var b strings.Builder
	b.Grow(n)
	for _, line := range h[name] {
		b.WriteString(line)
		b.WriteString(separator)
	}
	for _, tag := range tags {
		b.WriteString(Token(tag))
		b.WriteString(separator)
	}
	h[name] = []string{b.String()[:n-len(separator)]}
	return true
}
