package sitemap

import (
	"bufio"
	"compress/gzip"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
)

// maxNesting is how many elements may lie one in another: a decoder remembers each.
const maxNesting = 32

// decode returns the locations that a sitemap, or an index of sitemaps, names, and which
// of the two it is. Where there is an error, too, they are those before it.
func decode(body io.Reader, maxBytes int64) (entries []string, index bool, err error) {
	packed := bufio.NewReader(body)
	var in io.Reader = packed
	if magic, _ := packed.Peek(2); string(magic) == "\x1f\x8b" { // whatever its name, and its Content-Type
		unpacked, err := gzip.NewReader(packed)
		if err != nil {
			return nil, false, err
		}
		in = unpacked
	}
	text := &boundedReader{in: bufio.NewReader(in), left: maxBytes, max: maxBytes}
	d := xml.NewDecoder(text)
	var (
		root, entry xml.Name
		depth       int
		inLoc       bool
		loc         strings.Builder
	)
	for {
		text.token = 0
		token, err := d.Token()
		if err == io.EOF && root.Local == "" {
			err = errors.New("is empty")
		} else if err == io.EOF {
			return entries, index, nil
		}
		if err != nil {
			return entries, index, err
		}
		switch t := token.(type) {
		case xml.StartElement:
			switch depth++; {
			case depth > maxNesting:
				return entries, index, fmt.Errorf("more than %d elements one in another", maxNesting)
			case depth == 1 && root.Local != "":
				return entries, index, errors.New("has more than one root")
			case depth == 1:
				root = t.Name
				index = root.Local == "sitemapindex"
				if !index && root.Local != "urlset" {
					return nil, false, fmt.Errorf("want a urlset or sitemapindex, got %.20q", root.Local)
				}
			case depth == 2:
				entry = t.Name
			case depth == 3:
				// Not that of an image or a video, which are of another namespace.
				inLoc = t.Name == xml.Name{Space: root.Space, Local: "loc"} && entry == entryOf(root)
				loc.Reset()
			}
		case xml.CharData:
			if inLoc && depth == 3 && loc.Len() < 2*maxURLBytes {
				loc.Write(t)
			}
		case xml.EndElement:
			if inLoc && depth == 3 {
				inLoc = false
				if len(entries) == maxURLs {
					return entries, index, fmt.Errorf("names more than %d", maxURLs)
				}
				entries = append(entries, strings.TrimSpace(loc.String()))
			}
			depth--
		}
	}
}

// entryOf returns the name of the elements that a file consists of.
func entryOf(root xml.Name) xml.Name {
	if root.Local == "sitemapindex" {
		return xml.Name{Space: root.Space, Local: "sitemap"}
	}
	return xml.Name{Space: root.Space, Local: "url"}
}

// maxToken is the size of the largest text, comment or tag: a decoder holds one at a time.
const maxToken = 64 << 10

// A boundedReader ends with an error when it is read on beyond a number of bytes, in all
// or of one token. An xml.Decoder takes no more bytes of a ByteReader than it needs.
type boundedReader struct {
	in        *bufio.Reader
	left, max int64
	token     int // bytes since the last token
}

func (r *boundedReader) ReadByte() (byte, error) {
	if r.token == maxToken {
		return 0, fmt.Errorf("text or a tag of more than %d bytes", maxToken)
	}
	c, err := r.in.ReadByte()
	if err != nil {
		return 0, err
	}
	if r.left == 0 {
		return 0, fmt.Errorf("larger than %d bytes", r.max)
	}
	r.left--
	r.token++
	return c, nil
}

// Read is what makes it an io.Reader, too.
func (r *boundedReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	c, err := r.ReadByte()
	if err != nil {
		return 0, err
	}
	p[0] = c
	return 1, nil
}
