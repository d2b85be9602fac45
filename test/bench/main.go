// Command bench measures isr beside what one would otherwise use: other caches
// for net/http, servers in front of a Go handler, and Next.js. It runs what it
// finds on the machine, says what it has skipped and how to get that, and writes
// what came of it to README.md.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/isr-go/isr/test/bench/internal/trial"
)

const module = "github.com/isr-go/isr/test/bench"

// tmp is where everything goes that is not a result. It is removed at the end.
var tmp string

// A bench is one run of the command.
type bench struct {
	ctx     context.Context
	self    string // this program
	quick   bool
	only    *regexp.Regexp // what is run
	profile string         // where profiles go, if anywhere
	targets []*target
	res     Results
	begin   time.Time
}

func main() {
	log.SetFlags(0)
	if trial.IsChild() {
		if err := trial.Child(allPeers()); err != nil {
			log.Fatal(err)
		}
		return
	}
	quick := flag.Bool("quick", false, "a minute and a half: short rounds, and without Souin, Next.js and the race detector")
	only := flag.String("run", "", "run only the parts and targets that match this `regexp`: "+strings.Join(partNames(), ", ")+", or a target's name")
	out := flag.String("out", "", "write README.md and the plots to this `directory`, not to the bench's own; with it, partial runs are written, too")
	profile := flag.String("profile", "", "write CPU profiles of the Go caches at work on the wire to this `directory`")
	next := flag.Bool("next", false, "install Next.js with npm, where it is not there")
	flag.Parse()
	if flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(*quick, *only, *out, *profile, *next); err != nil {
		log.Fatal(err)
	}
}

func run(quick bool, only, out, profile string, next bool) (err error) {
	pattern, err := regexp.Compile(only)
	if err != nil {
		return fmt.Errorf("-run: %w", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	limit := 20 * time.Minute // far more than it takes
	if quick {
		limit = 4 * time.Minute
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if tmp, err = os.MkdirTemp("", "bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := os.Chmod(tmp, 0o755); err != nil { // servers may change their user
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	b := &bench{ctx: ctx, self: self, quick: quick, only: pattern, profile: profile, begin: time.Now()}
	b.find(next)
	for _, p := range parts {
		if b.ctx.Err() == nil && b.wants(p.name) {
			p.do(b)
		}
	}
	b.finish()
	if ctx.Err() != nil {
		b.note("the run was ended before it was complete")
	}
	fmt.Print(b.res.text())
	if out == "" {
		if quick || only != "" {
			log.Print("\nOnly a full run is written to README.md; -out writes this one.")
			return nil
		}
		if out, err = ownDir(); err != nil {
			return err
		}
	}
	return b.res.write(out)
}

// parts are what a run consists of.
var parts = []struct {
	name string
	do   func(*bench)
}{
	{"hits", (*bench).hits},
	{"wire", (*bench).wire},
	{"cold", (*bench).cold},
	{"expired", (*bench).expired},
	{"house", func(b *bench) {
		b.hotSet()
		b.memory()
		b.restart()
		b.prerender()
		b.tags()
	}},
	{"faults", (*bench).correctness},
	{"races", func(b *bench) {
		if b.quick {
			b.skipped("data races: not with -quick")
			return
		}
		b.races()
	}},
}

func partNames() (names []string) {
	for _, p := range parts {
		names = append(names, p.name)
	}
	return names
}

// wants reports whether -run asks for a part. One that names no part is about
// targets.
func (b *bench) wants(part string) bool {
	return b.only.MatchString(part) || !b.namesPart()
}

func (b *bench) namesPart() bool {
	for _, p := range parts {
		if b.only.MatchString(p.name) {
			return true
		}
	}
	return false
}

// find looks for all targets.
func (b *bench) find(next bool) {
	for _, p := range append(append([]trial.Peer{isrPeer}, goPeers...), floors...) {
		t := &target{Peer: p, Version: trial.Version(p.Module), binary: b.self}
		t.start = func(c trial.Config) (*server, error) { return serveChild(t.binary, t.Name, c) }
		b.targets = append(b.targets, t)
	}
	b.targets = append(b.targets, b.souin(), nginxTarget(b.self), varnishTarget(b.self), b.nextTarget(next))
	for _, t := range b.targets {
		if t.Skip == "" && !b.asksFor(t.Name) {
			t.Skip = notAsked
		}
		if t.Skip != "" {
			b.skipped(t.Name + ": " + t.Skip)
		}
	}
	for _, missing := range missingPeers {
		b.skipped(missing)
	}
}

const notAsked = "not asked for"

// asksFor reports whether -run asks for a target: for all, where it names a part.
// isr is what the others are compared with.
func (b *bench) asksFor(target string) bool {
	return target == "isr" || b.namesPart() || b.only.MatchString(target)
}

// souin builds the child that holds Souin.
func (b *bench) souin() *target {
	t := &target{binary: filepath.Join(tmp, "souin")}
	t.Peer = trial.Peer{
		Name: "Souin", Background: true, Bounded: false,
		Doc:   "https://docs.souin.io/docs/middlewares/chi",
		Setup: "the plugins' `DefaultConfiguration` with `TTL` and `Stale`, its default storage in memory",
	}
	t.start = func(c trial.Config) (*server, error) { return serveChild(t.binary, t.Name, c) }
	switch {
	case !b.asksFor(t.Name):
		t.Skip = notAsked
		return t
	case b.quick:
		t.Skip = "not with -quick: it takes a minute to build"
		return t
	}
	b.say("building the child with Souin")
	if err := b.build(t.binary, module+"/souin"); err != nil {
		t.Skip = err.Error()
	}
	return t
}

// build builds the bench, or the module below it that holds Souin, with that module's own
// versions: those of the whole workspace may not compile together. The tag is that of
// Souin's child, which only the bench needs: to compile all that it brings takes minutes.
func (b *bench) build(binary, pkg string, flags ...string) error {
	dir, err := ownDir()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(b.ctx, "go", append([]string{"build", "-tags", "souin", "-o", binary}, flags...)...)
	cmd.Dir = filepath.Join(dir, strings.TrimPrefix(pkg, module))
	cmd.Env = append(cmd.Environ(), "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s: %w: %s", pkg, err, lastLine(string(out)))
	}
	return nil
}

// ownDir returns the directory of this program's source.
func ownDir() (string, error) {
	out, err := exec.Command("go", "list", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		return "", fmt.Errorf("go list %s (run the bench from the root of the repository): %w", module, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// Which targets a part is for.
func (b *bench) inGo(t *target) bool    { return !t.server }
func (b *bench) onWire(t *target) bool  { return !t.Keeps }
func (b *bench) caching(t *target) bool { return !t.Floor }

func (b *bench) say(format string, args ...any) {
	log.Printf("%6.1fs  %s", time.Since(b.begin).Seconds(), fmt.Sprintf(format, args...))
}

// note notes what went wrong; the run goes on.
func (b *bench) note(format string, args ...any) {
	b.say(format, args...)
	if what := fmt.Sprintf(format, args...); !slices.Contains(b.res.Notes, what) {
		b.res.Notes = append(b.res.Notes, what)
	}
}

func (b *bench) skipped(what string) { b.res.Skipped = append(b.res.Skipped, what) }

// finish notes what the results are results of.
func (b *bench) finish() {
	b.res.Date = time.Now().UTC()
	b.res.Go, b.res.System, b.res.Cores = runtime.Version(), runtime.GOOS+"/"+runtime.GOARCH, runtime.NumCPU()
	b.res.Mode, b.res.Took = "full", time.Since(b.begin)
	if b.quick {
		b.res.Mode = "quick"
	}
	for _, t := range b.targets {
		if t.Skip == "" {
			b.res.Targets = append(b.res.Targets, TargetInfo{t.Name, t.Version, t.Doc, t.Setup, t.Floor, t.OwnServer, t.server})
		}
	}
}
