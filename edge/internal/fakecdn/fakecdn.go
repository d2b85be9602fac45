// Package fakecdn is a cache in front of an origin that finds pages by tags, for tests
// of adapters whose product cannot run in one.
package fakecdn

import (
	"bytes"
	"maps"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A CDN is an http.Handler that keeps the origin's pages by URL and Accept-Encoding.
// Its fields are set before it is used.
type CDN struct {
	Origin        http.Handler
	Tags, Control string        // the fields that it reads, and does not pass on
	Separators    string        // between tags
	MaxTags       int           // bytes of the field; tags beyond are lost
	IgnoreCase    bool          // of tags
	Delay         time.Duration // until a purge has an effect

	mu    sync.Mutex // guards what follows; held alone
	pages map[string]*page
	due   []purge // in order
}

// A purge has an effect from a moment on.
type purge struct {
	at   time.Time
	soft bool
	tags map[string]bool
}

type page struct {
	res   *httptest.ResponseRecorder
	until time.Time
	stale bool
	tags  map[string]bool
}

// ServeHTTP answers from the cache, or asks the origin.
func (c *CDN) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	key := r.Header.Get("Accept-Encoding") + " " + r.RequestURI
	c.mu.Lock()
	c.apply()
	p := c.pages[key]
	c.mu.Unlock()
	if p == nil || p.stale || !time.Now().Before(p.until) {
		res := httptest.NewRecorder()
		c.Origin.ServeHTTP(res, r)
		p = &page{res: res, tags: c.split(strings.Join(res.Header()[c.Tags], c.Separators[:1]))}
		if _, s, ok := strings.Cut(res.Header().Get(c.Control), "max-age="); ok {
			seconds, _ := strconv.Atoi(strings.TrimRight(s, " ,"))
			age, _ := strconv.Atoi(res.Header().Get("Age"))
			p.until = time.Now().Add(time.Duration(seconds-age) * time.Second)
		}
		c.mu.Lock()
		c.apply()
		if c.pages == nil {
			c.pages = make(map[string]*page)
		}
		c.pages[key] = p
		c.mu.Unlock()
	}
	h := w.Header()
	maps.Copy(h, p.res.Header())
	delete(h, c.Tags)
	delete(h, c.Control)
	w.WriteHeader(p.res.Code)
	w.Write(bytes.Clone(p.res.Body.Bytes()))
}

func (c *CDN) split(field string) map[string]bool {
	if c.MaxTags > 0 && len(field) > c.MaxTags {
		field = field[:c.MaxTags]
	}
	if c.IgnoreCase {
		field = strings.ToLower(field)
	}
	tags := make(map[string]bool)
	for _, tag := range strings.FieldsFunc(field, func(r rune) bool { return strings.ContainsRune(c.Separators, r) }) {
		tags[tag] = true
	}
	return tags
}

// Purge drops the pages that have one of the tags, or makes them stale, after Delay.
func (c *CDN) Purge(soft bool, tags []string) {
	p := purge{time.Now().Add(c.Delay), soft, make(map[string]bool)}
	for _, tag := range tags {
		if c.IgnoreCase {
			tag = strings.ToLower(tag)
		}
		p.tags[tag] = true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.due = append(c.due, p)
}

// apply makes the purges that are due. Holds c.mu.
func (c *CDN) apply() {
	for len(c.due) > 0 && !time.Now().Before(c.due[0].at) {
		purge := c.due[0]
		c.due = c.due[1:]
		for key, p := range c.pages {
			for tag := range p.tags {
				switch {
				case !purge.tags[tag]:
				case purge.soft:
					again := *p
					again.stale = true
					c.pages[key] = &again
				default:
					delete(c.pages, key)
				}
			}
		}
	}
}

// A Bucket is a limit of requests, as a service counts it. It is safe for concurrent use.
type Bucket struct {
	Size  int
	Every time.Duration // one more

	mu    sync.Mutex // guards what follows; held alone
	spent int
	since time.Time
}

// Take takes a token, or returns how long there is none.
func (b *Bucket) Take() (wait time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if b.spent == 0 {
		b.since = now
	}
	for b.spent > 0 && now.Sub(b.since) >= b.Every {
		b.spent--
		b.since = b.since.Add(b.Every)
	}
	if b.spent >= b.Size {
		return b.Every - now.Sub(b.since)
	}
	if b.spent++; b.spent == 1 {
		b.since = now
	}
	return 0
}

// Transport asks a handler without a network, so that it works in bubbles of
// testing/synctest.
type Transport struct{ http.Handler }

// RoundTrip returns what the handler answers, or the end of the request's context.
func (t Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	done := make(chan *http.Response, 1)
	go func() {
		w := httptest.NewRecorder()
		t.ServeHTTP(w, r)
		res := w.Result()
		res.Request = r
		done <- res
	}()
	select {
	case res := <-done:
		return res, nil
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}
