package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/isr-go/isr"
)

// drafts is the key of the cookie by which editors are known.
type drafts []byte

func (d drafts) sign(until string) string {
	h := hmac.New(sha256.New, d)
	h.Write([]byte("draft until " + until))
	return hex.EncodeToString(h.Sum(nil))
}

// seenBy reports whether a request is an editor's, within the hour.
func (d drafts) seenBy(r *http.Request) bool {
	c, err := r.Cookie("draft")
	if err != nil {
		return false
	}
	until, signature, _ := strings.Cut(c.Value, ".")
	seconds, err := strconv.ParseInt(until, 10, 64)
	return err == nil && hmac.Equal([]byte(signature), []byte(d.sign(until))) && time.Now().Unix() < seconds
}

// begin makes an editor of every visitor who reaches it: put it behind your login.
func (d drafts) begin(w http.ResponseWriter, r *http.Request) {
	until := strconv.FormatInt(time.Now().Add(time.Hour).Unix(), 10)
	http.SetCookie(w, &http.Cookie{
		Name: "draft", Value: until + "." + d.sign(until), Path: "/", MaxAge: 3600,
		HttpOnly: true, Secure: true, SameSite: http.SameSiteLaxMode,
	})
	http.Redirect(w, r, "/blog/1", http.StatusSeeOther)
}

// end makes a visitor of an editor.
func (d drafts) end(w http.ResponseWriter, r *http.Request) {
	http.SetCookie(w, &http.Cookie{Name: "draft", Path: "/", MaxAge: -1, HttpOnly: true, Secure: true})
	http.Redirect(w, r, "/blog/1", http.StatusSeeOther)
}

func newSite(d drafts) *isr.Site {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /blog/{id}", func(w http.ResponseWriter, r *http.Request) {
		text := "as it is published"
		if d.seenBy(r) { // never, when it is a page that is made: it has no cookie
			w.Header().Set("Cache-Control", "private, no-store")
			text = "as it will be"
		}
		fmt.Fprintf(w, "Post %s, %s", r.PathValue("id"), text)
	})
	return isr.Wrap(mux, isr.Options{Default: isr.Route{TTL: time.Minute, Bypass: d.seenBy}})
}

func main() {
	key := drafts(os.Getenv("DRAFT_SECRET"))
	if len(key) == 0 {
		log.Fatal("DRAFT_SECRET is empty: everybody could sign the cookie")
	}
	http.Handle("/", newSite(key))
	http.HandleFunc("POST /admin/draft", key.begin) // behind your login
	http.HandleFunc("DELETE /admin/draft", key.end)
	log.Fatal(http.ListenAndServe("localhost:8080", nil))
}
