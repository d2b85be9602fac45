// Package e2e drives a real browser against examples/blog, and looks at what a
// person would see and at what goes over the wire meanwhile. It is all tests.
package e2e
