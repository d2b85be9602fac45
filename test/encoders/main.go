// Encoders measures what the encoders gain and cost beside gzip, and writes the tables in
// their READMEs:
//
//	go run .
//
// The pages are those that come with Go, in GOROOT/doc, and what is made of them.
package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/encoders/brotli"
	"github.com/isr-go/isr/encoders/zstd"
)

// readmes are where the tables stand, and what each compares with gzip.
var readmes = []struct {
	file     string
	encoders []row
}{
	{"../../encoders/brotli/README.md", []row{
		{"br 5", brotli.Encoder{Level: 5}}, {"**br 9**", brotli.Encoder{}}, {"br 11", brotli.Encoder{Level: 11}},
	}},
	{"../../encoders/zstd/README.md", []row{
		{"zstd 2", zstd.Encoder{Level: 2}}, {"zstd 3", zstd.Encoder{Level: 3}}, {"**zstd 4**", zstd.Encoder{}},
	}},
}

type row struct {
	name    string
	encoder isr.Encoder
}

// zipper is gzip as isr has it.
type zipper struct{ *gzip.Writer }

func (zipper) Coding() string { return "gzip" }

func (z zipper) Encode(w io.Writer, body []byte) error {
	z.Reset(w)
	if _, err := z.Write(body); err != nil {
		return err
	}
	return z.Close()
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "encoders:", err)
		os.Exit(1)
	}
}

// A page is one that is measured.
type page struct {
	name string
	body []byte
}

// pages returns what is measured.
func pages() ([]page, error) {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return nil, err
	}
	doc := filepath.Join(strings.TrimSpace(string(out)), "doc")
	model, err := os.ReadFile(filepath.Join(doc, "go_mem.html"))
	if err != nil {
		return nil, err
	}
	spec, err := os.ReadFile(filepath.Join(doc, "go_spec.html"))
	if err != nil {
		return nil, err
	}
	// The sections as an API would list them.
	type section struct{ ID, Title, Text string }
	var sections []section
	for i, part := range regexp.MustCompile(`<h[23] id="`).Split(string(spec), -1) {
		id, rest, _ := strings.Cut(part, `"`)
		title, text, ok := strings.Cut(rest, "</h")
		if i > 0 && ok {
			sections = append(sections, section{id, strings.TrimPrefix(title, ">"), text[:min(len(text), 400)]})
		}
	}
	list, err := json.Marshal(sections)
	if err != nil {
		return nil, err
	}
	return []page{{"short HTML", model[:8<<10]}, {"HTML", model}, {"JSON", list}, {"long HTML", spec}}, nil
}

func run() error {
	measured, err := pages()
	if err != nil {
		return err
	}
	for _, readme := range readmes {
		table, err := tabulate(measured, append([]row{{"gzip", zipper{gzip.NewWriter(nil)}}}, readme.encoders...))
		if err != nil {
			return err
		}
		fmt.Print(readme.file, "\n\n", table, "\n")
		if err := replace(readme.file, table); err != nil {
			return err
		}
	}
	return nil
}

// tabulate returns the table of some encoders.
func tabulate(measured []page, rows []row) (string, error) {
	var b strings.Builder
	b.WriteString("| |")
	for _, p := range measured {
		fmt.Fprintf(&b, " %s, %s |", p.name, kilobytes(len(p.body)))
	}
	b.WriteString("\n| ---" + strings.Repeat(" | ---:", len(measured)) + " |\n")
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s |", r.name)
		for _, p := range measured {
			size, took, err := measure(r.encoder, p.body)
			if err != nil {
				return "", err
			}
			fmt.Fprintf(&b, " %s, %s |", kilobytes(size), took)
		}
		b.WriteString("\n")
	}
	fmt.Fprintf(&b, "\n(%s, %s/%s, on one processor.)\n", runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return b.String(), nil
}

func kilobytes(n int) string { return fmt.Sprintf("%.1f KB", float64(n)/1000) }

// measure returns how large a body becomes, and the CPU time that this takes.
func measure(e isr.Encoder, body []byte) (size int, took string, err error) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	var b bytes.Buffer
	encode := func() error {
		b.Reset()
		return e.Encode(&b, body)
	}
	if err := encode(); err != nil { // what is made once is not counted
		return 0, "", err
	}
	n, begin := 0, cpu()
	for cpu()-begin < time.Second {
		if err := encode(); err != nil {
			return 0, "", err
		}
		n++
	}
	ms := float64(cpu()-begin) / float64(n) / float64(time.Millisecond)
	if ms >= 10 {
		return b.Len(), fmt.Sprintf("%.0f ms", ms), nil
	}
	return b.Len(), fmt.Sprintf("%.2g ms", ms), nil
}

// cpu returns the CPU time of this process.
func cpu() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

const begin, end = "<!-- table: go run . in test/encoders -->\n", "<!-- end of table -->\n"

// replace replaces the table in a file.
func replace(file, table string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(b), begin)
	_, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		return fmt.Errorf("%s: no place for the table", file)
	}
	return os.WriteFile(file, []byte(before+begin+table+end+after), 0o644)
}
