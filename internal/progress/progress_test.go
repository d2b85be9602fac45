package progress

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// pages takes a second for each page; the third fails.
func pages(n int) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for i := 1; i <= n; i++ {
			time.Sleep(time.Second)
			var err error
			if i == 3 {
				err = errors.New("prerender /3: \x1b[31mred\n")
			}
			if !yield(fmt.Sprint("/", i), err) {
				return
			}
		}
	}
}

func TestShow(t *testing.T) {
	for name, test := range map[string]struct {
		terminal bool
		total    int
		want     []string
	}{
		"in a log": {false, 5, []string{
			"made 2/5, 1.0/s, 3s left  /2\n",
			"prerender /3: \ufffd[31mred\ufffd\n",
			"made 3/5, 1 failed, 1.0/s, 1s left  /4\n",
			"made 4/5, 1 failed, 1.0/s, in 5s\n",
		}},
		"without a total": {false, 0, []string{
			"made 2, 1.0/s, in 2s  /2\n",
			"prerender /3: \ufffd[31mred\ufffd\n",
			"made 3, 1 failed, 1.0/s, in 4s  /4\n",
			"made 4, 1 failed, 1.0/s, in 5s\n",
		}},
		"on a terminal": {true, 5, []string{
			"\rmade 1/5, 1.0/s, 4s left  /1",
			"\rmade 2/5, 1.0/s, 3s left  /2",
			"\r                            \rprerender /3: \ufffd[31mred\ufffd\n",
			"\rmade 2/5, 1 failed, 1.0/s, 2s left  /3",
			"\rmade 3/5, 1 failed, 1.0/s, 1s left  /4",
			"\rmade 4/5, 1 failed, 1.0/s, in 5s  /5  ",
			"\r" + strings.Repeat(" ", 36) + "\rmade 4/5, 1 failed, 1.0/s, in 5s\n",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var out bytes.Buffer
				if failed := show(&out, test.terminal, "made", test.total, pages(5)); failed != 1 {
					t.Errorf("%d failed", failed)
				}
				if diff := cmp.Diff(strings.Join(test.want, ""), out.String()); diff != "" {
					t.Errorf("(-want +got)\n%s", diff)
				}
			})
		})
	}
}

// A thousand pages a second are not a thousand lines.
func TestShowIsNotALogOfEachPage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for terminal, want := range map[bool]int{true: 101, false: 6} {
			var out bytes.Buffer
			show(&out, terminal, "made", 10_000, func(yield func(string, error) bool) {
				for range 10_000 {
					time.Sleep(time.Millisecond)
					if !yield(strings.Repeat("/long", 100), nil) {
						return
					}
				}
			})
			text := out.String()
			if got := strings.Count(strings.ReplaceAll(text, "\r", "\n"), "made "); got != want {
				t.Errorf("terminal %v: %d updates, want %d", terminal, got, want)
			}
			for line := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == '\r' || r == '\n' }) {
				if terminal && len([]rune(line)) > maxWidth {
					t.Errorf("a line of %d", len([]rune(line)))
				}
			}
		}
	})
}

func TestNothingToDo(t *testing.T) {
	var out bytes.Buffer
	if Show(&out, "made", 0, func(func(string, error) bool) {}); out.String() != "made 0\n" {
		t.Errorf("got %q", out.String())
	}
}

func TestFilesAreNoTerminals(t *testing.T) {
	f, err := os.Create(t.TempDir() + "/log")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if isTerminal(f) || isTerminal(new(bytes.Buffer)) {
		t.Error("taken for a terminal")
	}
}
