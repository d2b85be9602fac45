package varnish_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/isr-go/isr/edge"
	"github.com/isr-go/isr/edge/varnish"
	"github.com/isr-go/isr/internal/servers"
	"github.com/isr-go/isr/store"
)

// A Varnish that has another VCL passes PURGE on to the origin, which may answer it with
// success: that is no purge.
func TestAnotherVCL(t *testing.T) {
	t.Parallel()
	origin := servers.Origin(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "welcome")
	}))
	front := servers.Varnish(t, `vcl 4.1; backend default { .host = "127.0.0.1"; .port = "`+origin+`"; }`)
	err := varnish.New(varnish.Options{Servers: []string{front.URL}}).Tell(t.Context(), store.Gone, []string{"a"})
	if err == nil || !strings.Contains(err.Error(), "not by xkey.vcl or ban.vcl") {
		t.Error(err)
	}
}

// All servers are told, whichever of them fails; what one of them has not been told is
// owed.
func TestServers(t *testing.T) {
	var told []string
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		told = append(told, r.Method+" "+r.Header.Get("Isr-Soft")+r.Header.Get("Isr-Tags"))
		w.Header().Set("Isr-Told", "1")
	}))
	defer up.Close()
	down := httptest.NewServer(nil)
	down.Close()
	e := varnish.New(varnish.Options{Servers: []string{down.URL, up.URL + "/"}})
	err := e.Tell(t.Context(), store.Stale, []string{"a b", "c"})
	var untold *edge.UntoldError
	if !errors.As(err, &untold) || !slices.Equal(untold.Tags, []string{"a b", "c"}) || !strings.Contains(err.Error(), "varnish at "+strings.TrimPrefix(down.URL, "http://")) {
		t.Errorf("%v", err)
	}
	if want := []string{"PURGE 1" + edge.Token("a b") + ",c"}; !slices.Equal(told, want) {
		t.Errorf("%q, want %q", told, want)
	}
	if name := fmt.Sprint(e); strings.Count(name, "127.0.0.1") != 2 {
		t.Errorf("its name is %q", name)
	}
}

func TestNewPanics(t *testing.T) {
	for _, list := range [][]string{nil, {""}, {"127.0.0.1:6081"}, {"ftp://a"}, {"http://"}} {
		func() {
			defer func() {
				if msg, _ := recover().(string); !strings.HasPrefix(msg, "varnish: New: ") {
					t.Errorf("New(%q) panics with %q", list, msg)
				}
			}()
			varnish.New(varnish.Options{Servers: list})
		}()
	}
}
