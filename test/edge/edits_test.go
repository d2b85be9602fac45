package edge_test

import (
	"context"
	"time"
)

// An edit is one way in which a page becomes another, and what the site is told of it.
type edit struct {
	name   string
	folder string // of its pages; "" is that of those without TTL
	before func(s *site, path string)
	make   func(ctx context.Context, s *site, path string) error // from its end on, what is older is old
	slack  time.Duration                                         // that isr itself may take, beside what is in front
	once   bool                                                  // by contract the first who asks may still get the old page,
	again  time.Duration                                         // and others for that long; zero: 1 second
}

func raise(s *site, path string) { s.edit(path, func(e *entry) { e.revision++ }) }

var edits = []edit{
	{
		name: "Revalidate",
		make: func(ctx context.Context, s *site, path string) error {
			raise(s, path)
			return s.Revalidate(ctx, path)
		},
	},
	{
		name: "Purge",
		make: func(ctx context.Context, s *site, path string) error {
			raise(s, path)
			return s.Purge(ctx, path)
		},
	},
	{
		name: "RevalidateTag",
		make: func(ctx context.Context, s *site, path string) error {
			raise(s, path)
			return s.RevalidateTag(ctx, tagOf(path))
		},
		once: true,
	},
	{
		name:   "publishing a 404",
		before: func(s *site, path string) { s.edit(path, func(e *entry) { e.missing = true }) },
		make: func(ctx context.Context, s *site, path string) error {
			s.edit(path, func(e *entry) { e.missing = false; e.revision++ })
			return s.Revalidate(ctx, path)
		},
	},
	{
		name: "deleting a page",
		make: func(ctx context.Context, s *site, path string) error {
			s.edit(path, func(e *entry) { e.missing = true; e.revision++ })
			return s.Revalidate(ctx, path)
		},
	},
	{
		// The edit fails, and is repeated by the webhook when the outage is over.
		name: "an outage that ended, with Revalidate",
		make: func(ctx context.Context, s *site, path string) error {
			s.edit(path, func(e *entry) { e.failing = true; e.revision++ })
			if err := s.Revalidate(ctx, path); err == nil {
				return errNotFailed
			}
			time.Sleep(outage)
			s.edit(path, func(e *entry) { e.failing = false })
			return s.Revalidate(ctx, path)
		},
	},
	{
		// Nobody says anything: the page is older than its TTL when the outage ends.
		name:   "an outage that ended, by itself",
		folder: "/short",
		make: func(ctx context.Context, s *site, path string) error {
			s.edit(path, func(e *entry) { e.failing = true; e.revision++ })
			time.Sleep(outage)
			s.edit(path, func(e *entry) { e.failing = false })
			return nil
		},
		slack: 2 * time.Second, // between attempts, after four failures
		once:  true,
		again: sharedMaxAge + bar, // nginx ignores Age, and keeps what is stale for another s-maxage
	},
	{
		// There was no page when the outage began, so readers see the error.
		name:   "an outage that ended, without a page",
		before: func(s *site, path string) { s.edit(path, func(e *entry) { e.failing = true }) },
		make: func(ctx context.Context, s *site, path string) error {
			s.edit(path, func(e *entry) { e.failing = false })
			return nil
		},
		slack: time.Second,
	},
}

// outage is how long one lasts.
const outage = 2 * time.Second
