package main

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/isr-go/isr"
)

// A scenario is what happens to a fleet, and how it has to bear it. In all of them
// visitors see no error, and no page of another build.
type scenario struct {
	name, about string
	only        string                                                          // engine that it is for; empty: all
	noServer    bool                                                            // when it begins
	neverAcked  bool                                                            // no purge can be acknowledged
	data        bool                                                            // pages are made of rows, as in data.go
	calm        bool                                                            // nobody edits
	mixes       bool                                                            // pages of another build may be shown
	rollout                                                                     // of all instances
	visitors    int                                                             // at a time; zero: visitorCount
	fault       func(ctx context.Context, f *fleet, length time.Duration) error // nil: none

	// Bars; zero: none.
	maxRenders float64       // for each that is needed
	maxLag     time.Duration // until a purge is seen everywhere, at the 99th percentile
	maxWorst   time.Duration // the same of each purge
	maxWait    time.Duration // of the slowest request, beside the rendering
	neverWaits bool          // no visitor waits for a page, once each instance of the first build has all
}

// pushless is how soon a purge has to be seen where there is no push, or not all
// the time.
const pushless = 1500 * time.Millisecond

var scenarios = []scenario{
	{
		name: "healthy", about: "nothing is broken",
		maxRenders: 1.2, maxLag: 50 * time.Millisecond,
	},
	{
		name: "cut", about: "each subscription is cut as soon as it is there",
		fault: cut, maxWorst: pushless,
	},
	{
		name: "forbidden", about: "an ACL forbids to subscribe",
		only: "redis", fault: forbid, maxWorst: pushless,
	},
	{
		name: "hung", about: "the server is stopped for a third of the time, and then goes on",
		fault: hang, maxWorst: pushless, maxWait: 500 * time.Millisecond,
	},
	{
		name: "killed", about: "the server is killed, and started a sixth of the time later; it has its purges still, and no pages",
		only: "postgres", fault: killServer, maxWorst: pushless,
	},
	{
		name: "wiped", about: "the server is killed, and a sixth of the time later an empty one is there",
		fault: wipe, maxWorst: pushless,
	},
	{
		name: "absent", about: "there is no server at all",
		noServer: true, neverAcked: true,
	},
	{
		name: "late", about: "the server is started when a third of the time is over",
		noServer: true, fault: startLate, maxWorst: pushless,
	},
	{
		name: "leader", about: "again and again an instance is killed while it renders, and another one started",
		fault: killLeaders, maxWorst: pushless,
	},
	{
		name: "deploy", about: "one instance after another is replaced by one of a new build",
		fault: deploy, maxWorst: pushless,
	},
	{
		name: "warm", about: "a new build is warmed, instance after instance, and then the old one is warmed again",
		fault: rollBack, visitors: crowd, rollout: rollout{warm: true}, calm: true, neverWaits: true,
	},
	{
		name: "database", about: "the database is down, and stays so while a new build is deployed",
		fault: deployWithoutDatabase, visitors: crowd, rollout: rollout{isr.InheritOnError, true}, calm: true, mixes: true,
	},
	{
		name: "inherit", about: "a new build shows what the old one has left, and renews it; nobody warms it",
		fault: deploy, visitors: crowd, rollout: rollout{inherit: isr.InheritStale}, mixes: true, maxWorst: pushless,
	},
	{
		name: "fallback", about: "a new build may show what the old one has left, but only on errors, and there are none",
		fault: deploy, visitors: crowd, rollout: rollout{inherit: isr.InheritOnError}, maxWorst: pushless,
	},
	{
		name: "data", about: "pages are made of shared values; the CMS fails at times, the server is stopped, and later replaced by an empty one",
		data: true, maxWorst: pushless, maxWait: 2500 * time.Millisecond, // a lease from before it is stopped holds others up for two seconds
	},
}

// isFor reports whether a scenario is one for an engine.
func (sc scenario) isFor(e *engine) bool { return sc.only == "" || sc.only == e.name }

// play is one scenario from its beginning to its end.
func play(ctx context.Context, sc scenario, e *engine, length time.Duration, logging bool) (r *result, err error) {
	if sc.data {
		r, err = playData(ctx, sc, e, length, logging)
	} else {
		r, err = playPages(ctx, sc, e, length, logging)
	}
	if err != nil {
		return nil, fmt.Errorf("%s, %s: %w", sc.name, e.name, err)
	}
	r.store = e.name
	return r, nil
}

func playPages(ctx context.Context, sc scenario, e *engine, length time.Duration, logging bool) (*result, error) {
	f, err := newFleet(ctx, e, sc.rollout, !sc.noServer, logging)
	if err != nil {
		return nil, err
	}
	defer f.stop()
	l := &load{fleet: f, visitors: cmp.Or(sc.visitors, visitorCount), calm: sc.calm}
	var fault func(context.Context, *fleet) error
	if sc.fault != nil {
		fault = func(ctx context.Context, f *fleet) error { return sc.fault(ctx, f, length) }
	}
	if err := l.run(ctx, length, fault); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return judge(sc, l), nil
}

func cut(ctx context.Context, f *fleet, _ time.Duration) error {
	for sleep(ctx, 10*time.Millisecond) {
		if err := f.server.cut(); err != nil {
			return err
		}
	}
	return nil
}

func forbid(ctx context.Context, f *fleet, _ time.Duration) error {
	return f.server.(*redisServer).do("ACL SETUSER default -subscribe -psubscribe -ssubscribe", "CLIENT KILL TYPE pubsub")
}

func hang(ctx context.Context, f *fleet, length time.Duration) error {
	if !sleep(ctx, length/4) {
		return nil
	}
	return pause(ctx, f, length/3)
}

// pause stops the server for a while.
func pause(ctx context.Context, f *fleet, length time.Duration) error {
	return f.without(func() error {
		if err := f.server.signal("STOP"); err != nil {
			return err
		}
		sleep(ctx, length)
		return f.server.signal("CONT")
	})
}

func wipe(ctx context.Context, f *fleet, length time.Duration) error {
	if !sleep(ctx, length/4) {
		return nil
	}
	return swap(ctx, f, length/6)
}

// swap kills the server, and puts an empty one in its place a while later.
func swap(ctx context.Context, f *fleet, pause time.Duration) error {
	return f.without(func() error {
		f.server.kill()
		sleep(ctx, pause)
		if err := f.server.empty(); err != nil {
			return err
		}
		return runLate(ctx, f.server)
	})
}

// runLate starts a server without the deadline of the scenario.
func runLate(ctx context.Context, s server) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	return s.run(ctx)
}

func killServer(ctx context.Context, f *fleet, length time.Duration) error {
	if !sleep(ctx, length/4) {
		return nil
	}
	return f.without(func() error {
		f.server.kill()
		sleep(ctx, length/6)
		return runLate(ctx, f.server)
	})
}

func startLate(ctx context.Context, f *fleet, length time.Duration) error {
	if !sleep(ctx, length/3) {
		return nil
	}
	return runLate(ctx, f.server)
}

func killLeaders(ctx context.Context, f *fleet, length time.Duration) error {
	for sleep(ctx, length/8) {
		select {
		case i := <-f.cms.nextLeader():
			f.kill(i)
			sleep(ctx, length/20)
			if err := f.launch(i, "v1"); err != nil {
				return err
			}
		case <-ctx.Done():
		}
	}
	return nil
}

func deploy(ctx context.Context, f *fleet, length time.Duration) error {
	return roll(ctx, f, "v2", length/8)
}

// rollBack deploys a build, and then the first one again.
func rollBack(ctx context.Context, f *fleet, length time.Duration) error {
	if err := roll(ctx, f, "v2", length/16); err != nil {
		return err
	}
	return roll(ctx, f, "v1", length/16)
}

func deployWithoutDatabase(ctx context.Context, f *fleet, length time.Duration) error {
	f.cms.setDown(true)
	return roll(ctx, f, "v2", length/8)
}

// roll replaces one instance after the other, with a pause before each.
func roll(ctx context.Context, f *fleet, build string, pause time.Duration) error {
	for i := range fleetSize {
		if !sleep(ctx, pause) {
			return nil
		}
		// Without the deadline of the scenario: an old build is not left behind.
		if err := f.replace(context.WithoutCancel(ctx), i, build); err != nil {
			return err
		}
	}
	return nil
}
