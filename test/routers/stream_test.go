package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/gin-gonic/gin"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/isrtest"
)

// gin's Stream, which panics where the writer has no CloseNotify, streams whatever it
// answers for: pages, requests that pass, and what stands in for a page.
func TestGinStreams(t *testing.T) {
	gin.SetMode(gin.ReleaseMode)
	g := gin.New()
	g.NoRoute(func(c *gin.Context) {
		parts := 0
		c.Stream(func(w io.Writer) bool {
			io.WriteString(w, "part ")
			parts++
			return parts < 3
		})
	})
	for _, mode := range []isr.Mode{isr.On, isr.Develop, isr.Off} {
		server := httptest.NewServer(isr.Wrap(g, isr.Options{Mode: mode, Routes: map[string]isr.Route{
			"/bypass":      {Bypass: isr.Always},
			"/placeholder": {Placeholder: g},
			"/unknown":     {PrerenderedOnly: true, NotFound: g},
		}}))
		defer server.Close()
		for _, target := range []string{"/", "/bypass", "/placeholder", "/unknown"} {
			for _, method := range []string{"GET", "GET", "POST"} {
				r, err := http.NewRequest(method, server.URL+target, nil)
				if err != nil {
					t.Fatal(err)
				}
				res, err := server.Client().Do(r)
				if err != nil {
					t.Errorf("mode %v, %s %s: %v", mode, method, target, err)
					continue
				}
				got, err := io.ReadAll(res.Body)
				res.Body.Close()
				if string(got) != "part part part " || err != nil {
					t.Errorf("mode %v, %s %s: %d %q, %v", mode, method, target, res.StatusCode, got, err)
				}
			}
		}
	}
	isrtest.Check(t, g, isr.Options{}, "/")
}
