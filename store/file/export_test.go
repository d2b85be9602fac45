package file

import (
	"os"
	"path/filepath"
	"testing"
)

// SetSlack has the log rewritten as soon as it has grown by n bytes.
func (s *Store) SetSlack(n int64) { s.history.slack = n }

// HoldLock holds the lock of all processes, as one that was stopped does.
func HoldLock(t *testing.T, dir string) (release func()) {
	f, err := os.OpenFile(filepath.Join(dir, "state"), os.O_RDWR, 0)
	if err == nil {
		err = flock(f)
	}
	if err != nil {
		t.Fatal(err)
	}
	return func() { f.Close() }
}
