//go:build darwin || linux || netbsd || openbsd

package file_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/isr-go/isr/internal/isrtest"
	"github.com/isr-go/isr/store"
	"github.com/isr-go/isr/store/file"
	"github.com/isr-go/isr/store/storetest"
)

func init() {
	children["limited"] = limited
	children["readonly"] = readOnly
	children["reader"] = reader
}

// limitFiles has a write fail where a file would get larger than this. It takes what
// is before.
func limitFiles(size uint64) error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	limit.Cur = min(limit.Max, size)
	return syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit)
}

// A process whose files cannot grow purges and puts: what it could not do leaves no
// trace, wherever in the entry the disk was full, and hides nothing that comes then.
func TestFilesLimited(t *testing.T) {
	run(t, "limited", t.TempDir())
}

func limited(dir string) error {
	signal.Ignore(syscall.SIGXFSZ)
	s, err := file.Open(dir, file.Options{})
	if err != nil {
		return err
	}
	if err := errors.Join(store1(s, "key", "tag"), store1(s, "purged", "purged")); err != nil {
		return err
	}
	old, _, err := storetest.Get(background, s, "key")
	if err != nil {
		return err
	}
	if _, err := s.Invalidate(background, store.Gone, "purged"); err != nil {
		return err
	}
	log := filepath.Join(dir, "purges")
	const unlimited = 1 << 40
	// An entry with this tag has 26 bytes.
	for room := range uint64(26) {
		info, err := os.Stat(log)
		if err != nil {
			return err
		}
		if err := limitFiles(uint64(info.Size()) + room); err != nil {
			return err
		}
		if _, err := s.Invalidate(background, store.Gone, "tag"); !errors.Is(err, store.ErrUnavailable) || !errors.Is(err, syscall.EFBIG) {
			return fmt.Errorf("Invalidate with %d bytes of room: %v", room, err)
		}
		if now, err := os.Stat(log); err != nil || now.Size() != info.Size() {
			return fmt.Errorf("the log has %d bytes, and had %d: %v", now.Size(), info.Size(), err)
		}
		ticket, err := storetest.Begin(background, s, "key", time.Minute)
		if err != nil {
			return err
		}
		err = s.Put(background, "key", ticket, &store.Record{Data: make([]byte, 1<<20)})
		if !errors.Is(err, store.ErrTooLarge) || !errors.Is(err, syscall.EFBIG) {
			return fmt.Errorf("Put with %d bytes of room: %v", info.Size(), err)
		}
		if rec, effect, err := storetest.Get(background, s, "key"); err != nil || effect != store.None || string(rec.Data) != string(old.Data) {
			return fmt.Errorf("the old record: %v, %v", effect, err)
		}
		if err := limitFiles(unlimited); err != nil {
			return err
		}
		// What is acknowledged now counts for a process that has just started, too.
		name := fmt.Sprint("after ", room)
		if err := store1(s, name, name); err != nil {
			return err
		}
		if _, err := s.Invalidate(background, store.Gone, name); err != nil {
			return err
		}
		fresh, err := file.Open(dir, file.Options{})
		if err != nil {
			return err
		}
		for _, key := range []string{"purged", name} {
			if _, _, err := storetest.Get(background, fresh, key); !errors.Is(err, store.ErrNotFound) {
				return fmt.Errorf("the purge of %q is lost: %v", key, err)
			}
		}
	}
	return noTemps(dir)
}

func noTemps(dir string) error {
	files, err := os.ReadDir(filepath.Join(dir, "tmp"))
	if err == nil && len(files) > 0 {
		err = fmt.Errorf("%d temporary files are left", len(files))
	}
	return err
}

// On a disk that is really full, what is there stays, and when there is room again the
// store goes on.
func TestDiskFull(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("a small file system can be mounted on Linux alone; TestFilesLimited stands in for it")
	}
	dir := t.TempDir()
	if err := mountTmpfs(dir, "size=256k,mode=0700"); err != nil {
		t.Skipf("a small file system cannot be mounted (%v); TestFilesLimited stands in for it", err)
	}
	t.Cleanup(func() { unmount(dir) })
	s := open(t, dir, file.Options{MaxBytes: -1})
	put(t, s, "key", "old", "tag")
	put(t, s, "purged", "old", "purged")
	put(t, s, "short", "old", "short")
	invalidate(t, s, store.Gone, "purged")
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 1<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	ticket, err := storetest.Begin(t.Context(), s, "key", time.Minute)
	if err != nil || ticket.Version == 0 {
		t.Fatalf("Begin: %+v, %v", ticket, err)
	}
	err = s.Put(t.Context(), "key", ticket, &store.Record{Data: make([]byte, 9999)})
	wantError(t, err, store.ErrTooLarge)
	wantError(t, err, syscall.ENOSPC)
	is(t, s, "key", "old", store.None)
	if err := noTemps(dir); err != nil {
		t.Error(err)
	}
	many := make([]string, 500) // more than there is room for in the log's last block
	for i := range many {
		many[i] = fmt.Sprint("a tag as long as a path ", i)
	}
	for range 3 {
		_, err = s.Invalidate(t.Context(), store.Gone, append(many, "tag")...)
		wantError(t, err, store.ErrUnavailable)
		wantError(t, err, syscall.ENOSPC)
	}
	is(t, s, "key", "old", store.None)
	// A short one has room in it, and counts.
	is(t, s, "short", "old", store.None)
	invalidate(t, s, store.Gone, "short")
	is(t, open(t, dir, file.Options{}), "short", "", store.Gone)
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	invalidate(t, s, store.Gone, append(many, "tag")...)
	for _, s := range []store.Store{s, open(t, dir, file.Options{})} {
		is(t, s, "key", "", store.Gone)
		is(t, s, "purged", "", store.Gone)
	}
	put(t, s, "key", "new", "tag")
	is(t, s, "key", "new", store.None)
}

// On a file system that hangs, calls end with their contexts, and what they leave
// behind does not grow with their number. A FIFO without a writer hangs like that.
func TestHungFileSystem(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, file.Options{})
	put(t, s, "key", "data", "tag")
	s.Settle() // a sweep would hang, too
	log, aside := filepath.Join(dir, "purges"), filepath.Join(dir, "aside")
	if err := errors.Join(syscall.Mkfifo(aside, 0o600), os.Rename(aside, log)); err != nil {
		t.Fatal(err)
	}
	before := runtime.NumGoroutine()
	for n := range 1000 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		var err error
		if n%2 == 0 {
			_, _, err = storetest.Get(ctx, s, "key")
		} else {
			_, err = s.Invalidate(ctx, store.Gone, "tag")
		}
		cancel()
		wantError(t, err, context.DeadlineExceeded)
	}
	if n := runtime.NumGoroutine() - before; n > 150 {
		t.Errorf("%d goroutines are left by 1000 calls", n)
	}
	// The name goes first, or the next one would wait at it.
	if err := os.Rename(log, aside); err != nil {
		t.Fatal(err)
	}
	isrtest.Eventually(t, "the end of those calls", func() error {
		if f, err := os.OpenFile(aside, os.O_WRONLY|syscall.O_NONBLOCK, 0); err == nil {
			f.Close()
		}
		if n := runtime.NumGoroutine(); n > before {
			return fmt.Errorf("%d goroutines, want %d", n, before)
		}
		return nil
	})
	put(t, s, "key", "new", "tag")
	is(t, s, "key", "new", store.None)
}

// A process that may only read its directory is served, and gets errors for what it
// cannot do.
func TestReadOnly(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil { // for another user
		t.Fatal(err)
	}
	s := open(t, dir, file.Options{})
	put(t, s, "key", "data", "tag")
	put(t, s, "purged", "data", "purged")
	invalidate(t, s, store.Gone, "purged")
	modes(t, dir, 0o555, 0o444)
	if os.Geteuid() == 0 {
		give(t, dir, nobody) // root may write whatever the mode says
	}
	run(t, "readonly", dir)
	give(t, dir, os.Geteuid())

	// As long as another process of that user writes it, it works like any other.
	modes(t, dir, 0o755, 0o644)
	c := start(t, "reader", dir)
	for i, effect := range []store.Effect{store.None, store.Stale, store.Expired, store.Gone} {
		if i > 0 {
			modes(t, dir, 0o755, 0o644)
			invalidate(t, s, effect, "tag")
		}
		if !c.lines.Scan() || c.lines.Text() != effect.String() {
			t.Fatalf("the reader says %q, want %v\n%s", c.lines.Text(), effect, c.err.String())
		}
	}
	if err := c.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, c.err.String())
	}
}

// give makes a user the owner of what is in a directory.
func give(t *testing.T, dir string, uid int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error { return errors.Join(err, os.Lchown(path, uid, -1)) })
	if err != nil {
		t.Fatal(err)
	}
}

// modes sets the modes of what is in a directory.
func modes(t *testing.T, dir string, folder, file os.FileMode) {
	t.Helper()
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		if info.IsDir() {
			// A folder is entered before its mode is set to one that cannot be.
			return os.Chmod(path, folder)
		}
		return os.Chmod(path, file)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error { return os.Chmod(path, 0o700) })
	})
}

// dropRights makes a root process one of another user, whom modes bind.
func dropRights() error {
	if os.Geteuid() != 0 {
		return nil
	}
	return errors.Join(syscall.Setgroups(nil), syscall.Setgid(nobody), syscall.Setuid(nobody))
}

func readOnly(dir string) error {
	if err := dropRights(); err != nil {
		return err
	}
	s, err := file.Open(dir, file.Options{})
	if err != nil {
		return fmt.Errorf("Open: %v", err)
	}
	rec, effect, err := storetest.Get(background, s, "key")
	if err != nil || string(rec.Data) != "data" || effect != store.None {
		return fmt.Errorf("Get: %v, %v", effect, err)
	}
	if _, _, err := storetest.Get(background, s, "purged"); !errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("Get of what was purged: %v", err)
	}
	first, err := storetest.Begin(background, s, "key", time.Minute)
	if err != nil || first.Version < rec.Version || !first.Leader {
		return fmt.Errorf("Begin: %+v, %v", first, err)
	}
	second, err := storetest.Begin(background, s, "key", time.Minute)
	if err != nil || second.Compare(first) <= 0 {
		return fmt.Errorf("second Begin: %+v, %v", second, err)
	}
	c, err := s.Changes(background, 0)
	if err != nil || c.Upto != first.Version || !c.Reset {
		return fmt.Errorf("Changes: %+v, %v", c, err)
	}
	if c, err = s.Changes(background, c.Upto); err != nil || c.Reset || len(c.List) > 0 {
		return fmt.Errorf("Changes: %+v, %v", c, err)
	}
	_, err = s.Invalidate(background, store.Gone, "tag")
	for what, err := range map[string]error{
		"Put":        s.Put(background, "key", second, &store.Record{}),
		"End":        s.End(background, "key", ticketOf(first)),
		"Invalidate": err,
	} {
		if !errors.Is(err, store.ErrUnavailable) || !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), strings.ToLower(what)) {
			return fmt.Errorf("%s: %v", what, err)
		}
	}
	if _, effect, err = storetest.Get(background, s, "key"); err != nil || effect != store.None {
		return fmt.Errorf("Get: %v, %v", effect, err)
	}
	// There is no directory, and none can be made.
	if _, err := file.Open(filepath.Join(dir, "below"), file.Options{}); !errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("Open of what cannot be made: %v", err)
	}
	return nil
}

// ticketOf returns a ticket that has a lease.
func ticketOf(t store.Ticket) store.Ticket {
	t.Token = t.Token[:31] + "1"
	return t
}

// reader prints each effect on a page that is new to it.
func reader(dir string) error {
	s, err := file.Open(dir, file.Options{})
	if err != nil {
		return err
	}
	last := store.Effect(-1)
	var after store.Version
	for last != store.Gone {
		_, effect, err := storetest.Get(background, s, "key")
		if errors.Is(err, store.ErrNotFound) {
			effect, err = store.Gone, nil
		}
		if err != nil {
			return err
		}
		if effect != last {
			fmt.Println(effect)
		}
		last = effect
		c, err := s.Changes(background, after)
		if err != nil {
			return err
		}
		after = c.Upto
	}
	return nil
}
