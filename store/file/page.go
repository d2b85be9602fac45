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
	pageHead  = len(pageMagic) + 8*4 + crc32.Size
	block     = 4096             // a file counts as so many of these as it takes
	recently  = 10 * time.Minute // how exactly the time of the last use is kept
)

// A page is the head of a page's file.
type page struct {
	history uint64 // the id of the log whose versions these are
	ticket  store.Ticket
	expires time.Time // zero: never
	size    int64     // of the file, as it counts for the limit
}

// encodePage returns the file of a record. Where it belongs to no history, it is
// nobody's.
func encodePage(history uint64, rec *store.Record) ([]byte, error) {
	var expires int64
	if end := time.Now().Add(rec.TTL); rec.TTL > 0 && end.Year() < 2262 { // what Unix nanoseconds can say
		expires = end.UnixNano()
	}
	b := append(make([]byte, 0, pageHead+len(rec.Data)+512), pageMagic...)
	for _, n := range [...]uint64{history, uint64(rec.Version), rec.Fence, uint64(expires)} {
		b = binary.LittleEndian.AppendUint64(b, n)
	}
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	return rec.AppendBinary(b)
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
	return p, true
}

func (p *page) expired(now time.Time) bool { return !p.expires.IsZero() && !now.Before(p.expires) }

// counted returns what a file of a size counts for the limit.
func counted(size int64) int64 { return (size + block - 1) / block * block }

// readPage returns the file of a record, and when it was used last.
func readPage(path string) ([]byte, time.Time, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, time.Time{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, time.Time{}, err
	}
	b := make([]byte, info.Size())
	n, err := io.ReadFull(f, b)
	if err == io.ErrUnexpectedEOF {
		err = nil
	}
	return b[:n], info.ModTime(), err
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
