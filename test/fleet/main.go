// Fleet is five instances of a site on one Redis or PostgreSQL, visitors on all of
// them, and editors who purge all the time, while something breaks: it measures what
// isr promises of a fleet.
//
//	go run ./test/fleet
//
// It needs redis-server in $PATH and a PostgreSQL server, and takes about nine minutes.
// Everything runs on this machine, on free ports of the loopback interface, and is gone
// at the end.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	if instanceMain() {
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // so that a second signal ends the program at once
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "fleet:", err)
		os.Exit(1)
	}
}

// run plays the scenarios, and reports.
func run(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("fleet", flag.ExitOnError)
	only := flags.String("scenario", "", "`names` of the scenarios to play, with commas between them (default: all of them)")
	on := flags.String("store", "redis,postgres", "`names` of the stores to play them on, with commas between them")
	length := flags.Duration("for", 17*time.Second, "how `long` each of them is")
	out := flags.String("out", "", "`folder` of purges.svg and, where all is played, of README.md; made where it is missing (default: test/fleet, where there is one)")
	verbose := flags.Bool("v", false, "tell about the slowest purges, and what went wrong")
	logging := flags.Bool("log", false, "log what the instances do, to standard error")
	flags.Parse(args)
	if *out == "" {
		*out = "."
		if dir, err := os.Stat("test/fleet"); err == nil && dir.IsDir() {
			*out = "test/fleet"
		}
	}
	chosen := scenarios
	if *only != "" {
		chosen = nil
		for name := range strings.SplitSeq(*only, ",") {
			i := slices.IndexFunc(scenarios, func(sc scenario) bool { return sc.name == name })
			if i < 0 {
				return fmt.Errorf("no scenario %q; there are: %s", name, strings.Join(names(scenarios), ", "))
			}
			chosen = append(chosen, scenarios[i])
		}
	}
	var stores []*engine
	for name := range strings.SplitSeq(*on, ",") {
		e, err := engineOf(name)
		if err == nil {
			err = e.need()
		}
		if err != nil {
			return err
		}
		stores = append(stores, e)
	}
	defer removeTemplate()
	draft, err := draftIn(*out) // now: nobody wants to hear of a full disk nine minutes later
	if err != nil {
		return fmt.Errorf("there is no place for the picture: %w", err)
	}
	defer os.Remove(draft) // unless it is the picture by then

	var results []*result
	var failed []string
	for _, sc := range chosen {
		for _, e := range stores {
			if !sc.isFor(e) {
				continue
			}
			fmt.Fprintf(stdout, "%s, %s: %s …\n", sc.name, e.name, sc.about)
			r, err := play(ctx, sc, e, *length, *logging)
			if err != nil {
				return err
			}
			results = append(results, r)
			for _, f := range append(r.wrong(), r.slow()...) {
				failed = append(failed, fmt.Sprintf("%s, %s: %s", sc.name, e.name, f))
			}
			if *verbose {
				r.explain(stdout)
			}
		}
	}
	fmt.Fprintf(stdout, "\n%s\n", tables(results))
	if len(chosen) == len(scenarios) && len(stores) == len(engines) {
		if err := intoReadme(filepath.Join(*out, "README.md"), tables(results)); err != nil {
			return err
		}
	}
	path := filepath.Join(*out, "purges.svg")
	if err := errors.Join(os.WriteFile(draft, picture(results), 0o644), os.Chmod(draft, 0o644)); err != nil {
		return err
	}
	if err := os.Rename(draft, path); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "The picture is in %s.\n", path)
	if failed != nil {
		return errors.New("bars that were missed:\n\t" + strings.Join(failed, "\n\t"))
	}
	return nil
}

// draftIn makes a folder, if it is missing, and an empty file in it.
func draftIn(folder string) (path string, err error) {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return "", err
	}
	f, err := os.CreateTemp(folder, "purges-*.svg")
	if err != nil {
		return "", err
	}
	return f.Name(), f.Close()
}

func names(list []scenario) (names []string) {
	for _, sc := range list {
		names = append(names, sc.name)
	}
	return names
}
