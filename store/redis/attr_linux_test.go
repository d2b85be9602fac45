package redis_test

import "syscall"

func init() {
	// No server outlives the tests, however they end.
	serverAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
