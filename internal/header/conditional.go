package header

// IsValidator reports whether a header is one entity tag or date, as If-Range takes it (RFC
// 9110, section 13.1.5).
func IsValidator(lines []string) bool {
	_, isDate := PlainDate(lines)
	return isDate || len(lines) == 1 && IsETag(lines[0])
}

// IsConditional reports whether a request header asks for a part of a response, or for
// one under a condition (RFC 9110, sections 13.1 and 14.2).
func IsConditional(name string) bool {
	switch name {
	case "If-None-Match", "If-Modified-Since", "If-Match", "If-Unmodified-Since", "If-Range", "Range":
		return true
	}
	return false
}
