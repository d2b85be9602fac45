package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// An order is what a child process is asked to do: each container has a process of its own.
type order struct {
	Do      string // pages, fill (a Store), cold (on a Store)
	Engine  string
	Pages   int
	For     time.Duration
	Others  int
	Percent int    // GOGC
	Store   string // which, for fill and cold
	Place   string // where it is: a folder or an address
	Began   time.Time
}

func (o order) name() string {
	if o.Do == "pages" {
		return fmt.Sprintf("%s with %s pages", o.Engine, thousands(float64(o.Pages)))
	}
	return o.Do + " " + o.Store
}

// An answer is what has come of it.
type answer struct {
	Values map[string]float64 // by column
	None   map[string]string  // why there is no value
}

func newAnswer() *answer { return &answer{make(map[string]float64), make(map[string]string)} }

// childEnv holds the order of a child.
const childEnv = "ISR_SCALE_ORDER"

// childMain carries out the order of a child, and reports whether this process is one. It
// ends with its parent.
func childMain() bool {
	text := os.Getenv(childEnv)
	if text == "" {
		return false
	}
	var o order
	err := json.Unmarshal([]byte(text), &o)
	if err == nil {
		go func() {
			io.Copy(io.Discard, os.Stdin)
			os.Exit(1)
		}()
		err = carryOut(o, json.NewEncoder(os.Stdout))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return true
}

func carryOut(o order, out *json.Encoder) error {
	var a *answer
	var err error
	switch o.Do {
	case "pages":
		a, err = measurePages(o)
	case "fill":
		a, err = fillStore(o)
	case "cold":
		a, err = measureCold(o)
	default:
		err = fmt.Errorf("no such order: %q", o.Do)
	}
	if err != nil {
		return err
	}
	return out.Encode(a)
}

// askChild starts this program as a child, and returns its answer.
func askChild(ctx context.Context, o order) (*answer, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	o.Began = time.Now()
	text, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	cmd.SysProcAttr = attributes()
	var stderr strings.Builder
	cmd.Stderr = &stderr
	stdin, err := cmd.StdinPipe() // closed when this process ends
	if err != nil {
		return nil, err
	}
	defer stdin.Close()
	out, err := cmd.Output()
	if err != nil {
		return nil, errors.Join(err, ctx.Err(), errors.New(strings.TrimSpace(stderr.String())))
	}
	var a answer
	if err := json.Unmarshal(out, &a); err != nil {
		return nil, fmt.Errorf("its answer: %w", err)
	}
	return &a, nil
}
