package main

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// An exchange is a request, and its answers without isr and with it.
type exchange struct {
	router, protocol string
	request
	again   bool // whether it is the second time
	off, on answer
	get     answer // to HEAD: what GET got before, without isr
}

func (x *exchange) String() string {
	again := ""
	if x.again {
		again = ", again"
	}
	return fmt.Sprintf("%s, %s: %s%s", x.router, x.protocol, &x.request, again)
}

// around puts around a site what belongs there: sessions, and the check where a
// request comes from.
func around(s *site, h http.Handler) http.Handler {
	return http.NewCrossOriginProtection().Handler(s.sessions.LoadAndSave(h))
}

// start starts a server of a new site.
func start(build func(*site) http.Handler, protocol string) (*client, *site, error) {
	s := newSite()
	c, err := serve(around(s, build(s)), protocol)
	return c, s, err
}

// compare sends all requests to a router without isr and with it, those without an
// effect twice, and calls yield with what has come of each.
func compare(router, protocol string, without, with func(*site) http.Handler, yield func(*exchange)) error {
	off, _, err := start(without, protocol)
	if err != nil {
		return err
	}
	defer off.close()
	on, _, err := start(with, protocol)
	if err != nil {
		return err
	}
	defer on.close()
	got := make(map[string]answer)
	for _, q := range requests() {
		for again := range 2 {
			x := exchange{router: router, protocol: protocol, request: q, again: again == 1}
			if x.off, err = off.ask(&q); err != nil {
				return fmt.Errorf("%s, without isr: %w", &x, err)
			}
			if x.on, err = on.ask(&q); err != nil {
				return fmt.Errorf("%s, with isr: %w", &x, err)
			}
			x.get = got[q.target]
			yield(&x)
			if q.method == "GET" && len(q.headers) == 0 {
				got[q.target] = x.off
			}
			if q.method != "GET" && q.method != "HEAD" {
				break
			}
		}
	}
	return nil
}

// A report is what has come of all comparisons.
type report struct {
	exchanges   int
	found       [][]string // by difference: the routers that it was found with
	unexplained []string
}

// compareAll compares all routers, over all protocols.
func compareAll() (*report, error) {
	rep := &report{found: make([][]string, len(differences))}
	for _, r := range routers {
		for _, protocol := range protocols {
			err := compare(r.name, protocol, r.off, r.on, func(x *exchange) {
				rep.exchanges++
				for _, c := range changes(x.off, x.on) {
					if i := explain(x, c); i < 0 {
						rep.unexplained = append(rep.unexplained, fmt.Sprintf("%s:\n  %s (%s) without isr: %.200q\n  %s (%s) with isr:    %.200q (%s)",
							x, c.field, x.off["status"], c.off, c.field, x.on["status"], c.on, x.on["Cache-Status"]))
					} else if !slices.Contains(rep.found[i], r.name) {
						rep.found[i] = append(rep.found[i], r.name)
					}
				}
			})
			if err != nil {
				return nil, err
			}
		}
	}
	return rep, nil
}

// table returns the differences as the README has them.
func (rep *report) table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d requests, of which those without an effect are sent twice, to %d routers over %d protocols, to chi also with isr\ninside (`routers/chi`): %d answers are compared.\n\n",
		len(requests()), len(routers)-1, len(protocols), rep.exchanges)
	b.WriteString("| with isr | where | routers | why |\n| --- | --- | --- | --- |\n")
	for i, d := range differences {
		who := strings.Join(rep.found[i], ", ")
		switch len(rep.found[i]) {
		case 0:
			who = "none"
		case len(routers):
			who = "all"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", d.what, d.where, who, d.why)
	}
	return b.String()
}
