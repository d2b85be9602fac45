<?php
/**
 * Plugin Name: isr purge
 * Description: Tells isrproxy what an edit or a comment has changed. Put it into wp-content/mu-plugins.
 *
 * define('ISR_PURGE', 'http://127.0.0.1:8080'); in wp-config.php says where isrproxy is. Where that is
 * another machine: define('ISR_PURGE_SECRET', …), which is its -secret.
 */
if (!defined('ABSPATH') || !defined('ISR_PURGE')) return;

/** Says that the pages at some URLs have changed, once a request and after its answer. */
function isr_purge($urls) {
	static $all = null;
	if ($all === null) {
		$all = [];
		add_action('shutdown', function () use (&$all) {
			$headers = ['Host' => parse_url(home_url(), PHP_URL_HOST)];
			if (defined('ISR_PURGE_SECRET')) $headers['Authorization'] = 'Bearer ' . ISR_PURGE_SECRET;
			foreach (array_keys($all) as $path) {
				$res = wp_remote_request(ISR_PURGE . $path, ['method' => 'PURGE', 'timeout' => 3, 'headers' => $headers]);
				if (is_wp_error($res)) {
					error_log('isr purge: ' . $path . ': ' . $res->get_error_message());
					break; // it does not answer: who has saved need not wait for more of the same
				}
				if (wp_remote_retrieve_response_code($res) !== 200) error_log('isr purge: ' . $path . ': ' . wp_remote_retrieve_body($res));
			}
		});
	}
	foreach ($urls as $url) {
		if (!is_string($url)) continue;
		$path = parse_url($url, PHP_URL_PATH) ?: '/';
		$query = parse_url($url, PHP_URL_QUERY);
		$all[$path . ($query ? '?' . $query : '')] = true;
	}
}

/** The pages on which a post is seen: its own, the lists, the feeds. */
function isr_purge_post($post) {
	$post = get_post($post);
	if (!$post || wp_is_post_revision($post) || !is_post_type_viewable($post->post_type)) return;
	// Of one that was moved to the trash or is a draft again, the address is another.
	$public = clone $post;
	$public->post_status = 'publish';
	$public->post_name = preg_replace('/__trashed$/', '', $post->post_name);
	$urls = [get_permalink($public), home_url('/'), home_url('/page/*'), get_bloginfo('rss2_url'), get_post_comments_feed_link($post->ID),
		get_author_posts_url($post->post_author), get_post_type_archive_link($post->post_type), get_year_link(get_the_date('Y', $post)),
		get_month_link(get_the_date('Y', $post), get_the_date('m', $post)), home_url('/wp-sitemap.xml')];
	foreach (get_object_taxonomies($post->post_type) as $taxonomy) {
		foreach (get_the_terms($post, $taxonomy) ?: [] as $term) {
			if (is_object($term)) $urls[] = get_term_link($term);
		}
	}
	isr_purge($urls);
}

add_action('transition_post_status', function ($new, $old, $post) {
	if ($new === 'publish' || $old === 'publish') isr_purge_post($post);
}, 10, 3);
add_action('before_delete_post', 'isr_purge_post');
add_action('wp_insert_comment', function ($id, $comment) { isr_purge_post($comment->comment_post_ID); }, 10, 2);
add_action('transition_comment_status', function ($new, $old, $comment) { isr_purge_post($comment->comment_post_ID); }, 10, 3);
// What is on every page.
foreach (['switch_theme', 'customize_save_after', 'wp_update_nav_menu', 'update_option_sidebars_widgets', 'update_option_blogname', 'update_option_blogdescription'] as $hook) {
	add_action($hook, function () { isr_purge([home_url('/*')]); });
}
