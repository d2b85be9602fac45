package file

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// writeTemp writes a new file, to be renamed, in the store's directory. It leaves
// none where it fails; where the process is killed, the sweeper finds it.
func writeTemp(dir, prefix string, b []byte, sync bool) (string, error) {
	temps := filepath.Join(dir, "tmp")
	f, err := os.CreateTemp(temps, prefix) // which others cannot read
	if errors.Is(err, fs.ErrNotExist) {
		if err = mkdir(dir, "tmp"); err == nil {
			f, err = os.CreateTemp(temps, prefix)
		}
	}
	if err != nil {
		return "", err
	}
	_, err = f.Write(b)
	if err == nil && sync {
		err = f.Sync()
	}
	if err2 := f.Close(); err == nil {
		err = err2
	}
	if err != nil {
		os.Remove(f.Name())
		return "", err
	}
	return f.Name(), nil
}

// mkdir makes a directory below the store's, which it makes, too, durably. Where another
// user has been faster, as may be in /tmp, it is an error.
func mkdir(dir string, sub ...string) error {
	_, err := os.Stat(dir)
	missing := errors.Is(err, fs.ErrNotExist)
	if err := os.MkdirAll(filepath.Join(append([]string{dir}, sub...)...), 0o700); err != nil {
		return err
	}
	if err := private(dir); err != nil {
		return err
	}
	if missing {
		return syncDir(filepath.Dir(dir))
	}
	return nil
}
