package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/chromedp/cdproto/audits"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/inspector"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
)

// An exchange is one request and what came of it.
type exchange struct {
	kind        network.ResourceType
	method, url string
	local       bool // whether the browser's own cache answered, and nothing was sent

	// What went over the wire. A page never learns of its 304: to it, that is the
	// 200 that the browser had before.
	request, response http.Header
	status            int
	bytes             int // received, headers included

	failure string
	ended   bool // whether there is no more to come, but for what goes over the wire
}

func (x exchange) String() string {
	if x.local {
		return fmt.Sprintf("%s %s: from the browser's cache", x.method, x.url)
	}
	s := x.method + " " + x.url
	if etag := x.request.Get("If-None-Match"); etag != "" {
		s += " (unless it is " + etag + ")"
	}
	if x.failure != "" {
		return s + ":" + x.failure
	}
	return fmt.Sprintf("%s: %d, Cache-Status %q", s, x.status, x.response.Get("Cache-Status"))
}

// A record is what a tab reports: requests, navigations and errors.
type record struct {
	mu          sync.Mutex // guards all below
	began       []hop      // in this order
	requests    map[network.RequestID]*request
	navigations []navigation
	loaded      map[cdp.LoaderID]bool
	errs        []string
}

// A request is one in the browser's sense: redirects make several exchanges of
// it. The browser reports what went over the wire apart from the rest, earlier or later, but
// in the same order.
type request struct {
	hops     []*exchange
	sent     []http.Header
	received []received
}

type received struct {
	status int
	header http.Header
}

// A hop is the place of an exchange.
type hop struct {
	request *request
	at      int
}

// exchange returns what is known, and whether it is complete.
func (h hop) exchange() (x exchange, ok bool) {
	x = *h.request.hops[h.at]
	if x.local || x.failure != "" || !x.ended {
		return x, x.ended
	}
	if h.at >= len(h.request.sent) || h.at >= len(h.request.received) {
		return x, false
	}
	x.request = h.request.sent[h.at]
	x.status, x.response = h.request.received[h.at].status, h.request.received[h.at].header
	return x, true
}

// A navigation is one step of the tab to another page, or to the same again.
type navigation struct {
	url      string
	loader   cdp.LoaderID
	complete bool // whether there is nothing to be loaded
}

// handle takes the browser's events. chromedp calls it with one event after the
// other, and waits for it.
func (r *record) handle(event any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		if strings.HasPrefix(e.Request.URL, "data:") {
			return // the pages' icon
		}
		req := r.request(e.RequestID)
		if e.RedirectResponse != nil {
			last := req.hops[len(req.hops)-1]
			last.ended, last.local = true, !e.RedirectHasExtraInfo
		}
		req.hops = append(req.hops, &exchange{kind: e.Type, method: e.Request.Method, url: e.Request.URL + e.Request.URLFragment})
		r.began = append(r.began, hop{req, len(req.hops) - 1})
	case *network.EventRequestWillBeSentExtraInfo:
		req := r.request(e.RequestID)
		req.sent = append(req.sent, headerOf(e.Headers))
	case *network.EventResponseReceivedExtraInfo:
		req := r.request(e.RequestID)
		req.received = append(req.received, received{int(e.StatusCode), headerOf(e.Headers)})
	case *network.EventRequestServedFromCache:
		r.last(e.RequestID).local = true
	case *network.EventResponseReceived:
		x := r.last(e.RequestID)
		x.local = x.local || e.Response.FromDiskCache || !e.HasExtraInfo
	case *network.EventLoadingFinished:
		x := r.last(e.RequestID)
		x.ended, x.bytes = true, int(e.EncodedDataLength)
	case *network.EventLoadingFailed:
		x := r.last(e.RequestID)
		x.ended, x.failure = true, " "+e.ErrorText
		if !e.Canceled { // by a visitor who went on before the page was there
			r.addError("%s %s: %s %s", x.method, x.url, e.ErrorText, e.BlockedReason)
		}
	case *page.EventFrameNavigated:
		if e.Frame.ParentID == "" {
			r.navigations = append(r.navigations, navigation{e.Frame.URL, e.Frame.LoaderID, e.Type == page.NavigationTypeBackForwardCacheRestore})
		}
	case *page.EventNavigatedWithinDocument:
		r.navigations = append(r.navigations, navigation{url: e.URL, complete: true})
	case *page.EventLifecycleEvent:
		if e.Name == "load" {
			if r.loaded == nil {
				r.loaded = make(map[cdp.LoaderID]bool)
			}
			r.loaded[e.LoaderID] = true
		}
	case *runtime.EventExceptionThrown:
		r.addError("exception: %s %s", e.ExceptionDetails.Text, describe(e.ExceptionDetails.Exception))
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeWarning || e.Type == runtime.ConsoleAPICalledTypeAssert {
			r.addError("console.%s: %s", e.Type, describe(e.Args...))
		}
	case *log.EventEntryAdded: // where violations of a policy are, and failed requests
		if e.Entry.Level == log.EntryLevelError || e.Entry.Level == log.EntryLevelWarning {
			r.addError("%s %s: %s %s", e.Entry.Source, e.Entry.Level, e.Entry.Text, e.Entry.URL)
		}
	case *audits.EventIssueAdded: // what is against a policy, even where that only reports
		if d := e.Issue.Details; d != nil && d.ContentSecurityPolicyIssueDetails != nil {
			csp := d.ContentSecurityPolicyIssueDetails
			r.addError("%s: %s %s %s", e.Issue.Code, csp.ViolatedDirective, csp.ContentSecurityPolicyViolationType, csp.BlockedURL)
		}
	case *inspector.EventTargetCrashed:
		r.addError("the page has crashed")
	}
}

func (r *record) request(id network.RequestID) *request {
	if r.requests == nil {
		r.requests = make(map[network.RequestID]*request)
	}
	if r.requests[id] == nil {
		r.requests[id] = new(request)
	}
	return r.requests[id]
}

// last returns the exchange that events without a number of their own are about.
// There is none for what is not recorded.
func (r *record) last(id network.RequestID) *exchange {
	if hops := r.request(id).hops; len(hops) > 0 {
		return hops[len(hops)-1]
	}
	return new(exchange)
}

func (r *record) addError(format string, args ...any) {
	r.errs = append(r.errs, strings.TrimSpace(fmt.Sprintf(format, args...)))
}

// errors returns the errors so far.
func (r *record) errors() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.errs)
}

// steps returns how often the tab has gone to a page, and whether it has arrived.
func (r *record) steps() (n int, arrived bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n = len(r.navigations); n == 0 {
		return 0, false
	}
	last := r.navigations[n-1]
	return n, last.complete || r.loaded[last.loader]
}

// mark returns how many exchanges have begun.
func (r *record) mark() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.began)
}

// since returns the exchanges that began after a mark, and whether all of them
// are over.
func (r *record) since(mark int) (all exchanges, over bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	over = true
	for _, h := range r.began[mark:] {
		x, known := h.exchange()
		all = append(all, x)
		over = over && known
	}
	return all, over
}

type exchanges []exchange

// documents returns the exchanges that were for a page as a whole.
func (all exchanges) documents() (docs exchanges) {
	for _, x := range all {
		if x.kind == network.ResourceTypeDocument {
			docs = append(docs, x)
		}
	}
	return docs
}

func headerOf(h network.Headers) http.Header {
	header := make(http.Header)
	for name, values := range h {
		for value := range strings.SplitSeq(fmt.Sprint(values), "\n") { // several lines come as one
			header.Add(name, value)
		}
	}
	return header
}

func describe(objects ...*runtime.RemoteObject) string {
	var words []string
	for _, o := range objects {
		switch {
		case o == nil:
		case o.Description != "":
			words = append(words, o.Description)
		default:
			words = append(words, string(o.Value))
		}
	}
	return strings.Join(words, " ")
}
