package main

import (
	"fmt"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/store/file"
)

// withStore gives isr its second level, plain files, where pages are to survive
// in a directory.
func withStore(opts *isr.Options, dir string) error {
	if dir == "" {
		return nil
	}
	files, err := file.Open(dir, file.Options{})
	if err != nil {
		return fmt.Errorf("the store: %w", err)
	}
	opts.Store, opts.Version = files, "bench"
	return nil
}
