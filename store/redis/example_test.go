package redis_test

import (
	"log"
	"net/http"
	"time"

	"github.com/redis/rueidis"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/store/redis"
)

func Example() {
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{"127.0.0.1:6379"}})
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /time", func(w http.ResponseWriter, r *http.Request) { w.Write([]byte(time.Now().String())) })
	site := isr.Wrap(mux, isr.Options{
		Default: isr.Route{TTL: time.Minute},
		Origin:  "http://localhost:8080",
		Store:   redis.New(client, redis.Options{Prefix: "blog:"}),
	})
	log.Fatal(http.ListenAndServe("localhost:8080", site))
}

// The program starts, and serves, whether or not it can reach Redis.
func ExampleLazy() {
	option := rueidis.ClientOption{InitAddress: []string{"127.0.0.1:6379"}}
	pages := redis.Lazy(func() (rueidis.Client, error) { return rueidis.NewClient(option) }, redis.Options{Prefix: "blog:"})

	site := isr.Wrap(http.FileServer(http.Dir("public")), isr.Options{Store: pages})
	log.Fatal(http.ListenAndServe("localhost:8080", site))
}
