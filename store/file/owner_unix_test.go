//go:build unix

package file_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/isr-go/isr/store"
	"github.com/isr-go/isr/store/file"
	"github.com/isr-go/isr/store/storetest"
)

const nobody = 65534

// With another umask, t.TempDir may be writable for a group, which Open refuses.
func init() { syscall.Umask(0o022) }

func TestOpenRefusesWhatOthersMayWrite(t *testing.T) {
	for _, tt := range []struct {
		mode os.FileMode
		ok   bool
	}{
		{0o700, true}, {0o750, true}, {0o755, true}, {0o555, true}, {0o755 | os.ModeSetgid, true},
		{0o720, false}, {0o702, false}, {0o775, false}, {0o777, false}, {0o777 | os.ModeSticky, false},
	} {
		dir := filepath.Join(t.TempDir(), "pages")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, tt.mode); err != nil {
			t.Fatal(err)
		}
		_, err := file.Open(dir, file.Options{})
		if tt.ok && err != nil {
			t.Errorf("mode %v: %v", tt.mode, err)
		}
		if !tt.ok && (err == nil || !strings.Contains(err.Error(), "others may write to "+dir) || !strings.Contains(err.Error(), "chmod go-w")) {
			t.Errorf("mode %v: error %v, want one that says what to do", tt.mode, err)
		}
	}
}

// What Open makes is private to its user, whatever is above it: in /tmp, only the owner
// can move it away.
func TestOpenMakesAPrivateDirectory(t *testing.T) {
	parent := t.TempDir()
	if err := os.Chmod(parent, 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(parent, "pages")
	put(t, open(t, dir, file.Options{}), "key", "data")
	is(t, open(t, dir, file.Options{}), "key", "data", store.None)
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, error %v, want 0700", info.Mode(), err)
	}
}

func TestOpenRefusesADirectoryOfAnotherUser(t *testing.T) {
	dir, says := "/", "this process runs as uid" // of root
	if os.Geteuid() == 0 {
		dir, says = ofNobody(t), "root, for whom this is no exception"
	}
	_, err := file.Open(dir, file.Options{})
	if err == nil || !strings.Contains(err.Error(), "belongs to another user") || !strings.Contains(err.Error(), says) {
		t.Errorf("error %v, want one that says whose it is, and what to do", err)
	}
}

// ofNobody makes a directory of another user, which root alone can.
func ofNobody(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	dir := filepath.Join(t.TempDir(), "nobody's")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestOpenFollowsOnlyLinksThatCanBeTrusted(t *testing.T) {
	dir := t.TempDir()
	target, link := filepath.Join(dir, "pages"), filepath.Join(dir, "link")
	open(t, target, file.Options{})
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	put(t, open(t, link, file.Options{}), "key", "data")
	is(t, open(t, target, file.Options{}), "key", "data", store.None)
	if os.Geteuid() != 0 {
		t.Skip("only root can give links away")
	}
	if err := os.Lchown(link, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	if _, err := file.Open(link, file.Options{}); err == nil || !strings.Contains(err.Error(), "symbolic link of another user") {
		t.Errorf("error %v", err)
	}
}

// Where the parent is another's, the directory can be replaced while it is used.
func TestADirectoryThatAnotherUserPutInPlaceIsRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pages")
	s := open(t, dir, file.Options{})
	put(t, s, "key", "data")
	theirs := ofNobody(t)
	put(t, open(t, filepath.Join(theirs, "x"), file.Options{}), "key", "evil")
	if err := os.Rename(dir, dir+" away"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(theirs, "x"), dir); err != nil {
		t.Fatal(err)
	}
	give(t, dir, nobody)
	_, _, err := storetest.Get(t.Context(), s, "key")
	wantError(t, err, store.ErrUnavailable)
	_, err = s.Invalidate(t.Context(), store.Gone, "tag")
	wantError(t, err, store.ErrUnavailable)
	if !strings.Contains(err.Error(), "belongs to another user") {
		t.Errorf("error %v", err)
	}

	// Nor is one used that is empty.
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	for _, sub := range []string{"", "tmp", "pages"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	give(t, dir, nobody)
	if _, err = s.Invalidate(t.Context(), store.Gone, "tag"); err == nil {
		t.Error("wrote into an empty directory of another user")
	}
}
