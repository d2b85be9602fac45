package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
)

// A counting origin numbers its answers.
func countingOrigin(t *testing.T) string {
	var n atomic.Int64
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %d %s", r.URL.Path, n.Add(1), r.Method)
	}))
	t.Cleanup(origin.Close)
	return origin.URL
}

func send(t *testing.T, method, url string, header ...string) (status int, body string) {
	t.Helper()
	req, err := http.NewRequest(method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, strings.TrimSpace(string(b))
}

// A PURGE concerns what it names, and nothing else.
func TestPurge(t *testing.T) {
	all := []string{"/", "/a", "/a/b", "/a?x=1", "/c"}
	for name, test := range map[string]struct {
		target string
		header []string
		want   []string
	}{
		"a page":             {"/a", nil, []string{"/a", "/a?x=1"}},
		"with its query":     {"/a?x=1", nil, []string{"/a?x=1"}},
		"all below":          {"/a/*", nil, []string{"/a/b"}},
		"everything":         {"/*", nil, all},
		"as plugins say it":  {"/.*", []string{"X-Purge-Method", "regex"}, all},
		"a page and below":   {"/a.*", []string{"X-Purge-Method", "regex"}, []string{"/a", "/a/b", "/a?x=1"}},
		"not what is stored": {"/none", nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			_, server := front(t, countingOrigin(t), "-ttl", "forever")
			before := map[string]string{}
			for _, path := range all {
				before[path] = mustGet(t, server.URL+path).body
			}
			if status, body := send(t, "PURGE", server.URL+test.target, test.header...); status != 200 || !strings.HasPrefix(body, `{"purged":["`) {
				t.Errorf("%d %s", status, body)
			}
			var renewed []string
			for _, path := range all {
				if mustGet(t, server.URL+path).body != before[path] {
					renewed = append(renewed, path)
				}
			}
			if !slices.Equal(renewed, test.want) {
				t.Errorf("%v are new, want %v", renewed, test.want)
			}
		})
	}
}

// After a PURGE, the last good page is still shown where the origin fails.
func TestPurgedPageOutlivesTheOrigin(t *testing.T) {
	origin := newOrigin(t)
	_, server := front(t, origin.URL, "-ttl", "forever")
	first := mustGet(t, server.URL+"/")
	origin.Close()
	send(t, "PURGE", server.URL+"/")
	if a := mustGet(t, server.URL+"/"); a.status != 200 || a.body != first.body {
		t.Errorf("%d %q", a.status, a.body)
	}
}

// Who may not purge, does not; and the origin sees no PURGE.
func TestWhoMayPurge(t *testing.T) {
	for name, test := range map[string]struct {
		args   string
		header []string
		want   int
	}{
		"from this machine":         {"", nil, 200},
		"forwarded":                 {"", []string{"X-Forwarded-For", "192.0.2.1"}, 403},
		"forwarded otherwise":       {"", []string{"X-Real-Ip", "192.0.2.1"}, 403},
		"from a page in a browser":  {"", []string{"Origin", "https://evil.example"}, 403},
		"with a secret of no one":   {"", []string{"Authorization", "Bearer ", "Via", "x"}, 403},
		"from here, for nobody":     {"-purge secret", nil, 403},
		"with the secret":           {"-purge secret -secret s3", []string{"Authorization", "Bearer s3"}, 200},
		"with it, forwarded":        {"-secret s3", []string{"Authorization", "Bearer s3", "X-Forwarded-For", "192.0.2.1"}, 200},
		"with it as a password":     {"-purge secret -secret s3", []string{"Authorization", "Basic eDpzMw=="}, 200},
		"with another":              {"-purge secret -secret s3", []string{"Authorization", "Bearer s4"}, 403},
		"without the one there is":  {"-purge secret -secret s3", nil, 403},
		"with another, but is here": {"-secret s3", []string{"Authorization", "Bearer s4"}, 200},
	} {
		t.Run(name, func(t *testing.T) {
			_, server := front(t, countingOrigin(t), strings.Fields("-ttl forever "+test.args)...)
			before := mustGet(t, server.URL+"/").body
			status, body := send(t, "PURGE", server.URL+"/", test.header...)
			if status != test.want || strings.Contains(body, "PURGE\n") {
				t.Errorf("%d %s, want %d", status, body, test.want)
			}
			if renewed := mustGet(t, server.URL+"/").body != before; renewed != (test.want == 200) {
				t.Errorf("a new page: %v", renewed)
			}
		})
	}
}

// A stranger's PURGE is refused, whatever they say.
func TestStrangersDoNotPurge(t *testing.T) {
	p, err := newProxy(newConfig(t, "-origin", countingOrigin(t)))
	if err != nil {
		t.Fatal(err)
	}
	for remote, want := range map[string]int{"192.0.2.1:1": 403, "127.0.0.1:1": 200, "[::1]:1": 200, "[::ffff:127.0.0.1]:1": 200, "": 403, "@": 403} {
		r := httptest.NewRequest("PURGE", "/", nil)
		r.RemoteAddr = remote
		w := httptest.NewRecorder()
		p.handler.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("from %q: %d, want %d", remote, w.Code, want)
		}
	}
}

// The webhook is there with a secret alone, and hides nothing else of the origin.
func TestWebhook(t *testing.T) {
	_, server := front(t, countingOrigin(t), "-ttl", "forever", "-secret", "s3")
	mustGet(t, server.URL+"/a")
	if status, body := send(t, "POST", server.URL+webhookPath+"?path=/a", "Authorization", "Bearer s3"); status != 200 || !strings.Contains(body, `"/a":1`) {
		t.Errorf("%d %s", status, body)
	}
	if status, _ := send(t, "POST", server.URL+webhookPath+"?path=/a", "Authorization", "Bearer s4"); status != 401 {
		t.Errorf("with a wrong secret: %d", status)
	}
	for _, path := range []string{"/.isr", "/.isr/", "/.isr/revalidate/", "//x//y"} {
		if status, body := send(t, "GET", server.URL+path); status != 200 || !strings.HasPrefix(body, path+" ") {
			t.Errorf("%s: %d %s, want the origin's", path, status, body)
		}
	}
	_, server = front(t, countingOrigin(t))
	if status, body := send(t, "POST", server.URL+webhookPath); status != 200 || !strings.Contains(body, "POST") {
		t.Errorf("without a secret: %d %s, want the origin's", status, body)
	}
}
