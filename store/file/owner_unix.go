//go:build unix

package file

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// private returns an error unless a directory belongs to the user of this process, and
// nobody else may write to it: with that right one puts pages into it that visitors get. Root
// is refused a directory of another user, too: what it wrote there its owner could
// change, and could not remove.
func private(dir string) error {
	link, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if uid, ok := owner(link); ok && link.Mode()&fs.ModeSymlink != 0 && uid != os.Geteuid() && uid != 0 {
		return fmt.Errorf("%s is a symbolic link of another user (uid %d), who may lead it anywhere: name the directory itself", dir, uid)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if err := own(dir, info); err != nil {
		return err
	}
	if perm := info.Mode().Perm(); perm&0o022 != 0 {
		return fmt.Errorf("others may write to %s (mode %04o), and so choose what visitors get: chmod go-w it, or give a directory that does not exist yet", dir, perm)
	}
	return nil
}

// own returns an error unless a file belongs to the user of this process.
func own(path string, info fs.FileInfo) error {
	uid, ok := owner(info)
	if !ok || uid == os.Geteuid() {
		return nil
	}
	who := fmt.Sprintf("uid %d", os.Geteuid())
	if os.Geteuid() == 0 {
		who = "root, for whom this is no exception"
	}
	return fmt.Errorf("%s belongs to another user (uid %d), and this process runs as %s: run it as the owner, also to read only, chown it, or give another directory", path, uid, who)
}

func owner(info fs.FileInfo) (uid int, ok bool) {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return int(stat.Uid), true
}
