package edgekit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/isr-go/isr/internal/header"
)

// A Client asks a product. Its errors begin with Name, and do not contain Secret.
type Client struct {
	Name    string // of the product and of what is asked there: "cloudflare: zone 1234"
	Secret  string
	HTTP    *http.Client             // nil: http.DefaultClient, without redirects
	Explain func(body []byte) string // what the product says in the body of an error; nil: nothing
}

// maxAnswer is how much of an answer is read, and maxReason how much of it is shown.
const (
	maxAnswer = 64 << 10
	maxReason = 300
)

// defaultPause is how long a product gets that is busy and does not say for how long.
const defaultPause = time.Second

// Do makes a request, which is repeated on a new connection where an old one turns out
// to be closed. It returns the answer and its body where the status is 2xx.
func (c *Client) Do(ctx context.Context, method, url string, h http.Header, body []byte) (*http.Response, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, nil, c.Errorf("%v", err)
	}
	maps.Copy(req.Header, h)
	req.Header["Idempotency-Key"] = nil // net/http repeats it then, and sends no such field
	client := http.Client{}
	if c.HTTP != nil {
		client = *c.HTTP
	}
	// What is sent along is for this server alone.
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	res, err := client.Do(req)
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			return nil, nil, c.Errorf("%s %s: no answer in time", method, url)
		}
		return nil, nil, c.Errorf("%v", err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return nil, nil, c.Errorf("%s %s: %s: %v", method, url, res.Status, err)
	}
	if res.StatusCode/100 == 2 {
		return res, answer, nil
	}
	reason := ""
	if c.Explain != nil {
		if reason = c.Explain(answer); reason != "" {
			reason = ": " + reason
		}
	}
	err = c.Errorf("%s %s: %s%s", method, url, res.Status, reason)
	if after := pauseOf(res); after > 0 {
		err = &BusyError{After: after, Err: err}
	}
	return nil, nil, err
}

// pauseOf returns how long a product wants to be left alone.
func pauseOf(res *http.Response) time.Duration {
	switch res.StatusCode {
	case http.StatusTooManyRequests:
	case http.StatusServiceUnavailable:
		return header.RetryAfter(res.Header)
	default:
		return 0
	}
	if after := header.RetryAfter(res.Header); after > 0 {
		return after
	}
	// Fastly: https://www.fastly.com/documentation/reference/api/#rate-limiting
	if at, err := strconv.ParseInt(res.Header.Get("Fastly-RateLimit-Reset"), 10, 64); err == nil {
		if after := time.Until(time.Unix(at, 0)); after > 0 {
			return after
		}
	}
	return defaultPause
}

// Errorf returns an error that names the product, and not the secret.
func (c *Client) Errorf(format string, args ...any) error {
	s := strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, fmt.Sprintf(format, args...))
	if c.Secret != "" {
		s = strings.ReplaceAll(s, c.Secret, "[secret]")
	}
	if len(s) > maxReason {
		s = strings.ToValidUTF8(s[:maxReason], "") + " …"
	}
	return errors.New(c.Name + ": " + s)
}
