package changed

import (
	"net/http"
	"strings"

	"github.com/isr-go/isr/internal/pagekey"
)

// maxGroups is how many groups an answer may name; RFC 9875 asks for 32 at least.
const maxGroups = 128

// Groups returns the groups that an answer names by Cache-Group-Invalidation (RFC 9875,
// section 3), each once, as far as they are tags: the first 128. A field that is no list
// of strings names none (RFC 9651, section 4.2).
func Groups(h http.Header) (groups []string) {
	seen := make(map[string]bool)
	for rest := strings.Join(h["Cache-Group-Invalidation"], ","); ; {
		rest = strings.TrimLeft(rest, " \t")
		if rest == "" {
			return groups
		}
		group, after, ok := cutString(rest)
		if !ok {
			return nil
		}
		rest = strings.TrimLeft(after, " \t")
		switch {
		case strings.HasPrefix(rest, ";"): // parameters mean nothing here
			i := strings.IndexByte(rest, ',')
			if strings.Contains(rest, `"`) && (i < 0 || strings.Contains(rest[:i], `"`)) {
				return nil // a string in a parameter may have the comma
			}
			if i < 0 {
				rest = ""
			} else {
				rest = rest[i+1:]
			}
		case strings.HasPrefix(rest, ","):
			rest = rest[1:]
		case rest != "":
			return nil
		}
		if len(groups) < maxGroups && !seen[group] && pagekey.CheckTag(group) == nil {
			seen[group] = true
			groups = append(groups, group)
		}
	}
}

// cutString cuts a string off the beginning (RFC 9651, section 3.3.3).
func cutString(s string) (text, rest string, ok bool) {
	if s[0] != '"' {
		return "", "", false
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			return b.String(), s[i+1:], true
		case c == '\\':
			if i++; i == len(s) || s[i] != '"' && s[i] != '\\' {
				return "", "", false
			}
			b.WriteByte(s[i])
		case c < ' ' || c >= 0x7f:
			return "", "", false
		default:
			b.WriteByte(c)
		}
	}
	return "", "", false
}
