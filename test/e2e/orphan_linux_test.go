package e2e

import "syscall"

func init() { orphan = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM} }
