package webhook_test

import (
	"crypto/sha256"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/isr-go/isr/internal/webhook"
)

// check allows paths that begin with a slash, and tags that are words.
func check(o webhook.Order) error {
	for _, path := range o.Paths {
		if !strings.HasPrefix(path, "/") {
			return errors.New("bad " + path)
		}
	}
	for _, tag := range o.Tags {
		if tag == "" || strings.ContainsAny(tag, "/, ") {
			return errors.New("bad " + tag)
		}
	}
	return nil
}

func TestNames(t *testing.T) {
	const (
		asJSON = "application/json"
		form   = "application/x-www-form-urlencoded"
		want   = `want JSON such as {"paths": ["/blog/1"], "tags": ["blog"]}: `
	)
	type names struct {
		Paths, Tags []string
		Expire      bool
		Err         string
	}
	for name, test := range map[string]struct {
		method, query, contentType, body string
		want                             names
	}{
		"query":                         {"POST", "?path=/a&tag=x&path=/b", "", "", names{Paths: []string{"/a", "/b"}, Tags: []string{"x"}}},
		"query of a GET":                {"GET", "?path=/a", "", "", names{Paths: []string{"/a"}}},
		"body of a GET":                 {"GET", "?path=/a", asJSON, `{"paths": ["/b"]}`, names{Paths: []string{"/a"}}},
		"form":                          {"POST", "", form, "path=/b&tag=x&id=1", names{Paths: []string{"/b"}, Tags: []string{"x"}}},
		"form with a charset":           {"POST", "", form + "; charset=utf-8", "path=/b", names{Paths: []string{"/b"}}},
		"form beside the query":         {"POST", "?path=/a", form, "path=/b&tag=x", names{Paths: []string{"/a", "/b"}, Tags: []string{"x"}}},
		"malformed form":                {"POST", "", form, "%zz", names{Err: `want a form: invalid URL escape "%zz"`}},
		"malformed form beside a query": {"POST", "?tag=x", form, "path=/b&%zz", names{Tags: []string{"x"}}},
		"multipart": {"POST", "", "multipart/form-data; boundary=x",
			"--x\r\nContent-Disposition: form-data; name=path\r\n\r\n/a\r\n--x--\r\n", names{Paths: []string{"/a"}}},
		"malformed multipart":                   {"POST", "", "multipart/form-data; boundary=x", "--y", names{Err: "want a form: multipart: NextPart: EOF"}},
		"multipart without boundary":            {"POST", "", "multipart/form-data", "--y", names{Err: "want a form: multipart: boundary is empty"}},
		"JSON":                                  {"POST", "", asJSON, `{"paths": ["/a", "/b"], "tags": ["x"]}`, names{Paths: []string{"/a", "/b"}, Tags: []string{"x"}}},
		"JSON of a DELETE":                      {"DELETE", "", asJSON, `{"tags": ["x"]}`, names{Tags: []string{"x"}}},
		"JSON with more in it":                  {"POST", "", asJSON, `{"paths": ["/a"], "event": {"id": 1}}`, names{Paths: []string{"/a"}}},
		"JSON as curl -d sends it":              {"POST", "", form, ` {"paths": ["/a"]}`, names{Paths: []string{"/a"}}},
		"JSON without a type":                   {"POST", "", "", `{"paths": ["/a"]}`, names{Paths: []string{"/a"}}},
		"JSON beside the query":                 {"POST", "?path=/a", asJSON, `{"paths": ["/b"]}`, names{Paths: []string{"/a", "/b"}}},
		"a sender's own JSON beside the query":  {"POST", "?path=/a", asJSON, `{"id": 1, "tags": ["x", ""]}`, names{Paths: []string{"/a"}}},
		"an array beside the query":             {"POST", "?path=/a", asJSON, `[{"paths": ["/b"]}]`, names{Paths: []string{"/a"}}},
		"tags in one string beside the query":   {"POST", "?tag=x", asJSON, `{"tags": "y, z"}`, names{Tags: []string{"x"}}},
		"an unknown type beside the query":      {"POST", "?path=/a", "text/plain", "path=/b", names{Paths: []string{"/a"}}},
		"a bad path in a form beside the query": {"POST", "?path=/a", form, "path=uploads/b.png", names{Paths: []string{"/a"}}},
		"a good and a bad one beside the query": {"POST", "?path=/a", form, "path=/b&path=c", names{Paths: []string{"/a"}}},
		"a sender's own form beside the query":  {"POST", "?path=/a", form, "path=/uploads/b.png&post_id=3", names{Paths: []string{"/a"}}},
		"its own expire beside the query":       {"POST", "?path=/a", form, "path=/b&expire=never", names{Paths: []string{"/a"}}},
		"bad tags in JSON beside the query":     {"POST", "?path=/a", asJSON, `{"paths": ["/b"], "tags": ["y, z"]}`, names{Paths: []string{"/a"}}},
		"a bad path in the query":               {"POST", "?path=a", asJSON, `{"paths": ["/b"]}`, names{Err: "bad a"}},
		"a bad path in a form":                  {"POST", "", form, "path=/a&path=b", names{Err: "bad b"}},
		"bad tags in JSON":                      {"POST", "", asJSON, `{"tags": ["y, z"]}`, names{Err: "bad y, z"}},
		"an empty body of a type":               {"POST", "?tag=x", asJSON, " \n", names{Tags: []string{"x"}}},
		"an array":                              {"POST", "", "", `["/a"]`, names{Err: want + "got array"}},
		"tags in one string":                    {"POST", "", asJSON, `{"tags": "y, z"}`, names{Err: want + "got string"}},
		"truncated JSON":                        {"POST", "", asJSON, "{", names{Err: want + "unexpected end of JSON input"}},
		"two JSON values":                       {"POST", "", asJSON, `{"paths":["/a"]}{}`, names{Err: want + "invalid character '{' after top-level value"}},
		"expire in the query":                   {"POST", "?tag=x&expire=1", "", "", names{Tags: []string{"x"}, Expire: true}},
		"expire=0":                              {"GET", "?tag=x&expire=0", "", "", names{Tags: []string{"x"}}},
		"expire in a form":                      {"POST", "", form, "tag=x&expire=1", names{Tags: []string{"x"}, Expire: true}},
		"expire in the query, a tag in JSON":    {"POST", "?expire=1", asJSON, `{"tags": ["x"]}`, names{Tags: []string{"x"}, Expire: true}},
		"a sender's own expire":                 {"POST", "", asJSON, `{"tags": ["x"], "expire": "2026-01-01"}`, names{Tags: []string{"x"}}},
		"expire that is neither":                {"POST", "?tag=x&expire=soon", "", "", names{Err: `want expire=1, not "soon"`}},
		"nothing":                               {"POST", "", "", "", names{Err: "name a path or a tag"}},
		"nothing of a GET":                      {"GET", "?paths=/a", "", "", names{Err: "name a path or a tag"}},
		"nothing in JSON":                       {"POST", "", asJSON, "{}", names{Err: "name a path or a tag"}},
		"what is empty":                         {"POST", "?path=&tag=", "", "", names{Err: "bad "}},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest(test.method, "/hook"+test.query, strings.NewReader(test.body))
			if test.contentType != "" {
				r.Header.Set("Content-Type", test.contentType)
			}
			var got names
			o, err := webhook.Names(httptest.NewRecorder(), r, check)
			got.Paths, got.Tags, got.Expire = o.Paths, o.Tags, o.Expire
			if err != nil {
				got.Err = err.Error()
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// No more than MaxBytes are read of a body. Where the query names something, a larger one is
// ignored: a CMS may send one of its own, and the page is renewed all the same.
func TestNamesBoundsTheBody(t *testing.T) {
	for _, query := range []string{"", "?path=/a"} {
		for _, size := range []int{webhook.MaxBytes, webhook.MaxBytes + 1, 3 * webhook.MaxBytes} {
			body := `{"paths": ["/b"]}`
			body += strings.Repeat(" ", size-len(body))
			sent := strings.NewReader(body)
			o, err := webhook.Names(httptest.NewRecorder(), httptest.NewRequest("POST", "/hook"+query, sent), check)
			tooLarge := (*http.MaxBytesError)(nil)
			if got, want := errors.As(err, &tooLarge), size > webhook.MaxBytes && query == ""; got != want {
				t.Errorf("query %q, body of %d bytes: %v", query, size, err)
			}
			var want []string
			if query != "" {
				want = append(want, "/a")
			}
			if size <= webhook.MaxBytes {
				want = append(want, "/b")
			}
			if !slices.Equal(o.Paths, want) {
				t.Errorf("query %q, body of %d bytes: %q, want %q", query, size, o.Paths, want)
			}
			if read := size - sent.Len(); read > webhook.MaxBytes+1 {
				t.Errorf("query %q: read %d bytes of %d", query, read, size)
			}
		}
	}
}

func TestAuthorized(t *testing.T) {
	const secret = "correct horse"
	for name, test := range map[string]struct {
		query  string
		bearer []string
		want   bool
	}{
		"in the header":             {"", []string{"Bearer correct horse"}, true},
		"scheme in lower case":      {"", []string{"bearer  correct horse "}, true},
		"in the query":              {"?secret=correct+horse", nil, true},
		"in both":                   {"?secret=correct+horse", []string{"Bearer correct horse"}, false},
		"beside another scheme":     {"", []string{"Basic eDp5", "Bearer correct horse"}, true},
		"in neither":                {"", nil, false},
		"another scheme":            {"", []string{"Basic correct horse"}, false},
		"no scheme":                 {"", []string{secret}, false},
		"wrong":                     {"", []string{"Bearer wrong"}, false},
		"a prefix":                  {"", []string{"Bearer correct"}, false},
		"empty":                     {"?secret=", []string{"Bearer "}, false},
		"wrong in the query":        {"?secret=wrong", nil, false},
		"both, header wrong":        {"?secret=correct+horse", []string{"Bearer wrong"}, false},
		"both, query wrong":         {"?secret=wrong", []string{"Bearer correct horse"}, false},
		"two guesses in the query":  {"?secret=correct+horse&secret=wrong", nil, false},
		"the secret twice":          {"?secret=correct+horse&secret=correct+horse", nil, false},
		"two guesses in the header": {"", []string{"Bearer correct horse", "Bearer wrong"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest("POST", "/hook"+test.query, nil)
			r.Header["Authorization"] = test.bearer
			if got := webhook.Authorized(r, sha256.Sum256([]byte(secret))); got != test.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestAnswersAreJSONThatNobodyKeeps(t *testing.T) {
	w := httptest.NewRecorder()
	webhook.Refuse(w, http.StatusBadRequest, `no path: "b"`)
	if got, want := w.Body.String(), `{"message":"no path: \"b\""}`+"\n"; w.Code != 400 || got != want {
		t.Errorf("got %d %s", w.Code, got)
	}
	want := http.Header{"Content-Type": {"application/json"}, "Cache-Control": {"no-store"}}
	if diff := cmp.Diff(want, w.Header()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// Whatever is sent, the answer names something or says why not, in words that
// are for the sender, and what the query names is always among it.
func FuzzNames(f *testing.F) {
	f.Add("path=/a", "application/json", `{"paths": ["/b"], "tags": "x"}`)
	f.Add("", "multipart/form-data; boundary=x", "--x\r\nContent-Disposition: form-data; name=path\r\n\r\n/a\r\n--x--\r\n")
	f.Add("tag=x", "application/x-www-form-urlencoded", "path=/b&%zz")
	f.Fuzz(func(t *testing.T, query, contentType, body string) {
		r := httptest.NewRequest("POST", "/hook", strings.NewReader(body))
		r.URL.RawQuery = query
		r.Header["Content-Type"] = []string{contentType}
		o, err := webhook.Names(httptest.NewRecorder(), r, check)
		paths, tags := o.Paths, o.Tags
		switch named := len(paths)+len(tags) > 0; {
		case named == (err != nil):
			t.Errorf("%q, %q, %v", paths, tags, err)
		case err != nil && strings.Contains(err.Error(), "Go struct"):
			t.Errorf("the sender cannot know what is meant by %q", err)
		}
		q := r.URL.Query()
		if err != nil {
			return
		}
		if named := q["path"]; !slices.Equal(named, paths[:min(len(paths), len(named))]) {
			t.Errorf("the query names %q, got %q", named, paths)
		}
		if named := q["tag"]; !slices.Equal(named, tags[:min(len(tags), len(named))]) {
			t.Errorf("the query names %q, got %q", named, tags)
		}
		if check(o) != nil {
			t.Errorf("%q, %q are not checked", paths, tags)
		}
	})
}

func TestNamesInJSON(t *testing.T) {
	const want = `want JSON such as {"paths": ["/blog/1"], "tags": ["blog"]}: `
	for body, wantErr := range map[string]string{
		`{"paths": ["/a"], "tags": ["x"], "id": 1}`: "",
		`{"tags": ["x"]}`:  "",
		`{"id": 1}`:        "name a path or a tag",
		`{"paths": "/a"}`:  want + "got string",
		`path=/a`:          want + "invalid character 'p' looking for beginning of value",
		`{"paths": ["/a"]`: want + "unexpected end of JSON input",
	} {
		got := ""
		if _, _, err := webhook.NamesInJSON([]byte(body)); err != nil {
			got = err.Error()
		}
		if got != wantErr {
			t.Errorf("%s: %s", body, got)
		}
	}
}

func TestRefuseBody(t *testing.T) {
	for want, err := range map[int]error{
		http.StatusRequestEntityTooLarge: &http.MaxBytesError{Limit: webhook.MaxBytes},
		http.StatusBadRequest:            errors.New("name a path or a tag"),
	} {
		w := httptest.NewRecorder()
		if webhook.RefuseBody(w, err); w.Code != want {
			t.Errorf("%v: got %d", err, w.Code)
		}
	}
}
