// Package progress shows how far a loop has come: on a terminal in one line, which it
// keeps up to date; elsewhere, as in a log, in a line now and then.
package progress

import (
	"fmt"
	"io"
	"iter"
	"os"
	"strings"
	"time"
	"unicode"
)

// How often there is something new to see.
const (
	onTerminal = 100 * time.Millisecond
	elsewhere  = 2 * time.Second
)

// Show ranges over the results of what a verb, such as "prerendered", says, and shows on
// w how many are done and have failed, how many there are a second, and how long the rest
// will take; and each error. A total of zero means that it is not known. It returns how
// many have failed.
func Show(w io.Writer, verb string, total int, results iter.Seq2[string, error]) (failed int) {
	return show(w, isTerminal(w), verb, total, results)
}

func show(w io.Writer, terminal bool, verb string, total int, results iter.Seq2[string, error]) (failed int) {
	l := line{w: w, terminal: terminal, pause: elsewhere}
	if terminal {
		l.pause = onTerminal
	}
	done, began := 0, time.Now()
	shown := began
	for what, err := range results {
		if err != nil {
			failed++
			l.print(clean(err.Error()))
		} else {
			done++
		}
		if now := time.Now(); now.Sub(shown) >= l.pause {
			shown = now
			l.update(status(verb, done, failed, total, now.Sub(began)) + "  " + clean(what))
		}
	}
	l.print(status(verb, done, failed, total, time.Since(began)))
	return failed
}

// status says it all: prerendered 12/35, 1 failed, 40/s, 1s left.
func status(verb string, done, failed, total int, took time.Duration) string {
	s := fmt.Sprintf("%s %d", verb, done)
	if total > 0 {
		s += fmt.Sprintf("/%d", total)
	}
	if failed > 0 {
		s += fmt.Sprintf(", %d failed", failed)
	}
	n := done + failed
	if n == 0 || took <= 0 {
		return s
	}
	if rate := float64(n) / took.Seconds(); rate < 10 {
		s += fmt.Sprintf(", %.1f/s", rate)
	} else {
		s += fmt.Sprintf(", %.0f/s", rate)
	}
	if total > n {
		return s + fmt.Sprintf(", %s left", (took/time.Duration(n)*time.Duration(total-n)).Round(time.Second))
	}
	return s + fmt.Sprintf(", in %s", took.Round(time.Millisecond))
}

// A line is the last one of a terminal, or any of a log.
type line struct {
	w        io.Writer
	terminal bool
	pause    time.Duration
	width    int // of what stands in it
}

// maxWidth is how much of a terminal's line is used: what is longer would be broken.
const maxWidth = 78

// update replaces the line.
func (l *line) update(s string) {
	if !l.terminal {
		fmt.Fprintln(l.w, s)
		return
	}
	if r := []rune(s); len(r) > maxWidth {
		s = string(r[:maxWidth-1]) + "…"
	}
	width := len([]rune(s))
	fmt.Fprintf(l.w, "\r%s%s", s, strings.Repeat(" ", max(0, l.width-width)))
	l.width = width
}

// print has a line of its own.
func (l *line) print(s string) {
	if l.width > 0 {
		fmt.Fprintf(l.w, "\r%s\r", strings.Repeat(" ", l.width))
		l.width = 0
	}
	fmt.Fprintln(l.w, s)
}

// clean leaves nothing that a terminal would obey.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '\uFFFD'
		}
		return r
	}, s)
}

// isTerminal reports whether people watch w.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("TERM") == "dumb" {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
