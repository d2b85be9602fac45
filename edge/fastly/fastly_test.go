package fastly_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isr-go/isr/edge"
	"github.com/isr-go/isr/edge/edgetest"
	"github.com/isr-go/isr/edge/fastly"
	"github.com/isr-go/isr/edge/internal/fakecdn"
	"github.com/isr-go/isr/store"
)

const (
	service = "SU1Z0isxPaozGVKXdv0eY"
	token   = "t0ken-that-nobody-may-see"
)

// An api is Fastly's, as its documents describe it: see the package comment.
type api struct {
	cdn     fakecdn.CDN
	bucket  fakecdn.Bucket
	latency time.Duration
	reset   bool // 429 says when with Fastly-RateLimit-Reset instead of Retry-After

	requests, told atomic.Int32 // and keys
	fail           func(w http.ResponseWriter) bool
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.requests.Add(1)
	time.Sleep(a.latency)
	answer := func(status int, body any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(body)
	}
	type problem struct {
		Msg    string `json:"msg"`
		Detail string `json:"detail,omitempty"`
	}
	if a.fail != nil && a.fail(w) {
		return
	}
	if r.Header.Get("Fastly-Key") != token {
		answer(http.StatusUnauthorized, problem{Msg: "Provided credentials are missing or invalid"})
		return
	}
	if r.Method != http.MethodPost || r.URL.Path != "/service/"+service+"/purge" {
		answer(http.StatusNotFound, problem{"Record not found", "Cannot load service"})
		return
	}
	var body struct {
		Keys []string `json:"surrogate_keys"`
	}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil || len(body.Keys) == 0 || len(body.Keys) > 256 {
		answer(http.StatusBadRequest, problem{"Bad request", fmt.Sprintf("%d surrogate keys", len(body.Keys))})
		return
	}
	ids := make(map[string]string)
	for i, key := range body.Keys {
		if key == "" || len(key) > 1024 || strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
			answer(http.StatusBadRequest, problem{"Bad request", "surrogate key"})
			return
		}
		ids[key] = fmt.Sprintf("108-%d", i)
	}
	if a.bucket.Size > 0 {
		if wait := a.bucket.Take(); wait > 0 {
			if a.reset {
				w.Header().Set("Fastly-RateLimit-Remaining", "0")
				w.Header().Set("Fastly-RateLimit-Reset", strconv.FormatInt(time.Now().Add(wait+time.Second).Unix(), 10))
			} else {
				w.Header().Set("Retry-After", strconv.Itoa(int((wait+time.Second-1)/time.Second)))
			}
			answer(http.StatusTooManyRequests, problem{Msg: "You have exceeded your hourly rate limit"})
			return
		}
	}
	a.told.Add(int32(len(body.Keys)))
	a.cdn.Purge(r.Header.Get("Fastly-Soft-Purge") == "1", body.Keys)
	answer(http.StatusOK, ids)
}

// The contract, with purges that take a moment.
func TestFastly(t *testing.T) {
	t.Parallel()
	edgetest.Run(t, func(t *testing.T, origin http.Handler) edgetest.Config {
		a := &api{cdn: fakecdn.CDN{
			Origin: origin, Tags: "Surrogate-Key", Control: "Surrogate-Control", Separators: " ", MaxTags: 16 << 10, Delay: 5 * time.Millisecond,
		}}
		front, at := httptest.NewServer(&a.cdn), httptest.NewServer(a)
		t.Cleanup(front.Close)
		t.Cleanup(at.Close)
		o := fastly.Options{Service: service, Token: token, API: at.URL}
		refused := o
		refused.Token = "another"
		return edgetest.Config{
			Edge: fastly.New(o), URL: front.URL, Settle: 25 * time.Millisecond,
			Refused: fastly.New(refused), Secret: refused.Token, Names: "fastly: service " + service + ": POST",
		}
	})
}

// bubble runs a test with the API, and no network.
func bubble(t *testing.T, f func(t *testing.T, a *api)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, &api{latency: 100 * time.Millisecond}) })
}

func newEdge(a *api, o fastly.Options) edge.Edge {
	o.Client = &http.Client{Transport: fakecdn.Transport{Handler: a}}
	if o.Service == "" {
		o.Service = service
	}
	if o.Token == "" {
		o.Token = token
	}
	o.API = "http://api.invalid"
	return fastly.New(o)
}

// Many tags are few requests.
func TestManyTags(t *testing.T) {
	bubble(t, func(t *testing.T, a *api) {
		tags := make([]string, 1000)
		for i := range tags {
			tags[i] = fmt.Sprint(i)
		}
		if err := newEdge(a, fastly.Options{}).Tell(t.Context(), store.Gone, tags); err != nil {
			t.Fatal(err)
		}
		if a.requests.Load() != 4 || a.told.Load() != 1000 {
			t.Errorf("%d tags in %d requests", a.told.Load(), a.requests.Load())
		}
	})
}

// A limit is waited for, if there is time.
func TestLimit(t *testing.T) {
	for _, reset := range []bool{false, true} {
		bubble(t, func(t *testing.T, a *api) {
			a.bucket, a.reset = fakecdn.Bucket{Size: 1, Every: 30 * time.Second}, reset
			e := newEdge(a, fastly.Options{})
			for range 2 {
				if err := e.Tell(t.Context(), store.Gone, []string{"a"}); err != nil {
					t.Fatal(err)
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			err := e.Tell(ctx, store.Gone, []string{"b"})
			var untold *edge.UntoldError
			if !errors.As(err, &untold) || untold.After < 20*time.Second || !strings.Contains(err.Error(), "429 Too Many Requests: You have exceeded") {
				t.Errorf("%v", err)
			}
			if a.told.Load() != 2 || a.requests.Load() != 4 {
				t.Errorf("%d told in %d requests", a.told.Load(), a.requests.Load())
			}
		})
	}
}

// What is wrong is said, with Fastly's words, and without the token.
func TestErrors(t *testing.T) {
	for _, c := range []struct {
		name string
		o    fastly.Options
		fail func(w http.ResponseWriter) bool
		want string
	}{
		{"wrong token", fastly.Options{Token: "wr0ng"}, nil, "service " + service + ": POST http://api.invalid/service/" + service + "/purge: 401 Unauthorized: Provided credentials are missing or invalid"},
		{"wrong service", fastly.Options{Service: "no/thing"}, nil, "service no/thing: POST http://api.invalid/service/no%2Fthing/purge: 404 Not Found: Record not found: Cannot load service"},
		{"an outage", fastly.Options{}, func(w http.ResponseWriter) bool {
			http.Error(w, "<html>", http.StatusServiceUnavailable)
			return true
		}, "/purge: 503 Service Unavailable"},
		{"no JSON", fastly.Options{}, func(w http.ResponseWriter) bool {
			fmt.Fprint(w, "OK")
			return true
		}, "no JSON of Fastly's"},
		{"not all keys", fastly.Options{}, func(w http.ResponseWriter) bool {
			fmt.Fprint(w, `{"a":"108-1"}`)
			return true
		}, `without an ID for "b"`},
		{"an echo", fastly.Options{}, func(w http.ResponseWriter) bool {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprintf(w, `{"msg":"bad token %s"}`, token)
			return true
		}, "400 Bad Request: bad token [secret]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, a *api) {
				a.fail = c.fail
				e := newEdge(a, c.o)
				err := e.Tell(t.Context(), store.Stale, []string{"a", "b"})
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("got %v, want %q", err, c.want)
				}
				var untold *edge.UntoldError
				if !errors.As(err, &untold) || len(untold.Tags) != 2 {
					t.Errorf("untold: %+v", untold)
				}
				for _, s := range []string{err.Error(), fmt.Sprintf("%v %+v", e, e)} {
					if strings.Contains(s, token) || c.o.Token != "" && strings.Contains(s, c.o.Token) {
						t.Errorf("%q has the token", s)
					}
				}
			})
		})
	}
}

func TestNewPanics(t *testing.T) {
	for want, o := range map[string]fastly.Options{
		"no Service": {Token: token},
		"no Token":   {Service: service},
		"space":      {Service: service, Token: token + "\n"},
	} {
		func() {
			defer func() {
				if msg, _ := recover().(string); !strings.Contains(msg, want) || strings.Contains(msg, token) {
					t.Errorf("New panics with %q, want %q", msg, want)
				}
			}()
			fastly.New(o)
		}()
	}
}
