package routing

import "strings"

// respell returns the pattern of [net/http.ServeMux] for one that is written as for
// another router, and what was wrong. A ServeMux takes /posts/:id and /blog/* literally:
// no page would have that route. Who means a colon or a star writes %3A or %2A.
func respell(pattern string) (right, reason string) {
	slash := strings.IndexByte(pattern, '/')
	if slash < 0 {
		return pattern, ""
	}
	segments := strings.Split(pattern[slash:], "/")
	for i, s := range segments {
		last := i == len(segments)-1
		switch {
		case strings.HasPrefix(s, ":") && len(s) > 1:
			segments[i], reason = "{"+identifier(s[1:], "id")+"}", s+" is no wildcard of a ServeMux, but would be matched as it stands"
		case strings.HasPrefix(s, "*") && last:
			segments[i], reason = "{"+identifier(s[1:], "rest")+"...}", s+" is no wildcard of a ServeMux, but would be matched as it stands"
		case strings.HasPrefix(s, "*"):
			segments[i], reason = "{"+identifier(s[1:], "any")+"}", s+" is no wildcard of a ServeMux, but would be matched as it stands"
		case strings.HasPrefix(s, "{") && strings.HasSuffix(s, "}") && strings.Contains(s, ":"):
			name, expr, _ := strings.Cut(s[1:len(s)-1], ":")
			more := ""
			if last && (expr == ".*" || expr == ".+") {
				more = "..."
			}
			segments[i], reason = "{"+identifier(name, "id")+more+"}", s+": a ServeMux has no regular expressions"
		}
	}
	return pattern[:slash] + strings.Join(segments, "/"), reason
}

// identifier returns the letters, digits and underscores that s begins with, or other
// where that is no name for a wildcard.
func identifier(s, other string) string {
	end := strings.IndexFunc(s, func(c rune) bool {
		return c != '_' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z')
	})
	if end >= 0 {
		s = s[:end]
	}
	if s == "" || s[0] >= '0' && s[0] <= '9' {
		return other
	}
	return s
}
