package isr_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/isr-go/isr"
)

// Conditions, ranges and HEAD are answered from the stored page; none of them reaches
// the handler.
func TestConditionsAndRanges(t *testing.T) {
	const (
		modified = "Mon, 02 Jan 2006 15:04:05 GMT"
		later    = "Mon, 02 Jan 2006 15:04:06 GMT"
		earlier  = "Mon, 02 Jan 2006 15:04:04 GMT"
	)
	text := strings.Repeat("0123456789", 100)
	c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
		for _, name := range []string{"If-None-Match", "If-Modified-Since", "If-Match", "If-Unmodified-Since", "Range", "If-Range"} {
			if r.Header[name] != nil {
				t.Errorf("%s reached the handler", name)
			}
		}
		h := w.Header()
		h.Set("Content-Type", "text/plain")
		targeted(h)
		switch r.URL.Path {
		case "/strong":
			h.Set("Etag", `"v1"`)
			h.Set("Last-Modified", modified)
		case "/weak":
			h.Set("Etag", `W/"v1"`)
		case "/malformed":
			h.Set("Etag", "v1")
		case "/gone":
			h.Set("Etag", `"v1"`)
			w.WriteHeader(410)
		}
		io.WriteString(w, text)
	}}
	site := isr.Wrap(c, isr.Options{})
	own := get(site, "/none").Header.Get("Etag")
	if len(own) != 24 || own[0] != '"' {
		t.Errorf("ETag %q, want a strong one", own)
	}
	if got := get(site, "/malformed").Header.Get("Etag"); got != own {
		t.Errorf("ETag %q in the place of a malformed one, want %q", got, own)
	}
	for _, test := range []struct {
		method, target string
		header         []string
		status         int
		etag, body     string
	}{
		{"GET", "/none", nil, 200, own, text},
		{"GET", "/none", []string{"If-None-Match", own}, 304, own, ""},
		{"HEAD", "/none", []string{"If-None-Match", own}, 304, own, ""},
		{"GET", "/none", []string{"If-None-Match", "W/" + own}, 304, own, ""},
		{"GET", "/none", []string{"If-None-Match", `"other", ` + own}, 304, own, ""},
		{"GET", "/none", []string{"If-None-Match", "*"}, 304, own, ""},
		{"GET", "/none", []string{"If-None-Match", `"other"`}, 200, own, text},
		{"GET", "/none", []string{"If-Modified-Since", later}, 200, own, text}, // it has no Last-Modified
		{"HEAD", "/none", nil, 200, own, ""},
		{"GET", "/strong", []string{"If-None-Match", `"v1"`}, 304, `"v1"`, ""},
		{"GET", "/strong", []string{"If-Modified-Since", modified}, 304, `"v1"`, ""},
		{"GET", "/strong", []string{"If-Modified-Since", earlier}, 200, `"v1"`, text},
		{"GET", "/strong", []string{"If-Modified-Since", modified, "If-None-Match", `"v0"`}, 200, `"v1"`, text},
		{"GET", "/strong", []string{"If-Match", `"v0"`}, 412, "", ""},
		{"GET", "/strong", []string{"If-Unmodified-Since", earlier}, 412, "", ""},
		{"GET", "/strong", []string{"If-Match", `"v0"`, "If-None-Match", `"v1"`}, 412, "", ""},
		{"GET", "/strong", []string{"Range", "bytes=10-14"}, 206, `"v1"`, "01234"},
		{"GET", "/strong", []string{"Range", "bytes=-3"}, 206, `"v1"`, "789"},
		{"GET", "/strong", []string{"Range", "bytes=2000-"}, 416, "", ""},
		{"GET", "/strong", []string{"Range", "bytes=10-14", "If-Range", `"v1"`}, 206, `"v1"`, "01234"},
		{"GET", "/strong", []string{"Range", "bytes=10-14", "If-Range", `"v0"`}, 200, `"v1"`, text},
		{"GET", "/strong", []string{"Range", "bytes=10-14", "Accept-Encoding", "gzip"}, 206, `"v1"`, "01234"},
		{"HEAD", "/strong", []string{"Range", "bytes=10-14"}, 200, `"v1"`, ""}, // ranges apply to GET only (RFC 9110, section 14.2)
		{"GET", "/weak", []string{"If-None-Match", `W/"v1"`}, 304, `W/"v1"`, ""},
		{"GET", "/weak", []string{"If-None-Match", `"v1"`}, 304, `W/"v1"`, ""},
		{"GET", "/gone", []string{"If-None-Match", `"v1"`}, 410, `"v1"`, text},
		{"GET", "/gone", []string{"Range", "bytes=10-14"}, 410, `"v1"`, text},
		{"HEAD", "/gone", nil, 410, `"v1"`, ""},
	} {
		// The first visitor may send the conditions, too.
		for name, site := range map[string]*isr.Site{"stored": site, "first": isr.Wrap(c, isr.Options{})} {
			res := do(site, test.method, test.target, test.header...)
			got := read(res)
			if res.StatusCode >= 400 && res.StatusCode != 410 {
				got = "" // the text is net/http's
			}
			if res.StatusCode != test.status || got != test.body || res.Header.Get("Etag") != test.etag && test.etag != "" {
				t.Errorf("%s, %s %s %q: got %d, ETag %s, %d bytes; want %d, %s, %d", name, test.method, test.target, test.header,
					res.StatusCode, res.Header.Get("Etag"), len(got), test.status, test.etag, len(test.body))
			}
			switch length := res.Header.Get("Content-Length"); {
			case res.StatusCode == 304:
				if length != "" || res.Header.Get("Content-Type") != "" || res.Header.Get("Cache-Control") == "" || res.Header.Get("Vary") == "" {
					t.Errorf("%s, %s %q: 304 with %v", name, test.target, test.header, res.Header)
				}
			case res.StatusCode == 412, res.StatusCode == 416:
				// A cache that passes the condition on must not show the error to others.
				if got := res.Header["Cache-Control"]; len(got) != 1 || got[0] != "no-store" || len(hasTargeted(res.Header)) > 0 {
					t.Errorf("%s, %s %q: %d with %v", name, test.target, test.header, res.StatusCode, res.Header)
				}
			case test.method == "GET" && res.StatusCode < 400 && length != fmt.Sprint(len(got)):
				t.Errorf("%s, %s %q: Content-Length %s, want %d", name, test.target, test.header, length, len(got))
			case test.method == "HEAD" && res.StatusCode == 200 && length != fmt.Sprint(len(text)):
				t.Errorf("%s, HEAD %s: Content-Length %s, want %d", name, test.target, length, len(text))
			}
		}
	}
}

// Conditions on several lines are one list, and malformed dates do not count.
func TestRepeatedAndMalformedConditions(t *testing.T) {
	const modified = "Monday, 02-Jan-06 15:04:05 "
	site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Etag", `"x"`)
		w.Header().Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
		w.Header().Set("Content-Type", "text/plain")
		io.WriteString(w, "page")
	}), isr.Options{})
	for _, test := range []struct {
		method string
		header []string
		status int
	}{
		{"GET", []string{"If-None-Match", `"y"`, "If-None-Match", `"x"`}, 304},
		{"GET", []string{"If-None-Match", `"x"`, "If-None-Match", `"y"`}, 304},
		{"HEAD", []string{"If-None-Match", `"y"`, "If-None-Match", `W/"x", "z"`}, 304},
		{"GET", []string{"If-None-Match", `"y"`, "If-None-Match", `"z"`}, 200},
		{"GET", []string{"If-Match", `"y"`, "If-Match", `"x"`}, 200},
		{"GET", []string{"If-Match", `"y"`, "If-Match", `"z"`}, 412},
		{"GET", []string{"If-Modified-Since", modified + "GMT"}, 304},
		{"GET", []string{"If-Modified-Since", modified + "EST"}, 200},
		{"GET", []string{"If-Modified-Since", "mon, 02 jan 2006 15:04:05 gmt"}, 304}, // RFC 9111, section 4.2
		{"GET", []string{"If-Modified-Since", "Mon, 02 Jan 2006 23:59:60 GMT"}, 304},
		{"GET", []string{"If-Modified-Since", "Tue, 03 Jan 2006 5:04:05 GMT"}, 200},
		{"GET", []string{"If-Modified-Since", "Tue,  03 Jan 2006 15:04:05 GMT"}, 200},
		{"GET", []string{"If-Modified-Since", "Tue, 03 Jan 2006 15:04:05,5 GMT"}, 200},
		{"GET", []string{"If-Modified-Since", "Mon, 03 Jan 2006 15:04:05 GMT"}, 200}, // it is a Tuesday
		{"GET", []string{"If-Modified-Since", modified + "GMT", "If-Modified-Since", modified + "GMT"}, 200},
		{"GET", []string{"If-Unmodified-Since", "Sunday, 01-Jan-06 15:04:05 GMT"}, 412},
		{"GET", []string{"If-Unmodified-Since", "Sunday, 01-Jan-06 15:04:05 EST"}, 200},
		{"GET", []string{"If-Unmodified-Since", "sunday, 01-Jan-06 15:04:05 gmt"}, 412},
		{"GET", []string{"If-Unmodified-Since", "Sun, 01 Jan 2006 5:04:05 GMT"}, 200},
		{"GET", []string{"Range", "bytes=0-1", "If-Range", modified + "GMT"}, 206},
		{"GET", []string{"Range", "bytes=0-1", "If-Range", modified + "EST"}, 200},
		{"GET", []string{"Range", "bytes=0-1", "If-Range", `"x"`}, 206},
	} {
		for range 2 { // the first visitor, and one of what is stored
			if got := do(site, test.method, "/", test.header...).StatusCode; got != test.status {
				t.Errorf("%s %q: %d, want %d", test.method, test.header, got, test.status)
			}
		}
	}
}

// A failed precondition is a complete response on the wire, and so is a page whose
// Content-Type must not be guessed.
func TestPreconditionFailedOnTheWire(t *testing.T) {
	text := strings.Repeat("0123456789", 100)
	server := httptest.NewServer(isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Content-Type"] = nil
		io.WriteString(w, text)
	}), isr.Options{}))
	defer server.Close()
	for range 2 {
		for etag, want := range map[string]struct {
			status int
			body   string
		}{`"other"`: {412, ""}, "*": {200, text}} {
			r, err := http.NewRequest("GET", server.URL, nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("If-Match", etag)
			res, err := server.Client().Do(r)
			if err != nil {
				t.Fatal(err)
			}
			if got := read(res); res.StatusCode != want.status || got != want.body || res.Header["Content-Type"] != nil {
				t.Errorf("If-Match %s: %d %q %v", etag, res.StatusCode, got, res.Header)
			}
			res.Body.Close()
		}
	}
}

// A full response says that ranges can be had, where that is so: a body that isr has
// compressed has none.
func TestAcceptRanges(t *testing.T) { synctest.Test(t, testAcceptRanges) }

func testAcceptRanges(t *testing.T) {
	text := strings.Repeat("all work and no play ", 100)
	site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		switch r.URL.Path {
		case "/none":
			w.Header().Set("Accept-Ranges", "none") // the handler has none; isr has them
		case "/encoded":
			w.Header().Set("Content-Encoding", "br")
		case "/404":
			w.WriteHeader(404)
		case "/301":
			w.Header().Set("Location", "/")
			w.WriteHeader(301)
		}
		io.WriteString(w, text)
	}), isr.Options{})
	etag := get(site, "/").Header.Get("Etag")
	synctest.Wait() // until it is compressed
	zipped := get(site, "/", "Accept-Encoding", "gzip").Header.Get("Etag")
	for _, test := range []struct {
		method, target string
		header         []string
		status         int
		want           string
	}{
		{"GET", "/", nil, 200, "bytes"},
		{"HEAD", "/", nil, 200, "bytes"},
		{"GET", "/none", nil, 200, "bytes"},
		{"GET", "/encoded", []string{"Accept-Encoding", "br, gzip"}, 200, "bytes"},
		{"GET", "/", []string{"Accept-Encoding", "gzip"}, 200, ""},
		{"GET", "/", []string{"Accept-Encoding", "gzip", "If-None-Match", `"other"`}, 200, ""},
		{"GET", "/", []string{"If-None-Match", `"other"`}, 200, "bytes"},
		{"GET", "/", []string{"Range", "bytes=0-1"}, 206, "bytes"},
		{"GET", "/", []string{"Range", "bytes=0-1", "Accept-Encoding", "gzip"}, 206, "bytes"},
		{"GET", "/", []string{"If-None-Match", etag}, 304, ""},
		{"GET", "/", []string{"If-None-Match", `"other", ` + etag}, 304, ""},
		{"GET", "/", []string{"Accept-Encoding", "gzip", "If-None-Match", `"other", ` + zipped}, 304, ""},
		{"GET", "/", []string{"If-Match", `"other"`}, 412, ""},
		{"GET", "/404", nil, 404, ""},
		{"GET", "/301", nil, 301, ""},
	} {
		res := do(site, test.method, test.target, test.header...)
		if got := res.Header.Get("Accept-Ranges"); res.StatusCode != test.status || got != test.want {
			t.Errorf("%s %s %q: %d, Accept-Ranges %q; want %d, %q", test.method, test.target, test.header, res.StatusCode, got, test.status, test.want)
		}
	}
}
