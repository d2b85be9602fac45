// Package edge proves what a reader behind nginx, Varnish or Squid sees after an edit,
// with the real servers in front of a real Site that tells them nothing. See README.md.
package edge
