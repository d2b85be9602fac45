//go:build race

package isr_test

// raceEnabled says that the race detector is on: it slows everything down by an
// order of magnitude, and adds allocations of its own.
const raceEnabled = true
