// Package remade notices Sites that are made anew for each request: by a middleware that
// calls isr.Wrap and is itself called for each request, as gorilla's Use and echo's
// WrapMiddleware call theirs. Nothing is ever cached then, and nothing fails.
package remade

import (
	"net/http"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"weak"
)

// inARow is how many Sites in a row are a sign. More than one may be made where the first
// requests to one that is made when it is needed come at the same time.
const inARow = 8

// maxPlaces is how many places are remembered. At more than that all are forgotten: a
// program that makes a Site for each of many handlers fills them, and is not meant.
const maxPlaces = 64

// A Watch remembers where Sites were made. The zero value is ready for use, and safe for
// concurrent use.
//
// It reports only what has all of these signs, since each alone has good reasons:
//   - the Site is made below a ServeHTTP: tests and programs make theirs before;
//   - the same line has made one for the same handler before: a program with a Site for
//     each tenant has other handlers;
//   - those were asked for at most once each: a Site that is kept is asked for again;
//   - so it was several times in a row.
type Watch[T any] struct {
	mu     sync.Mutex // guards what follows; held alone
	places map[place]*made[T]
	warned map[uintptr]bool // the lines that were reported
}

// A place is a line that makes Sites, and the handler that it makes them for: by address,
// of a func that of its code, since a middleware often makes a new closure of it.
type place struct {
	line    uintptr
	handler reflect.Type
	address uintptr
}

// made is what was made at one place.
type made[T any] struct {
	last weak.Pointer[T]
	n    int // in a row
}

// Note, which a function of Wrap calls, notes that Wrap's caller has made a Site for h, and
// reports whether it makes one for each request, once for each such line. Visits returns how often a Site was
// asked for.
func (w *Watch[T]) Note(site *T, h http.Handler, visits func(*T) uint64) bool {
	var pcs [64]uintptr
	stack := pcs[:runtime.Callers(4, pcs[:])]
	if len(stack) == 0 || !servesRequest(stack) {
		return false
	}
	at := place{line: stack[0], handler: reflect.TypeOf(h)}
	switch v := reflect.ValueOf(h); v.Kind() {
	case reflect.Func, reflect.Pointer, reflect.Map, reflect.Chan:
		at.address = v.Pointer()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	m := w.places[at]
	if m == nil {
		if w.places == nil || len(w.places) >= maxPlaces {
			w.places = make(map[place]*made[T])
		}
		m = new(made[T])
		w.places[at] = m
	} else if last := m.last.Value(); last != nil && visits(last) > 1 {
		m.n = 0
	}
	m.last = weak.Make(site)
	if m.n++; m.n < inARow || w.warned[at.line] {
		return false
	}
	if w.warned == nil {
		w.warned = make(map[uintptr]bool)
	}
	w.warned[at.line] = true
	return true
}

// servesRequest reports whether one of the callers is a ServeHTTP.
func servesRequest(stack []uintptr) bool {
	frames := runtime.CallersFrames(stack)
	for {
		frame, more := frames.Next()
		if strings.HasSuffix(frame.Function, ".ServeHTTP") {
			return true
		}
		if !more {
			return false
		}
	}
}
