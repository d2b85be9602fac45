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
	"token2": true, "accessToken2": true, "AUTH_TOKEN1": true, "authtoken_v2": true, "cookie1": true, "Cookie2": true, "key1": true, "apikey1": true, "X-Api-Key2": true,
	"sid1": true, "secret3": true, "password1": true, "password01": true, "bearer": true, "licensekey": true, "sshkey": true,

	"Accept-Language": false, "X-Requested-With": false, "Hx-Request": false, "Surrogate-Key": false, "X-Cache-Key": false,
	"q": false, "page": false, "author": false, "keyword": false, "monkey": false, "tokenize": false, "side": false, "passage": false,
	"design": false, "sort": false, "monkey1": false, "page2": false, "x264": false, "2": false,
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

// What is secret by its name is hidden wherever a header, an address or an error has it,
// and so is who a URL is for.
func TestSecretsInTextsAreHidden(t *testing.T) {
	for text, want := range map[string]string{
		"token=s3cret":                                 "token=(hidden)",
		"a=b, token=s3cret, c=d":                       "a=b, token=(hidden), c=d",
		"host=db password=s3cret user=u":               "host=db password=(hidden) user=u",
		`Digest name="u", token="s3cret, too", nc=1`:   `Digest name="u", token="(hidden)", nc=1`,
		`token="s3cret`:                                `token="(hidden)`,
		`GET "https://example.com/?key=s3cret": no`:    `GET "https://example.com/?key=(hidden)": no`,
		`url="https://example.com/?a=b&key=s3cret"`:    `url="https://example.com/?a=b&key=(hidden)"`,
		"0; url=/?token=s3cret":                        "0; url=(hidden)",
		"</a?b=c&token=s3cret>; rel=preload":           "</a?b=c&token=(hidden)>; rel=preload",
		"https://u:s3cret@example.com/a":               "https://(hidden)@example.com/a",
		"https://s3cret@example.com":                   "https://(hidden)@example.com",
		"//u:s3@cret@example.com/":                     "//(hidden)@example.com/",
		"dial postgres://u:s3cret@db:5432/x?a=b: no":   "dial postgres://(hidden)@db:5432/x?a=b: no",
		"/a?next=https%3A%2F%2Fu:s3cret%40example.com": "/a?next=(hidden)",
		"/a?next=https%253A%252F%252Fs3cret%2540b.de":  "/a?next=(hidden)",
		"/a?next=%252Fb%253Ftoken%253Ds3cret":          "/a?next=(hidden)",
		"/a?next=%252Fb%253Fpage%253D2":                "/a?next=%252Fb%253Fpage%253D2",
		"/a?share=100%25":                              "/a?share=100%25",
		"https://example.com/@u/a":                     "https://example.com/@u/a",
		"public, max-age=60":                           "public, max-age=60",
		"mail u@example.com":                           "mail u@example.com",
		"a == b":                                       "a == b",
	} {
		broken := false
		site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if broken {
				panic(errors.New(text))
			}
			w.Header().Set("X-Note", text)
		}), isr.Options{})
		h := inspect.Handler(site, inspect.Options{})
		site.ServeHTTP(httptest.NewRecorder(), request("GET", "/x"))
		broken = true
		site.Revalidate(t.Context(), "/x")
		p := asJSON(t, h, "/?id="+id(t, h, "/x")).Page
		if got := p.Header.Get("X-Note"); got != want {
			t.Errorf("%s is shown as %s, want %s", text, got, want)
		}
		if !strings.Contains(p.Error, want) {
			t.Errorf("an error with %s is shown as %s, want %s", text, p.Error, want)
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
