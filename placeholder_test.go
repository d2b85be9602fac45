package isr_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/store"
	"github.com/isr-go/isr/store/memory"
)

// People get the placeholder at once while an unknown page is generated; crawlers wait
// for the page.
func TestPlaceholder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			time.Sleep(time.Second)
			fmt.Fprint(w, "page ", n)
		}}
		site := isr.Wrap(c, isr.Options{Default: isr.Route{
			TTL: time.Minute,
			Placeholder: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Cache-Control", "max-age=60")
				fmt.Fprint(w, "one moment")
			}),
		}})
		const googlebot = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
		res := get(site, "/", "User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:142.0) Gecko/20100101 Firefox/142.0")
		if got := read(res); got != "one moment" || res.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("people got %q %v", got, res.Header)
		}
		if got := body(site, "/", "User-Agent", googlebot); got != "page 1" {
			t.Errorf("a crawler got %q, want to wait for the page", got)
		}
		if got := body(site, "/"); got != "page 1" {
			t.Errorf("people got %q when the page was there", got)
		}
		if res := do(site, "HEAD", "/other"); res.StatusCode != 200 || res.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("HEAD got %d %v", res.StatusCode, res.Header)
		}
		time.Sleep(time.Minute)
		if got := body(site, "/"); got != "page 1" {
			t.Errorf("people got %q when the page was stale", got)
		}
		time.Sleep(time.Second)
	})
}

// Runs behind placeholders delay no renewal of other pages, and their queue is bounded.
func TestPlaceholderFloodIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			time.Sleep(100 * time.Millisecond)
			fmt.Fprint(w, "page ", n)
		}}
		site := isr.Wrap(c, isr.Options{MaxRegenerations: 2, Routes: map[string]isr.Route{
			"/home":    {TTL: time.Second},
			"/search/": {Placeholder: http.NotFoundHandler()},
		}})
		get(site, "/home")
		time.Sleep(time.Second)
		for i := range 10_000 {
			get(site, fmt.Sprint("/search/", i))
		}
		start := time.Now()
		for body(site, "/home") == "page 1" {
			time.Sleep(100 * time.Millisecond)
		}
		if got := time.Since(start); got > 3*time.Second {
			t.Errorf("the home page was renewed after %v", got)
		}
		// When the flood is over, unknown pages are generated again.
		time.Sleep(time.Minute)
		get(site, "/search/new")
		time.Sleep(time.Second)
		if got := get(site, "/search/new").StatusCode; got != 200 {
			t.Errorf("got %d after the flood", got)
		}
		site.Shutdown(t.Context())
	})
}

// A flood of pages behind a placeholder delays no renewal, however long each of them
// takes.
func TestPlaceholdersDelayNoRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &slowHandler{}
		site := isr.Wrap(c, isr.Options{MaxRegenerations: 1, Routes: map[string]isr.Route{
			"/home":    {TTL: time.Minute},
			"/search/": {Placeholder: http.NotFoundHandler()},
		}})
		get(site, "/home")
		time.Sleep(time.Minute)
		c.takes = 20 * time.Second
		for i := range 1000 {
			get(site, fmt.Sprint("/search/", i))
		}
		synctest.Wait()
		get(site, "/home")
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if got := get(site, "/home").Header.Get("Cache-Status"); got != "isr; hit; ttl=60" {
			t.Errorf("home: %s", got)
		}
		if n := c.most.Load(); n != 2 {
			t.Errorf("%d at a time", n)
		}
		site.Shutdown(t.Context())
	})
}

// Whatever headers a placeholder sets, no cache stores it.
func TestPlaceholderIsNoStore(t *testing.T) {
	for name, placeholder := range map[string]http.HandlerFunc{
		"silent": func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Cache-Control", "max-age=60") },
		"writes": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "max-age=60")
			io.WriteString(w, "x")
		},
		"flushes": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "max-age=60")
			w.(http.Flusher).Flush()
		},
		"hints": func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(103)
			w.Header().Set("Cache-Control", "max-age=60")
			w.WriteHeader(202)
		},
	} {
		site := isr.Wrap(new(countingHandler), isr.Options{Default: isr.Route{Placeholder: placeholder}})
		w := httptest.NewRecorder() // whose snapshot is of the first header, also of a 103
		site.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		if w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %v", name, w.Code, w.Header())
		}
	}
}

// A page that was uncacheable a while ago gets the placeholder like an unknown one; a
// failure is shown to the next visitor; and where nothing is generated any more there
// is no placeholder.
func TestPlaceholderAfterAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		private, fails := true, false
		c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			if private {
				w.Header().Set("Cache-Control", "private")
			}
			time.Sleep(time.Second)
			if fails {
				w.WriteHeader(500)
			}
			fmt.Fprint(w, "page ", n)
		}}
		site := isr.Wrap(c, isr.Options{Default: isr.Route{Placeholder: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, "one moment")
		})}})
		visit := func(want string) {
			t.Helper()
			if got := body(site, "/"); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
			time.Sleep(2 * time.Second)
		}
		visit("one moment")
		visit("page 2")
		private = false
		time.Sleep(10 * time.Second)
		visit("one moment")
		visit("page 3")
		site.Purge(t.Context(), "/")
		fails = true
		visit("one moment")
		visit("page 5") // the error
		fails = false
		visit("page 6")
		visit("page 6")
		site.Purge(t.Context(), "/")
		site.Shutdown(t.Context())
		visit("page 7")
	})
}

// A page that the Store has needs no placeholder after a restart, even where it is
// stale.
func TestPlaceholderAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{Default: isr.Route{
			Tags:        []string{"all"},
			Placeholder: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "one moment") }),
		}})
		c := countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			time.Sleep(time.Second)
			fmt.Fprintf(w, "page %d", n)
		}}
		site := in.start(&c)
		if got := body(site, "/"); got != "one moment" {
			t.Errorf("an unknown page: %q", got)
		}
		time.Sleep(2 * time.Second)
		other := in.start(&c)
		if got := body(other, "/"); got != "page 1" {
			t.Errorf("a page that the store has: %q", got)
		}
		if err := site.RevalidateTag(t.Context(), "all"); err != nil {
			t.Fatal(err)
		}
		third := in.start(&c)
		for _, want := range []string{"page 1", "page 2"} {
			if got := body(third, "/"); got != want {
				t.Errorf("one that is stale there: got %q, want %q", got, want)
			}
			time.Sleep(2 * time.Second)
		}
	})
}

// However many runs are queued behind placeholders, those whose pages are found in the
// Store meanwhile make room for others.
func TestPlaceholderRunsLeaveTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{MaxRegenerations: 1, Default: isr.Route{
			Placeholder: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "one moment") }),
		}})
		c := countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			if r.URL.Path == "/slow" {
				time.Sleep(time.Second)
			}
			io.WriteString(w, "page")
		}}
		crawler := []string{"User-Agent", "googlebot"}
		one := in.start(&c)
		for i := range 16 {
			body(one, fmt.Sprintf("/%d", i), crawler...)
		}
		two := in.start(&c)
		body(two, "/slow") // takes the slot
		for i := range 16 {
			body(two, fmt.Sprintf("/%d", i))
			body(two, fmt.Sprintf("/%d", i), crawler...)
		}
		time.Sleep(2 * time.Second)
		body(two, "/new")
		synctest.Wait()
		if got := body(two, "/new"); got != "page" {
			t.Errorf("when it was asked for before: %q", got)
		}
	})
}

// People get the placeholder at once while another instance generates the page, too.
func TestPlaceholderWhileAnotherInstanceLeads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{Default: isr.Route{
			Placeholder: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "one moment") }),
		}})
		c := countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			time.Sleep(time.Second)
			fmt.Fprintf(w, "page %d", n)
		}}
		one, two := in.start(&c), in.start(&c)
		for _, site := range []*isr.Site{one, two} {
			begin := time.Now()
			if got := body(site, "/"); got != "one moment" || time.Since(begin) > 0 {
				t.Errorf("got %q after %v", got, time.Since(begin))
			}
			synctest.Wait()
		}
		time.Sleep(2 * time.Second)
		if got := body(two, "/"); got != "page 1" {
			t.Errorf("when it is there: %q", got)
		}
	})
}

// A path that was not prerendered is not found, without a placeholder for it.
func TestNoPlaceholderForWhatIsNotPrerendered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, st := range []store.Store{nil, memory.New()} {
			in := fleet(t, st, isr.Options{Default: isr.Route{
				PrerenderedOnly: true,
				Placeholder:     http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "one moment") }),
			}})
			c := countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) { time.Sleep(time.Second) }}
			site := in.start(&c)
			if got := get(site, "/unknown").StatusCode; got != http.StatusNotFound {
				t.Errorf("%T: %d", st, got)
			}
			if err := site.Revalidate(t.Context(), "http://example.com/known"); err != nil {
				t.Fatal(err)
			}
			if err := site.Purge(t.Context(), "/known"); err != nil {
				t.Fatal(err)
			}
			if got := body(site, "/known"); got != "one moment" {
				t.Errorf("%T: what is known: %q", st, got)
			}
		}
	})
}
