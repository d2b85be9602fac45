//go:build unix

package redis_test

import "syscall"

func init() { sigstop, sigcont = syscall.SIGSTOP, syscall.SIGCONT }
