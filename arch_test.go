package isr_test

import (
	"bytes"
	"cmp"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// rooms are the packages of the module's inside, and which of them each may import
// beside the standard library: none imports the root, and none forms a circle, since
// each names only those above it.
// internal/isrtest is for tests alone, which TestOnlyTestsImportIsrtest checks.
var rooms = []struct{ name, imports string }{
	{"store/internal/filter", ""},
	{"store/internal/hints", ""},
	{"store", "store/internal/filter"},
	{"internal/header", ""},
	{"internal/webhook", ""},
	{"internal/servers", ""},
	{"edge", "store"},
	{"edge/internal/edgekit", "edge internal/header store"},
	{"edge/internal/fakecdn", ""},
	{"edge/edgetest", "edge edge/internal/edgekit edge/internal/fakecdn store"},
	{"edge/varnish", "edge edge/edgetest edge/internal/edgekit internal/servers store"},
	{"edge/nginx", "edge edge/edgetest edge/internal/edgekit internal/servers store"},
	{"edge/cloudflare", "edge edge/edgetest edge/internal/edgekit edge/internal/fakecdn store"},
	{"edge/fastly", "edge edge/edgetest edge/internal/edgekit edge/internal/fakecdn store"},
	{"internal/isrtest", ""},
	{"internal/guard", "store"},
	{"internal/pagekey", "internal/header"},
	{"internal/changed", "internal/pagekey"},
	{"internal/policy", "internal/header internal/pagekey"},
	{"internal/front", "edge internal/pagekey store"},
	{"internal/parallel", ""},
	{"internal/progress", ""},
	{"internal/remade", ""},
	{"internal/warning", "internal/policy"},
	{"internal/routing", "internal/pagekey internal/policy"},
	{"internal/inside", "internal/pagekey internal/policy"},
	{"internal/invalidation", "internal/pagekey store"},
	{"internal/budget", ""},
	{"internal/respwriter", "internal/budget internal/header internal/policy"},
	{"internal/page", "internal/header internal/invalidation internal/pagekey internal/policy store"},
	{"internal/backing", "internal/guard internal/invalidation internal/pagekey store"},
	{"internal/cache", "internal/budget internal/invalidation internal/page internal/pagekey internal/policy store"},
	{"internal/builds", "internal/backing internal/cache internal/page internal/pagekey internal/policy store"},
	{"internal/encode", "internal/cache internal/header internal/page"},
	{"internal/flight", "internal/backing internal/budget internal/builds internal/cache internal/encode internal/header internal/inside internal/invalidation internal/page internal/pagekey internal/policy internal/respwriter store"},
	{"internal/expire", "internal/backing internal/cache internal/changed internal/flight internal/front internal/invalidation internal/pagekey store"},
	{"internal/compare", "internal/flight internal/header internal/page internal/pagekey internal/policy internal/warning"},
	{"internal/data", "internal/cache internal/flight internal/inside internal/invalidation internal/page internal/pagekey internal/policy"},
	{"internal/renew", "internal/builds internal/cache internal/flight internal/invalidation internal/page internal/pagekey internal/parallel internal/policy internal/routing store"},
}

// Each room imports what it may, and there is no other.
func TestArrows(t *testing.T) {
	const module = "github.com/isr-go/isr/"
	allowed, above := make(map[string][]string), make(map[string]bool)
	for _, room := range rooms {
		allowed[room.name] = strings.Fields(room.imports)
		for _, name := range allowed[room.name] {
			if !above[name] {
				t.Errorf("%s may import %s, which is not above it", room.name, name)
			}
		}
		above[room.name] = true
	}
	for _, folder := range []string{"internal", "edge"} {
		err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() && filepath.Base(path) != "internal" && !above[filepath.ToSlash(path)] {
				t.Errorf("%s is not among the rooms", path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, imports := range allowed {
		files, err := filepath.Glob(filepath.Join(filepath.FromSlash(name), "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v, %v", name, files, err)
		}
		for _, file := range files {
			f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
			if err != nil {
				t.Fatal(err)
			}
			for _, spec := range f.Imports {
				path, _ := strconv.Unquote(spec.Path.Value)
				if path+"/" == module {
					t.Errorf("%s imports the root", file)
				}
				if room, ours := strings.CutPrefix(path, module); ours && room != name && !slices.Contains(imports, room) {
					t.Errorf("%s imports %s", file, room)
				}
			}
		}
	}
}

// What tests share is in no program: only tests, and the programs under test/, import it.
func TestOnlyTestsImportIsrtest(t *testing.T) {
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() && (path == "test" || d.Name() == ".git") {
			return cmp.Or(err, fs.SkipDir)
		}
		if filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range f.Imports {
			if spec.Path.Value == `"github.com/isr-go/isr/internal/isrtest"` {
				t.Errorf("%s imports internal/isrtest", path)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// The drawing in docs/architecture.md has each room, and the root, with what it imports
// when it is not tested.
func TestArchitecture(t *testing.T) {
	const module = "github.com/isr-go/isr"
	text, err := os.ReadFile(filepath.Join("docs", "architecture.md"))
	if err != nil {
		t.Fatal(err)
	}
	short := func(room string) string { return strings.TrimPrefix(room, "internal/") }
	want := make(map[string]string)
	for _, room := range append(rooms, struct{ name, imports string }{name: "."}) {
		files, _ := filepath.Glob(filepath.Join(filepath.FromSlash(room.name), "*.go"))
		var imports []string
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
			if err != nil {
				t.Fatal(err)
			}
			for _, spec := range f.Imports {
				path, _ := strconv.Unquote(spec.Path.Value)
				if imported, ours := strings.CutPrefix(path, module+"/"); ours {
					imports = append(imports, short(imported))
				}
			}
		}
		slices.Sort(imports)
		name := short(room.name)
		if room.name == "." {
			name = "isr"
		}
		want[name] = strings.Join(slices.Compact(imports), " ")
	}
	got := make(map[string]string)
	for _, m := range regexp.MustCompile(`(?m)^(\S+) +->(.*)$`).FindAllStringSubmatch(string(text), -1) {
		name, imports := m[1], strings.Fields(m[2])
		for _, imported := range imports {
			if _, above := got[imported]; above || imported == name {
				t.Errorf("%s imports %s, which is not below it in the drawing", name, imported)
			}
		}
		slices.Sort(imports)
		got[name] = strings.Join(imports, " ")
	}
	for name, imports := range want {
		if drawn, ok := got[name]; !ok || drawn != imports {
			t.Errorf("docs/architecture.md has %s -> %s, want %s", name, drawn, imports)
		}
		delete(got, name)
	}
	for name := range got {
		t.Errorf("docs/architecture.md has %s, which is not among the rooms", name)
	}
}

// No source is longer than 500 lines, and none of the root than 400.
func TestLengthOfSources(t *testing.T) {
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		limit := 500
		if filepath.Dir(path) == "." {
			limit = 400
		}
		if n := bytes.Count(b, []byte("\n")); n > limit {
			t.Errorf("%s has %d lines, more than %d", path, n, limit)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Each mutex says what it guards, and where it stands among the others: see Site.
func TestMutexesSayTheirOrder(t *testing.T) {
	dirs := []string{".", "store/memory", "store/file", "inspect"}
	for _, room := range rooms {
		dirs = append(dirs, room.name)
	}
	mutex := regexp.MustCompile(`^\t\w+\s+sync\.(RW)?Mutex\b`)
	says := regexp.MustCompile(`guards|held`)
	order := regexp.MustCompile(`alone|outermost|under|before`)
	for _, dir := range dirs {
		files, _ := filepath.Glob(filepath.Join(filepath.FromSlash(dir), "*.go"))
		for _, file := range files {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			comment := "" // above the line
			for line := range strings.Lines(string(b)) {
				if text := comment + line; mutex.MatchString(line) && !strings.HasSuffix(file, "_test.go") &&
					(!says.MatchString(text) || !order.MatchString(text)) {
					t.Errorf("%s: %q does not say what it guards and which locks are taken before and after it", file, line)
				}
				if strings.HasPrefix(strings.TrimSpace(line), "//") {
					comment += line
				} else {
					comment = ""
				}
			}
		}
	}
}
