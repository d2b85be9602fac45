package isr

// The Cache-Status of requests that go to the handler untouched (RFC 9211).
const (
	fwdBypass      = "isr; fwd=bypass"
	fwdMethod      = "isr; fwd=method"
	fwdUncacheable = "isr; fwd=bypass; detail=uncacheable"
	fwdTooLong     = "isr; fwd=bypass; detail=too-long" // of a key over pagekey.MaxBytes
	fwdUnclean     = "isr; fwd=bypass; detail=path"     // of a path that pagekey.CleanPath refuses
)
