//go:build unix

package main

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

var wordpress = &site{
	name: "WordPress", preset: "wordpress", first: "/",
	packages: []string{"nginx", "php-fpm", "php-mysql", "php-xml", "php-mbstring", "php-gd", "php-cli", "mariadb-server", "mariadb-client", "wordpress", "wordpress-theme-twentytwentythree"},
	skip:     regexp.MustCompile(`wp-login|wp-admin|wp-json|replytocom|logout|/feed/|xmlrpc|/comments/`),
	volatile: regexp.MustCompile(`wp-container-\d+|wp-elements-[0-9a-f]+|_wpnonce=[0-9a-f]+`),
	inside:   "wp-admin-bar-my-account",

	setUp: func(ctx context.Context, s *stack) (version string, servers []*process, err error) {
		if _, err = s.command(ctx, s.dir, "cp", "-rL", "/usr/share/wordpress", filepath.Join(s.dir, "www")); err != nil {
			return "", nil, err
		}
		db, addr, err := s.runMariaDB(ctx, "wordpress")
		if err != nil {
			return "", nil, err
		}
		plugin, err := os.ReadFile(filepath.Join(sources(), "isr-purge.php"))
		if err != nil {
			return "", nil, err
		}
		for name, text := range map[string]string{
			"www/wp-config.php": strings.ReplaceAll(wordpressConfig, "{database}", addr),
			"install.php":       wordpressInstall,
		} {
			if _, err = s.write(name, text); err != nil {
				return "", nil, err
			}
		}
		out, err := s.command(ctx, s.dir, "php", "install.php")
		if err != nil {
			return "", nil, err
		}
		version = regexp.MustCompile(`version (\S+)$`).FindString(strings.TrimSpace(out))
		if _, err = s.write("www/wp-content/mu-plugins/isr-purge.php", string(plugin)); err != nil {
			return "", nil, err
		}
		php, err := s.runPHP(ctx)
		if err != nil {
			return "", nil, err
		}
		_, err = s.runNginx(ctx, `
root {dir}/www;
index index.php;
location / { try_files $uri $uri/ /index.php?$args; }
location ~ \.php$ { try_files $uri =404; `+fastCGI+` }
`)
		return strings.TrimPrefix(version, "version "), []*process{php, db}, err
	},

	login: func(b *browser) error {
		if err := b.open("/wp-login.php"); err != nil {
			return err
		}
		if err := first(b.fill("#user_login", userName), b.fill("#user_pass", password), b.click("#wp-submit")); err != nil {
			return err
		}
		return b.open("/post-7/")
	},
	comment: func(b *browser, text string) (string, error) {
		return "/post-7/", first(b.open("/post-7/"), b.fill("#comment", text), b.fill("#author", "A Reader"), b.fill("#email", "reader@example.com"), b.click("#submit"))
	},
	// The block editor saves by this call, from a page that the browser has loaded.
	edit: func(b *browser, text string) (string, error) {
		err := first(b.open("/wp-admin/post-new.php"), b.until(`window.wp && wp.apiFetch`))
		if err != nil {
			return "", err
		}
		_, err = b.eval(`(wp.apiFetch({path: "/wp/v2/posts?slug=post-7&context=edit"}).then(posts =>
			wp.apiFetch({path: "/wp/v2/posts/" + posts[0].id, method: "POST", data: {content: posts[0].content.raw + "<p>" + %s + "</p>"}})).then(() => window.saved = 1, e => window.saved = JSON.stringify(e)), 0)`, text)
		return "/post-7/", first(err, b.until(`window.saved === 1`))
	},
}

const wordpressConfig = `<?php
define('DB_NAME', 'wordpress'); define('DB_USER', 'site'); define('DB_PASSWORD', 'site'); define('DB_HOST', '{database}');
define('DB_CHARSET', 'utf8mb4'); define('DB_COLLATE', '');
foreach (['AUTH_KEY','SECURE_AUTH_KEY','LOGGED_IN_KEY','NONCE_KEY','AUTH_SALT','SECURE_AUTH_SALT','LOGGED_IN_SALT','NONCE_SALT'] as $k) define($k, $k . ' of a test');
define('WP_HOME', 'http://{public}'); define('WP_SITEURL', 'http://{public}');
define('ISR_PURGE', 'http://{public}');
define('DISABLE_WP_CRON', true); define('WP_HTTP_BLOCK_EXTERNAL', true); define('WP_ACCESSIBLE_HOSTS', '127.0.0.1'); define('AUTOMATIC_UPDATER_DISABLED', true);
$table_prefix = 'wp_';
if (!defined('ABSPATH')) define('ABSPATH', '{dir}/www/');
require_once ABSPATH . 'wp-settings.php';
`

const wordpressInstall = `<?php
define('WP_INSTALLING', true);
$_SERVER['HTTP_HOST'] = '{public}'; $_SERVER['REQUEST_URI'] = '/'; $_SERVER['SERVER_PROTOCOL'] = 'HTTP/1.1';
require '{dir}/www/wp-load.php';
require ABSPATH . 'wp-admin/includes/upgrade.php';
wp_install('A WordPress', 'Editor', 'editor@example.com', true, '', 'correct-horse-battery');
update_option('permalink_structure', '/%postname%/');
update_option('comment_moderation', 0); update_option('comment_previously_approved', 0); update_option('posts_per_page', 10);
switch_theme('twentytwentythree');
$cats = [];
foreach (['News', 'Notes', 'Recipes'] as $c) $cats[] = wp_create_category($c);
for ($i = 1; $i <= 60; $i++) {
	wp_insert_post(['post_title' => "Post $i", 'post_name' => "post-$i", 'post_status' => 'publish', 'post_author' => 1, 'post_category' => [$cats[$i % 3]],
		'post_content' => "<!-- wp:paragraph --><p>" . str_repeat("This is the text of post $i. ", 80) . "</p><!-- /wp:paragraph -->", 'post_date' => date('Y-m-d H:i:s', time() - 3600 * $i)]);
}
global $wp_rewrite; $wp_rewrite->init(); $wp_rewrite->flush_rules(false);
echo "\nversion " . $GLOBALS['wp_version'];
`
