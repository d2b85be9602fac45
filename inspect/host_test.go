package inspect_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/inspect"
)

// A page of another site whose name resolves to the inspector has the same origin as
// the inspector, and passes Origin and Sec-Fetch-Site (DNS rebinding).
func TestHosts(t *testing.T) {
	loopback, public := net.IPv4(127, 0, 0, 1), net.IPv4(203, 0, 113, 7)
	own := []string{"admin.example.com"}
	tests := []struct {
		hosts   []string
		address net.IP
		host    string
		header  []string
		want    bool
	}{
		{nil, loopback, "localhost:8080", nil, true},
		{nil, loopback, "LOCALHOST.", nil, true},
		{nil, loopback, "isr.localhost", nil, true},
		{nil, loopback, "127.0.0.1:8080", nil, true},
		{nil, loopback, "[::1]:8080", nil, true},
		{nil, loopback, "192.0.2.1", nil, true},
		{nil, loopback, "attacker.example:8080", nil, false},
		{nil, loopback, "localhost.attacker.example", nil, false},
		{nil, loopback, "notlocalhost", nil, false},
		{nil, loopback, "127.0.0.1.attacker.example", nil, false},
		{nil, loopback, "", nil, false},
		{nil, loopback, "attacker.example", []string{"X-Forwarded-Proto", "https", "X-Forwarded-Host", "localhost"}, false},
		{nil, loopback, "example.com", []string{"Sec-Fetch-Site", "same-origin"}, true}, // by HTTPS to a proxy on this machine
		{nil, public, "example.com", nil, true},
		{nil, nil, "example.com", nil, true},

		{own, loopback, "localhost", nil, true},
		{own, public, "127.0.0.1:8080", nil, true},
		{own, loopback, "admin.example.com", nil, true},
		{own, public, "Admin.Example.com:8443", nil, true},
		{own, public, "admin.example.com.", nil, true},
		{[]string{"Admin.example.com."}, public, "admin.example.com", nil, true},
		{own, public, "example.com", nil, false},
		{own, loopback, "attacker.example", []string{"Sec-Fetch-Site", "same-origin"}, false},
		{own, nil, "attacker.example", nil, false},
		{[]string{}, public, "attacker.example", nil, false},
		{[]string{}, public, "localhost", nil, true},
	}
	for _, tt := range tests {
		for _, method := range []string{"GET", "HEAD", "POST"} {
			a := newApp(isr.Options{})
			a.visit("/forever")
			h := inspect.Handler(a.site, inspect.Options{Actions: true, Hosts: tt.hosts})
			form := url.Values{"do": {"purge"}, "tag": {"static"}}.Encode()
			r := httptest.NewRequest(method, "/", strings.NewReader(form))
			r.Host = tt.host
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			if method == "POST" {
				r.Header.Set("Origin", "http://"+tt.host)
			}
			for i := 0; i < len(tt.header); i += 2 {
				r.Header.Set(tt.header[i], tt.header[i+1])
			}
			if tt.address != nil {
				r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, net.Addr(&net.TCPAddr{IP: tt.address, Port: 8080})))
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if tt.want && w.Code != http.StatusOK || !tt.want && w.Code != http.StatusForbidden {
				t.Errorf("%s on %v, Hosts %q, Host %q, %q: got %d %s", method, tt.address, tt.hosts, tt.host, tt.header, w.Code, text(w.Body.String()))
			}
			if !tt.want && strings.Contains(w.Body.String(), "/forever") {
				t.Errorf("%s of Host %q got a page", method, tt.host)
			}
			if purged := len(slices.Collect(a.site.Pages())) == 0; purged != (tt.want && method == "POST") {
				t.Errorf("%s on %v, Hosts %q, Host %q: purged: %t", method, tt.address, tt.hosts, tt.host, purged)
			}
		}
	}
}

// On a real server it is known where a request has come to.
func TestRebindingToALocalServer(t *testing.T) {
	server := httptest.NewServer(inspect.Handler(newApp(isr.Options{}).site, inspect.Options{}))
	defer server.Close()
	for host, want := range map[string]int{"": 200, "attacker.example": 403} {
		r, err := http.NewRequest("GET", server.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = host
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("Host %q: got %d, want %d", host, resp.StatusCode, want)
		}
	}
}

func TestHostsAreNames(t *testing.T) {
	for _, host := range []string{"", ".", "https://example.com", "example.com:8080", "a b", "example.com/"} {
		func() {
			defer func() {
				if got := fmt.Sprint(recover()); !strings.Contains(got, "want a name without scheme and port") {
					t.Errorf("%q: got %s", host, got)
				}
			}()
			inspect.Handler(newApp(isr.Options{}).site, inspect.Options{Hosts: []string{host}})
		}()
	}
}
