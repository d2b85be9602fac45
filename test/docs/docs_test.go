// Package docs tests that what the documentation shows is true.
//
// Run it with -count=1: go test does not see that files outside of the module have
// changed.
package docs

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	// What programs in the documentation import, so that go.mod has it.
	_ "github.com/danielgtaylor/huma/v2/adapters/humago"
	_ "github.com/gin-gonic/gin"
	_ "github.com/go-chi/chi/v5"
	_ "github.com/gorilla/mux"
	_ "github.com/isr-go/isr/encoders/brotli"
	_ "github.com/isr-go/isr/encoders/zstd"
	_ "github.com/isr-go/isr/routers/chi"
	_ "github.com/isr-go/isr/store/redis"
	_ "github.com/labstack/echo/v5"
	_ "github.com/redis/rueidis"
)

const root = "../.."

// imports are what fragments may use, by the name that they use.
var imports = map[string]string{
	"context": "context", "fmt": "fmt", "http": "net/http", "json": "encoding/json", "log": "log", "os": "os", "path": "path",
	"slices": "slices", "strings": "strings", "time": "time", "url": "net/url",
	"isr":        "github.com/isr-go/isr",
	"file":       "github.com/isr-go/isr/store/file",
	"sitemap":    "github.com/isr-go/isr/sitemap",
	"webhook":    "github.com/isr-go/isr/webhook",
	"brotli":     "github.com/isr-go/isr/encoders/brotli",
	"zstd":       "github.com/isr-go/isr/encoders/zstd",
	"isrchi":     "github.com/isr-go/isr/routers/chi",
	"chi":        "github.com/go-chi/chi/v5",
	"echo":       "github.com/labstack/echo/v5",
	"gin":        "github.com/gin-gonic/gin",
	"mux":        "github.com/gorilla/mux", // a ServeMux in a fragment has another name
	"edge":       "github.com/isr-go/isr/edge",
	"varnish":    "github.com/isr-go/isr/edge/varnish",
	"nginx":      "github.com/isr-go/isr/edge/nginx",
	"cloudflare": "github.com/isr-go/isr/edge/cloudflare",
	"fastly":     "github.com/isr-go/isr/edge/fastly",
	"huma":       "github.com/danielgtaylor/huma/v2",
	"humago":     "github.com/danielgtaylor/huma/v2/adapters/humago",
	"isrtest":    "github.com/isr-go/isr/isrtest",
	"synctest":   "testing/synctest",
	"testing":    "testing",
}

// given is what surrounds a fragment.
const given = "ctx context.Context, app http.Handler, site *isr.Site, fromGhost webhook.Names"

// A block is one piece of Go in a file, and what it prints, where the file says so.
type block struct {
	file    string
	line    int
	code    string
	prints  string
	program bool
}

var goBlock = regexp.MustCompile("(?ms)^```go\n(.*?)^```$(?:\n\n<!-- it prints -->\n```\n(.*?)^```$)?")

func blocks(t *testing.T, file string) (all []block) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, file))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range goBlock.FindAllSubmatchIndex(text, -1) {
		b := block{file: file, line: 1 + bytes.Count(text[:m[2]], []byte("\n")), code: string(text[m[2]:m[3]])}
		if m[4] >= 0 {
			b.prints = string(text[m[4]:m[5]])
		}
		b.program = strings.HasPrefix(b.code, "package ")
		all = append(all, b)
	}
	return all
}

// source returns a file that holds the block: as it is, or in a function, or as
// declarations, with the imports that it needs.
func (b *block) source() (string, error) {
	code := fmt.Sprintf("//line %s:%d\n%s", b.file, b.line, b.code)
	if b.program {
		return code, nil
	}
	inFunc := "func _(" + given + ") {\n{\n" + code
	f, err := parser.ParseFile(token.NewFileSet(), "", "package p\n"+inFunc+"}\n}\n", 0)
	if err == nil {
		// What a statement defines is for the rest of the reader's program.
		body := f.Decls[0].(*ast.FuncDecl).Body.List[0].(*ast.BlockStmt)
		for _, s := range body.List {
			if s, ok := s.(*ast.AssignStmt); ok && s.Tok == token.DEFINE {
				for _, name := range s.Lhs {
					inFunc += fmt.Sprintf("_ = %s\n", name)
				}
			}
		}
		code = inFunc + "}\n}\n"
	} else if f, err = parser.ParseFile(token.NewFileSet(), "", "package p\n"+code, 0); err == nil {
		code = "func _(" + given + ") {}\n" + code
	} else {
		return "", err
	}
	used := map[string]bool{"context": true, "net/http": true, "github.com/isr-go/isr": true, "github.com/isr-go/isr/webhook": true} // by given
	ast.Inspect(f, func(n ast.Node) bool {
		if n, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := n.X.(*ast.Ident); ok && imports[x.Name] != "" {
				used[imports[x.Name]] = true
			}
		}
		return true
	})
	var out strings.Builder
	out.WriteString("package p\n")
	for _, p := range slices.Sorted(maps.Keys(used)) {
		fmt.Fprintf(&out, "import %q\n", p)
	}
	return out.String() + code, nil
}

// documents are the README and what is in docs.
func documents(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil || len(files) == 0 {
		t.Fatal("no docs", err)
	}
	names := []string{"README.md"}
	for _, f := range files {
		names = append(names, "docs/"+filepath.Base(f))
	}
	return names
}

// newModule returns a folder in which the blocks can be compiled, as this module
// requires it.
func newModule(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	top, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"go.mod", "go.sum"} {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		b = bytes.ReplaceAll(b, []byte("=> ../.."), []byte("=> "+filepath.ToSlash(top)))
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// All Go in the documentation is formatted, compiles, is vetted, and prints what it
// is said to; and every file in docs begins with a program.
func TestGo(t *testing.T) {
	dir := newModule(t)
	command := func(args ...string) *exec.Cmd {
		cmd := exec.Command("go", args...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod")
		return cmd
	}
	prints := map[string]block{}
	for _, file := range documents(t) {
		all := blocks(t, file)
		if len(all) == 0 || !all[0].program {
			t.Errorf("%s does not begin with a program", file)
		}
		for _, b := range all {
			if formatted, err := format.Source([]byte(b.code)); err != nil || string(formatted) != b.code {
				t.Errorf("%s:%d: not formatted %v", b.file, b.line, err)
			}
			source, err := b.source()
			if err != nil {
				t.Errorf("%s:%d: %v", b.file, b.line, err)
				continue
			}
			name := fmt.Sprintf("%s%d", strings.ToLower(strings.TrimSuffix(filepath.Base(b.file), ".md")), b.line)
			if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, name, "main.go"), []byte(source), 0o644); err != nil {
				t.Fatal(err)
			}
			if b.prints != "" {
				prints[name] = b
			}
		}
	}
	if out, err := command("vet", "./...").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for name, b := range prints {
		cmd := command("run", "./"+name)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil || string(out) != b.prints {
			t.Errorf("%s:%d: %v: got\n%s%s\nwant\n%s", b.file, b.line, err, out, &stderr, b.prints)
		}
	}
}

// The README is short: a program, and at most 150 lines.
func TestREADME(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	if _, rest, ok := bytes.Cut(text, []byte("\n```\n")); !ok || bytes.Count(rest, []byte("\n")) > 150 {
		t.Error("the README is too long: move something to docs")
	}
}

// The programs in the documentation that have a test are as they are tested.
func TestPrograms(t *testing.T) {
	for program, doc := range map[string]string{"server/main.go": "docs/server.md", "draft/main.go": "docs/revalidation.md"} {
		want, err := os.ReadFile(program)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(blocks(t, doc), func(b block) bool { return b.code == string(want) }) {
			t.Errorf("no program in %s is test/docs/%s", doc, program)
		}
	}
}

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.+)$`)
	notSlug = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
	fenced  = regexp.MustCompile("(?ms)^```.*?^```$")
)

// Links between the repository's files lead somewhere.
func TestLinks(t *testing.T) {
	text := func(name string) string {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Error(err)
		}
		return fenced.ReplaceAllString(string(b), "")
	}
	check := func(from, to string) {
		to, anchor, _ := strings.Cut(to, "#")
		target := filepath.Join(filepath.Dir(from), to)
		if to == "" {
			target = from
		}
		if _, err := os.Stat(target); err != nil {
			t.Errorf("%s: no %s", from, to)
		} else if anchor != "" {
			for _, h := range heading.FindAllStringSubmatch(text(target), -1) {
				if strings.ReplaceAll(notSlug.ReplaceAllString(strings.ToLower(h[1]), ""), " ", "-") == anchor {
					return
				}
			}
			t.Errorf("%s: no heading #%s in %s", from, anchor, target)
		}
	}
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == ".git" || d.Name() == "node_modules"):
			return fs.SkipDir
		case filepath.Ext(name) != ".md":
			return nil
		}
		for _, m := range link.FindAllStringSubmatch(text(name), -1) {
			if !strings.Contains(m[1], "://") && !strings.HasPrefix(m[1], "mailto:") {
				check(name, m[1])
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
