// Package brotli has pages in brotli (RFC 7932), for isr.Options.Encoders:
//
//	isr.Options{Encoders: []isr.Encoder{brotli.Encoder{}}}
//
// It stands on github.com/andybalholm/brotli.
package brotli

import (
	"fmt"
	"io"
	"sync"

	"github.com/andybalholm/brotli"
)

// DefaultLevel is what a zero Level means.
const DefaultLevel = 9

// An Encoder is an isr.Encoder for br. It is safe for concurrent use.
type Encoder struct {
	// Level is how much it tries, from 1 to 11. Zero means DefaultLevel. With any other
	// Encode fails.
	Level int
}

// Coding implements isr.Encoder.
func (Encoder) Coding() string { return "br" }

// writers are those that are not in use, by level.
var writers [brotli.BestCompression + 1]sync.Pool

// Encode implements isr.Encoder.
func (e Encoder) Encode(w io.Writer, body []byte) error {
	level := e.Level
	if level == 0 {
		level = DefaultLevel
	}
	if level < 1 || level > brotli.BestCompression {
		return fmt.Errorf("brotli: level %d: want 1 to %d", level, brotli.BestCompression)
	}
	b, ok := writers[level].Get().(*brotli.Writer)
	if ok {
		b.Reset(w)
	} else {
		b = brotli.NewWriterLevel(w, level)
	}
	if _, err := b.Write(body); err != nil {
		return err // it is not used again
	}
	if err := b.Close(); err != nil {
		return err
	}
	b.Reset(nil)
	writers[level].Put(b)
	return nil
}
