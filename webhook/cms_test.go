package webhook_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/webhook"
)

const secret = "0b7c5e1fd2a84936b0b7c5e1fd2a84936b0b7c5e1fd2a84936b0b7c5e1fd2a84"

// sum is the HMAC that all of them make, over different text.
func sum(key, text string) []byte {
	h := hmac.New(sha256.New, []byte(key))
	io.WriteString(h, text)
	return h.Sum(nil)
}

// A cms is one that sends webhooks, as its documentation shows them, with values of
// our own.
type cms struct {
	verify func(secret string) webhook.Verify
	names  webhook.Names
	header map[string]string
	body   string
	sign   func(h http.Header, secret, body string, now time.Time)
	timed  bool   // whether the signature covers the time
	plain  bool   // whether there is no signature, but the secret itself
	tags   string // that the page at /blog/grey-heron has
	want   string // the answer
	purged bool   // whether the page is purged
}

const (
	onePage = `{"revalidated":true,"pages":{"/blog/grey-heron":1}}`
	byTag   = `{"revalidated":true}`
)

func bearer(h http.Header, secret, _ string, _ time.Time) { h.Set("Authorization", "Bearer "+secret) }

func signSanity(h http.Header, secret, body string, now time.Time) {
	ms := fmt.Sprint(now.UnixMilli())
	h.Set("sanity-webhook-signature", "t="+ms+",v1="+base64.RawURLEncoding.EncodeToString(sum(secret, ms+"."+body)))
}

func signContentful(h http.Header, secret, body string, now time.Time) {
	const names = "x-contentful-crn,x-contentful-signed-headers,x-contentful-timestamp,x-contentful-topic"
	ms := fmt.Sprint(now.UnixMilli())
	h.Set("X-Contentful-CRN", "crn:contentful:::content:spaces/reeds")
	h.Set("X-Contentful-Signed-Headers", names)
	h.Set("X-Contentful-Timestamp", ms)
	h.Set("X-Contentful-Signature", hex.EncodeToString(sum(secret, "POST\n/hook\n"+
		"x-contentful-crn:crn:contentful:::content:spaces/reeds;x-contentful-signed-headers:"+names+
		";x-contentful-timestamp:"+ms+";x-contentful-topic:"+h.Get("X-Contentful-Topic")+"\n"+body)))
}

func signGhost(h http.Header, secret, body string, now time.Time) {
	ms := fmt.Sprint(now.UnixMilli())
	h.Set("X-Ghost-Signature", "sha256="+hex.EncodeToString(sum(secret, body+ms))+", t="+ms)
}

func signWordPress(h http.Header, secret, body string, _ time.Time) {
	h.Set("X-WP-Webhook-Signature", base64.StdEncoding.EncodeToString(sum(secret, body)))
}

func signGitHub(h http.Header, secret, body string, _ time.Time) {
	h.Set("X-Hub-Signature-256", "sha256="+hex.EncodeToString(sum(secret, body)))
}

func signStandard(h http.Header, secret, body string, now time.Time) {
	key, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	s := fmt.Sprint(now.Unix())
	h.Set("webhook-id", "msg_2reeds")
	h.Set("webhook-timestamp", s)
	h.Set("webhook-signature", "v1a,bm90IG91cnM= v1,"+base64.StdEncoding.EncodeToString(sum(string(key), "msg_2reeds."+s+"."+body)))
}

var cmss = map[string]cms{
	// https://www.sanity.io/docs/content-lake/webhooks, with the projection of the recipe.
	"Sanity": {
		verify: webhook.Sanity, sign: signSanity, timed: true,
		header: map[string]string{"Sanity-Operation": "update", "Sanity-Document-Id": "d4c1", "Idempotency-Key": "k-77"},
		body:   `{"paths":["/blog/grey-heron"],"tags":["post"]}`,
		want:   onePage,
	},
	// https://www.contentful.com/developers/docs/webhooks/
	"Contentful publish": {
		verify: webhook.Contentful, names: fromContentful, sign: signContentful, timed: true,
		header: map[string]string{"Content-Type": "application/vnd.contentful.management.v1+json", "X-Contentful-Topic": "ContentManagement.Entry.publish"},
		body: `{"metadata":{"tags":[]},"fields":{"title":{"en-US":"Grey heron"},"slug":{"en-US":"grey-heron"}},
			"sys":{"type":"Entry","id":"4kHeron9","space":{"sys":{"type":"Link","linkType":"Space","id":"reeds"}},
			"contentType":{"sys":{"type":"Link","linkType":"ContentType","id":"blogPost"}},"revision":3,"publishedVersion":17}}`,
		tags: "blogPost, entry-4kHeron9", want: byTag,
	},
	"Contentful unpublish": {
		verify: webhook.Contentful, names: fromContentful, sign: signContentful, timed: true,
		header: map[string]string{"X-Contentful-Topic": "ContentManagement.Entry.unpublish"},
		body: `{"sys":{"type":"DeletedEntry","id":"4kHeron9","contentType":{"sys":{"id":"blogPost"}},
			"revision":3,"deletedAt":"2026-03-01T08:00:00Z"}}`,
		tags: "blogPost, entry-4kHeron9", want: byTag, purged: true,
	},
	// https://docs.strapi.io/cms/backend-customization/webhooks
	"Strapi publish": {
		verify: webhook.Bearer, names: fromStrapi, sign: bearer, plain: true,
		header: map[string]string{"X-Strapi-Event": "entry.publish"},
		body: `{"event":"entry.publish","createdAt":"2026-03-01T08:00:00.100Z","model":"post","uid":"api::post.post",
			"entry":{"id":12,"documentId":"q7heron","title":"Grey heron","slug":"grey-heron","publishedAt":"2026-03-01T08:00:00.090Z"}}`,
		want: onePage,
	},
	"Strapi delete": {
		verify: webhook.Bearer, names: fromStrapi, sign: bearer, plain: true,
		header: map[string]string{"X-Strapi-Event": "entry.delete"},
		body:   `{"event":"entry.delete","createdAt":"2026-03-01T08:00:00.100Z","model":"post","entry":{"id":12,"slug":"grey-heron"}}`,
		want:   onePage, purged: true,
	},
	// https://docs.directus.io/app/flows/triggers.html: {{$trigger}} of an action.
	"Directus": {
		verify: webhook.Bearer, names: fromDirectus, sign: bearer, plain: true,
		body: `{"event":"posts.items.update","payload":{"title":"Grey heron"},"keys":[1000007],"collection":"posts"}`,
		tags: "posts-1000007", want: byTag,
	},
	// https://docs.ghost.org/webhooks
	"Ghost publish": {
		verify: webhook.Ghost, names: fromGhost, sign: signGhost, timed: true,
		header: map[string]string{"Content-Version": "v5.130"},
		body: `{"post":{"current":{"id":"65a1","uuid":"0d1c","title":"Grey heron","slug":"grey-heron","status":"published",
			"url":"https://cms.reeds.example/grey-heron/","tags":[]},"previous":{"status":"draft","updated_at":"2026-03-01T07:59:00.000Z"}}}`,
		want: onePage,
	},
	"Ghost delete": {
		verify: webhook.Ghost, names: fromGhost, sign: signGhost, timed: true,
		body: `{"post":{"current":{},"previous":{"id":"65a1","title":"Grey heron","slug":"grey-heron","status":"published"}}}`,
		want: onePage, purged: true,
	},
	// https://prismic.io/docs/webhooks
	"Prismic": {
		verify: webhook.Bearer, names: fromPrismic, sign: bearer, plain: true,
		body: `{"type":"api-update","masterRef":"Zheron1","releases":{},"masks":{},"tags":{},"experiments":{},
			"documents":["XheronAAA"],"domain":"reeds","apiUrl":"https://reeds.prismic.io/api","secret":null}`,
		tags: "XheronAAA", want: byTag,
	},
	// https://www.datocms.com/docs/content-management-api/resources/webhook-call
	"DatoCMS publish": {
		verify: webhook.Bearer, names: fromDatoCMS, sign: bearer, plain: true,
		body: `{"environment":"main","entity_type":"item","event_type":"publish","entity":{"id":"Hron_1","type":"item",
			"attributes":{"title":"Grey heron","slug":{"en":"grey-heron"}},
			"relationships":{"item_type":{"data":{"id":"Post_9","type":"item_type"}}},"meta":{"status":"published"}},"related_entities":[]}`,
		tags: "record-Hron_1", want: byTag,
	},
	"DatoCMS unpublish": {
		verify: webhook.Bearer, names: fromDatoCMS, sign: bearer, plain: true,
		body: `{"environment":"main","entity_type":"item","event_type":"unpublish","entity":{"id":"Hron_1","type":"item",
			"relationships":{"item_type":{"data":{"id":"Post_9","type":"item_type"}}}}}`,
		tags: "record-Hron_1", want: byTag, purged: true,
	},
	// https://wordpress.org/plugins/wp-webhooks/
	"WordPress publish": {
		verify: webhook.WordPress, names: fromWordPress, sign: signWordPress,
		header: map[string]string{"X-WP-Webhook-Source": "https://cms.reeds.example/"},
		body: `{"post_id":31,"post":{"ID":31,"post_author":"2","post_title":"Grey heron","post_status":"publish","post_name":"grey-heron",
			"post_type":"post"},"post_meta":{},"post_permalink":"https:\/\/cms.reeds.example\/grey-heron\/","taxonomies":[]}`,
		want: onePage,
	},
	"WordPress trash": {
		verify: webhook.WordPress, names: fromWordPress, sign: signWordPress,
		body: `{"post_id":31,"post":{"ID":31,"post_status":"trash","post_name":"grey-heron__trashed","post_type":"post"}}`,
		want: onePage, purged: true,
	},
	// https://docs.github.com/en/webhooks/webhook-events-and-payloads#push
	"GitHub": {
		verify: webhook.GitHub, names: fromGitHub, sign: signGitHub,
		header: map[string]string{"X-GitHub-Event": "push", "X-GitHub-Delivery": "72d3"},
		body: `{"ref":"refs/heads/main","before":"6dcb","after":"0d1a","repository":{"full_name":"reeds/site"},
			"commits":[{"id":"0d1a","message":"Correct a name","added":[],"removed":[],"modified":["posts/grey-heron.md"]}]}`,
		want: onePage,
	},
	// https://www.standardwebhooks.com
	"Standard Webhooks": {
		verify: func(s string) webhook.Verify { return webhook.Standard("whsec_" + s) }, sign: signStandard, timed: true,
		body: `{"type":"post.published","timestamp":"2026-03-01T08:00:00Z","paths":["/blog/grey-heron"],"data":{"id":"heron"}}`,
		want: onePage,
	},
}

// What a CMS sends has an effect if it is signed with the secret, within 5 minutes, and
// is what was signed; and to send it once more does no harm.
func TestCMS(t *testing.T) {
	for name, c := range cmss {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { testCMS(t, c) })
		})
	}
}

func testCMS(t *testing.T, c cms) {
	var version atomic.Int64
	site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/blog/grey-heron" {
			w.Header().Set("Cache-Tag", c.tags)
		}
		fmt.Fprint(w, version.Load())
	}), isr.Options{Origin: "https://reeds.example"})
	visit := func(path string) string {
		w := httptest.NewRecorder()
		site.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		synctest.Wait()
		return w.Body.String()
	}
	hook := webhook.Handler(site, c.verify(secret), c.names)
	send := func(secret, signed, sent string, at time.Time) (int, string) {
		r := httptest.NewRequest("POST", "/hook", strings.NewReader(sent))
		r.Header.Set("Content-Type", "application/json")
		for k, v := range c.header {
			r.Header.Set(k, v)
		}
		c.sign(r.Header, secret, signed, at)
		w := httptest.NewRecorder()
		hook.ServeHTTP(w, r)
		return w.Code, strings.TrimSpace(w.Body.String())
	}
	visit("/blog/grey-heron")
	visit("/about")
	version.Add(1)
	time.Sleep(time.Hour)

	for _, refused := range []struct {
		what, secret, signed string
		at                   time.Time
	}{
		{"signed with another secret", strings.Repeat("0", len(secret)), c.body, time.Now()},
		{"signed for another body", secret, c.body + " ", time.Now()},
		{"signed 6 minutes ago", secret, c.body, time.Now().Add(-6 * time.Minute)},
		{"signed in 6 minutes", secret, c.body, time.Now().Add(6 * time.Minute)},
	} {
		if c.plain && refused.signed != c.body || !c.timed && !refused.at.Equal(time.Now()) {
			continue // it does not say
		}
		if status, answer := send(refused.secret, refused.signed, c.body, refused.at); status != 401 || answer != `{"message":"Invalid token or signature"}` {
			t.Errorf("%s: got %d %s", refused.what, status, answer)
		}
		if got := visit("/blog/grey-heron"); got != "0" {
			t.Errorf("%s: has an effect", refused.what)
		}
	}

	signed := time.Now().Add(-4 * time.Minute)
	if status, answer := send(secret, c.body, c.body, signed); status != 200 || answer != c.want {
		t.Errorf("got %d %s, want %s", status, answer, c.want)
	}
	if !c.purged && c.want == byTag {
		visit("/blog/grey-heron") // once more the stale one
	}
	if got := visit("/blog/grey-heron"); got != "1" {
		t.Errorf("got the page of version %s", got)
	}
	if got := visit("/about"); got != "0" {
		t.Error("another page was renewed")
	}

	for range 2 {
		if status, _ := send(secret, c.body, c.body, signed); status != 200 {
			t.Errorf("replayed: got %d", status)
		}
		if got := visit("/blog/grey-heron"); got != "1" {
			t.Errorf("replayed: got the page of version %s", got)
		}
	}
	if c.timed {
		time.Sleep(2 * time.Minute)
		if status, _ := send(secret, c.body, c.body, signed); status != 401 {
			t.Errorf("replayed after more than 5 minutes: got %d", status)
		}
	}
}

// Each recipe is in the documentation as it is tested here.
func TestRecipesAreThoseOfTheDocumentation(t *testing.T) {
	source, err := os.ReadFile("recipes_test.go")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile("../docs/revalidation.md")
	if err != nil {
		t.Fatal(err)
	}
	set := token.NewFileSet()
	f, err := parser.ParseFile(set, "", source, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range f.Decls {
		if d, ok := d.(*ast.FuncDecl); ok {
			text := string(source[set.Position(d.Pos()).Offset:set.Position(d.End()).Offset])
			if !strings.Contains(string(doc), "```go\n"+text+"\n```\n") {
				t.Errorf("docs/revalidation.md does not have %s as it is here", d.Name.Name)
			}
		}
	}
}
