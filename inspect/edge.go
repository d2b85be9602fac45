package inspect

import (
	"time"

	"github.com/isr-go/isr"
)

// maxPurges is how many of what the Edge was told, or is owed, are shown.
const maxPurges = 100

// A purge is what the Edge was told, or is owed.
type purge struct {
	URL   string    `json:"url,omitempty"`
	Tag   string    `json:"tag,omitempty"`
	Route string    `json:"route,omitempty"`
	Soft  bool      `json:"soft,omitempty"`
	Owed  bool      `json:"owed,omitempty"`
	Told  time.Time `json:"told,omitzero"`
	Next  time.Time `json:"next,omitzero"`
	Error string    `json:"error,omitempty"`
}

// purges returns what the Edge of a site is owed, and then what it was told.
func purges(site *isr.Site) (all []purge) {
	for _, e := range site.EdgePurges() {
		if len(all) == maxPurges {
			break
		}
		p := purge{Tag: e.Tag, Route: e.Route, Soft: e.Soft, Owed: e.Owed, Told: e.Told.UTC(), Next: e.Next.UTC()}
		if e.Path != "" {
			p.URL = e.Host + hideAddress(&isr.Page{Path: e.Path, Query: e.Query, Route: e.Route})
		} else {
			p.Tag = hideTag(e.Tag)
		}
		if e.Err != nil {
			p.Error = hideText(e.Err.Error())
		}
		all = append(all, p)
	}
	return all
}

// Effect returns what the Edge does with what is named.
func (p *purge) Effect() string {
	if p.Soft {
		return "soft purge"
	}
	return "purge"
}
