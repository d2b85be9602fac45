package data

import (
	"encoding"
	"encoding/json"
	"reflect"
)

// sizeOf returns about how much memory a value takes that was decoded from JSON. What has
// decoded itself is not looked into: it may stand in a circle, or refer to what is not its
// own, as a time does to its location.
func sizeOf(v reflect.Value) int64 { return int64(v.Type().Size()) + behind(v) }

var decoders = [...]reflect.Type{reflect.TypeFor[json.Unmarshaler](), reflect.TypeFor[encoding.TextUnmarshaler]()}

// decodesItself reports whether a type does not leave that to encoding/json.
func decodesItself(t reflect.Type) bool {
	if t.Kind() == reflect.Interface || t.Name() == "" && t.Kind() != reflect.Struct {
		return false
	}
	for _, d := range decoders {
		if t.Implements(d) || reflect.PointerTo(t).Implements(d) {
			return true
		}
	}
	return false
}

// behind returns what a value refers to.
func behind(v reflect.Value) (n int64) {
	if decodesItself(v.Type()) {
		return 0
	}
	switch v.Kind() {
	case reflect.String:
		return int64(v.Len()+15) &^ 15
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			n = sizeOf(v.Elem())
		}
	case reflect.Slice:
		n = int64(v.Cap()) * int64(v.Type().Elem().Size())
		if isFlat(v.Type().Elem()) {
			return n
		}
		for i := range v.Len() {
			n += behind(v.Index(i))
		}
	case reflect.Array:
		for i := range v.Len() {
			n += behind(v.Index(i))
		}
	case reflect.Map:
		for it := v.MapRange(); it.Next(); {
			n += 16 + sizeOf(it.Key()) + sizeOf(it.Value())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			n += behind(v.Field(i))
		}
	}
	return n
}

// isFlat reports whether values of a type refer to nothing.
func isFlat(t reflect.Type) bool { return t.Kind() >= reflect.Bool && t.Kind() <= reflect.Complex128 }
