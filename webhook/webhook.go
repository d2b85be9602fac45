// Package webhook renews pages when a content management system says that something
// has changed: it checks who says so, by the CMS's own signature, and asks a function
// of yours which paths and tags that concerns.
//
//	http.Handle("/hooks/sanity", webhook.Handler(site, webhook.Sanity(secret), nil))
//
// For a CMS that can name paths and tags itself, and send a secret,
// [isr.RevalidateHandler] is enough. Recipes for Sanity, Contentful, Strapi, Directus,
// Ghost, Prismic, DatoCMS and WordPress are in [docs/revalidation.md].
//
// # What a stranger can do
//
// A request without the secret changes nothing. One without a signature, or with one of
// another time, is refused before its body is read; of any other at most 1 MiB is read.
// Secrets and signatures are compared in constant time. Where the signature covers the
// time (Sanity, Standard, Contentful, Ghost), a request is good for 5 minutes. Who
// repeats a request meanwhile has pages generated again, and no more than that: keep
// the address to HTTPS, so that there is nothing to repeat.
//
// [docs/revalidation.md]: https://github.com/isr-go/isr/blob/main/docs/revalidation.md
package webhook

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"maps"
	"net/http"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/internal/webhook"
)

// A Verify decides whether a request comes from the CMS. It is called before the body
// is read, and returns nil where the request is refused whatever its body; otherwise
// what it returns is asked, once, whether the body is the one that was signed. It is
// called concurrently. [Bearer], [Sanity], [Standard], [GitHub], [Contentful], [Ghost]
// and [WordPress] return one; for another CMS write your own.
type Verify func(r *http.Request) func(body []byte) bool

// A Change is what a webhook is about. Its paths are those of [isr.Site.Revalidate].
// The zero value is about nothing: the answer is 200, and nothing is done.
type Change struct {
	Paths []string // are revalidated: generated anew, before the answer
	Tags  []string // are revalidated: stale, and renewed when they are next asked for

	// ExpireTags are expired: nobody gets an old page any more, unless a new one cannot be
	// had.
	ExpireTags []string

	// What was taken off is to be purged: it is not shown any more, not even where a
	// new page cannot be had. If any of the paths and tags to purge is invalid, nothing
	// is done at all.
	PurgePaths, PurgeTags []string
}

func (c *Change) empty() bool {
	return len(c.Paths)+len(c.Tags)+len(c.ExpireTags)+len(c.PurgePaths)+len(c.PurgeTags) == 0
}

// Names says what a webhook is about, by its header and body, which are those of a
// request that Verify has let through. An error goes to the CMS, with status 400. It is
// called concurrently, and must not change the header.
//
// Most CMSs do not sign their headers: what is read from there may have been changed
// where the signature has not.
type Names func(header http.Header, body []byte) (Change, error)

// Handler returns a handler for the webhook of a CMS: it takes POST requests that
// verify lets through, and revalidates and purges what names says they are about. Where
// names is nil the body says so itself, as JSON: {"paths": ["/blog/1"], "tags":
// ["blog"]}, and what names neither is refused.
//
// The answers are those of [isr.RevalidateHandler], JSON and no-store: 200
// {"revalidated":true,"pages":{"/blog/1":1}}, with how many pages were stored here under
// each path, or 200 {"revalidated":false} where there is nothing to do; 400 for a body
// that is not understood, or an invalid path or tag; 401 for a request that verify
// refuses; 405; 413 for more than 1 MiB; 500 where a page could not be generated, or the
// Store has not taken it: then the last good page is kept, the reason is logged, and the
// CMS should try again.
//
// Handler panics if site or verify is nil.
func Handler(site *isr.Site, verify Verify, names Names) http.Handler {
	if verify == nil {
		panic("isr/webhook: Handler: nil verify; without one, every request could renew pages")
	}
	if names == nil {
		names = namedInBody
	}
	secret := rand.Text()
	return &handler{verify, names, isr.RevalidateHandler(site, secret), "Bearer " + secret}
}

func namedInBody(_ http.Header, body []byte) (c Change, err error) {
	c.Paths, c.Tags, err = webhook.NamesInJSON(body)
	return c, err
}

// A handler turns a webhook into requests to a RevalidateHandler, which nobody else can
// reach: so both agree on what is valid, counted, logged and answered.
type handler struct {
	verify     Verify
	names      Names
	revalidate http.Handler
	bearer     string // what it asks for
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		webhook.Refuse(w, http.StatusMethodNotAllowed, "Method not allowed")
		return
	}
	const refused = "Invalid token or signature"
	signed := h.verify(r)
	if signed == nil {
		webhook.RefuseUnauthorized(w, refused)
		return
	}
	body, err := webhook.Read(w, r)
	if err != nil {
		webhook.RefuseBody(w, err)
		return
	}
	if !signed(body) {
		webhook.RefuseUnauthorized(w, refused)
		return
	}
	change, err := h.names(r.Header, body)
	if err != nil {
		webhook.RefuseBody(w, err)
		return
	}
	h.apply(w, r, &change)
}

// An outcome is what a RevalidateHandler answers.
type outcome struct {
	Revalidated bool           `json:"revalidated"`
	Pages       map[string]int `json:"pages,omitempty"`
	Message     string         `json:"-"`
}

// apply purges, expires, then revalidates. Where one has failed, but not for what it was
// asked, the next is tried all the same.
func (h *handler) apply(w http.ResponseWriter, r *http.Request, c *Change) {
	if c.empty() {
		webhook.Answer(w, http.StatusOK, outcome{})
		return
	}
	all := outcome{Pages: make(map[string]int)}
	status := http.StatusOK
	for _, step := range [...]struct {
		method, url string
		paths, tags []string
	}{
		{http.MethodDelete, "/", c.PurgePaths, c.PurgeTags},
		{http.MethodPost, "/?expire=1", nil, c.ExpireTags},
		{http.MethodPost, "/", c.Paths, c.Tags},
	} {
		if len(step.paths)+len(step.tags) == 0 {
			continue
		}
		a := h.ask(r, step.method, step.url, step.paths, step.tags)
		if a.status != http.StatusOK {
			status, all.Message = a.status, a.message()
			if a.status < http.StatusInternalServerError {
				break
			}
			continue
		}
		var did outcome
		if err := json.Unmarshal(a.body.Bytes(), &did); err == nil {
			all.Revalidated = true
			maps.Copy(all.Pages, did.Pages)
		}
	}
	if status != http.StatusOK {
		webhook.Refuse(w, status, all.Message)
		return
	}
	webhook.Answer(w, status, all)
}

// ask sends a RevalidateHandler paths and tags.
func (h *handler) ask(r *http.Request, method, url string, paths, tags []string) *answer {
	a := &answer{header: make(http.Header), status: http.StatusOK}
	body, err := json.Marshal(map[string][]string{"paths": paths, "tags": tags})
	if err != nil {
		panic(err) // strings can be marshalled
	}
	ask, err := http.NewRequestWithContext(r.Context(), method, url, bytes.NewReader(body))
	if err != nil {
		panic(err) // the method and URL are valid
	}
	ask.Header.Set("Authorization", h.bearer)
	ask.Header.Set("Content-Type", "application/json")
	h.revalidate.ServeHTTP(a, ask)
	return a
}

// An answer is a ResponseWriter that keeps what is written to it.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) WriteHeader(status int)      { a.status = status }
func (a *answer) Write(b []byte) (int, error) { return a.body.Write(b) }

// message returns why a RevalidateHandler has refused.
func (a *answer) message() string {
	var m struct{ Message string }
	if err := json.Unmarshal(a.body.Bytes(), &m); err != nil {
		return http.StatusText(a.status)
	}
	return m.Message
}
