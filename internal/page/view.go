package page

import (
	"time"

	"github.com/isr-go/isr/internal/invalidation"
	"github.com/isr-go/isr/internal/policy"
	"github.com/isr-go/isr/store"
)

// The states of a page.
type State int

const (
	Fresh       State = iota // served from memory
	Stale                    // served at once, and renewed in the background
	Expired                  // visitors wait for a new one; shown only where that fails
	Uncacheable              // requests go straight to the handler for a while
	Absent      State = -1   // there is no page
)

// A View is what a page is worth at one moment.
type View struct {
	State       State
	Age         time.Duration
	Left        time.Duration // until it turns stale; below zero since it has
	OnError     bool          // whether it may be shown where a new one could not be had
	Invalidated bool          // whether it was invalidated, so that no cache downstream may keep it
}

// View judges the page at a moment, given what the invalidations did to it.
func (p *Page) View(effect store.Effect, now time.Time) View {
	if p == nil {
		return View{State: Absent}
	}
	v := View{Age: max(0, now.Sub(p.Generated)), Invalidated: effect != store.None}
	if p.IsHitForPass {
		v.State = Uncacheable
		if v.Invalidated || v.Age >= HitForPassTTL || p.failures.Load() != nil {
			v.State = Absent
		}
		return v
	}
	v.Left = policy.Forever
	if p.Lifetime.TTL != policy.Forever {
		v.Left = p.Lifetime.TTL - v.Age
	}
	if v.Invalidated {
		v.Left = min(v.Left, -max(0, now.Sub(p.Subject.InvalidatedAt())))
	}
	expired := false // whether its time has come, by isr.Until
	if u := p.Lifetime.Until; u != 0 {
		v.Left = min(v.Left, u-v.Age)
		expired = v.Age >= u
	}
	v.OnError = effect != store.Gone && v.Left > -p.Lifetime.StaleIfError
	standby := p.standby.Load()
	switch {
	case standby != nil && !standby.over && now.Sub(standby.since) < HitForPassTTL:
		v.State = Uncacheable
	case standby != nil:
		v.State = Expired
	case v.Left > 0 && !v.Invalidated:
		v.State = Fresh
	case !expired && effect <= store.Stale && v.Left > -p.Lifetime.StaleWhileRevalidate:
		v.State = Stale
	default:
		v.State = Expired
	}
	return v
}

// IsFresh reports whether the page is fresh now, given what the invalidations did to it.
func (p *Page) IsFresh(effect store.Effect) bool {
	if p != nil && effect == store.None && p.Lifetime.Fresh() == policy.Forever && p.standby.Load() == nil && !p.IsHitForPass {
		return true // whatever the time is
	}
	return p.View(effect, time.Now()).State == Fresh
}

// IsShowable reports whether the page may be shown where a new one could not be had.
func (v View) IsShowable() bool {
	return v.State == Fresh || v.State == Stale || v.OnError
}

// A standby is why a page is not shown, but where the handler fails: visitors have had
// newer answers since.
type standby struct {
	why     policy.Refusal
	since   time.Time
	subject invalidation.Subject // of the generation that said so
	seq     uint64               // which it was
	before  *failureRecord       // the failures before it
	over    bool                 // whether the page was invalidated since: the rest is zero, and the handler is asked again
}

// SetAside keeps a page for errors, while requests go straight to the handler,
// because what came of a run that was to renew it may not be stored. That is no failure:
// those before it are not in a row with those after it. It reports false where there is no
// page to keep.
func (p *Page) SetAside(table *invalidation.Table, mark *Page) bool {
	if p.IsUnknown() || p.Seq > mark.Seq || p.Effect(table) == store.Gone {
		return false
	}
	t := p.failures.Load()
	p.standby.Store(&standby{
		why: mark.NotStored(), since: mark.Generated, subject: invalidation.Subject{Since: mark.Subject.Since}, seq: mark.Seq, before: t,
	})
	if t != nil && t.seq <= mark.Seq {
		p.failures.CompareAndSwap(t, nil) // where it fails, there is a newer one
	}
	return true
}

// Reinstate undoes SetAside by a generation that has failed after all, and reports whether
// it was that which has set the page aside.
func (p *Page) Reinstate(seq uint64) bool {
	mark := p.standby.Load()
	if mark == nil || mark.over || mark.seq != seq || !p.standby.CompareAndSwap(mark, nil) {
		return false
	}
	p.failures.CompareAndSwap(nil, mark.before)
	return true
}

// WhyUncacheable says why requests go straight to the handler, if they do.
func (p *Page) WhyUncacheable(v View) policy.Refusal {
	if mark := p.standby.Load(); mark != nil && v.State == Uncacheable {
		return mark.why
	}
	return p.NotStored()
}

// Failures returns how many attempts to renew the page have failed in a row, and why
// the last one did.
func (p *Page) Failures() (failed int, last error) {
	if t := p.failures.Load(); t != nil {
		return t.failures, t.err
	}
	return 0, nil
}

// HasFailed reports whether the last attempt to make the page has failed.
func (p *Page) HasFailed() bool { return p != nil && p.failures.Load() != nil }

// Expires returns when the page expires whatever else, by isr.Until; zero: never.
func (p *Page) Expires() (at time.Time) {
	if u := p.Lifetime.Until; u != 0 {
		at = p.Generated.Add(u)
	}
	return at
}

// PausedUntil returns until when nothing renews the page that nobody waits for.
func (p *Page) PausedUntil() (until time.Time) {
	if t := p.failures.Load(); t != nil {
		until = t.until
	}
	if left := p.LeftToLeaderUntil.Load(); left > until.UnixNano() {
		until = time.Unix(0, left)
	}
	return until
}

// IsPaused reports whether it is too early for another attempt to renew the page
// that nobody waits for.
func (p *Page) IsPaused(table *invalidation.Table, now time.Time) bool {
	if now.UnixNano() < p.LeftToLeaderUntil.Load() {
		return true
	}
	t := p.failures.Load()
	return t != nil && now.Before(t.until) && p.IsFailing(table)
}
