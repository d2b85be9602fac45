package isrtest

import (
	"context"
	"net"
	"sync"
)

// A Network is a [net.Listener] whose connections are pipes: a server and a client can use
// it inside a synctest bubble, where sockets would block. Use [NewNetwork].
type Network struct {
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

// NewNetwork returns a network on which nothing is accepted yet.
func NewNetwork() *Network {
	return &Network{conns: make(chan net.Conn), closed: make(chan struct{})}
}

// DialContext connects to the server, whatever the address is. It is what
// [net/http.Transport] wants.
func (n *Network) DialContext(ctx context.Context, _, _ string) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case n.conns <- there:
		return here, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Accept implements [net.Listener].
func (n *Network) Accept() (net.Conn, error) {
	select {
	case conn := <-n.conns:
		return conn, nil
	case <-n.closed:
		return nil, net.ErrClosed
	}
}

// Close implements [net.Listener].
func (n *Network) Close() error {
	n.once.Do(func() { close(n.closed) })
	return nil
}

// Addr implements [net.Listener].
func (n *Network) Addr() net.Addr { return &net.TCPAddr{} }
