package pagekey

import (
	"encoding/binary"
	"net/http"
	"slices"
)

// Variant returns what the key holds of the headers and cookies of a request: those
// that the route declares, as its Normalize leaves them.
func (ru *Rules) Variant(sent http.Header) string {
	if ru.varyHeader == "" {
		return ""
	}
	h := make(http.Header)
	for _, name := range ru.vary {
		if values := sent[name]; len(values) > 0 {
			h[name] = slices.Clone(values)
		}
	}
	if len(ru.cookies) > 0 {
		ru.keepCookies(h, sent["Cookie"])
	}
	if ru.normalize != nil {
		ru.normalize(h)
		if len(ru.cookies) > 0 {
			ru.keepCookies(h, h["Cookie"])
		}
	}
	var b []byte
	for _, name := range ru.vary {
		b = appendHeader(b, name, h[name])
	}
	if len(ru.cookies) > 0 {
		b = appendHeader(b, "Cookie", h["Cookie"])
	}
	return string(b)
}

// keepCookies sets the Cookie header in h to the declared cookies of some lines.
func (ru *Rules) keepCookies(h http.Header, lines []string) {
	all, kept := http.Request{Header: http.Header{"Cookie": lines}}, http.Request{Header: make(http.Header)}
	for _, name := range ru.cookies {
		for _, c := range all.CookiesNamed(name) {
			kept.AddCookie(c)
		}
	}
	delete(h, "Cookie")
	if values := kept.Header["Cookie"]; values != nil {
		h["Cookie"] = values
	}
}

// appendHeader appends a header so that parseHeader finds it again and no two
// headers look the same.
func appendHeader(b []byte, name string, values []string) []byte {
	if len(values) == 0 {
		return b
	}
	b = AppendString(b, name)
	b = binary.AppendUvarint(b, uint64(len(values)))
	for _, v := range values {
		b = AppendString(b, v)
	}
	return b
}

// AppendString appends a string with its length before it.
func AppendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// ParseHeader is the inverse of appendHeader.
func ParseHeader(s string) http.Header {
	h := make(http.Header)
	number := func() int {
		n, size := binary.Uvarint([]byte(s[:min(len(s), binary.MaxVarintLen64)]))
		s = s[size:]
		return int(n)
	}
	text := func() (t string) {
		n := number()
		t, s = s[:n], s[n:]
		return t
	}
	for s != "" {
		name := text()
		for range number() {
			h[name] = append(h[name], text())
		}
	}
	return h
}
