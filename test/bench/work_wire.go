package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// wire measures throughput and latency over loopback.
func (b *bench) wire() {
	rounds, each, steady, rate := 4, 2*time.Second, 2*time.Second, 2000
	if b.quick {
		rounds, each, steady = 1, time.Second, time.Second/2
	}
	wrk, _ := exec.LookPath("wrk")
	b.res.Load = fmt.Sprintf("throughput by the bench's own closed loop over 32 connections (wrk was not found); latency by its own open loop, %d requests a second over 64", rate)
	if wrk != "" {
		b.res.Load = fmt.Sprintf("throughput by `wrk -t1 -c32`; latency by the bench's own open loop, %d requests a second over 64 connections", rate)
	}
	for round := range rounds {
		for t := range b.turns(b.onWire) {
			b.say("wire, round %d: %s", round+1, t.Name)
			b.served(t, usual, func(s *server) error {
				path := "/page/7"
				for range 50 {
					if r := s.visit("GET", path); r.status != 200 || r.err != nil {
						return fmt.Errorf("%s: status %d, %v", path, r.status, r.err)
					}
				}
				profiled := b.profiled(t, s, each)
				perSecond, err := throughput(wrk, s.addr, path, each)
				if err = cmp.Or(err, profiled()); err != nil {
					return err
				}
				b.res.add("throughput", t.Name, perSecond, "")
				request := raw(path)
				l := load{rate: rate, conns: 64, time: steady, path: func(int) []byte { return request }}.run(s.addr)
				if l.errors > 0 {
					return fmt.Errorf("%d errors under a load of %d/s", l.errors, rate)
				}
				more := ""
				if perSecond < float64(rate) {
					more = "more than it can do"
				}
				for name, share := range map[string]float64{"p50": .5, "p99": .99, "p99.9": .999} {
					b.res.add(name, t.Name, ms(l.quantile(share)), more)
				}
				return nil
			})
		}
	}
}

// profiled profiles a server for a time, where that is wanted, and returns a
// function that waits for the end.
func (b *bench) profiled(t *target, s *server, d time.Duration) (wait func() error) {
	if b.profile == "" || t.server {
		return func() error { return nil }
	}
	done := make(chan error, 1)
	go func() {
		done <- func() error {
			r, err := controller.Get("http://" + s.control + "/profile?for=" + d.String())
			if err != nil {
				return err
			}
			defer r.Body.Close()
			file, err := os.Create(filepath.Join(b.profile, strings.ReplaceAll(t.Name, " ", "-")+".prof"))
			if err != nil {
				return err
			}
			_, err = io.Copy(file, r.Body)
			return cmp.Or(err, file.Close())
		}()
	}()
	return func() error { return <-done }
}

var wrkRate = regexp.MustCompile(`Requests/sec:\s+([0-9.]+)`)
var wrkErrors = regexp.MustCompile(`(?m)^\s*(Non-2xx.*|Socket errors:.*)$`)

// throughput asks for a page as fast as it comes.
func throughput(wrk, addr, path string, d time.Duration) (float64, error) {
	if wrk == "" {
		perSecond, errors := closed(addr, 32, d, raw(path))
		if errors > 0 {
			return 0, fmt.Errorf("%d errors", errors)
		}
		return perSecond, nil
	}
	seconds := strconv.Itoa(int(d.Seconds())) + "s"
	out, err := exec.Command(wrk, "-t1", "-c32", "-d"+seconds, "-H", "Host: example.com", "http://"+addr+path).Output()
	if err != nil {
		return 0, fmt.Errorf("wrk: %w", err)
	}
	if m := wrkErrors.Find(out); m != nil {
		return 0, fmt.Errorf("wrk: %s", m)
	}
	m := wrkRate.FindSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("wrk said nothing")
	}
	return strconv.ParseFloat(string(m[1]), 64)
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
