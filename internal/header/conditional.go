package header

func IsDate(lines []string) bool {
	if len(lines) != 1 {
		return false
	}
	_, ok := ParseDate(lines[0])
	return ok
}

func IsValidator(lines []string) bool {
	return len(lines) == 1 && IsETag(lines[0]) || IsDate(lines)
}
