package respwriter_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/isr-go/isr/internal/respwriter"
)

func TestNoStore(t *testing.T) {
	for name, test := range map[string]struct {
		serve  func(w http.ResponseWriter)
		status int
	}{
		"nothing written":       {func(w http.ResponseWriter) {}, 200},
		"a header":              {func(w http.ResponseWriter) { w.WriteHeader(202) }, 202},
		"two headers":           {func(w http.ResponseWriter) { w.WriteHeader(202); w.WriteHeader(500) }, 202},
		"a body":                {func(w http.ResponseWriter) { io.WriteString(w, "soon") }, 200},
		"a flush":               {func(w http.ResponseWriter) { w.(http.Flusher).Flush() }, 200},
		"a controller":          {func(w http.ResponseWriter) { http.NewResponseController(w).Flush() }, 200},
		"a switch of protocols": {func(w http.ResponseWriter) { w.WriteHeader(101) }, 101},
		"early hints": {func(w http.ResponseWriter) {
			w.WriteHeader(103)
			w.Header().Set("Cache-Control", "public, max-age=60")
			w.WriteHeader(202)
		}, 202},
	} {
		t.Run(name, func(t *testing.T) {
			rec := &sent{ResponseRecorder: httptest.NewRecorder()}
			w := respwriter.NewNoStore(rec)
			w.Header().Set("Cache-Control", "public, max-age=60")
			w.Header().Set("CDN-Cache-Control", "max-age=60")
			test.serve(w)
			status := w.Finish()
			h := rec.Header()
			if status != test.status || rec.status != test.status || h.Get("Cache-Control") != "no-store" || h["Cdn-Cache-Control"] != nil {
				t.Errorf("status %d, sent %d, %v", status, rec.status, h)
			}
		})
	}
}
