package file

import (
	"os"
	"syscall"
	"time"
)

// rename replaces a file. Here it fails as long as the old one is open, which
// it is only to be read, and not for long.
func rename(from, to string) error {
	const errorSharingViolation = syscall.Errno(32)
	for pause := time.Millisecond; ; pause *= 2 {
		err := os.Rename(from, to)
		if pause > 64*time.Millisecond || !isAny(err, errorSharingViolation, syscall.ERROR_ACCESS_DENIED) {
			return err
		}
		time.Sleep(pause)
	}
}
