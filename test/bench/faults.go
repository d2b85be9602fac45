package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/isr-go/isr/test/bench/internal/trial"
)

// A fault is a small thing that goes wrong in every site, thrown at a cache that
// has just been started. run returns what happened that should not have, or
// nothing; errNone where the cache has no such feature.
type fault struct {
	title string
	why   string // what is asked
	short bool   // whether pages are to expire
	run   func(t *target, s *server) (wrong string, err error)
}

var errNone = errors.New("has no such feature")

const half = trial.PageBytes / 2

var faults = []fault{
	{"private page, marked so", "A page with `Cache-Control: private` that depends on a cookie is not shown to another visitor.", false,
		func(_ *target, s *server) (string, error) {
			return leak(s, "/private/1", "Cookie", "session=alice", "session=bob")
		}},
	{"private page, unmarked", "The same of a handler that forgot to say so.", false,
		func(_ *target, s *server) (string, error) {
			return leak(s, "/profile/1", "Cookie", "session=alice", "session=bob")
		}},
	{"page by Authorization", "A page that depends on `Authorization` is not shown to another visitor, nor to one without.", false,
		func(_ *target, s *server) (string, error) {
			return leak(s, "/auth/1", "Authorization", "Bearer alice", "")
		}},
	{"Set-Cookie", "The cookie that a handler sets for one visitor is not given to the next.", false, setCookie},
	{"unkeyed header", "A page poisoned with `X-Forwarded-Host` is not shown to others.", false, poison},
	{"error", "A 500 is not shown to those who come when the handler works again.", false, errorStored},
	{"HEAD first", "A HEAD does not leave an empty page behind.", false,
		func(_ *target, s *server) (string, error) { return first(s, "HEAD") }},
	{"Range first", "A range request does not leave a part of a page behind.", false,
		func(_ *target, s *server) (string, error) { return first(s, "GET", "Range", "bytes=0-99") }},
	{"If-None-Match first", "A conditional request does not leave a 304 behind.", false,
		func(_ *target, s *server) (string, error) { return first(s, "GET", "If-None-Match", `"1-1"`) }},
	{"Host", "Two hosts do not share a page.", false, hostIgnored},
	{"query", "Two searches do not share a page.", false, queryIgnored},
	{"the first visitor leaves", "Who waits for the same page gets it, though the one who came first hangs up.", false, leaderLeaves},
	{"page in two pieces", "A page that the handler writes in two pieces is kept whole.", false, pieces},
	{"handler aborts", "Half a page, aborted with `http.ErrAbortHandler`, is neither kept nor passed off as a whole one.", false,
		func(_ *target, s *server) (string, error) { return partial(s, "abort") }},
	{"body too short", "Half a page, shorter than its `Content-Length`, is neither kept nor passed off as a whole one.", false,
		func(_ *target, s *server) (string, error) { return partial(s, "short") }},
	{"panic in the background", "A handler that panics while a page is renewed does not end the process.", true, panicBehind},
	{"purge during a render", "A page whose render began before a purge is not shown after it.", false, purgeLost},
}

// raceFault is the fault that takes binaries of their own.
const raceFault = "data race"

// correctness throws every fault at every cache.
func (b *bench) correctness() {
	for t := range b.turns(func(t *target) bool { return b.caching(t) && !t.live }) {
		for _, f := range faults {
			b.say("faults: %s: %s", t.Name, f.title)
			b.outcome(f.title, t.Name, b.try(t, f))
		}
	}
}

func (b *bench) outcome(fault, target string, o Outcome) {
	if b.res.Faults == nil {
		b.res.Faults = make(map[string]map[string]Outcome)
	}
	if b.res.Faults[fault] == nil {
		b.res.Faults[fault] = make(map[string]Outcome)
	}
	b.res.Faults[fault][target] = o
}

// try throws one fault at one cache.
func (b *bench) try(t *target, f fault) Outcome {
	config := usual
	if f.short {
		config = short
	}
	s, err := t.start(config)
	if err != nil {
		return Outcome{"n/a", err.Error()}
	}
	defer s.stop()
	if s.version != "" {
		t.Version = s.version
	}
	if err := s.set("ok", 0, 1); err != nil {
		return Outcome{"n/a", err.Error()}
	}
	wrong, err := f.run(t, s)
	switch {
	case errors.Is(err, errNone):
		return Outcome{"n/a", err.Error()}
	case err != nil:
		return Outcome{"n/a", "the experiment failed: " + err.Error()}
	case wrong != "":
		return Outcome{"wrong", wrong}
	}
	return Outcome{"safe", ""}
}

// leak asks as one visitor and then as another, and looks for the first in what
// the second gets.
func leak(s *server, path, header, mine, other string) (string, error) {
	for range 2 {
		if r := s.visit("GET", path, header, mine); r.err != nil {
			return "", r.err
		}
	}
	var r reply
	if other == "" {
		r = s.visit("GET", path)
	} else {
		r = s.visit("GET", path, header, other)
	}
	if strings.Contains(r.body, "alice") {
		return "the second visitor got the page of the first", r.err
	}
	return "", r.err
}

func setCookie(_ *target, s *server) (string, error) {
	if r := s.visit("GET", "/cookie/1", "X-Visitor", "alice"); r.err != nil {
		return "", r.err
	}
	r := s.visit("GET", "/cookie/1", "X-Visitor", "bob")
	if strings.Contains(strings.Join(r.header["Set-Cookie"], " "), "alice") {
		return "the second visitor got the cookie of the first", r.err
	}
	return "", r.err
}

func poison(_ *target, s *server) (string, error) {
	if r := s.visit("GET", "/forwarded/1", "X-Forwarded-Host", "evil.example"); r.err != nil {
		return "", r.err
	}
	r := s.visit("GET", "/forwarded/1")
	if strings.Contains(r.body, "evil.example") {
		return "a visitor got the page with the attacker's host in it", r.err
	}
	return "", r.err
}

func errorStored(_ *target, s *server) (string, error) {
	if err := s.set("fail", 0, 1); err != nil {
		return "", err
	}
	if r := s.visit("GET", "/page/1"); r.status != http.StatusInternalServerError {
		return "", fmt.Errorf("the failing handler's visitor got %d, %v", r.status, r.err)
	}
	if err := s.set("ok", 0, 1); err != nil {
		return "", err
	}
	if r := s.visit("GET", "/page/1"); r.status != 200 {
		return fmt.Sprintf("the next visitor got %d again, though the handler worked", r.status), r.err
	}
	return "", nil
}

// first asks for a page in a way that gets no page, and then plainly.
func first(s *server, method string, headers ...string) (string, error) {
	if r := s.visit(method, "/content/1", headers...); r.err != nil {
		return "", r.err
	}
	r := s.visit("GET", "/content/1")
	if r.err != nil {
		return "a plain GET broke off: " + r.err.Error(), nil
	}
	return whole(r, "/content/1", 1), nil
}

// whole says in which way an answer is not the whole page.
func whole(r reply, path string, version int64) string {
	switch {
	case r.status != 200:
		return fmt.Sprintf("a plain GET got %d with %d bytes", r.status, len(r.body))
	case !trial.Rendered([]byte(r.body), path, version, trial.PageBytes):
		return fmt.Sprintf("a plain GET got 200 with %d of %d bytes", len(r.body), trial.PageBytes)
	}
	return ""
}

func hostIgnored(_ *target, s *server) (string, error) {
	if r := s.visit("GET", "/host/1", "Host", "one.example"); r.err != nil {
		return "", r.err
	}
	r := s.visit("GET", "/host/1", "Host", "two.example")
	if strings.Contains(r.body, "one.example") {
		return "two.example got the page of one.example", r.err
	}
	return "", r.err
}

func queryIgnored(_ *target, s *server) (string, error) {
	if r := s.visit("GET", "/query/1?q=shoes"); r.err != nil {
		return "", r.err
	}
	r := s.visit("GET", "/query/1?q=hats")
	if strings.Contains(r.body, "shoes") {
		return "a search for hats got the results for shoes", r.err
	}
	return "", r.err
}

// leaderLeaves has a visitor hang up on a page while another waits for it.
func leaderLeaves(_ *target, s *server) (string, error) {
	if err := s.set("ok", 400*time.Millisecond, 1); err != nil {
		return "", err
	}
	ctx, leave := context.WithCancel(context.Background())
	defer leave()
	request, err := http.NewRequestWithContext(ctx, "GET", "http://"+s.addr+"/page/1", nil)
	if err != nil {
		return "", err
	}
	request.Host = "example.com"
	left := make(chan reply, 1)
	go func() { left <- fetch(request) }()
	if err := s.until(func() (bool, error) { n, err := s.renders("page"); return n > 0, err }); err != nil {
		return "", err
	}
	waits := make(chan reply, 1)
	go func() { waits <- s.visit("GET", "/page/1") }()
	time.Sleep(100 * time.Millisecond) // until the second visitor waits, too: nothing shows it
	leave()
	<-left
	r := <-waits
	if r.err != nil {
		return "who waited got nothing: " + r.err.Error(), nil
	}
	if wrong := whole(r, "/page/1", 1); wrong != "" {
		return fmt.Sprintf("who waited got %d, with %d bytes", r.status, len(r.body)), nil
	}
	return "", nil
}

// until waits for something that is to come soon.
func (s *server) until(done func() (bool, error)) error {
	for begin := time.Now(); time.Since(begin) < 5*time.Second; time.Sleep(5 * time.Millisecond) {
		if ok, err := done(); ok || err != nil {
			return err
		}
	}
	return errors.New("it did not come")
}

func pieces(_ *target, s *server) (string, error) {
	for _, who := range []string{"the first visitor", "the next visitor"} {
		r := s.visit("GET", "/pieces/1")
		if r.err != nil {
			return who + " got half a page: " + r.err.Error(), nil
		}
		if wrong := whole(r, "/pieces/1", 1); wrong != "" {
			return who + " got half a page: " + wrong, nil
		}
	}
	return "", nil
}

// partial lets a handler break off, and work the next time.
func partial(s *server, mode string) (string, error) {
	if err := s.set(mode, 0, 1); err != nil {
		return "", err
	}
	broken := s.visit("GET", "/page/1")
	if err := s.set("ok", 0, 1); err != nil {
		return "", err
	}
	r := s.visit("GET", "/page/1")
	if r.err != nil {
		return "the next visitor got half a page: " + r.err.Error(), nil
	}
	if wrong := whole(r, "/page/1", 1); wrong != "" {
		return "the next visitor got half a page: " + wrong, nil
	}
	if broken.err == nil && broken.status == 200 && len(broken.body) == half {
		return "the visitor got half a page and nothing that says so", nil
	}
	return "", nil
}

// panicBehind lets a page expire, and the handler panic when it is renewed.
func panicBehind(t *target, s *server) (string, error) {
	if !t.Background {
		return "", fmt.Errorf("%w: nothing runs in the background", errNone)
	}
	if r := s.visit("GET", "/page/1"); r.status != 200 {
		return "", fmt.Errorf("status %d, %v", r.status, r.err)
	}
	if err := s.set("panic", 0, 1); err != nil {
		return "", err
	}
	begin := time.Now()
	err := s.until(func() (bool, error) {
		if s.visit("GET", "/page/1"); !s.alive() {
			return true, nil
		}
		n, err := s.renders("page")
		if err != nil { // it may have ended meanwhile
			return true, nil
		}
		return n > 1 && time.Since(begin) > 1500*time.Millisecond, nil
	})
	time.Sleep(200 * time.Millisecond) // a panic takes a moment to be told
	if !s.alive() {
		return "the process ended", nil
	}
	return "", err
}

// purgeLost purges a page while it is being rendered.
func purgeLost(_ *target, s *server) (string, error) {
	if !s.canPurge() {
		return "", fmt.Errorf("%w: a path cannot be purged", errNone)
	}
	s.visit("GET", "/page/2") // a purge of what is at rest has to work, or there is nothing to see
	if err := s.set("ok", 0, 2); err != nil {
		return "", err
	}
	if err := s.purgePath("/page/2"); err != nil {
		return "", fmt.Errorf("purge: %w", err)
	}
	if wrong := whole(s.visit("GET", "/page/2"), "/page/2", 2); wrong != "" {
		return "", errors.New("a purge does nothing")
	}
	before, err := s.renders("page")
	if err != nil {
		return "", err
	}
	if err := s.set("ok", 400*time.Millisecond, 1); err != nil {
		return "", err
	}
	rendered := make(chan reply, 1)
	go func() { rendered <- s.visit("GET", "/page/1") }()
	if err := s.until(func() (bool, error) { n, err := s.renders("page"); return n > before, err }); err != nil {
		return "", err
	}
	time.Sleep(100 * time.Millisecond) // the old content has been read by now
	if err := s.set("ok", 0, 2); err != nil {
		return "", err
	}
	if err := s.purgePath("/page/1"); err != nil {
		return "", fmt.Errorf("purge: %w", err)
	}
	<-rendered
	r := s.visit("GET", "/page/1")
	if trial.Rendered([]byte(r.body), "/page/1", 1, trial.PageBytes) {
		return "the old page was there again after the purge", r.err
	}
	return "", r.err
}
