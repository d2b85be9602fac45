package main

import (
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The unit is one that systemd takes, as far as systemd-analyze knows.
func TestUnit(t *testing.T) {
	unit, err := os.ReadFile("isrproxy.service")
	if err != nil {
		t.Fatal(err)
	}
	environ := settings(regexp.MustCompile(`(?m)^(?:#\t|Environment=)(ISRPROXY_\w+)=(\S+)$`), unit)
	if _, err := parseFlags(nil, environ, io.Discard); err != nil || len(environ) != 5 {
		t.Errorf("its environment, %q: %v", environ, err)
	}

	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("there is no systemd-analyze: the unit is not verified")
	}
	// What it names need not be there; another program is.
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "isrproxy.service")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(string(unit), "/usr/local/bin/isrproxy", program)), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(analyze, "verify", "--man=no", file).CombinedOutput()
	var ours []string
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "isrproxy.service") {
			ours = append(ours, line) // other units of the machine are not our business
		}
	}
	if len(ours) > 0 {
		t.Errorf("systemd-analyze says (%v):\n%s", err, strings.Join(ours, ""))
	}
}

// The plugin for WordPress is PHP.
func TestPlugin(t *testing.T) {
	php, err := exec.LookPath("php")
	if err != nil {
		t.Skip("there is no php: the plugin is not looked at")
	}
	if out, err := exec.Command(php, "-l", "isr-purge.php").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// The Dockerfile is not built here; what it names is there, and its flags are flags.
func TestDockerfile(t *testing.T) {
	b, err := os.ReadFile("Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]int{"FROM": 2, "WORKDIR": 1, "COPY": 3, "RUN": 1, "ENV": 1, "VOLUME": 1, "EXPOSE": 1, "USER": 1, "ENTRYPOINT": 1}
	seen := map[string]int{}
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		instruction, rest, _ := strings.Cut(line, " ")
		seen[instruction]++
		switch instruction {
		case "FROM":
			if image := strings.Fields(rest)[0]; !strings.Contains(image, ":") || strings.HasSuffix(image, ":latest") {
				t.Errorf("%s: want a version", image)
			}
		case "ENTRYPOINT":
			if !strings.HasPrefix(rest, "[") {
				t.Errorf("%s: a shell would keep the signals for itself", line)
			}
		case "USER":
			if strings.HasPrefix(rest, "0") || strings.HasPrefix(rest, "root") {
				t.Errorf("%s: want none who may do everything", line)
			}
		}
	}
	if !maps.Equal(seen, known) {
		t.Errorf("instructions %v, want %v", seen, known)
	}
	environ := append(settings(regexp.MustCompile(`(ISRPROXY_\w+)=(\S+)`), b), "ISRPROXY_ORIGIN=http://site:9000")
	if _, err := parseFlags(nil, slices.Compact(environ), io.Discard); err != nil {
		t.Errorf("its environment, %q: %v", environ, err)
	}
	if _, err := os.Stat("../../cmd/isrproxy/main.go"); err != nil {
		t.Error(err)
	}
}

// settings finds variables in a file.
func settings(pattern *regexp.Regexp, file []byte) (environ []string) {
	for _, m := range pattern.FindAllSubmatch(file, -1) {
		environ = append(environ, string(m[1])+"="+string(m[2]))
	}
	return environ
}
