package brotli_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"

	upstream "github.com/andybalholm/brotli"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/encoders/brotli"
)

var _ isr.Encoder = brotli.Encoder{}

var text = strings.Repeat("<p>some words, and more of them</p>\n", 500)

// A browser that accepts brotli gets the page in it, at any level.
func TestPage(t *testing.T) {
	for level := range 12 {
		synctest.Test(t, func(t *testing.T) {
			site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				fmt.Fprint(w, text, r.URL.Path)
			}), isr.Options{Encoders: []isr.Encoder{brotli.Encoder{Level: level}}})
			for i := range 3 { // with a writer that was used before
				path := fmt.Sprint("/", i)
				visit(site, path)
				synctest.Wait()
				res := visit(site, path)
				got, err := io.ReadAll(upstream.NewReader(res.Body))
				if err != nil || string(got) != text+path || res.Header().Get("Content-Encoding") != "br" {
					t.Errorf("level %d: %d bytes, %v, %v", level, len(got), err, res.Header())
				}
			}
		})
	}
}

func visit(h http.Handler, path string) *httptest.ResponseRecorder {
	r, w := httptest.NewRequest("GET", path, nil), httptest.NewRecorder()
	r.Header.Set("Accept-Encoding", "gzip, deflate, br, zstd")
	h.ServeHTTP(w, r)
	return w
}

// A level that there is not is an error, and so is a writer that takes no more.
func TestErrors(t *testing.T) {
	for _, level := range []int{-1, 12} {
		if err := (brotli.Encoder{Level: level}).Encode(io.Discard, []byte(text)); err == nil {
			t.Errorf("level %d: no error", level)
		}
	}
	if err := (brotli.Encoder{}).Encode(full{}, []byte(text)); err == nil {
		t.Error("no error of the writer")
	}
	var b bytes.Buffer
	if err := (brotli.Encoder{}).Encode(&b, []byte(text)); err != nil || b.Len() == 0 {
		t.Errorf("after that %d bytes, %v", b.Len(), err)
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, io.ErrShortWrite }
