package file

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

const (
	sweepEvery = time.Hour   // at most, while something is put
	sweepLease = time.Minute // for which the others wait for one that was killed
	abandoned  = time.Hour   // the age of a temporary file that nobody will finish
)

// A sweeper makes room. It has no goroutine while it has nothing to do.
type sweeper struct {
	mu   sync.Mutex    // guards what follows; held alone
	done chan struct{} // closed at the end of the sweep that is going on, nil if there is none
	last time.Time     // when one began
}

// sweep starts a sweep, or joins the one that is going on, and returns a channel that
// is closed at its end. Where it is not needed for room, it is done once an hour, and
// after a start, to count what is there.
func (s *Store) sweep(needed bool) <-chan struct{} {
	w := &s.sweeper
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.done != nil || !needed && !w.last.IsZero() && time.Since(w.last) < sweepEvery {
		return w.done
	}
	done := make(chan struct{})
	w.done, w.last = done, time.Now()
	go func() {
		recovered(func() (struct{}, error) { return struct{}{}, s.sweepAlone() }) // if it fails, the next Put says why
		w.mu.Lock()
		w.done = nil
		w.mu.Unlock()
		close(done)
	}()
	return done
}

// sweeperKey stands for the sweeper among the leases, and for no key.
var sweeperKey = keyHash{31: 1}

// sweepAlone sweeps, if no other process does. It makes no files: its directory may
// be on the way to being deleted.
func (s *Store) sweepAlone() error {
	ctx := context.Background() // no caller waits for the sweep
	l, err := s.lock(ctx, 0)
	if err != nil {
		return err
	}
	_, token := newToken(0, true)
	before, removed, alone := l.bytes, l.removed, l.lease(&sweeperKey, token, sweepLease)
	l.unlock()
	if !alone {
		return nil
	}
	kept, err := s.removePages()
	s.removeTemps()
	l, err2 := s.lock(ctx, 0)
	if err2 != nil {
		return err2
	}
	defer l.unlock()
	l.release(&sweeperKey, token)
	if err == nil {
		// What was put meanwhile is counted, and some of it twice: until the next sweep.
		l.setBytes(kept + max(0, l.bytes-before+int64(l.removed-removed)))
	}
	return err
}

// A candidate is a page's file that may have to go.
type candidate struct {
	path string
	page page
	used time.Time
}

// removePages removes what nobody can get any longer, and then what was not used
// for the longest time, until there is room for some more. It returns the bytes of
// what it kept.
func (s *Store) removePages() (kept int64, err error) {
	v, err := s.history.follow()
	if err != nil {
		return 0, err
	}
	var list []candidate
	now := time.Now()
	root := filepath.Join(s.dir, "pages")
	folders, err := os.ReadDir(root)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	for _, folder := range folders {
		files, err := os.ReadDir(filepath.Join(root, folder.Name()))
		if err != nil {
			continue
		}
		for _, file := range files {
			path := filepath.Join(root, folder.Name(), file.Name())
			p, err := readHead(path)
			if err != nil {
				continue
			}
			lost := p.history != 0 && p.history != v.head.id || p.ticket.Version < v.head.born
			if lost || p.expired(now) {
				if ok, _ := s.remove(path, p); ok {
					continue
				}
			}
			if info, err := file.Info(); err == nil {
				list = append(list, candidate{path, p, info.ModTime()})
				kept += p.size
			}
		}
	}
	if s.maxBytes < 0 || kept <= s.highWater() {
		return kept, nil
	}
	slices.SortFunc(list, func(a, b candidate) int { return cmp.Or(a.used.Compare(b.used), cmp.Compare(a.path, b.path)) })
	for i, c := range list {
		// One that fills the directory alone may do so.
		if kept <= s.lowWater() || i == len(list)-1 && kept <= s.maxBytes {
			break
		}
		if ok, _ := s.remove(c.path, c.page); ok {
			kept -= c.page.size
		}
	}
	return kept, nil
}

// remove removes a page's file, unless it has been replaced since its head was read, and
// returns the sum of the bytes that are left.
func (s *Store) remove(path string, p page) (removed bool, left int64) {
	l, err := s.lock(context.Background(), 0)
	if err != nil {
		return false, 0
	}
	defer l.unlock()
	now, err := readHead(path)
	if removed = err == nil && now == p && os.Remove(path) == nil; removed {
		l.remove(p.size)
	}
	return removed, l.bytes
}

// sample is of how many pages squeeze chooses.
const sample = 512

// squeeze makes room for a number of bytes, where a sweep has not done so yet: of some
// hundred pages it removes those that were not used for the longest time. It reports whether
// there was room when it ended.
func (s *Store) squeeze(ctx context.Context, n int64) bool {
	root := filepath.Join(s.dir, "pages")
	folders, err := os.ReadDir(root)
	if err != nil {
		return false
	}
	rand.Shuffle(len(folders), func(i, j int) { folders[i], folders[j] = folders[j], folders[i] })
	var list []candidate
	for i, folder := range folders {
		files, _ := os.ReadDir(filepath.Join(root, folder.Name()))
		for _, file := range files {
			if info, err := file.Info(); err == nil {
				list = append(list, candidate{path: filepath.Join(root, folder.Name(), file.Name()), used: info.ModTime()})
			}
		}
		if len(list) < sample && i < len(folders)-1 {
			continue
		}
		slices.SortFunc(list, func(a, b candidate) int { return a.used.Compare(b.used) })
		for i, c := range list {
			if ctx.Err() != nil {
				return false
			}
			// One more page in 16 goes than has to, or the next one would do all of it again.
			p, err := readHead(c.path)
			if err != nil {
				continue
			}
			if _, left := s.remove(c.path, p); i >= len(list)/16 && left+n <= s.maxBytes {
				return true
			}
		}
		list = list[:0]
	}
	return false
}

// A sweep begins behind the visitors' backs when this much is taken, and ends with
// that much.
func (s *Store) highWater() int64 { return s.maxBytes - s.maxBytes/16 }
func (s *Store) lowWater() int64  { return s.maxBytes - s.maxBytes/4 }

// removeTemps removes what was left by those who were killed while they wrote it.
func (s *Store) removeTemps() {
	dir := filepath.Join(s.dir, "tmp")
	files, _ := os.ReadDir(dir)
	for _, file := range files {
		if info, err := file.Info(); err == nil && time.Since(info.ModTime()) > abandoned {
			os.Remove(filepath.Join(dir, file.Name()))
		}
	}
}
