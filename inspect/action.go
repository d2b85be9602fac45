package inspect

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/isr-go/isr"
)

// An outcome is what came of a button.
type outcome struct {
	Action  string `json:"action"` // revalidate or purge
	ID      string `json:"id,omitempty"`
	URL     string `json:"url,omitempty"`
	Tag     string `json:"tag,omitempty"`
	Below   string `json:"below,omitempty"` // a path that ends in "/*"
	OK      bool   `json:"ok"`
	Message string `json:"message"`

	at int // the row of the button
}

// act does what a form asks for. It names a page by its id: which URL that is,
// the site knows best.
func (h *handler) act(r *http.Request) (*outcome, int) {
	out := &outcome{Action: r.PostForm.Get("do"), ID: r.PostForm.Get("id"), Tag: r.PostForm.Get("tag"), Below: r.PostForm.Get("below")}
	at, _ := strconv.Atoi(r.PostForm.Get("at")) // what is no number is the first row
	out.at = max(0, at)
	var err error
	switch {
	case out.Action != "revalidate" && out.Action != "purge":
		return out.refuse(http.StatusBadRequest, errors.New(`unknown action: want do=revalidate or do=purge`))
	case cmp.Or(out.ID, out.Tag, out.Below) != out.ID+out.Tag+out.Below || out.ID+out.Tag+out.Below == "":
		return out.refuse(http.StatusBadRequest, errors.New(`want the id of a page, or a tag, or below: a path that ends in "/*"`))
	case out.Below != "" && (query{Path: out.Below}).Below() == "":
		return out.refuse(http.StatusBadRequest, errors.New(`want a path that ends in "/*", or a whole URL that does`))
	case out.Below != "" && out.Action == "revalidate":
		err = h.site.Revalidate(r.Context(), out.Below)
		out.Message = "The pages below are stale now, and are renewed as they are asked for."
	case out.Below != "":
		err = h.site.Purge(r.Context(), out.Below)
		out.Message = "The pages below are purged."
	case out.Tag != "" && out.Action == "revalidate":
		err = h.site.RevalidateTag(r.Context(), out.Tag)
		out.Message = "Its pages are stale now, and are renewed as they are asked for."
	case out.Tag != "":
		err = h.site.PurgeTag(r.Context(), out.Tag)
		out.Message = "Its pages are purged."
	default:
		e, ok := lookup(h.site, out.ID)
		if !ok {
			return out.refuse(http.StatusNotFound, errors.New("the page is not stored any more"))
		}
		out.URL = hideAddress(&e.Page)
		if isData(&e.Page) {
			if out.Action == "purge" {
				err = h.site.PurgeTag(r.Context(), dataTag(&e.Page))
				out.Message = "Purged, with what has read it."
			} else {
				err = h.site.RevalidateTag(r.Context(), dataTag(&e.Page))
				out.Message = "It is stale now, with what has read it, and is renewed as it is asked for."
			}
			if err != nil {
				err = errors.New("its tag could not be invalidated: " + hideError(&isr.Page{Scheme: e.Scheme, Path: e.Path, Query: e.Query, Err: err}))
			}
			break
		}
		target := address(&e.Page)
		if u, err := url.Parse(target); e.Host != "" && (err != nil || u.Host != e.Host || u.EscapedPath() != e.Path) {
			return out.refuse(http.StatusInternalServerError, fmt.Errorf("no URL can name a page of the host %q", e.Host))
		}
		covered := h.covered(&e.Page)
		plain := e.Page
		plain.Path = strings.ReplaceAll(e.Path, "*", "%2A") // it is not meant to stand for all below
		target = address(&plain)
		if out.Action == "purge" {
			err = h.site.Purge(r.Context(), target)
			out.Message = "Purged" + covered + "."
			break
		}
		begin := time.Now()
		err = h.site.Revalidate(r.Context(), target)
		out.Message = "Revalidated" + covered + " in " + formatDuration(time.Since(begin)) + "."
		if e, ok := lookup(h.site, out.ID); ok && e.NotStored != "" {
			out.Message = "Generated again, but not stored: it " + e.NotStored + "."
		}
		if err != nil && e.path != e.Path {
			err = errors.New(strings.ReplaceAll(err.Error(), e.Path, e.path))
		}
	}
	if err != nil {
		return out.refuse(http.StatusInternalServerError, err)
	}
	out.OK = true
	return out, http.StatusOK
}

func (out *outcome) refuse(status int, err error) (*outcome, int) {
	out.OK, out.Message = false, "Failed: "+hideMessage(strings.TrimPrefix(err.Error(), "isr: "))
	return out, status
}

// covered says how many stored pages the URL of p names, if that is more than p.
func (h *handler) covered(p *isr.Page) string {
	n := 0
	for e := range entries(h.site) {
		if covers(p, &e.Page) {
			n++
		}
	}
	if n < 2 {
		return ""
	}
	return fmt.Sprintf(" all %s pages at this URL", formatCount(n))
}
