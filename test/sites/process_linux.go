package main

import "syscall"

// attributes put a server into a group of its own, so that it and its children can be
// killed together, and make the system kill it where this program is.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
