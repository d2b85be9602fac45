package flight

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// The context package holds a mutex while it asks to be told of the end of a context,
// and takes it when it is told. The context may have ended since it has looked: the
// last visitor leaves just before the handler is called.
func TestContextEndsWhileDeriving(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := newDeadlineContext(time.Now().Add(time.Hour), t.Context(), nil)
		ctx.cancel(context.Canceled)
		told, held := false, make(chan struct{}, 1)
		held <- struct{}{}
		ctx.AfterFunc(func() {
			held <- struct{}{}
			told = true
		})
		<-held
		synctest.Wait()
		if !told {
			t.Error("nobody was told")
		}
	})
}
