package header

import (
	"slices"
	"strings"
)

// crawlers are parts of the User-Agents of well-known crawlers, in lower case.
// They ask for a page once, and would index a placeholder.
var crawlers = []string{
	"googlebot", "google-inspectiontool", "storebot-google", "mediapartners-google", "adsbot-google",
	"bingbot", "bingpreview", "slurp", "duckduckbot", "baiduspider", "yandex", "sogou", "yeti", "seznambot",
	"applebot", "petalbot", "qwantify", "ia_archiver", "archive.org_bot", "ccbot", "gptbot", "oai-searchbot",
	"claudebot", "perplexitybot", "amazonbot", "facebookexternalhit", "facebookcatalog", "meta-externalagent",
	"twitterbot", "linkedinbot", "slackbot", "discordbot", "telegrambot", "whatsapp", "skypeuripreview",
	"pinterestbot", "redditbot", "embedly", "ahrefsbot", "semrushbot", "mj12bot",
}

// IsCrawler reports whether a User-Agent is that of a well-known crawler.
func IsCrawler(userAgent string) bool {
	userAgent = strings.ToLower(userAgent)
	return slices.ContainsFunc(crawlers, func(name string) bool { return strings.Contains(userAgent, name) })
}
