//go:build !linux

package main

import "syscall"

// attributes are none: where this process is killed, children see their standard input
// end, but servers of Stores stay.
func attributes() *syscall.SysProcAttr { return nil }
