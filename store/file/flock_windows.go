package file

import (
	"os"
	"syscall"
	"unsafe"
)

// pinned: an open file cannot be replaced here, so none is kept open.
const pinned = false

var (
	kernel32     = syscall.NewLazyDLL("kernel32.dll")
	lockFileEx   = kernel32.NewProc("LockFileEx")
	unlockFileEx = kernel32.NewProc("UnlockFileEx")
)

const (
	errorDiskFull       = syscall.Errno(112)
	errorHandleDiskFull = syscall.Errno(39)
	errorDiskQuota      = syscall.Errno(1295)
)

// flock locks a file against all others who have opened it, in this process or
// another, and waits for them. The lock goes with unflock, with the file's Close, and
// with the process. What is locked is a byte far behind the end of the file: locks
// are mandatory here, and the file is read and written all the same.
func flock(f *os.File) error {
	const exclusive = 2
	at := syscall.Overlapped{OffsetHigh: 1 << 30}
	return failed(lockFileEx.Call(f.Fd(), exclusive, 0, 1, 0, uintptr(unsafe.Pointer(&at))))
}

func unflock(f *os.File) error {
	at := syscall.Overlapped{OffsetHigh: 1 << 30}
	return failed(unlockFileEx.Call(f.Fd(), 0, 1, 0, uintptr(unsafe.Pointer(&at))))
}

// failed returns the error of a call, where there was one.
func failed(ok, _ uintptr, err error) error {
	if ok != 0 {
		return nil
	}
	return err
}

// full says whether an error means that there is no room for what was to be
// written.
func full(err error) bool {
	return isAny(err, errorDiskFull, errorHandleDiskFull, errorDiskQuota)
}

// syncDir does nothing: a directory cannot be flushed here, and names are
// journalled.
func syncDir(string) error { return nil }
