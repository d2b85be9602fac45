package header

import "strconv"

// A CacheStatus is the Cache-Status of a request that had to wait for the handler.
type CacheStatus struct {
	Fwd       string // uri-miss, or stale
	FwdStatus int    // the handler's, where it is not the one that the visitor gets
	Stored    bool
	Collapsed bool // whether another request had set the generation going
	Detail    string
}

func (f CacheStatus) String() string {
	s := "isr; fwd=" + f.Fwd
	if f.FwdStatus != 0 {
		s += "; fwd-status=" + strconv.Itoa(f.FwdStatus)
	}
	if f.Stored {
		s += "; stored"
	}
	if f.Collapsed {
		s += "; collapsed"
	}
	if f.Detail != "" {
		s += "; detail=" + f.Detail
	}
	return s
}

// The Cache-Status of requests that go to the handler untouched (RFC 9211).
const (
	Bypass      = "isr; fwd=bypass"
	Off         = "isr; fwd=bypass; detail=off"
	Method      = "isr; fwd=method"
	Uncacheable = "isr; fwd=bypass; detail=uncacheable"
	TooLong     = "isr; fwd=bypass; detail=too-long" // of a key that no page has
	Unclean     = "isr; fwd=bypass; detail=path"     // of a path that no page has
)
