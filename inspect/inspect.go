// Package inspect serves a page that shows what an [isr.Site] holds, to be
// mounted behind your own authentication: it shows every path, header and error,
// and asks nobody who they are. What its name calls secret is hidden: cookies, and
// headers, parameters and wildcards of routes that are tokens, keys, passwords,
// sessions or signatures, and the keys of values whose isr.Data has such a Name. A secret in
// a plain path, another tag or an error is not known for
// one.
//
//	var rec inspect.Recorder
//	site := isr.Wrap(app, isr.Options{Observe: rec.Observe})
//
//	mux := http.NewServeMux()
//	mux.Handle("/", site)
//	mux.Handle("/debug/isr", requireAdmin(inspect.Handler(site, inspect.Options{Recorder: &rec})))
//
// The page is one document without anything from elsewhere, and works at any
// path, below [http.StripPrefix], and without JavaScript. Mount it beside the
// Site, not inside it: a page about the cache is not one for the cache.
//
// Everything on the page is to be had as JSON, with ?format=json or with Accept:
// application/json. What is listed is chosen by the same parameters: path (part
// of the URL, or of Name:key; "/blog/*" for all below, which then has buttons of its own), tag, kind (pages, data, all), state (failing, expired, stale, fresh, uncacheable), sort
// (path, state, age, left, hits, size, status, took; with a "-" in front for
// descending), page and limit; or id, for one page with its headers.
package inspect

import (
	"bytes"
	"crypto/sha256"
	_ "embed" // the page's parts
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/isr-go/isr"
)

// Options configure a [Handler]. The zero value shows everything but the charts
// and changes nothing.
type Options struct {
	// Actions adds buttons that revalidate and purge pages and tags. They POST,
	// and are refused from other origins ([http.CrossOriginProtection]). If
	// false, the handler takes no POST at all.
	Actions bool

	// Hosts are the names under which the inspector answers, such as
	// "admin.example.com", without a port. What asks for another gets 403, so that
	// no page elsewhere can have its own name lead here (DNS rebinding) and use the
	// inspector in the browser of somebody whom the network lets in. IP addresses and
	// localhost, which nobody can have lead elsewhere, are always among them.
	//
	// Nil means any name, but where the connection has come to a loopback address:
	// there a name other than localhost is answered only if the request has
	// Sec-Fetch-Site, which browsers send over HTTPS, as through a proxy on the same
	// machine, and which a page with such a name cannot have. List the names where
	// being in a network is all that it takes to reach the inspector, and where
	// programs read it through a proxy on the same machine.
	Hosts []string

	// Recorder is where the charts come from: one whose Observe the Site calls.
	// Nil means no charts.
	Recorder *Recorder

	// MaxBytes is the Site's isr.Options.MaxBytes, so that memory can be shown as
	// a share of it. Zero means that it is shown by itself.
	MaxBytes int64
}

// Handler returns a handler that shows the pages of a site, in HTML or JSON. It
// panics if site is nil, or if one of Hosts is no name. It looks at the Site only when asked, and starts no
// goroutine.
func Handler(site *isr.Site, opts Options) http.Handler {
	if site == nil {
		panic("inspect: Handler: nil site")
	}
	for _, host := range opts.Hosts {
		if hostname(host) == "" || strings.ContainsAny(host, ":/@?# ") {
			panic(fmt.Sprintf("inspect: Handler: Hosts: %q: want a name without scheme and port, such as admin.example.com", host))
		}
	}
	return &handler{site: site, opts: opts, protection: http.NewCrossOriginProtection()}
}

type handler struct {
	site       *isr.Site
	opts       Options
	protection *http.CrossOriginProtection
}

// maxForm is the size of the largest form that is read: an id or a tag.
const maxForm = 16 << 10

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	for name, value := range headers {
		w.Header().Set(name, value)
	}
	w.Header().Add("Vary", "Accept")
	asJSON, status, err := h.admit(w, r)
	if err != nil {
		fail(w, r, asJSON, status, err)
		return
	}
	q, err := parseQuery(r.URL.Query())
	if err != nil {
		fail(w, r, asJSON, http.StatusBadRequest, err)
		return
	}
	v := view{Query: q, Actions: h.opts.Actions}
	if r.Method == http.MethodPost {
		v.Outcome, status = h.act(r)
	}
	if !v.look(h) && status == http.StatusOK && v.Outcome == nil {
		status = http.StatusNotFound
	}
	if asJSON {
		answerJSON(w, r, status, &v)
		return
	}
	if v.Outcome != nil && status != http.StatusBadRequest {
		status = http.StatusOK // so that no proxy's error page comes in place of what went wrong
	}
	v.place()
	v.Style, v.Script = style, script
	var page bytes.Buffer
	if err := document.Execute(&page, &v); err != nil {
		fail(w, r, asJSON, http.StatusInternalServerError, err)
		return
	}
	answer(w, r, status, "text/html; charset=utf-8", page.Bytes())
}

// admit decides whether a request is one for the inspector, and in which format
// it wants its answer.
func (h *handler) admit(w http.ResponseWriter, r *http.Request) (asJSON bool, status int, err error) {
	asJSON, err = wantsJSON(r)
	if err != nil {
		return asJSON, http.StatusBadRequest, err
	}
	if err := h.checkHost(r); err != nil {
		return asJSON, http.StatusForbidden, err
	}
	switch {
	case r.Method == http.MethodGet || r.Method == http.MethodHead:
		return asJSON, http.StatusOK, nil
	case r.Method != http.MethodPost || !h.opts.Actions:
		allow := "GET, HEAD"
		if h.opts.Actions {
			allow += ", POST"
		}
		w.Header().Set("Allow", allow)
		return asJSON, http.StatusMethodNotAllowed, errors.New("method not allowed")
	}
	if err := h.protection.Check(r); err != nil {
		return asJSON, http.StatusForbidden, err
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
			return asJSON, http.StatusRequestEntityTooLarge, err
		}
		return asJSON, http.StatusBadRequest, err
	}
	return asJSON, http.StatusOK, nil
}

// wantsJSON reports whether the answer is to be JSON: because of the format
// parameter, else because JSON is more welcome than HTML, or as welcome and named
// more exactly (RFC 9110, section 12.5.1).
func wantsJSON(r *http.Request) (bool, error) {
	accept := strings.Join(r.Header["Accept"], ",")
	asJSON, named := weight(accept, "application", "json")
	asHTML, byName := weight(accept, "text", "html")
	welcome := asJSON > asHTML || asJSON == asHTML && asJSON > 0 && named > byName
	switch format := r.URL.Query().Get("format"); format {
	case "":
		return welcome, nil
	case "json", "html":
		return format == "json", nil
	}
	return welcome, errors.New(`unknown format: want "html" or "json"`)
}

// weight returns how welcome a media type is, and how exactly it is named: by the
// most specific range that covers it.
func weight(accept, kind, subtype string) (q float64, specific int) {
	for e := range strings.SplitSeq(accept, ",") {
		media, params, err := mime.ParseMediaType(e)
		if err != nil {
			continue
		}
		rank := 1 + slices.Index([]string{"*/*", kind + "/*", kind + "/" + subtype}, media)
		if rank <= specific {
			continue
		}
		q, specific = 1, rank
		if given, ok := params["q"]; ok {
			q, _ = strconv.ParseFloat(given, 64) // what is no number is not welcome
		}
	}
	return q, specific
}

// The parts of the page.
var (
	//go:embed page.html
	pageHTML string
	//go:embed style.css
	style template.CSS
	//go:embed script.js
	script template.JS

	document = template.Must(template.New("page").Funcs(template.FuncMap{
		"bytes": formatBytes, "clip": clip, "count": formatCount, "list": list,
	}).Parse(pageHTML))
)

// headers are sent with every answer. Nothing runs on the page but its own
// script, whatever a path or an error may contain; and what is cached now is not
// for keeping. The referrer goes to the page itself: without one, browsers that
// know no Sec-Fetch-Site send "Origin: null" with its own forms.
var headers = map[string]string{
	"Cache-Control": "no-store",
	"Content-Security-Policy": "default-src 'none'; style-src " + source(string(style)) + "; script-src " + source(string(script)) +
		"; connect-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'" +
		"; require-trusted-types-for 'script'; trusted-types 'none'",
	"Cross-Origin-Opener-Policy":   "same-origin",
	"Cross-Origin-Resource-Policy": "same-origin",
	"Referrer-Policy":              "same-origin",
	"X-Content-Type-Options":       "nosniff",
	"X-Frame-Options":              "DENY",
}

// source returns the Content-Security-Policy source of an inline text.
func source(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

func fail(w http.ResponseWriter, r *http.Request, asJSON bool, status int, err error) {
	if asJSON {
		answerJSON(w, r, status, map[string]string{"error": err.Error()})
		return
	}
	answer(w, r, status, "text/plain; charset=utf-8", []byte(err.Error()+"\n"))
}

func answerJSON(w http.ResponseWriter, r *http.Request, status int, v any) {
	var body bytes.Buffer
	if err := json.NewEncoder(&body).Encode(v); err != nil {
		fail(w, r, false, http.StatusInternalServerError, err)
		return
	}
	answer(w, r, status, "application/json", body.Bytes())
}

func answer(w http.ResponseWriter, r *http.Request, status int, contentType string, body []byte) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		w.Write(body)
	}
}
