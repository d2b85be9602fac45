//go:build unix

package main

import (
	"context"
	"regexp"
)

// A site is one that is put behind isrproxy.
type site struct {
	name     string
	preset   string
	packages []string // of the distribution
	first    string   // the path at which the crawl begins
	skip     *regexp.Regexp
	volatile *regexp.Regexp // what differs between two answers of the site itself
	inside   string         // what a page has in it when somebody is logged in

	// setUp installs the site and starts its servers. Those are what is killed under load.
	setUp func(ctx context.Context, s *stack) (version string, servers []*process, err error)

	login   func(b *browser) error // as Editor
	comment func(b *browser, text string) (path string, err error)
	edit    func(b *browser, text string) (path string, err error)
}

// The one who is logged in.
const (
	userName = "Editor"
	password = "correct-horse-battery"
)

var sites = []*site{wordpress, mediawiki, dokuwiki, nextjs}
