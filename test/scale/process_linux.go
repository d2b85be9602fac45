package main

import "syscall"

// attributes make the system kill a child whose parent has ended, however it has.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
