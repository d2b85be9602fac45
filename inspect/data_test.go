package inspect_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/inspect"
)

// newShop returns a site whose pages have read a menu, under a key that is no tag, and
// that knows a session's cart.
func newShop(t *testing.T) *isr.Site {
	menus, carts := isr.Data[string]{Name: "menu", TTL: time.Minute}, isr.Data[string]{Name: "session"}
	broken := false
	menu := func(ctx context.Context) (string, error) {
		return menus.Load(ctx, "main, left", func(context.Context) (string, error) {
			if broken {
				return "", errors.New("no rows")
			}
			return "a menu", nil
		})
	}
	site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/plain" {
			menu(r.Context())
		}
		if r.URL.Path == "/cart" && broken {
			_, err := carts.Load(r.Context(), "s3cret \"too", func(context.Context) (string, error) { return "", errors.New("no rows") })
			isr.Fail(r.Context(), err)
		} else if r.URL.Path == "/cart" {
			carts.Load(r.Context(), "s3cret", func(context.Context) (string, error) { return "a cart", nil })
		}
	}), isr.Options{})
	for _, path := range []string{"/a", "/b", "/plain", "/cart"} {
		site.ServeHTTP(httptest.NewRecorder(), request("GET", path))
	}
	ctx := site.Context(t.Context())
	carts.Load(ctx, "s3cret too", func(context.Context) (string, error) { return "", errors.New("no cart s3cret too") })
	time.Sleep(2 * time.Minute)
	broken = true
	menu(ctx)
	site.ServeHTTP(httptest.NewRecorder(), request("GET", "/cart")) // which fails to be renewed
	synctest.Wait()
	return site
}

func urls(rep report) (all []string) {
	for _, p := range rep.Table.Pages {
		all = append(all, strings.TrimPrefix(p.URL, "http://example.com"))
	}
	return all
}

func TestDataBesidePages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := inspect.Handler(newShop(t), inspect.Options{Actions: true})
		pages, values := []string{"/a", "/b", "/cart", "/plain"}, []string{"menu:main, left", "session:(hidden)"}
		for query, want := range map[string][]string{
			"": pages, "?kind=pages": pages, "?kind=data": values, "?kind=all": append(slices.Clone(pages), values...),
			"?kind=all&path=menu": values[:1], "?kind=data&state=failing": values[:1], "?kind=data&tag=menu": values[:1],
		} {
			if diff := cmp.Diff(want, urls(asJSON(t, h, "/"+query))); diff != "" {
				t.Errorf("%q (-want +got):\n%s", query, diff)
			}
		}
		if w := get(h, "/?kind=rows"); w.Code != http.StatusBadRequest {
			t.Errorf("an unknown kind: got %d", w.Code)
		}
		menu := rows(get(h, "/?kind=data").Body.String())[0]
		if menu[1] != "failing stale" && menu[1] != "failing expired" || menu[8] == "" || !strings.Contains(menu[9], "no rows") {
			t.Errorf("the row of a value: got %q", menu)
		}
		detail := text(get(h, "/?id="+id(t, h, "/a")).Body.String())
		if !strings.Contains(detail, "Data in it failing menu:main, left") {
			t.Errorf("the page does not say what it has read: %s", detail)
		}
		value := asJSON(t, h, "/?kind=data&path=menu").Table.Pages[0].ID
		detail = text(get(h, "/?id="+value).Body.String())
		_, readers, _ := strings.Cut(detail, "Read by")
		for _, want := range []string{"/a", "/b", "/cart"} {
			if !strings.Contains(readers, want) {
				t.Errorf("the value does not say that %s has read it: %s", want, detail)
			}
		}
		if strings.Contains(readers, "/plain") || !strings.Contains(detail, "Name menu Key main, left") {
			t.Errorf("the detail of a value: %s", detail)
		}
	})
}

// The key of a value whose Name is secret is hidden, wherever it comes up.
func TestKeysAreHidden(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := inspect.Handler(newShop(t), inspect.Options{Actions: true})
		for _, target := range []string{"/?kind=all", "/?kind=all&format=json", "/?kind=data", "/"} {
			for _, p := range asJSON(t, h, "/?kind=all").Table.Pages {
				for _, at := range []string{target, "/?format=json&id=" + p.ID, "/?id=" + p.ID} {
					if body := get(h, at).Body.String(); strings.Contains(body, "s3cret") {
						t.Errorf("%s shows the key: %s", at, text(body))
					}
				}
			}
		}
		if got := urls(asJSON(t, h, "/?kind=all&tag=session:s3cret")); len(got) > 0 {
			t.Errorf("the key can be searched for: %q", got)
		}
	})
}

func TestActionsOnData(t *testing.T) {
	for _, action := range []string{"revalidate", "purge"} {
		synctest.Test(t, func(t *testing.T) {
			h := inspect.Handler(newShop(t), inspect.Options{Actions: true})
			value := asJSON(t, h, "/?kind=data&path=menu").Table.Pages[0].ID
			out := decode(t, post(h, "/?kind=all&format=json", url.Values{"do": {action}, "id": {value}})).Outcome
			if !out.OK || out.URL != "menu:main, left" {
				t.Errorf("%s: got %+v", action, out)
			}
			left := urls(asJSON(t, h, map[string]string{"revalidate": "/?kind=all&state=fresh", "purge": "/?kind=all"}[action]))
			if diff := cmp.Diff([]string{"/plain", "session:(hidden)"}, left); diff != "" {
				t.Errorf("%s: left (-want +got):\n%s", action, diff)
			}
		})
	}
}
