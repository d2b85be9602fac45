//go:build !race

package isr_test

const raceEnabled = false
