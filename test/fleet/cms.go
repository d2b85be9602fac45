package main

import (
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// A cms holds for each page a number that its editors raise. It counts how often
// it was asked, which is how often pages were rendered. It has rows, too, of which
// the pages of the data scenario are made.
type cms struct {
	url    string
	server *http.Server
	start  time.Time

	mu        sync.Mutex // guards all below
	revisions [pageCount]int
	renders   [pageCount][]time.Duration // when each began, since start
	leads     chan int                   // told of the instance that renders next; nil: nobody asks
	rows      [rowCount]int
	fetches   int  // of rows
	failing   bool // a third of the fetches of rows are refused
	down      bool // so that no page can be rendered
}

func startCMS(start time.Time) (*cms, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	c := &cms{url: "http://" + ln.Addr().String(), start: start}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /revision/{page}", c.answer)
	mux.HandleFunc("GET /row/{row}", c.answerRow)
	c.server = &http.Server{Handler: mux}
	go c.server.Serve(ln)
	return c, nil
}

func (c *cms) answer(w http.ResponseWriter, r *http.Request) {
	page, err := strconv.Atoi(r.PathValue("page"))
	if err != nil || page < 0 || page >= pageCount {
		http.NotFound(w, r)
		return
	}
	by, err := strconv.Atoi(r.FormValue("by"))
	if err != nil {
		http.Error(w, "by whom?", http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.down {
		http.Error(w, "the database is down", http.StatusServiceUnavailable)
		return
	}
	c.renders[page] = append(c.renders[page], time.Since(c.start))
	if c.leads != nil {
		c.leads <- by
		c.leads = nil
	}
	fmt.Fprint(w, c.revisions[page])
}

// edit raises the number of a page.
func (c *cms) edit(page int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.revisions[page]++
	return c.revisions[page]
}

// setDown has the database fail, or work again.
func (c *cms) setDown(down bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.down = down
}

// nextLeader returns a channel that is told which instance renders next, while it
// does.
func (c *cms) nextLeader() <-chan int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leads = make(chan int, 1)
	return c.leads
}
