package policy

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/isr-go/isr/internal/header"
	"github.com/isr-go/isr/internal/pagekey"
)

// A Spec has the fields of isr.Route, which says what they mean, so that the one can be
// converted into the other.
type Spec struct {
	TTL                  time.Duration
	StaleWhileRevalidate time.Duration
	StaleIfError         time.Duration
	NotFoundTTL          time.Duration
	Query                []string
	IgnoreQuery          []string
	Vary                 []string
	VaryCookies          []string
	Normalize            func(http.Header)
	Tags                 []string
	Bypass               func(*http.Request) bool
	CacheControl         string
	Placeholder          http.Handler
	PrerenderedOnly      bool
	NotFound             http.Handler
	IgnoreVary           []string
	MaxTTL               time.Duration
	Rewrite              func(status int, h http.Header)
	Failure              func(status int, h http.Header) bool
	Patience             time.Duration
	Timeout              time.Duration
	Segment              func(*http.Request) string
}

// What a zero means.
const (
	defaultTimeout     = 30 * time.Second
	defaultNotFoundTTL = 10 * time.Second
)

// New returns the route of a pattern, or says which of the fields no request could put
// right.
func New(pattern string, s Spec, sharedMaxAge time.Duration) (*Route, error) {
	wrong := func(field string, value any, why string) error {
		return fmt.Errorf("%s: %v: %s", field, value, why)
	}
	if s.Timeout < 0 {
		return nil, wrong("Timeout", s.Timeout, "negative; zero means 30s")
	}
	if s.Patience < 0 {
		return nil, wrong("Patience", s.Patience, "negative; zero means that visitors wait")
	}
	if s.MaxTTL < 0 {
		return nil, wrong("MaxTTL", s.MaxTTL, "negative; zero means that there is no bound")
	}
	ignored := make([]string, len(s.IgnoreVary))
	for i, name := range s.IgnoreVary {
		if !header.IsToken(name) || name == "*" {
			return nil, wrong("IgnoreVary", fmt.Sprintf("%q", name), "is no name of a header")
		}
		ignored[i] = http.CanonicalHeaderKey(name)
	}
	for _, tag := range s.Tags {
		if err := pagekey.CheckTag(tag); err != nil {
			return nil, wrong("Tags", fmt.Sprintf("%q", tag), err.Error())
		}
	}
	if strings.ContainsAny(s.CacheControl, "\r\n") {
		return nil, wrong("CacheControl", fmt.Sprintf("%q", s.CacheControl), "has a line break")
	}
	rules, err := pagekey.NewRules(s.Query, s.IgnoreQuery, s.Vary, s.VaryCookies, s.Normalize)
	if err != nil {
		return nil, err
	}
	rules.Segment = s.Segment
	if s.NotFound == nil {
		s.NotFound = http.NotFoundHandler()
	}
	ttl := cmp.Or(s.TTL, Forever)
	return &Route{
		Pattern:              pattern,
		Rules:                rules,
		TTL:                  ttl,
		StaleWhileRevalidate: cmp.Or(s.StaleWhileRevalidate, Forever),
		StaleIfError:         cmp.Or(s.StaleIfError, Forever),
		NotFoundTTL:          cmp.Or(s.NotFoundTTL, min(ttl, defaultNotFoundTTL)),
		Timeout:              cmp.Or(s.Timeout, defaultTimeout),
		Patience:             s.Patience,
		SharedMaxAge:         sharedMaxAge,
		Tags:                 pagekey.FoldTags(slices.Clone(s.Tags)),
		CacheControl:         s.CacheControl,
		Failure:              s.Failure,
		NotFound:             s.NotFound,
		IgnoreVary:           ignored,
		MaxTTL:               s.MaxTTL,
		Rewrite:              s.Rewrite,
		Bypass:               s.Bypass,
		Placeholder:          s.Placeholder,
		PrerenderedOnly:      s.PrerenderedOnly,
	}, nil
}
