package main

import (
	"fmt"
	"strings"
)

// A request is one that is sent to the site with isr and without.
type request struct {
	method, target string
	headers        []string // "Name: value"
	body           string
}

func (q *request) String() string {
	return strings.TrimSpace(q.method + " " + q.target + " " + strings.Join(q.headers, ", "))
}

// has returns the value of a header.
func (q *request) has(name string) (value string, ok bool) {
	for _, line := range q.headers {
		if n, v, _ := strings.Cut(line, ": "); n == name {
			return v, true
		}
	}
	return "", false
}

// pages are asked for with GET and HEAD, and with each of asHeaders.
var pages = strings.Fields(`/ /posts /posts?page=1 /posts?page=1&utm_source=mail /posts/1 /posts/2 /posts/99 /posts/x /posts/1/comments/2
	/about/de /search?q=isr&page=1 /search?q=%3Cb%3E&page=0 /feed.xml /assets/style.css /assets/noise.bin
	/assets/a%20b/%C3%BC.txt /assets/nothing.css /theme /api/posts /contact /etag /gone /moved /says/max-age=60
	/stream /slow /nothing`)

// asHeaders are what browsers, caches and crawlers send with a GET.
var asHeaders = []string{
	"Accept-Encoding: gzip, br",
	"Accept-Language: de-AT,de;q=0.9",
	"User-Agent: Googlebot",
	"Cookie: theme=dark; tracker=1",
	"Accept: text/plain",
	"If-None-Match: \"other\"",
	"If-Modified-Since: Fri, 17 May 2024 08:00:00 GMT",
	"Range: bytes=0-9",
}

// others are the rest, in an order in which some depend on those before.
const others = `
GET /posts | HX-Request: true
GET /posts?page=2 | HX-Request: true
GET /theme | Cookie: theme=<b>
GET /api/posts | Accept: application/json
GET /etag | If-None-Match: "own"
HEAD /etag | If-None-Match: "own"
GET /etag | If-None-Match: "other", W/"own"
GET /etag | If-None-Match: *
GET /assets/style.css | Range: bytes=10-19
GET /assets/style.css | Range: bytes=-5
GET /assets/style.css | Range: bytes=0-1,5-6
GET /assets/style.css | Range: bytes=99999-
GET /assets/style.css | Range: bytes=0-4 | If-Range: Fri, 17 May 2024 08:00:00 GMT
GET /assets/style.css | Range: bytes=0-4 | If-Range: Thu, 16 May 2024 08:00:00 GMT
GET /assets/style.css | If-Modified-Since: Thu, 16 May 2024 08:00:00 GMT
GET /assets/style.css | If-Unmodified-Since: Thu, 16 May 2024 08:00:00 GMT
GET /assets/style.css | If-Match: "nothing"
GET /assets/noise.bin | Range: bytes=2990-
GET /assets/dir
GET /assets/dir/
GET /assets
GET /posts/
GET //posts
GET /posts/../contact
GET /posts/./1
GET /path/a%2Fb
GET /path/%61
GET /path/a(b)
GET /path/caf%C3%A9
GET /path/a+b
GET /path/a%20b
GET /path/%F0%9F%8D%B5
GET /path/a;b
GET /url?b=2&a=1
GET /url?a=1&gclid=2
GET /url?
GET /sees
GET /sees | User-Agent: a browser
GET /varies/Accept-Encoding
GET /varies/Origin | Origin: https://example.org
GET /varies/*
GET /cookie
GET /cookie | Cookie: seen=yes
GET /found
GET /teapot
GET /empty
HEAD /empty
GET /error
GET /busy
GET /panic
GET /hangs
GET /says/no-store
GET /says/no-cache
GET /says/private
GET /says/s-maxage=60
GET /says/public;max-age=60;stale-while-revalidate=30
GET /says/max-age=60;must-revalidate
GET /nostore/says/nothing
GET /nostore/says/max-age=60
GET /says/max-age=60 | Authorization: Bearer x
GET /posts/3 | Authorization: Basic YTpi
GET /posts/1 | Cache-Control: no-cache
GET /posts/1 | Cache-Control: only-if-cached
GET /posts/1 | Upgrade: websocket
GET /hints
GET /trailer
GET /live/stream
GET /events
GET /events | Last-Event-ID: 7
GET /account
GET /login
POST /login | Content-Type: application/x-www-form-urlencoded | name=alice
GET /account | Cookie: {session}
HEAD /account | Cookie: {session}
GET /posts/1 | Cookie: {session}
POST /logout | Cookie: {session}
GET /account | Cookie: {session}
POST /contact | Content-Type: application/x-www-form-urlencoded | text=
POST /contact | Content-Type: application/x-www-form-urlencoded | text=hello
POST /contact | Content-Type: application/x-www-form-urlencoded | Sec-Fetch-Site: cross-site | text=attack
POST /contact | Content-Type: application/x-www-form-urlencoded | Origin: https://evil.example | text=attack
POST /posts/1 | Content-Type: application/x-www-form-urlencoded | title=Edited
GET /posts/1
GET /posts
PUT /posts/2?title=Put
GET /posts/2
DELETE /posts/2
GET /posts/2
DELETE /posts/99
POST /posts/99
POST /api/posts | Content-Type: text/plain | A new one
GET /posts/13
GET /posts?page=2
PATCH /posts/1
OPTIONS /posts/1
OPTIONS /nothing
TRACE /posts/1
POST /posts
POST /nothing
DELETE /assets/style.css
PROPFIND /posts
POST /live/upload | Content-Type: application/octet-stream | {large}
GET /contact | Content-Type: text/plain | a body
HEAD /stream
HEAD /events
HEAD /error
HEAD /slow
`

// requests returns all of them, in order.
func requests() (all []request) {
	for _, target := range pages {
		all = append(all, request{method: "GET", target: target}, request{method: "HEAD", target: target})
	}
	for i, target := range pages { // each with some, each of them with some
		for j, line := range asHeaders {
			if (i+j)%3 == 0 {
				all = append(all, request{method: "GET", target: target, headers: []string{line}})
			}
		}
	}
	for line := range strings.Lines(strings.TrimSpace(others)) {
		fields := strings.Split(strings.TrimSpace(line), " | ")
		method, target, _ := strings.Cut(fields[0], " ")
		q := request{method: method, target: target}
		for _, field := range fields[1:] {
			if name, _, ok := strings.Cut(field, ": "); ok && !strings.Contains(name, " ") {
				q.headers = append(q.headers, field)
			} else {
				q.body = strings.ReplaceAll(field, "{large}", strings.Repeat("0123456789", 20000))
			}
		}
		all = append(all, q)
	}
	for i := range all {
		if strings.ContainsAny(all[i].target, "{}") {
			panic(fmt.Sprint("no target: ", all[i].target))
		}
	}
	return all
}
