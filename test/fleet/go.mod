module github.com/isr-go/isr/test/fleet

go 1.25.0

require (
	github.com/isr-go/isr v0.0.0
	github.com/isr-go/isr/store/postgres v0.0.0
	github.com/isr-go/isr/store/redis v0.0.0
	github.com/jackc/pgx/v5 v5.7.6
	github.com/redis/rueidis v1.0.70
)

require (
	github.com/hashicorp/golang-lru/v2 v2.0.7 // indirect
	github.com/jackc/pgpassfile v1.0.0 // indirect
	github.com/jackc/pgservicefile v0.0.0-20240606120523-5a60cdf6a761 // indirect
	github.com/jackc/puddle/v2 v2.2.2 // indirect
	golang.org/x/crypto v0.37.0 // indirect
	golang.org/x/sync v0.19.0 // indirect
	golang.org/x/sys v0.39.0 // indirect
	golang.org/x/text v0.32.0 // indirect
)

replace (
	github.com/isr-go/isr => ../..
	github.com/isr-go/isr/store/postgres => ../../store/postgres
	github.com/isr-go/isr/store/redis => ../../store/redis
)
