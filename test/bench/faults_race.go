package main

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// races runs every Go cache with the race detector under a load that does all
// that visitors do at a time.
func (b *bench) races() {
	if out, err := exec.CommandContext(b.ctx, "go", "env", "CGO_ENABLED", "CC").Output(); err != nil || !strings.HasPrefix(string(out), "1\n") {
		b.skipped("data races: the race detector needs cgo: install a C compiler (`apt-get install gcc`)")
		return
	} else if _, err := exec.LookPath(strings.TrimSpace(strings.TrimPrefix(string(out), "1\n"))); err != nil {
		b.skipped("data races: the race detector needs a C compiler: `apt-get install gcc`")
		return
	}
	built := make(map[string]string) // by the binary without
	for t := range b.turns(func(t *target) bool { return b.inGo(t) && b.caching(t) }) {
		binary := built[t.binary]
		if binary == "" {
			b.say("building with the race detector: %s", t.Name)
			binary = filepath.Join(tmp, fmt.Sprintf("race%d", len(built)))
			if err := b.build(binary, packageOf(t), "-race"); err != nil {
				b.note("%v", err)
				continue
			}
			built[t.binary] = binary
		}
		b.say("races: %s", t.Name)
		b.outcome(raceFault, t.Name, b.race(t, binary))
	}
}

func packageOf(t *target) string {
	if t.Name == "Souin" {
		return module + "/souin"
	}
	return module
}

// race lets visitors of all kinds loose on a cache whose pages expire, and reads
// what the race detector says.
func (b *bench) race(t *target, binary string) Outcome {
	s, err := serveChild(binary, t.Name, short, "GORACE=halt_on_error=0")
	if err != nil {
		return Outcome{"n/a", err.Error()}
	}
	kinds := [][]byte{
		raw("/page/1"), raw("/page/2"), raw("/content/1"), raw("/page/1?opn=1"),
		[]byte("GET /page/1 HTTP/1.1\r\nHost: example.com\r\nAccept-Encoding: gzip\r\n\r\n"),
		[]byte("GET /content/1 HTTP/1.1\r\nHost: example.com\r\nRange: bytes=0-9\r\n\r\n"),
		[]byte("GET /cookie/1 HTTP/1.1\r\nHost: example.com\r\nX-Visitor: alice\r\n\r\n"),
	}
	if err := s.set("ok", time.Millisecond, 1); err != nil {
		return Outcome{"n/a", err.Error()}
	}
	load{rate: 400, conns: 32, time: 3 * time.Second, path: func(i int) []byte { return kinds[i%len(kinds)] }}.run(s.addr)
	if s.canPurge() {
		for range 20 {
			go s.visit("GET", "/page/1")
			s.purgePath("/page/1")
		}
	}
	s.stop()
	said := s.processes[0].said()
	if n := strings.Count(said, "WARNING: DATA RACE"); n > 0 {
		return Outcome{"wrong", fmt.Sprintf("reports of the race detector: %d, the first in %s", n, racer(said))}
	}
	return Outcome{"safe", ""}
}

// racer returns the first function of a module other than the bench that a race
// report names.
func racer(report string) string {
	for line := range strings.Lines(report) {
		name := strings.TrimSpace(line)
		if strings.HasPrefix(line, "  ") && !strings.HasPrefix(line, "   ") && strings.Contains(name, ".") &&
			strings.HasSuffix(name, ")") && strings.Contains(name, "/") && !strings.Contains(name, "/test/bench") && !strings.HasPrefix(name, "net/") {
			return "`" + strings.TrimSuffix(filepath.Base(name), "()") + "`"
		}
	}
	return "net/http"
}
