//go:build darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd

package file

import (
	"os"
	"syscall"
)

// pinned: an open file keeps its inode's number from being given to another file,
// and can be replaced all the same.
const pinned = true

// flock locks a file against all others who have opened it, in this process or
// another, and waits for them. The lock goes with unflock, with the file's Close, and
// with the process.
func flock(f *os.File) error { return flockHow(f, syscall.LOCK_EX) }

func unflock(f *os.File) error { return flockHow(f, syscall.LOCK_UN) }

func flockHow(f *os.File, how int) error {
	for {
		err := syscall.Flock(int(f.Fd()), how)
		if err != syscall.EINTR {
			return err
		}
	}
}

// full says whether an error means that there is no room for what was to be
// written: on the disk, in the quota, or under the limit of a file's size.
func full(err error) bool {
	return isAny(err, syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG)
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
