//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// first returns the first error there is.
func first(errs ...error) error {
	if i := slices.IndexFunc(errs, func(err error) bool { return err != nil }); i >= 0 {
		return errs[i]
	}
	return nil
}

// A visitor asks a server for a site, by the name that the site has.
type visitor struct {
	addr, public string
	cookies      []*http.Cookie
	client       *http.Client
}

// newClient returns a client with as many connections as it is given at once, that takes
// answers as they are.
func newClient() *http.Client {
	return &http.Client{
		Transport:     &http.Transport{MaxIdleConnsPerHost: 100, DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       time.Minute,
	}
}

type answer struct {
	status int
	header http.Header
	body   string
}

func (a *answer) cacheStatus() string { return a.header.Get("Cache-Status") }

func (a *answer) isHTML() bool {
	return a.status == 200 && strings.HasPrefix(a.header.Get("Content-Type"), "text/html")
}

// trouble says what is wrong with an answer; empty if nothing is.
func (a *answer) trouble(err error) string {
	switch {
	case err != nil:
		return "broken off"
	case a.status != http.StatusOK:
		return fmt.Sprint(a.status)
	}
	return ""
}

func (v visitor) get(ctx context.Context, path string) (*answer, error) {
	return v.do(ctx, http.MethodGet, path, nil)
}

func (v visitor) do(ctx context.Context, method, path string, form url.Values) (*answer, error) {
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://"+v.addr+path, body)
	if err != nil {
		return nil, err
	}
	r.Host = v.public
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for _, c := range v.cookies {
		r.AddCookie(c)
	}
	res, err := v.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return &answer{res.StatusCode, res.Header, string(b)}, err
}

var hrefs = regexp.MustCompile(`href="([^"#]+)`)

// crawl follows links until it has so many pages.
func crawl(ctx context.Context, v visitor, st *site, n int) (pages []string, err error) {
	base := &url.URL{Scheme: "http", Host: v.public, Path: "/"}
	todo, seen := []string{st.first}, map[string]bool{st.first: true}
	for len(todo) > 0 && len(pages) < n {
		path := todo[0]
		todo = todo[1:]
		a, err := v.get(ctx, path)
		if err != nil {
			return nil, err
		}
		if !a.isHTML() {
			if len(seen) == 1 {
				return nil, fmt.Errorf("there is no page at %s: status %d %v\n%.2000s", path, a.status, a.header, a.body)
			}
			continue
		}
		pages = append(pages, path)
		here, _ := base.Parse(path)
		for _, m := range hrefs.FindAllStringSubmatch(a.body, -1) {
			u, err := here.Parse(html.UnescapeString(m[1]))
			if err != nil || u.Host != base.Host || u.Scheme != "http" {
				continue
			}
			if next := u.RequestURI(); !seen[next] && !st.skip.MatchString(next) {
				seen[next] = true
				todo = append(todo, next)
			}
		}
	}
	return pages, nil
}

// A comparison is of pages through isrproxy with the site's own.
type comparison struct {
	Pages, Equal int
	Hits, Passed int      // by Cache-Status
	Different    []string // what and how
	stored       []string // the pages that come from memory
}

// compare asks the site and isrproxy for the same pages: the latter twice, so that what is
// stored is compared, too.
func compare(ctx context.Context, st *site, direct, through visitor, pages []string) (c comparison, err error) {
	for _, path := range pages {
		want, err := direct.get(ctx, path)
		if err != nil {
			return c, err
		}
		c.Pages++
		equal := true
		var last *answer
		for range 2 {
			got, err := through.get(ctx, path)
			if err != nil {
				return c, err
			}
			if why := st.differs(want, got); why != "" {
				equal = false
				c.Different = append(c.Different, path+": "+why)
			}
			last = got
		}
		if equal {
			c.Equal++
		}
		switch {
		case strings.Contains(last.cacheStatus(), "isr; hit"):
			c.Hits++
			c.stored = append(c.stored, path)
		case strings.Contains(last.cacheStatus(), "isr; fwd=bypass"):
			c.Passed++
		}
	}
	return c, nil
}

// differs says how two answers differ, beside what differs between any two.
func (st *site) differs(want, got *answer) string {
	switch a, b := want.header.Get("Content-Type"), got.header.Get("Content-Type"); {
	case want.status != got.status:
		return fmt.Sprintf("status %d, not %d", got.status, want.status)
	case a != b:
		return fmt.Sprintf("Content-Type %q, not %q", b, a)
	}
	a, b := st.volatile.ReplaceAllString(want.body, "…"), st.volatile.ReplaceAllString(got.body, "…")
	if a == b {
		return ""
	}
	i := 0
	for i < len(a) && i < len(b) && a[i] == b[i] {
		i++
	}
	cut := func(s string) string { return s[max(0, min(i, len(s))-60):min(len(s), i+60)] }
	return fmt.Sprintf("at byte %d %q, not %q", i, cut(b), cut(a))
}

// until asks for a page until it has a text in it, and returns how long that took.
func (v visitor) until(ctx context.Context, path, text string) (time.Duration, error) {
	begin := time.Now()
	for time.Since(begin) < 2*time.Minute {
		a, err := v.get(ctx, path)
		if err != nil {
			return 0, err
		}
		if strings.Contains(a.body, text) {
			return time.Since(begin), nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return 0, fmt.Errorf("%s does not show %q after two minutes", path, text)
}

// A load is what visitors got who asked for pages in turn.
type load struct {
	Answers, Errors int // errors are answers but 200, and connections that break off
	Rate            float64
	Median, P99     time.Duration
	Trouble         map[string]int // errors by what they were
}

// ask has so many visitors ask for pages in turn, each as soon as they have an answer, or
// so many times a second in all; for a while.
func ask(ctx context.Context, v visitor, pages []string, visitors int, perSecond float64, length time.Duration) load {
	ctx, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	var mu sync.Mutex
	var took []time.Duration        // guarded by mu, as is trouble
	trouble := make(map[string]int) // errors by what they were
	var next atomic.Int64
	var all sync.WaitGroup
	begin := time.Now()
	for range visitors {
		all.Go(func() {
			var mine []time.Duration
			for ctx.Err() == nil {
				n := next.Add(1)
				if perSecond > 0 {
					if err := sleep(ctx, time.Until(begin.Add(time.Duration(float64(n)/perSecond*float64(time.Second))))); err != nil {
						break
					}
				}
				asked := time.Now()
				a, err := v.get(ctx, pages[n%int64(len(pages))])
				if errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil {
					break // the end of all, not of patience
				}
				if what := a.trouble(err); what != "" {
					mu.Lock()
					trouble[what]++
					mu.Unlock()
				}
				mine = append(mine, time.Since(asked))
			}
			mu.Lock()
			defer mu.Unlock()
			took = append(took, mine...)
		})
	}
	all.Wait()
	l := load{Answers: len(took), Trouble: trouble, Rate: float64(len(took)) / time.Since(begin).Seconds()}
	for _, n := range trouble {
		l.Errors += n
	}
	if len(took) > 0 {
		slices.Sort(took)
		l.Median, l.P99 = took[len(took)/2], took[len(took)*99/100]
	}
	return l
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
