package webhook_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/isr-go/isr/webhook"
)

// The recipes of docs/revalidation.md, as they are printed there.

func fromContentful(header http.Header, body []byte) (webhook.Change, error) {
	var event struct {
		Sys struct {
			ID          string
			ContentType struct{ Sys struct{ ID string } }
		}
	}
	if err := json.Unmarshal(body, &event); err != nil {
		return webhook.Change{}, err
	}
	entry, kind := "entry-"+event.Sys.ID, event.Sys.ContentType.Sys.ID
	switch header.Get("X-Contentful-Topic") {
	case "ContentManagement.Entry.publish":
		return webhook.Change{Tags: []string{entry, kind}}, nil
	case "ContentManagement.Entry.unpublish", "ContentManagement.Entry.delete":
		return webhook.Change{PurgeTags: []string{entry}, Tags: []string{kind}}, nil
	}
	return webhook.Change{}, nil // drafts that are saved, assets
}

func fromStrapi(_ http.Header, body []byte) (webhook.Change, error) {
	var event struct {
		Event, Model string
		Entry        struct{ Slug string }
	}
	if err := json.Unmarshal(body, &event); err != nil {
		return webhook.Change{}, err
	}
	post := []string{"/blog/" + url.PathEscape(event.Entry.Slug)}
	switch {
	case event.Model != "post":
		return webhook.Change{}, nil
	case event.Event == "entry.publish", event.Event == "entry.update":
		return webhook.Change{Paths: post, Tags: []string{"posts"}}, nil
	case event.Event == "entry.unpublish", event.Event == "entry.delete":
		return webhook.Change{PurgePaths: post, Tags: []string{"posts"}}, nil
	}
	return webhook.Change{}, nil
}

func fromDirectus(_ http.Header, body []byte) (webhook.Change, error) {
	var event struct {
		Collection string
		Keys       []json.RawMessage // numbers or UUIDs
	}
	if err := json.Unmarshal(body, &event); err != nil {
		return webhook.Change{}, err
	}
	tags := []string{event.Collection}
	for _, key := range event.Keys {
		tags = append(tags, event.Collection+"-"+strings.Trim(string(key), `"`))
	}
	return webhook.Change{Tags: tags}, nil
}

func fromGhost(_ http.Header, body []byte) (c webhook.Change, err error) {
	var event struct {
		Post struct {
			Current, Previous struct{ Slug, Status string }
		}
	}
	if err := json.Unmarshal(body, &event); err != nil {
		return c, err
	}
	now, before := event.Post.Current, event.Post.Previous
	if now.Status == "published" {
		c.Paths = []string{"/blog/" + url.PathEscape(now.Slug)}
	} else if now.Slug != "" {
		c.PurgePaths = []string{"/blog/" + url.PathEscape(now.Slug)}
	}
	if before.Slug != "" && before.Slug != now.Slug { // deleted, or under another name
		c.PurgePaths = append(c.PurgePaths, "/blog/"+url.PathEscape(before.Slug))
	}
	c.Tags = []string{"posts"}
	return c, nil
}

func fromPrismic(_ http.Header, body []byte) (webhook.Change, error) {
	var event struct {
		Type      string
		Documents []string // ids
	}
	if err := json.Unmarshal(body, &event); err != nil || event.Type != "api-update" {
		return webhook.Change{}, err
	}
	return webhook.Change{Tags: event.Documents}, nil
}

func fromDatoCMS(_ http.Header, body []byte) (webhook.Change, error) {
	var event struct {
		Kind   string `json:"entity_type"`
		Event  string `json:"event_type"`
		Entity struct {
			ID            string
			Relationships struct {
				Model struct{ Data struct{ ID string } } `json:"item_type"`
			}
		}
	}
	if err := json.Unmarshal(body, &event); err != nil || event.Kind != "item" {
		return webhook.Change{}, err
	}
	record, model := "record-"+event.Entity.ID, "model-"+event.Entity.Relationships.Model.Data.ID
	if event.Event == "unpublish" || event.Event == "delete" {
		return webhook.Change{PurgeTags: []string{record}, Tags: []string{model}}, nil
	}
	return webhook.Change{Tags: []string{record, model}}, nil
}

func fromWordPress(_ http.Header, body []byte) (webhook.Change, error) {
	var event struct {
		Post struct {
			Name   string `json:"post_name"`
			Status string `json:"post_status"`
			Type   string `json:"post_type"`
		}
	}
	if err := json.Unmarshal(body, &event); err != nil || event.Post.Type != "post" {
		return webhook.Change{}, err
	}
	post := []string{"/blog/" + strings.TrimSuffix(event.Post.Name, "__trashed")}
	if event.Post.Status != "publish" {
		return webhook.Change{PurgePaths: post, Tags: []string{"posts"}}, nil
	}
	return webhook.Change{Paths: post, Tags: []string{"posts"}}, nil
}

func fromGitHub(header http.Header, body []byte) (c webhook.Change, err error) {
	var push struct {
		Ref     string
		Commits []struct{ Added, Modified, Removed []string }
	}
	if header.Get("X-GitHub-Event") != "push" { // such as the ping at the beginning
		return c, nil
	}
	if err := json.Unmarshal(body, &push); err != nil || push.Ref != "refs/heads/main" {
		return c, err
	}
	page := func(file string) string {
		return "/blog/" + url.PathEscape(strings.TrimSuffix(path.Base(file), ".md"))
	}
	for _, commit := range push.Commits {
		for _, file := range slices.Concat(commit.Added, commit.Modified) {
			c.Paths = append(c.Paths, page(file))
		}
		for _, file := range commit.Removed {
			c.PurgePaths = append(c.PurgePaths, page(file))
		}
	}
	c.Tags = []string{"posts"}
	return c, nil
}
