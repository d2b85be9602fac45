package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const (
	published = "Post 1, as it is published"
	draft     = "Post 1, as it will be"
)

// An editor sees the draft, privately and for an hour; nobody else does, neither before
// nor after, whatever cookie they make up.
func TestDraft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := drafts("a long random string")
		site := newSite(key)
		get := func(cookie string) (body, cacheControl string) {
			t.Helper()
			r := httptest.NewRequest("GET", "/blog/1", nil)
			if cookie != "" {
				r.Header.Set("Cookie", cookie)
			}
			w := httptest.NewRecorder()
			site.ServeHTTP(w, r)
			synctest.Wait()
			return w.Body.String(), w.Header().Get("Cache-Control")
		}
		cookieOf := func(d drafts) string {
			w := httptest.NewRecorder()
			d.begin(w, httptest.NewRequest("POST", "/admin/draft", nil))
			c := w.Result().Cookies()[0]
			if !c.HttpOnly || !c.Secure || c.SameSite != http.SameSiteLaxMode {
				t.Errorf("the cookie is %s", c)
			}
			return c.Name + "=" + c.Value
		}
		stranger := func(what, cookie string) {
			t.Helper()
			body, cacheControl := get(cookie)
			if body != published || !strings.HasPrefix(cacheControl, "public") {
				t.Errorf("%s: got %q, %s", what, body, cacheControl)
			}
		}
		editor := cookieOf(key)
		for range 2 { // before there is a page, and when there is one
			body, cacheControl := get(editor)
			if body != draft || cacheControl != "private, no-store" {
				t.Errorf("an editor: got %q, %s", body, cacheControl)
			}
			stranger("after the editor", "")
			time.Sleep(2 * time.Minute) // it is renewed, too, as it is published
		}
		stranger("a cookie that is signed with another key", cookieOf(drafts("guessed")))
		stranger("a cookie without a signature", "draft=4102444800")
		stranger("a cookie that was to end earlier", strings.Replace(editor, "draft=9", "draft=99", 1))
		stranger("no number", "draft=x."+key.sign("x"))

		time.Sleep(time.Hour)
		stranger("an editor after an hour", editor)

		w := httptest.NewRecorder()
		key.end(w, httptest.NewRequest("DELETE", "/admin/draft", nil))
		if c := w.Result().Cookies()[0]; c.MaxAge >= 0 {
			t.Errorf("the cookie that ends it is %s", c)
		}
	})
}
