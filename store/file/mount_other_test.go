//go:build darwin || netbsd || openbsd

package file_test

import "errors"

func mountTmpfs(string, string) error { return errors.ErrUnsupported }

func unmount(string) {}
