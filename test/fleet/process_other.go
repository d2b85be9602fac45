//go:build !linux

package main

import "syscall"

// attributes are none: where this process is killed, instances see their standard
// input end, but redis-server stays.
func attributes() *syscall.SysProcAttr { return nil }
