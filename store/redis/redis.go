// Package redis keeps isr's pages in Redis or Valkey, for a fleet of instances to
// share, and for restarts to outlive: a [store.Store] for isr.Options.Store.
//
//	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{"127.0.0.1:6379"}})
//	if err != nil {
//		return err
//	}
//	site := isr.Wrap(mux, isr.Options{Store: redis.New(client, redis.Options{})})
//
// It needs Redis 6.2, or Valkey, as a single server, with sentinels or as a cluster.
// The README says how to configure the server, what is guaranteed, and what not.
package redis

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/isr-go/isr/store"
	"github.com/isr-go/isr/store/internal/hints"
)

const (
	// maxData is the most that Put takes: a server does one thing at a time, and
	// should not be kept from the others by a page.
	maxData = 1 << 20

	// maxTags is how many invalidations the table holds, of a tag with one effect each; and
	// burst, how many times that it may hold for a while, so that those who follow closely
	// see each of them: what is more recent than recent is forgotten only beyond that.
	maxTags = 1 << 16
	burst   = 4
	recent  = 10 * time.Second

	// epochTags is how many of those that were forgotten are in one filter.
	epochTags = 1 << 16

	// maxAtOnce is how many tags a script invalidates at a time.
	maxAtOnce = 2000

	// maxChanges is about how many of them Changes returns at once.
	maxChanges = 4096

	// forever is the expiry of a record without a TTL. All of them have one, and the
	// table has none: so a server can be told to evict the ones and never the other.
	forever = 365 * 24 * time.Hour

	// fenceTTL is how long the last fence of a key is remembered beyond a lease. It
	// outlives any step of a server's clock that an administrator would not see.
	fenceTTL = time.Hour

	// defaultLookTimeout is five round trips to another city.
	defaultLookTimeout = 250 * time.Millisecond

	// heartbeat is how long Changes waits for something to happen.
	heartbeat = time.Second
)

// Options configure [New] and [Lazy]. The zero value is ready for use.
type Options struct {
	// Prefix begins the name of each key and channel, and keeps apart those who
	// share a server or a cluster: programs of one Prefix share their pages. It must
	// not have braces, which Redis Cluster gives a meaning. Empty means "isr:".
	Prefix string

	// LookTimeout is how long visitors wait for an answer where the server is slow, or
	// hangs, before their page is generated without it. It should be several round trips,
	// since a connection that is new takes some. Zero: 250 ms.
	LookTimeout time.Duration

	// Replicas is how many replicas must have an invalidation before Invalidate
	// returns. Where there are as many, none of them forgets it when it is promoted;
	// where fewer have it after a second, Invalidate returns an error. Zero: it does not
	// wait, and a failover may forget what was invalidated just before it.
	Replicas int
}

// A Store is a [store.Store] on Redis or Valkey. Make it with [New] or [Lazy]. Its
// methods are safe for concurrent use. It starts one goroutine, with a connection for
// pub/sub, while Changes is called, and no other that outlives a call by more than
// the client's own timeouts. At most 256 calls for pages are under way
// at once, and as many others; the next ones wait.
type Store struct {
	conn connection
	// Have one for each call that is under way. Pages are many, and may wait for each other
	// and for nobody else.
	pages, rest chan struct{}
	hints       *hints.Hints

	prefix string
	table  string // the key of the table of versions, and the channel for hints

	lookTimeout time.Duration

	replicas  int
	limit     int           // maxTags, but for tests
	recent    time.Duration // the constant, but for tests
	heartbeat time.Duration // the constant, but for tests

	warm atomic.Bool // whether the server has the script of Look, as far as is known

	// seen is the newest version that any answer had. A server whose table is older
	// has lost a part of it.
	seen atomic.Uint64
}

var (
	_ store.Store         = (*Store)(nil)
	_ store.LookTimeouter = (*Store)(nil)
)

// New returns a Store on a client, which remains the caller's: to close it ends the
// Store. It talks to nobody yet. New panics if client is nil, or if the options are
// malformed.
//
// To make a client, rueidis must reach the server. Where it may be down when the
// program starts, use [Lazy].
func New(client rueidis.Client, opts Options) *Store {
	if client == nil {
		panic("store/redis: New: nil client")
	}
	return newStore("New", func() (rueidis.Client, error) { return client, nil }, opts)
}

// Lazy is New with a client that is made when it is needed. It calls connect, which
// usually is rueidis.NewClient with its option, in the first call of a method; and
// after it has failed, in later ones until it has succeeded, at most once at a time.
// Who is to close the client keeps it. Lazy panics if connect is nil, or if the
// options are malformed.
func Lazy(connect func() (rueidis.Client, error), opts Options) *Store {
	if connect == nil {
		panic("store/redis: Lazy: nil func")
	}
	return newStore("Lazy", connect, opts)
}

func newStore(caller string, connect func() (rueidis.Client, error), opts Options) *Store {
	if strings.ContainsAny(opts.Prefix, "{}") {
		panic(fmt.Sprintf("store/redis: %s: braces in the Prefix %q", caller, opts.Prefix))
	}
	if opts.Replicas < 0 {
		panic(fmt.Sprintf("store/redis: %s: %d Replicas", caller, opts.Replicas))
	}
	if opts.LookTimeout < 0 {
		panic(fmt.Sprintf("store/redis: %s: a LookTimeout of %v", caller, opts.LookTimeout))
	}
	if opts.Prefix == "" {
		opts.Prefix = "isr:"
	}
	s := &Store{
		conn:     connection{connect: connect},
		pages:    make(chan struct{}, maxCalls),
		rest:     make(chan struct{}, maxCalls),
		prefix:   opts.Prefix,
		table:    opts.Prefix + "{versions}",
		replicas: opts.Replicas,

		lookTimeout: cmp.Or(opts.LookTimeout, defaultLookTimeout),
		limit:       maxTags,
		recent:      recent,
		heartbeat:   heartbeat,
	}
	s.hints = hints.New(s.subscribe)
	return s
}

// keys are those of a page, in one slot of a cluster. Its own key is hashed, since
// it may be long, and hostile.
type keys struct{ record, lease, fence string }

func (s *Store) keys(key string) keys {
	sum := sha256.Sum256([]byte(key))
	page := s.prefix + "{" + base64.RawURLEncoding.EncodeToString(sum[:]) + "}"
	return keys{page + "r", page + "l", page + "f"}
}

// Put implements [store.Store]. Data of more than 1 MiB is ErrTooLarge.
func (s *Store) Put(ctx context.Context, key string, t store.Ticket, rec *store.Record) error {
	if len(rec.Data) > maxData {
		s.End(ctx, key, t) // where that fails the lease ends by itself
		return fmt.Errorf("%w: %d bytes, more than %d", store.ErrTooLarge, len(rec.Data), maxData)
	}
	r := *rec
	r.Version, r.Fence = t.Version, t.Fence
	ttl := r.TTL
	if ttl == 0 {
		ttl = forever
	}
	value, err := r.AppendBinary(order(t))
	if err != nil {
		return err
	}
	_, err = call(ctx, s, "put", func(ctx context.Context, client rueidis.Client) (none struct{}, err error) {
		// A wipe after this is found when the record is read.
		_, verdict, err := s.judge(ctx, client, t.Version, nil)
		if err != nil {
			return none, err
		}
		k := s.keys(key)
		if verdict == lost {
			end.Exec(ctx, client, []string{k.lease}, []string{t.Token})
			return none, fmt.Errorf("%w: the history since then is lost", store.ErrSuperseded)
		}
		stored, err := put.Exec(ctx, client, []string{k.record, k.lease},
			[]string{t.Token, rueidis.BinaryString(value), milliseconds(ttl)}).AsIntSlice()
		switch {
		case err != nil:
			return none, err
		case len(stored) != 1:
			return none, errReply
		case stored[0] == 0:
			return none, store.ErrSuperseded
		}
		return none, nil
	})
	return err
}

// orderSize is the size of what order returns.
const orderSize = 40

// order returns what tickets compare by, as a string.
func order(t store.Ticket) []byte {
	return fmt.Appendf(nil, "%020d%020d", t.Version, t.Fence)
}

// End implements [store.Store].
func (s *Store) End(ctx context.Context, key string, t store.Ticket) error {
	if t.Token == "" {
		return ctx.Err()
	}
	_, err := call(ctx, s, "end", func(ctx context.Context, client rueidis.Client) (none struct{}, err error) {
		return none, end.Exec(ctx, client, []string{s.keys(key).lease}, []string{t.Token}).Error()
	})
	return err
}

// milliseconds returns a duration as commands take it: at least one, and no less
// than it is.
func milliseconds(d time.Duration) string {
	return strconv.FormatInt(max(int64((d+time.Millisecond-1)/time.Millisecond), 1), 10)
}
