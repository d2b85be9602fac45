package webhook

import (
	"context"
	"crypto/sha256"
	"net/http"
)

// An Order is what a request asks for.
type Order struct {
	Purge       bool // what is named, instead of revalidating it
	Expire      bool // the tags, instead of turning their pages stale
	Paths, Tags []string
}

// Handler returns the handler of isr.RevalidateHandler, which says what it answers. check
// says whether paths and tags are valid; the message of its error is sent to the caller. do
// is called with each Order, and returns how many pages were stored under each path; the
// message of its error is not sent.
func Handler(secret string, check func(Order) error, do func(context.Context, Order) (pages map[string]int, err error)) http.Handler {
	return &handler{sha256.Sum256([]byte(secret)), check, do}
}

type handler struct {
	secret [sha256.Size]byte // its hash
	check  func(Order) error
	do     func(context.Context, Order) (map[string]int, error)
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodGet, http.MethodPost, http.MethodDelete:
	default:
		w.Header().Set("Allow", "DELETE, GET, POST")
		Refuse(w, http.StatusMethodNotAllowed, "Method not allowed")
		return
	}
	if !Authorized(r, h.secret) {
		RefuseUnauthorized(w, "Invalid token")
		return
	}
	order, err := Names(w, r, h.check)
	order.Purge = r.Method == http.MethodDelete
	if err != nil {
		RefuseBody(w, err)
		return
	}
	pages, err := h.do(r.Context(), order)
	switch {
	case err != nil:
		Refuse(w, http.StatusInternalServerError, "Error revalidating")
	default:
		Answer(w, http.StatusOK, struct {
			Revalidated bool           `json:"revalidated"`
			Pages       map[string]int `json:"pages,omitempty"`
		}{true, pages})
	}
}
