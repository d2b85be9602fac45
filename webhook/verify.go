package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/isr-go/isr/internal/webhook"
)

// tolerance is how far the time of a signature may be from now, in either direction.
const tolerance = 5 * time.Minute

// Bearer lets through who sends the secret, as "Authorization: Bearer …" or, where a CMS
// can set no header, as ?secret=…, which ends up in access logs. It is for CMSs that do
// not sign: Strapi, Directus, Prismic, DatoCMS. It panics if the secret is empty.
func Bearer(secret string) Verify {
	mustHaveSecret("Bearer", secret)
	hash := sha256.Sum256([]byte(secret))
	return func(r *http.Request) func([]byte) bool {
		if !webhook.Authorized(r, hash) {
			return nil
		}
		return func([]byte) bool { return true }
	}
}

// Sanity lets through what Sanity has signed within 5 minutes: Sanity-Webhook-Signature
// is t=<milliseconds>,v1=<base64url of the HMAC of "<t>.<body>">. It panics if the secret
// is empty.
//
// https://github.com/sanity-io/webhook-toolkit
func Sanity(secret string) Verify {
	mustHaveSecret("Sanity", secret)
	return func(r *http.Request) func([]byte) bool {
		sent, given, ok := parseSanity(only(r.Header, "Sanity-Webhook-Signature"))
		if !ok || !isNow(sent, time.UnixMilli) {
			return nil
		}
		return func(body []byte) bool { return hmac.Equal(given, mac([]byte(secret), sent+".", body)) }
	}
}

// parseSanity returns the time, as it was sent, and the HMAC.
func parseSanity(s string) (sent string, given []byte, ok bool) {
	rest, ok := strings.CutPrefix(strings.TrimSpace(s), "t=")
	i := strings.IndexAny(rest, ", ")
	if !ok || i < 0 {
		return "", nil, false
	}
	v1, ok := strings.CutPrefix(strings.TrimLeft(rest[i:], ", "), "v1=")
	given, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(v1, "="))
	return rest[:i], given, ok && err == nil
}

// Standard lets through what was signed within 5 minutes as [Standard Webhooks] says: one
// of the signatures in Webhook-Signature is v1,<base64 of the HMAC of
// "<Webhook-Id>.<Webhook-Timestamp>.<body>">. The secret is base64, with or without
// "whsec_" before it. It panics if the secret is empty or no base64.
//
// [Standard Webhooks]: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
func Standard(secret string) Verify {
	mustHaveSecret("Standard", secret)
	key, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(strings.TrimPrefix(secret, "whsec_"), "="))
	if err != nil || len(key) == 0 {
		panic("isr/webhook: Standard: want a secret in base64, such as whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	}
	return func(r *http.Request) func([]byte) bool {
		id, sent := only(r.Header, "Webhook-Id"), only(r.Header, "Webhook-Timestamp")
		given := parseStandard(only(r.Header, "Webhook-Signature"))
		if id == "" || len(given) == 0 || !isNow(sent, unixSeconds) {
			return nil
		}
		return func(body []byte) bool {
			want := mac(key, id+"."+sent+".", body)
			return slices.ContainsFunc(given, func(g []byte) bool { return hmac.Equal(g, want) })
		}
	}
}

// parseStandard returns the HMACs among the signatures: there are several while a secret
// is being replaced, and those of other versions are not for this one.
func parseStandard(s string) (given [][]byte) {
	for signature := range strings.FieldsSeq(s) {
		version, text, _ := strings.Cut(signature, ",")
		if g, err := base64.StdEncoding.DecodeString(text); err == nil && version == "v1" && len(g) == sha256.Size {
			given = append(given, g)
		}
	}
	return given
}

// GitHub lets through what GitHub has signed: X-Hub-Signature-256 is sha256=<hex of the
// HMAC of the body>. That covers no time, so a delivery stays good. It panics if the
// secret is empty.
//
// https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries
func GitHub(secret string) Verify {
	mustHaveSecret("GitHub", secret)
	return func(r *http.Request) func([]byte) bool {
		text, ok := strings.CutPrefix(only(r.Header, "X-Hub-Signature-256"), "sha256=")
		given, err := hex.DecodeString(text)
		if !ok || err != nil || len(given) != sha256.Size {
			return nil
		}
		return func(body []byte) bool { return hmac.Equal(given, mac([]byte(secret), "", body)) }
	}
}

// Ghost lets through what Ghost has signed within 5 minutes: X-Ghost-Signature is
// sha256=<hex of the HMAC of "<body><t>">, t=<milliseconds>. It panics if the secret is
// empty.
//
// https://github.com/TryGhost/Ghost/blob/main/ghost/core/core/server/services/webhooks/webhook-trigger.js
func Ghost(secret string) Verify {
	mustHaveSecret("Ghost", secret)
	return func(r *http.Request) func([]byte) bool {
		sent, given, ok := parseGhost(only(r.Header, "X-Ghost-Signature"))
		if !ok || !isNow(sent, time.UnixMilli) {
			return nil
		}
		return func(body []byte) bool {
			h := hmac.New(sha256.New, []byte(secret))
			h.Write(body)
			h.Write([]byte(sent))
			return hmac.Equal(given, h.Sum(nil))
		}
	}
}

// parseGhost returns the time, as it was sent, and the HMAC.
func parseGhost(s string) (sent string, given []byte, ok bool) {
	signature, t, _ := strings.Cut(s, ",")
	text, signed := strings.CutPrefix(strings.TrimSpace(signature), "sha256=")
	sent, timed := strings.CutPrefix(strings.TrimSpace(t), "t=")
	given, err := hex.DecodeString(text)
	return sent, given, signed && timed && err == nil
}

// WordPress lets through what the plugin WP Webhooks has signed: X-WP-Webhook-Signature
// is the HMAC of the body in base64. That covers no time, so a delivery stays good. It
// panics if the secret is empty.
//
// https://wordpress.org/plugins/wp-webhooks/
func WordPress(secret string) Verify {
	mustHaveSecret("WordPress", secret)
	return func(r *http.Request) func([]byte) bool {
		given, err := base64.StdEncoding.DecodeString(only(r.Header, "X-Wp-Webhook-Signature"))
		if err != nil || len(given) != sha256.Size {
			return nil
		}
		return func(body []byte) bool { return hmac.Equal(given, mac([]byte(secret), "", body)) }
	}
}

// Contentful lets through what Contentful has signed within 5 minutes:
// X-Contentful-Signature is the hex of the HMAC of method, path, the headers that
// X-Contentful-Signed-Headers names, X-Contentful-Timestamp (milliseconds) among them,
// and body. The path is the one that the request was sent to, so nothing in front may
// rewrite it. It panics if the secret is empty.
//
// https://www.contentful.com/developers/docs/webhooks/request-verification/
func Contentful(secret string) Verify {
	mustHaveSecret("Contentful", secret)
	return func(r *http.Request) func([]byte) bool {
		given, err := hex.DecodeString(only(r.Header, "X-Contentful-Signature"))
		head, ok := canonicalContentful(r)
		if err != nil || !ok || !isNow(only(r.Header, contentfulTime), time.UnixMilli) {
			return nil
		}
		return func(body []byte) bool { return hmac.Equal(given, mac([]byte(secret), head, body)) }
	}
}

const (
	contentfulTime    = "X-Contentful-Timestamp"
	contentfulHeaders = "X-Contentful-Signed-Headers"
	maxSignedHeaders  = 64
)

// canonicalContentful returns what is signed before the body. What is not signed with its
// time, and with which headers those are, could be changed.
//
// https://github.com/contentful/node-apps-toolkit/blob/main/src/requests/sign-request.ts
func canonicalContentful(r *http.Request) (head string, ok bool) {
	names := strings.Split(only(r.Header, contentfulHeaders), ",")
	if len(names) > maxSignedHeaders {
		return "", false
	}
	fields := make([]string, len(names))
	for i, name := range names {
		name = strings.ToLower(strings.TrimSpace(name))
		if slices.Contains(names[:i], name) {
			return "", false // each line of it could be repeated many times
		}
		names[i] = name
		fields[i] = name + ":" + strings.TrimSpace(strings.Join(r.Header.Values(name), ", "))
	}
	if !slices.Contains(names, strings.ToLower(contentfulTime)) || !slices.Contains(names, strings.ToLower(contentfulHeaders)) {
		return "", false
	}
	target := r.RequestURI
	if !strings.HasPrefix(target, "/") {
		target = r.URL.RequestURI()
	}
	return r.Method + "\n" + contentfulPath(target) + "\n" + strings.Join(fields, ";") + "\n", true
}

// contentfulPath encodes a path and query as Contentful does: the query once by
// JavaScript's querystring.escape, and then both by encodeURI.
func contentfulPath(target string) string {
	const mark = "-_.!~*'()"
	path, query, ok := strings.Cut(target, "?")
	if query, _, _ = strings.Cut(query, "?"); ok && query != "" {
		path += "?" + escape(query, mark)
	}
	return escape(path, mark+";,/?:@&=+$#")
}

// escape percent-encodes all bytes but letters, digits and those that are named.
func escape(s, plain string) string {
	const digits = "0123456789ABCDEF"
	var out strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte(plain, c) >= 0:
			out.WriteByte(c)
		default:
			out.Write([]byte{'%', digits[c>>4], digits[c&15]})
		}
	}
	return out.String()
}

func mustHaveSecret(name, secret string) {
	if secret == "" {
		panic("isr/webhook: " + name + ": empty secret; with one, only those who know it can renew pages")
	}
}

// mac returns the HMAC-SHA-256 of what is before a body, and the body.
func mac(key []byte, before string, body []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(before))
	h.Write(body)
	return h.Sum(nil)
}

// only returns a field that has one line, and of others the empty string: two lines
// could be two guesses, or read in two ways.
func only(h http.Header, name string) string {
	if lines := h[name]; len(lines) == 1 {
		return lines[0]
	}
	return ""
}

// isNow reports whether a number, in decimal digits, is that of a time within the
// tolerance.
func isNow(s string, at func(int64) time.Time) bool {
	if strings.Trim(s, "0123456789") != "" {
		return false // nor a sign
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return err == nil && time.Since(at(n)).Abs() <= tolerance
}

func unixSeconds(n int64) time.Time { return time.Unix(n, 0) }
