package header

import (
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// letters changes the case of the ASCII letters in s.
func letters(s string, from, to byte) string {
	b := []byte(s)
	for i, c := range b {
		if from <= c && c < from+26 {
			b[i] = c - from + to
		}
	}
	return string(b)
}

// Cache-Control comes from any handler and any upstream behind a proxy.
func FuzzCacheControl(f *testing.F) {
	for _, lines := range []string{
		"",
		"public, max-age=60",
		"max-age=60, max-age=30",
		"max-age=60\nmax-age=30",
		"S-MaxAge=10,\tStale-While-Revalidate=\"20\" , stale-if-error = 30",
		"no-store", "no-cache, private", `no-cache="Set-Cookie, X", private="X"`,
		`private=""`, "private=, no-cache=", `private="X, no-store`, "must-understand, no-store, max-age=60", "private, private=X",
		"must-revalidate, proxy-revalidate, no-transform",
		"max-age=99999999999", "max-age=99999999999999999999999999", "max-age=2147483648", "max-age=2147483647",
		"max-age=-1", "max-age=1.5", "max-age", "max-age=", `max-age=""`, "max-age=+1", "max-age=1e3", "max-age=٣",
		`max-age="60`, `ext="a\", max-age=1", s-maxage=2`, `ext="\`, `ext="a"b, max-age=3`, "=5", ",,,", " , = ,",
		"ext=a=b, max-age=4", "\"max-age=5\"", "max-age=0060",
	} {
		f.Add(lines, "60")
	}
	f.Add("ext=1", "0")
	f.Add("private", "123456789012345678901234567890")
	f.Fuzz(func(t *testing.T, text, number string) {
		lines := strings.Split(text, "\n")
		d := ParseCacheControl(lines)
		for name, v := range map[string]time.Duration{
			"max-age": d.MaxAge, "s-maxage": d.SMaxAge,
			"stale-while-revalidate": d.StaleWhileRevalidate, "stale-if-error": d.StaleIfError,
		} {
			if v != -1 && (v < 0 || v > math.MaxInt32*time.Second || v%time.Second != 0) {
				t.Errorf("%q: %s is %d ns", lines, name, v)
			}
		}
		same := func(what string, lines ...string) {
			if got := ParseCacheControl(lines); got != d {
				t.Errorf("%s: %q is\n%+v, but %q is\n%+v", what, text, d, lines, got)
			}
		}
		same("upper case", strings.Split(letters(text, 'a', 'A'), "\n")...)
		same("lower case", strings.Split(letters(text, 'A', 'a'), "\n")...)
		if !strings.Contains(text, `"`) {
			same("one line", strings.ReplaceAll(text, "\n", ","))
			same("a line for each directive", strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == '\n' })...)
		}
		same("what else is new", append(slices.Clone(lines), `extension, another="max-age=7, private"`)...)

		if joined := strings.Join(lines, ","); !strings.Contains(joined, "\n") {
			got, want := ParseCacheControl([]string{SharedFor(joined, time.Second)}), ParseCacheControl([]string{joined})
			if !want.IsUnshared() {
				if got.SMaxAge < 0 || got.SMaxAge > time.Second {
					t.Errorf("%q: %q lets shared caches keep it for %v", joined, SharedFor(joined, time.Second), got.SMaxAge)
				}
				want.SMaxAge = got.SMaxAge
			}
			want.PrivateFields = want.PrivateFields && got.PrivateFields // an empty list of fields is left out
			want.NoCacheFields = want.NoCacheFields && got.NoCacheFields
			if got != want {
				t.Errorf("%q is %+v, but %q is %+v", joined, want, SharedFor(joined, time.Second), got)
			}
		}

		// Of duplicates the first counts, and a quoted number is the same number.
		plain := ParseCacheControl(append(slices.Clone(lines), "max-age=17, s-maxage=17"))
		if d.MaxAge >= 0 && plain.MaxAge != d.MaxAge || d.MaxAge < 0 && plain.MaxAge != 17*time.Second || plain.SMaxAge < 0 {
			t.Errorf("%q: max-age %v, and %v with another one after it", lines, d.MaxAge, plain.MaxAge)
		}
		if number != "" && strings.Trim(number, "0123456789") == "" {
			bare := ParseCacheControl([]string{"max-age=" + number + ", no-store"})
			if quoted := ParseCacheControl([]string{`max-age="` + number + `", no-store`}); quoted != bare || !bare.NoStore {
				t.Errorf("%s is %+v, but quoted %+v", number, bare, quoted)
			}
			want := time.Duration(math.MaxInt32) * time.Second
			if n, err := strconv.ParseInt(number, 10, 32); err == nil {
				want = time.Duration(n) * time.Second
			}
			if bare.MaxAge != want {
				t.Errorf("max-age=%s is %v, want %v", number, bare.MaxAge, want)
			}
		}
	})
}

// encodingWeight is a weight by the letter of RFC 9110, section 12.4.2.
var encodingWeight = regexp.MustCompile(`^[ \t]*[qQ][ \t]*=[ \t]*(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)[ \t]*$`)

// slowlyAccepts is Accepts, slow and obvious. It is not ok where that
// depends on what is no weight, but a number that one may take for it.
func slowlyAccepts(lines []string, wanted string) (want int, ok bool) {
	weights, doubtful := make(map[string]float64), make(map[string]bool)
	for _, e := range strings.Split(strings.Join(lines, ","), ",") {
		coding, params, _ := strings.Cut(strings.Trim(e, " \t"), ";")
		coding = letters(strings.TrimRight(coding, " \t"), 'A', 'a')
		if coding == "x-gzip" {
			coding = "gzip"
		}
		weight, doubt := 1.0, false
		if params != "" {
			weight = 0
			if m := encodingWeight.FindStringSubmatch(params); m != nil {
				weight, _ = strconv.ParseFloat(m[1], 64)
			} else if _, value, ok := strings.Cut(params, "="); ok {
				q, err := strconv.ParseFloat(strings.Trim(value, " \t"), 64)
				doubt = err == nil && q >= 0 && q <= 1
			}
		}
		weights[coding], doubtful[coding] = weight, doubt
	}
	own, named := weights[wanted]
	if !named {
		own = weights["*"]
	}
	if own < weights["identity"] {
		own = 0
	}
	return int(own * 1000), !doubtful[wanted] && !doubtful["*"] && !doubtful["identity"]
}

func FuzzAcceptEncoding(f *testing.F) {
	for _, lines := range []string{
		"", "gzip", "GZip", "x-gzip", "gzip, deflate, br, zstd", "br", "*", "identity", "deflate",
		"gzip;q=0", "gzip;q=0.0", "gzip;q=0.001", "gzip; q=1.000", "gzip ; Q = 0.5", "gzip;q=1.001", "gzip;q=2", "gzip;q=-1",
		"gzip;q=", "gzip;", "gzip;x=1", "gzip;q=0.5;x=1", "gzip;q=NaN", "gzip;q=0x1p-2", "gzip;q=1e-1", "gzip;q=.5", "gzip;q=+1", "gzip;q=0.1234",
		"gzip;q=0.5, identity", "gzip;q=0.5, identity;q=0.5", "gzip;q=0.4,identity;q=0.5", "identity;q=0, gzip;q=0.1",
		"gzip;q=0.57, identity;q=0.569", "gzip;q=0.569, identity;q=0.57", "gzip;q=0.29, identity;q=0.289",
		"*;q=0", "*;q=0, gzip", "gzip;q=0, *", "*;q=0.5, identity;q=0.6", "*, identity;q=0",
		"gzip;q=0, gzip", "brotli, br", "0 zstd", "xbr,br", "brx", "zstd,gzip;q=0.9", "gzip, x-gzip;q=0", "gzip\ngzip;q=0", ",, ,gzip", " gzip ", "gzip,,", "gzip\x00", "gzipp", "x-x-gzip", "x-*", "x-identity", "gZip\r", "\vgzip", "gzip;q=1\r",
	} {
		f.Add(lines)
	}
	f.Fuzz(func(t *testing.T, text string) {
		lines := strings.Split(text, "\n")
		for _, coding := range []string{"gzip", "br", "zstd"} {
			got := Accepts(lines, coding)
			if want, ok := slowlyAccepts(lines, coding); ok && got != want {
				t.Errorf("Accepts(%q, %q) = %v, want %v", lines, coding, got, want)
			}
		}
		with := func(lines ...string) bool { return Accepts(lines, "gzip") > 0 }
		got := with(lines...)
		if with(letters(text, 'a', 'A')) != with(letters(text, 'A', 'a')) {
			t.Errorf("%q: the case of letters matters", text)
		}
		if with(strings.ReplaceAll(text, "\n", ",")) != got || with(strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == '\n' })...) != got {
			t.Errorf("%q: it matters how many lines that is", text)
		}
		if with(append(slices.Clone(lines), "br, zstd;q=0.5")...) != got {
			t.Errorf("%q: other codings matter", text)
		}
		if !with(append(slices.Clone(lines), "gzip")...) {
			t.Errorf("%q: gzip at the end is not taken", text)
		}
		if with(append(slices.Clone(lines), "gzip;q=0")...) {
			t.Errorf("%q: gzip;q=0 at the end is not heeded", text)
		}
		if got && !with(append(slices.Clone(lines), "identity;q=0")...) {
			t.Errorf("%q: taken, but not with identity;q=0", text)
		}
	})
}
