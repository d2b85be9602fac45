package servers

import "syscall"

func init() { serverAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
