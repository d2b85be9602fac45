// Package zstd has pages in Zstandard (RFC 8878), for isr.Options.Encoders:
//
//	isr.Options{Encoders: []isr.Encoder{zstd.Encoder{}}}
//
// It stands on github.com/klauspost/compress/zstd.
package zstd

import (
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// DefaultLevel is what a zero Level means.
const DefaultLevel = int(zstd.SpeedBestCompression)

// maxWindow is the largest window that browsers must take (RFC 9659).
const maxWindow = 8 << 20

// An Encoder is an isr.Encoder for zstd. It is safe for concurrent use.
type Encoder struct {
	// Level is how much it tries, from 1 (fastest) to 4 (best), as the levels of package
	// zstd are. Zero means DefaultLevel. With any other Encode fails.
	Level int
}

// Coding implements isr.Encoder.
func (Encoder) Coding() string { return "zstd" }

// encoders are one for each level. They are safe for concurrent use.
var encoders [zstd.SpeedBestCompression + 1]struct {
	once sync.Once
	*zstd.Encoder
	err error
}

// Encode implements isr.Encoder.
func (e Encoder) Encode(w io.Writer, body []byte) error {
	level := e.Level
	if level == 0 {
		level = DefaultLevel
	}
	if level < 1 || level > int(zstd.SpeedBestCompression) {
		return fmt.Errorf("zstd: level %d: want 1 to %d", level, zstd.SpeedBestCompression)
	}
	z := &encoders[level]
	z.once.Do(func() {
		z.Encoder, z.err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.EncoderLevel(level)), zstd.WithWindowSize(maxWindow),
			zstd.WithEncoderCRC(false)) // TCP and TLS have checksums of their own
	})
	if z.err != nil {
		return z.err
	}
	_, err := w.Write(z.EncodeAll(body, nil))
	return err
}
