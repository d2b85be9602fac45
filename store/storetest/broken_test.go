package storetest_test

import (
	"errors"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/isr-go/isr/store"
	"github.com/isr-go/isr/store/storetest"
)

// child is the variable that makes TestSuiteFindsEachFault the one that fails.
const child = "STORETEST_BROKEN"

var failed = regexp.MustCompile(`(?m)^ *--- FAIL: TestSuiteFindsEachFault/[^/\s]+/(\w+)`)

// The suite can fail: it finds the fault of each broken store. As a test that fails
// would fail this one, that is in another process.
func TestSuiteFindsEachFault(t *testing.T) {
	if name := os.Getenv(child); name != "" {
		for _, b := range broken {
			if b.name != name {
				continue
			}
			t.Run("store", func(t *testing.T) {
				storetest.RunInBubbles(t, func(*testing.T) storetest.Config {
					f := &faulty{engine: newEngine()}
					c := f.config([2]store.Store{f, f})
					b.breaks(f, &c)
					return c
				})
			})
		}
		return
	}
	for _, b := range broken {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			run := "^TestSuiteFindsEachFault$/^store$/^(" + strings.Join(b.caught, "|") + ")$"
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run="+run, "-test.timeout=1m")
			cmd.Env = append(os.Environ(), child+"="+b.name)
			out, err := cmd.CombinedOutput()
			if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) {
				t.Fatalf("nothing was found: %v", err)
			}
			var by []string
			for _, match := range failed.FindAllSubmatch(out, -1) {
				by = append(by, string(match[1]))
			}
			for _, want := range b.caught {
				if !slices.Contains(by, want) {
					t.Errorf("%s did not find it:\n%s", want, out)
				}
			}
		})
	}
}
