package isrtest

import (
	"maps"
	"strings"

	"github.com/isr-go/isr/internal/compare"
)

// A mask is which words of an answer differ at each run: the time, a nonce. The zero value
// is none.
type mask struct {
	words map[int]bool // by their place
	all   bool         // whether the number of words differs: nothing can be compared
}

// clone returns a mask that may be changed by itself.
func (m *mask) clone() *mask { return &mask{maps.Clone(m.words), m.all} }

// split splits an answer into words: of letters and digits, and of what numbers, times and
// Base64 have beside them.
func split(a compare.Answer) []string {
	return strings.FieldsFunc(string(a.Body), func(c rune) bool {
		return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c > 0x7f || strings.ContainsRune("+/=_.:-", c))
	})
}

// note notes what differs between two answers that should be the same.
func (m *mask) note(a, b compare.Answer) {
	if a.Equal(b) {
		return
	}
	x, y := split(a), split(b)
	if a.Status != b.Status || len(x) != len(y) {
		m.all = true
		return
	}
	if m.words == nil {
		m.words = make(map[int]bool)
	}
	for i := range x {
		if x[i] != y[i] {
			m.words[i] = true
		}
	}
}

// equal reports whether two answers are the same but for what differs at each run.
func (m *mask) equal(a, b compare.Answer) bool {
	if m.all || a.Equal(b) {
		return true
	}
	x, y := split(a), split(b)
	if m.words == nil || a.Status != b.Status || len(x) != len(y) {
		return false
	}
	for i := range x {
		if x[i] != y[i] && !m.words[i] {
			return false
		}
	}
	return true
}
