//go:build !linux

package main

import (
	"os/exec"
	"syscall"
)

// attributes are none: where this process is killed, instances see their standard
// input end, but servers stay.
func attributes() *syscall.SysProcAttr { return nil }

// asPostgres lets a program run in a folder. As root the server refuses to run.
func asPostgres(cmd *exec.Cmd, dir string) error {
	cmd.Dir = dir
	return nil
}
