package main

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"

	"github.com/isr-go/isr"
)

// A purger answers PURGE, with which plugins of WordPress and MediaWiki itself say that a
// page has changed. The page is expired: nobody gets the old one any more, unless the
// origin fails. "/blog/*" is all below a path; so is "/blog/.*" with X-Purge-Method: regex.
type purger struct {
	next      http.Handler
	site      *isr.Site
	secret    [sha256.Size]byte
	hasSecret bool
	loopback  bool // whether this machine may do without the secret
	log       *slog.Logger
}

func newPurger(c *config, site *isr.Site, next http.Handler) *purger {
	return &purger{
		next: next, site: site, log: c.logger,
		secret: sha256.Sum256([]byte(c.secret)), hasSecret: c.secret != "", loopback: c.purge == "loopback",
	}
}

func (p *purger) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != "PURGE" {
		p.next.ServeHTTP(w, r)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	if !p.mayPurge(r) {
		if p.hasSecret {
			w.Header().Set("WWW-Authenticate", `Bearer realm="PURGE"`)
		}
		reply(w, http.StatusForbidden, map[string]any{"message": "PURGE needs the secret (Authorization: Bearer …), or to come from this machine without a proxy"})
		return
	}
	paths := purgedPaths(r)
	if err := p.site.Expire(r.Context(), paths...); err != nil {
		p.log.Error("PURGE failed", "paths", paths, "error", err)
		reply(w, http.StatusInternalServerError, map[string]any{"message": "Error purging"})
		return
	}
	reply(w, http.StatusOK, map[string]any{"purged": paths})
}

// purgedPaths returns what a PURGE is about, as isr names it.
func purgedPaths(r *http.Request) []string {
	path := r.URL.EscapedPath()
	if path == "" {
		path = "/"
	}
	if below, ok := strings.CutSuffix(path, ".*"); ok && r.Header.Get("X-Purge-Method") == "regex" {
		if strings.HasSuffix(below, "/") {
			return []string{below + "*"}
		}
		return []string{below, below + "/*"}
	}
	if r.URL.RawQuery != "" {
		path += "?" + r.URL.RawQuery
	}
	return []string{path}
}

// mayPurge reports whether a request has the secret, or comes from this machine. What a
// proxy has forwarded, or a browser sends for a page, comes from elsewhere.
func (p *purger) mayPurge(r *http.Request) bool {
	if p.hasSecret {
		given, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if !ok {
			_, given, ok = r.BasicAuth() // http://any:secret@host/, where a plugin can do no other
		}
		if ok && isSecret(p.secret, given) {
			return true
		}
	}
	if !p.loopback {
		return false
	}
	for _, name := range append([]string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "Via", "Origin", "Sec-Fetch-Site"}, addressFields...) {
		if r.Header[name] != nil {
			return false
		}
	}
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	return err == nil && peer.Addr().Unmap().IsLoopback()
}

// isSecret compares in constant time.
func isSecret(sum [sha256.Size]byte, given string) bool {
	other := sha256.Sum256([]byte(given))
	return subtle.ConstantTimeCompare(sum[:], other[:]) == 1
}

// requirePassword asks for the secret as the password, of any user.
func requirePassword(secret string, h http.Handler) http.Handler {
	sum := sha256.Sum256([]byte(secret))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, given, ok := r.BasicAuth(); !ok || !isSecret(sum, given) {
			w.Header().Set("WWW-Authenticate", `Basic realm="isrproxy", charset="UTF-8"`)
			http.Error(w, "want the -secret as the password, and any name", http.StatusUnauthorized)
			return
		}
		h.ServeHTTP(w, r)
	})
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(body)
}
