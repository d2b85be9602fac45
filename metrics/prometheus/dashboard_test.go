package prometheus_test

import (
	"encoding/json"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/internal/isrtest"
	isrprom "github.com/isr-go/isr/metrics/prometheus"
)

// A dashboard is what of Grafana's JSON can be checked without Grafana.
type dashboard struct {
	Templating struct {
		List []struct{ Name, Definition string }
	}
	Panels []struct {
		ID      int
		Title   string
		GridPos struct{ X, Y, W, H int }
		Targets []struct{ Expr, LegendFormat string }
	}
}

// The dashboard loads; each of its queries names metrics and labels that there are, and
// each metric is shown.
func TestDashboard(t *testing.T) {
	text, err := os.ReadFile("dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var d dashboard
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}

	m := isrprom.New(isrprom.Options{})
	m.Observe(isr.Event{Kind: isr.Generated})
	m.Observe(isr.Event{Kind: isr.Hit})
	m.Observe(isr.Event{Kind: isr.DataHit, Route: "data:menu"})
	exposition := isrtest.Do(register(t, m, isr.Wrap(http.NotFoundHandler(), isr.Options{})), "GET", "/metrics").Body.String()
	labels := make(map[string]map[string]bool) // of each metric
	for series := range samples(t, exposition) {
		name, rest, _ := strings.Cut(series, "{")
		if labels[name] == nil {
			labels[name] = map[string]bool{"job": true, "instance": true} // which Prometheus adds
		}
		for _, l := range regexp.MustCompile(`(\w+)="`).FindAllStringSubmatch(rest, -1) {
			labels[name][l[1]] = true
		}
	}

	shown := make(map[string]bool)
	check := func(where, query string) {
		names := regexp.MustCompile(`\bisr_\w+`).FindAllString(query, -1)
		if len(names) == 0 {
			t.Errorf("%s: %s names no metric", where, query)
		}
		has := make(map[string]bool)
		for _, name := range names {
			shown[name] = true
			if labels[name] == nil {
				t.Errorf("%s: there is no %s", where, name)
			}
			for l := range labels[name] {
				has[l] = true
			}
		}
		used := regexp.MustCompile(`(\w+)(?:=~|!=|=)"`).FindAllStringSubmatch(query, -1)
		for _, by := range regexp.MustCompile(`\bby \(([^)]*)\)`).FindAllStringSubmatch(query, -1) {
			for l := range strings.SplitSeq(by[1], ",") {
				used = append(used, []string{l, strings.TrimSpace(l)})
			}
		}
		for _, l := range used {
			if !has[l[1]] {
				t.Errorf("%s: %s has no label %q", where, query, l[1])
			}
		}
		if strings.Count(query, "(") != strings.Count(query, ")") || strings.Count(query, "{") != strings.Count(query, "}") {
			t.Errorf("%s: %s does not close what it opens", where, query)
		}
	}
	variables := map[string]bool{"__rate_interval": true}
	for _, v := range d.Templating.List {
		variables[v.Name] = true
		if v.Definition != "" {
			labelValues := regexp.MustCompile(`^label_values\((.*), (\w+)\)$`).FindStringSubmatch(v.Definition)
			if labelValues == nil {
				t.Errorf("variable %s: %s", v.Name, v.Definition)
				continue
			}
			check("variable "+v.Name, labelValues[1])
		}
	}
	for _, v := range regexp.MustCompile(`\$\{?(\w+)`).FindAllStringSubmatch(string(text), -1) {
		if !variables[v[1]] && v[1] != "__all" {
			t.Errorf("there is no variable %q", v[1])
		}
	}
	taken := make(map[[2]int]string)
	ids := make(map[int]bool)
	for _, p := range d.Panels {
		if p.Title == "" || len(p.Targets) == 0 || ids[p.ID] {
			t.Errorf("panel %d, %q: no title, no queries, or not the only one", p.ID, p.Title)
		}
		ids[p.ID] = true
		for _, target := range p.Targets {
			check(p.Title, target.Expr)
		}
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other, ok := taken[[2]int{x, y}]; ok || x >= 24 {
					t.Fatalf("%q lies over %q, or beyond the edge", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
	}
	for name := range labels {
		base := strings.TrimSuffix(strings.TrimSuffix(name, "_sum"), "_count")
		if !shown[name] && !shown[base+"_bucket"] {
			t.Errorf("no panel shows %s", name)
		}
	}
}
