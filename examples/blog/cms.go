package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/mail"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A post is what an author has written. Posts are not changed in place.
type post struct {
	ID    int
	Slug  string // its place in the URL, which stays when the title changes
	Title string
	Date  time.Time
	Tags  []string
	Text  string // paragraphs with an empty line between them, and code in backticks
}

// Path is where the site shows the post.
func (p post) Path() string { return "/post/" + p.Slug }

// CacheTag names the post to the cache. It is the one that isr.Data gives the post by itself.
func (p post) CacheTag() string { return "post:" + p.Slug }

// A mode is how the CMS answers the site.
type mode string

const (
	ok      mode = "ok"
	slow    mode = "slow"
	failing mode = "failing"
	hanging mode = "hanging"
)

var modes = []mode{ok, slow, failing, hanging}

// slowness is what a slow CMS takes.
const slowness = 2 * time.Second

var errDown = errors.New("the CMS is down")

// A cms keeps the posts. It begins with those in files; edits live in memory. The
// site asks it with published, as if over a network, and gets what the mode makes
// of that; its own admin is not affected.
type cms struct {
	mu    sync.Mutex // guards what follows; held alone
	posts []post     // newest first; replaced, never changed
	last  int        // the highest ID that was ever given
	mode  mode
}

// newCMS reads the posts: files such as 07-has-it-changed.txt, written as a mail
// is, with Title, Date and Tags above the text.
func newCMS(posts fs.FS) (*cms, error) {
	names, err := fs.Glob(posts, "*.txt")
	if err != nil {
		return nil, err
	}
	c := &cms{mode: ok}
	for _, name := range names {
		p, err := readPost(posts, name)
		if err != nil {
			return nil, fmt.Errorf("post %s: %w", name, err)
		}
		c.posts = append(c.posts, p)
		c.last = max(c.last, p.ID)
	}
	slices.SortFunc(c.posts, newestFirst)
	return c, nil
}

func readPost(posts fs.FS, name string) (p post, err error) {
	f, err := posts.Open(name)
	if err != nil {
		return p, err
	}
	defer f.Close()
	msg, err := mail.ReadMessage(f)
	if err != nil {
		return p, err
	}
	text, err := io.ReadAll(msg.Body)
	if err != nil {
		return p, err
	}
	number, slug, _ := strings.Cut(strings.TrimSuffix(path.Base(name), ".txt"), "-")
	if p.ID, err = strconv.Atoi(number); err != nil {
		return p, err
	}
	if p.Date, err = time.Parse(time.DateOnly, msg.Header.Get("Date")); err != nil {
		return p, err
	}
	p.Slug = slug
	p.Title = msg.Header.Get("Title")
	p.Tags = splitTags(msg.Header.Get("Tags"))
	p.Text = strings.TrimSpace(string(text))
	return p, nil
}

func newestFirst(a, b post) int {
	return cmp.Or(b.Date.Compare(a.Date), cmp.Compare(b.ID, a.ID))
}

// published is what the site sees: all posts, newest first, or an error.
func (c *cms) published(ctx context.Context) ([]post, error) {
	switch c.currentMode() {
	case failing:
		return nil, errDown
	case hanging:
		<-ctx.Done()
	case slow:
		select {
		case <-time.After(slowness):
		case <-ctx.Done():
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return c.all(), nil
}

// all is what the admin sees.
func (c *cms) all() []post {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.posts
}

func (c *cms) currentMode() mode {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mode
}

func (c *cms) setMode(m mode) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mode = m
}

// add publishes a post under the next number.
func (c *cms) add(title, text string, tags []string) post {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last++
	p := post{ID: c.last, Slug: slugOf(title), Title: title, Date: time.Now(), Tags: tags, Text: text}
	if p.Slug == "" || find(c.posts, p.Slug) >= 0 {
		p.Slug = strings.Trim(fmt.Sprintf("%s-%d", p.Slug, p.ID), "-")
	}
	c.posts = append([]post{p}, c.posts...)
	slices.SortFunc(c.posts, newestFirst)
	return p
}

// edit replaces what the author of a post may change.
func (c *cms) edit(slug, title, text string, tags []string) (p post, found bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := find(c.posts, slug)
	if i < 0 {
		return p, false
	}
	c.posts = slices.Clone(c.posts)
	edited := &c.posts[i]
	edited.Title, edited.Text, edited.Tags = title, text, tags
	return *edited, true
}

// remove unpublishes a post.
func (c *cms) remove(slug string) (p post, found bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := find(c.posts, slug)
	if i < 0 {
		return p, false
	}
	p = c.posts[i]
	c.posts = slices.Delete(slices.Clone(c.posts), i, i+1)
	return p, true
}

// find returns the place of a post, or -1.
func find(posts []post, slug string) int {
	return slices.IndexFunc(posts, func(p post) bool { return p.Slug == slug })
}

// tagsOf returns the tags of the posts, each once.
func tagsOf(posts []post) []string {
	var tags []string
	for _, p := range posts {
		tags = append(tags, p.Tags...)
	}
	slices.Sort(tags)
	return slices.Compact(tags)
}

// splitTags reads tags as people type them.
func splitTags(s string) []string {
	var tags []string
	for t := range strings.SplitSeq(s, ",") {
		if t = slugOf(t); t != "" && !slices.Contains(tags, t) {
			tags = append(tags, t)
		}
	}
	return tags
}

// slugOf makes a part of a URL that needs no escaping.
func slugOf(title string) string {
	words := strings.FieldsFunc(strings.ToLower(title), func(r rune) bool {
		return !('a' <= r && r <= 'z' || '0' <= r && r <= '9')
	})
	return strings.Join(words, "-")
}
