package zstd_test

import (
	"bytes"
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
	large := bytes.Repeat([]byte{'0'}, 9<<20)
	for level := range 5 {
		// What the encoder starts outside of a bubble stays there.
		if err := (zstd.Encoder{Level: level}).Encode(io.Discard, []byte(text)); err != nil {
			t.Fatal(err)
		}
		synctest.Test(t, func(t *testing.T) {
			site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, text) }), isr.Options{
				Encoders: []isr.Encoder{zstd.Encoder{Level: level}},
			})
			visit(site)
			synctest.Wait()
			res := visit(site)
			got, err := decoder.DecodeAll(res.Body.Bytes(), nil)
			if err != nil || string(got) != text || res.Header().Get("Content-Encoding") != "zstd" {
				t.Errorf("level %d: %d bytes, %v, %v", level, len(got), err, res.Header())
			}
		})
		var encoded bytes.Buffer
		if err := (zstd.Encoder{Level: level}).Encode(&encoded, large); err != nil {
			t.Fatal(err)
		}
		if got, err := decoder.DecodeAll(encoded.Bytes(), nil); err != nil || !bytes.Equal(got, large) {
			t.Errorf("level %d: %d large bytes, %v", level, len(got), err)
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
