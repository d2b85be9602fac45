package isr

// What no visitor can bring about at will, because there is no code of his between
// the one look into the cache and the other.

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

// Who has found nothing in the cache, and finds no run either, looks again before
// he starts one: the run may have ended in between.
func TestJoinLooksAgain(t *testing.T) {
	site := Wrap(http.NotFoundHandler(), Options{})
	site.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	req := pageRequest{key: key{scheme: "http", host: "example.com", path: "/"}, route: site.other}
	if f, _ := site.join(req, nil, &waiter{}); f != nil {
		t.Error("a second run was started")
	}
	p, _ := site.cache.get(&req.key, nil)
	if p == nil {
		t.Fatal("no page")
	}
	if f, _ := site.join(req, p, &waiter{}); f == nil {
		t.Error("no run was started for whoever wants another page")
	} else {
		<-f.done
	}
}
