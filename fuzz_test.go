package isr_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/isr-go/isr"
)

// A middlewareKey is one under which middleware would keep a visitor's data.
type middlewareKey struct{}

// viewOf returns everything that a handler can find out about a request.
func viewOf(r *http.Request) string {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %q %s %d %d\nhost %q\nfrom %q\n", r.Method, r.RequestURI, r.Proto, r.ProtoMajor, r.ProtoMinor, r.Host, r.RemoteAddr)
	fmt.Fprintf(&b, "url %#v %q\npattern %q %q\n", *r.URL, r.URL, r.Pattern, r.PathValue("id"))
	for _, name := range slices.Sorted(maps.Keys(r.Header)) {
		fmt.Fprintf(&b, "%q: %q\n", name, r.Header[name])
	}
	body, err := io.ReadAll(r.Body)
	fmt.Fprintf(&b, "body %q %v %d %q %v %v %v\n", body, err, r.ContentLength, r.TransferEncoding, r.Close, r.Trailer, r.GetBody == nil)
	fmt.Fprintf(&b, "form %v %v %v\n", r.Form, r.PostForm, r.MultipartForm)
	fmt.Fprintf(&b, "tls %+v\n", r.TLS)
	ctx := r.Context()
	_, deadline := ctx.Deadline()
	fmt.Fprintf(&b, "context %v %v %v %v\n", ctx.Value(middlewareKey{}), ctx.Value(http.LocalAddrContextKey), ctx.Err(), deadline)
	return b.String()
}

// Whatever a visitor sends beside what the route declares, the handler that makes the
// page does not see it: it sees the same as for a visitor who sends nothing else. What
// is declared, internal/pagekey's tests are about.
func FuzzVisitor(f *testing.F) {
	for _, lines := range []string{
		"", "User-Agent: evil\r\n", "X-Forwarded-Host: evil.example\r\n", "X-Original-URL: /admin\r\n", "Accept-Encoding: gzip\r\n",
		"If-None-Match: \"x\"\r\n", "Range: bytes=0-1\r\n", "Connection: close\r\n", "Transfer-Encoding: chunked\r\n\r\n0\r\n", "Trailer: X\r\n",
		"Te: trailers\r\n", "Content-Length: 0\r\n", "Content-Length: 1\r\n\r\na", "Authorization: Bearer x\r\n", "Upgrade: h2c\r\nConnection: upgrade\r\n",
		"Cookie: session=1\r\nCookie: theme=light\r\n", "Accept-Language: en\r\n",
	} {
		f.Add("/blog/1", lines, "secret", "203.0.113.7:1", false, false)
		f.Add("/a%2fb?q=1&utm_source=x", lines, "", "127.0.0.1:1", true, true)
	}
	route := isr.Route{Query: []string{"q"}, Vary: []string{"Accept-Language"}, VaryCookies: []string{"theme"}}
	// visit returns what the handler sees, and whether it was to make the page.
	visit := func(r *http.Request) (view string, page bool) {
		site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { view += viewOf(r) }), isr.Options{Default: route})
		w := httptest.NewRecorder()
		site.ServeHTTP(w, r)
		return view, strings.HasPrefix(w.Header().Get("Cache-Status"), "isr; fwd=uri-miss")
	}
	f.Fuzz(func(t *testing.T, target, lines, value, remote string, head, https bool) {
		method := http.MethodGet
		if head {
			method = http.MethodHead
		}
		sent := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: example.com\r\nX-Any: %s\r\n%s\r\n", method, target, value, lines)
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(sent)))
		if err != nil || r.Host != "example.com" || r.Header["X-Forwarded-Proto"] != nil {
			return // nothing that a server lets through, or more of the key
		}
		// Who sends nothing but what is declared.
		bare, err := http.NewRequest(http.MethodGet, "http://example.com", nil)
		if err != nil {
			t.Fatal(err)
		}
		bare.URL, bare.RequestURI = r.URL, r.RequestURI
		for _, name := range []string{"Accept-Language", "Cookie"} {
			if values := r.Header[name]; values != nil {
				bare.Header[name] = slices.Clone(values)
			}
		}
		if https {
			r.TLS = &tls.ConnectionState{Version: tls.VersionTLS13, HandshakeComplete: true, ServerName: value}
			bare.Header.Set("X-Forwarded-Proto", "https")
		}
		r.RemoteAddr = remote
		ctx := context.WithValue(context.Background(), middlewareKey{}, value)
		view, page := visit(r.WithContext(context.WithValue(ctx, http.LocalAddrContextKey, remote)))
		if !page {
			return // passed, or not found
		}
		if want, _ := visit(bare); view != want {
			t.Errorf("%q: the handler sees\n%s\nwant\n%s", sent, view, want)
		}
		for _, secret := range []string{value, remote} {
			// Long enough not to be there by chance.
			if len(secret) > 20 && strings.Contains(view, secret) && !strings.Contains(target+lines, secret) {
				t.Errorf("%q: the handler sees %q:\n%s", sent, secret, view)
			}
		}
	})
}
