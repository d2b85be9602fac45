//go:build unix

package servers

import "syscall"

func init() { sigstop, sigcont = syscall.SIGSTOP, syscall.SIGCONT }
