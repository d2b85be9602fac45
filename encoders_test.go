package isr_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/store/memory"
)

// A coder is an encoder: it writes its coding's name and a part of the body.
type coder struct {
	coding string
	part   int // of the body that it writes: one byte of so many
	calls  atomic.Int64
	do     func(w io.Writer, body []byte) error // instead, if not nil
}

func (c *coder) Coding() string { return c.coding }

func (c *coder) Encode(w io.Writer, body []byte) error {
	c.calls.Add(1)
	if c.do != nil {
		return c.do(w, body)
	}
	_, err := io.WriteString(w, c.coding+":"+string(body[:len(body)/c.part]))
	return err
}

// article serves text that compresses to about a fifth, at any path.
func article(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/html")
	w.Write(prose(8 << 10))
}

// coding returns in which encoding a visitor gets a page.
func coding(h http.Handler, target, accept string) string {
	res := get(h, target, "Accept-Encoding", accept)
	return res.Header.Get("Content-Encoding")
}

// Nobody waits for an encoding: until it is made visitors get what there is. What a shared
// cache gets meanwhile it may not keep for as long as the page is fresh.
func TestEncodingsAreMadeBehindTheVisitor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const browser = "gzip, deflate, br"
		slow := &coder{coding: "br", do: func(w io.Writer, body []byte) error {
			time.Sleep(time.Second)
			_, err := w.Write(body[:100])
			return err
		}}
		var site *isr.Site
		var first *http.Response // of those who wait
		site = isr.Wrap(http.HandlerFunc(article), isr.Options{
			Encoders: []isr.Encoder{slow}, Default: isr.Route{TTL: time.Hour},
			Observe: func(e isr.Event) {
				if e.Kind == isr.Generated {
					first = get(site, "/", "Accept-Encoding", browser)
				}
			},
		})
		get(site, "/")
		if h := first.Header; h.Get("Content-Encoding") != "" || h.Get("Vary") != "Accept-Encoding" ||
			h.Get("Cache-Control") != "public, max-age=0, s-maxage=1" || h.Get("Content-Length") != "8192" {
			t.Errorf("the first visitor gets %v", h)
		}
		if h := get(site, "/").Header; h.Get("Cache-Control") != "public, max-age=0, s-maxage=60" {
			t.Errorf("who accepts no encoding gets %v", h)
		}
		etag := first.Header.Get("Etag")
		synctest.Wait()
		if h := get(site, "/", "Accept-Encoding", browser).Header; h.Get("Content-Encoding") != "gzip" || h.Get("Cache-Control") != "public, max-age=0, s-maxage=60" {
			t.Errorf("before br is ready they get %v", h)
		}
		br := strings.TrimSuffix(etag, `"`) + `-br"`
		if res := get(site, "/", "Accept-Encoding", browser, "If-None-Match", br); res.StatusCode != 304 || res.Header.Get("Etag") != br {
			t.Errorf("who has br already gets %d, %v", res.StatusCode, res.Header)
		}
		if res := get(site, "/", "Accept-Encoding", "gzip", "If-None-Match", br); res.StatusCode != 200 {
			t.Errorf("who does not accept br gets %d", res.StatusCode)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if res := get(site, "/", "Accept-Encoding", browser); res.Header.Get("Content-Encoding") != "br" || res.Header.Get("Etag") != br || len(read(res)) != 100 {
			t.Errorf("then they get %v", res.Header)
		}
		if n := slow.calls.Load(); n != 1 {
			t.Errorf("%d calls", n)
		}
	})
}

// Where no visitor waits the page is compressed before it is stored: none gets it plain.
func TestRenewedPageIsCompressedBeforeItIsShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var site *isr.Site
		var got []string // as each page is stored
		c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			fmt.Fprint(w, n, "<p>", strings.Repeat("some words ", 1000))
		}}
		site = isr.Wrap(c, isr.Options{Default: isr.Route{TTL: time.Second}, Observe: func(e isr.Event) {
			if e.Kind == isr.Generated {
				got = append(got, coding(site, "/", "gzip"))
			}
		}})
		get(site, "/")
		time.Sleep(2 * time.Second)
		get(site, "/")
		synctest.Wait()
		if diff := cmp.Diff([]string{"", "gzip"}, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// The coding is the one that the visitor prefers, and of those that are equal to them the
// site does; encodings that are no smaller than gzip are not kept.
func TestNegotiation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		encoders := []isr.Encoder{&coder{coding: "BR", part: 100}, &coder{coding: "zstd", part: 50}, &coder{coding: "compress", part: 1}}
		site := isr.Wrap(http.HandlerFunc(article), isr.Options{Encoders: encoders})
		get(site, "/")
		synctest.Wait()
		for accept, want := range map[string]string{
			"gzip, deflate, br, zstd":          "br",
			"gzip, deflate, zstd, br":          "br",
			"gzip, deflate":                    "gzip",
			"zstd":                             "zstd",
			"Zstd ; q=0.5, gzip":               "gzip",
			"zstd;q=0.9, br;q=0.8, gzip;q=0.7": "zstd",
			"br;q=0, *":                        "zstd",
			"br;q=0, zstd;q=0, *;q=0.1":        "gzip",
			"identity, br;q=0.9":               "",
			"identity;q=0.5, br;q=0.5":         "br",
			"compress":                         "",
			"brotli, xbr, br2":                 "",
			"":                                 "",
		} {
			if got := coding(site, "/", accept); got != want {
				t.Errorf("%q: %q, want %q", accept, got, want)
			}
		}
		seen := make(map[string]bool)
		for _, accept := range []string{"br", "zstd", "gzip", ""} {
			res := get(site, "/", "Accept-Encoding", accept)
			etag := res.Header.Get("Etag")
			if seen[etag] || strings.HasPrefix(etag, "W/") {
				t.Errorf("%q: ETag %s", accept, etag)
			}
			seen[etag] = true
			if got := len(read(res)); fmt.Sprint(got) != res.Header.Get("Content-Length") {
				t.Errorf("%q: Content-Length %s for %d bytes", accept, res.Header.Get("Content-Length"), got)
			}
			if got := get(site, "/", "Accept-Encoding", accept, "If-None-Match", etag).StatusCode; got != 304 {
				t.Errorf("%q: %d to its own ETag", accept, got)
			}
			if got := get(site, "/", "Accept-Encoding", accept, "Range", "bytes=1-3"); got.StatusCode != 206 || got.Header.Get("Content-Encoding") != "" {
				t.Errorf("%q: a range is %d of %q", accept, got.StatusCode, got.Header.Get("Content-Encoding"))
			}
		}
	})
}

// An encoder that fails costs its own encoding, whatever it does, and a warning.
func TestEncoderFails(t *testing.T) {
	t.Parallel()
	for name, do := range map[string]func(w io.Writer, body []byte, end <-chan struct{}) error{
		"error":   func(io.Writer, []byte, <-chan struct{}) error { return errors.New("no memory") },
		"panic":   func(io.Writer, []byte, <-chan struct{}) error { panic("a bug") },
		"goexit":  func(io.Writer, []byte, <-chan struct{}) error { runtime.Goexit(); return nil },
		"nothing": func(io.Writer, []byte, <-chan struct{}) error { return nil },
		"part": func(w io.Writer, body []byte, _ <-chan struct{}) error {
			w.Write(body[:10])
			return errors.New("broken")
		},
		"too late": func(w io.Writer, body []byte, _ <-chan struct{}) error {
			time.Sleep(time.Hour)
			w.Write(body[:10])
			return nil
		},
		"never": func(_ io.Writer, _ []byte, end <-chan struct{}) error {
			<-end
			return nil
		},
		"without end": func(w io.Writer, body []byte, end <-chan struct{}) error {
			for {
				w.Write(body)
				select {
				case <-time.After(time.Second):
				case <-end:
					return nil
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var j journal
				end := make(chan struct{})
				bad := &coder{coding: "br", do: func(w io.Writer, body []byte) error { return do(w, body, end) }}
				site := isr.Wrap(http.HandlerFunc(article), isr.Options{
					Encoders: []isr.Encoder{bad, &coder{coding: "zstd", part: 50}}, Logger: j.logger(slog.LevelWarn),
				})
				for i := range 10 {
					target := fmt.Sprint("/", i)
					get(site, target)
					synctest.Wait()
					if got := coding(site, target, "br, zstd, gzip"); got != "zstd" {
						t.Fatalf("%s: got %q, want zstd", target, got)
					}
				}
				time.Sleep(200 * time.Hour) // until what is too late has come
				close(end)
				synctest.Wait()
				if got := coding(site, "/0", "br, gzip"); got != "gzip" {
					t.Errorf("got %q, want gzip", got)
				}
				if _, log := j.taken(); strings.Count(log, "level=WARN") != 1 || !strings.Contains(log, "coding=br") {
					t.Errorf("logged %q", log)
				}
			})
		})
	}
}

// Encodings count in MaxBytes.
func TestEncodingsCountInMaxBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const maxBytes = 256 << 10
		text := prose(64 << 10)
		site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			w.Write(text)
		}), isr.Options{MaxBytes: maxBytes, Encoders: []isr.Encoder{&coder{coding: "br", part: 10}}})
		for i := range 20 {
			get(site, fmt.Sprint("/", i))
			synctest.Wait()
			var sum int64
			for p := range site.Pages() {
				sum += p.Size
			}
			if s := site.Stats(); s.Bytes > maxBytes || s.Bytes != sum {
				t.Fatalf("%d pages: %d bytes are counted, and their sizes are %d", s.Pages, s.Bytes, sum)
			}
		}
		size := pages(site)["/19"].Size
		if plain := int64(len(text)); size < plain+plain/10+plain/10 {
			t.Errorf("a page of %d bytes is counted with %d", plain, size)
		}
	})
}

// A page whose body is that of the one before has its encodings from the beginning, and
// no encoder is called again. One that was renewed is encoded anew.
func TestEncodingsOfTheSameBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		text := string(prose(8 << 10))
		c := &coder{coding: "br", part: 100}
		site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Run", fmt.Sprint(c.calls.Load()))
			io.WriteString(w, text)
		}), isr.Options{Encoders: []isr.Encoder{c}, Origin: "https://example.com"})
		get(site, "/")
		synctest.Wait()
		for i, want := range []int64{1, 1, 2} {
			if i == 2 {
				text += "!"
			}
			if err := site.Revalidate(t.Context(), "/"); err != nil {
				t.Fatal(err)
			}
			if i == 2 {
				synctest.Wait()
			}
			if got, n := coding(site, "/", "br, gzip"), c.calls.Load(); got != "br" || n != want {
				t.Errorf("%d: got %q after %d calls, want %d", i, got, n, want)
			}
		}
	})
}

// The Store keeps the encodings with the page. A Site that has other encoders leaves out
// what it does not make, and makes what is missing.
func TestEncodingsOutliveARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		br, zstd := &coder{coding: "br", part: 100}, &coder{coding: "zstd", do: func(w io.Writer, body []byte) error {
			time.Sleep(time.Millisecond)
			_, err := w.Write(body[:100])
			return err
		}}
		in := fleet(t, memory.New(), isr.Options{})
		start := func(encoders ...isr.Encoder) *isr.Site {
			in.opts.Encoders = encoders
			return in.start(http.HandlerFunc(article))
		}
		site := start(br)
		get(site, "/")
		synctest.Wait()
		site = start(br)
		get(site, "/")
		synctest.Wait()
		if got, n := coding(site, "/", "br, gzip"), br.calls.Load(); got != "br" || n != 1 {
			t.Errorf("got %q after %d calls", got, n)
		}
		site = start(zstd)
		if res := get(site, "/", "Accept-Encoding", "br, zstd, gzip"); res.Header.Get("Content-Encoding") != "gzip" || res.Header.Get("Cache-Status") != "isr; hit" {
			t.Errorf("got %v", res.Header)
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if got := coding(site, "/", "br, zstd, gzip"); got != "zstd" {
			t.Errorf("got %q, want zstd", got)
		}
	})
}

// A slow encoder keeps a page from the Store for a moment, not until it is done.
func TestStoreDoesNotWaitForEncoders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := &coder{coding: "br", do: func(w io.Writer, body []byte) error {
			time.Sleep(time.Second)
			_, err := w.Write(body[:100])
			return err
		}}
		st := &faultyStore{Store: memory.New()}
		in := fleet(t, st, isr.Options{Encoders: []isr.Encoder{slow}})
		site := in.start(http.HandlerFunc(article))
		get(site, "/")
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		if n := st.count("put"); n != 1 {
			t.Errorf("%d pages are stored", n)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if got := coding(site, "/", "br"); got != "br" {
			t.Errorf("got %q", got)
		}
	})
}

// What is gzip is gzip of the page.
func TestGzipIsThePage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		site := isr.Wrap(http.HandlerFunc(article), isr.Options{})
		want := body(site, "/")
		synctest.Wait()
		z, err := gzip.NewReader(get(site, "/", "Accept-Encoding", "gzip").Body)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(z); err != nil || !bytes.Equal(got, []byte(want)) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	})
}

// Encoders that no page could be served with are a programmer's mistake.
func TestEncodersAreChecked(t *testing.T) {
	for want, encoders := range map[string][]isr.Encoder{
		"Options.Encoders[0]: nil":                                {nil},
		"Options.Encoders[0]: gzip is there anyway":               {&coder{coding: "Gzip"}},
		`Options.Encoders[1]: "" is not the name`:                 {&coder{coding: "br"}, &coder{}},
		`Options.Encoders[0]: "identity" is not the name`:         {&coder{coding: "identity"}},
		`Options.Encoders[1]: there are two for br`:               {&coder{coding: "br"}, &coder{coding: "BR"}},
		`Options.Encoders[0]: "a b" is not the name of a content`: {&coder{coding: "a b"}},
	} {
		if v := fmt.Sprint(recovered(func() { isr.Wrap(http.NotFoundHandler(), isr.Options{Encoders: encoders}) })); !strings.Contains(v, want) {
			t.Errorf("panicked with %q, want %q", v, want)
		}
	}
}
