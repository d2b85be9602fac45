package inspect

import (
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/isr-go/isr"
)

// Who may look at the cache may not yet be its visitors. So what a visitor proves
// their rights with is not shown, searched or sorted by: the values of headers, of
// parameters in a URL, and of wildcards in a route whose names say that they are
// secret. The rule is secret's.

// hidden is shown instead.
const hidden = "(hidden)"

// secretWords are secret as a word of a name ("X-Api-Key", "authKey"), secretEnds
// also at the end of a longer one ("PHPSESSID", "csrftoken"). Either may have a number
// ("token2").
var (
	secretWords = []string{"auth", "bearer", "hmac", "key", "keys", "otp", "pass", "sid", "sig"}
	secretEnds  = []string{
		"accesskey", "apikey", "authkey", "authorization", "cookie", "cookies", "credential", "credentials", "csrf", "jwt", "licensekey",
		"passphrase", "passwd", "password", "privatekey", "pwd", "secret", "secrets", "secretkey", "sessid", "session", "sessionid",
		"signature", "sshkey", "token", "tokens", "xsrf",
	}
	// notSecret are names that would pass for secret, and are the cache's own.
	notSecret = []string{"cache-key", "surrogate-key", "x-cache-key"}
)

// secret reports whether what has this name is to be hidden.
func secret(name string) bool {
	lower := strings.ToLower(name)
	if slices.Contains(notSecret, lower) {
		return false
	}
	begin := 0
	for i := range len(name) + 1 {
		switch {
		case i == len(name), !isLetter(name[i]) && !isDigit(name[i]):
			if isSecretWord(lower[begin:i]) {
				return true
			}
			begin = i + 1
		case i > begin && isUpper(name[i]) && !isUpper(name[i-1]):
			if isSecretWord(lower[begin:i]) {
				return true
			}
			begin = i
		}
	}
	return false
}

func isSecretWord(word string) bool {
	word = strings.TrimRight(word, "0123456789")
	return slices.Contains(secretWords, word) || slices.ContainsFunc(secretEnds, func(end string) bool { return strings.HasSuffix(word, end) })
}

func isUpper(c byte) bool  { return 'A' <= c && c <= 'Z' }
func isLetter(c byte) bool { return isUpper(c) || 'a' <= c && c <= 'z' }
func isDigit(c byte) bool  { return '0' <= c && c <= '9' }

// hideHeader returns a header without what is secret. It does not change h.
func hideHeader(h http.Header) http.Header {
	if len(h) == 0 {
		return h
	}
	shown := make(http.Header, len(h))
	for name, values := range h {
		if secret(name) {
			shown[name] = []string{hidden}
			continue
		}
		shown[name] = make([]string, len(values))
		for i, value := range values {
			shown[name][i] = hideText(value) // a Location or a Link has parameters, too
		}
	}
	return shown
}

// hideAddress returns the address of a page without what is secret.
func hideAddress(p *isr.Page) string {
	if isData(p) {
		return p.Path + ":" + hideQuery(p)
	}
	shown := isr.Page{Scheme: p.Scheme, Host: p.Host, Path: hidePath(p), Query: hideQuery(p)}
	return address(&shown)
}

// hidePath returns the path of a page without what its route calls secret, as
// /reset/{token} does, and without secret parameters, such as ;jsessionid=….
func hidePath(p *isr.Page) string {
	if isData(p) {
		return p.Path // a Name
	}
	_, pattern, _ := strings.Cut(p.Route, "/") // behind method and host
	if !strings.ContainsAny(p.Path, ";=") && !hasSecretWildcard(pattern) {
		return p.Path
	}
	segments, names := strings.Split(p.Path, "/"), append([]string{""}, strings.Split(pattern, "/")...)
	for i, segment := range segments {
		segments[i] = hideText(segment)
		if i >= len(names) {
			continue
		}
		name, wildcard := strings.CutPrefix(strings.TrimSuffix(names[i], "}"), "{")
		name, rest := strings.CutSuffix(name, "...")
		if !wildcard || !secret(name) || segment == "" {
			continue
		}
		segments[i] = hidden
		if rest {
			segments = segments[:i+1]
			break
		}
	}
	return strings.Join(segments, "/")
}

// hasSecretWildcard reports whether one of a pattern's wildcards has a secret name.
func hasSecretWildcard(pattern string) bool {
	for more := true; more; {
		var name string
		if _, pattern, more = strings.Cut(pattern, "{"); more {
			if name, pattern, _ = strings.Cut(pattern, "}"); secret(name) {
				return true
			}
		}
	}
	return false
}

// hideQuery returns the query of a page without the values of secret parameters, or the
// key of a value, unless its Name is secret: what it names is found by the key.
func hideQuery(p *isr.Page) string {
	switch {
	case !isData(p):
		return hideText("?" + p.Query)[1:]
	case p.Query != "" && secret(p.Path):
		return hidden
	}
	return hideText(p.Query)
}

// hideTags returns tags as they are shown: a page has those of the values in it, Name:key.
func hideTags(tags []string) []string {
	shown := tags
	for i, tag := range tags {
		if s := hideTag(tag); s != tag {
			if &shown[0] == &tags[0] {
				shown = slices.Clone(tags)
			}
			shown[i] = s
		}
	}
	return shown
}

func hideTag(tag string) string {
	for i := range len(tag) {
		if tag[i] == ':' && i+1 < len(tag) && secret(tag[:i]) { // a Name may have a colon
			return tag[:i+1] + hidden
		}
	}
	return hideText(tag)
}

// hideError returns the last error of what is stored. That of a value may name the key.
func hideError(p *isr.Page) string {
	text := p.Err.Error()
	if isData(p) && p.Query != "" && secret(p.Path) {
		text = strings.ReplaceAll(strings.ReplaceAll(text, strconv.Quote(p.Query), hidden), p.Query, hidden)
	}
	return hideMessage(text)
}

// namesKey is what an error of Data.Load begins with.
var namesKey = regexp.MustCompile(`Data ("(?:[^"\\]|\\.)*"), key "(?:[^"\\]|\\.)*"`)

// hideMessage returns an error without what is secret, such as the key of a value that a
// page could not load.
func hideMessage(text string) string {
	return hideText(namesKey.ReplaceAllStringFunc(text, func(s string) string {
		quoted := namesKey.FindStringSubmatch(s)[1]
		if name, err := strconv.Unquote(quoted); err == nil && !secret(name) {
			return s
		}
		return "Data " + quoted + ", key " + hidden
	}))
}

// userinfo is that of a URL: a name and a password, or a token.
var userinfo = regexp.MustCompile(`//[^/?#\s"'<>]+@`)

// hideText returns a text without who the URLs that it contains are for, without the values
// of secret parameters, in URLs or by themselves, and of parameters with such in their
// values.
func hideText(text string) string {
	if strings.Contains(text, "@") {
		text = userinfo.ReplaceAllLiteralString(text, "//"+hidden+"@")
	}
	return hideNested(text, 4)
}

func hideNested(text string, depth int) string {
	const (
		before = "?&;#"             // a parameter
		ends   = "&;# \t\r\n\"'<>," // a value
	)
	var b strings.Builder
	done, from := 0, 0
	for {
		equals := strings.IndexByte(text[from:], '=')
		if equals < 0 {
			break
		}
		equals += from
		begin := from + 1 + strings.LastIndexAny(text[from:equals], before+ends)
		isSecret := secret(unescape(text[begin:equals]))
		value, end := text[equals+1:], len(text)
		switch quote := value[:min(1, len(value))]; {
		case quote != `"` && quote != "'":
			if n := strings.IndexAny(value, ends); n >= 0 {
				end = equals + 1 + n
			}
			isSecret = isSecret || hasSecret(text[equals+1:end], depth)
		case isSecret:
			equals++
			if n := strings.Index(value[1:], quote); n >= 0 {
				end = equals + 1 + n
			}
		default:
			end = equals + 2 // what is quoted may be a URL
		}
		if isSecret && equals+1 < end {
			b.WriteString(text[done : equals+1])
			b.WriteString(hidden)
			done = end
		}
		from = end
	}
	if done == 0 {
		return text
	}
	b.WriteString(text[done:])
	return b.String()
}

// hasSecret reports whether a value is, or has in it, a URL or query with something secret:
// ?next=%2Freset%3Ftoken%3D….
func hasSecret(value string, depth int) bool {
	plain := unescape(value)
	switch query := "?" + plain; {
	case userinfo.MatchString(plain):
		return true
	case !strings.ContainsAny(plain, "=%"):
		return false
	case depth == 0, hideNested(query, depth-1) != query:
		return true
	}
	return plain != value && hasSecret(plain, depth-1)
}

func unescape(s string) string {
	if plain, err := url.QueryUnescape(s); err == nil {
		return plain
	}
	return s
}
