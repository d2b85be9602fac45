package policy

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/isr-go/isr/internal/header"
	"github.com/isr-go/isr/internal/pagekey"
)

// A Refusal is why a response may not be stored, and where it is not what the
// developer asked for, the remedy.
type Refusal struct{ Why, Remedy string }

func (r Refusal) String() string {
	if r.Remedy == "" {
		return r.Why
	}
	return r.Why + ": " + r.Remedy
}

// Refuses says why a response of the route may not be stored, if so (RFC 9111,
// section 3, and a little stricter).
func (rt *Route) Refuses(status int, h http.Header) (no Refusal) {
	d := header.ParseCacheControl(h["Cache-Control"])
	l, explicit := rt.Lifetime(status, h, d)
	switch {
	case h["Set-Cookie"] != nil:
		return Refusal{Why: "sets a cookie", Remedy: "set it in middleware outside of isr, or set Route.Bypass"}
	case d.Private:
		return Refusal{Why: "is private by its Cache-Control"}
	case d.NoStore:
		return Refusal{Why: "is no-store by its Cache-Control"}
	case d.NoCache:
		return Refusal{Why: "is no-cache by its Cache-Control"}
	case header.MediaType(h) == "text/event-stream":
		return Refusal{Why: "is an event stream", Remedy: "set Route.Bypass"}
	}
	for name := range header.List(h["Vary"]) {
		name = http.CanonicalHeaderKey(name)
		switch {
		case name == "*":
			return Refusal{Why: "varies on everything"}
		case name == "Accept-Encoding", rt.Rules.Covers(name), slices.Contains(rt.IgnoreVary, name):
		case name == "Cookie":
			return Refusal{Why: "varies on Cookie", Remedy: "name the cookies in Route.VaryCookies"}
		default:
			return Refusal{Why: "varies on " + name[:min(len(name), 100)], Remedy: varyRemedy(name)}
		}
	}
	switch status {
	case http.StatusOK, http.StatusNonAuthoritativeInfo, http.StatusMovedPermanently, http.StatusPermanentRedirect:
	case http.StatusNotFound, http.StatusGone:
		if l.TTL < 0 && rt.TTL >= 0 {
			return Refusal{Why: fmt.Sprintf("has status %d, and Route.NotFoundTTL is negative", status)}
		}
	case http.StatusSwitchingProtocols, http.StatusPartialContent, http.StatusNotModified:
		return Refusal{Why: fmt.Sprintf("has status %d", status)}
	default:
		if !explicit || l.TTL <= 0 {
			return Refusal{Why: fmt.Sprintf("has status %d", status), Remedy: "set Route.Bypass, or Cache-Control: max-age in the handler if it is the same for everyone"}
		}
	}
	if explicit && (l.TTL < 0 || l.TTL == 0 && rt.TTL < 0) { // else see RefusesAtEnd
		return Refusal{Why: "has no lifetime by its Cache-Control, and Route.TTL is NoStore"}
	}
	for tag := range header.List(h["Cache-Tag"]) {
		if err := pagekey.CheckTag(tag); err != nil {
			return Refusal{Why: "has a Cache-Tag that is none", Remedy: err.Error()}
		}
	}
	return Refusal{}
}

// Removes reports whether a response that may not be stored takes the stored page away: it
// says that there is none any more, or that it is not for everybody. Whatever else keeps
// it from being stored (no-store, an odd status) may be a passing fault.
func Removes(status int, h http.Header) bool {
	switch status {
	case http.StatusNotFound, http.StatusGone, http.StatusUnauthorized, http.StatusPaymentRequired, http.StatusForbidden,
		http.StatusProxyAuthRequired, http.StatusUnavailableForLegalReasons:
		return true
	}
	return status >= 300 && status < 400 && status != http.StatusNotModified ||
		h["Set-Cookie"] != nil || header.ParseCacheControl(h["Cache-Control"]).Private
}

// varyRemedy says what a developer can do about a Vary that the route does not
// declare.
func varyRemedy(name string) string {
	switch {
	case name == "Origin", strings.HasPrefix(name, "Access-Control-"):
		return "move CORS outside of isr, where it sees each visitor's request"
	case header.IsConditional(name), header.IsHopByHop(name):
		return "leave it out of Vary: isr answers it itself, and the handler never sees it"
	case name == pagekey.SegmentHeader:
		return "set Route.Segment: the handler gets what that returns, and nothing that a visitor sends"
	case !header.IsToken(name):
		return "it is not the name of a header"
	case name == "User-Agent":
		return "add it to Route.Vary, and have Route.Normalize narrow it: each value is a page of its own"
	}
	return "add it to Route.Vary"
}

// TagsOf returns the tags of the route, those that the handler has sent and those that
// it has said, in this order, folded where they are too many; and those of its data.
func (rt *Route) TagsOf(h http.Header, said *Said) []string {
	if len(h["Cache-Tag"]) == 0 && len(said.Tags) == 0 && len(said.Data) == 0 {
		return rt.Tags
	}
	tags := slices.Clip(rt.Tags)
	seen := make(map[string]bool)
	for _, tag := range tags {
		seen[tag] = true
	}
	add := func(tag string) {
		if !seen[tag] {
			seen[tag] = true
			tags = append(tags, strings.Clone(tag))
		}
	}
	for tag := range header.List(h["Cache-Tag"]) {
		add(tag)
	}
	for _, tag := range said.Tags {
		add(tag)
	}
	return pagekey.WithData(pagekey.FoldTags(tags), said.Data)
}

// IsFailure reports whether an answer says that the handler could not make the
// page.
func (rt *Route) IsFailure(status int, h http.Header) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	}
	return status >= 500 || rt.Failure != nil && rt.Failure(status, h)
}
