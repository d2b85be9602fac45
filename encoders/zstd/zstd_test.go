package zstd_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"

	upstream "github.com/klauspost/compress/zstd"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/encoders/zstd"
)

var _ isr.Encoder = zstd.Encoder{}

var text = strings.Repeat("<p>some words, and more of them</p>\n", 500)

// A browser that accepts zstd gets the page in it, at any level, with a window that it
// has room for.
func TestPage(t *testing.T) {
	decoder, err := upstream.NewReader(nil, upstream.WithDecoderMaxWindow(8<<20))
	if err != nil {
		t.Fatal(err)
	}
	defer decoder.Close()
	for level := range 5 {
		// What the encoder starts outside of a bubble stays there.
		if err := (zstd.Encoder{Level: level}).Encode(io.Discard, []byte(text)); err != nil {
			t.Fatal(err)
		}
		for _, length := range []int{1, 1000} {
			want := strings.Repeat(text, length)
			synctest.Test(t, func(t *testing.T) {
				site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, want) }), isr.Options{
					Encoders: []isr.Encoder{zstd.Encoder{Level: level}}, MaxPageBytes: 64 << 20, MaxBytes: 128 << 20,
				})
				visit(site)
				synctest.Wait()
				res := visit(site)
				got, err := decoder.DecodeAll(res.Body.Bytes(), nil)
				if err != nil || string(got) != want || res.Header().Get("Content-Encoding") != "zstd" {
					t.Errorf("level %d: %d bytes, %v, %v", level, len(got), err, res.Header())
				}
			})
		}
	}
}

func visit(h http.Handler) *httptest.ResponseRecorder {
	r, w := httptest.NewRequest("GET", "/", nil), httptest.NewRecorder()
	r.Header.Set("Accept-Encoding", "gzip, deflate, br, zstd")
	h.ServeHTTP(w, r)
	return w
}

// A level that there is not is an error, and so is a writer that takes no more.
func TestErrors(t *testing.T) {
	for _, level := range []int{-1, 5} {
		if err := (zstd.Encoder{Level: level}).Encode(io.Discard, []byte(text)); err == nil {
			t.Errorf("level %d: no error", level)
		}
	}
	if err := (zstd.Encoder{}).Encode(full{}, []byte(text)); err == nil {
		t.Error("no error of the writer")
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, io.ErrShortWrite }
