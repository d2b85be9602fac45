package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/isr-go/isr/test/bench/internal/trial"
)

// nextTarget builds the Pages Router app in next/ and measures how long that
// takes. With install, npm fetches Next.js where it is not there.
func (b *bench) nextTarget(install bool) *target {
	t := &target{server: true, live: true}
	t.Peer = trial.Peer{
		Name: "Next.js", Doc: "https://nextjs.org/docs/pages/guides/incremental-static-regeneration",
		Setup: "Pages Router, `getStaticProps` with `revalidate`, `next build && next start`", Background: true, Bounded: true,
	}
	if !b.asksFor(t.Name) || !b.wants("wire") && !b.wants("cold") && !b.wants("expired") && !b.wants("house") {
		t.Skip = notAsked
		return t
	}
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip = "node not found: install Node.js 20.9 or newer, and run with -next"
		return t
	}
	if b.quick {
		t.Skip = "not with -quick: it has to be built"
		return t
	}
	own, err := ownDir()
	if err != nil {
		t.Skip = err.Error()
		return t
	}
	dir := filepath.Join(own, "next")
	bin := filepath.Join(dir, "node_modules", "next", "dist", "bin", "next")
	if _, err := os.Stat(bin); err != nil {
		if !install {
			t.Skip = "not installed: run with -next, which calls `npm install` in test/bench/next"
			return t
		}
		b.say("npm install")
		if err := npm(b.ctx, dir, "npm", "install", "--no-audit", "--no-fund", "--no-package-lock"); err != nil {
			t.Skip = err.Error()
			return t
		}
	}
	t.Version = programVersion(`Next\.js v(\S+)`, node, bin, "--version")
	b.say("next build")
	begin := time.Now()
	if err := npm(b.ctx, dir, node, bin, "build"); err != nil {
		t.Skip = err.Error()
		return t
	}
	b.res.add("prerender", t.Name, ms(time.Since(begin)), "all of `next build`, without a delay")
	t.start = func(c trial.Config) (*server, error) {
		port, err := freePort()
		if err != nil {
			return nil, err
		}
		s := &server{addr: "127.0.0.1:" + port}
		s.control = s.addr + "/api"
		s, err = inFront(b.self, nil, s, []string{node, bin, "start", dir, "-H", "127.0.0.1", "-p", port})
		if err != nil {
			return nil, err
		}
		if err := s.until(func() (bool, error) { return s.visit(http.MethodGet, "/page/0").status == http.StatusOK, nil }); err != nil {
			s.stop()
			return nil, errors.New("next start does not serve")
		}
		return s, nil
	}
	return t
}

func npm(ctx context.Context, dir string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, 4*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "NEXT_TELEMETRY_DISABLED=1", "CI=1")
	cmd.WaitDelay = time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(args[0]), err, lastLine(string(out)))
	}
	return nil
}
