//go:build unix

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// A result is what it came to with one site.
type result struct {
	Site, Version, Measured string
	Load                    string // of the machine before
	Trouble                 string // why it was not done, or not to the end
	Out, In                 comparison
	LoggedIn                bool
	Comment, Edit           *time.Duration // until everybody saw it
	Direct, Through         []load
	Killed                  []killed
	Wrong                   []string
}

// A killed server, and what visitors got meanwhile.
type killed struct {
	What            string
	Direct, Through load
	Renewed         time.Duration // how long after the load a page is fresh again
}

// check notes what is not as it should be.
func (r *result) check(ok bool, format string, args ...any) {
	if !ok {
		r.Wrong = append(r.Wrong, fmt.Sprintf(format, args...))
	}
}

func mean(loads []load) (rate float64) {
	for _, l := range loads {
		rate += l.Rate / float64(len(loads))
	}
	return rate
}

// save adds the result to those of other sites, and writes the table into the README.
func (r *result) save(out string) error {
	file := filepath.Join(out, "results.json")
	all := map[string]*result{}
	b, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(b, &all)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	all[r.Site] = r
	if b, err = json.MarshalIndent(all, "", "\t"); err != nil {
		return err
	}
	if err := os.WriteFile(file, append(b, '\n'), 0o644); err != nil {
		return err
	}
	readme := filepath.Join(out, "README.md")
	text, err := os.ReadFile(readme)
	if err != nil {
		return err
	}
	before, rest, ok := bytes.Cut(text, []byte("<!-- measured -->\n"))
	_, after, ok2 := bytes.Cut(rest, []byte("<!-- end -->\n"))
	if !ok || !ok2 {
		return fmt.Errorf("%s has no place for the table", readme)
	}
	text = fmt.Appendf(nil, "%s<!-- measured -->\n%s<!-- end -->\n%s", before, table(all), after)
	return os.WriteFile(readme, text, 0o644)
}

// table is a column for each site.
func table(all map[string]*result) string {
	rows := []struct {
		name string
		cell func(r *result) string
	}{
		{"version", func(r *result) string { return r.Version }},
		{"logged out: pages equal to the site's own", func(r *result) string { return fmt.Sprintf("%d of %d", r.Out.Equal, r.Out.Pages) }},
		{"of these from memory", func(r *result) string { return fmt.Sprint(r.Out.Hits) }},
		{"logs in, in a browser", func(r *result) string { return map[bool]string{true: "yes", false: "no"}[r.LoggedIn] }},
		{"logged in: pages equal to the site's own", func(r *result) string { return fmt.Sprintf("%d of %d", r.In.Equal, r.In.Pages) }},
		{"of these past the cache", func(r *result) string { return fmt.Sprint(r.In.Passed) }},
		{"a comment is seen by others after", func(r *result) string { return seen(r.Comment) }},
		{"an edit is seen by others after", func(r *result) string { return seen(r.Edit) }},
		{"requests a second, direct", func(r *result) string { return fmt.Sprintf("%.0f", mean(r.Direct)) }},
		{"through isrproxy", func(r *result) string { return fmt.Sprintf("%.0f", mean(r.Through)) }},
		{"times as many", func(r *result) string { return fmt.Sprintf("**%.0f**", mean(r.Through)/mean(r.Direct)) }},
		{"median of an answer, direct", func(r *result) string { return median(r.Direct) }},
		{"through isrproxy", func(r *result) string { return median(r.Through) }},
		{"PHP (or Node) killed: errors direct", func(r *result) string { return errorsOf(r, 0, false) }},
		{"through isrproxy", func(r *result) string { return errorsOf(r, 0, true) }},
		{"99th percentile of an answer, direct", func(r *result) string { return waited(r, 0, false) }},
		{"through isrproxy", func(r *result) string { return waited(r, 0, true) }},
		{"MariaDB killed: errors direct", func(r *result) string { return errorsOf(r, 1, false) }},
		{"through isrproxy", func(r *result) string { return errorsOf(r, 1, true) }},
		{"99th percentile of an answer, direct", func(r *result) string { return waited(r, 1, false) }},
		{"through isrproxy", func(r *result) string { return waited(r, 1, true) }},
		{"load of the machine before", func(r *result) string { return r.Load }},
	}
	var b strings.Builder
	var done []*result
	b.WriteString("| |")
	for _, st := range sites {
		if r := all[st.name]; r != nil && r.Trouble == "" {
			done = append(done, r)
			fmt.Fprintf(&b, " %s |", r.Site)
		}
	}
	b.WriteString("\n| --- |" + strings.Repeat(" ---: |", len(done)) + "\n")
	for _, row := range rows {
		fmt.Fprintf(&b, "| %s |", row.name)
		for _, r := range done {
			fmt.Fprintf(&b, " %s |", row.cell(r))
		}
		b.WriteString("\n")
	}
	for _, st := range sites {
		switch r := all[st.name]; {
		case r == nil:
			fmt.Fprintf(&b, "\n%s was not tried.\n", st.name)
		case r.Trouble != "":
			fmt.Fprintf(&b, "\n%s was not to be had: %s\n", st.name, r.Trouble)
		default:
			for _, wrong := range r.Wrong {
				fmt.Fprintf(&b, "\n%s, not as it should be: %s\n", st.name, wrong)
			}
		}
	}
	return b.String()
}

func seen(after *time.Duration) string {
	if after == nil {
		return "–"
	}
	return fmt.Sprintf("%.2f s", after.Seconds())
}

func median(loads []load) string {
	if len(loads) == 0 {
		return "–"
	}
	d := loads[len(loads)-1].Median
	if d < 10*time.Millisecond {
		return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000)
	}
	return fmt.Sprintf("%d ms", d.Milliseconds())
}

func errorsOf(r *result, i int, through bool) string {
	if i >= len(r.Killed) {
		return "–"
	}
	l := r.Killed[i].Direct
	if through {
		l = r.Killed[i].Through
	}
	return fmt.Sprintf("%d of %d", l.Errors, l.Answers)
}

// waited is the 99th percentile of how long visitors waited while a server was down.
func waited(r *result, i int, through bool) string {
	if i >= len(r.Killed) {
		return "–"
	}
	l := r.Killed[i].Direct
	if through {
		l = r.Killed[i].Through
	}
	return fmt.Sprintf("%.2g s", l.P99.Seconds())
}
