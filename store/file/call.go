package file

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/isr-go/isr/store"
)

// again does something again that came to nothing because the directory was deleted
// meanwhile.
func again[T any](f func() (T, error)) (T, error) {
	for range 8 {
		v, err := f()
		if !errors.Is(err, errReplaced) && !errors.Is(err, fs.ErrNotExist) {
			return v, err
		}
	}
	return f()
}

// call returns what f does, or when the context ends, and gives its errors the form
// that the contract wants. Of those that go on without their callers, there are no
// more than room holds.
func call[T any](ctx context.Context, room chan struct{}, name string, f func() (T, error)) (T, error) {
	v, err := within(ctx, room, f)
	if err == nil {
		return v, nil
	}
	var zero T
	if isAny(err, store.ErrNotFound, store.ErrSuperseded, store.ErrTooLarge, context.Canceled, context.DeadlineExceeded) {
		return zero, err
	}
	return zero, fmt.Errorf("store/file: %s: %w: %w", name, store.ErrUnavailable, err)
}

// within calls f, and leaves it behind when the context ends.
func within[T any](ctx context.Context, room chan struct{}, f func() (T, error)) (v T, err error) {
	type result struct {
		v   T
		err error
	}
	if err := ctx.Err(); err != nil {
		return v, err
	}
	if ctx.Done() == nil {
		return recovered(f)
	}
	select {
	case room <- struct{}{}:
	case <-ctx.Done():
		return v, ctx.Err()
	}
	done := make(chan result, 1)
	go func() {
		defer func() { <-room }()
		v, err := recovered(f)
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.v, r.err
	case <-ctx.Done():
		return v, ctx.Err()
	}
}

// recovered makes an error of a panic: on a goroutine of our own it would end the
// program.
func recovered[T any](f func() (T, error)) (v T, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return f()
}

// isAny says whether an error is one of several.
func isAny(err error, targets ...error) bool {
	return slices.ContainsFunc(targets, func(target error) bool { return errors.Is(err, target) })
}
