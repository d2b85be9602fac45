package file

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/isr-go/isr/store"
	"github.com/isr-go/isr/store/internal/filter"
)

const (
	maxTags = 1 << 16 // that are remembered one by one when the log is rewritten
	burst   = 4       // times as many, where they are recent: so that those who follow closely see each of them
	recent  = 10 * time.Second
	slack   = 1 << 20 // bytes by which the log may grow before it is rewritten, beside its own size
	maxLog  = 1 << 30 // bytes of a log: what is longer is garbage, and would not go into memory
)

// errReplaced says that the files under our hands are not those of the directory any
// longer: it was deleted, and what was done must be done again.
var errReplaced = errors.New("the directory was replaced")

// A history is the order of the invalidations: the log, and what this process has
// read of it. Every call reads what the file has more by then, so there is no message
// between processes, and none to miss.
type history struct {
	dir, path string
	slack     int64
	limit     int                  // maxTags, but for tests
	recent    time.Duration        // the constant, but for tests
	fsync     func(*os.File) error // (*os.File).Sync, but for tests

	view atomic.Pointer[view] // what was read; never nil

	mu     sync.Mutex    // held while the log is read; guards what follows; before Versions.mu
	id     uint64        // of the history that high belongs to
	high   store.Version // no version that this process has seen or issued is newer
	synced fs.FileInfo   // of the log whose name is known to be durable
}

// A view is what was read of the log up to a certain byte. It does not change,
// but for the table, which may know more.
type view struct {
	info   fs.FileInfo // of the log; nil: there is none, or none that can be read
	pin    *os.File    // keeps the number of the log's inode from being used again
	end    int64       // of what was read; what is behind it is torn, or still being written
	head   header
	top    store.Version
	behind bool            // it is older than what this process has seen, and must go
	rest   *filter.Filters // of what was forgotten; nil: there are none
	table  *store.Versions // of any number of tags: forgetting is done when the log is rewritten, for all alike
}

func newHistory(dir string) *history {
	h := &history{dir: dir, path: filepath.Join(dir, "purges"), slack: slack, limit: maxTags, recent: recent, fsync: (*os.File).Sync}
	h.view.Store(&view{})
	return h
}

// follow returns the view as of now: with all that was in the log when it was
// called.
func (h *history) follow() (*view, error) {
	v := h.view.Load()
	// Where something is behind the end that could not be read, the sizes differ, and
	// it is looked at again: it may become something else of the same size.
	info, err := os.Stat(h.path)
	if err == nil && v.info != nil && info.Size() == v.end && os.SameFile(info, v.info) {
		return v, nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	v, err = h.read()
	if err != nil {
		return nil, err
	}
	h.view.Store(v)
	return v, nil
}

// read reads what is new in the log. It is called under h.mu.
func (h *history) read() (*view, error) {
	f, err := os.Open(h.path)
	if errors.Is(err, fs.ErrNotExist) {
		return &view{top: h.high}, nil
	}
	if err != nil {
		return nil, err
	}
	old := h.view.Load()
	keep := false
	defer func() {
		if !keep {
			f.Close()
		}
	}()
	info, err := f.Stat()
	if err == nil {
		err = own(h.path, info)
	}
	if err != nil {
		return nil, err
	}
	if info.Size() > maxLog {
		return &view{top: h.high}, nil
	}
	var next view
	if old.info != nil && os.SameFile(info, old.info) && info.Size() >= old.end {
		next = *old
	}
	b := make([]byte, info.Size()-next.end)
	if n, err := f.ReadAt(b, next.end); err != nil && err != io.EOF {
		return nil, err
	} else {
		b = b[:n] // or it has become shorter
	}
	first := next.info == nil
	if first {
		if next.head, err = parseHeader(b); errors.Is(err, errDamaged) {
			return &view{top: h.high}, nil
		} else if err != nil {
			return nil, err
		}
		b = b[headerSize:]
		if next.head.rest > uint64(len(b)) {
			return &view{top: h.high}, nil
		}
		next.info, next.end, next.top = info, int64(headerSize)+int64(next.head.rest), next.head.top
		next.table = store.NewVersions(math.MaxInt)
		if next.head.rest > 0 {
			next.rest = next.head.parseFilters(b[:next.head.rest])
			b = b[next.head.rest:]
		}
		if pinned {
			next.pin, keep = f, true
		}
	}
	after := next.top
	if first {
		after = 0 // what was rewritten is older than the top
	}
	entries, n := parse(next.head.seed(), b, after)
	next.end += int64(n)
	next.add(entries)
	if first {
		if next.head.id == h.id {
			next.behind = next.top < h.high
		} else {
			next.behind = next.head.born <= h.high
		}
	}
	if !next.behind {
		h.id = next.head.id
	}
	h.high = max(h.high, next.top)
	return &next, nil
}

// add adds what was read to the view.
func (v *view) add(entries []entry) {
	if slices.ContainsFunc(entries, func(e entry) bool { return e.gap }) {
		// The views of before share the table, and would pass over the gap.
		table := store.NewVersions(math.MaxInt)
		table.Apply(time.Time{}, v.table.Changes(0).List...)
		v.table = table
	}
	n := 0
	for _, e := range entries {
		n += len(e.tags)
	}
	changes := make([]store.Change, 0, n)
	for _, e := range entries {
		if e.gap {
			// Nobody knows which tags were purged there.
			v.head.floors[store.Gone] = max(v.head.floors[store.Gone], e.version-1)
		}
		for _, tag := range e.tags {
			changes = append(changes, store.Change{Tag: tag, Version: e.version, Effect: e.effect})
		}
		v.top = max(v.top, e.version)
	}
	v.table.Apply(time.Time{}, changes...)
}

// effect returns the strongest effect on what has a version and tags.
func (v *view) effect(after store.Version, tags []string) store.Effect {
	effect, _ := v.table.Effect(after, tags)
	for e := store.Gone; e > effect; e-- {
		if v.head.floors[e] > after {
			effect = e
		}
	}
	if v.rest != nil {
		effect = store.Effect(v.rest.Effect(uint64(after), tags, int(effect)))
	}
	return effect
}

// changes returns what is in the log after a version.
func (v *view) changes(after store.Version) store.Changes {
	c := v.table.Changes(after)
	c.Upto = max(c.Upto, v.top) // an entry may have no tags
	c.History = strconv.FormatUint(v.head.id, 16)
	for effect, floor := range v.head.floors {
		c.Floors[effect] = max(floor, v.head.past[effect])
	}
	c.Reset = after < v.head.born || after > c.Upto || after < slices.Max(c.Floors[:])
	if !c.Reset {
		c.Floors = [store.Gone + 1]store.Version{}
	}
	return c
}

// knows says whether all that was invalidated since a version is known. History is
// that of the ticket or record which has it; zero: not said.
func (v *view) knows(history uint64, version store.Version) bool {
	return v.info != nil && !v.behind && (history == 0 || history == v.head.id) && version >= v.head.born && version <= v.top
}

// writable returns the view of a log that can be added to: it makes one where there
// is none, or one that is older than what this process has seen. It is called under
// the lock of all processes; held says whether it still is that, or the directory
// was deleted, and others may have another.
func (h *history) writable(held func() error) (*view, error) {
	v, err := h.follow()
	if err != nil || v.info != nil && !v.behind {
		return v, err
	}
	h.mu.Lock()
	born := max(store.Version(clock()), h.high+1)
	h.mu.Unlock()
	if err := h.write(header{id: rand.Uint64() | 1, born: born, top: born}, nil, nil, held); err != nil {
		return nil, err
	}
	v, err = h.follow()
	if err == nil && (v.info == nil || v.behind) {
		err = errReplaced
	}
	return v, err
}

// append adds an invalidation to the log, and returns its version and the file,
// which sync makes durable. It is called under the lock of all processes.
func (h *history) append(effect store.Effect, tags []string, held func() error) (store.Version, *os.File, error) {
	v, err := h.writable(held)
	if err != nil {
		return 0, nil, err
	}
	if v.end > 2*int64(v.head.size)+h.slack {
		if h.rewrite(v, held) == nil {
			if v, err = h.follow(); err != nil {
				return 0, nil, err
			}
		} // else the log is as good as before, and only longer
	}
	f, err := os.OpenFile(h.path, os.O_RDWR, 0)
	if err != nil {
		return 0, nil, err
	}
	version := max(store.Version(clock()), v.top+1)
	if err = h.appendTo(f, v, entry{version: version, effect: effect, tags: tags}, held); err != nil {
		f.Close()
		return 0, nil, err
	}
	return version, f, nil
}

// appendTo adds an entry to the file of a view, or nothing.
func (h *history) appendTo(f *os.File, v *view, e entry, held func() error) (err error) {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !os.SameFile(info, v.info) {
		return errReplaced
	}
	defer func() {
		if lost := h.confirm(held); lost != nil {
			err = lost
		}
	}()
	// What a crash has left behind the last entry has not been acknowledged, and
	// nobody has read it as an entry.
	if info.Size() > v.end {
		if err := f.Truncate(v.end); err != nil {
			return err
		}
	}
	if _, err := f.WriteAt(e.append(v.head.seed(), nil), v.end); err != nil {
		return errors.Join(err, f.Truncate(v.end))
	}
	// Read back, it is part of this process's view, too. It is not, where the
	// directory was deleted meanwhile.
	if v, err = h.follow(); err != nil {
		return err
	}
	if v.top < e.version || !os.SameFile(info, v.info) {
		return errReplaced
	}
	return nil
}

// confirm says whether the log, now that it was written to, was ours. Where it was not,
// as when this process was stopped in the midst of it and the lock deleted, others may
// have written what this write has replaced, and returned that it holds. So the log is
// removed: without it nothing is shown of what may have been purged.
func (h *history) confirm(held func() error) error {
	err := held()
	if err != nil {
		os.Remove(h.path)
		syncDir(h.dir)
	}
	return err
}

// sync makes what was appended to f durable. Several may be at it at a time, and
// share what the disk does.
func (h *history) sync(f *os.File) error {
	if err := h.fsync(f); err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	h.mu.Lock()
	synced := h.synced
	h.mu.Unlock()
	if synced != nil && os.SameFile(synced, info) {
		return nil
	}
	// The process that made the file may have died before it did this.
	if err := syncDir(h.dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	h.mu.Lock()
	h.synced = info
	h.mu.Unlock()
	return nil
}

// rewrite replaces the log by a shorter one that says the same: the newest of each
// tag and effect, of no more than a number of tags, and what the filters keep of the others.
func (h *history) rewrite(v *view, held func() error) error {
	now := store.Version(clock())
	kept, forgotten := trim(v.table.Changes(0).List, h.limit, now-min(now, store.Version(h.recent.Microseconds())))
	head, rest := v.head, v.rest
	head.top = v.top
	if len(forgotten) > 0 {
		if rest != nil {
			rest = rest.Clone() // others read it
		} else {
			rest = filter.New(h.limit)
		}
		for _, c := range forgotten {
			for effect, floor := range rest.Add(c.Tag, int(c.Effect), uint64(c.Version)) {
				head.floors[effect] = max(head.floors[effect], store.Version(floor))
			}
			head.past[c.Effect] = max(head.past[c.Effect], c.Version)
		}
	}
	return h.write(head, rest, kept, held)
}

// trim tells the changes of the tags that were changed last from the others, in the same
// order. Of those that came after a version it keeps more.
func trim(list []store.Change, tags int, recent store.Version) (kept, forgotten []store.Change) {
	known := make(map[string]bool)
	for _, c := range slices.Backward(list) {
		limit := tags
		if c.Version > recent {
			limit *= burst
		}
		// To forget one of the newest would be to forget everything.
		if known[c.Tag] || len(known) < limit || c.Version == list[len(list)-1].Version {
			known[c.Tag] = true
			kept = append(kept, c)
		} else {
			forgotten = append(forgotten, c)
		}
	}
	slices.Reverse(kept)
	slices.Reverse(forgotten)
	return kept, forgotten
}

// write puts a new log in the place of the old one, durably.
func (h *history) write(head header, rest *filter.Filters, list []store.Change, held func() error) error {
	b := make([]byte, headerSize)
	if head.rest = 0; rest != nil {
		b = appendFilters(head.seed(), b, rest)
		head.rest = uint64(len(b) - headerSize)
	}
	b = appendChanges(head.seed(), b, list)
	head.size = uint64(len(b))
	head.append(b[:0])
	temp, err := writeTemp(h.dir, "log-", b, true)
	if err != nil {
		return fmt.Errorf("a new log: %w", err)
	}
	if err = held(); err == nil {
		err = rename(temp, h.path)
	}
	if err != nil {
		os.Remove(temp)
		return fmt.Errorf("a new log: %w", err)
	}
	if err := h.confirm(held); err != nil {
		return fmt.Errorf("a new log: %w", err)
	}
	return syncDir(h.dir)
}

// clock is what versions and fences are, where they need not be more.
func clock() uint64 { return uint64(max(0, time.Now().UnixMicro())) }
