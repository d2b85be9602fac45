package webhook_test

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isr-go/isr/webhook"
)

// passes reports whether a request with this header and body is let through.
func passes(v webhook.Verify, r *http.Request, body string) bool {
	signed := v(r)
	return signed != nil && signed([]byte(body))
}

// Signatures are read as those who send them write them, and in no other way.
func TestSignatures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const body = `{"paths":["/heron"]}`
		ms, s := fmt.Sprint(time.Now().UnixMilli()), fmt.Sprint(time.Now().Unix())
		raw := base64.RawURLEncoding.EncodeToString(sum(secret, ms+"."+body))
		hexed := hex.EncodeToString(sum(secret, body))
		ghost := hex.EncodeToString(sum(secret, body+ms))
		key, _ := base64.StdEncoding.DecodeString(secret)
		standard := base64.StdEncoding.EncodeToString(sum(string(key), "m1."+s+"."+body))
		sanity := func(lines ...string) http.Header { return http.Header{"Sanity-Webhook-Signature": lines} }
		hub := func(lines ...string) http.Header { return http.Header{"X-Hub-Signature-256": lines} }
		hooks := func(id, at, signature string) http.Header {
			return http.Header{"Webhook-Id": {id}, "Webhook-Timestamp": {at}, "Webhook-Signature": {signature}}
		}
		for name, test := range map[string]struct {
			verify webhook.Verify
			header http.Header
			want   bool
		}{
			"Sanity":                          {webhook.Sanity(secret), sanity("t=" + ms + ",v1=" + raw), true},
			"Sanity, a space":                 {webhook.Sanity(secret), sanity("t=" + ms + ", v1=" + raw), true},
			"Sanity, the HMAC of a prefix":    {webhook.Sanity(secret), sanity("t=" + ms + ",v1=" + raw[:20]), false},
			"Sanity, no HMAC":                 {webhook.Sanity(secret), sanity("t=" + ms + ",v1="), false},
			"Sanity, no time":                 {webhook.Sanity(secret), sanity("v1=" + raw), false},
			"Sanity, a time with a sign":      {webhook.Sanity(secret), sanity("t=+" + ms + ",v1=" + raw), false},
			"Sanity, seconds":                 {webhook.Sanity(secret), sanity("t=" + s + ",v1=" + base64.RawURLEncoding.EncodeToString(sum(secret, s+"."+body))), false},
			"Sanity, a time beyond all":       {webhook.Sanity(secret), sanity("t=" + strings.Repeat("9", 19) + ",v1=" + raw), false},
			"Sanity, two signatures":          {webhook.Sanity(secret), sanity("t="+ms+",v1="+raw, "t="+ms+",v1="+raw), false},
			"GitHub":                          {webhook.GitHub(secret), hub("sha256=" + hexed), true},
			"GitHub, no algorithm":            {webhook.GitHub(secret), hub(hexed), false},
			"GitHub, another algorithm":       {webhook.GitHub(secret), hub("sha1=" + hexed), false},
			"GitHub, an empty HMAC":           {webhook.GitHub(secret), hub("sha256="), false},
			"GitHub, two lines":               {webhook.GitHub(secret), hub("sha256="+hexed, "sha256="+hexed), false},
			"Standard":                        {webhook.Standard(secret), hooks("m1", s, "v1,"+standard), true},
			"Standard, the second of several": {webhook.Standard("whsec_" + secret), hooks("m1", s, "v1,"+strings.Replace(standard, standard[:2], "AA", 1)+" v2,x v1,"+standard), true},
			"Standard, another id":            {webhook.Standard(secret), hooks("m2", s, "v1,"+standard), false},
			"Standard, no id":                 {webhook.Standard(secret), hooks("", s, "v1,"+standard), false},
			"Standard, another version":       {webhook.Standard(secret), hooks("m1", s, "v2,"+standard), false},
			"Standard, no signature":          {webhook.Standard(secret), hooks("m1", s, ""), false},
			"Ghost":                           {webhook.Ghost(secret), http.Header{"X-Ghost-Signature": {"sha256=" + ghost + ", t=" + ms}}, true},
			"Ghost, without the time":         {webhook.Ghost(secret), http.Header{"X-Ghost-Signature": {"sha256=" + hexed}}, false},
			"Ghost, the time unsigned":        {webhook.Ghost(secret), http.Header{"X-Ghost-Signature": {"sha256=" + hexed + ", t=" + ms}}, false},
			"Bearer":                          {webhook.Bearer(secret), http.Header{"Authorization": {"Bearer " + secret}}, true},
			"Bearer, wrong":                   {webhook.Bearer(secret), http.Header{"Authorization": {"Bearer " + secret + "0"}}, false},
		} {
			r := httptest.NewRequest("POST", "/hook", nil)
			r.Header = test.header
			if got := passes(test.verify, r, body); got != test.want {
				t.Errorf("%s: got %v", name, got)
			}
		}
		if r := httptest.NewRequest("POST", "/hook?secret="+secret, nil); !passes(webhook.Bearer(secret), r, "") {
			t.Error("Bearer: the secret in the query is refused")
		}
	})
}

// Contentful signs the address and headers, too: a list of headers that leaves the time
// or itself out, or that names one many times, is refused.
func TestContentful(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const names, body = "x-a,x-contentful-signed-headers,x-contentful-timestamp", "{}"
		ms := fmt.Sprint(time.Now().UnixMilli())
		for name, test := range map[string]struct {
			target, path, names string
			want                bool
		}{
			"a path":                   {"/hook", "/hook", names, true},
			"an escaped path":          {"/caf%C3%A9", "/caf%25C3%25A9", names, true},
			"a query":                  {"/hook?a=b&c=%20", "/hook?a%253Db%2526c%253D%252520", names, true},
			"an absolute target":       {"https://reeds.example/hook", "/hook", names, true},
			"another path":             {"/hook/2", "/hook", names, false},
			"spaces in the list":       {"/hook", "/hook", "x-a, x-contentful-signed-headers, X-Contentful-Timestamp", true},
			"the time is not signed":   {"/hook", "/hook", "x-a,x-contentful-signed-headers", false},
			"the list is not signed":   {"/hook", "/hook", "x-a,x-contentful-timestamp", false},
			"a header that is missing": {"/hook", "/hook", names + ",x-b", true},
			"a header twice":           {"/hook", "/hook", "x-a," + names, false},
			"no list":                  {"/hook", "/hook", "", false},
			"a long list":              {"/hook", "/hook", names + strings.Repeat(",x", 100), false},
		} {
			r := httptest.NewRequest("POST", test.target, nil)
			r.Header = http.Header{"X-A": {" 1", "2"}, "X-Contentful-Timestamp": {ms}, "X-Contentful-Signed-Headers": {test.names}}
			var fields []string
			for field := range strings.SplitSeq(test.names, ",") {
				field = strings.ToLower(strings.TrimSpace(field))
				fields = append(fields, field+":"+strings.TrimSpace(strings.Join(r.Header.Values(field), ", ")))
			}
			r.Header.Set("X-Contentful-Signature", hex.EncodeToString(sum(secret, "POST\n"+test.path+"\n"+strings.Join(fields, ";")+"\n"+body)))
			if got := passes(webhook.Contentful(secret), r, body); got != test.want {
				t.Errorf("%s: got %v", name, got)
			}
			if r.Header.Set("X-A", "3"); test.want && passes(webhook.Contentful(secret), r, body) {
				t.Errorf("%s: a signed header may be changed", name)
			}
		}
	})
}

// No header is let through that was not made with the secret, and none makes a verify
// panic or work long.
func FuzzSignatures(f *testing.F) {
	now := time.Now()
	for _, sign := range []func(http.Header, string, string, time.Time){signSanity, signGhost, signStandard, signContentful, signGitHub, signWordPress} {
		h := make(http.Header)
		sign(h, strings.Repeat("1", 64), "{}", now)
		var lines []string
		for name, values := range h {
			lines = append(lines, name+": "+values[0])
		}
		slices.Sort(lines)
		f.Add(strings.Join(lines, "\n"), "{}")
	}
	f.Add("Sanity-Webhook-Signature: t=1,v1=", "")
	f.Add("X-Contentful-Signed-Headers: ,,", "")
	verifies := map[string]webhook.Verify{
		"Sanity": webhook.Sanity(secret), "Standard": webhook.Standard(secret), "GitHub": webhook.GitHub(secret),
		"Contentful": webhook.Contentful(secret), "Ghost": webhook.Ghost(secret), "WordPress": webhook.WordPress(secret),
	}
	f.Fuzz(func(t *testing.T, header, body string) {
		r := httptest.NewRequest("POST", "/hook", nil)
		for line := range strings.SplitSeq(header, "\n") {
			name, value, _ := strings.Cut(line, ": ")
			r.Header.Add(name, value)
		}
		// The time of each timed signature is made now, so that it is the HMAC that is looked at.
		ms := fmt.Sprint(time.Now().UnixMilli())
		if r.Header.Get("X-Contentful-Timestamp") != "" {
			r.Header.Set("X-Contentful-Timestamp", ms)
		}
		for name, verify := range verifies {
			if passes(verify, r, body) {
				t.Errorf("%s lets through %q with the body %q", name, r.Header, body)
			}
		}
	})
}

// Signatures that GitHub and Standard Webhooks publish, for those who implement them.
//
// https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries#testing-the-webhook-payload-validation
// https://github.com/standard-webhooks/standard-webhooks/blob/main/libraries/go/webhook_test.go
func TestPublishedSignatures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := httptest.NewRequest("POST", "/hook", nil)
		r.Header.Set("X-Hub-Signature-256", "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17")
		if !passes(webhook.GitHub("It's a Secret to Everybody"), r, "Hello, World!") {
			t.Error("GitHub's is refused")
		}
		time.Sleep(time.Until(time.Unix(1614265330, 0)))
		r.Header.Set("Webhook-Id", "msg_p5jXN8AQM9LWM0D4loKWxJek")
		r.Header.Set("Webhook-Timestamp", "1614265330")
		r.Header.Set("Webhook-Signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")
		if !passes(webhook.Standard("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), r, `{"test": 2432232314}`) {
			t.Error("that of Standard Webhooks is refused")
		}
	})
}
