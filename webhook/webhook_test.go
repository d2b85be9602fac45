package webhook_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/webhook"
)

// anyone lets everybody through.
func anyone(*http.Request) func([]byte) bool { return func([]byte) bool { return true } }

// A pond is a site whose pages say how often they were made, and fail while it is frozen.
type pond struct {
	*isr.Site
	frozen atomic.Bool
	made   atomic.Int64
}

func newPond() *pond {
	p := new(pond)
	p.Site = isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p.frozen.Load() {
			http.Error(w, "frozen", http.StatusBadGateway)
			return
		}
		w.Header().Set("Cache-Tag", "birds")
		fmt.Fprint(w, p.made.Add(1))
	}), isr.Options{Origin: "https://reeds.example"})
	return p
}

func (p *pond) visit(path string) string {
	w := httptest.NewRecorder()
	p.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
	return fmt.Sprint(w.Code, " ", strings.TrimSpace(w.Body.String()))
}

func post(h http.Handler, body string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("POST", "/hook", strings.NewReader(body)))
	return w
}

func TestAnswers(t *testing.T) {
	asJSON := func(more ...string) http.Header {
		h := http.Header{"Content-Type": {"application/json"}, "Cache-Control": {"no-store"}}
		for i := 0; i < len(more); i += 2 {
			h[more[i]] = []string{more[i+1]}
		}
		return h
	}
	type answer struct {
		Status int
		Header http.Header
		Body   string
	}
	const shape = `want JSON such as {\"paths\": [\"/blog/1\"], \"tags\": [\"blog\"]}: `
	for name, test := range map[string]struct {
		method, body string
		verify       webhook.Verify
		names        webhook.Names
		frozen       bool
		want         answer
	}{
		"a path":                {body: `{"paths":["/heron"]}`, want: answer{200, asJSON(), `{"revalidated":true,"pages":{"/heron":1}}`}},
		"a path that is unseen": {body: `{"paths":["/bittern"]}`, want: answer{200, asJSON(), `{"revalidated":true,"pages":{"/bittern":0}}`}},
		"a tag":                 {body: `{"tags":["birds"]}`, want: answer{200, asJSON(), `{"revalidated":true}`}},
		"nothing":               {body: `{}`, want: answer{400, asJSON(), `{"message":"name a path or a tag"}`}},
		"no body":               {body: ``, want: answer{400, asJSON(), `{"message":"` + shape + `unexpected end of JSON input"}`}},
		"a form":                {body: `path=/heron`, want: answer{400, asJSON(), `{"message":"` + shape + `invalid character 'p' looking for beginning of value"}`}},
		"no path":               {body: `{"paths":["heron"]}`, want: answer{400, asJSON(), `{"message":"isr: path \"heron\": want a path that begins with \"/\", or a whole URL"}`}},
		"no tag":                {body: `{"tags":["/birds"]}`, want: answer{400, asJSON(), `{"message":"isr: tag \"/birds\": a tag does not begin with \"/\": paths are for Revalidate and Purge, and need no tag"}`}},
		"GET":                   {method: "GET", want: answer{405, asJSON("Allow", "POST"), `{"message":"Method not allowed"}`}},
		"DELETE":                {method: "DELETE", body: `{"paths":["/heron"]}`, want: answer{405, asJSON("Allow", "POST"), `{"message":"Method not allowed"}`}},
		"refused by its header": {
			verify: func(*http.Request) func([]byte) bool { return nil },
			want:   answer{401, asJSON("Www-Authenticate", "Bearer"), `{"message":"Invalid token or signature"}`},
		},
		"refused by its body": {
			verify: func(*http.Request) func([]byte) bool { return func(b []byte) bool { return len(b) == 0 } }, body: "x",
			want: answer{401, asJSON("Www-Authenticate", "Bearer"), `{"message":"Invalid token or signature"}`},
		},
		"too large":            {body: strings.Repeat(" ", 1<<20+1), want: answer{413, asJSON(), `{"message":"Body is larger than 1048576 bytes"}`}},
		"the site fails":       {body: `{"paths":["/heron"]}`, frozen: true, want: answer{500, asJSON(), `{"message":"Error revalidating"}`}},
		"nothing to do":        {names: func(http.Header, []byte) (c webhook.Change, err error) { return }, want: answer{200, asJSON(), `{"revalidated":false}`}},
		"names cannot read it": {names: func(http.Header, []byte) (c webhook.Change, err error) { return c, errors.New("no slug") }, want: answer{400, asJSON(), `{"message":"no slug"}`}},
		"purged and revalidated": {
			names: func(http.Header, []byte) (webhook.Change, error) {
				return webhook.Change{PurgePaths: []string{"/heron"}, Paths: []string{"/egret"}, PurgeTags: []string{"fish"}}, nil
			},
			want: answer{200, asJSON(), `{"revalidated":true,"pages":{"/egret":1,"/heron":1}}`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPond()
			p.visit("/heron")
			p.visit("/egret")
			p.frozen.Store(test.frozen)
			if test.verify == nil {
				test.verify = anyone
			}
			w := httptest.NewRecorder()
			method := "POST"
			if test.method != "" {
				method = test.method
			}
			webhook.Handler(p.Site, test.verify, test.names).ServeHTTP(w, httptest.NewRequest(method, "/hook", strings.NewReader(test.body)))
			got := answer{w.Code, w.Header(), strings.TrimSpace(w.Body.String())}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if got.Status >= 400 && p.visit("/heron") != "200 1" {
				t.Error("an answer that refuses has an effect on the page")
			}
		})
	}
}

// What is purged is not shown on errors, either; what is revalidated is.
func TestPurge(t *testing.T) {
	p := newPond()
	p.visit("/heron")
	p.visit("/egret")
	p.frozen.Store(true)
	w := post(webhook.Handler(p.Site, anyone, func(http.Header, []byte) (webhook.Change, error) {
		return webhook.Change{PurgePaths: []string{"/heron"}, Paths: []string{"/egret"}}, nil
	}), "")
	if w.Code != 500 {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
	if got := p.visit("/heron"); got != "502 frozen" {
		t.Errorf("the purged page: %s", got)
	}
	if got := p.visit("/egret"); got != "200 2" {
		t.Errorf("the other page: %s", got)
	}
}

// What is expired is not shown once more while a new one is made, as what is stale is.
func TestExpireTags(t *testing.T) {
	for want, change := range map[string]webhook.Change{
		"200 1": {Tags: []string{"birds"}},
		"200 2": {Tags: []string{"birds"}, ExpireTags: []string{"birds"}},
	} {
		p := newPond()
		p.visit("/heron")
		w := post(webhook.Handler(p.Site, anyone, func(http.Header, []byte) (webhook.Change, error) { return change, nil }), "")
		if got := p.visit("/heron"); w.Code != 200 || got != want {
			t.Errorf("%+v: answered %d, the page is %s", change, w.Code, got)
		}
	}
}

// If a path to purge is none, nothing is done.
func TestPurgeOfNonsense(t *testing.T) {
	p := newPond()
	p.visit("/heron")
	w := post(webhook.Handler(p.Site, anyone, func(http.Header, []byte) (webhook.Change, error) {
		return webhook.Change{PurgePaths: []string{"heron"}, PurgeTags: []string{"birds"}, Paths: []string{"/heron"}}, nil
	}), "")
	if w.Code != 400 || !strings.Contains(w.Body.String(), "heron") {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
	if got := p.visit("/heron"); got != "200 1" {
		t.Errorf("got %s", got)
	}
}

// Who gives no sign of knowing the secret does not get the server to read a body.
func TestBodyOfStrangersIsNotRead(t *testing.T) {
	p := newPond()
	for name, verify := range map[string]webhook.Verify{
		"Bearer": webhook.Bearer(secret), "Sanity": webhook.Sanity(secret), "Standard": webhook.Standard(secret),
		"GitHub": webhook.GitHub(secret), "Contentful": webhook.Contentful(secret), "Ghost": webhook.Ghost(secret), "WordPress": webhook.WordPress(secret),
	} {
		r := httptest.NewRequest("POST", "/hook", readerFunc(func([]byte) (int, error) {
			t.Errorf("%s: the body is read", name)
			return 0, io.EOF
		}))
		w := httptest.NewRecorder()
		webhook.Handler(p.Site, verify, nil).ServeHTTP(w, r)
		if w.Code != 401 {
			t.Errorf("%s: got %d", name, w.Code)
		}
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// The CMS hangs up, and what it has asked for is done all the same as far as it has
// begun: the answer is that of Revalidate under its context.
func TestContextIsTheRequests(t *testing.T) {
	p := newPond()
	p.visit("/heron")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := httptest.NewRequestWithContext(ctx, "POST", "/hook", strings.NewReader(`{"paths":["/heron"]}`))
	w := httptest.NewRecorder()
	webhook.Handler(p.Site, anyone, nil).ServeHTTP(w, r)
	if w.Code != 500 {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
}

func TestPanics(t *testing.T) {
	for name, f := range map[string]func(){
		"no site":                 func() { webhook.Handler(nil, anyone, nil) },
		"no verify":               func() { webhook.Handler(newPond().Site, nil, nil) },
		"Bearer":                  func() { webhook.Bearer("") },
		"Sanity":                  func() { webhook.Sanity("") },
		"Standard":                func() { webhook.Standard("") },
		"Standard, prefix alone":  func() { webhook.Standard("whsec_") },
		"Standard without base64": func() { webhook.Standard("whsec_!") },
		"GitHub":                  func() { webhook.GitHub("") },
		"Contentful":              func() { webhook.Contentful("") },
		"Ghost":                   func() { webhook.Ghost("") },
		"WordPress":               func() { webhook.WordPress("") },
	} {
		func() {
			defer func() {
				if v := recover(); v == nil || strings.Contains(fmt.Sprint(v), "whsec_!") {
					t.Errorf("%s: recovered %v", name, v)
				}
			}()
			f()
		}()
	}
}

// What Sanity signs renews a page; what nobody has signed would be refused.
func Example() {
	price := 10
	site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%d €", price)
	}), isr.Options{Origin: "https://shop.example"})
	show := func() {
		w := httptest.NewRecorder()
		site.ServeHTTP(w, httptest.NewRequest("GET", "/shoes", nil))
		fmt.Println(w.Body)
	}
	hook := webhook.Handler(site, webhook.Sanity("a long random string"), nil)

	show()
	price = 8
	body := `{"paths": ["/shoes"]}`
	r := httptest.NewRequest("POST", "/hooks/sanity", strings.NewReader(body))
	signSanity(r.Header, "a long random string", body, time.Now())
	w := httptest.NewRecorder()
	hook.ServeHTTP(w, r)
	fmt.Print(w.Body)
	show()
	// Output:
	// 10 €
	// {"revalidated":true,"pages":{"/shoes":1}}
	// 8 €
}
