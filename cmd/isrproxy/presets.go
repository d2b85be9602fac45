package main

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/isr-go/isr"
)

// presets set flags for what a site is made with.
var presets = map[string]func(*config){
	"wordpress": func(c *config) {
		c.ttl = lifetime{ttl: time.Minute}
		// A page has nonces, which are good for 12 hours at least.
		c.stale = 10 * time.Hour
		c.session = globs{"wordpress_*", "wp-postpass_*", "comment_author_*",
			"woocommerce_items_in_cart", "woocommerce_cart_hash", "wp_woocommerce_session_*", "edd_items_in_cart"}
		c.bypassQuery = list{"preview", "customize_changeset_uuid", "add-to-cart", "wc-ajax", "unapproved", "moderation-hash", "doing_wp_cron"}
		c.bypass("/wp-admin/", "/wp-login.php", "/wp-cron.php", "/wp-json/", "/xmlrpc.php", "/wp-signup.php", "/wp-activate.php")
	},
	"mediawiki": func(c *config) {
		// MediaWiki says for how long, and sends PURGE, where $wgUseCdn is true.
		c.ttl = lifetime{ttl: time.Minute}
		c.session = globs{"*_session", "*UserID", "*Token"}
		c.ignoreVary = list{"Cookie"}
		c.mustRevalidate = false
	},
	"nextjs": func(c *config) {
		c.ttl = lifetime{ttl: isr.NoStore}
		c.session = globs{"__prerender_bypass", "__next_preview_data"}
		c.vary = list{"RSC", "Next-Router-State-Tree", "Next-Router-Prefetch", "Next-Router-Segment-Prefetch", "Next-Url"}
		c.images = "/_next/image"
	},
	"dokuwiki": func(c *config) {
		c.ttl = lifetime{ttl: time.Minute}
		c.session = globs{"DW*"}
		c.dropCookie = globs{"DokuWiki", "DW*"}
		c.ignoreVary = list{"Cookie"}
		c.phpSession = true
		c.bypassQuery = list{"do", "sectok", "DokuWiki"}
		c.bypass("/lib/exe/", "/install.php")
		for _, name := range []string{"css", "js", "fetch", "detail", "manifest", "opensearch"} {
			c.routes["/lib/exe/"+name+".php"] = c.ttl
		}
	},
}

func presetNames() string { return strings.Join(slices.Sorted(maps.Keys(presets)), ", ") }

func (c *config) bypass(patterns ...string) {
	for _, pattern := range patterns {
		c.routes[pattern] = lifetime{bypass: true}
	}
}
