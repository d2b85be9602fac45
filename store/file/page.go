package file

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/isr-go/isr/store"
)

// A page's file is a head of fixed size, which is enough to judge it by without
// reading the rest, and the record in its own encoding.

const (
	pageMagic = "isrf"
	pageHead  = len(pageMagic) + 8*5 + crc32.Size
	block     = 4096             // a file counts as so many of these as it takes
	recently  = 10 * time.Minute // how exactly the time of the last use is kept
)

// A page is the head of a page's file.
type page struct {
	history uint64 // the id of the log whose versions these are
	ticket  store.Ticket
	expires time.Time // zero: never
	length  uint64    // of what is behind the head
	size    int64     // of the file, as it counts for the limit
}

// encodePage returns the file of a record. Where no history is said, it is of whichever
// one its version is in.
func encodePage(history uint64, rec *store.Record) ([]byte, error) {
	var expires int64
	if end := time.Now().Add(rec.TTL); rec.TTL > 0 && end.Year() < 2262 { // what Unix nanoseconds can say
		expires = end.UnixNano()
	}
	b, err := rec.AppendBinary(make([]byte, pageHead, pageHead+len(rec.Data)+512))
	if err != nil {
		return nil, err
	}
	head := append(b[:0], pageMagic...)
	for _, n := range [...]uint64{history, uint64(rec.Version), rec.Fence, uint64(expires), uint64(len(b) - pageHead)} {
		head = binary.LittleEndian.AppendUint64(head, n)
	}
	binary.LittleEndian.AppendUint32(head, crc32.Checksum(head, castagnoli))
	return b, nil
}

// parsePage reads the head at the start of a page's file.
func parsePage(b []byte) (p page, ok bool) {
	if len(b) < pageHead || string(b[:len(pageMagic)]) != pageMagic ||
		crc32.Checksum(b[:pageHead-crc32.Size], castagnoli) != binary.LittleEndian.Uint32(b[pageHead-crc32.Size:]) {
		return p, false
	}
	number := func(i int) uint64 { return binary.LittleEndian.Uint64(b[len(pageMagic)+8*i:]) }
	p.history = number(0)
	p.ticket = store.Ticket{Version: store.Version(number(1)), Fence: number(2)}
	if ns := int64(number(3)); ns != 0 {
		p.expires = time.Unix(0, ns)
	}
	p.length = number(4)
	return p, true
}

func (p *page) expired(now time.Time) bool { return !p.expires.IsZero() && !now.Before(p.expires) }

// counted returns what a file of a size counts for the limit.
func counted(size int64) int64 { return (size + block - 1) / block * block }

// readPage returns the head of a page's file, the record behind it, and when it was
// used last. What is damaged is a [store.ErrNotFound], and takes no memory, however
// large the file is.
func readPage(path string) (p page, rec []byte, used time.Time, err error) {
	f, err := os.Open(path)
	if err != nil {
		return p, nil, used, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return p, nil, used, err
	}
	var head [pageHead]byte
	if _, err = io.ReadFull(f, head[:]); err == nil {
		var ok bool
		if p, ok = parsePage(head[:]); !ok || int64(p.length) != info.Size()-int64(pageHead) {
			return p, nil, used, store.ErrNotFound
		}
		rec = make([]byte, p.length)
		_, err = io.ReadFull(f, rec)
	}
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		err = store.ErrNotFound
	}
	return p, rec, info.ModTime(), err
}

// readHead returns the head of a page's file, and its size where there is one. One
// that is missing or damaged is the oldest there can be.
func readHead(path string) (page, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return page{}, nil
	}
	if err != nil {
		return page{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return page{}, err
	}
	var b [pageHead]byte
	n, err := io.ReadFull(f, b[:])
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return page{}, err
	}
	p, _ := parsePage(b[:n])
	p.size = counted(info.Size())
	return p, nil
}

// place renames a temporary file to a page's.
func (s *Store) place(temp, path string) error {
	err := rename(temp, path)
	if errors.Is(err, fs.ErrNotExist) {
		if err = mkdir(s.dir, "pages", filepath.Base(filepath.Dir(path))); err == nil {
			err = rename(temp, path)
		}
	}
	return err
}
