//go:build unix

// Sites puts isrproxy in front of real sites (WordPress, MediaWiki and DokuWiki of the
// distribution, and an app of Next.js from npm), visits them logged out and in, edits,
// comments, kills PHP and the database under load, and measures. The README has what it
// came to.
//
//	go run ./test/sites -install
//
// Each site has servers of its own, on free ports and in a folder that is removed at the
// end. Nothing of the system's own services is started or changed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/isr-go/isr/internal/isrtest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "sites:", err)
		os.Exit(1)
	}
}

// The size of it all.
const (
	pagesCompared = 50
	visitors      = 16 // of those who measure
	paced         = 40 // requests a second while something is killed, direct and through each
)

func run(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("sites", flag.ExitOnError)
	only := flags.String("site", "", "`names` of the sites, with commas between them (default: all)")
	length := flags.Duration("for", 5*time.Second, "how `long` each measurement is")
	outage := flags.Duration("outage", 15*time.Second, "how `long` there is load while something is killed, for a third of it")
	install := flags.Bool("install", false, "install what is missing, with apt-get")
	out := flags.String("out", filepath.Join("test", "sites"), "`folder` of README.md, results.json and the screenshots")
	serve := flags.Bool("serve", false, "only set up the first site, and serve it until interrupted: to look at it")
	flags.Parse(args)

	chosen := sites
	if *only != "" {
		chosen = nil
		for name := range strings.SplitSeq(*only, ",") {
			i := slices.IndexFunc(sites, func(st *site) bool { return strings.EqualFold(st.preset, name) })
			if i < 0 {
				return fmt.Errorf("no site %q: there are wordpress, mediawiki, dokuwiki, nextjs", name)
			}
			chosen = append(chosen, sites[i])
		}
	}
	dir, err := os.MkdirTemp("", "isr-sites-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	isr, err := buildProxy(ctx, dir)
	if err != nil {
		return err
	}
	if *serve {
		return serveOnly(ctx, chosen[0], filepath.Join(dir, chosen[0].preset), isr, stdout)
	}
	var failed []string
	for _, st := range chosen {
		fmt.Fprintf(stdout, "%s: setting up …\n", st.name)
		r := &result{Site: st.name, Measured: time.Now().Format(time.DateOnly), Load: loadAverage()}
		err := st.need(ctx, *install)
		if err == nil {
			err = r.play(ctx, st, filepath.Join(dir, st.preset), isr, *length, *outage, *out, stdout)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			fmt.Fprintf(stdout, "%s: %v\n", st.name, err)
			failed = append(failed, st.name)
			r.Trouble = strings.SplitN(err.Error(), "\n", 2)[0]
		}
		for _, wrong := range r.Wrong {
			fmt.Fprintf(stdout, "%s: wrong: %s\n", st.name, wrong)
			failed = append(failed, st.name)
		}
		if err := r.save(*out); err != nil {
			return err
		}
	}
	if failed != nil {
		return fmt.Errorf("not as it should be: %s", strings.Join(slices.Compact(failed), ", "))
	}
	return nil
}

// serveOnly sets a site up behind isrproxy, and waits.
func serveOnly(ctx context.Context, st *site, dir, isr string, stdout io.Writer) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	s, err := newStack(dir, isr)
	if err != nil {
		return err
	}
	defer s.stop()
	if _, _, err = st.setUp(ctx, s); err != nil {
		return err
	}
	if _, err = s.runProxy(ctx, s.public, "-preset", st.preset); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%s is at http://%s, behind isrproxy at http://%s (%s, %s), in %s\n", st.name, s.origin, s.public, userName, password, dir)
	<-ctx.Done()
	return nil
}

// sources returns the folder of isrproxy's own files.
func sources() string {
	out, err := exec.Command("go", "list", "-f", "{{.Dir}}", "github.com/isr-go/isr/cmd/isrproxy").Output()
	if err != nil {
		return "cmd/isrproxy"
	}
	return strings.TrimSpace(string(out))
}

func buildProxy(ctx context.Context, dir string) (string, error) {
	program := filepath.Join(dir, "isrproxy")
	out, err := exec.CommandContext(ctx, "go", "build", "-o", program, "github.com/isr-go/isr/cmd/isrproxy").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("building isrproxy: %w\n%s", err, out)
	}
	return program, nil
}

// need looks for the packages of a site, and installs them if it may.
func (st *site) need(ctx context.Context, install bool) error {
	var missing []string
	for _, name := range st.packages {
		if out, err := exec.CommandContext(ctx, "dpkg-query", "-W", "-f", "${db:Status-Status}", name).Output(); err != nil || string(out) != "installed" {
			missing = append(missing, name)
		}
	}
	switch {
	case len(missing) == 0:
		return nil
	case !install:
		return fmt.Errorf("the distribution's packages %s are missing: -install installs them", strings.Join(missing, " "))
	}
	cmd := exec.CommandContext(ctx, "apt-get", append([]string{"install", "-y", "-qq", "--no-install-recommends"}, missing...)...)
	// No service is to be started by that.
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("apt-get install %s: %w\n%s", strings.Join(missing, " "), err, out)
	}
	return nil
}

// loadAverage is what else the machine had to do.
func loadAverage() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "?"
	}
	return strings.Fields(string(b))[0]
}

// play does all that is done with a site.
func (r *result) play(ctx context.Context, st *site, dir, isr string, length, outage time.Duration, out string, stdout io.Writer) (err error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	s, err := newStack(dir, isr)
	if err != nil {
		return err
	}
	defer s.stop()
	var servers []*process
	if r.Version, servers, err = st.setUp(ctx, s); err != nil {
		return err
	}
	say := func(format string, args ...any) { fmt.Fprintf(stdout, st.name+": "+format+"\n", args...) }
	say("version %s at %s", r.Version, s.origin)
	admin, err := isrtest.FreeAddr()
	if err != nil {
		return err
	}
	if _, err = s.runProxy(ctx, s.public, "-preset", st.preset, "-inspect", admin); err != nil {
		return err
	}
	client := newClient()
	direct := visitor{addr: s.origin, public: s.public, client: client}
	through := visitor{addr: s.public, public: s.public, client: client}

	pages, err := crawl(ctx, direct, st, pagesCompared)
	if err != nil {
		return err
	}
	if r.Out, err = compare(ctx, st, direct, through, pages); err != nil {
		return err
	}
	r.check(r.Out.Equal == len(pages), "logged out, pages differ: %s", strings.Join(r.Out.Different, "; "))
	r.check(r.Out.Hits >= len(pages)*9/10, "logged out, only %d of %d pages come from memory", r.Out.Hits, len(pages))
	say("logged out: %d of %d pages are equal, %d from memory", r.Out.Equal, r.Out.Pages, r.Out.Hits)

	if err = r.browse(ctx, st, s, direct, through, pages, admin, out, say); err != nil {
		return err
	}

	pages = r.Out.stored // what is never kept is not to be measured

	// Requests a second: by turns, so that both have the same machine.
	for range 2 {
		r.Direct = append(r.Direct, ask(ctx, direct, pages, visitors, 0, length))
		ask(ctx, through, pages, visitors, 0, time.Second) // all are there, and fresh
		r.Through = append(r.Through, ask(ctx, through, pages, visitors, 0, length))
	}
	for _, l := range slices.Concat(r.Direct, r.Through) {
		r.check(l.Errors == 0, "%d of %d answers were errors", l.Errors, l.Answers)
	}
	d, t := mean(r.Direct), mean(r.Through)
	say("%.0f requests a second direct, %.0f through: %.0f times as many", d, t, t/d)

	// Pages that are stale after a second: else nobody would notice an outage.
	addr, err := isrtest.FreeAddr()
	if err != nil {
		return err
	}
	flags := []string{"-preset", st.preset, "-max-ttl", "1s"}
	if st.preset != "nextjs" {
		flags = append(flags, "-ttl", "1s")
	}
	if _, err = s.runProxy(ctx, addr, flags...); err != nil {
		return err
	}
	through.addr = addr
	for _, p := range servers {
		k, err := outageOf(ctx, p, direct, through, pages, outage)
		if err != nil {
			return err
		}
		r.Killed = append(r.Killed, k)
		r.check(k.Through.Errors == 0, "%s killed: %d errors through isrproxy", k.What, k.Through.Errors)
		say("%s killed: %d of %d answers direct were errors (%v), %d of %d through", k.What, k.Direct.Errors, k.Direct.Answers, k.Direct.Trouble, k.Through.Errors, k.Through.Answers)
	}
	return nil
}

// browse does what a person does: logs in, comments, edits.
func (r *result) browse(ctx context.Context, st *site, s *stack, direct, through visitor, pages []string, admin, out string, say func(string, ...any)) error {
	b, err := newBrowser(ctx, "http://"+s.public)
	if err != nil {
		return err
	}
	defer b.cancel()
	shown := func(what func(*browser, string) (string, error), text string) (time.Duration, error) {
		path, err := what(b, text)
		if err != nil {
			return 0, err
		}
		return through.until(ctx, path, text)
	}
	if st.comment != nil {
		if _, err := through.get(ctx, "/post-7/"); err != nil {
			return err
		}
		took, err := shown(st.comment, "A comment of somebody who is not logged in.")
		if err != nil {
			return fmt.Errorf("commenting: %w", err)
		}
		r.Comment = &took
		say("a comment is seen after %s", took.Round(time.Millisecond))
	}
	if err := st.login(b); err != nil {
		return fmt.Errorf("logging in: %w", err)
	}
	page, err := b.eval(`document.documentElement.outerHTML`)
	if err != nil {
		return err
	}
	r.LoggedIn = strings.Contains(page, st.inside)
	r.check(r.LoggedIn, "after logging in, the page has no %q", st.inside)
	cookies, err := b.cookies()
	if err != nil {
		return err
	}
	if st.edit != nil {
		for _, path := range pages { // everything is stored before it is edited
			if _, err := through.get(ctx, path); err != nil {
				return err
			}
		}
		took, err := shown(st.edit, "What was edited just now.")
		if err != nil {
			return fmt.Errorf("editing: %w", err)
		}
		r.Edit = &took
		say("an edit is seen after %s", took.Round(time.Millisecond))
	}
	in, inThrough := direct, through
	in.cookies, inThrough.cookies = cookies, cookies
	if st.preset == "nextjs" {
		pages = append(slices.Clone(pages), "/account")
	}
	if r.In, err = compare(ctx, st, in, inThrough, pages); err != nil {
		return err
	}
	r.check(r.In.Equal == len(pages), "logged in, pages differ: %s", strings.Join(r.In.Different, "; "))
	r.check(st.preset == "nextjs" || r.In.Passed == len(pages), "logged in, only %d of %d pages pass", r.In.Passed, len(pages))
	say("logged in: %d of %d pages are equal, %d passed", r.In.Equal, r.In.Pages, r.In.Passed)

	// What was seen by who is logged in, is seen by nobody else.
	for _, path := range pages {
		a, err := through.get(ctx, path)
		if err != nil {
			return err
		}
		r.check(!strings.Contains(a.body, st.inside), "%s shows everybody who was logged in", path)
	}

	if st == wordpress {
		// Down to what was edited and commented.
		if err := b.open("/post-7/"); err != nil {
			return err
		}
		if _, err := b.eval(`(document.querySelector(".wp-block-comments, #comments") ?? document.body).scrollIntoView({block: "center"})`); err != nil {
			return err
		}
		if err := b.shoot(filepath.Join(out, "wordpress.png")); err != nil {
			return err
		}
		b.base = "http://" + admin
		if err := first(b.open("/?sort=-hits"), b.shoot(filepath.Join(out, "inspector.png"))); err != nil {
			return err
		}
	}
	return nil
}

// outageOf kills a server for a third of the time that visitors ask.
func outageOf(ctx context.Context, p *process, direct, through visitor, pages []string, length time.Duration) (k killed, err error) {
	k.What = p.name
	for range 2 { // all pages are there; what was stale is renewed
		for _, path := range pages {
			if _, err := through.get(ctx, path); err != nil {
				return k, err
			}
		}
	}
	loads := make(chan func(), 2)
	for _, one := range []struct {
		v  visitor
		to *load
	}{{direct, &k.Direct}, {through, &k.Through}} {
		go func() {
			l := ask(ctx, one.v, pages, 64, paced, length)
			loads <- func() { *one.to = l }
		}()
	}
	err = errors.Join(sleep(ctx, length/3))
	p.kill()
	err = first(err, sleep(ctx, length/3))
	err = first(err, p.start(ctx))
	for range 2 {
		(<-loads)()
	}
	if err != nil {
		return k, err
	}
	// Afterwards pages are renewed again: after a pause, because the last attempts have failed.
	begin := time.Now()
	for {
		a, err := through.get(ctx, pages[0])
		if err != nil || strings.Contains(a.cacheStatus(), "isr; hit") && !strings.Contains(a.cacheStatus(), "stale") {
			k.Renewed = time.Since(begin)
			return k, err
		}
		if time.Since(begin) > 2*time.Minute {
			return k, fmt.Errorf("two minutes after %s is back, %s is still %s", p.name, pages[0], a.cacheStatus())
		}
		if err := sleep(ctx, 100*time.Millisecond); err != nil {
			return k, err
		}
	}
}
