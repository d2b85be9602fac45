package warning_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/isr-go/isr/internal/policy"
	"github.com/isr-go/isr/internal/warning"
)

// Each reason is a warning once for each route; what the handler asked for is none; and
// an origin that invents reasons does not fill the log.
func TestNotStoredIsSaidOnce(t *testing.T) {
	var log bytes.Buffer
	l := warning.New(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn})))
	a, b := &policy.Route{Pattern: "/a"}, &policy.Route{Pattern: "/b"}
	said := func(want int, what string) {
		t.Helper()
		if n := strings.Count(log.String(), "level=WARN"); n != want {
			t.Errorf("%s: %d warnings, want %d", what, n, want)
		}
		log.Reset()
	}
	cookie := policy.Refusal{Why: "sets a cookie", Remedy: "do not"}
	for range 3 {
		l.NotStored(a, cookie, "/a/1")
		l.NotStored(b, cookie, "/b/1")
		l.Late(a)
		l.Overflow()
	}
	said(4, "two routes, Late and Overflow")
	l.NotStored(a, policy.Refusal{Why: "is no-store"}, "/a/2")
	said(0, "what was asked for")
	for n := range 5000 {
		l.NotStored(a, policy.Refusal{Why: fmt.Sprint("has reason ", n), Remedy: "none"}, "/a/3")
	}
	said(99, "5000 reasons")
	l.NotStored(b, policy.Refusal{Why: "is of another route", Remedy: "none"}, "/b/2")
	l.Leaks(a)
	said(2, "another route, and what is no reason, after 5000")
}

// Without a Logger all is silent.
func TestNoLogger(t *testing.T) {
	l := warning.New(nil)
	l.NotStored(new(policy.Route), policy.Refusal{Why: "a", Remedy: "b"}, "/")
	l.TooLargeForStore(new(policy.Route), "/")
	l.Late(new(policy.Route))
	l.Overflow()
	l.SameBuild()
	l.Remade()
}
