package inspect

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// A page on attacker.example can have its name lead to 127.0.0.1 after it was loaded
// (DNS rebinding). To the browser, the inspector that listens there then has the
// page's own origin: it may read it and press its buttons, and Origin and
// Sec-Fetch-Site have nothing to say against that. What gives it away is the Host.

// checkHost returns an error if a request may be one of a page whose name leads here.
func (h *handler) checkHost(r *http.Request) error {
	name := hostname(r.Host)
	switch {
	case isLocal(name), slices.ContainsFunc(h.opts.Hosts, func(host string) bool { return hostname(host) == name }):
		return nil
	case h.opts.Hosts == nil && (!onLoopback(r) || r.Header.Get("Sec-Fetch-Site") != ""):
		return nil
	}
	return fmt.Errorf("the inspector does not answer for the host %q: if it is yours, list it in inspect.Options.Hosts", r.Host)
}

// hostname returns the name in a Host, without its port.
func hostname(host string) string {
	u := url.URL{Host: host}
	return strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))
}

// isLocal reports whether a name is one that nobody else can have lead here: an IP
// address, or localhost.
func isLocal(name string) bool {
	_, err := netip.ParseAddr(name)
	return err == nil || name == "localhost" || strings.HasSuffix(name, ".localhost")
}

// onLoopback reports whether a request has come to an address of this machine alone.
func onLoopback(r *http.Request) bool {
	addr, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	return ok && addr.IP.IsLoopback()
}
