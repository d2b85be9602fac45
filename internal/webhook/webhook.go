// Package webhook reads what a revalidation request names, and answers it: paths and tags
// in the query, in a form or as JSON, and the secret in one place. It holds no more than
// MaxBytes of a body, and compares secrets in constant time.
package webhook

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// MaxBytes is the size of the largest body that Names reads.
const MaxBytes = 1 << 20

// Read returns the body of a request. Its error is an *http.MaxBytesError where the
// body is larger than MaxBytes.
func Read(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	return io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBytes))
}

// Authorized reports whether the request has one secret, and that of this hash: several
// in one request would make guessing faster. Hashes have one length, so that the
// comparison takes the same time for every guess.
func Authorized(r *http.Request, secret [sha256.Size]byte) bool {
	given := r.URL.Query()["secret"]
	for _, line := range r.Header["Authorization"] {
		if scheme, token, ok := strings.Cut(line, " "); ok && strings.EqualFold(scheme, "Bearer") {
			given = append(given, strings.TrimSpace(token))
		}
	}
	if len(given) != 1 {
		return false
	}
	hash := sha256.Sum256([]byte(given[0]))
	return subtle.ConstantTimeCompare(hash[:], secret[:]) == 1
}

// Names returns the paths and tags that a request names in its query and, unless it
// is a GET, in its body, and whether the query or a form says expire=1. Where the query
// names something, the body may be one of the sender's own: it counts only if it is whole,
// and has paths and tags alone that check allows. No more than MaxBytes of it are read.
//
// The error is an *http.MaxBytesError where a body is needed that is larger than MaxBytes;
// any other has a message for the sender, whose request is wrong: check's, or another.
func Names(w http.ResponseWriter, r *http.Request, check func(Order) error) (o Order, err error) {
	o, err = namesInForm(r.URL.Query())
	if err != nil {
		return o, err
	}
	named := len(o.Paths)+len(o.Tags) > 0
	if named {
		if err := check(o); err != nil {
			return Order{}, err
		}
	}
	if r.Method != http.MethodGet {
		body, err := Read(w, r)
		switch tooLarge := (*http.MaxBytesError)(nil); {
		case named && errors.As(err, &tooLarge):
			return o, nil
		case err != nil:
			return Order{}, err
		}
		more, err := namesInBody(r.Header.Get("Content-Type"), body, named)
		if err == nil {
			err = check(more)
		}
		switch {
		case err == nil:
			o.Paths, o.Tags, o.Expire = append(o.Paths, more.Paths...), append(o.Tags, more.Tags...), o.Expire || more.Expire
		case !named:
			return Order{}, err
		}
	}
	if len(o.Paths)+len(o.Tags) == 0 {
		return o, errNothing
	}
	return o, nil
}

// namesInForm returns what a query or form asks for.
func namesInForm(form url.Values) (o Order, err error) {
	o.Paths, o.Tags = form["path"], form["tag"]
	if s := form.Get("expire"); s != "" {
		if o.Expire, err = strconv.ParseBool(s); err != nil {
			return Order{}, fmt.Errorf("want expire=1, not %q", s)
		}
	}
	return o, err
}

// namesInBody returns the paths and tags in a body. It may hold more than them, unless
// strictly is set: then it may not.
func namesInBody(contentType string, body []byte, strictly bool) (o Order, err error) {
	kind, params, _ := mime.ParseMediaType(contentType)
	var form url.Values
	switch text := bytes.TrimSpace(body); {
	case len(text) == 0:
	case kind == "application/json", text[0] == '{', text[0] == '[': // also where curl -d calls it a form
		o.Paths, o.Tags, err = namesInJSON(text, strictly)
		return o, err
	case kind == "application/x-www-form-urlencoded":
		if form, err = url.ParseQuery(string(text)); err != nil {
			return o, fmt.Errorf("want a form: %w", err)
		}
	case kind == "multipart/form-data":
		parts, err := multipart.NewReader(bytes.NewReader(body), params["boundary"]).ReadForm(MaxBytes)
		if err != nil {
			return o, fmt.Errorf("want a form: %w", err)
		}
		form = parts.Value
	}
	if strictly {
		for name := range form {
			if name != "path" && name != "tag" && name != "expire" {
				return o, fmt.Errorf("want path, tag and expire alone, not %q", name)
			}
		}
	}
	return namesInForm(form)
}

// NamesInJSON returns the paths and tags in a body that is JSON, and may hold more
// than them. Its error has a message for the sender.
func NamesInJSON(body []byte) (paths, tags []string, err error) {
	paths, tags, err = namesInJSON(body, false)
	if err == nil && len(paths)+len(tags) == 0 {
		err = errNothing
	}
	return paths, tags, err
}

func namesInJSON(text []byte, strictly bool) (paths, tags []string, err error) {
	var named struct{ Paths, Tags []string }
	err = json.Unmarshal(text, &named)
	if err == nil && strictly {
		d := json.NewDecoder(bytes.NewReader(text))
		d.DisallowUnknownFields()
		err = d.Decode(&named)
	}
	if wrong := (*json.UnmarshalTypeError)(nil); errors.As(err, &wrong) {
		err = fmt.Errorf("got %s", wrong.Value) // without the names of Go's types
	}
	if err != nil {
		return nil, nil, fmt.Errorf(`want JSON such as {"paths": ["/blog/1"], "tags": ["blog"]}: %w`, err)
	}
	return named.Paths, named.Tags, nil
}

var errNothing = errors.New("name a path or a tag")

// Answer answers in JSON, with no-store.
func Answer(w http.ResponseWriter, status int, answer any) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(answer)
}

// Refuse answers with a message that says why nothing changes.
func Refuse(w http.ResponseWriter, status int, message string) {
	Answer(w, status, struct {
		Message string `json:"message"`
	}{message})
}

// RefuseUnauthorized answers a request without the secret, or without a valid signature.
func RefuseUnauthorized(w http.ResponseWriter, message string) {
	w.Header().Set("WWW-Authenticate", "Bearer")
	Refuse(w, http.StatusUnauthorized, message)
}

// RefuseBody answers a request whose body cannot be read, is too large, or names nothing.
func RefuseBody(w http.ResponseWriter, err error) {
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		Refuse(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("Body is larger than %d bytes", MaxBytes))
		return
	}
	Refuse(w, http.StatusBadRequest, err.Error())
}
