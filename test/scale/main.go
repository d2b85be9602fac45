// Scale measures isr with a million pages in memory, beside a plain map, otter and
// ristretto as the container of a small page cache: what a page takes, what the garbage
// collector and the hits make of so many, purges, and the first minute after a restart
// on each Store. It writes the tables in README.md.
//
//	go run ./test/scale
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	if childMain() {
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // so that a second signal ends the program at once
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "scale:", err)
		os.Exit(1)
	}
}

// A plan is what the flags ask for.
type plan struct {
	sizes   []int         // numbers of pages
	engines []string      //
	stores  []string      //
	rounds  int           // of each
	length  time.Duration // of each measurement of hits
	others  int           // purges of other pages
	stored  int           // pages in each Store
	verbose bool
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("scale", flag.ContinueOnError)
	flags.SetOutput(stdout)
	pages := flags.String("pages", "10000,100000,1000000", "`numbers` of pages, with commas between them; 5000000 where there is memory for it")
	only := flags.String("engines", strings.Join(engineNames(), ","), "`names` of the containers; what is measured is given beside the map's")
	stores := flags.String("stores", strings.Join(storeNames(), ","), "`names` of the Stores for the cold start; none where empty")
	rounds := flags.Int("rounds", 3, "how `often` everything is measured; the tables have the medians")
	length := flags.Duration("for", time.Second, "how `long` each measurement of hits is, at least")
	others := flags.Int("others", 300_000, "how `many` purges of other pages")
	stored := flags.Int("stored", 20_000, "how `many` pages are in the Store at the cold start")
	out := flags.String("out", "", "`folder` of README.md; without it, only a run with no other flag is written, to test/scale")
	verbose := flags.Bool("v", false, "print what each process has measured")
	if err := flags.Parse(args); err != nil {
		return err
	}
	p := plan{rounds: *rounds, length: *length, others: *others, stored: *stored, verbose: *verbose}
	for s := range strings.SplitSeq(*pages, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < sections || n > 10_000_000 {
			return fmt.Errorf("-pages: %q: want numbers from %d to 10000000", s, sections)
		}
		p.sizes = append(p.sizes, n)
	}
	var err error
	if p.engines, err = choose(*only, engineNames()); err != nil {
		return fmt.Errorf("-engines: %w", err)
	}
	if p.stores, err = choose(*stores, storeNames()); err != nil {
		return fmt.Errorf("-stores: %w", err)
	}
	if p.rounds < 1 || p.length <= 0 || p.others < 1 || p.stored < 1 {
		return errors.New("-rounds, -for, -others and -stored want more than nothing")
	}
	r := newResults(p)
	defer r.stop()
	if err := r.measure(ctx, stdout); err != nil {
		return err
	}
	var failed error
	if r.wrong != nil {
		failed = fmt.Errorf("not as it should be:\n\t%s", strings.Join(r.wrong, "\n\t"))
	}
	fmt.Fprintf(stdout, "\n%s", r.markdown())
	if *out == "" {
		if flags.NFlag() > 0 {
			fmt.Fprintln(stdout, "\nOnly a run without flags is written to README.md; -out writes this one.")
			return failed
		}
		if *out, err = ownDir(); err != nil {
			return err
		}
	}
	return errors.Join(failed, r.write(*out))
}

// choose returns the names of a list that are among all.
func choose(list string, all []string) (chosen []string, err error) {
	if list == "" {
		return nil, nil
	}
	for name := range strings.SplitSeq(list, ",") {
		if !slices.Contains(all, name) {
			return nil, fmt.Errorf("no %q; there are: %s", name, strings.Join(all, ", "))
		}
		chosen = append(chosen, name)
	}
	return chosen, nil
}

// measure runs a process for each container and number of pages, round after round in an
// order of chance, and then the cold starts.
func (r *results) measure(ctx context.Context, stdout io.Writer) error {
	began := time.Now()
	r.load = loadAverage()
	say := func(format string, args ...any) {
		fmt.Fprintf(stdout, "%6.1fs  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
	for _, n := range r.sizes {
		percent, err := gcPercent(n, available())
		if err != nil {
			say("%v", err)
			r.skip("%v", err)
			continue
		}
		if percent < 100 {
			r.note("%s pages with GOGC=%d, else they would not fit", thousands(float64(n)), percent)
		}
		for round := range r.rounds {
			for _, engine := range shuffled(r.engines) {
				say("%s pages, round %d: %s", thousands(float64(n)), round+1, engine)
				o := order{Do: "pages", Engine: engine, Pages: n, For: r.length, Others: r.others, Percent: percent}
				r.ask(ctx, o, row{engine, n}, stdout)
				if ctx.Err() != nil {
					return ctx.Err()
				}
			}
		}
	}
	for round := range r.rounds {
		for _, name := range shuffled(r.stores) {
			say("cold start, round %d: %s", round+1, name)
			r.coldStart(ctx, name, stdout)
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
	}
	r.date, r.took = began, time.Since(began)
	return nil
}

// ask starts a process with an order, and notes what it has measured, or what went wrong.
func (r *results) ask(ctx context.Context, o order, at row, stdout io.Writer) {
	a, err := askChild(ctx, o)
	if err != nil {
		fmt.Fprintf(stdout, "%s: %v\n", o.name(), err)
		r.wrong = appendNew(r.wrong, fmt.Sprintf("%s: %v", o.name(), err))
		return
	}
	if r.verbose {
		fmt.Fprintf(stdout, "%v %v\n", a.Values, a.None)
	}
	r.add(at, a)
}

// gcPercent returns the GOGC with which n pages fit into so many bytes, a hundred at best.
func gcPercent(n int, available int64) (int, error) {
	live := int64(n) * (pageBytes + maxOverhead)
	for _, percent := range []int{100, 50, 20} {
		if live+live*int64(percent)/100 <= available {
			return percent, nil
		}
	}
	return 0, fmt.Errorf("%s pages want %.1f GB of memory, and there are %.1f GB: left out",
		thousands(float64(n)), float64(live)*1.2/1e9, float64(available)/1e9)
}

// available returns how much memory there is for programs, without end where the system
// does not say it.
func available() int64 {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 1 << 62
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "MemAvailable:"); ok {
			kilobytes, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			if err == nil {
				return kilobytes << 10
			}
		}
	}
	return 1 << 62
}

func shuffled(list []string) []string {
	list = slices.Clone(list)
	rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list
}

// ownDir returns the folder of this program's source.
func ownDir() (string, error) {
	out, err := exec.Command("go", "list", "-f", "{{.Dir}}", "github.com/isr-go/isr/test/scale").Output()
	if err != nil {
		return "", fmt.Errorf("go list (run it from within the repository): %w", err)
	}
	return filepath.Clean(strings.TrimSpace(string(out))), nil
}

// loadAverage is what else the machine had to do in the minute before.
func loadAverage() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "?"
	}
	return strings.Fields(string(b))[0]
}

// machine says what the results are results of.
func machine() string {
	return fmt.Sprintf("%s on %s/%s, %d cores", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU())
}
