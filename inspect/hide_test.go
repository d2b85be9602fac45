package inspect_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/inspect"
)

// secretNames says what is hidden by its name, as a header and as a parameter.
var secretNames = map[string]bool{
	"Authorization": true, "Proxy-Authorization": true, "Cookie": true, "Set-Cookie": true,
	"X-Api-Key": true, "Api-Key": true, "apikey": true, "key": true, "Access-Key-Id": true, "X-Goog-Api-Key": true,
	"X-Csrf-Token": true, "X-Xsrf-Token": true, "csrf": true, "csrftoken": true, "token": true, "Access_Token": true, "id_token": true, "refreshToken": true,
	"X-Amz-Signature": true, "X-Amz-Security-Token": true, "X-Amz-Credential": true, "sig": true, "hmac": true,
	"X-Client-Secret": true, "secret": true, "password": true, "passwd": true, "pwd": true, "otp": true, "jwt": true,
	"sid": true, "PHPSESSID": true, "JSESSIONID": true, "session": true, "Session-Id": true, "X-Auth": true,

	"Accept-Language": false, "X-Requested-With": false, "Hx-Request": false, "Surrogate-Key": false, "X-Cache-Key": false,
	"q": false, "page": false, "author": false, "keyword": false, "monkey": false, "tokenize": false, "side": false, "passage": false,
	"design": false, "sort": false,
}

func TestSecretHeadersAreHidden(t *testing.T) {
	for name, want := range secretNames {
		route := isr.Route{Vary: []string{name}}
		switch http.CanonicalHeaderKey(name) {
		case "Cookie":
			route = isr.Route{VaryCookies: []string{"c"}}
		case "Set-Cookie": // with which nothing is stored
			continue
		case "Proxy-Authorization":
			route = isr.Route{}
		}
		site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Header().Set(name, "s3cret") }), isr.Options{Default: route})
		r := request("GET", "/")
		r.Header.Set(name, "c=s3cret")
		site.ServeHTTP(httptest.NewRecorder(), r)
		h := inspect.Handler(site, inspect.Options{})
		only := id(t, h, "/")
		for _, target := range []string{"/", "/?format=json", "/?id=" + only, "/?format=json&id=" + only} {
			if got := !strings.Contains(get(h, target).Body.String(), "s3cret"); got != want {
				t.Errorf("%s, as %s shows it: hidden: %t, want %t", name, target, got, want)
			}
		}
	}
}

func TestSecretParametersAreHidden(t *testing.T) {
	for name, want := range secretNames {
		for _, target := range []string{
			"/x?a=b&" + name + "=s3cret",
			"/x?" + name + "=s3cret&z=1",
			"/x?next=" + url.QueryEscape("/login?a=1&"+name+"=s3cret"),
			"/x?next=" + url.QueryEscape("/login?next="+url.QueryEscape("https://example.com/?"+name+"=s3cret")),
			"/x;" + strings.ToLower(name) + "=s3cret/y",
		} {
			site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, "https://example.com"+r.URL.RequestURI(), http.StatusMovedPermanently)
			}), isr.Options{Default: isr.Route{Query: nil}})
			site.ServeHTTP(httptest.NewRecorder(), request("GET", target))
			h := inspect.Handler(site, inspect.Options{Actions: true})
			only := id(t, h, "/x")
			documents := []string{
				get(h, "/").Body.String(), get(h, "/?format=json").Body.String(), get(h, "/?id="+only).Body.String(), get(h, "/?format=json&id="+only).Body.String(),
				post(h, "/", url.Values{"do": {"purge"}, "id": {only}}).Body.String(),
			}
			for i, document := range documents {
				if got := !strings.Contains(document, "s3cret"); got != want {
					t.Errorf("%s in document %d: hidden: %t, want %t", target, i, got, want)
				}
			}
		}
	}
}

func TestSecretWildcardsAreHidden(t *testing.T) {
	site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}), isr.Options{Routes: map[string]isr.Route{
		"/reset/{token}/{step}": {}, "/files/{id}/{secret...}": {}, "/blog/{id}": {},
	}})
	for _, target := range []string{"/reset/s3cret/2", "/files/7/a/b", "/blog/1;jsessionid=42"} {
		site.ServeHTTP(httptest.NewRecorder(), request("GET", target))
	}
	var got []string
	for _, p := range asJSON(t, inspect.Handler(site, inspect.Options{}), "/").Table.Pages {
		got = append(got, p.Path, p.URL)
	}
	want := []string{
		"/blog/1;jsessionid=(hidden)", "http://example.com/blog/1;jsessionid=(hidden)", "/files/7/(hidden)", "http://example.com/files/7/(hidden)",
		"/reset/(hidden)/2", "http://example.com/reset/(hidden)/2",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A search finds nothing in what is hidden, not letter by letter either.
func TestSecretsAreNotSearched(t *testing.T) {
	site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}), isr.Options{})
	site.ServeHTTP(httptest.NewRecorder(), request("GET", "/x?q=hay&token=s3cret"))
	h := inspect.Handler(site, inspect.Options{})
	for query, want := range map[string]int{"token=s": 0, "s3c": 0, "q=hay": 1, "token=": 1} {
		if got := asJSON(t, h, "/?path="+url.QueryEscape(query)).Table.Matching; got != want {
			t.Errorf("%q finds %d pages, want %d", query, got, want)
		}
	}
}

func TestActionsOnPagesWithSecrets(t *testing.T) {
	broken := false
	site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if broken {
			panic(errors.New("GET https://api.example/?page=1&key=s3cret: refused"))
		}
	}), isr.Options{Routes: map[string]isr.Route{"/reset/{token}": {}}})
	visit := func() {
		site.ServeHTTP(httptest.NewRecorder(), request("GET", "/reset/s3cret?key=s3cret"))
	}
	visit()
	h := inspect.Handler(site, inspect.Options{Actions: true})
	only := id(t, h, "/")
	broken = true
	for _, do := range []string{"revalidate", "purge"} {
		w := post(h, "/?format=json", url.Values{"do": {do}, "id": {only}})
		out := decode(t, w).Outcome
		if out.OK != (do == "purge") || strings.Contains(w.Body.String(), "s3cret") || out.URL != "http://example.com/reset/(hidden)?key=(hidden)" {
			t.Errorf("%s: %+v", do, out)
		}
		if document := get(h, "/").Body.String(); strings.Contains(document, "s3cret") {
			t.Errorf("after %s, the page tells the secret: %s", do, text(document))
		}
	}
	if n := site.Stats().Pages; n != 0 {
		t.Errorf("%d pages are left", n)
	}
}
