package pagekey

import (
	"context"
	"crypto/tls"
	"net/http"
	"strings"
)

// server marks a page request as one under a server: httputil.ReverseProxy
// keeps quiet about a response that breaks off where it finds none.
var server = new(http.Server)

// HasPath reports whether a request is for a path.
func HasPath(r *http.Request) bool { return r.URL.Opaque == "" && strings.HasPrefix(r.URL.Path, "/") }

// HasPage reports whether a GET or HEAD of a path could be answered with a page, whatever
// its route says.
func HasPage(r *http.Request) bool { return r.ContentLength == 0 && r.Header["Upgrade"] == nil }

// Request returns the request that the handler sees. It depends on the key and on
// what the developer has configured, on nothing else.
func (k *Key) Request(ctx context.Context, o Origin) *http.Request {
	r := &http.Request{
		Method: http.MethodGet, URL: URL(k.Path, k.Query), RequestURI: k.Path,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: ParseHeader(k.Variant), Body: http.NoBody,
		Host: k.Host, RemoteAddr: "0.0.0.0:0",
	}
	if k.Query != "" {
		r.RequestURI += "?" + k.Query
	}
	scheme := k.Scheme
	if o.Host != "" {
		scheme, r.Host = o.Scheme, o.Host
	}
	r.Header.Set("X-Forwarded-Proto", scheme)
	if scheme == "https" {
		r.TLS = &tls.ConnectionState{HandshakeComplete: true}
	}
	if k.Pattern != "" {
		setOuterPattern(k.Pattern, r)
	}
	return r.WithContext(context.WithValue(ctx, http.ServerContextKey, server))
}
