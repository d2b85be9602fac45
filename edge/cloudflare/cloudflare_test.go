package cloudflare_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isr-go/isr/edge"
	"github.com/isr-go/isr/edge/cloudflare"
	"github.com/isr-go/isr/edge/edgetest"
	"github.com/isr-go/isr/edge/internal/fakecdn"
	"github.com/isr-go/isr/store"
)

const (
	zone  = "023e105f4ecef8ad9ca31a8372d0c353"
	token = "t0ken-that-nobody-may-see"
)

// An api is Cloudflare's, as its documents describe it: see the package comment.
type api struct {
	cdn     fakecdn.CDN
	bucket  fakecdn.Bucket
	latency time.Duration

	requests, refused atomic.Int32 // and how many of them for the limit
	fail              func(w http.ResponseWriter) bool

	mu   sync.Mutex
	told map[string]int // by tag; guarded by mu
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.requests.Add(1)
	time.Sleep(a.latency)
	answer := func(status, code int, message string) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		if status == http.StatusOK {
			fmt.Fprintf(w, `{"success":true,"errors":[],"messages":[],"result":{"id":%q}}`, zone)
			return
		}
		fmt.Fprintf(w, `{"success":false,"errors":[{"code":%d,"message":%q}],"messages":[],"result":null}`, code, message)
	}
	if a.fail != nil && a.fail(w) {
		return
	}
	if r.Header.Get("Authorization") != "Bearer "+token {
		answer(http.StatusForbidden, 10000, "Authentication error")
		return
	}
	rest, ok := strings.CutPrefix(r.URL.Path, "/zones/"+zone+"/")
	if !ok || r.Method != http.MethodPost || rest != "purge_cache" && rest != "invalidate_cache" {
		answer(http.StatusNotFound, 7003, "Could not route to "+r.URL.Path+", perhaps your object identifier is invalid?")
		return
	}
	var body struct{ Tags []string }
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil || r.Header.Get("Content-Type") != "application/json" || len(body.Tags) == 0 || len(body.Tags) > 100 {
		answer(http.StatusBadRequest, 1092, fmt.Sprintf("Request must contain one to 100 tags, not %d", len(body.Tags)))
		return
	}
	for _, tag := range body.Tags {
		if tag == "" || len(tag) > 1024 || strings.ContainsFunc(tag, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == ',' }) {
			answer(http.StatusBadRequest, 1093, "Invalid tag")
			return
		}
	}
	if wait := a.bucket.Take(); wait > 0 {
		a.refused.Add(1)
		w.Header().Set("Retry-After", strconv.Itoa(int((wait+time.Second-1)/time.Second)))
		answer(http.StatusTooManyRequests, 10429, "Unable to purge, rate limit exceeded")
		return
	}
	a.mu.Lock()
	for _, tag := range body.Tags {
		if a.told == nil {
			a.told = make(map[string]int)
		}
		a.told[tag]++
	}
	a.mu.Unlock()
	a.cdn.Purge(rest == "invalidate_cache", body.Tags)
	answer(http.StatusOK, 0, "")
}

// The contract, with purges that take a moment.
func TestCloudflare(t *testing.T) {
	t.Parallel()
	edgetest.Run(t, func(t *testing.T, origin http.Handler) edgetest.Config {
		a := &api{
			cdn: fakecdn.CDN{
				Origin: origin, Tags: "Cache-Tag", Control: "Cloudflare-Cdn-Cache-Control", Separators: ", ", MaxTags: 16 << 10, IgnoreCase: true, Delay: 5 * time.Millisecond,
			},
			bucket: fakecdn.Bucket{Size: 500, Every: time.Second / 50}, // Enterprise
		}
		front, at := httptest.NewServer(&a.cdn), httptest.NewServer(a)
		t.Cleanup(front.Close)
		t.Cleanup(at.Close)
		o := cloudflare.Options{Zone: zone, Token: token, PerMinute: 50 * 60, Burst: 500, API: at.URL}
		refused := o
		refused.Token = "another"
		return edgetest.Config{
			Edge: cloudflare.New(o), URL: front.URL, Settle: 25 * time.Millisecond,
			Refused: cloudflare.New(refused), Secret: refused.Token, Names: "cloudflare: zone " + zone + ": POST",
		}
	})
}

// bubble runs a test with the API of a Free plan, and no network.
func bubble(t *testing.T, f func(t *testing.T, a *api, e edge.Edge)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		a := &api{bucket: fakecdn.Bucket{Size: 25, Every: 12 * time.Second}, latency: 200 * time.Millisecond}
		f(t, a, newEdge(a, cloudflare.Options{}))
	})
}

func newEdge(a *api, o cloudflare.Options) edge.Edge {
	o.Client = &http.Client{Transport: fakecdn.Transport{Handler: a}}
	if o.Zone == "" {
		o.Zone = zone
	}
	if o.Token == "" {
		o.Token = token
	}
	o.API = "http://api.invalid/"
	return cloudflare.New(o)
}

// Editors who edit faster than the plan allows hear of it, never bring Cloudflare to
// refuse anything, and lose nothing: what is owed is told as soon as there is a token.
func TestFreePlan(t *testing.T) {
	bubble(t, func(t *testing.T, a *api, e edge.Edge) {
		const editors, edits = 4, 40
		var wg sync.WaitGroup
		var errs atomic.Int32
		for editor := range editors {
			wg.Go(func() {
				var owed []string
				for i := 0; i < edits || owed != nil; i++ {
					if i < edits {
						owed = append(owed, fmt.Sprintf("post:%d-%d", editor, i))
					}
					ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
					err := e.Tell(ctx, store.Gone, owed)
					cancel()
					var untold *edge.UntoldError
					switch {
					case err == nil:
						owed = nil
					case errors.As(err, &untold):
						errs.Add(1)
						owed = untold.Tags
						if untold.After > 12*time.Second {
							t.Errorf("after %v: %v", untold.After, err)
						}
						if i >= edits {
							time.Sleep(untold.After)
						}
					default:
						t.Fatal(err)
					}
					time.Sleep(time.Second)
				}
			})
		}
		wg.Wait()
		if a.refused.Load() != 0 {
			t.Errorf("%d of %d requests were refused", a.refused.Load(), a.requests.Load())
		}
		if len(a.told) != editors*edits {
			t.Errorf("%d of %d tags were told", len(a.told), editors*edits)
		}
		if errs.Load() == 0 {
			t.Error("nobody heard of the limit")
		}
	})
}

// Many tags are few requests.
func TestManyTags(t *testing.T) {
	bubble(t, func(t *testing.T, a *api, e edge.Edge) {
		tags := make([]string, 2500)
		for i := range tags {
			tags[i] = fmt.Sprint(i)
		}
		if err := e.Tell(t.Context(), store.Gone, tags); err != nil {
			t.Fatal(err)
		}
		if a.requests.Load() != 25 || len(a.told) != len(tags) {
			t.Errorf("%d tags in %d requests", len(a.told), a.requests.Load())
		}
	})
}

// Where another program has used up the account's limit, Tell waits as it is told to.
func TestSharedLimit(t *testing.T) {
	bubble(t, func(t *testing.T, a *api, e edge.Edge) {
		for a.bucket.Take() == 0 {
		}
		began := time.Now()
		if err := e.Tell(t.Context(), store.Gone, []string{"a"}); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < 11*time.Second || took > 13*time.Second || a.refused.Load() != 1 {
			t.Errorf("%v, with %d refusals", took, a.refused.Load())
		}
		for a.bucket.Take() == 0 {
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		began = time.Now()
		err := e.Tell(ctx, store.Gone, []string{"b"})
		var untold *edge.UntoldError
		if !errors.As(err, &untold) || untold.After < 10*time.Second || !strings.Contains(err.Error(), "429 Too Many Requests: 10429 Unable to purge") {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

// What is wrong is said, with Cloudflare's words, and without the token.
func TestErrors(t *testing.T) {
	for _, c := range []struct {
		name string
		o    cloudflare.Options
		fail func(w http.ResponseWriter) bool
		want string
	}{
		{"wrong token", cloudflare.Options{Token: "wr0ng"}, nil, "zone " + zone + ": POST http://api.invalid/zones/" + zone + "/purge_cache: 403 Forbidden: 10000 Authentication error"},
		{"wrong zone", cloudflare.Options{Zone: "another/zone"}, nil, "zone another/zone: POST http://api.invalid/zones/another%2Fzone/purge_cache: 404 Not Found: 7003 Could not route to"},
		{"an outage", cloudflare.Options{}, func(w http.ResponseWriter) bool {
			http.Error(w, "<html>bad gateway", http.StatusBadGateway)
			return true
		}, "/purge_cache: 502 Bad Gateway"},
		{"no success", cloudflare.Options{}, func(w http.ResponseWriter) bool {
			fmt.Fprint(w, `{"success":false,"errors":[{"code":1,"message":"the token `+token+`\r\nis odd"}]}`)
			return true
		}, "without success: 1 the token [secret]  is odd"},
		{"no JSON", cloudflare.Options{}, func(w http.ResponseWriter) bool {
			fmt.Fprint(w, "OK")
			return true
		}, "without success: no JSON of Cloudflare's"},
		{"a redirect", cloudflare.Options{}, func(w http.ResponseWriter) bool {
			w.Header().Set("Location", "http://elsewhere.invalid/")
			w.WriteHeader(http.StatusTemporaryRedirect)
			return true
		}, "307 Temporary Redirect"},
		{"it hangs", cloudflare.Options{}, func(w http.ResponseWriter) bool {
			time.Sleep(20 * time.Second)
			return true
		}, "no answer in time"},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, a *api, _ edge.Edge) {
				a.fail = c.fail
				e := newEdge(a, c.o)
				err := e.Tell(t.Context(), store.Gone, []string{"a", "b"})
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
				if a.requests.Load() != 1 {
					t.Errorf("%d requests", a.requests.Load())
				}
				time.Sleep(time.Minute) // for the one that hangs
			})
		})
	}
}

// Cloudflare does not tell variants apart.
func TestVary(t *testing.T) {
	e := newEdge(&api{}, cloudflare.Options{Vary: []string{"x-device"}})
	for vary, want := range map[string]bool{
		"": true, "Accept-Encoding": true, "accept-encoding, X-Device": true, "Accept-Language": false, "Accept-Encoding, Cookie": false, "*": false,
	} {
		h := http.Header{"Cache-Control": {"s-maxage=60"}}
		if vary != "" {
			h.Set("Vary", vary)
		}
		if got := e.Mark(h, []string{"a"}); got != want || (h.Get("Cloudflare-CDN-Cache-Control") == "max-age=60") != want || (h.Get("Cache-Tag") == "a") != want {
			t.Errorf("Vary: %s: %v, %v", vary, got, h)
		}
	}
}

func TestNewPanics(t *testing.T) {
	for want, o := range map[string]cloudflare.Options{
		"no Zone":  {Token: token},
		"no Token": {Zone: zone},
		"space":    {Zone: zone, Token: token + "\n"},
		"negative": {Zone: zone, Token: token, Burst: -1},
	} {
		func() {
			defer func() {
				if msg, _ := recover().(string); !strings.Contains(msg, want) || strings.Contains(msg, token) {
					t.Errorf("New panics with %q, want %q", msg, want)
				}
			}()
			cloudflare.New(o)
		}()
	}
}
